//! A node that really boots: Debian with its own systemd as process 1, its own D-Bus, its own
//! network namespace, in `systemd-nspawn`. What a unit file promises (ordering, watchdog, sandbox,
//! what a restart leaves alone) can only be seen under the real thing, and a boot costs half a
//! second here.
//!
//! `prepare` makes disk and network, so that servers can listen on `host_ip` and files be written
//! before anything runs; `boot` switches the power on, `power_off` and `kill_power` off again,
//! with the disk kept; `Drop` removes all of it. Several machines, of several processes, run side
//! by side.

mod cgroup;
mod command;
mod disk;
mod lan;
mod namespace;
mod network;
mod nspawn;
mod slot;
mod units;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use command::Output;
pub use lan::Lan;

use cgroup::Cgroup;
use disk::Disk;
use network::Network;
use nspawn::Nspawn;
use slot::Slot;

/// systemd reaches its first target in 0.5 s on an idle machine; a build next to it may cost a
/// hundred times that before a failure is worth more than patience.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// A clean power off takes 2 s, plus up to 10 s of a unit that ignores SIGTERM.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);
/// What one command in the machine may take unless told otherwise.
const EXEC_LIMIT: Duration = Duration::from_secs(30);
/// Where a command in the machine looks for programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Writes standard input to a file; nobody but its reader sees it before it is whole.
const PUT: &str = r#"umask 022 && mkdir -p "$(dirname "$1")" && umask 077 &&
cat > "$1.put" && chmod "$2" "$1.put" && mv -T "$1.put" "$1""#;

/// What went wrong with a machine, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineError(String);

impl MachineError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MachineError {}

/// The result of everything that a machine does.
pub type Result<T> = std::result::Result<T, MachineError>;

/// What is on the disk of a new machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Debian with systemd and D-Bus.
    Base,
    /// The same with kubelet, containerd, runc, etcd and the images of a control plane; see
    /// `peer::kube`.
    Kube,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Kube => "kube",
        }
    }
}

/// What a machine is made with.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// Its host name.
    pub name: String,
    /// What is on its disk.
    pub flavour: Flavour,
    /// Files or directories of the host that it sees, read-only: (on the host, in the machine).
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Directories of the host that are volumes of the machine, mounted before it boots:
    /// (on the host, in the machine).
    pub volumes: Vec<(PathBuf, PathBuf)>,
    /// The network that it shares with other machines; one of its own where there is none.
    pub lan: Option<Arc<Lan>>,
}

impl MachineOptions {
    /// A machine of that host name and flavour that sees nothing of the host.
    #[must_use]
    pub fn new(name: &str, flavour: Flavour) -> Self {
        let (binds, volumes) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), flavour, binds, volumes, lan: None }
    }

    /// The same with `host` (a file or a directory of the host) to be seen read-only at `inside`.
    #[must_use]
    pub fn bind(mut self, host: &Path, inside: &str) -> Self {
        self.binds.push((host.to_owned(), inside.into()));
        self
    }

    /// The same with `host`, a directory of the host, mounted at `inside`.
    #[must_use]
    pub fn volume(mut self, host: &Path, inside: &str) -> Self {
        self.volumes.push((host.to_owned(), inside.into()));
        self
    }

    /// The same, plugged into a network that it shares with other machines.
    #[must_use]
    pub fn on(mut self, lan: &Arc<Lan>) -> Self {
        self.lan = Some(Arc::clone(lan));
        self
    }
}

/// A machine with a disk and a network, running or not.
#[derive(Debug)]
pub struct Machine {
    options: MachineOptions,
    running: Option<Nspawn>,
    // Dropped in this order: the processes go before the disk, the slot, which lets another process
    // use these names, last.
    cgroup: Cgroup,
    disk: Disk,
    network: Network,
    _slot: Slot,
}

impl Machine {
    /// Why no machine can run here; `None` where one can.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        if !nix::unistd::Uid::effective().is_root() {
            return Some("machines need root".to_owned());
        }
        let missing = |program: &&str| {
            let found = |dir: &str| Path::new(dir).join(program).exists();
            !PATH.split(':').any(found)
        };
        let needed = ["systemd-nspawn", "debootstrap", "ip", "nsenter", "chroot"];
        let program = needed.iter().find(|program| missing(program))?;
        Some(format!("machines need the program {program}"))
    }

    /// Whether machines run here. Where they do not, the reason is printed, and where
    /// `NODEAGENT_TESTS_MUST_RUN=1` it is a panic: a test that was skipped in CI proves nothing.
    #[must_use]
    pub fn available() -> bool {
        let Some(reason) = Self::unavailable() else {
            return true;
        };
        let must = std::env::var_os("NODEAGENT_TESTS_MUST_RUN").is_some_and(|value| value == "1");
        assert!(!must, "{reason}, and NODEAGENT_TESTS_MUST_RUN=1");
        eprintln!("skipped: {reason}");
        false
    }

    /// Makes the disk and the network of a machine and leaves it switched off. The first call on a
    /// host makes the root file system (a minute or two), later ones take milliseconds.
    pub fn prepare(options: MachineOptions) -> Result<Self> {
        if let Some(reason) = Self::unavailable() {
            return Err(MachineError::new(reason));
        }
        let layers = disk::layers(options.flavour.name())?;
        let slot = Slot::take()?;
        Ok(Self {
            cgroup: Cgroup::make(&slot)?,
            disk: Disk::make(&slot, &layers)?,
            network: Network::make(&slot, options.lan.as_ref())?,
            running: None,
            options,
            _slot: slot,
        })
    }

    /// Switches the machine on and returns when its systemd has reached `basic.target`: the units
    /// of `multi-user.target` are being started then, in their order; `settled` waits for them.
    pub fn boot(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Err(self.error("it runs already"));
        }
        self.cgroup.renew()?;
        let nspawn = Nspawn::spawn(&self.options, &self.disk, &self.network, &self.cgroup)?;
        self.running = Some(nspawn);
        let deadline = Instant::now() + BOOT_LIMIT;
        loop {
            self.running_mut()?.find_init()?;
            let up = ["systemctl", "is-active", "basic.target"];
            if self.init().is_some() && self.exec(&up)?.stdout.trim() == "active" {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let console = self.disk.console();
                return Err(
                    self.error(&format!("not up in {BOOT_LIMIT:?}; its console: {console}"))
                );
            }
            pause();
        }
    }

    /// Waits until no job is queued any more and says how systemd sees itself: `running`, or
    /// `degraded` where a unit failed.
    pub fn settled(&self, limit: Duration) -> Result<String> {
        wait_for("systemd has started everything", limit, || {
            let state = self.exec(&["systemctl", "is-system-running"]).ok()?;
            let state = state.stdout.trim().to_owned();
            matches!(state.as_str(), "running" | "degraded").then_some(state)
        })
    }

    /// Runs a command in the running machine, for 30 s at most.
    pub fn exec(&self, argv: &[&str]) -> Result<Output> {
        self.exec_within(EXEC_LIMIT, argv)
    }

    /// Runs a command in the running machine, for `limit` at most.
    pub fn exec_within(&self, limit: Duration, argv: &[&str]) -> Result<Output> {
        let init = self.init().ok_or_else(|| self.error("it is off"))?;
        command::run(enter(init, argv), limit, &[])
    }

    /// Runs a command that has to succeed and returns what it printed.
    pub fn exec_ok(&self, argv: &[&str]) -> Result<String> {
        self.exec(argv)?.ok(argv)
    }

    /// An interactive shell in the running machine, to be spawned with the caller's terminal.
    pub fn shell(&self) -> Result<Command> {
        let init = self.init().ok_or_else(|| self.error("it is off"))?;
        let mut shell = enter(init, &["bash", "--login"]);
        shell.env("TERM", std::env::var_os("TERM").unwrap_or("dumb".into()));
        Ok(shell)
    }

    /// Puts a file of this mode (octal, `0o644`) in place by a rename, with the directories above
    /// it; root owns it. Works on a machine that is off as well.
    pub fn write(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let mode = format!("{mode:o}");
        let argv = ["sh", "-c", PUT, "put", path, &mode];
        command::run(self.inside(&argv), EXEC_LIMIT, bytes)?.ok(&["write", path])?;
        Ok(())
    }

    /// The bytes of a file. Works on a machine that is off as well.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let argv = ["cat", "--", path];
        command::run(self.inside(&argv), EXEC_LIMIT, &[])?.ok_bytes(&argv)
    }

    /// Shuts the machine down as an operator would; the disk stays.
    pub fn power_off(&mut self) -> Result<()> {
        self.exec(&["systemctl", "--no-block", "poweroff"])?;
        let stopped = self.running_mut()?.wait(POWER_OFF_LIMIT);
        self.kill_power()?;
        stopped.map_err(|error| self.error(&format!("power off: {error}")))
    }

    /// Takes the power away: every process of the machine is gone at once, nothing is stopped or
    /// written; the disk stays. What was written but not fsynced survives all the same, because the
    /// host's page cache does.
    pub fn kill_power(&mut self) -> Result<()> {
        self.cgroup.kill()?;
        match self.running.take() {
            Some(nspawn) => nspawn.reap(),
            None => Ok(()),
        }
    }

    /// Shuts down and boots again.
    pub fn reboot(&mut self) -> Result<()> {
        self.power_off()?;
        self.boot()
    }

    /// Whether it is switched on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// The address of the host in the machine's network: where the rig's servers listen for it.
    #[must_use]
    pub fn host_ip(&self) -> Ipv4Addr {
        self.network.host
    }

    /// The address of the machine, reachable from the host.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.network.node
    }

    /// Cuts it off from another machine of its network, both ways and silently; the host still
    /// reaches both. A reboot changes nothing about it.
    pub fn cut_from(&self, other: &Machine) -> Result<()> {
        self.network.silence(other.ip())?;
        other.network.silence(self.ip())
    }

    /// Takes that back.
    pub fn join_again(&self, other: &Machine) -> Result<()> {
        self.network.unsilence(other.ip())?;
        other.network.unsilence(self.ip())
    }

    /// Its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The root of its disk on the host, on or off. `/run`, `/tmp`, `/proc` of a running machine
    /// are not in there (`read` sees them), and absolute links in it lead into the host.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.disk.root()
    }

    /// The name of its cgroup on the host, below which all of its processes are.
    #[must_use]
    pub fn cgroup_name(&self) -> &str {
        self.network.name()
    }

    /// The process id, on the host, of the machine's process 1; `None` while it is off.
    #[must_use]
    pub fn init(&self) -> Option<u32> {
        self.running.as_ref().and_then(Nspawn::init)
    }

    fn inside(&self, argv: &[&str]) -> Command {
        match self.init() {
            Some(init) => enter(init, argv),
            None => prefixed("chroot", &[&self.disk.root().to_string_lossy()], argv),
        }
    }

    fn running_mut(&mut self) -> Result<&mut Nspawn> {
        let name = &self.options.name;
        let off = || MachineError::new(format!("machine {name}: it is off"));
        self.running.as_mut().ok_or_else(off)
    }

    fn error(&self, text: &str) -> MachineError {
        MachineError::new(format!("machine {}: {text}", self.options.name))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.kill_power() {
            eprintln!("{error}");
        }
    }
}

/// Asks `probe` again and again until it has an answer, for `limit` at most; the error says `what`
/// was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(MachineError::new(format!("waited {limit:?} in vain until {what}")));
        }
        pause();
    }
}

/// Between two looks at something that another process does: short against what is waited for, long
/// against the 3 ms that a look costs.
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn enter(init: u32, argv: &[&str]) -> Command {
    prefixed("nsenter", &["--target", &init.to_string(), "--all", "--"], argv)
}

/// A command with the environment of a machine, not that of the test.
fn prefixed(program: &str, prefix: &[&str], argv: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(prefix).args(argv);
    command.env_clear().env("PATH", PATH);
    command.env("LANG", "C.UTF-8").env("SYSTEMD_COLORS", "0");
    command
}

fn tail(text: &str, bytes: usize) -> &str {
    let start = text.len().saturating_sub(bytes);
    let start = (start..text.len()).find(|&at| text.is_char_boundary(at));
    &text[start.unwrap_or(text.len())..]
}

//! One life of a machine, from power on to power off: the systemd-nspawn process, and the process 1
//! that it starts.

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use super::cgroup::Cgroup;
use super::disk::Disk;
use super::network::Network;
use super::{MachineError, MachineOptions, Result, command, wait_for};

/// A killed process goes in milliseconds; one in the middle of a flush to a slow disk takes longer.
const KILLED_LIMIT: Duration = Duration::from_secs(20);

/// A running machine.
#[derive(Debug)]
pub(super) struct Nspawn {
    child: Child,
    init: Option<u32>,
}

impl Nspawn {
    /// Starts it in the machine's cgroup. A shell joins that cgroup and becomes systemd-nspawn: a
    /// process that joined later would leave behind what it had started by then.
    pub(super) fn spawn(
        options: &MachineOptions,
        disk: &Disk,
        network: &Network,
        cgroup: &Cgroup,
    ) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", JOIN, "sh"]);
        command.args(cgroup.procs()).arg("--");
        command.args(arguments(options, disk, network));
        environment(&mut command);
        let failed = |error| MachineError::new(format!("systemd-nspawn: {error}"));
        let child = command::detached(&mut command, disk.console_log()?).map_err(failed)?;
        Ok(Self { child, init: None })
    }

    /// The process id of the machine's process 1 on the host, once there is one.
    pub(super) fn init(&self) -> Option<u32> {
        self.init
    }

    /// Looks for process 1 where it is not known yet: the child of systemd-nspawn that is number 1
    /// in a namespace of its own. Errors where systemd-nspawn has given up.
    pub(super) fn find_init(&mut self) -> Result<()> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(MachineError::new(format!("systemd-nspawn gave up: {status}")));
        }
        if self.init.is_none() {
            let pid = self.child.id();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.unwrap_or_default();
            let mut pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
            self.init = pids.find(|&pid| is_init(pid));
        }
        Ok(())
    }

    /// Waits for it to end by itself.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<()> {
        match command::wait_child(&mut self.child, limit) {
            Ok(true) => Ok(()),
            Ok(false) => Err(MachineError::new(format!("still on after {limit:?}"))),
            Err(error) => Err(MachineError::new(format!("systemd-nspawn: {error}"))),
        }
    }

    /// Waits for the end of processes that have been killed. They are out of their cgroup before
    /// they are gone, and hold the disk until then; process 1 is the last of its namespace to go.
    pub(super) fn reap(mut self) -> Result<()> {
        self.wait(KILLED_LIMIT)?;
        let Some(init) = self.init else { return Ok(()) };
        let what = format!("process {init}, the machine's process 1, is gone");
        wait_for(&what, KILLED_LIMIT, || is_gone(init).then_some(()))
    }
}

/// The arguments up to `--` are files to write the own process id to, the rest is the command.
const JOIN: &str = r#"
while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done
shift
exec "$@""#;

fn arguments(options: &MachineOptions, disk: &Disk, network: &Network) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        // No systemd-machined on the host is asked, and no scope of the host's systemd is made.
        "--register=no",
        "--keep-unit",
        // The kubelet and runc mount, trace and make device nodes.
        "--capability=all",
        // The clock and the modules are the host's, in no namespace.
        "--drop-capability=CAP_SYS_TIME,CAP_SYS_MODULE",
        "--console=read-only",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--directory={}", disk.root().display()));
    arguments.push(format!("--network-namespace-path={}", network.path().display()));
    // Two tests may both have a machine whose host name is node0; systemd-nspawn keeps files by the
    // machine's name.
    arguments.push(format!("--machine={}", network.name()));
    arguments.push(format!("--hostname={}", options.name));
    for (host, inside) in &options.binds {
        let (host, inside) = (host.display(), inside.display());
        arguments.push(format!("--bind-ro={host}:{inside}"));
    }
    for (host, inside) in &options.volumes {
        arguments.push(format!("--bind={}:{}", host.display(), inside.display()));
    }
    arguments
}

fn environment(command: &mut Command) {
    command
        // One pure cgroup2 tree inside, delegated and without controllers: the kubelet then takes
        // its cgroup2 path, where it does not ask which controllers exist. Otherwise
        // systemd-nspawn mounts what the host has, and on a host with version 1 hierarchies the
        // kubelet would write into the host's own.
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        // /proc/sys/net and the rest of the network's settings may be written, the kernel's may
        // not: with `yes` the kubelet would change kernel.panic and vm.overcommit_memory of the
        // host.
        .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")
        // systemd-nspawn's own system call filter forbids what runc needs (bpf, keyctl).
        .env("SYSTEMD_SECCOMP", "0");
}

fn is_init(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let ids: Vec<&str> = ids.unwrap_or_default().split_whitespace().collect();
    ids.len() > 1 && ids.last() == Some(&"1")
}

/// Gone, or dead and not yet collected by the host's process 1.
fn is_gone(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.map_or(true, |status| status.contains("State:\tZ"))
}

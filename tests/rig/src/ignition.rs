//! The real Ignition, stage by stage, on the disk of a machine that is still switched off and in
//! that machine's network: as on a first boot, only that the initramfs is the host. The names of S3
//! lead to the model, in a mount namespace of its own with another /etc/hosts.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::peer::process::find;
use crate::s3::S3;

/// Between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(20);
/// Enough of a log for everything that Ignition says about one configuration; it prints the whole
/// configuration where a stage fails.
const LOG_LIMIT: usize = 1 << 20;
/// Arguments: the file that takes the place of /etc/hosts, then the program.
const WITH_HOSTS: &str = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What of Ignition is run. Partitions, file systems and mounts are left out: a machine of the rig
/// has no block devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Gets the user data and everything that it refers to as configuration.
    Fetch,
    /// Writes files, links and units.
    Files,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Fetch => "fetch",
            Stage::Files => "files",
        }
    }
}

/// Ignition for one machine. Its state between the stages goes when it is dropped.
#[derive(Debug)]
pub struct Ignition {
    program: PathBuf,
    namespace: PathBuf,
    root: PathBuf,
    state: tempfile::TempDir,
}

/// Where the program is, or what to do to have it.
pub fn program() -> Result<PathBuf, String> {
    find("ignition", "ignition")
}

impl Ignition {
    /// For a machine whose network leads to this S3.
    pub fn of(machine: &Machine, s3: &S3) -> Result<Ignition, String> {
        let program = program()?;
        let state = tempfile::tempdir().map_err(text)?;
        let hosts = format!("127.0.0.1 localhost\n{}", s3.hosts());
        std::fs::write(state.path().join("hosts"), hosts).map_err(text)?;
        std::fs::write(state.path().join("ca.pem"), s3.ca_pem()).map_err(text)?;
        let (namespace, root) = (machine.namespace(), machine.root().to_owned());
        Ok(Ignition { program, namespace, root, state })
    }

    /// Starts a stage.
    pub fn start(&self, stage: Stage) -> Result<Run, String> {
        let at = |name: &str| self.state.path().join(name);
        let path = at(&format!("{}.log", stage.name()));
        let log = File::create(&path).map_err(text)?;
        let errors = log.try_clone().map_err(text)?;
        let mut command = Command::new("nsenter");
        command
            .arg(with("--net=", &self.namespace))
            .args(["unshare", "--mount", "--propagation=private", "sh", "-c", WITH_HOSTS, "sh"])
            .arg(at("hosts"))
            .arg(&self.program)
            .args(["--platform=aws", "--log-to-stdout"])
            .arg(format!("--stage={}", stage.name()))
            .arg(with("--root=", &self.root))
            .arg(with("--config-cache=", &at("config.json")))
            .arg(with("--state-file=", &at("state.json")))
            .arg(with("--neednet=", &at("neednet")));
        // No proxy and no credentials of whoever runs the tests.
        command.env_clear().env("PATH", PATH).env("SSL_CERT_FILE", at("ca.pem"));
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().map_err(|error| format!("starting ignition: {error}"))?;
        Ok(Run { child, log: path, stage })
    }

    /// The configuration as Ignition understood it, merged; empty before a fetch has passed.
    #[must_use]
    pub fn config(&self) -> serde_json::Value {
        let bytes = std::fs::read(self.state.path().join("config.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

/// A stage that runs; dropping it kills it.
#[derive(Debug)]
pub struct Run {
    child: Child,
    log: PathBuf,
    stage: Stage,
}

impl Run {
    /// Waits until it has ended; the error says after how long it had not, and what it says.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().map_err(text)? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let (stage, log) = (self.stage.name(), self.log());
                return Err(format!("ignition {stage} runs for {limit:?}, and says:\n{log}"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The same, where it has to succeed.
    pub fn pass(&mut self, limit: Duration) -> Result<(), String> {
        match self.wait(limit)? {
            status if status.success() => Ok(()),
            status => Err(format!("ignition {}: {status}:\n{}", self.stage.name(), self.log())),
        }
    }

    /// The same, where it has to fail by itself; gives what it says.
    pub fn refuse(&mut self, limit: Duration) -> Result<String, String> {
        let status = self.wait(limit)?;
        if status.success() || status.signal().is_some() {
            return Err(format!("ignition {}: {status}:\n{}", self.stage.name(), self.log()));
        }
        Ok(self.log())
    }

    /// Waits until it says this.
    pub fn wait_says(&mut self, words: &str, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        while !self.log().contains(words) {
            let ended = self.child.try_wait().map_err(text)?.is_some();
            if Instant::now() >= deadline || (ended && !self.log().contains(words)) {
                return Err(format!("ignition never says '{words}', but:\n{}", self.log()));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[..bytes.len().min(LOG_LIMIT)]).into_owned()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn with(option: &str, path: &Path) -> String {
    format!("{option}{}", path.display())
}

fn text(error: io::Error) -> String {
    error.to_string()
}

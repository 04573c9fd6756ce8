//! The stage: everything that one node needs, on loopback and in a private root directory, with
//! the real agent binary run on it. Scenarios, the sandbox and the benchmarks share it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::aws::imds::Imds;
use crate::aws::{Aws, LaunchSpec};
use crate::clock::ModelClock;
use crate::consumer::{Consumer, Mode};
use crate::peer::vault::RealVault;
use crate::proxy::Proxy;
use crate::setup::{self, Admin, Configured, SetupOptions, VaultHandle};
use crate::systemd::{ActiveState, Systemd};
use crate::vault::{Model, ModelOptions};

/// Which Vault plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The model.
    Model,
    /// The real one.
    Real,
}

/// The Vault that plays.
#[derive(Debug)]
pub enum Peer {
    /// The model.
    Model(Box<Model>),
    /// The real one.
    Real(Box<RealVault>),
}

impl Peer {
    /// How to reach it.
    #[must_use]
    pub fn handle(&self) -> VaultHandle {
        match self {
            Peer::Model(model) => model.handle(),
            Peer::Real(real) => real.handle(),
        }
    }
}

/// What a stage is set with.
#[derive(Debug)]
pub struct StageOptions {
    /// Which Vault plays.
    pub vault: Which,
    /// The instance profile and role: `worker` or `controller`.
    pub role: &'static str,
    /// Lives of leaves and tokens, mounts.
    pub setup: SetupOptions,
    /// More configuration, laid over the stage's own.
    pub config: String,
    /// How the consumer deals with new files.
    pub consumer: Mode,
}

impl StageOptions {
    /// A worker on the model, with the lives that nodes have.
    #[must_use]
    pub fn worker() -> StageOptions {
        StageOptions {
            vault: Which::Model,
            role: "worker",
            setup: SetupOptions::new("", ""),
            config: String::new(),
            consumer: Mode::RereadOnDelete,
        }
    }

    /// The same with more configuration.
    #[must_use]
    pub fn with(self, config: &str) -> StageOptions {
        StageOptions { config: format!("{}\n{config}", self.config), ..self }
    }
}

/// A node and its world.
#[allow(missing_debug_implementations, reason = "some of its parts have nothing to show")]
pub struct Stage {
    directory: TempDir,
    /// The clock of AWS and of the model of Vault.
    pub clock: ModelClock,
    /// AWS.
    pub aws: Aws,
    /// The node's metadata service.
    pub imds: Imds,
    /// The node's instance id.
    pub instance: String,
    /// Vault.
    pub vault: Peer,
    /// What lies between the agent and Vault.
    pub proxy: Proxy,
    /// The model of systemd that the agent speaks to.
    pub systemd: Systemd,
    /// The program that uses the certificates, as unit `kubelet.service`.
    pub kubelet: Consumer,
    /// The authorities that Vault signs with.
    pub configured: Configured,
    program: PathBuf,
}

impl Stage {
    /// Sets the stage; `program` is the agent.
    pub async fn set(program: impl Into<PathBuf>, options: StageOptions) -> Result<Stage, String> {
        let text = |error: io::Error| error.to_string();
        let clock = ModelClock::real();
        let aws = Aws::start(clock.clone()).map_err(text)?;
        let instance = aws.launch(LaunchSpec::profile(options.role));
        let imds = aws.imds(&instance).map_err(text)?;
        let vault = match options.vault {
            Which::Model => {
                let model = Model::start(ModelOptions::new(clock.clone())).map_err(text)?;
                Peer::Model(Box::new(model))
            }
            Which::Real => Peer::Real(Box::new(RealVault::start().await?)),
        };
        let handle = vault.handle();
        let setup = SetupOptions {
            ec2_url: aws.ec2_url(),
            aws_signing_cert_pem: aws.signing_certificate_pem(),
            ..options.setup
        };
        let configured = setup::configure(&handle, &setup).await?;
        let address = handle.address.trim_start_matches("https://").parse();
        let address = address.map_err(|error| format!("{}: {error}", handle.address))?;
        let proxy = Proxy::start(address).map_err(text)?;
        let directory = tempfile::Builder::new().prefix("nodeagent").tempdir().map_err(text)?;
        let systemd = Systemd::start(directory.path().join("systemd"), clock.clone());
        let systemd = systemd.map_err(text)?;
        let published = directory.path().join("var/lib/nodeagent-certs/kubelet/kubelet-server");
        let kubelet = Consumer::new(published.join("current"), options.consumer).map_err(text)?;
        systemd.add_unit("kubelet.service", kubelet.unit());
        let stage = Stage {
            directory,
            clock,
            aws,
            imds,
            instance,
            vault,
            proxy,
            systemd,
            kubelet,
            configured,
            program: program.into(),
        };
        stage.configure(options.role, &setup.auth_mount, &options.config).map_err(text)?;
        Ok(stage)
    }

    fn configure(&self, role: &str, mount: &str, more: &str) -> io::Result<()> {
        let handle = self.vault.handle();
        self.write("/etc/nodeagent/vault-ca.pem", handle.ca_pem.as_bytes())?;
        let mut text = format!(
            "[node]\nrole = \"{role}\"\ncluster = \"rig\"\nkubernetes = \"1.36\"\n\
             [vault]\naddress = \"https://{}\"\nca = \"/etc/nodeagent/vault-ca.pem\"\n\
             [identity]\nmount = \"{mount}\"\nimds = \"{}\"\n\
             [systemd]\nbus = \"{}\"\n",
            self.proxy.addr(),
            self.imds.url(),
            self.systemd.address(),
        );
        for (name, mount) in
            [("cluster", "pki"), ("etcd", "pki-etcd"), ("front-proxy", "pki-front-proxy")]
        {
            let path = format!("/etc/nodeagent/{name}-ca.pem");
            self.write(&path, self.configured.roots[mount].as_bytes())?;
            text.push_str(&format!("[pki.{name}]\nmount = \"{mount}\"\nca = \"{path}\"\n"));
        }
        let (gid, probe) = (nix::unistd::getgid(), self.kubelet.addr());
        text.push_str(&format!(
            "[[consumer]]\nname = \"kubelet\"\ngroup = \"{gid}\"\nprobe = \"{probe}\"\n"
        ));
        // Who runs the tests cannot give files to another group than their own.
        self.write("/etc/group", format!("root:x:{gid}:\n").as_bytes())?;
        self.write("/etc/nodeagent/config.d/10-rig.toml", text.as_bytes())?;
        self.write("/etc/nodeagent/config.d/20-more.toml", more.as_bytes())
    }

    /// Puts a fresh instance with an empty disk in the node's place, before the same Vault.
    pub fn replace_node(&mut self) -> io::Result<()> {
        let profile = self.aws.instance(&self.instance).and_then(|old| old.spec.instance_profile);
        let spec = LaunchSpec { instance_profile: profile, ..LaunchSpec::default() };
        self.instance = self.aws.launch(spec);
        let old = std::mem::replace(&mut self.imds, self.aws.imds(&self.instance)?);
        let config = "/etc/nodeagent/config.d/10-rig.toml";
        let text = self.read(config).replace(&old.url(), &self.imds.url());
        self.write(config, text.as_bytes())?;
        for state in ["/var", "/run"] {
            match std::fs::remove_dir_all(self.path(state)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The node's root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Where a path of the node really is.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Writes a file of the node.
    pub fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)
    }

    /// Reads a file of the node as text; empty where there is none.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// The model of Vault, where it is the model that plays.
    #[must_use]
    pub fn model(&self) -> &Model {
        match &self.vault {
            Peer::Model(model) => model,
            Peer::Real(_) => panic!("the real Vault plays: it has no script and no log"),
        }
    }

    /// An administrator of Vault, past the proxy.
    #[must_use]
    pub fn admin(&self) -> Admin {
        self.vault.handle().admin()
    }

    /// The agent with arguments, not started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts `nodeagent run`; its log goes to a file of the node.
    pub fn run(&self) -> io::Result<Running> {
        self.run_with(|_| {})
    }

    /// The same after a last change of the command: its environment, its user.
    pub fn run_with(&self, change: impl FnOnce(&mut Command)) -> io::Result<Running> {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.path("agent.log"))?;
        let mut command = self.command(&["run"]);
        command.stdout(log.try_clone()?).stderr(log);
        change(&mut command);
        let child = command.spawn()?;
        Ok(Running { child })
    }

    /// What the agent has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.read("agent.log")
    }

    /// The published status; null where there is none.
    #[must_use]
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.read("/run/nodeagent/status.json")).unwrap_or_default()
    }

    /// One certificate in the status.
    #[must_use]
    pub fn certificate(&self, name: &str) -> Value {
        let status = self.status();
        let found = status["certificates"]
            .as_array()
            .and_then(|all| all.iter().find(|part| part["name"] == name).cloned());
        found.unwrap_or_default()
    }

    /// One consumer in the status.
    #[must_use]
    pub fn consumer(&self, name: &str) -> Value {
        let status = self.status();
        let found = status["consumers"]
            .as_array()
            .and_then(|all| all.iter().find(|part| part["name"] == name).cloned());
        found.unwrap_or_default()
    }

    /// The codes of the problems in the status.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let status = self.status();
        let problems = status["problems"].as_array().cloned().unwrap_or_default();
        problems.iter().filter_map(|problem| problem["code"].as_str().map(String::from)).collect()
    }

    /// Waits until the status fits; the error shows what it is instead, and the log.
    pub fn wait_status(
        &self,
        what: &str,
        limit: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let end = Instant::now() + limit;
        loop {
            let status = self.status();
            if fits(&status) {
                return Ok(status);
            }
            if Instant::now() > end {
                let log = self.log();
                return Err(format!("no {what} within {limit:?}:\n{status:#}\nlog:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the consumer, as its unit would once the gate is open.
    pub fn start_kubelet(&self) -> Result<(), String> {
        self.kubelet.restart()?;
        self.systemd.set_state("kubelet.service", ActiveState::Active);
        Ok(())
    }
}

/// A running agent; dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> io::Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).map_err(io::Error::from)
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGHUP: it reads its configuration again and looks at once.
    pub fn reload(&self) -> io::Result<()> {
        self.signal(nix::sys::signal::Signal::SIGHUP)
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// SIGTERM; the exit code, or an error after the limit.
    pub fn stop(mut self, limit: Duration) -> Result<i32, String> {
        self.signal(nix::sys::signal::Signal::SIGTERM).map_err(|error| error.to_string())?;
        self.wait(limit)
    }

    /// Waits for its own end; the exit code, or an error after the limit.
    pub fn wait(&mut self, limit: Duration) -> Result<i32, String> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return status.code().ok_or_else(|| format!("ended by {status}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("still running after {limit:?}"))
    }
}

/// Another program of the node, held as the agent is.
impl From<Child> for Running {
    fn from(child: Child) -> Running {
        Running { child }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

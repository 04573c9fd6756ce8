//! A node as it is installed: a machine that boots, the units as shipped, the static binary, a
//! real kubelet and a configuration; and around it what a site has: AWS (the model), the real
//! Vault, and a proxy before it, so that it can be taken away. Scenarios and the sandbox share it.

pub mod watch;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::aws::imds::Imds;
use crate::aws::{Aws, LaunchSpec};
use crate::clock::ModelClock;
use crate::machine::{Flavour, Machine, MachineOptions};
use crate::peer::kube::{self, KubeletOptions};
use crate::peer::vault::{self, RealVault};
use crate::proxy::Proxy;
use crate::setup::{self, Admin, Configured, SetupOptions};

/// Where the agent is installed, as its units name it.
pub const PROGRAM: &str = "/usr/bin/nodeagent";
/// The agent's unit.
pub const AGENT: &str = "nodeagent.service";
/// The consumer's unit.
pub const KUBELET: &str = "kubelet.service";
/// The gate that the kubelet waits at.
pub const GATE: &str = "nodeagent-gate@kubelet.service";

const BUILD: &str = "cargo build --release --target x86_64-unknown-linux-musl -p nodeagent";
const BUILT: &str = "x86_64-unknown-linux-musl/release/nodeagent";
/// Where each part of `units/` is installed.
const INSTALLED: [(&str, &str); 3] = [
    ("system", "/usr/lib/systemd/system"),
    ("tmpfiles.d", "/usr/lib/tmpfiles.d"),
    ("config.d", "/usr/lib/nodeagent/config.d"),
];

/// What a node is made with.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Lives of leaves and tokens, mounts.
    pub setup: SetupOptions,
    /// More configuration, laid over the node's own.
    pub config: String,
}

impl NodeOptions {
    /// A worker with the lives that nodes have.
    #[must_use]
    pub fn worker() -> NodeOptions {
        NodeOptions { setup: SetupOptions::new("", ""), config: String::new() }
    }

    /// The same with more configuration.
    #[must_use]
    pub fn with(self, config: &str) -> NodeOptions {
        NodeOptions { config: format!("{}\n{config}", self.config), ..self }
    }
}

/// The node and its world. Fields drop in this order: the machine before what it talks to.
#[derive(Debug)]
pub struct Node {
    /// The machine, prepared and switched off until it is booted.
    pub machine: Machine,
    /// What lies between the agent and Vault.
    pub proxy: Proxy,
    /// Vault.
    pub vault: RealVault,
    /// The node's metadata service.
    pub imds: Imds,
    /// AWS.
    pub aws: Aws,
    /// The node's instance id.
    pub instance: String,
    /// The authorities that Vault signs with.
    pub configured: Configured,
}

impl Node {
    /// Why no node can be made here; `None` where one can.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        let vault = || vault::program().err();
        Machine::unavailable().or_else(vault).or_else(|| static_binary().err())
    }

    /// Makes the node and its world and leaves the machine switched off.
    pub async fn prepare(options: NodeOptions) -> Result<Node, String> {
        let program = static_binary()?;
        let kube = MachineOptions::new("node0", Flavour::Kube);
        let machine = Machine::prepare(kube).map_err(|error| error.to_string())?;
        let host = machine.host_ip();
        let aws = Aws::start(ModelClock::real()).map_err(text)?;
        let instance = aws.launch(LaunchSpec::profile("worker"));
        let imds = aws.imds_at(&instance, (host, 0).into()).map_err(text)?;
        let vault = RealVault::start_at(host.into()).await?;
        let setup = SetupOptions {
            ec2_url: aws.ec2_url(),
            aws_signing_cert_pem: aws.signing_certificate_pem(),
            ..options.setup
        };
        let configured = setup::configure(&vault.handle(), &setup).await?;
        let target = vault.address().trim_start_matches("https://");
        let target: SocketAddr = target.parse().map_err(|error| format!("{target}: {error}"))?;
        let proxy = Proxy::start_at((host, 0).into(), target).map_err(text)?;
        let node = Node { machine, proxy, vault, imds, aws, instance, configured };
        node.install(&program)?;
        node.configure(&setup.auth_mount)?;
        node.write("/etc/nodeagent/config.d/20-more.toml", &options.config)?;
        let kubelet = KubeletOptions::of(&node.machine);
        kube::install(&node.machine, &kubelet).map_err(|error| error.to_string())?;
        Ok(node)
    }

    /// The binary and the units, where a package puts them, enabled as a package enables them.
    fn install(&self, program: &Path) -> Result<(), String> {
        let bytes = fs::read(program).map_err(text)?;
        let installed = self.machine.write(PROGRAM, &bytes, 0o755);
        installed.map_err(|error| error.to_string())?;
        for (part, inside) in INSTALLED {
            self.install_files(&units().join(part), inside)?;
        }
        let mut preset = Command::new("chroot");
        preset.arg(self.machine.root()).args(["systemctl", "preset", AGENT]);
        let output = preset.env("SYSTEMD_OFFLINE", "1").output().map_err(text)?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("preset: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn install_files(&self, from: &Path, inside: &str) -> Result<(), String> {
        for entry in fs::read_dir(from).map_err(text)? {
            let path = entry.map_err(text)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let inside = format!("{inside}/{name}");
            if path.is_dir() {
                self.install_files(&path, &inside)?;
                continue;
            }
            let bytes = fs::read(&path).map_err(text)?;
            let written = self.machine.write(&inside, &bytes, 0o644);
            written.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// What a site writes: where Vault is, what it trusts.
    fn configure(&self, mount: &str) -> Result<(), String> {
        self.write("/etc/nodeagent/vault-ca.pem", self.vault.ca_pem())?;
        let mut config = format!(
            "[node]\nrole = \"worker\"\ncluster = \"rig\"\nkubernetes = \"1.36\"\n\
             [vault]\naddress = \"https://{}\"\nca = \"/etc/nodeagent/vault-ca.pem\"\n\
             [identity]\nmount = \"{mount}\"\nimds = \"{}\"\n",
            self.proxy.addr(),
            self.imds.url(),
        );
        for (name, mount) in
            [("cluster", "pki"), ("etcd", "pki-etcd"), ("front-proxy", "pki-front-proxy")]
        {
            let path = format!("/etc/nodeagent/{name}-ca.pem");
            self.write(&path, &self.configured.roots[mount])?;
            config.push_str(&format!("[pki.{name}]\nmount = \"{mount}\"\nca = \"{path}\"\n"));
        }
        self.write("/etc/nodeagent/config.d/10-rig.toml", &config)
    }

    /// Writes a file of the node that everybody may read, whether it runs or not.
    pub fn write(&self, path: &str, content: &str) -> Result<(), String> {
        let written = self.machine.write(path, content.as_bytes(), 0o644);
        written.map_err(|error| error.to_string())
    }

    /// Switches the node on.
    pub fn boot(&mut self) -> Result<(), String> {
        self.machine.boot().map_err(|error| error.to_string())
    }

    /// An administrator of Vault, past the proxy.
    #[must_use]
    pub fn admin(&self) -> Admin {
        self.vault.handle().admin()
    }
}

/// The agent as it is shipped: a static binary, which runs in every machine. NODEAGENT_STATIC
/// names it; otherwise it is the last one built.
pub fn static_binary() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("NODEAGENT_STATIC") {
        let path = PathBuf::from(path);
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!("NODEAGENT_STATIC: there is no program at {}", path.display())),
        };
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let path = target.unwrap_or_else(|| repository().join("target")).join(BUILT);
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("there is no static binary of the agent: build it with {BUILD}")),
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The units as they are shipped.
fn units() -> PathBuf {
    repository().join("units")
}

fn text(error: io::Error) -> String {
    error.to_string()
}

//! A node as it is installed: a machine that boots, the units as shipped, the static binary, a
//! real kubelet and a configuration; and around it what a site has: AWS (the model), the real
//! Vault, and a proxy before it, so that it can be taken away. Scenarios and the sandbox share it.

mod install;
mod site;
pub mod watch;

use crate::aws::imds::Imds;
use crate::aws::{Aws, LaunchSpec};
use crate::machine::{Flavour, Machine, MachineOptions};
use crate::peer::kube::{self, KubeletOptions};
use crate::peer::vault::{self, RealVault};
use crate::proxy::Proxy;
use crate::setup::{Admin, Configured, SetupOptions};
pub(crate) use install::install;
pub use install::{PROGRAM, static_binary};
pub use site::Site;
pub(crate) use site::write;

/// The agent's unit.
pub const AGENT: &str = "nodeagent.service";
/// The consumer's unit.
pub const KUBELET: &str = "kubelet.service";
/// The gate that the kubelet waits at.
pub const GATE: &str = "nodeagent-gate@kubelet.service";

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
        let site = Site::start(host, options.setup).await?;
        let instance = site.aws.launch(LaunchSpec::profile("worker"));
        let imds = site.aws.imds_at(&instance, (host, 0).into());
        let imds = imds.map_err(|error| error.to_string())?;
        install(&machine, &program, &[AGENT])?;
        site.configure(&machine, "worker", &imds)?;
        write(&machine, "/etc/nodeagent/config.d/20-more.toml", &options.config)?;
        let kubelet = KubeletOptions::of(&machine);
        kube::install(&machine, &kubelet).map_err(|error| error.to_string())?;
        let Site { proxy, vault, aws, configured, .. } = site;
        Ok(Node { machine, proxy, vault, imds, aws, instance, configured })
    }

    /// Writes a file of the node that everybody may read, whether it runs or not.
    pub fn write(&self, path: &str, content: &str) -> Result<(), String> {
        write(&self.machine, path, content)
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

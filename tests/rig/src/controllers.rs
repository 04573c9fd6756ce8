//! One or three controllers as a site has them: machines that boot, our units as shipped, the
//! static agent, the real kubelet, containerd, etcd and control plane, the real Vault behind a
//! proxy, AWS as a model. Stories raise the control plane and break it.
//!
//! A controller takes about 900 MiB of memory and 21 inotify instances; see `machine::slot`.

pub mod api;
mod by_hand;
pub(crate) mod configure;
mod faults;
mod leftovers;
pub mod load;
#[cfg(test)]
mod tests;
pub mod underway;
pub mod watch;

use std::net::Ipv4Addr;

use crate::aws::LaunchSpec;
use crate::aws::imds::Imds;
use crate::machine::{Flavour, Lan, Machine, MachineOptions};
use crate::node::{self, AGENT, Node, Site};
use crate::peer::kube;
use crate::setup::{Admin, SetupOptions};
use api::{Api, Identity};

/// The unit of etcd.
pub const ETCD: &str = "etcd-member.service";
/// Where static pods are.
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// What the agent writes for kubelet, etcd and control plane.
pub const PLANE: &str = "/etc/kubernetes/nodeagent";
/// The programs of a control plane.
pub const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Who raises the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raising {
    /// The agent, by itself.
    Automatic,
    /// The agent, when it is told to: `nodeagent bootstrap`.
    Told,
    /// The rig, with manifests of its own; the agent keeps certificates only. It is the floor that
    /// the agent is measured against, and shows that the machines can do it.
    ByHand,
}

/// Where the control plane lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// In static pods.
    Static,
    /// In DaemonSets.
    SelfHosted,
}

/// What controllers are made with.
#[derive(Clone, Debug)]
pub struct ControllersOptions {
    /// How many: one or three.
    pub count: usize,
    /// Lives of leaves and tokens, mounts.
    pub setup: SetupOptions,
    /// Who raises the control plane.
    pub raising: Raising,
    /// Where it lives.
    pub style: Style,
    /// More configuration for every controller, laid over the rest.
    pub config: String,
}

impl ControllersOptions {
    /// So many controllers whose control plane the agent raises by itself, in static pods.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            count,
            setup: SetupOptions::new("", ""),
            raising: Raising::Automatic,
            style: Style::Static,
            config: String::new(),
        }
    }

    /// The same with somebody else to raise it.
    #[must_use]
    pub fn raised(self, raising: Raising) -> Self {
        Self { raising, ..self }
    }

    /// The same with more configuration.
    #[must_use]
    pub fn with(self, config: &str) -> Self {
        Self { config: format!("{}\n{config}", self.config), ..self }
    }
}

/// A controller.
#[derive(Debug)]
pub struct Controller {
    /// The machine, prepared and switched off until it is booted.
    pub machine: Machine,
    /// Its metadata service.
    pub imds: Imds,
    /// Its instance id, which is the name of its node.
    pub instance: String,
    /// Its name among the members of etcd.
    pub member: String,
}

/// Controllers and their world. Fields drop in this order: machines before what they talk to.
#[derive(Debug)]
pub struct Controllers {
    /// The controllers; the API's address is that of the first.
    pub nodes: Vec<Controller>,
    /// Vault, the proxy before it, AWS.
    pub site: Site,
    lan: std::sync::Arc<Lan>,
    admin: Identity,
    etcd: Identity,
}

impl Controllers {
    /// Why none can be made here; `None` where they can.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        Node::unavailable()
    }

    /// Makes the controllers and their world and leaves the machines switched off.
    pub async fn prepare(options: ControllersOptions) -> Result<Controllers, String> {
        let program = node::static_binary()?;
        let lan = Lan::make().map_err(text)?;
        let site = Site::start(lan.host_ip(), options.setup.clone()).await?;
        let mut nodes = Vec::new();
        for number in 0..options.count {
            let member = format!("controller-{number}");
            let machine = MachineOptions::new(&member, Flavour::Kube).on(&lan);
            let machine = Machine::prepare(machine).map_err(text)?;
            let spec = LaunchSpec::profile("controller").at(machine.ip());
            let instance = site.aws.launch(spec);
            let imds = site.aws.imds_at(&instance, (lan.host_ip(), 0).into()).map_err(text)?;
            node::install(&machine, &program, &[AGENT, ETCD])?;
            site.configure(&machine, "controller", &imds)?;
            kube::install_unit(&machine).map_err(text)?;
            nodes.push(Controller { machine, imds, instance, member });
        }
        let vault = site.vault.handle().admin();
        let masters = ["system:masters"];
        let root = &site.configured.roots;
        let admin = Identity::issue(&vault, ("pki", &root["pki"]), &masters).await?;
        let etcd = Identity::issue(&vault, ("pki-etcd", &root["pki-etcd"]), &[]).await?;
        let controllers = Controllers { nodes, site, lan, admin, etcd };
        controllers.configure(&options)?;
        Ok(controllers)
    }

    /// Switches all of them on, one after the other: each is up when the next begins.
    pub fn boot(&mut self) -> Result<(), String> {
        self.nodes.iter_mut().try_for_each(Controller::boot)
    }

    /// The address of the API for clients and workers: the first controller's.
    #[must_use]
    pub fn api_ip(&self) -> Ipv4Addr {
        self.nodes[0].machine.ip()
    }

    /// A super-user of the API server on one controller.
    pub fn api(&self, node: usize) -> Result<Api, String> {
        self.api_as(node, &self.admin)
    }

    /// Anybody else at the API server on one controller.
    pub fn api_as(&self, node: usize, who: &Identity) -> Result<Api, String> {
        Api::new(format!("https://{}:6443", self.nodes[node].machine.ip()), who)
    }

    /// The kubelet of a controller as the API server sees it: with its own certificate.
    pub fn kubelet_identity(&self, node: usize) -> Result<Identity, String> {
        let directory = "/var/lib/nodeagent-certs/kubelet/kubelet-client/current";
        let machine = &self.nodes[node].machine;
        let read = |name: &str| machine.read(&format!("{directory}/{name}")).map_err(text);
        let pem = [read("cert.pem")?, b"\n".to_vec(), read("key.pem")?].concat();
        Ok(Identity::new(&self.site.configured.roots["pki"], pem))
    }

    /// A client of the member of etcd on one controller.
    pub fn etcd(&self, node: usize) -> Result<Api, String> {
        Api::new(format!("https://{}:2379", self.nodes[node].machine.ip()), &self.etcd)
    }

    /// An administrator of Vault, past the proxy.
    #[must_use]
    pub fn vault(&self) -> Admin {
        self.site.vault.handle().admin()
    }

    /// The address of the host in the controllers' network, where a story's own servers listen.
    #[must_use]
    pub fn host_ip(&self) -> Ipv4Addr {
        self.lan.host_ip()
    }
}

impl Controller {
    /// Switches it on.
    pub fn boot(&mut self) -> Result<(), String> {
        self.machine.boot().map_err(text)
    }

    /// Writes a file that everybody may read, whether it runs or not.
    pub fn write(&self, path: &str, content: &str) -> Result<(), String> {
        node::write(&self.machine, path, content)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

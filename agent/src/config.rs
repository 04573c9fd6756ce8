//! What is decided: validated, immutable, nothing optional that has a default. [`load`] reads the
//! drop-ins, lays them over the catalogue of the node's role, and reports every error at once.

pub mod bundle;
pub mod catalog;
pub mod check;
pub mod file;
pub mod layers;
pub mod names;
pub mod plane;
pub mod print;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::host::files::Root;
pub use names::{Names, Template};

/// The largest share of a life that an outage may take: the rest is for renewing, with its spread
/// over the fleet and its retries.
pub const LARGEST_SHARE: f64 = 0.875;

/// Everything the agent was told, checked.
#[derive(Debug)]
pub struct Config {
    /// What the node is; it chooses the catalogue.
    pub role: Role,
    /// The cluster's name, for templates and for people.
    pub cluster: String,
    /// Kubernetes' minor version on this node, where it was told.
    pub kubernetes: Option<(u16, u16)>,
    /// The operator's own template variables.
    pub variables: BTreeMap<String, String>,
    /// Where Vault is.
    pub vault: VaultConfig,
    /// How the node proves who it is.
    pub identity: IdentityConfig,
    /// For how long Vault may be away at any moment without a certificate ending.
    pub survive: Duration,
    /// How many certificates one entry may have issued in an hour.
    pub issues_per_hour: u32,
    /// How far the local clock may be from Vault's.
    pub max_clock_skew: Duration,
    /// `system`, or the `unix:path=` address of a model.
    pub systemd_bus: String,
    /// The certificate authorities, by name.
    pub authorities: BTreeMap<String, Authority>,
    /// The certificates of this node.
    pub certificates: Vec<CertSpec>,
    /// Who uses them.
    pub consumers: Vec<ConsumerSpec>,
    /// The cluster around the node, where it was told.
    pub cluster_plan: Option<plane::Cluster>,
    /// What the kubelet is told.
    pub kubelet: plane::Kubelet,
    /// etcd, on a controller whose cluster was told.
    pub etcd: Option<plane::Etcd>,
    /// The control plane, on a controller whose cluster was told.
    pub control_plane: Option<plane::ControlPlane>,
    /// Tells one configuration from another: a verb and the agent should go by the same.
    pub digest: String,
    /// What is impossible one day, with its place: told by `check` and `status`, no reason not to
    /// start, because a node that reboots then has cached certificates to live on.
    pub warnings: Vec<String>,
}

/// What the gate goes by.
#[derive(Debug)]
pub struct Gated {
    /// The certificates of this node.
    pub certificates: Vec<CertSpec>,
    /// Who uses them.
    pub consumers: Vec<ConsumerSpec>,
    /// Whether the agent writes what the kubelet and etcd are told.
    pub has_cluster: bool,
    /// Where the member of etcd keeps its data, on a controller of a cluster.
    pub etcd_data: Option<PathBuf>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs a kubelet.
    Worker,
    /// Runs a kubelet, etcd and the control plane.
    Controller,
    /// Has no catalogue: only what the configuration lists.
    Bare,
}

/// Where Vault is and how it is trusted.
#[derive(Debug)]
pub struct VaultConfig {
    /// Base URL.
    pub address: String,
    /// The pinned certificate authority of its TLS certificate.
    pub ca: Option<Vec<u8>>,
    /// Enterprise namespace.
    pub namespace: Option<String>,
    /// The longest a call may take.
    pub timeout: Duration,
    /// Within this a worker that boots with good certificates logs in.
    pub splay: Duration,
}

/// How the node proves who it is.
#[derive(Debug)]
pub struct IdentityConfig {
    /// The cloud whose proof is used.
    pub provider: crate::attest::Provider,
    /// Where the auth method is mounted in Vault.
    pub mount: String,
    /// The role to log in with.
    pub role: String,
    /// A nonce that another agent left, taken over if there is none of ours.
    pub import_nonce: Option<PathBuf>,
    /// Base URL of the instance metadata service.
    pub imds: String,
}

/// A certificate authority: a PKI mount and the bundle its certificates are checked against.
#[derive(Debug)]
pub struct Authority {
    /// Its name in the configuration.
    pub name: String,
    /// The PKI mount in Vault.
    pub mount: String,
    /// The pinned bundle's path; read again at every look, so that a rotation is noticed.
    pub ca: PathBuf,
    /// The end of the one in it that lasts longest, when the configuration was read.
    pub end: Timestamp,
}

/// One certificate to hold.
#[derive(Clone, Debug)]
pub struct CertSpec {
    /// Its name, unique on the node.
    pub name: String,
    /// The consumer it belongs to.
    pub consumer: String,
    /// The authority that signs it.
    pub authority: String,
    /// The PKI role.
    pub role: String,
    /// The subject's common name.
    pub common_name: Template,
    /// The subject's organisations, which the PKI role sets.
    pub organizations: Vec<Template>,
    /// DNS names.
    pub dns: Vec<Template>,
    /// IP addresses.
    pub ips: Vec<Template>,
    /// URIs.
    pub uris: Vec<Template>,
    /// What it is for.
    pub usage: Usage,
    /// The life to ask for.
    pub ttl: Duration,
}

/// The extended key usage of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Usage {
    /// Presented by a server.
    Server,
    /// Presented by a client.
    Client,
    /// Both, as an etcd member needs.
    Both,
}

impl Usage {
    /// Whether a TLS probe of the consumer can show this certificate.
    pub fn serves(self) -> bool {
        self != Usage::Client
    }
}

/// A program that uses certificates.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    /// Its name, the gate's instance name and its directory's.
    pub name: String,
    /// Its systemd unit; none for a static pod.
    pub unit: Option<String>,
    /// The group that may read its files.
    pub group: String,
    /// Where it serves its certificate.
    pub probe: Option<SocketAddr>,
    /// What follows a commit.
    pub act: Act,
    /// The longest a restart or reload may take.
    pub limit: Duration,
}

/// What follows a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// Nothing: the consumer sees to it.
    Nothing,
    /// The unit is reloaded.
    Reload,
    /// The unit is restarted.
    Restart,
    /// The unit is restarted only where the old certificate is still served.
    Probe,
}

impl Config {
    /// The certificates of one consumer.
    pub fn certificates_of<'a>(&'a self, consumer: &'a str) -> impl Iterator<Item = &'a CertSpec> {
        self.certificates.iter().filter(move |spec| spec.consumer == consumer)
    }

    /// The consumer of a name.
    pub fn consumer(&self, name: &str) -> Option<&ConsumerSpec> {
        self.consumers.iter().find(|consumer| consumer.name == name)
    }

    /// Whether client-go on this node re-reads its client certificate and its authority by
    /// itself: from Kubernetes 1.36 on (`ClientsAllowCARotation` is on by default).
    pub fn clients_reload(&self) -> bool {
        self.kubernetes.is_some_and(|version| version >= (1, 36))
    }
}

/// Reads and checks the configuration below a root directory.
///
/// All errors come in one: a line each, with file, line, what was found and what to do.
pub fn load(root: &Root, now: jiff::Timestamp) -> Result<Config> {
    let layers = layers::read(root).map_err(as_error)?;
    check::check(root, &layers, now).map_err(as_error)
}

/// Reads what the gate goes by, and nothing that may be away.
pub fn load_gated(root: &Root, now: jiff::Timestamp) -> Result<Gated> {
    let layers = layers::read(root).map_err(as_error)?;
    check::gated(root, &layers, now).map_err(as_error)
}

/// All faults or warnings in one error.
pub fn as_error(faults: Vec<String>) -> Error {
    Error::new(Code::Config, faults.join("\n"))
        .advise("correct the lines named, then run `nodeagent check`")
}

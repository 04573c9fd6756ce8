//! What a node is told of the cluster around it: where the API is, which ranges it has, who the
//! members of etcd are, and how the control plane is to look.

pub mod endpoint;
pub mod flags;
pub mod guarantees;
pub mod labels;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What all nodes of a cluster share. Without it the agent keeps certificates and nothing else.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where clients and workers reach the API, an `https` URL without a path.
    pub api_server: String,
    /// The host of that URL.
    pub api_host: String,
    /// The range that pods get addresses from.
    pub pod_cidr: Cidr,
    /// The range that services get addresses from; its first address is the API's own service.
    pub service_cidr: Cidr,
    /// The DNS domain of services.
    pub dns_domain: String,
}

/// A range of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The first address.
    pub network: Ipv4Addr,
    /// How many leading bits are fixed.
    pub prefix: u8,
}

/// What this node's kubelet is told beyond what follows from the rest.
#[derive(Clone, Debug, Default)]
pub struct Kubelet {
    /// Labels that the node registers with.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node registers with.
    pub taints: Vec<Taint>,
    /// Laid over the KubeletConfiguration, key by key.
    pub config: serde_json::Map<String, serde_json::Value>,
}

/// A taint: `key=value:effect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, often empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// The etcd cluster, whose members do not change by themselves.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// All members, sorted by name.
    pub members: Vec<Member>,
    /// Where the member of this node keeps its data.
    pub data_dir: PathBuf,
}

/// One member of etcd, which is one controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name in etcd.
    pub name: String,
    /// The address of its controller.
    pub address: IpAddr,
}

/// How the control plane is run.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Where it lives.
    pub style: Style,
    /// Whether the agent raises and recovers it by itself.
    pub automatic: bool,
    /// The image of a component; `{component}` is its name.
    pub image: String,
    /// The KV v2 mount in Vault that holds what all controllers share.
    pub secrets_mount: String,
    /// Below it, where.
    pub secrets_path: String,
    /// The directory of manifests to apply, where there is one.
    pub assets: Option<PathBuf>,
    /// The directory that the kubelet takes static pods from.
    pub manifests: PathBuf,
    /// Flags laid over the rendered ones, by component and by name without dashes.
    pub flags: BTreeMap<Component, BTreeMap<String, String>>,
    /// Rendered flags that are left out.
    pub without_flags: BTreeMap<Component, Vec<String>>,
    /// Feature gates, for every component.
    pub feature_gates: BTreeMap<String, bool>,
    /// Admission plugins beside those that are on by default.
    pub admission: Vec<String>,
    /// An audit policy that takes the place of the built-in one.
    pub audit_policy: Option<PathBuf>,
    /// The lease of the cluster lock: a holder that is gone keeps the others waiting this long.
    pub lock_lease: Duration,
    /// For how long the local API may be away before the agent steps in.
    pub dead_after: Duration,
}

/// Where the control plane lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// In static pods, on each controller.
    Static,
    /// In DaemonSets, raised by temporary static pods.
    SelfHosted,
}

/// A program of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Component {
    /// The API server.
    #[serde(rename = "kube-apiserver")]
    Apiserver,
    /// The controllers.
    #[serde(rename = "kube-controller-manager")]
    ControllerManager,
    /// The scheduler.
    #[serde(rename = "kube-scheduler")]
    Scheduler,
}

impl Component {
    /// All of them, in the order in which they need each other.
    pub const ALL: [Component; 3] =
        [Component::Apiserver, Component::ControllerManager, Component::Scheduler];

    /// Its name, which is its program's, its consumer's and its pod's.
    pub fn name(self) -> &'static str {
        match self {
            Component::Apiserver => "kube-apiserver",
            Component::ControllerManager => "kube-controller-manager",
            Component::Scheduler => "kube-scheduler",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Style::Static => "static",
            Style::SelfHosted => "self-hosted",
        })
    }
}

impl Cidr {
    /// Parses `10.96.0.0/16`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Cidr, String> {
        let wrong = || format!("`{text}` is no range of addresses; write it like 10.96.0.0/16");
        let (network, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let network: Ipv4Addr = network.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().ok().filter(|bits| *bits <= 32).ok_or_else(wrong)?;
        let cidr = Cidr { network, prefix };
        match u32::from(network) & !cidr.mask() {
            0 => Ok(cidr),
            _ => Err(format!(
                "`{text}` names an address inside its range; the range is {}/{prefix}",
                Ipv4Addr::from(u32::from(network) & cidr.mask())
            )),
        }
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// Whether two ranges share an address.
    pub fn overlaps(self, other: Cidr) -> bool {
        let mask = self.mask() & other.mask();
        u32::from(self.network) & mask == u32::from(other.network) & mask
    }

    /// Whether an address is in the range.
    pub fn contains(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => u32::from(address) & self.mask() == u32::from(self.network),
            IpAddr::V6(_) => false,
        }
    }

    /// The address at a place in the range.
    pub fn nth(self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network).saturating_add(place))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}", self.key, self.value, self.effect)
    }
}

impl Etcd {
    /// The member at an address.
    pub fn member_at(&self, address: IpAddr) -> Option<&Member> {
        self.members.iter().find(|member| member.address == address)
    }
}

impl Member {
    /// Where its clients reach it.
    pub fn client_url(&self) -> String {
        format!("https://{}", std::net::SocketAddr::new(self.address, 2379))
    }

    /// Where the other members reach it.
    pub fn peer_url(&self) -> String {
        format!("https://{}", std::net::SocketAddr::new(self.address, 2380))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_and_compared() {
        let service = Cidr::parse("10.96.0.0/16").expect("a range");
        assert_eq!(service.nth(1).to_string(), "10.96.0.1");
        assert!(service.contains("10.96.255.1".parse().expect("an address")));
        assert!(!service.contains("10.97.0.1".parse().expect("an address")));
        assert!(service.overlaps(Cidr::parse("10.0.0.0/8").expect("a range")));
        assert!(!service.overlaps(Cidr::parse("10.244.0.0/16").expect("a range")));
        assert!(Cidr::parse("0.0.0.0/0").expect("everything").overlaps(service));
    }

    #[test]
    fn what_is_no_range_is_told() {
        for text in ["10.96.0.0", "10.96.0.0/33", "10.96/16", "x/16"] {
            assert!(Cidr::parse(text).expect_err(text).contains("is no range"), "{text}");
        }
        let error = Cidr::parse("10.96.1.0/16").expect_err("an address inside");
        assert!(error.contains("10.96.0.0/16"), "{error}");
    }
}

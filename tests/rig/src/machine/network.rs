//! The machine's network: a namespace of its own and a pair of virtual interfaces, one end on the
//! host. Both ends have their addresses before anything boots, so a kubelet finds its node address
//! and the rig's servers can listen before the machine looks for them. Machines that talk to each
//! other are plugged into one bridge (see `lan`) instead of having a subnet each.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::command;
use super::lan::Lan;
use super::slot::Slot;
use super::{MachineError, Result};

const LIMIT: Duration = Duration::from_secs(20);

/// Where the machine's frames to a machine that it is cut off from go: to nobody.
const NOBODY: &str = "02:00:00:00:00:01";

/// A subnet of two addresses out of 198.18.0.0/16, half of what RFC 2544 sets aside for testing
/// devices: no real network that the host reaches is hidden by it. A bridge's is in the other half.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) host: Ipv4Addr,
    pub(super) node: Ipv4Addr,
    namespace: String,
    // The bridge goes after the last machine that is plugged into it.
    lan: Option<Arc<Lan>>,
}

impl Network {
    /// Makes it anew: what a killed predecessor left under this name is removed.
    pub(super) fn make(slot: &Slot, lan: Option<&Arc<Lan>>) -> Result<Self> {
        let (host, node) = match lan {
            Some(lan) => (lan.host_ip(), lan.next_ip()?),
            None => {
                let at = |last| Ipv4Addr::new(198, 18, slot.index(), last);
                (at(1), at(2))
            }
        };
        let network = Self { host, node, namespace: slot.name(), lan: lan.cloned() };
        network.remove()?;
        let (name, host_end) = (&network.namespace, network.host_end());
        ip(&format!("netns add {name}"))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("link add {host_end} type veth peer name eth0 netns {name}"))?;
        let prefix = match &network.lan {
            Some(lan) => {
                ip(&format!("link set {host_end} master {}", lan.bridge()))?;
                24
            }
            None => {
                ip(&format!("addr add {host}/30 dev {host_end}"))?;
                30
            }
        };
        ip(&format!("link set {host_end} up"))?;
        ip(&format!("-n {name} addr add {node}/{prefix} dev eth0"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        // A kubelet takes the address of its node from the default route.
        ip(&format!("-n {name} route add default via {host}"))?;
        Ok(network)
    }

    /// Nothing that the machine sends to this address arrives any more, and nothing tells it so.
    pub(super) fn silence(&self, peer: Ipv4Addr) -> Result<()> {
        let name = &self.namespace;
        ip(&format!("-n {name} neigh replace {peer} lladdr {NOBODY} nud permanent dev eth0"))
    }

    /// Takes that back.
    pub(super) fn unsilence(&self, peer: Ipv4Addr) -> Result<()> {
        ip(&format!("-n {} neigh delete {peer} dev eth0", self.namespace))
    }

    /// The file that names the namespace.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.namespace)
    }

    /// The name of the machine among those of this host.
    pub(super) fn name(&self) -> &str {
        &self.namespace
    }

    fn host_end(&self) -> String {
        format!("{}h", self.namespace)
    }

    /// With the namespace goes the interface in it, and with that its other end.
    fn remove(&self) -> Result<()> {
        if self.path().exists() {
            ip(&format!("netns delete {}", self.namespace))?;
        }
        // The namespace itself lives on while a process is in it; the host's end must not.
        delete_link(&self.host_end())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{error}");
        }
    }
}

/// Deletes an interface of the host; there may be none, or it may go by itself meanwhile.
pub(super) fn delete_link(name: &str) -> Result<()> {
    let path = PathBuf::from("/sys/class/net").join(name);
    if !path.exists() {
        return Ok(());
    }
    let gone = ip(&format!("link delete {name}"));
    if path.exists() { gone } else { Ok(()) }
}

pub(super) fn ip(arguments: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    let output = command::run(command, LIMIT, &[])?;
    if output.status.success() {
        return Ok(());
    }
    let text = format!("ip {arguments}: {}", output.stderr.trim());
    Err(MachineError::new(text))
}

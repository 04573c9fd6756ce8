//! The machine's network: a namespace of its own and a pair of virtual interfaces, one end on the
//! host. Both ends have their addresses before anything boots, so a kubelet finds its node address
//! and the rig's servers can listen before the machine looks for them.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::command;
use super::slot::Slot;
use super::{MachineError, Result};

const LIMIT: Duration = Duration::from_secs(20);

/// A subnet of two addresses out of 198.18.0.0/15, which RFC 2544 sets aside for testing devices:
/// no real network that the host reaches is hidden by it.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) host: Ipv4Addr,
    pub(super) node: Ipv4Addr,
    namespace: String,
}

impl Network {
    /// Makes it anew: what a killed predecessor left under this name is removed.
    pub(super) fn make(slot: &Slot) -> Result<Self> {
        let network = Self {
            host: Ipv4Addr::new(198, 18, slot.index(), 1),
            node: Ipv4Addr::new(198, 18, slot.index(), 2),
            namespace: slot.name(),
        };
        network.remove()?;
        let (name, host_end) = (&network.namespace, format!("{}h", network.namespace));
        for arguments in [
            format!("netns add {name}"),
            format!("-n {name} link set lo up"),
            format!("link add {host_end} type veth peer name eth0 netns {name}"),
            format!("addr add {}/30 dev {host_end}", network.host),
            format!("link set {host_end} up"),
            format!("-n {name} addr add {}/30 dev eth0", network.node),
            format!("-n {name} link set eth0 up"),
            // A kubelet takes the address of its node from the default route.
            format!("-n {name} route add default via {}", network.host),
        ] {
            ip(&arguments)?;
        }
        Ok(network)
    }

    /// The file that names the namespace.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.namespace)
    }

    /// The name of the machine among those of this host.
    pub(super) fn name(&self) -> &str {
        &self.namespace
    }

    /// With the namespace goes the interface in it, and with that its other end.
    fn remove(&self) -> Result<()> {
        if self.path().exists() {
            ip(&format!("netns delete {}", self.namespace))?;
        }
        // The namespace itself lives on while a process is in it; the host's end must not.
        let host_end = format!("{}h", self.namespace);
        if PathBuf::from("/sys/class/net").join(&host_end).exists() {
            let gone = ip(&format!("link delete {host_end}"));
            if PathBuf::from("/sys/class/net").join(&host_end).exists() {
                return gone;
            }
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{error}");
        }
    }
}

fn ip(arguments: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    let output = command::run(command, LIMIT, &[])?;
    if output.status.success() {
        return Ok(());
    }
    let text = format!("ip {arguments}: {}", output.stderr.trim());
    Err(MachineError::new(text))
}

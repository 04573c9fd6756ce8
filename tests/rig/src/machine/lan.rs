//! A network that several machines share with the host: a bridge, on which the rig's servers
//! listen. Nothing is forwarded by the host, and one machine can be cut off from another while both
//! still reach the host, which is what a partition between controllers looks like to Vault.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::network::{delete_link, ip};
use super::slot::Slot;
use super::{MachineError, Result};

/// The bridge; it goes when the last machine that is plugged into it and the last holder of the
/// network are dropped.
#[derive(Debug)]
pub struct Lan {
    next: AtomicU8,
    slot: Slot,
}

impl Lan {
    /// Makes it anew: what a killed predecessor left under this name is removed.
    pub fn make() -> Result<Arc<Self>> {
        let lan = Self { next: AtomicU8::new(2), slot: Slot::take_lan()? };
        let bridge = lan.bridge();
        delete_link(&bridge)?;
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", lan.host_ip()))?;
        ip(&format!("link set {bridge} up"))?;
        Ok(Arc::new(lan))
    }

    /// The address of the host, where the rig's servers listen: the second half of
    /// 198.18.0.0/15, which RFC 2544 sets aside for tests.
    #[must_use]
    pub fn host_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, self.slot.index(), 1)
    }

    /// The name of the bridge: at most 14 of the 15 bytes that an interface's may have.
    pub(super) fn bridge(&self) -> String {
        format!("nodeagent-l{}", self.slot.index())
    }

    /// The address of the next machine; none is given twice, so that a new machine is never taken
    /// for one that was.
    pub(super) fn next_ip(&self) -> Result<Ipv4Addr> {
        let taken = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1));
        let last = taken.map_err(|_| MachineError::new("a network has room for 253 machines"))?;
        Ok(Ipv4Addr::new(198, 19, self.slot.index(), last))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if let Err(error) = delete_link(&self.bridge()) {
            eprintln!("{error}");
        }
    }
}

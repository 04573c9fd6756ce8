//! A number that one machine at a time owns on this host. All names of a machine (cgroup, network
//! namespace, interface, subnet, directory) come from it, so machines of concurrent test processes
//! never meet, and what a killed test process left under a number is found and removed by the next
//! owner of that number: the kernel has dropped its lock.

use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

use super::{MachineError, Result};

const LOCKS: &str = "/run/nodeagent-rig";
const INOTIFY: &str = "/proc/sys/fs/inotify/max_user_instances";
/// A controller was seen to take 21 (kubelet 7, API server 6, systemd 5, containerd 2, D-Bus 1).
const INOTIFY_PER_MACHINE: u32 = 21;

/// The owner's handle; the number is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    index: u8,
    _lock: File,
}

impl Slot {
    /// The lowest free number of a machine.
    pub(super) fn take() -> Result<Self> {
        let slot = Self::free("slot")?;
        check_inotify(slot.index)?;
        Ok(slot)
    }

    /// The lowest free number of a network that machines share: numbers of their own.
    pub(super) fn take_lan() -> Result<Self> {
        Self::free("lan")
    }

    fn free(kind: &str) -> Result<Self> {
        let failed = |error| MachineError::new(format!("{LOCKS}: {error}"));
        fs::create_dir_all(LOCKS).map_err(failed)?;
        for index in 0..=u8::MAX {
            let path = PathBuf::from(LOCKS).join(format!("{kind}-{index}"));
            let lock = File::create(path).map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => return Ok(Self { index, _lock: lock }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(MachineError::new(format!("256 of {LOCKS}/{kind}-* are taken on this host already")))
    }

    /// The number: the third byte of the subnet.
    pub(super) fn index(&self) -> u8 {
        self.index
    }

    /// The name of what belongs to the machine on the host; at most 13 bytes, because the name of
    /// an interface, which gets one more, may have 15.
    pub(super) fn name(&self) -> String {
        format!("nodeagent-{}", self.index)
    }
}

/// All machines and the host's own root share one limit. A kubelet that meets it says so in a line
/// of its log and then notices no change of a certificate for a minute: better no machine than
/// that.
fn check_inotify(index: u8) -> Result<()> {
    let limit = fs::read_to_string(INOTIFY).unwrap_or_default();
    let Ok(limit) = limit.trim().parse::<u32>() else {
        return Ok(());
    };
    let needed = (u32::from(index) + 1) * INOTIFY_PER_MACHINE;
    if needed <= limit {
        return Ok(());
    }
    let machines = u32::from(index) + 1;
    Err(MachineError::new(format!(
        "{machines} machines may need {needed} inotify instances and the limit is {limit}; \
         raise it: sysctl fs.inotify.max_user_instances=1024"
    )))
}

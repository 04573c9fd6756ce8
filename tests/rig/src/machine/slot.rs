//! A number that one machine at a time owns on this host. All names of a machine (cgroup, network
//! namespace, interface, subnet, directory) come from it, so machines of concurrent test processes
//! never meet, and what a killed test process left under a number is found and removed by the next
//! owner of that number: the kernel has dropped its lock.

use std::fs::{self, File, TryLockError};
use std::path::PathBuf;

use super::{MachineError, Result};

const LOCKS: &str = "/run/nodeagent-rig";

/// The owner's handle; the number is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    index: u8,
    _lock: File,
}

impl Slot {
    /// The lowest free number.
    pub(super) fn take() -> Result<Self> {
        let failed = |error| MachineError::new(format!("{LOCKS}: {error}"));
        fs::create_dir_all(LOCKS).map_err(failed)?;
        for index in 0..=u8::MAX {
            let path = PathBuf::from(LOCKS).join(format!("slot-{index}"));
            let lock = File::create(path).map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => return Ok(Self { index, _lock: lock }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(MachineError::new("256 machines run on this host already"))
    }

    /// The number: the third byte of the machine's subnet.
    pub(super) fn index(&self) -> u8 {
        self.index
    }

    /// The name of what belongs to the machine on the host; at most 13 bytes, because the name of
    /// an interface, which gets one more, may have 15.
    pub(super) fn name(&self) -> String {
        format!("nodeagent-{}", self.index)
    }
}

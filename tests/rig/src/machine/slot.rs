//! A number that one machine at a time owns on this host. All names of a machine (cgroup, network
//! namespace, interface, subnet, directory) come from it, so machines of concurrent test processes
//! never meet, and what a killed test process left under a number is found and removed by the next
//! owner of that number: the kernel has dropped its lock.

use std::fs::{self, File, TryLockError};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{MachineError, Result};

const LOCKS: &str = "/run/nodeagent-rig";
const INOTIFY: &str = "/proc/sys/fs/inotify/max_user_instances";
/// A controller was seen to take 21 (kubelet 7, API server 6, systemd 5, containerd 2, D-Bus 1).
const INOTIFY_PER_MACHINE: u32 = 21;
/// The third byte of a subnet has no more values.
const MOST: u16 = 256;
/// A story of another process keeps its machines for minutes, not for longer.
const ROOM_LIMIT: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(200);

/// The owner's handle; the number is free again when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    index: u8,
    _lock: File,
}

impl Slot {
    /// The lowest free number of a machine. Where the host has room for no more of them, those of
    /// other processes are waited for.
    pub(super) fn take() -> Result<Self> {
        let room = room();
        if room == 0 {
            return Err(full(room));
        }
        let deadline = Instant::now() + ROOM_LIMIT;
        loop {
            if let Some(slot) = Self::free("slot", room)? {
                return Ok(slot);
            }
            if Instant::now() >= deadline {
                return Err(full(room));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// The lowest free number of a network that machines share: numbers of their own.
    pub(super) fn take_lan() -> Result<Self> {
        let all = || MachineError::new(format!("{MOST} of {LOCKS}/lan-* are taken on this host"));
        Self::free("lan", MOST)?.ok_or_else(all)
    }

    fn free(kind: &str, room: u16) -> Result<Option<Self>> {
        let failed = |error| MachineError::new(format!("{LOCKS}: {error}"));
        fs::create_dir_all(LOCKS).map_err(failed)?;
        for index in (0..=u8::MAX).take(room.into()) {
            let path = PathBuf::from(LOCKS).join(format!("{kind}-{index}"));
            let lock = File::create(path).map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => return Ok(Some(Self { index, _lock: lock })),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Ok(None)
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

/// For how many machines there is room. All of them and the host's own root share one limit, and a
/// kubelet that meets it says so in a line of its log and then notices no change of a certificate
/// for a minute: better no machine than that.
fn room() -> u16 {
    let limit = fs::read_to_string(INOTIFY).unwrap_or_default();
    let Ok(limit) = limit.trim().parse::<u32>() else {
        return MOST;
    };
    u16::try_from(limit / INOTIFY_PER_MACHINE).map_or(MOST, |room| room.min(MOST))
}

fn full(room: u16) -> MachineError {
    MachineError::new(format!(
        "there is room for {room} machines, because each may need {INOTIFY_PER_MACHINE} inotify \
         instances, and none was free for {ROOM_LIMIT:?}; make more: \
         sysctl fs.inotify.max_user_instances=1024"
    ))
}

//! The one place that reads the system clock, behind a trait, because the simulation and the
//! tests run on a clock of their own: time is an argument everywhere else.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

use super::Pending;

/// Time as this machine sees it.
pub trait Clock: Send + Sync + Debug {
    /// The wall clock, which may be wrong and may jump.
    fn now(&self) -> Timestamp;

    /// Time since boot, never going back; what the machine slept through counts.
    fn monotonic(&self) -> Duration;

    /// Time since boot as systemd counts it: sleep of the machine does not count. Only the
    /// `MONOTONIC_USEC=` of a reload wants this one.
    fn awake(&self) -> Duration {
        self.monotonic()
    }

    /// Ends after this long.
    fn sleep(&self, duration: Duration) -> Pending<'_, ()>;

    /// Whether the wall clock is known to follow a time server; `None` where nobody says.
    fn synchronized(&self) -> Option<bool>;
}

/// The clock of this machine.
#[derive(Clone, Debug)]
pub struct SystemClock {
    synchronized: PathBuf,
}

impl SystemClock {
    /// The clock of the machine whose root directory is `root`.
    pub fn new(root: impl AsRef<Path>) -> SystemClock {
        SystemClock { synchronized: root.as_ref().join("run/systemd/timesync/synchronized") }
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one reader of the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        since_boot(ClockId::Boottime)
    }

    fn awake(&self) -> Duration {
        since_boot(ClockId::Monotonic)
    }

    fn sleep(&self, duration: Duration) -> Pending<'_, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    /// systemd-timesyncd makes this file at its first successful synchronisation, and only it
    /// does. Its absence proves nothing: chrony, ntpd and hypervisor clocks leave no such mark.
    fn synchronized(&self) -> Option<bool> {
        self.synchronized.exists().then_some(true)
    }
}

fn since_boot(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    let span = SignedDuration::new(time.tv_sec, i32::try_from(time.tv_nsec).unwrap_or(0));
    Duration::try_from(span).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synchronized_is_known_only_from_the_mark_of_timesyncd() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = SystemClock::new(dir.path());
        assert_eq!(clock.synchronized(), None);
        let run = dir.path().join("run/systemd/timesync");
        std::fs::create_dir_all(&run).expect("a directory in it");
        std::fs::write(run.join("synchronized"), "").expect("a file in it");
        assert_eq!(clock.synchronized(), Some(true));
    }

    #[test]
    fn sleep_of_the_machine_counts() {
        let clock = SystemClock::new("/");
        let awake = clock.awake();
        assert!(awake > Duration::ZERO);
        assert!(clock.monotonic() >= awake);
    }
}

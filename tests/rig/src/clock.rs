//! The clock of the models. A model that reads the machine's clock can only be tested in real
//! time; one that is given this clock lets a month pass in a second, and keeps Vault, AWS and
//! systemd of one test on the same instant because clones share it.

use std::sync::{Arc, Mutex, MutexGuard};

use jiff::{SignedDuration, Timestamp};

/// A clock that clones share: either it follows the machine with an offset, or it stands still
/// until it is moved.
#[derive(Clone, Debug)]
pub struct ModelClock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
enum Inner {
    /// Follows the machine's clock; the offset is what tests added to it.
    Real(Mutex<SignedDuration>),
    Manual(Mutex<Timestamp>),
}

impl ModelClock {
    /// A clock that runs with the machine's. It may still be moved, and goes on running from there.
    #[must_use]
    pub fn real() -> Self {
        Self { inner: Arc::new(Inner::Real(Mutex::new(SignedDuration::ZERO))) }
    }

    /// A clock that stands at `start` until it is moved.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self { inner: Arc::new(Inner::Manual(Mutex::new(start))) }
    }

    /// The instant that every holder of this clock sees now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &*self.inner {
            Inner::Real(offset) => machine_now()
                .checked_add(*lock(offset))
                .expect("a test moves its clock by months, not by millennia"),
            Inner::Manual(at) => *lock(at),
        }
    }

    /// Moves the clock; a negative duration moves it back.
    pub fn advance(&self, by: SignedDuration) {
        match &*self.inner {
            Inner::Real(offset) => {
                let mut offset = lock(offset);
                *offset = offset.checked_add(by).expect("a test moves its clock by months");
            }
            Inner::Manual(at) => {
                let mut at = lock(at);
                *at = at.checked_add(by).expect("a test moves its clock by months");
            }
        }
    }

    /// Sets the clock to an instant; a real clock goes on running from there.
    pub fn set(&self, to: Timestamp) {
        match &*self.inner {
            Inner::Real(offset) => *lock(offset) = to.duration_since(machine_now()),
            Inner::Manual(at) => *lock(at) = to,
        }
    }

    /// Whether the clock stands still between moves.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        matches!(&*self.inner, Inner::Manual(_))
    }

    /// Microseconds since 1970, the unit of systemd's timestamps.
    #[must_use]
    pub fn micros(&self) -> u64 {
        u64::try_from(self.now().as_microsecond()).unwrap_or(0)
    }
}

/// The one place where the rig asks the machine for the time.
#[allow(clippy::disallowed_methods, reason = "this is the clock that models are given")]
fn machine_now() -> Timestamp {
    Timestamp::now()
}

/// Locks even where another test thread panicked with the lock held: its own panic is the news.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_a_manual_clock_that_moves_both_ways() {
        let start: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a timestamp");
        let clock = ModelClock::manual(start);
        let other = clock.clone();
        clock.advance(SignedDuration::from_hours(24 * 30));
        assert_eq!(other.now().to_string(), "2026-12-21T12:00:00Z");
        other.advance(SignedDuration::from_hours(-24 * 30));
        assert_eq!(clock.now(), start);
        assert!(clock.is_manual());
        assert_eq!(clock.micros(), 1_795_262_400_000_000);
    }

    #[test]
    fn a_real_clock_runs_on_from_where_it_is_set() {
        let clock = ModelClock::real();
        let target: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a timestamp");
        clock.set(target);
        assert!(clock.now() >= target && !clock.is_manual());
        clock.advance(SignedDuration::from_hours(-48));
        assert!(clock.now() < target);
    }
}

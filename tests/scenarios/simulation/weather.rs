//! When it was fair: nothing wrong with Vault, AWS, clock, disk, files, systemd or consumer, and
//! nothing just changed by a person. What the agent promises, it promises for fair weather; after
//! foul it has a time to recover, which its longest backoff bounds.

use jiff::{SignedDuration, Timestamp};
use nodeagent::failpoint::failing::Failing;

use super::schedule::{Blow, Fault};

/// After something was away or Vault said no: the longest backoff is 5 minutes, for the log-in and
/// once more for what waits for it, and a minute for the work itself.
const AFTER_ABSENCE: SignedDuration = SignedDuration::from_mins(12);

/// After what came was wrong, or the consumer failed: the longest backoff is an hour, and what
/// waits for it comes after.
const AFTER_HARM: SignedDuration = SignedDuration::from_mins(75);

/// Who has hours left waits longer for a Vault that was away, so that a fleet comes back gently: 75
/// minutes, and then what a node in a hurry takes. A certificate that ends, or is renewed late, is
/// judged by this.
pub(super) const AT_LEISURE: SignedDuration = SignedDuration::from_mins(75 + 12);

/// A spell of fair weather.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spell {
    pub(super) from: Timestamp,
    /// Until now, where it has no end.
    pub(super) until: Option<Timestamp>,
    /// How long the agent may take to be well in it.
    pub(super) recovery: SignedDuration,
}

/// All spells of the last days.
#[derive(Clone, Debug, Default)]
pub(super) struct Weather {
    pub(super) spells: Vec<Spell>,
    /// What is foul.
    pub(super) fault: Option<Fault>,
    /// When a disk that failed was last seen to.
    disk_failed: Option<Timestamp>,
}

/// What a disk that failed did not let go, the next publication removes: half a day later, where
/// nothing else asks for one.
const AFTER_FAILING_DISK: SignedDuration = SignedDuration::from_hours(24);

/// Spells that ended longer ago than any certificate lives are forgotten.
const MEMORY: SignedDuration = SignedDuration::from_hours(100);

impl Weather {
    /// Something begins to be wrong.
    pub(super) fn foul(&mut self, now: Timestamp, fault: Fault) {
        self.close(now);
        self.fault = Some(fault);
        self.note_disk(now);
    }

    /// What was wrong has ended, or was never more than a blow.
    pub(super) fn fair(&mut self, now: Timestamp, recovery: SignedDuration) {
        let before = self.spells.last().copied();
        self.close(now);
        self.note_disk(now);
        self.fault = None;
        self.spells.retain(|spell| spell.until.is_none_or(|end| now.duration_since(end) < MEMORY));
        // Neither a blow on a recovering node nor a fault of a minute shortens what it was
        // promised before: it may still wait for as long as what was wrong made it wait.
        let left = before.map_or(SignedDuration::ZERO, |spell| {
            spell.recovery.saturating_sub(spell.from.duration_until(now))
        });
        self.spells.push(Spell { from: now, until: None, recovery: recovery.max(left) });
    }

    fn close(&mut self, now: Timestamp) {
        if let Some(spell) = self.spells.last_mut() {
            spell.until.get_or_insert(now);
        }
    }

    fn note_disk(&mut self, now: Timestamp) {
        if self.disk_fails() {
            self.disk_failed = Some(now);
        }
    }

    /// Whether the disk fails now.
    pub(super) fn disk_fails(&self) -> bool {
        matches!(self.fault, Some(Fault::DiskFailing(_)))
    }

    /// Whether the node's clock is not the true one now.
    pub(super) fn clock_is_off(&self) -> bool {
        matches!(self.fault, Some(Fault::ClockStep(_) | Fault::Drift(_)))
    }

    /// Whether the disk lets go what is removed, and has had the time to.
    pub(super) fn disk_is_well(&self, now: Timestamp) -> bool {
        !self.disk_fails()
            && self.disk_failed.is_none_or(|at| at.duration_until(now) > AFTER_FAILING_DISK)
    }

    /// Whether there was a spell within these instants that was longer than its recovery.
    pub(super) fn gave_time(&self, from: Timestamp, until: Timestamp) -> bool {
        self.gave_longer(from, until, SignedDuration::ZERO)
    }

    /// The same for who is in no hurry.
    pub(super) fn gave_leisure(&self, from: Timestamp, until: Timestamp) -> bool {
        self.gave_longer(from, until, AT_LEISURE)
    }

    fn gave_longer(&self, from: Timestamp, until: Timestamp, least: SignedDuration) -> bool {
        self.spells.iter().any(|spell| {
            let begin = spell.from.max(from);
            let end = spell.until.unwrap_or(until).min(until);
            begin.duration_until(end) > spell.recovery.max(least)
        })
    }
}

/// How long a node may take once this fault is over.
pub(super) fn recovery(fault: &Fault) -> SignedDuration {
    match fault {
        Fault::Away
        | Fault::Sealed
        | Fault::Failing(_)
        | Fault::Html
        | Fault::Cut
        | Fault::AwsHangs
        | Fault::AwsThrottles
        | Fault::AwsSlow(_)
        | Fault::Slow(_)
        | Fault::TooSlow
        | Fault::Throttled
        | Fault::ImdsAway
        | Fault::DiskFull
        | Fault::DiskReadOnly
        | Fault::Stopped
        | Fault::ClockStep(_)
        | Fault::Drift(_)
        | Fault::LoginRoleNarrow
        | Fault::ImageUnknown
        | Fault::PkiRoleNarrow
        | Fault::PolicyLost => AFTER_ABSENCE,
        Fault::Lying(_)
        | Fault::IssuerUnknown
        | Fault::Foreign
        | Fault::BusAway
        // What was issued and could not be kept is counted: there is no more for an hour.
        | Fault::DiskFailing(_)
        | Fault::Consumer(_) => AFTER_HARM,
    }
}

/// How long a node may take after this blow.
pub(super) fn recovery_from(_: Blow) -> SignedDuration {
    AFTER_ABSENCE
}

#[test]
fn a_spell_gives_time_only_where_it_is_longer_than_its_recovery() {
    let at = |minute: i64| Timestamp::from_second(1_800_000_000 + 60 * minute).unwrap();
    let mut weather = Weather::default();
    weather.fair(at(0), AFTER_ABSENCE);
    assert!(!weather.gave_time(at(0), at(12)) && weather.gave_time(at(0), at(13)));
    assert!(!weather.gave_time(at(5), at(15)));
    assert!(!weather.gave_leisure(at(0), at(87)) && weather.gave_leisure(at(0), at(88)));
    weather.foul(at(20), Fault::Away);
    assert!(weather.gave_time(at(0), at(100)) && !weather.gave_time(at(10), at(100)));
    weather.fair(at(100), AFTER_HARM);
    weather.fair(at(110), AFTER_ABSENCE);
    assert!(!weather.gave_time(at(100), at(170)) && weather.gave_time(at(100), at(176)));
    weather.foul(at(200), Fault::IssuerUnknown);
    weather.fair(at(300), AFTER_HARM);
    weather.foul(at(301), Fault::Cut);
    weather.fair(at(302), recovery(&Fault::Cut));
    assert!(!weather.gave_time(at(300), at(375)) && weather.gave_time(at(300), at(376)));
}

#[test]
fn a_disk_is_well_a_day_after_it_failed() {
    let at = |hour: i64| Timestamp::from_second(1_800_000_000 + 3600 * hour).unwrap();
    let mut weather = Weather::default();
    weather.fair(at(0), AFTER_ABSENCE);
    weather.foul(at(1), Fault::Away);
    assert!(weather.disk_is_well(at(2)));
    weather.foul(at(3), Fault::DiskFailing(Failing::Reads));
    assert!(!weather.disk_is_well(at(100)));
    weather.fair(at(101), AFTER_ABSENCE);
    assert!(!weather.disk_is_well(at(125)) && weather.disk_is_well(at(126)));
}

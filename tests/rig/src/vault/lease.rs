//! How long a token may live: the one rule by which Vault grants, extends and cuts a lease.

use jiff::{SignedDuration, Timestamp};

use super::answer::Refusal;
use super::field::print_seconds;

/// Vault's system default and maximum: 32 days.
pub(super) const SYSTEM_TTL: i64 = 768 * 3600;

/// What limits a lease, in seconds; 0 is "not set".
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Terms {
    pub(super) ttl: i64,
    pub(super) max_ttl: i64,
    pub(super) period: i64,
    pub(super) explicit_max_ttl: i64,
    /// Default and maximum of the mount.
    pub(super) mount_default: i64,
    pub(super) mount_max: i64,
}

/// Seconds to grant at `now` on a lease that began at `start`, and the warnings about a cut.
pub(super) fn grant(
    terms: &Terms,
    increment: i64,
    start: Timestamp,
    now: Timestamp,
) -> Result<(i64, Vec<String>), Refusal> {
    let mut ceiling = terms.mount_max;
    for limit in [terms.max_ttl, terms.explicit_max_ttl] {
        if limit > 0 {
            ceiling = ceiling.min(limit);
        }
    }
    let mut warnings = Vec::new();
    let (mut ttl, bounded_by) = if terms.period > 0 {
        if terms.period > ceiling {
            warnings.push(format!(
                "period of {:?} exceeded the effective max_ttl of {:?}; \
                 period value is capped accordingly",
                print_seconds(terms.period),
                print_seconds(ceiling)
            ));
        }
        let end = (terms.explicit_max_ttl > 0).then_some(terms.explicit_max_ttl);
        (terms.period.min(ceiling), end)
    } else {
        let wanted = [increment, terms.ttl].into_iter().find(|wanted| *wanted > 0);
        (wanted.unwrap_or(terms.mount_default), Some(ceiling))
    };
    if let Some(life) = bounded_by {
        let left = start.as_second() + life - now.as_second();
        if left <= 0 {
            return Err(Refusal::fault(500, "past the max TTL, cannot renew"));
        }
        if ttl > left {
            warnings.push(format!(
                "TTL of {:?} exceeded the effective max_ttl of {:?}; \
                 TTL value is capped accordingly",
                print_seconds(ttl),
                print_seconds(left)
            ));
            ttl = left;
        }
    }
    Ok((ttl, warnings))
}

/// An instant some seconds after another.
pub(super) fn after(start: Timestamp, seconds: i64) -> Timestamp {
    start.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(terms: Terms, increment: i64, age: i64) -> (i64, usize) {
        let start = Timestamp::from_second(1_800_000_000).expect("an instant");
        let terms = Terms { mount_default: SYSTEM_TTL, mount_max: SYSTEM_TTL, ..terms };
        match grant(&terms, increment, start, after(start, age)) {
            Ok((ttl, warnings)) => (ttl, warnings.len()),
            Err(_) => (-1, 0),
        }
    }

    #[test]
    fn a_lease_shrinks_towards_its_maximum() {
        let role = Terms { ttl: 4, max_ttl: 9, ..Terms::default() };
        assert_eq!(check(role, 0, 0), (4, 0));
        assert_eq!(check(role, 0, 7), (2, 1));
        assert_eq!(check(role, 0, 9), (-1, 0));
        assert_eq!(check(role, 3600, 3), (6, 1));
    }

    #[test]
    fn a_period_ignores_increment_and_ends_only_at_an_explicit_maximum() {
        let periodic = Terms { period: 60, ..Terms::default() };
        assert_eq!(check(periodic, 3600, 40 * 24 * 3600), (60, 0));
        let ended = Terms { period: 60, explicit_max_ttl: 90, ..Terms::default() };
        assert_eq!(check(ended, 0, 40), (50, 1));
    }
}

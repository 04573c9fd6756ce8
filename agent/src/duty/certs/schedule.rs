//! When a certificate is renewed: a pure function of its life, of the outage that it must survive,
//! and of the node's place in the fleet.

use std::time::Duration;

use jiff::Timestamp;

use crate::backoff;
use crate::config::LARGEST_SHARE;

/// The instant when a certificate of this life is renewed; a life begins with the issue.
///
/// Of the life, `survive` must be left at any moment. A thirteenth of the rest is margin for the
/// spread and for retries; what remains is the period: 12 h of a 24 h certificate that must
/// survive 11 h. The instants of renewal lie on a grid of that period, whose offset is the node's
/// place in the fleet: so a fleet that was started in one minute does not renew in one minute,
/// not even the first time. Within half the margin they scatter at random from slot to slot.
pub fn renew_at(
    begun: Timestamp,
    not_after: Timestamp,
    survive: Duration,
    place: u64,
) -> Timestamp {
    let start = begun.as_millisecond();
    let life = whole(not_after.as_millisecond() - start);
    // A life that the role cut to less than the configuration could ask for is renewed at half of
    // it; `status` says that it cannot survive what it should.
    let survive = survive.as_millis() as i64;
    let fits = survive as f64 <= life as f64 * LARGEST_SHARE;
    let survive = if fits { survive } else { life / 2 };
    let margin = (life - survive) / 13;
    let period = (life - survive - margin).max(1);
    let offset = (backoff::fraction(place, 1) * period as f64) as i64;
    let latest = start + period + margin / 2;
    let slot = (latest - offset).div_euclid(period);
    let scatter = backoff::fraction(place, slot as u64) * (margin / 2) as f64;
    let aligned = slot * period + offset;
    // A slot that follows an issue at once would issue twice for nothing.
    let instant = aligned.max(start + period / 8) + scatter as i64;
    let last = not_after.as_millisecond() - survive;
    Timestamp::from_millisecond(instant.min(last)).unwrap_or(not_after)
}

/// A life in whole steps of five minutes, a short one in seconds. Two lives differ by what an
/// answer takes and by the clocks' difference; a grid that begins in 1970 has 40,000 slots of a
/// day's life by now, and one second more in each would move the next instant by half a day.
fn whole(life: i64) -> i64 {
    let step = if life < 3_600_000 { 1_000 } else { 300_000 };
    ((life + step / 5) / step * step).max(1)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn hours(from: Timestamp, until: Timestamp) -> f64 {
        from.duration_until(until).as_secs_f64() / 3600.0
    }

    #[test]
    fn a_day_that_must_survive_eleven_hours_is_renewed_every_twelve() {
        let survive = Duration::from_secs(11 * 3600);
        for place in (0..200).map(|n| backoff::hash(&format!("i-{n}"))) {
            let mut issued = at(0);
            for round in 0..20 {
                let end = issued + SignedDuration::from_hours(24);
                let renewal = renew_at(issued, end, survive, place);
                let after = hours(issued, renewal);
                assert!(hours(renewal, end) >= 11.0, "survives the outage at any moment");
                assert!(after >= 1.5, "round {round} renews after {after} h");
                if round > 1 {
                    assert!((11.4..=12.6).contains(&after), "round {round}: {after} h");
                }
                issued = renewal;
            }
        }
    }

    #[test]
    fn a_life_that_is_seconds_shorter_keeps_its_place_on_the_grid() {
        let survive = Duration::from_secs(11 * 3600);
        let mut issued = at(0);
        for round in 0..40_i64 {
            let end = issued + SignedDuration::from_millis(24 * HOUR * 1000 - 37 * round);
            let renewal = renew_at(issued, end, survive, backoff::hash("i-0aaa"));
            let after = hours(issued, renewal);
            assert!(round < 2 || (11.4..=12.6).contains(&after), "round {round}: {after} h");
            issued = renewal;
        }
    }

    #[test]
    fn n08_a_fleet_started_in_one_minute_renews_all_over_the_period() {
        let survive = Duration::from_secs(11 * 3600);
        let mut per_hour = [0; 13];
        for place in (0..1300).map(|n| backoff::hash(&format!("i-{n}"))) {
            let renewal = renew_at(at(0), at(24 * HOUR), survive, place);
            per_hour[hours(at(0), renewal) as usize] += 1;
        }
        assert!(per_hour.iter().all(|count| *count < 260), "{per_hour:?}");
    }

    #[test]
    fn whatever_the_configuration_may_ask_for_is_left_at_any_moment() {
        for (life, survive) in [(24, 11), (24, 13), (24, 20), (24, 21), (8, 7), (2, 1)] {
            let survive = Duration::from_secs(survive * 3600);
            for place in (0..200).map(|n| backoff::hash(&format!("i-{n}"))) {
                let mut issued = at(0);
                for _ in 0..20 {
                    let end = issued + SignedDuration::from_hours(life);
                    let renewal = renew_at(issued, end, survive, place);
                    let left = renewal.duration_until(end);
                    assert!(left.unsigned_abs() >= survive, "{left:#} of {life} h");
                    assert!(renewal > issued, "{life} h");
                    issued = renewal;
                }
            }
        }
    }

    #[test]
    fn a_life_cut_below_the_outage_is_renewed_around_its_half() {
        let renewal = renew_at(at(0), at(HOUR), Duration::from_secs(11 * 3600), 7);
        assert!(hours(at(0), renewal) < 0.55);
        assert!(renewal > at(0));
    }
}

//! How long to stay away after a failure: pure, and with jitter from a seed, so that the same
//! failure on a thousand nodes does not come back as one wave.

use std::time::Duration;

use crate::error::Kind;

/// The wait before the next try, after `failures` failures in a row (1 = the first).
///
/// Exponential with full jitter between half the step and the whole of it; a `Retry-After` of the
/// other side is a lower bound. The steps per kind:
///
/// | kind | first | longest | why |
/// |---|---|---|---|
/// | unavailable | 1 s | 5 min | hours cost a few hundred calls, the end is seen in minutes |
/// | sealed | 5 s | 60 s | a person unseals; the fleet should be back within a minute |
/// | unauthenticated | 1 s | 5 min | the log-in that follows has a wait of its own |
/// | all others | 1 min | 1 h | somebody said no and has to change something first |
pub fn delay(kind: Kind, failures: u32, asked: Option<Duration>, seed: u64) -> Duration {
    let (first, longest) = match kind {
        Kind::Unavailable | Kind::Unauthenticated => (1, 300),
        Kind::Sealed => (5, 60),
        _ => (60, 3600),
    };
    let doublings = failures.saturating_sub(1).min(12);
    let step = Duration::from_secs((first << doublings).min(longest));
    let jittered = step.mul_f64(0.5 + 0.5 * fraction(seed, u64::from(failures)));
    match asked {
        Some(wait) => jittered.max(wait.min(LONGEST_ASKED) + jittered / 4),
        None => jittered,
    }
}

/// A `Retry-After` beyond this is not believed: a slip in a proxy must not stop a fleet.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// A number in 0..1 from two seeds, the same for the same seeds (SplitMix64's finaliser).
pub fn fraction(seed: u64, salt: u64) -> f64 {
    (mix(seed ^ mix(salt)) >> 11) as f64 / (1u64 << 53) as f64
}

/// A hash of a text that stays the same over releases: a node keeps its place in the fleet.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| mix(hash ^ u64::from(byte)))
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        for (failures, low, high) in
            [(1, 0.5, 1.0), (2, 1.0, 2.0), (6, 16.0, 32.0), (40, 150.0, 300.0)]
        {
            let wait = delay(Kind::Unavailable, failures, None, 7).as_secs_f64();
            assert!((low..=high).contains(&wait), "{failures} failures wait {wait} s");
        }
    }

    #[test]
    fn what_the_other_side_asks_is_a_lower_bound() {
        let wait = delay(Kind::Unavailable, 1, Some(Duration::from_secs(20)), 7);
        assert!(wait >= Duration::from_secs(20));
        let silly = delay(Kind::Unavailable, 1, Some(Duration::from_secs(1 << 40)), 7);
        assert!(silly <= Duration::from_secs(3601));
    }

    #[test]
    fn two_nodes_do_not_come_back_together() {
        let one = delay(Kind::Unavailable, 5, None, hash("i-0aaa"));
        assert_ne!(one, delay(Kind::Unavailable, 5, None, hash("i-0bbb")));
    }

    #[test]
    fn z04_an_outage_of_a_day_costs_few_calls() {
        let mut spent = Duration::ZERO;
        let mut calls = 0;
        while spent < Duration::from_secs(86_400) {
            calls += 1;
            spent += delay(Kind::Unavailable, calls, None, 3);
        }
        assert!(calls < 500, "{calls} calls in a day of outage");
    }
}

//! How long to stay away after a failure: pure, and with jitter from a seed, so that the same
//! failure on a thousand nodes does not come back as one wave.

use std::time::Duration;

use crate::error::Kind;

/// What a wait hangs on beside the failure itself.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Seeds the jitter.
    pub seed: u64,
    /// For how long the duty may stay undone before a certificate ends by it; none where no
    /// certificate does.
    pub leeway: Option<Duration>,
}

impl Pace {
    /// That of a duty that no certificate's end waits for.
    pub fn steady(seed: u64) -> Pace {
        Pace { seed, leeway: None }
    }
}

/// Of the time that is left, a wait takes no more than this part: five more tries follow.
const PART_OF_LEEWAY: u32 = 6;

/// The longest wait for what only a person can change.
const LONGEST: Duration = Duration::from_hours(1);

/// The longest wait for what is away, whatever time is left: with it ten thousand nodes come back
/// to a Vault that was away for six hours at less than three times their usual rate, and with an
/// hour at more (`tests/bench fleet`).
const LONGEST_AWAY: Duration = Duration::from_mins(75);

/// The wait before the next try, after `failures` failures in a row (1 = the first).
///
/// Exponential with full jitter between half the step and the whole of it; a `Retry-After` of the
/// other side is a lower bound. The steps per kind:
///
/// | kind | first | longest | why |
/// |---|---|---|---|
/// | unavailable | 1 s | 5 min | hours cost a few hundred calls, the end is seen in minutes |
/// | sealed | 5 s | 60 s | a person unseals; who is in a hurry should be back within a minute |
/// | unauthenticated | 1 s | 5 min | the log-in that follows has a wait of its own |
/// | denied | 1 min | 1 h | somebody said no and has to change something first |
/// | all others | 1 min | 1 h | the same; what was answered may be a certificate, and counts |
///
/// Who is in no hurry waits longer for what is away or sealed, up to a sixth of the leeway and
/// 75 min: what a fleet has not done in an outage of hours is then not asked for in the first
/// minutes after it. The doubling makes the wait as long as the outage was so far. Who is in a
/// hurry waits 5 min at most for a no to become a yes: a no costs nothing, and what a person has
/// mended at last is to be seen.
pub fn delay(kind: Kind, failures: u32, asked: Option<Duration>, pace: Pace) -> Duration {
    let first = match kind {
        Kind::Unavailable | Kind::Unauthenticated => 1,
        Kind::Sealed => 5,
        _ => 60,
    };
    let doublings = failures.saturating_sub(1).min(13);
    let step = Duration::from_secs(first << doublings).min(longest(kind, pace.leeway));
    let jittered = step.mul_f64(0.5 + 0.5 * fraction(pace.seed, u64::from(failures)));
    match asked {
        Some(wait) => jittered.max(believed(wait) + jittered / 4),
        None => jittered,
    }
}

/// The longest wait after such a failure, with so much time before a certificate ends by it.
pub fn longest(kind: Kind, leeway: Option<Duration>) -> Duration {
    let eased = |least: u64, most| {
        let part = leeway.unwrap_or_default() / PART_OF_LEEWAY;
        part.clamp(Duration::from_mins(least), most)
    };
    match kind {
        Kind::Unavailable | Kind::Unauthenticated => eased(5, LONGEST_AWAY),
        Kind::Sealed => eased(1, LONGEST_AWAY),
        Kind::Denied if leeway.is_some() => eased(5, LONGEST),
        _ => LONGEST,
    }
}

/// What is believed of a `Retry-After`: an hour and no more, for a slip in a proxy must not stop a
/// fleet.
pub fn believed(asked: Duration) -> Duration {
    const LONGEST_ASKED: Duration = Duration::from_hours(1);
    asked.min(LONGEST_ASKED)
}

/// A number in 0..1 from two seeds, the same for the same seeds (SplitMix64's finaliser).
pub fn fraction(seed: u64, salt: u64) -> f64 {
    (mix(seed ^ mix(salt)) >> 11) as f64 / (1u64 << 53) as f64
}

/// A hash of a text that stays the same over releases: a node keeps its place in the fleet.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// A number that looks nothing like this one (SplitMix64).
pub(crate) fn mix(value: u64) -> u64 {
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
            let wait = delay(Kind::Unavailable, failures, None, Pace::steady(7)).as_secs_f64();
            assert!((low..=high).contains(&wait), "{failures} failures wait {wait} s");
        }
    }

    #[test]
    fn what_the_other_side_asks_is_a_lower_bound() {
        let wait = delay(Kind::Unavailable, 1, Some(Duration::from_secs(20)), Pace::steady(7));
        assert!(wait >= Duration::from_secs(20));
        let silly = Some(Duration::from_secs(1 << 40));
        let silly = delay(Kind::Unavailable, 1, silly, Pace::steady(7));
        assert!(silly <= Duration::from_secs(3601));
    }

    #[test]
    fn two_nodes_do_not_come_back_together() {
        let wait = |node| delay(Kind::Unavailable, 5, None, Pace::steady(hash(node)));
        assert_ne!(wait("i-0aaa"), wait("i-0bbb"));
    }

    #[test]
    fn z04_an_outage_of_a_day_costs_few_calls() {
        let mut spent = Duration::ZERO;
        let mut calls = 0;
        while spent < Duration::from_secs(86_400) {
            calls += 1;
            spent += delay(Kind::Unavailable, calls, None, Pace::steady(3));
        }
        assert!(calls < 500, "{calls} calls in a day of outage");
    }

    #[test]
    fn who_has_hours_left_waits_for_a_sixth_of_them_and_75_minutes_at_most() {
        for (kind, left_h, low, high) in [
            (Kind::Unavailable, 0.5, 150.0, 300.0),
            (Kind::Unavailable, 4.0, 1200.0, 2400.0),
            (Kind::Unavailable, 23.0, 2250.0, 4500.0),
            (Kind::Sealed, 0.0, 30.0, 60.0),
            (Kind::Sealed, 4.0, 1200.0, 2400.0),
            (Kind::Denied, 0.0, 150.0, 300.0),
            (Kind::Denied, 4.0, 1200.0, 2400.0),
            (Kind::Denied, 23.0, 1800.0, 3600.0),
            (Kind::Corrupt, 0.0, 1800.0, 3600.0),
        ] {
            let pace = Pace { leeway: Some(Duration::from_secs_f64(3600.0 * left_h)), seed: 7 };
            let wait = delay(kind, 40, None, pace).as_secs_f64();
            assert!((low..=high).contains(&wait), "{kind:?} with {left_h} h left waits {wait} s");
        }
        // A short trouble is not made a long one by it.
        let pace = Pace { seed: 7, leeway: Some(Duration::from_hours(23)) };
        assert!(delay(Kind::Unavailable, 4, None, pace) <= Duration::from_secs(8));
    }
}

//! What an answer tells about Vault's clock. The `Date` header has whole seconds and was written
//! at some moment between the request and the answer, so half a second and half the round trip
//! are the bounds of what can be known.

use std::time::Duration;

use http::Response;
use http::header::DATE;
use jiff::{SignedDuration, Timestamp};

/// A round trip longer than this tells too little of the clock to replace what is known.
const SHARP: Duration = Duration::from_secs(10);

/// The resolution of a `Date` header.
const SECOND: Duration = Duration::from_secs(1);

/// Vault's clock and ours at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Vault's clock: the middle of the second that it named.
    pub server: Timestamp,
    /// Our wall clock at that moment: the middle of the round trip.
    pub wall: Timestamp,
    /// Our monotonic clock at that moment, by which the age of this is told.
    pub monotonic: Duration,
    /// How far both may be apart from each other through the measurement alone.
    pub uncertainty: Duration,
}

impl Observed {
    /// From Vault's time and the two clocks when the answer had come.
    pub(super) fn new(
        server: Timestamp,
        wall: Timestamp,
        monotonic: Duration,
        round_trip: Duration,
    ) -> Observed {
        let half = round_trip / 2;
        Observed {
            // Saturating: a `Date` at the end of time is absurd, and must not panic.
            server: server.saturating_add(SECOND / 2).unwrap_or(server),
            wall: wall.saturating_sub(half).unwrap_or(wall),
            monotonic: monotonic.saturating_sub(half),
            uncertainty: SECOND / 2 + half,
        }
    }

    pub(super) fn is_sharp(&self) -> bool {
        self.uncertainty <= (SECOND + SHARP) / 2
    }

    /// How far our wall clock is ahead of Vault's; negative where it is behind.
    pub fn skew(&self) -> SignedDuration {
        self.wall.duration_since(self.server)
    }
}

/// The instant that an answer was written, by the server's clock.
pub(super) fn date(answer: &Response<Vec<u8>>) -> Option<Timestamp> {
    let text = answer.headers().get(DATE)?.to_str().ok()?;
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn the_round_trip_and_the_whole_second_bound_the_skew() {
        let monotonic = Duration::from_secs(100);
        let round_trip = Duration::from_secs(4);
        let note = Observed::new(
            at("2026-11-21T12:00:00Z"),
            at("2026-11-21T13:00:02.5Z"),
            monotonic,
            round_trip,
        );
        assert_eq!(note.skew(), SignedDuration::from_hours(1));
        assert_eq!(note.uncertainty, Duration::from_millis(2500));
        assert_eq!(note.monotonic, Duration::from_secs(98));
        assert!(note.is_sharp());
        let slow = Observed::new(note.server, note.wall, monotonic, Duration::from_secs(11));
        assert!(!slow.is_sharp(), "an EC2 hang says nothing of the clock");
    }

    #[test]
    fn reads_the_date_that_go_writes() {
        let answer = Response::builder().header(DATE, "Sat, 21 Nov 2026 12:00:05 GMT");
        let answer = answer.body(Vec::new()).expect("an answer");
        assert_eq!(date(&answer), Some(at("2026-11-21T12:00:05Z")));
        let answer = Response::builder().header(DATE, "yesterday");
        assert_eq!(date(&answer.body(Vec::new()).expect("an answer")), None);
    }
}

//! Vault as a fleet sees it: it answers at once, or it is away; tokens have a lease and a longest
//! life. What is asked of it is counted by the second.

use std::ops::Range;

use jiff::{SignedDuration, Timestamp};
use nodeagent::error::{Code, Error, Result};

/// The lease of a node's token, as docs/vault.md has it.
pub(super) const LEASE: SignedDuration = SignedDuration::from_hours(1);

/// The longest life of a node's token, as docs/vault.md has it.
pub(super) const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// What a node asks of Vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// A log-in, for which Vault asks AWS.
    LogIn,
    /// The renewal of a token.
    Renew,
    /// A certificate.
    Sign,
    /// Its health, which tells its time.
    Health,
}

impl Call {
    pub(super) const ALL: [Call; 4] = [Call::LogIn, Call::Renew, Call::Sign, Call::Health];
}

/// One Vault, and what was asked of it.
pub(super) struct Vault {
    begun: Timestamp,
    away: Range<Timestamp>,
    /// For each second, how many of each call.
    seconds: Vec<[u32; Call::ALL.len()]>,
    /// How often nobody was there to be asked.
    pub(super) in_vain: u64,
}

impl Vault {
    /// A Vault that is watched over a span, and away in a part of it.
    pub(super) fn new(watched: Range<Timestamp>, away: Range<Timestamp>) -> Vault {
        let seconds = watched.start.duration_until(watched.end).as_secs() as usize;
        let seconds = vec![[0; Call::ALL.len()]; seconds + 1];
        Vault { begun: watched.start, away, seconds, in_vain: 0 }
    }

    /// Asks; the error is that of a connection that nobody takes.
    pub(super) fn ask(&mut self, call: Call, now: Timestamp) -> Result<()> {
        if self.away.contains(&now) {
            self.in_vain += 1;
            return Err(Error::new(Code::VaultUnreachable, "connection refused").unsent());
        }
        let second = self.begun.duration_until(now).as_secs() as usize;
        if let Some(counts) = self.seconds.get_mut(second) {
            counts[call as usize] += 1;
        }
        Ok(())
    }

    /// Requests a second in each window of a span, as its first second and the rate.
    pub(super) fn rates(&self, span: &Range<Timestamp>, window: usize) -> Vec<f64> {
        let rate = |window: &[[u32; Call::ALL.len()]]| {
            let requests: u32 = window.iter().flatten().sum();
            f64::from(requests) / window.len() as f64
        };
        self.of(span).chunks_exact(window).map(rate).collect()
    }

    /// How many of a call there were in a span, and the most in one second.
    pub(super) fn count(&self, span: &Range<Timestamp>, call: Call) -> (u32, u32) {
        let counts = || self.of(span).iter().map(|counts| counts[call as usize]);
        (counts().sum(), counts().max().unwrap_or(0))
    }

    fn of(&self, span: &Range<Timestamp>) -> &[[u32; Call::ALL.len()]] {
        let second = |at: Timestamp| {
            let second = self.begun.duration_until(at).as_secs().max(0) as usize;
            second.min(self.seconds.len())
        };
        &self.seconds[second(span.start)..second(span.end)]
    }
}

//! How a duty has fared: its failures in a row, and until when it waits.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::after;
use crate::backoff;
use crate::error::{Code, Error, Kind};

/// How a duty has fared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DutyRecord {
    /// When it last succeeded.
    pub last_success: Option<Timestamp>,
    /// Its failures since then.
    pub failure: Option<Failure>,
    /// It is not tried before this instant.
    pub not_before: Option<Timestamp>,
    /// When it was last tried and failed.
    pub tried: Option<Timestamp>,
    /// Until when the other side has asked it to wait (`Retry-After`).
    pub asked_until: Option<Timestamp>,
}

impl DutyRecord {
    /// Until when it waits, with so much time left before a certificate ends by it. A wait that a
    /// leeway allowed which is gone meanwhile (a certificate was torn or lost) is cut to what is
    /// left of it, but not to less than was asked for.
    pub fn waits_until(&self, leeway: Option<Duration>, now: Timestamp) -> Option<Timestamp> {
        // A wait that was counted by a clock that has since stepped back is not waited for.
        if self.tried.is_some_and(|tried| tried > now) {
            return None;
        }
        let until = self.not_before.filter(|until| *until > now)?;
        let (Some(tried), Some(leeway)) = (self.tried, leeway) else { return Some(until) };
        let kind = self.failure.as_ref().map_or(Kind::Unavailable, |failure| failure.code.kind());
        let since = Duration::try_from(tried.duration_until(now)).unwrap_or_default();
        let latest = after(tried, backoff::longest(kind, Some(leeway + since)));
        let latest = self.asked_until.map_or(latest, |asked| asked.max(latest));
        Some(until.min(latest)).filter(|until| *until > now)
    }
}

/// A run of failures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong last.
    pub code: Code,
    /// Its text.
    pub text: String,
    /// What a person does about it.
    pub advice: Option<String>,
    /// When the run of failures began.
    pub since: Timestamp,
    /// How many there were in a row.
    pub count: u32,
}

impl Failure {
    /// The first of its kind.
    pub(super) fn of(error: &Error, now: Timestamp) -> Failure {
        Failure {
            code: error.code(),
            text: format!("{error:#}"),
            advice: error.advice().map(String::from),
            since: now,
            count: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_cut_to_the_leeway_that_is_left() {
        let at = |minute: i64| Timestamp::from_second(60 * minute).expect("an instant");
        let away =
            |code| Failure { code, text: String::new(), advice: None, since: at(0), count: 9 };
        let waiting = |code, asked: Option<i64>| DutyRecord {
            failure: Some(away(code)),
            not_before: Some(at(60)),
            tried: Some(at(0)),
            asked_until: asked.map(at),
            ..DutyRecord::default()
        };
        let left = |minutes: u64| Some(Duration::from_mins(minutes));
        let own = waiting(Code::VaultUnreachable, None);
        for (what, record, left, now, until) in [
            ("ten hours were left, and are", &own, left(599), 1, Some(60)),
            ("a certificate was lost", &own, left(0), 1, Some(5)),
            ("it was lost long ago", &own, left(0), 6, None),
            ("an hour is left", &own, left(59), 1, Some(10)),
            ("nothing is lost by waiting", &own, None, 1, Some(60)),
            ("it has waited", &own, left(599), 60, None),
            ("the clock stepped back", &own, left(599), -1, None),
            ("somebody said no", &waiting(Code::PolicyDenied, None), left(599), 1, Some(60)),
            ("and it was lost", &waiting(Code::PolicyDenied, None), left(0), 1, Some(5)),
            ("Vault is sealed", &waiting(Code::VaultSealed, None), left(0), 1, None),
            ("what came is wrong", &waiting(Code::CertificateBad, None), left(0), 1, Some(60)),
            ("Vault asked for all", &waiting(Code::VaultFailing, Some(60)), left(0), 1, Some(60)),
            ("Vault asked for some", &waiting(Code::VaultFailing, Some(9)), left(0), 1, Some(9)),
            ("it asked for little", &waiting(Code::VaultThrottled, Some(1)), left(0), 1, Some(5)),
            (
                "and ten hours are left",
                &waiting(Code::VaultThrottled, Some(1)),
                left(599),
                1,
                Some(60),
            ),
        ] {
            assert_eq!(record.waits_until(left, at(now)), until.map(at), "{what}");
        }
    }
}

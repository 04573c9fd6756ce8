//! The session with Vault: log in, keep the token alive, and watch the clock by Vault's.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Due, DutyId, Facts, Records, Why};
use crate::backoff;
use crate::config::Config;
use crate::error::{Code, Error, Kind, Result};
use crate::node::{Node, Session, SessionFacts, Standing};
use crate::wire::vault::Auth;

/// While the clock is out of its bound it is measured this often, so that its repair is seen.
pub const CLOCK_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// What a token without an end is renewed by.
const ENDLESS: Duration = Duration::from_secs(3600);

/// A step of the clock that is more than its jitter.
const STEP: Duration = Duration::from_secs(5);

/// Renewals that fail this often in a row are not going to succeed: a log-in tells why, or cures
/// it. Vault answers 500 where the instance's entry is gone, and a renewal cannot bring it back.
const RENEWALS: u32 = 3;

/// All that one policy refuses at once costs one log-in; who asks again every five minutes, which
/// is as often as a node in a hurry does, has one each time.
const REPEAT: Duration = Duration::from_mins(2);

/// When the session is due, and why.
pub fn due(config: &Config, facts: &Facts, now: Timestamp) -> Due {
    let Some((session, standing)) = &facts.session else {
        return Due::Now(Why::Missing);
    };
    match standing {
        Standing::Stored => return Due::Now(Why::Unproved),
        Standing::Doubtful | Standing::Stale => return Due::Now(Why::Refused),
        Standing::Proved => {}
    }
    // A session from the future: the clock has stepped back, and its end is asked for anew.
    if session.since > after(now, STEP) {
        return Due::Now(Why::Unproved);
    }
    if session.mount != config.identity.mount || session.role != config.identity.role {
        return Due::Now(Why::SpecChanged);
    }
    let renewal = renew_at(session);
    if renewal <= now {
        return Due::Now(Why::Expiring);
    }
    match measure_at(facts) {
        Some(at) if at <= now => Due::Now(Why::ClockDoubtful),
        Some(at) => Due::At(at.min(renewal)),
        None => Due::At(renewal),
    }
}

/// When a session is renewed or replaced: after 60 to 70 % of its lease, by the token's own hash.
pub fn renew_at(session: &SessionFacts) -> Timestamp {
    let share = 0.6 + 0.1 * backoff::fraction(backoff::hash(&session.accessor), 0);
    let wait = SignedDuration::from_secs_f64(session.lease().as_secs_f64().max(0.0) * share);
    session.since.checked_add(wait).unwrap_or(session.expires)
}

fn measure_at(facts: &Facts) -> Option<Timestamp> {
    if facts.clock.fits {
        return None;
    }
    facts.clock.measured?.checked_add(CLOCK_INTERVAL).ok()
}

/// What to do about a session that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Ask Vault whether it takes the stored token.
    Prove,
    /// Renew the token.
    Renew,
    /// Get a new token.
    LogIn,
    /// Measure the clock.
    Measure,
}

impl Plan {
    /// The words of a log for what was done.
    pub fn done(self) -> &'static str {
        match self {
            Plan::Prove => "took up the stored token",
            Plan::Renew => "renewed the token",
            Plan::LogIn => "logged in",
            Plan::Measure => "measured the clock",
        }
    }
}

/// What is done where a session is due for a reason, after so many failures in a row.
pub fn plan(why: Why, session: Option<&SessionFacts>, failures: u32, now: Timestamp) -> Plan {
    match (why, session) {
        (Why::ClockDoubtful, _) => Plan::Measure,
        (Why::Unproved, Some(session)) if session.expires > now => Plan::Prove,
        (Why::Expiring, Some(session)) if may_renew(session, failures, now) => Plan::Renew,
        _ => Plan::LogIn,
    }
}

/// A token that is not renewable, whose lease was cut, whose renewal keeps failing or whose last
/// quarter has begun is replaced.
fn may_renew(session: &SessionFacts, failures: u32, now: Timestamp) -> bool {
    let left = now.duration_until(session.expires);
    session.renewable
        && !session.is_cut()
        && failures < RENEWALS
        && left.as_secs_f64() > session.lease().as_secs_f64() / 4.0
}

/// Does what is due; says what was done, which is more than was planned where Vault refuses.
pub async fn perform(node: &Node, why: Why, records: &Records) -> Result<Plan> {
    let held = node.session.get().map(|(session, _)| session);
    let failures = records.duty(&DutyId::Session).failure.map_or(0, |failure| failure.count);
    let plan = plan(why, held.as_ref().map(|held| &held.facts), failures, node.clock.now());
    match (plan, held) {
        (Plan::Measure, _) => measure(node).await,
        (Plan::Prove, Some(held)) => match prove(node, held).await {
            // A policy that does not let a token look itself up is no reason to stay without one.
            Err(error) if matches!(error.kind(), Kind::Unauthenticated | Kind::Denied) => {
                log_in(node).await
            }
            other => other,
        },
        (Plan::Renew, Some(held)) => match renew(node, held).await {
            Err(error) if error.kind() == Kind::Unauthenticated => log_in(node).await,
            other => other,
        },
        (_, Some(held)) if why == Why::Refused => replace(node, held).await,
        _ => log_in(node).await,
    }
}

/// A log-in for a token that Vault takes and a policy does not let do its work. Where it fails the
/// token is renewed: it must not end because there is no other.
async fn replace(node: &Node, held: Session) -> Result<Plan> {
    let is_stale = matches!(node.session.get(), Some((_, Standing::Stale)));
    match log_in(node).await {
        Err(error) if is_stale && held.facts.renewable => {
            tracing::debug!("the token stays: {error:#}");
            renew(node, held).await.map_err(|_| error)
        }
        other => other,
    }
}

/// Takes up the session that the agent has stored, for a verb that runs beside it. Where Vault
/// cannot be asked, or refuses, there is none: a verb does not log in.
pub async fn take_up(node: &Node) {
    node.recall_session();
    if let Some((held, Standing::Stored)) = node.session.get()
        && let Err(error) = prove(node, held).await
    {
        tracing::debug!("no session: {error:#}");
    }
}

async fn measure(node: &Node) -> Result<Plan> {
    let before = node.vault.observed().map(|seen| seen.monotonic);
    node.vault.health().await?;
    match node.vault.observed().map(|seen| seen.monotonic) == before {
        true => Err(Error::new(Code::VaultFailing, "vault did not tell the time")),
        false => Ok(Plan::Measure),
    }
}

async fn prove(node: &Node, held: Session) -> Result<Plan> {
    let known = node.vault.lookup_self(&held.token).await;
    let known = known.map_err(|error| error.during("trying the stored token"))?;
    let now = node.clock.now();
    let mut session = held;
    session.facts.renewable = known.renewable;
    session.facts.expires = after(now, looked_after(known.ttl));
    session.facts.since = session.facts.since.min(now);
    node.session.set(session, Standing::Proved);
    Ok(Plan::Prove)
}

async fn renew(node: &Node, held: Session) -> Result<Plan> {
    let asked = Duration::from_secs(held.facts.asked_s);
    let auth = node.vault.renew_self(&held.token, asked).await;
    let auth = auth.map_err(|error| error.during("renewing the token"))?;
    let now = node.clock.now();
    let mut session = held;
    session.facts.since = now;
    session.facts.expires = after(now, looked_after(auth.lease));
    session.facts.renewable = auth.renewable;
    node.session.set(session.clone(), Standing::Proved);
    node.store_session(&session)?;
    Ok(Plan::Renew)
}

async fn log_in(node: &Node) -> Result<Plan> {
    let evidence = node.attestor.evidence().await;
    let evidence = evidence.map_err(|error| error.during("proving the node's identity"))?;
    let mount = node.config.identity.mount.clone();
    let Auth { token, accessor, lease, renewable, .. } = node
        .vault
        .login(&mount, &evidence.login)
        .await
        .map_err(|error| error.during("logging in to vault"))?;
    let now = node.clock.now();
    let lease = looked_after(lease);
    let facts = SessionFacts {
        accessor,
        identity: evidence.identity,
        mount,
        role: node.config.identity.role.clone(),
        since: now,
        expires: after(now, lease),
        asked_s: lease.as_secs(),
        renewable,
    };
    let session = Session { token, facts };
    node.session.set(session.clone(), Standing::Proved);
    // First: whoever finds the session at the next start takes it up and does not log in again.
    let remembered = node.remember_identity(&session.facts.identity);
    node.store_session(&session)?;
    remembered.map(|()| Plan::LogIn)
}

/// A token without an end has a lease of 0; it is still looked after.
fn looked_after(lease: Duration) -> Duration {
    if lease.is_zero() { ENDLESS } else { lease }
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Judges by failures elsewhere what the session is good for.
#[derive(Debug, Default)]
pub struct Judge {
    /// When a log-in was last asked for because a policy had said no.
    repeated: Option<Duration>,
}

impl Judge {
    /// What a failure says, by a clock that is never set. Where the token was refused it is of no
    /// use. Where a policy says no, the log-in may be older than what it was given, since a token
    /// has the policies of its log-in: that is repeated while the token goes on being used.
    pub fn hears(&mut self, code: Code, now: Duration) -> Option<Standing> {
        let lately = self.repeated.is_some_and(|at| now.saturating_sub(at) < REPEAT);
        match code {
            code if code.kind() == Kind::Unauthenticated => Some(Standing::Doubtful),
            Code::PolicyDenied if !lately => {
                self.repeated = Some(now);
                Some(Standing::Stale)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::Identity;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn session(lease: i64, asked: u64) -> SessionFacts {
        SessionFacts {
            accessor: "a".into(),
            identity: Identity {
                instance_id: "i-0aaa".into(),
                private_ip: None,
                region: String::new(),
                availability_zone: String::new(),
                account_id: String::new(),
                image_id: String::new(),
                instance_type: String::new(),
            },
            mount: "aws".into(),
            role: "worker".into(),
            since: at(0),
            expires: at(lease),
            asked_s: asked,
            renewable: true,
        }
    }

    #[test]
    fn a_lease_is_renewed_after_60_to_70_percent() {
        let wait = at(0).duration_until(renew_at(&session(1000, 1000))).as_secs();
        assert!((600..=700).contains(&wait), "{wait}");
    }

    #[test]
    fn a_token_is_of_use_until_it_ends() {
        let usable = |standing, now| {
            let session = Some((session(1000, 1000), standing));
            Facts { session, ..Facts::default() }.has_token(at(now))
        };
        assert!(usable(Standing::Proved, 999) && usable(Standing::Stale, 999));
        assert!(!usable(Standing::Proved, 1000) && !usable(Standing::Stale, 1000));
        assert!(!usable(Standing::Doubtful, 10) && !usable(Standing::Stored, 10));
        assert!(!Facts::default().has_token(at(10)));
    }

    #[test]
    fn the_plan_follows_the_reason_and_the_lease() {
        let whole = session(1000, 1000);
        let cut = session(500, 1000);
        let fixed = SessionFacts { renewable: false, ..session(1000, 1000) };
        for (name, why, held, failures, now, expected) in [
            ("the first start", Why::Missing, None, 0, 0, Plan::LogIn),
            ("a stored token", Why::Unproved, Some(&whole), 0, 100, Plan::Prove),
            ("a stored token that ended", Why::Unproved, Some(&whole), 0, 1000, Plan::LogIn),
            ("in time", Why::Expiring, Some(&whole), 0, 650, Plan::Renew),
            ("failing twice", Why::Expiring, Some(&whole), 2, 660, Plan::Renew),
            ("failing thrice", Why::Expiring, Some(&whole), 3, 670, Plan::LogIn),
            ("the last quarter", Why::Expiring, Some(&whole), 0, 760, Plan::LogIn),
            ("the maximum is near", Why::Expiring, Some(&cut), 0, 310, Plan::LogIn),
            ("not renewable", Why::Expiring, Some(&fixed), 0, 650, Plan::LogIn),
            ("refused", Why::Refused, Some(&whole), 0, 10, Plan::LogIn),
            ("another role", Why::SpecChanged, Some(&whole), 0, 10, Plan::LogIn),
            ("the clock", Why::ClockDoubtful, Some(&whole), 9, 10, Plan::Measure),
        ] {
            assert_eq!(plan(why, held, failures, at(now)), expected, "{name}");
        }
    }

    #[test]
    fn a_policy_that_refuses_is_met_with_a_log_in_now_and_then() {
        let mut judge = Judge::default();
        for (code, second, standing) in [
            (Code::RoleRefused, 9, None),
            (Code::PolicyDenied, 9, Some(Standing::Stale)),
            (Code::PolicyDenied, 10, None),
            (Code::TokenInvalid, 10, Some(Standing::Doubtful)),
            (Code::PolicyDenied, 128, None),
            (Code::PolicyDenied, 129, Some(Standing::Stale)),
            (Code::PolicyDenied, 130, None),
        ] {
            assert_eq!(judge.hears(code, Duration::from_secs(second)), standing, "{second} s");
        }
    }
}

//! The published status: one document, rendered as JSON, as text and as metrics.
//!
//! [`collect`] is pure. The document lies in /run, so that `status` works when the agent is dead
//! and for an ordinary user. Within a schema it only grows.

pub mod duties;
pub mod metrics;
pub mod plane;
mod published;
pub mod text;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::{CertSpec, Config, ConsumerSpec};
use crate::duty::facts::{CertFact, Held};
use crate::duty::{Due, Duty, DutyId, Facts, Hold, Records, act, certs, session};
use crate::error::{Code, Error};
use crate::node::Standing;
use crate::version;
pub use published::{load, store};

/// Where the status is published.
pub const PATH: &str = "/run/nodeagent/status.json";

/// The form of the document.
pub const SCHEMA: u32 = 1;

/// How well the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Everything is as it should be. Exit code 0.
    Healthy,
    /// Something needs attention; what runs goes on running. Exit code 1.
    Degraded,
    /// A certificate is missing or has ended, or the agent cannot work. Exit code 2.
    Failed,
}

/// The whole status.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The form of this document.
    pub schema: u32,
    /// How well the node is.
    pub health: Health,
    /// The agent itself.
    pub agent: AgentPart,
    /// The node.
    pub node: NodePart,
    /// The session with Vault.
    pub vault: VaultPart,
    /// For how many seconds every certificate lasts if Vault goes away now; nothing while one is
    /// missing.
    pub autonomy_s: Option<i64>,
    /// For how many seconds Vault may be away at any moment, as configured.
    #[serde(default)]
    pub survive_s: Option<u64>,
    /// The pinned authorities.
    #[serde(default)]
    pub authorities: Vec<duties::AuthorityPart>,
    /// How each duty has fared.
    #[serde(default)]
    pub duties: Vec<duties::DutyPart>,
    /// The certificates.
    pub certificates: Vec<CertPart>,
    /// The programs that use them.
    pub consumers: Vec<ConsumerPart>,
    /// The control plane, on a node that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<plane::PlanePart>,
    /// What needs attention.
    pub problems: Vec<Problem>,
}

/// The agent itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentPart {
    /// Its version.
    pub version: String,
    /// The commit that it was built from, where it is a release.
    #[serde(default)]
    pub commit: Option<String>,
    /// Which configuration it goes by.
    #[serde(default)]
    pub configuration: String,
    /// When it started.
    pub started: Timestamp,
    /// When it last looked.
    pub looked: Timestamp,
    /// How often it looks, in seconds; after twice as long it is taken for dead.
    pub interval_s: u64,
}

impl AgentPart {
    /// The part of an agent that looked now.
    pub fn new(started: Timestamp, looked: Timestamp, interval: Duration) -> AgentPart {
        let version = version::VERSION.to_string();
        let commit = version::commit().map(String::from);
        let interval_s = interval.as_secs();
        Self { version, commit, configuration: String::new(), started, looked, interval_s }
    }
}

/// The node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodePart {
    /// The cluster's name.
    pub cluster: String,
    /// The node's role.
    pub role: String,
    /// The instance id, as Vault has accepted it.
    pub instance_id: Option<String>,
    /// How many seconds the clock is ahead of Vault's, where that was measured.
    pub clock_ahead_s: Option<f64>,
    /// Whether a time service says that it has set the clock.
    pub clock_synchronized: Option<bool>,
}

/// The session with Vault.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VaultPart {
    /// Vault's address.
    pub address: String,
    /// `none`, `stored`, `logged-in` or `refused`.
    pub session: String,
    /// When the lease of the token ends.
    pub expires: Option<Timestamp>,
    /// When the token is renewed or replaced, or where there is none, when the node logs in.
    pub renew: Option<Timestamp>,
}

/// One certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertPart {
    /// Its name.
    pub name: String,
    /// Its consumer.
    pub consumer: String,
    /// `good`, `missing`, `broken`, `expired`, `foreign` or `unknown`.
    pub state: String,
    /// The serial on disk.
    pub serial: Option<String>,
    /// Its end.
    pub not_after: Option<Timestamp>,
    /// When the next one is asked for.
    pub renew: Option<Timestamp>,
    /// What a due renewal waits for.
    pub waits_for: Option<String>,
    /// The published generation.
    pub generation: Option<u64>,
    /// The last generation that was taken back.
    pub quarantined: Option<u64>,
    /// When Vault last issued one that was published.
    #[serde(default)]
    pub issued: Option<Timestamp>,
    /// How many were asked for within the last hour.
    #[serde(default)]
    pub issues: usize,
}

/// One program that uses certificates.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsumerPart {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: Option<String>,
    /// `current`, `pending`, `failing` or `waiting`.
    pub state: String,
    /// The serial that it was last seen to serve.
    pub served: Option<String>,
    /// When that was.
    pub proved: Option<Timestamp>,
    /// What was done for it last.
    pub last_act: Option<String>,
    /// When that was.
    pub last_act_at: Option<Timestamp>,
}

/// Something that needs attention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// Which one: an entry of docs/operating.md.
    pub code: Code,
    /// Where: a duty's name, or `agent`.
    pub place: String,
    /// What was found.
    pub text: String,
    /// What to do.
    pub advice: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// Collects the status; pure.
pub fn collect(
    config: &Config,
    facts: &Facts,
    records: &Records,
    agent: AgentPart,
    own: Option<&Error>,
) -> Status {
    let now = agent.looked;
    let view = View { config, facts, records, now };
    let problems = view.problems(own);
    let autonomy = view.autonomy();
    let mut held = facts.certificates.values().filter_map(CertFact::held);
    let health = match () {
        () if autonomy.is_none() || held.any(|held| view.has_ended(held)) => Health::Failed,
        () if problems.is_empty() => Health::Healthy,
        () => Health::Degraded,
    };
    Status {
        schema: SCHEMA,
        health,
        agent: AgentPart { configuration: config.digest.clone(), ..agent },
        node: view.node(),
        vault: view.vault(),
        autonomy_s: autonomy,
        survive_s: Some(config.survive.as_secs()),
        authorities: duties::authorities(config),
        duties: duties::collect(config, records),
        certificates: config.certificates.iter().map(|spec| view.certificate(spec)).collect(),
        consumers: config.consumers.iter().map(|spec| view.consumer(spec)).collect(),
        control_plane: view.plane(),
        problems,
    }
}

struct View<'a> {
    config: &'a Config,
    facts: &'a Facts,
    records: &'a Records,
    now: Timestamp,
}

impl View<'_> {
    fn plane(&self) -> Option<plane::PlanePart> {
        let (told, seen) = self.config.control_plane.as_ref().zip(self.facts.plane.as_ref())?;
        Some(plane::collect(told, seen, self.facts.plane_down_since))
    }

    fn node(&self) -> NodePart {
        let identity = self.facts.identity.as_ref();
        NodePart {
            cluster: self.config.cluster.clone(),
            role: format!("{:?}", self.config.role).to_lowercase(),
            instance_id: identity.map(|identity| identity.instance_id.clone()),
            clock_ahead_s: self.facts.clock.ahead.map(|ahead| ahead.as_secs_f64()),
            clock_synchronized: self.facts.clock.synchronized,
        }
    }

    fn vault(&self) -> VaultPart {
        let held = self.facts.session.as_ref();
        let log_in = self.records.duty(&DutyId::Session).not_before.filter(|at| *at > self.now);
        VaultPart {
            address: self.config.vault.address.clone(),
            session: match held.map(|(_, standing)| standing) {
                None => "none",
                Some(Standing::Stored) => "stored",
                Some(Standing::Proved | Standing::Stale) => "logged-in",
                Some(Standing::Doubtful) => "refused",
            }
            .into(),
            expires: held.map(|(session, _)| session.expires),
            renew: held.map(|(session, _)| session::renew_at(session)).or(log_in),
        }
    }

    fn certificate(&self, spec: &CertSpec) -> CertPart {
        let record = self.records.certificate(&spec.name);
        let fact = self.facts.certificates.get(&spec.name);
        let held = fact.and_then(CertFact::held);
        let due = Duty::Cert(spec).due(self.config, self.facts, self.records, self.now);
        CertPart {
            name: spec.name.clone(),
            consumer: spec.consumer.clone(),
            state: self.state(fact).into(),
            serial: held.map(|held| held.leaf.serial.clone()),
            not_after: held.map(|held| held.leaf.not_after),
            renew: match due {
                Due::At(at) => Some(at),
                Due::Now(_) => Some(self.now),
                Due::Blocked(_) | Due::Idle => None,
            },
            waits_for: match due {
                Due::Blocked(Hold::Duty(id)) => Some(id.to_string()),
                Due::Blocked(Hold::Clock) => Some("the clock".into()),
                Due::Blocked(Hold::Foreign) => Some("a person".into()),
                _ => None,
            },
            generation: held.map(|held| held.generation.0),
            quarantined: record.quarantined.last().map(|g| g.0),
            issued: record.issued,
            issues: record.recent_issues(self.now).count(),
        }
    }

    fn state(&self, fact: Option<&CertFact>) -> &'static str {
        match fact {
            None | Some(CertFact::Unknown(_)) => "unknown",
            Some(CertFact::Absent { .. }) => "missing",
            Some(CertFact::Broken { .. }) => "broken",
            Some(CertFact::Foreign { .. }) => "foreign",
            Some(CertFact::Held(held)) if self.has_ended(held) => "expired",
            Some(CertFact::Held(_)) => "good",
        }
    }

    fn consumer(&self, spec: &ConsumerSpec) -> ConsumerPart {
        let record = self.records.consumer(&spec.name);
        let failing = self.records.duty(&Duty::Act(spec).id()).failure.is_some();
        let state = match act::due(self.config, spec, self.facts, self.records, self.now) {
            _ if failing => "failing",
            Due::Idle => "current",
            Due::Blocked(_) => "waiting",
            Due::Now(_) | Due::At(_) => "pending",
        };
        ConsumerPart {
            name: spec.name.clone(),
            unit: spec.unit.clone(),
            state: state.into(),
            served: record.served,
            proved: record.proved,
            last_act_at: record.last_act.as_ref().map(|(at, _)| *at),
            last_act: record.last_act.map(|(_, word)| word),
        }
    }

    fn has_ended(&self, held: &Held) -> bool {
        self.facts.clock.has_passed(held.leaf.not_after, self.now)
    }

    /// The seconds until the first certificate ends.
    fn autonomy(&self) -> Option<i64> {
        let mut least = Some(i64::MAX);
        for spec in &self.config.certificates {
            let held = self.facts.certificates.get(&spec.name).and_then(CertFact::held);
            let left = held.map(|held| self.now.duration_until(held.leaf.not_after).as_secs());
            least = least.zip(left).map(|(least, left)| least.min(left));
        }
        least
    }

    fn problems(&self, own: Option<&Error>) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(error) = own {
            problems.push(problem("agent", error, None));
        }
        for warning in &self.config.warnings {
            let error = Error::new(Code::AuthorityEnding, warning.as_str());
            problems.push(problem("agent", &error, None));
        }
        for (id, failure) in self.records.failures() {
            problems.push(Problem {
                code: failure.code,
                place: id.to_string(),
                text: failure.text.clone(),
                advice: failure.advice.clone(),
                since: Some(failure.since),
            });
        }
        problems.extend(self.clock_problem());
        for spec in &self.config.certificates {
            problems.extend(self.cert_problem(spec));
        }
        if let Some(part) = self.plane() {
            let failure = self.records.duty(&DutyId::ControlPlane).failure;
            problems.extend(plane::problems(&part, failure.as_ref()));
        }
        problems
    }

    fn clock_problem(&self) -> Option<Problem> {
        let ahead = self.facts.clock.ahead.filter(|_| !self.facts.clock.fits)?;
        let whole = SignedDuration::from_secs(ahead.as_secs());
        Some(Problem {
            code: Code::ClockSkew,
            place: "agent".into(),
            text: format!("the clock is {whole:#} ahead of vault's; nothing is judged by it alone"),
            advice: Some("set the clock: timedatectl timesync-status; chronyc tracking".into()),
            since: self.facts.clock.measured,
        })
    }

    fn cert_problem(&self, spec: &CertSpec) -> Option<Problem> {
        let place = Duty::Cert(spec).id().to_string();
        let found = |code, text: String, advice: &str| {
            let advice = Some(advice.to_string());
            Some(Problem { code, place: place.clone(), text, advice, since: None })
        };
        match self.facts.certificates.get(&spec.name)? {
            CertFact::Unknown(error) => Some(problem(&place, error, None)),
            CertFact::Foreign { what } => found(
                Code::Foreign,
                format!("{what}; nodeagent did not write it and leaves it alone"),
                "move it away; the certificate is published then",
            ),
            CertFact::Held(held) if self.has_ended(held) => {
                let text = format!("the certificate ended {}", held.leaf.not_after);
                found(Code::AutonomyShort, text, "see why it cannot be renewed: the other problems")
            }
            // By a clock that is out of its bounds nothing else is judged.
            CertFact::Held(_) if !self.facts.clock.fits => None,
            CertFact::Held(held) if self.is_short(held.leaf.not_after) => {
                let left = self.now.duration_until(held.leaf.not_after);
                let left = SignedDuration::from_secs(left.as_secs());
                let text = format!("{left:#} are left, less than the outage to be survived");
                found(
                    Code::AutonomyShort,
                    text,
                    "see why it cannot be renewed: the other problems, and max_ttl of the PKI role",
                )
            }
            CertFact::Absent { .. } | CertFact::Broken { .. } | CertFact::Held(_)
                if self.is_held_back(spec) =>
            {
                let budget = self.config.issues_per_hour;
                let text = format!("{budget} certificates were asked for within an hour");
                found(Code::IssueBudget, text, "see why they do not last: the log of nodeagent")
            }
            _ => None,
        }
    }

    fn is_held_back(&self, spec: &CertSpec) -> bool {
        certs::held_back(self.config, spec, self.facts, self.records, self.now).is_some()
    }

    fn is_short(&self, end: Timestamp) -> bool {
        let left = self.now.duration_until(end);
        left.as_secs_f64() < self.config.survive.as_secs_f64()
    }
}

fn problem(place: &str, error: &Error, since: Option<Timestamp>) -> Problem {
    Problem {
        code: error.code(),
        place: place.to_string(),
        text: format!("{error:#}"),
        advice: error.advice().map(String::from),
        since,
    }
}

//! The duties: each answers one pure question, *when are you due, and why?*, and has one effect.
//!
//! [`Duty`] is closed, so that a new one is asked for everywhere it matters. [`Facts`] is what one
//! look saw; [`Records`] is what must not be forgotten, not even by a reboot.

pub mod act;
pub mod certs;
pub mod control_plane;
pub mod facts;
pub mod files;
pub mod records;
pub mod session;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backoff;
use crate::bootstrap::Report;
use crate::config::plane::ControlPlane;
use crate::config::{CertSpec, Config, ConsumerSpec, Role};
use crate::error::Result;
use crate::node::Node;
pub use facts::{CertFact, Facts};
pub use records::Records;

/// Tells the jitter of the first log-in from that of failures.
const BOOT: u64 = u64::MAX;

/// One of the agent's duties.
#[derive(Clone, Copy, Debug)]
pub enum Duty<'a> {
    /// Log in to Vault, keep the token alive, watch the clock by Vault's.
    Session,
    /// Hold one certificate.
    Cert(&'a CertSpec),
    /// See a consumer take up what was committed for it.
    Act(&'a ConsumerSpec),
    /// Write the files that follow from the configuration.
    Files,
    /// Keep the control plane of this node up.
    ControlPlane(&'a ControlPlane),
}

/// Names a duty in records, logs and `status`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum DutyId {
    /// [`Duty::Session`]
    Session,
    /// [`Duty::Cert`] of a name.
    Cert(String),
    /// [`Duty::Act`] of a name.
    Act(String),
    /// [`Duty::Files`]
    Files,
    /// [`Duty::ControlPlane`]
    ControlPlane,
}

/// When a duty is due.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// Now, and why.
    Now(Why),
    /// At an instant.
    At(Timestamp),
    /// Not before something else has changed.
    Blocked(Hold),
    /// Nothing is to do until a fact changes.
    Idle,
}

/// Why a duty is due: the same word in the log, in `status` and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// There is none yet.
    Missing,
    /// It ends soon enough.
    Expiring,
    /// The configuration asks for another.
    SpecChanged,
    /// The pinned authorities have changed.
    CaRotated,
    /// What is on disk is torn or does not fit.
    Unreadable,
    /// What an earlier start left has to be tried.
    Unproved,
    /// Vault refused it.
    Refused,
    /// The clock has to be measured again.
    ClockDoubtful,
    /// A new generation was committed.
    Committed,
    /// A person asked for it.
    Requested,
    /// A publication was not carried to its end.
    Unfinished,
    /// It has not answered for long enough.
    Down,
}

/// What a blocked duty waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Another duty's success.
    Duty(DutyId),
    /// The clock's return into its bounds.
    Clock,
    /// etcd, which comes back by itself or by a person.
    Etcd,
    /// A person: something of somebody else is in the way.
    Foreign,
}

impl Duty<'_> {
    /// Its name.
    pub fn id(&self) -> DutyId {
        match self {
            Duty::Session => DutyId::Session,
            Duty::Cert(spec) => DutyId::Cert(spec.name.clone()),
            Duty::Act(spec) => DutyId::Act(spec.name.clone()),
            Duty::Files => DutyId::Files,
            Duty::ControlPlane(_) => DutyId::ControlPlane,
        }
    }

    /// When it is due, and why.
    pub fn due(&self, config: &Config, facts: &Facts, records: &Records, now: Timestamp) -> Due {
        let record = records.duty(&self.id());
        if let Some(until) = record.waits_until(leeway(&self.id(), facts, now), now) {
            return Due::At(until);
        }
        match self {
            Duty::Session => session::due(config, facts, now),
            Duty::Cert(spec) => certs::due(config, spec, facts, records, now),
            Duty::Act(spec) => act::due(config, spec, facts, records, now),
            Duty::Files => files::due(facts),
            Duty::ControlPlane(plane) => control_plane::due(config, plane, facts, now),
        }
    }

    /// The longest its effect may take; it is cut then.
    pub fn limit(&self, config: &Config) -> Duration {
        let call = config.vault.timeout;
        match self {
            // Document and log-in, or the clock's measurement before a renewal.
            Duty::Session => call * 2 + Duration::from_secs(10),
            // The clock's measurement, the signature, and a slow disk.
            Duty::Cert(_) => call * 2 + Duration::from_secs(30),
            // Probe, act, probe; and the same once more for the way back.
            Duty::Act(spec) => {
                (spec.limit * 2 + act::PROBE_LIMIT * 2) * 2 + Duration::from_secs(30)
            }
            // A dozen small files on a slow disk.
            Duty::Files => Duration::from_secs(30),
            // The steps have limits of their own; this is more than all of them.
            Duty::ControlPlane(_) => Duration::from_secs(7200),
        }
    }
}

/// The duties of a node, in the order in which they depend on each other.
pub fn duties(config: &Config) -> Vec<Duty<'_>> {
    let mut duties = vec![Duty::Session];
    duties.extend(config.certificates.iter().map(Duty::Cert));
    duties.extend(config.consumers.iter().map(Duty::Act));
    duties.extend(config.cluster_plan.is_some().then_some(Duty::Files));
    duties.extend(config.control_plane.as_ref().map(Duty::ControlPlane));
    duties
}

/// For how long a duty may stay undone before a certificate ends by it: until the first end of
/// those that it keeps alive, which are all of them for the session. Zero where one is missing
/// already; none for duties that no certificate's end waits for.
pub fn leeway(id: &DutyId, facts: &Facts, now: Timestamp) -> Option<Duration> {
    let left = |fact: &CertFact| {
        let end = fact.held().map_or(now, |held| held.leaf.not_after);
        Duration::try_from(now.duration_until(end)).unwrap_or(Duration::ZERO)
    };
    match id {
        DutyId::Session => Some(facts.certificates.values().map(left).min().unwrap_or_default()),
        DutyId::Cert(name) => Some(facts.certificates.get(name).map(left).unwrap_or_default()),
        DutyId::Act(_) | DutyId::Files | DutyId::ControlPlane => None,
    }
}

/// When a worker that has started without a session logs in, where nothing waits for it: a fleet
/// that boots together would log in together. A certificate that is due or missing waits, and so
/// does whoever raises a control plane; there are few of those.
pub fn first_log_in(
    config: &Config,
    facts: &Facts,
    records: &Records,
    seed: u64,
    now: Timestamp,
) -> Option<Timestamp> {
    let certificates = &config.certificates;
    if facts.session.is_some() || config.role == Role::Controller || certificates.is_empty() {
        return None;
    }
    let wait = config.vault.splay.mul_f64(backoff::fraction(seed, BOOT));
    let at = now.checked_add(wait).unwrap_or(now);
    let waits = |spec| matches!(certs::due(config, spec, facts, records, at), Due::At(_));
    (at > now && certificates.iter().all(waits)).then_some(at)
}

/// What an effect achieved, for the records and for one line of log.
#[derive(Debug)]
pub enum Done {
    /// A session is in force.
    Session(session::Plan),
    /// A generation was committed.
    Committed(certs::Commit),
    /// A consumer was seen to.
    Acted(act::Acted),
    /// These files were written.
    Files(Vec<String>),
    /// The control plane is whole.
    Raised(Report),
}

/// Performs a duty's effect.
pub async fn perform(node: &Node, duty: &Duty<'_>, why: Why, records: &Records) -> Result<Done> {
    match duty {
        Duty::Session => session::perform(node, why, records).await.map(Done::Session),
        Duty::Cert(spec) => certs::perform(node, spec, records).await.map(Done::Committed),
        Duty::Act(spec) => act::perform(node, spec, records).await.map(Done::Acted),
        Duty::Files => files::perform(node).map(Done::Files),
        Duty::ControlPlane(_) => control_plane::perform(node).await.map(Done::Raised),
    }
}

impl fmt::Display for DutyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DutyId::Session => f.write_str("session"),
            DutyId::Cert(name) => write!(f, "cert/{name}"),
            DutyId::Act(name) => write!(f, "act/{name}"),
            DutyId::Files => f.write_str("files"),
            DutyId::ControlPlane => f.write_str("control-plane"),
        }
    }
}

impl From<DutyId> for String {
    fn from(id: DutyId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for DutyId {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<DutyId, String> {
        match text.split_once('/') {
            None if text == "session" => Ok(DutyId::Session),
            None if text == "files" => Ok(DutyId::Files),
            None if text == "control-plane" => Ok(DutyId::ControlPlane),
            Some(("cert", name)) => Ok(DutyId::Cert(name.to_string())),
            Some(("act", name)) => Ok(DutyId::Act(name.to_string())),
            _ => Err(format!("`{text}` names no duty")),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Missing => "missing",
            Why::Expiring => "expiring",
            Why::SpecChanged => "spec-changed",
            Why::CaRotated => "ca-rotated",
            Why::Unreadable => "unreadable",
            Why::Unproved => "unproved",
            Why::Refused => "refused",
            Why::ClockDoubtful => "clock-doubtful",
            Why::Committed => "committed",
            Why::Requested => "requested",
            Why::Unfinished => "unfinished",
            Why::Down => "down",
        })
    }
}

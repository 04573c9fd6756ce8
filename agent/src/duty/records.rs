//! What must not be forgotten: failures and their backoff, issue budgets, which generation each
//! consumer has, what was quarantined. In /var/lib, so that a reboot loop cannot reset a budget
//! and a kill between commit and act still acts.

mod fared;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::fared::{DutyRecord, Failure};
use super::act::{self, Acted, RolledBack};
use super::certs::store::Generation;
use super::session::Plan;
use super::{Done, DutyId};
use crate::backoff::{self, Pace};
use crate::error::{Code, Error, Kind, Result, said};
use crate::host::files::{FileKind, Root};

/// Where the records are kept.
pub const PATH: &str = "/var/lib/nodeagent/records.json";

/// The name of what was put aside.
const ASIDE: &str = "records.json.unreadable";

/// The form of the file; another one is not read.
const SCHEMA: u32 = 1;

/// A record file larger than this is none.
const LIMIT: usize = 4 << 20;

/// The records, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Records {
    schema: u32,
    duties: BTreeMap<DutyId, DutyRecord>,
    certificates: BTreeMap<String, CertRecord>,
    consumers: BTreeMap<String, ConsumerRecord>,
    /// The certificates under way whose issue is counted.
    #[serde(skip)]
    granted: BTreeSet<String>,
}

/// What is remembered of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CertRecord {
    /// When certificates were asked for, in the last hour.
    pub issues: Vec<Timestamp>,
    /// When the published generation was committed.
    pub committed: Option<Timestamp>,
    /// When the last one that Vault issued was committed.
    pub issued: Option<Timestamp>,
    /// Generations that a consumer failed with.
    pub quarantined: Vec<Generation>,
    /// When the last generation was taken back.
    pub rolled_back: Option<Timestamp>,
}

/// What the budget of issues is for.
pub const BUDGET_TIME: SignedDuration = SignedDuration::from_hours(1);

impl CertRecord {
    /// When certificates were asked for, in the time of the budget before an instant.
    pub fn recent_issues(&self, now: Timestamp) -> impl Iterator<Item = &Timestamp> {
        // What the clock counted before it stepped back counts no more.
        let counts = move |at: &&Timestamp| **at <= now && now.duration_since(**at) < BUDGET_TIME;
        self.issues.iter().filter(counts)
    }
}

/// What is remembered of a consumer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumerRecord {
    /// The generation of each certificate that the consumer is known to have.
    pub applied: BTreeMap<String, Generation>,
    /// The act under way, or the one that failed, for the generations that it was for.
    pub act: Option<ActRecord>,
    /// When the served certificate was last seen to be the one on disk.
    pub proved: Option<Timestamp>,
    /// The serial that was served then.
    pub served: Option<String>,
    /// What was done last, and when.
    pub last_act: Option<(Timestamp, String)>,
}

/// An act, recorded before it begins: there is one for a set of generations, not more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActRecord {
    /// The generations it is for.
    pub target: BTreeMap<String, Generation>,
    /// When it began.
    pub begun: Timestamp,
    /// The serial that was served before; none where nobody answered.
    #[serde(default)]
    pub before: Option<String>,
    /// The invocation of the unit before; another one tells that the act has happened.
    #[serde(default)]
    pub invocation: Option<String>,
    /// It was carried out and did not succeed: it is not carried out again.
    #[serde(default)]
    pub ended: bool,
    /// Why the consumer failed with these generations: it is being taken back.
    #[serde(default)]
    pub failed: Option<String>,
}

impl Default for Records {
    fn default() -> Records {
        Records {
            schema: SCHEMA,
            duties: BTreeMap::new(),
            certificates: BTreeMap::new(),
            consumers: BTreeMap::new(),
            granted: BTreeSet::new(),
        }
    }
}

impl Records {
    /// Reads the records. What is no records is put aside, not lost, and the error says so; the
    /// agent goes on with none. What the disk does not give now stays where it is.
    pub fn load(root: &Root) -> Result<Records> {
        let path = Path::new(PATH);
        let fault = match root.read_optional(path, LIMIT) {
            Ok(None) => return Ok(Records::default()),
            Ok(Some(bytes)) => match serde_json::from_slice::<Records>(&bytes) {
                Ok(records) if records.schema == SCHEMA => return Ok(records),
                Ok(records) => format!("schema {} is not {SCHEMA}", records.schema),
                Err(error) => format!("line {}: {}", error.line(), said(&error)),
            },
            Err(error) if Records::are_there(root) => {
                return Err(error.advise(
                    "see `dmesg` for a failing disk; after an hour the agent goes on without them",
                ));
            }
            Err(error) => format!("{error:#}"),
        };
        Records::put_aside(root)?;
        let place = path.with_file_name(ASIDE);
        Err(Error::new(Code::Disk, fault).at(PATH).advise(format!(
            "nothing: the agent began new records; the old ones are in {}",
            place.display()
        )))
    }

    /// New ones take the place of what is there, which stays beside them.
    pub fn put_aside(root: &Root) -> Result<()> {
        let path = Path::new(PATH);
        root.rename(path, ASIDE)?;
        root.fsync_dir(path.parent().unwrap_or(path))
    }

    /// Whether there are records, though they cannot be read just now.
    pub fn are_there(root: &Root) -> bool {
        match root.stat(Path::new(PATH)) {
            Ok(Some(found)) => found.kind == FileKind::File && found.size <= LIMIT as u64,
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Writes the records, fsynced.
    pub fn save(&self, root: &Root) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::new(Code::Bug, error.to_string()).at(PATH))?;
        root.write_atomic(Path::new(PATH), &bytes, 0o600, None)
    }

    /// The records without what is only told to people: when a duty last succeeded.
    pub fn essence(&self) -> Records {
        let mut essence = self.clone();
        for duty in essence.duties.values_mut() {
            duty.last_success = None;
        }
        essence.granted.clear();
        essence.duties.retain(|_, duty| *duty != DutyRecord::default());
        essence
    }

    /// How a duty has fared.
    pub fn duty(&self, id: &DutyId) -> DutyRecord {
        self.duties.get(id).cloned().unwrap_or_default()
    }

    /// All duties that are failing.
    pub fn failures(&self) -> impl Iterator<Item = (&DutyId, &Failure)> {
        self.duties.iter().filter_map(|(id, duty)| Some((id, duty.failure.as_ref()?)))
    }

    /// What is remembered of a certificate.
    pub fn certificate(&self, name: &str) -> CertRecord {
        self.certificates.get(name).cloned().unwrap_or_default()
    }

    /// What is remembered of a consumer.
    pub fn consumer(&self, name: &str) -> ConsumerRecord {
        self.consumers.get(name).cloned().unwrap_or_default()
    }

    /// Counts an issue before it is asked for, so that a crash cannot make it free.
    pub fn count_issue(&mut self, name: &str, now: Timestamp) {
        let record = self.certificates.entry(name.to_string()).or_default();
        record.issues.retain(|at| now.duration_since(*at) < BUDGET_TIME);
        record.issues.push(now);
        self.granted.insert(name.to_string());
    }

    /// Whether an issue was counted for what is under way.
    pub fn is_granted(&self, name: &str) -> bool {
        self.granted.contains(name)
    }

    /// What was under way has ended: the next issue is counted anew.
    pub fn end_grant(&mut self, name: &str) {
        self.granted.remove(name);
    }

    /// Takes back the count of an issue that there surely was not.
    pub fn refund_issue(&mut self, name: &str) {
        if let Some(record) = self.certificates.get_mut(name) {
            record.issues.pop();
        }
    }

    /// Notes a success. Says whether that is a change of state.
    pub fn succeeded(&mut self, id: &DutyId, done: &Done, now: Timestamp) -> bool {
        let duty = self.duties.entry(id.clone()).or_default();
        duty.not_before = None;
        if let Done::Acted(Acted::Intends(name, act)) = done {
            // Nothing is achieved yet: what has failed so far stays told until the act is done.
            self.consumers.entry(name.clone()).or_default().act = Some(act.clone());
            return false;
        }
        let changed = duty.failure.take().is_some();
        duty.last_success = Some(now);
        match done {
            Done::Session(done) => self.hear_of_vault(*done),
            Done::Acted(Acted::Intends(..)) => {}
            Done::Files(_) | Done::Raised(_) => {}
            Done::Committed(commit) => self.note_commit(commit, now),
            Done::Acted(Acted::Adopted(adopted)) => self.note_adoption(adopted, now),
            Done::Acted(Acted::RolledBack(back)) => self.note_rollback(back, now),
        }
        changed
    }

    /// Vault answers: what this node's certificates have waited for is there, or may be.
    fn hear_of_vault(&mut self, done: Plan) {
        // Not what a token was refused for: one that is always refused would be tried for ever. A
        // policy's no brings a new one only now and then.
        let helps = |failure: &Failure| match failure.code.kind() {
            Kind::Unavailable | Kind::Sealed => true,
            _ => done == Plan::LogIn && failure.code == Code::PolicyDenied,
        };
        for (id, duty) in &mut self.duties {
            if matches!(id, DutyId::Cert(_)) && duty.failure.as_ref().is_some_and(helps) {
                duty.not_before = None;
            }
        }
    }

    /// Puts a duty off that nothing hurries.
    pub fn put_off(&mut self, id: &DutyId, until: Timestamp, now: Timestamp) {
        let duty = self.duties.entry(id.clone()).or_default();
        duty.not_before = Some(duty.not_before.map_or(until, |before| before.max(until)));
        duty.tried = Some(now);
    }

    fn note_commit(&mut self, commit: &super::certs::Commit, now: Timestamp) {
        let record = self.certificates.entry(commit.name.clone()).or_default();
        record.committed = Some(now);
        if commit.issued {
            record.rolled_back = None;
            record.issued = Some(now);
        } else if let Some(copied) = commit.copied_from {
            self.note_copy(commit, copied, now);
        }
        // What the consumer failed with before says nothing of the new generation.
        let act = self.duties.entry(DutyId::Act(commit.consumer.clone())).or_default();
        act.not_before = None;
    }

    /// What was published again is what the consumer has, if it had that; and what keeps breaking
    /// it is not answered more often than this.
    fn note_copy(&mut self, commit: &super::certs::Commit, copied: Generation, now: Timestamp) {
        let cert = self.duties.entry(DutyId::Cert(commit.name.clone())).or_default();
        cert.not_before = Some(after(now, COPY_REST));
        cert.tried = Some(now);
        let consumer = self.consumers.entry(commit.consumer.clone()).or_default();
        if consumer.applied.get(&commit.name) == Some(&copied) {
            consumer.applied.insert(commit.name.clone(), commit.generation);
        }
    }

    fn note_adoption(&mut self, adopted: &super::act::Adopted, now: Timestamp) {
        let consumer = self.consumers.entry(adopted.consumer.clone()).or_default();
        consumer.applied.clone_from(&adopted.applied);
        if !adopted.unseen {
            consumer.act = None;
        }
        if let Some(serial) = &adopted.served {
            consumer.proved = Some(now);
            consumer.served = Some(serial.clone());
        }
        if let Some(word) = adopted.act {
            consumer.last_act = Some((now, word.to_string()));
        }
    }

    fn note_rollback(&mut self, back: &RolledBack, now: Timestamp) {
        for (name, bad) in &back.quarantined {
            let record = self.certificates.entry(name.clone()).or_default();
            record.quarantined.push(*bad);
            let excess = record.quarantined.len().saturating_sub(KEPT_QUARANTINED);
            record.quarantined.drain(..excess);
            record.rolled_back = Some(now);
        }
        let consumer = self.consumers.entry(back.consumer.clone()).or_default();
        consumer.applied.clone_from(&back.applied);
        consumer.act = None;
        consumer.last_act = Some((now, "rolled back".into()));
    }

    /// Notes a failure with its backoff. Says whether that is a change of state: the first of a
    /// run, or one of another code.
    pub fn failed(&mut self, id: &DutyId, error: &Error, now: Timestamp, pace: Pace) -> bool {
        let duty = self.duties.entry(id.clone()).or_default();
        let before = duty.failure.take();
        let changed = before.as_ref().is_none_or(|failure| failure.code != error.code());
        // What flaps between two ways of being away is away all the same: the wait grows on.
        let alike = |failure: &&Failure| failure.code.kind().is_away() == error.kind().is_away();
        let count = before.as_ref().filter(alike).map_or(1, |same| same.count.saturating_add(1));
        // A control plane that is down is tried again within minutes, whoever said no.
        let kind = match id {
            DutyId::ControlPlane => Kind::Unavailable,
            _ => error.kind(),
        };
        let pace = Pace { seed: pace.seed ^ salt(id), ..pace };
        let wait = backoff::delay(kind, count, error.wait(), pace);
        duty.not_before = Some(after(now, wait));
        duty.tried = Some(now);
        // With its random part, as for who is in a hurry: those who were asked together do not
        // come back together.
        let hurried = Pace { leeway: Some(Duration::ZERO), ..pace };
        let asked = || after(now, backoff::delay(kind, count, error.wait(), hurried));
        duty.asked_until = error.wait().is_some().then(asked);
        if let DutyId::Act(name) = id
            && act::is_consumers(error)
            && let Some(act) = self.consumers.get_mut(name).and_then(|c| c.act.as_mut())
        {
            act.ended = true;
        }
        duty.failure = Some(Failure {
            since: before.map_or(now, |failure| failure.since),
            count,
            ..Failure::of(error, now)
        });
        changed
    }

    /// Notes what was wrong beside a success. It is told, and nothing waits for it: what an asset
    /// lacks is no reason to leave a control plane that goes down after it for minutes.
    pub fn remarked(&mut self, id: &DutyId, error: &Error, now: Timestamp) {
        self.duties.entry(id.clone()).or_default().failure = Some(Failure::of(error, now));
    }

    /// A duty whose end was reached in another way, by a person or by itself, fails no more; what
    /// was wrong beside its success stays told.
    pub fn recovered(&mut self, id: &DutyId) {
        if let Some(duty) = self.duties.get_mut(id)
            && duty.failure.as_ref().is_some_and(|f| !STAYS_TOLD.contains(&f.code))
        {
            (duty.failure, duty.not_before) = (None, None);
        }
    }

    /// Lets every duty try at once; how often it has failed stays known.
    pub fn forget_backoff(&mut self) {
        for duty in self.duties.values_mut() {
            duty.not_before = None;
        }
        if let Some(plane) = self.duties.get_mut(&DutyId::ControlPlane) {
            plane.failure = None;
        }
    }

    /// Forgets duties that the configuration no longer has.
    pub fn keep_duties(&mut self, known: &[DutyId]) {
        self.duties.retain(|id, _| known.contains(id));
    }

    /// A step of the wall clock backwards must not turn a backoff of minutes into one of hours.
    pub fn forget_future(&mut self, now: Timestamp) {
        let longest = after(now, LONGEST_BACKOFF);
        for duty in self.duties.values_mut() {
            duty.not_before = duty.not_before.filter(|until| *until <= longest);
        }
        for record in self.certificates.values_mut() {
            record.issues.retain(|at| *at <= now);
        }
    }
}

/// What does not end with the next look: it is told until a run has gone without it, or a person
/// has reloaded the agent.
const STAYS_TOLD: [Code; 2] = [Code::AssetsBad, Code::SharedSecrets];

/// As long as [`backoff::delay`] can be, and a `Retry-After`'s quarter on top.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2 * 3600);

/// A certificate is not published again more often than this.
const COPY_REST: Duration = Duration::from_secs(60);

/// How many quarantined generations are remembered; `status` shows the last.
const KEPT_QUARANTINED: usize = 8;

fn salt(id: &DutyId) -> u64 {
    backoff::hash(&id.to_string())
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(records: &Records, id: &DutyId, now: Timestamp) -> Option<Duration> {
        let until = records.duty(id).not_before?;
        Duration::try_from(now.duration_until(until)).ok()
    }

    #[test]
    fn what_waits_for_vault_is_tried_when_another_duty_has_heard_of_it() {
        let now = Timestamp::from_second(1_800_000_000).expect("an instant");
        let pace = Pace { seed: 7, leeway: Some(Duration::from_hours(20)) };
        let cert = |name: &str| DutyId::Cert(name.into());
        let mut records = Records::default();
        for (name, code) in [
            ("away", Code::VaultUnreachable),
            ("sealed", Code::VaultSealed),
            ("no-token", Code::TokenInvalid),
            ("refused", Code::RoleRefused),
            ("not-allowed", Code::PolicyDenied),
        ] {
            for _ in 0..20 {
                records.failed(&cert(name), &Error::new(code, "no"), now, pace);
            }
            let wait = wait(&records, &cert(name), now).expect("it waits");
            assert!(wait >= Duration::from_secs(1800), "{name} waits {wait:?}");
        }
        for (done, tried) in [
            (Plan::Renew, [true, true, false, false, false]),
            (Plan::LogIn, [true, true, false, false, true]),
        ] {
            records.succeeded(&DutyId::Session, &Done::Session(done), now);
            let names = ["away", "sealed", "no-token", "refused", "not-allowed"];
            for (name, tried) in names.into_iter().zip(tried) {
                assert_eq!(wait(&records, &cert(name), now).is_none(), tried, "{done:?}: {name}");
            }
        }
        assert_eq!(records.failures().count(), 5, "what has failed stays told");
    }

    #[test]
    fn who_were_asked_to_come_back_together_do_not() {
        let now = Timestamp::from_second(1_800_000_000).expect("an instant");
        let asked = Duration::from_mins(10);
        let hurried = Some(Duration::ZERO);
        let until = |seed| {
            let mut records = Records::default();
            let error = Error::new(Code::VaultThrottled, "slow").retry_after(Some(asked));
            records.failed(&DutyId::Session, &error, now, Pace { seed, leeway: hurried });
            records.duty(&DutyId::Session).waits_until(hurried, now).expect("it waits")
        };
        assert!(until(1) > after(now, asked) && until(2) > after(now, asked));
        assert_ne!(until(1), until(2));
    }

    #[test]
    fn records_that_the_disk_does_not_give_stay_and_what_is_none_is_put_aside() {
        use crate::failpoint::failing::{self, Failing};
        let dir = tempfile::tempdir().expect("a directory");
        let root = Root::new(dir.path());
        root.make_dir(Path::new("/var/lib/nodeagent"), 0o700, None).expect("a directory");
        let mut kept = Records::default();
        kept.count_issue("kubelet-server", Timestamp::UNIX_EPOCH);
        kept.save(&root).expect("it is written");
        failing::set(Failing::Reads);
        let unread = Records::load(&root);
        failing::set(Failing::Nothing);
        assert!(unread.is_err() && Records::are_there(&root), "{unread:?}");
        assert_eq!(Records::load(&root).expect("it reads").essence(), kept.essence());

        let aside = Path::new("/var/lib/nodeagent").join(ASIDE);
        for torn in [b"{".to_vec(), vec![b' '; LIMIT + 1]] {
            root.write_atomic(Path::new(PATH), &torn, 0o600, None).expect("it is written");
            let error = Records::load(&root).expect_err("no records");
            assert!(error.advice().is_some_and(|advice| advice.contains(ASIDE)), "{error:#}");
            assert!(!Records::are_there(&root), "new ones may be written");
            let bytes = root.read(&aside, 2 * LIMIT).expect("it is there");
            assert!(bytes == torn, "nothing is lost");
        }
    }

    #[test]
    fn what_was_asked_for_counts_for_an_hour_and_not_before_it_was() {
        let at = |second| Timestamp::from_second(second).expect("an instant");
        let record = CertRecord { issues: vec![at(100), at(200)], ..CertRecord::default() };
        for (now, count) in [(99, 0), (100, 1), (200, 2), (3699, 2), (3700, 1), (3800, 0)] {
            assert_eq!(record.recent_issues(at(now)).count(), count, "{now}");
        }
        // Records are read from a disk: an instant at the end of time is one like any other.
        let record = CertRecord { issues: vec![Timestamp::MIN], ..CertRecord::default() };
        assert_eq!(record.recent_issues(Timestamp::MIN).count(), 1);
        assert_eq!(record.recent_issues(Timestamp::MAX).count(), 0);
    }
}

//! What follows a commit for one consumer: probe, reload, restart, prove, and go back if need be.
//!
//! An act has two effects. The first finds out whether one is needed and says which; the loop
//! records that; the second acts and proves. Where the consumer does not come back with the new
//! generation, that is recorded too, and a third goes back to the one before. So a kill anywhere
//! leaves a record that tells whether the act has happened, and a generation is acted on once.

mod back;
mod probe;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use self::probe::Sight;
use super::certs::store::Generation;
use super::facts::{CertFact, Held};
use super::records::{ActRecord, ConsumerRecord};
use super::{Due, DutyId, Facts, Hold, Records, Why, certs};
use crate::bootstrap;
use crate::config::plane::Component;
use crate::config::{Act, CertSpec, Config, ConsumerSpec};
use crate::error::{Code, Context, Error, Result};
use crate::host::units::{Active, Load, UnitState};
use crate::node::Node;

/// How long a consumer may take to show a new certificate after its act: a kubelet was seen to
/// listen 0.3 s after its restart, on an idle machine.
pub const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// How long a consumer may take to show it by itself: one that watches its files was seen to take
/// 0.1 s, and one that does not never will.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// A program of Kubernetes that renews its watch of a file while the next one comes misses that
/// one; it looks again a minute later, and half of one is to spare.
const NEXT_LOOK: SignedDuration = SignedDuration::from_secs(90);

/// client-go looks at its client certificate every 300 s; ten seconds are to spare.
pub const CLIENT_POLL: SignedDuration = SignedDuration::from_secs(310);

/// The generation of each certificate of a consumer.
pub type Generations = BTreeMap<String, Generation>;

/// What was seen or done for a consumer.
#[derive(Debug)]
pub enum Acted {
    /// It has these generations.
    Adopted(Adopted),
    /// An act is needed, and has to be recorded first.
    Intends(String, ActRecord),
    /// It failed with the new generation and has the one before again.
    RolledBack(RolledBack),
}

/// A consumer has taken up generations.
#[derive(Debug)]
pub struct Adopted {
    /// The consumer's name.
    pub consumer: String,
    /// What it has.
    pub applied: Generations,
    /// The serial that it was seen to serve.
    pub served: Option<String>,
    /// What was done for it, if anything.
    pub act: Option<&'static str>,
    /// A certificate that the recorded act was for cannot be read just now: the act stays known,
    /// so that it is not done again for that one.
    pub unseen: bool,
}

/// A consumer failed with a new generation.
#[derive(Debug)]
pub struct RolledBack {
    /// The consumer's name.
    pub consumer: String,
    /// What it failed with.
    pub quarantined: Generations,
    /// What it has now: copies of the former ones.
    pub applied: Generations,
    /// Why, as a problem for `status`.
    pub error: Error,
}

/// When an act is due.
pub fn due(
    config: &Config,
    spec: &ConsumerSpec,
    facts: &Facts,
    records: &Records,
    now: Timestamp,
) -> Due {
    let target = match published(config, spec, facts, records) {
        Ok(target) => target,
        Err(missing) => return Due::Blocked(Hold::Duty(DutyId::Cert(missing))),
    };
    if !is_up(facts, spec) {
        return Due::Blocked(Hold::Duty(DutyId::ControlPlane));
    }
    let record = records.consumer(&spec.name);
    if target.iter().all(|(cert, held)| !is_new(&record, cert, held)) {
        return Due::Idle;
    }
    // What is about to change is not worth an act of its own.
    let moving = config.certificates_of(&spec.name).find(|cert| {
        let failing = records.duty(&DutyId::Cert(cert.name.clone())).failure.is_some();
        !failing && matches!(certs::due(config, cert, facts, records, now), Due::Now(_))
    });
    if let Some(cert) = moving {
        return Due::Blocked(Hold::Duty(DutyId::Cert(cert.name.clone())));
    }
    match waits_for_poll(config, spec, &target, &record, records) {
        Some(at) if at > now => Due::At(at),
        _ => Due::Now(Why::Committed),
    }
}

/// A component of the control plane that is not up reads the new files when it is raised.
fn is_up(facts: &Facts, spec: &ConsumerSpec) -> bool {
    let Some(plane) = &facts.plane else {
        return true;
    };
    let component = Component::ALL.into_iter().find(|component| component.name() == spec.name);
    component.is_none_or(|component| plane.component(component).settled().is_ok())
}

/// Client certificates cannot be probed. Where clients re-read them, their poll is waited for.
fn waits_for_poll(
    config: &Config,
    spec: &ConsumerSpec,
    target: &[(&CertSpec, &Held)],
    record: &ConsumerRecord,
    records: &Records,
) -> Option<Timestamp> {
    let mut changed = target.iter().filter(|(cert, held)| is_new(record, cert, held)).peekable();
    let polls = spec.act == Act::Probe && config.clients_reload() && record.act.is_none();
    if !polls || changed.peek().is_none() {
        return None;
    }
    let committed = |cert: &CertSpec| records.certificate(&cert.name).committed;
    let mut latest = None;
    for (cert, _) in changed {
        if cert.usage.serves() {
            return None;
        }
        latest = latest.max(committed(cert));
    }
    latest?.checked_add(CLIENT_POLL).ok()
}

fn is_new(record: &ConsumerRecord, cert: &CertSpec, held: &Held) -> bool {
    record.applied.get(&cert.name) != Some(&held.generation)
}

/// What is published for a consumer; the error names the first certificate that is not. One that
/// cannot be had just now does not keep the others from being seen to.
fn published<'a>(
    config: &'a Config,
    spec: &'a ConsumerSpec,
    facts: &'a Facts,
    records: &Records,
) -> std::result::Result<Vec<(&'a CertSpec, &'a Held)>, String> {
    let mut target = Vec::new();
    let mut missing = None;
    for cert in config.certificates_of(&spec.name) {
        let fact = facts.certificates.get(&cert.name);
        let failing = records.duty(&DutyId::Cert(cert.name.clone())).failure.is_some();
        match fact.and_then(CertFact::held) {
            Some(held) => target.push((cert, held)),
            None if failing || matches!(fact, Some(CertFact::Foreign { .. })) => {}
            None => missing = missing.or_else(|| Some(cert.name.clone())),
        }
    }
    missing.map_or(Ok(target), Err)
}

fn generations(target: &[(&CertSpec, &Held)]) -> Generations {
    target.iter().map(|(cert, held)| (cert.name.clone(), held.generation)).collect()
}

/// What to do for a consumer whose unit is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// It has what is published.
    Adopt,
    /// See whether it shows the new certificate by itself.
    Look,
    /// It has to be reloaded.
    Reload,
    /// It has to be restarted.
    Restart,
}

fn plan(config: &Config, spec: &ConsumerSpec, changed: &[&CertSpec]) -> Plan {
    let served = changed.iter().any(|cert| cert.usage.serves());
    let client = changed.iter().any(|cert| !cert.usage.serves());
    match spec.act {
        Act::Nothing => Plan::Adopt,
        Act::Reload => Plan::Reload,
        Act::Restart => Plan::Restart,
        Act::Probe if client && !config.clients_reload() && spec.unit.is_some() => Plan::Restart,
        Act::Probe if served => Plan::Look,
        Act::Probe => Plan::Adopt,
    }
}

/// Whether the unit was started since the act was recorded: it has another invocation, or none of
/// before to compare and a later start.
fn was_restarted(act: &ActRecord, state: &UnitState) -> bool {
    match (&act.invocation, &state.invocation) {
        (Some(before), Some(now)) => before != now,
        _ => state.entered.is_some_and(|entered| entered >= act.begun),
    }
}

/// Whether an act failed because of the consumer, and not of systemd or the bus.
pub fn is_consumers(error: &Error) -> bool {
    matches!(error.code(), Code::RestartFailed | Code::NotServed)
}

/// One consumer with all that its act needs.
struct Case<'a> {
    node: &'a Node,
    spec: &'a ConsumerSpec,
    target: Vec<(&'a CertSpec, &'a Held)>,
    record: ConsumerRecord,
}

/// Looks, acts, proves; or says what has to be recorded first.
pub async fn perform(node: &Node, spec: &ConsumerSpec, records: &Records) -> Result<Acted> {
    let facts = Facts::gather(node, records).await;
    let record = records.consumer(&spec.name);
    let target = published(&node.config, spec, &facts, records).map_err(|missing| {
        let text = format!("{missing} went missing");
        Error::new(Code::CertificateBad, text)
    })?;
    let case = Case { node, spec, target, record };
    let outcome = case.run(records).await;
    outcome.during(format!("taking {} to its new certificates", spec.name))
}

impl Case<'_> {
    async fn run(&self, records: &Records) -> Result<Acted> {
        if let Some((act, why)) = self.going_back(records) {
            return self.go_back(act, why, records).await;
        }
        let changed = self.changed();
        if self.spec.act == Act::Nothing || changed.is_empty() {
            // The consumer sees to it, and systemd may not even be there.
            return Ok(self.adopted(None, None));
        }
        let state = self.state().await?;
        let recorded = self.recorded();
        match (state.active, recorded) {
            (Active::Active | Active::Reloading, _) => {}
            // With `Restart=` it stays so for ever where the end of its restart was not heard.
            (Active::Activating, Some(act)) if self.has_not_come_up(act, &state) => {
                let text = "its unit has been on its way up since its act";
                return self.give_up(act, Error::new(Code::RestartFailed, text), records).await;
            }
            (Active::Activating | Active::Deactivating, _) => {
                let text = format!("its unit is {:?}", state.active).to_lowercase();
                return Err(Error::new(Code::ConsumerSilent, text));
            }
            // It was not started yet with what the act is for, or was taken down by an act for
            // what is not published any more: a start is owed to it.
            (Active::Failed, Some(act)) if !act.ended && !was_restarted(act, &state) => {}
            (Active::Failed, None) if self.record.act.is_some() => {}
            (Active::Inactive, _) if self.was_left_down(records) => {}
            (Active::Failed, Some(act)) if !act.ended => {
                let error = Error::new(Code::RestartFailed, "its unit failed after its act");
                return self.give_up(act, error, records).await;
            }
            // There was nothing to go back to. It stays told until the unit is up, or stopped.
            (Active::Failed, Some(_)) => {
                let unit = self.spec.unit.as_deref().unwrap_or_default();
                return Err(Error::new(Code::RestartFailed, "its unit has failed since its act")
                    .advise(format!("systemctl status {unit}; journalctl -u {unit}")));
            }
            // Its own start reads the new files; one that was stopped is not ours to start.
            (Active::Inactive | Active::Failed, _) => return Ok(self.adopted(None, None)),
        }
        let plan = match state.active {
            Active::Failed | Active::Inactive => Plan::Restart,
            _ => plan(&self.node.config, self.spec, &changed),
        };
        match (plan, recorded) {
            (Plan::Adopt, _) => Ok(self.adopted(None, None)),
            (Plan::Look, None) => self.look(&changed, &state, records).await,
            (_, None) => Ok(self.intend(self.glance().await, &state)),
            (plan, Some(act)) => self.act(plan, act, (&state, records)).await,
        }
    }

    /// Whether the last act stopped the unit and could not start it. systemd calls such a unit
    /// inactive, as one that a person has stopped.
    fn was_left_down(&self, records: &Records) -> bool {
        let failure = records.duty(&DutyId::Act(self.spec.name.clone())).failure;
        self.record.act.is_some() && failure.is_some_and(|f| f.code == Code::DependencyFailed)
    }

    /// Whether an act has started the unit longer ago than it may take to come up.
    fn has_not_come_up(&self, act: &ActRecord, state: &UnitState) -> bool {
        let waited = self.node.clock.now().duration_since(act.begun);
        let limit = SignedDuration::try_from(self.spec.limit + PROBE_LIMIT);
        !act.ended && was_restarted(act, state) && limit.is_ok_and(|limit| waited > limit)
    }

    fn changed(&self) -> Vec<&CertSpec> {
        let new = self.target.iter().filter(|(cert, held)| is_new(&self.record, cert, held));
        new.map(|(cert, _)| *cert).collect()
    }

    /// The act that was recorded for this target. One that was for a certificate besides, which
    /// cannot be read just now, is no other act.
    fn recorded(&self) -> Option<&ActRecord> {
        let belongs = |act: &&ActRecord| {
            let mut target = self.target.iter();
            target.all(|(cert, held)| act.target.get(&cert.name) == Some(&held.generation))
        };
        self.record.act.as_ref().filter(belongs)
    }

    /// Whether the recorded act was for a certificate that cannot be read just now.
    fn is_unseen(&self) -> bool {
        let seen = |name: &str| self.target.iter().any(|(cert, _)| cert.name == name);
        let mut certificates = self.node.config.certificates_of(&self.spec.name);
        self.record.act.as_ref().is_some_and(|act| {
            certificates.any(|cert| act.target.contains_key(&cert.name) && !seen(&cert.name))
        })
    }

    /// The unit's state; what has no unit counts as up.
    async fn state(&self) -> Result<UnitState> {
        let Some(unit) = &self.spec.unit else {
            let (load, active) = (Load::Loaded, Active::Active);
            return Ok(UnitState { load, active, entered: None, invocation: None });
        };
        let state = self.node.units.state(unit).await?;
        if state.load == Load::NotFound {
            let text = format!("there is no unit {unit}");
            return Err(Error::new(Code::UnitMissing, text).advise(format!(
                "see `systemctl status {unit}`, then correct `unit` of the consumer"
            )));
        }
        Ok(state)
    }

    /// Sees whether the consumer shows the new certificate by itself. Only another certificate is
    /// a reason to restart it: silence is a wrong address or a slow start as well.
    async fn look(
        &self,
        changed: &[&CertSpec],
        state: &UnitState,
        records: &Records,
    ) -> Result<Acted> {
        match self.watch(LOOK_LIMIT, LOOK_LIMIT).await {
            Sight::Ours(serial) => Ok(self.looked(serial, changed)),
            Sight::Other(serial) if self.spec.unit.is_some() && !self.is_etcd() => {
                Ok(self.intend(Some(serial), state))
            }
            Sight::Other(serial) if self.looks_again(changed, records) => Err(self.late(&serial)),
            Sight::Other(serial) => Err(self.not_served(&serial)),
            Sight::Silent(error) => Err(self.silent(&error)),
        }
    }

    /// Whether a consumer that missed the change has not had its next look yet.
    fn looks_again(&self, changed: &[&CertSpec], records: &Records) -> bool {
        let committed = changed.iter().map(|cert| records.certificate(&cert.name).committed);
        let now = self.node.clock.now();
        committed.max().flatten().is_some_and(|at| now.duration_since(at) < NEXT_LOOK)
    }

    /// A member of a control plane's etcd is restarted by a bootstrap alone, under the lock.
    fn is_etcd(&self) -> bool {
        let unit = self.spec.unit.as_deref();
        self.node.config.control_plane.is_some() && unit == Some(bootstrap::facts::ETCD_UNIT)
    }

    fn intend(&self, before: Option<String>, state: &UnitState) -> Acted {
        let target = generations(&self.target);
        let (begun, invocation) = (self.node.clock.now(), state.invocation.clone());
        let act = ActRecord { target, begun, before, invocation, ended: false, failed: None };
        Acted::Intends(self.spec.name.clone(), act)
    }

    fn adopted(&self, served: Option<String>, act: Option<&'static str>) -> Acted {
        self.taken_up(generations(&self.target), served, act)
    }

    /// A probe shows the served certificates only: the clients' poll is still to be waited for.
    fn looked(&self, serial: String, changed: &[&CertSpec]) -> Acted {
        let poll = |name: &String| changed.iter().any(|c| c.name == *name && !c.usage.serves());
        let mut shown = generations(&self.target);
        shown.retain(|name, _| !poll(name));
        self.taken_up(shown, Some(serial), None)
    }

    fn taken_up(
        &self,
        new: Generations,
        served: Option<String>,
        act: Option<&'static str>,
    ) -> Acted {
        let mut applied = self.record.applied.clone();
        applied.extend(new);
        let (consumer, unseen) = (self.spec.name.clone(), self.is_unseen());
        Acted::Adopted(Adopted { consumer, applied, served, act, unseen })
    }

    /// Carries out what was recorded, unless it has happened already or is no longer needed.
    async fn act(
        &self,
        plan: Plan,
        act: &ActRecord,
        (state, records): (&UnitState, &Records),
    ) -> Result<Acted> {
        if act.ended {
            return self.prove(LOOK_LIMIT).await.map(|served| self.adopted(served, None));
        }
        if plan == Plan::Look
            && let Sight::Ours(serial) = self.watch(Duration::ZERO, Duration::ZERO).await
        {
            return Ok(self.looked(serial, &self.changed()));
        }
        let unit = self.spec.unit.as_deref().unwrap_or_default();
        let (units, limit) = (&self.node.units, self.spec.limit);
        let (done, word) = match plan {
            Plan::Reload => (units.reload(unit, limit).await, "reloaded"),
            _ if was_restarted(act, state) => (Ok(()), "restarted"),
            _ => (units.restart(unit, limit).await, "restarted"),
        };
        let proof = match done {
            Ok(()) => self.prove(limit.max(PROBE_LIMIT)).await,
            Err(error) => Err(error),
        };
        match proof {
            Ok(served) => Ok(self.adopted(served, Some(word))),
            // Only the consumer's own failure speaks against its certificate, and silence only
            // where somebody had answered before.
            Err(error) if error.code() == Code::NotServed && act.before.is_none() => Err(error),
            Err(error) if is_consumers(&error) => self.give_up(act, error, records).await,
            Err(error) => Err(error),
        }
    }
}

//! What follows a commit for one consumer: probe, reload, restart, prove, and go back if need be.
//!
//! An act has two effects. The first finds out whether one is needed and says which; the loop
//! records that; the second acts, proves, and goes back one generation where the consumer does
//! not come back with the new one. So a kill at any point leaves a record that tells whether the
//! act has happened, and a generation is acted on once.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::certs::store::Generation;
use super::facts::Held;
use super::records::{ActRecord, ConsumerRecord};
use super::{Due, DutyId, Facts, Hold, Records, Why, certs};
use crate::config::{Act, CertSpec, Config, ConsumerSpec};
use crate::error::{Code, Context, Error, Result};
use crate::host::units::{Active, Load};
use crate::node::Node;
use crate::wire::tls;

/// How long a consumer may take to show a new certificate after its act: a kubelet was seen to
/// listen 0.3 s after its restart, on an idle machine.
pub const PROBE_LIMIT: Duration = Duration::from_secs(15);

/// How long a consumer may take to show it by itself: one that watches its files was seen to take
/// 0.1 s, and one that does not never will.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Between two probes.
const PROBE_PAUSE: Duration = Duration::from_millis(200);

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

/// Whether a consumer may not have what is published for it.
pub fn is_pending(config: &Config, spec: &ConsumerSpec, facts: &Facts, records: &Records) -> bool {
    let record = records.consumer(&spec.name);
    published(config, spec, facts).is_ok_and(|target| record.applied != generations(&target))
}

/// When an act is due.
pub fn due(
    config: &Config,
    spec: &ConsumerSpec,
    facts: &Facts,
    records: &Records,
    now: Timestamp,
) -> Due {
    let target = match published(config, spec, facts) {
        Ok(target) => target,
        Err(missing) => return Due::Blocked(Hold::Duty(DutyId::Cert(missing))),
    };
    let record = records.consumer(&spec.name);
    if record.applied == generations(&target) {
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

/// What is published for a consumer; the error names the first certificate that is not.
fn published<'a>(
    config: &'a Config,
    spec: &'a ConsumerSpec,
    facts: &'a Facts,
) -> std::result::Result<Vec<(&'a CertSpec, &'a Held)>, String> {
    let held = |cert: &'a CertSpec| facts.certificates.get(&cert.name)?.held();
    config
        .certificates_of(&spec.name)
        .map(|cert| held(cert).map(|held| (cert, held)).ok_or_else(|| cert.name.clone()))
        .collect()
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
    let Ok(target) = published(&node.config, spec, &facts) else {
        return Err(Error::new(Code::Bug, format!("{} has nothing published", spec.name)));
    };
    let case = Case { node, spec, target, record };
    let outcome = case.run(records).await;
    outcome.during(format!("taking {} to its new certificates", spec.name))
}

impl Case<'_> {
    async fn run(&self, records: &Records) -> Result<Acted> {
        let config = &self.node.config;
        let changed: Vec<&CertSpec> = self
            .target
            .iter()
            .filter(|(cert, held)| is_new(&self.record, cert, held))
            .map(|(cert, _)| *cert)
            .collect();
        let recorded = self.recorded();
        if self.spec.act == Act::Nothing {
            // The consumer sees to it, and systemd may not even be there.
            return Ok(self.adopted(None, None));
        }
        if !self.is_up().await? && recorded.is_none() {
            // Its own start reads the new files; nothing is to be proved before it has come.
            return Ok(self.adopted(None, None));
        }
        match (plan(config, self.spec, &changed), recorded) {
            (Plan::Adopt, _) => Ok(self.adopted(None, None)),
            (Plan::Look, None) => match self.prove(LOOK_LIMIT).await {
                Ok(served) => Ok(self.looked(served, &changed)),
                Err(_) if self.spec.unit.is_some() => Ok(self.intend()),
                Err(error) => Err(error),
            },
            (_, None) => Ok(self.intend()),
            (plan, Some(act)) => self.act(plan, act, records).await,
        }
    }

    /// The act that was recorded for exactly this target.
    fn recorded(&self) -> Option<&ActRecord> {
        self.record.act.as_ref().filter(|act| act.target == generations(&self.target))
    }

    fn intend(&self) -> Acted {
        let target = generations(&self.target);
        let act = ActRecord { target, begun: self.node.clock.now(), ended: false };
        Acted::Intends(self.spec.name.clone(), act)
    }

    fn adopted(&self, served: Option<String>, act: Option<&'static str>) -> Acted {
        let applied = generations(&self.target);
        Acted::Adopted(Adopted { consumer: self.spec.name.clone(), applied, served, act })
    }

    /// A probe shows the served certificates only: the clients' poll is still to be waited for.
    fn looked(&self, served: Option<String>, changed: &[&CertSpec]) -> Acted {
        let mut applied = generations(&self.target);
        for cert in changed.iter().filter(|cert| !cert.usage.serves()) {
            match self.record.applied.get(&cert.name) {
                Some(before) => applied.insert(cert.name.clone(), *before),
                None => applied.remove(&cert.name),
            };
        }
        Acted::Adopted(Adopted { consumer: self.spec.name.clone(), applied, served, act: None })
    }

    async fn is_up(&self) -> Result<bool> {
        let Some(unit) = &self.spec.unit else {
            return Ok(true);
        };
        let state = self.node.units.state(unit).await?;
        if state.load == Load::NotFound {
            let text = format!("there is no unit {unit}");
            return Err(Error::new(Code::UnitMissing, text).advise(format!(
                "see `systemctl status {unit}`, then correct `unit` of the consumer"
            )));
        }
        Ok(matches!(state.active, Active::Active | Active::Reloading))
    }

    /// Whether the unit was started since the act was recorded.
    async fn was_restarted(&self, act: &ActRecord) -> Result<bool> {
        let Some(unit) = &self.spec.unit else {
            return Ok(false);
        };
        let state = self.node.units.state(unit).await?;
        Ok(state.entered.is_some_and(|entered| entered >= act.begun))
    }

    async fn act(&self, plan: Plan, act: &ActRecord, records: &Records) -> Result<Acted> {
        if act.ended || self.was_restarted(act).await? {
            // It has had its act: only the proof is open.
            return self
                .prove(PROBE_LIMIT)
                .await
                .map(|served| self.adopted(served, Some("restarted")));
        }
        let unit = self.spec.unit.as_deref().unwrap_or_default();
        let (units, limit) = (&self.node.units, self.spec.limit);
        let (done, word) = match plan {
            Plan::Reload => (units.reload(unit, limit).await, "reloaded"),
            _ => (units.restart(unit, limit).await, "restarted"),
        };
        let proof = match done {
            Ok(()) => self.prove(PROBE_LIMIT).await,
            Err(error) => Err(error),
        };
        match proof {
            Ok(served) => Ok(self.adopted(served, Some(word))),
            // Only the consumer's own failure speaks against its certificate.
            Err(error) if is_consumers(&error) => self.go_back(error, records).await,
            Err(error) => Err(error),
        }
    }

    /// Waits for the consumer to show the certificate on disk; gives its serial. A consumer that
    /// serves none has only to be up.
    async fn prove(&self, limit: Duration) -> Result<Option<String>> {
        let served = self.target.iter().find(|(cert, _)| cert.usage.serves());
        let (Some(address), Some((_, held))) = (self.spec.probe, served) else {
            return match self.is_up().await? {
                true => Ok(None),
                false => Err(Error::new(Code::RestartFailed, "its unit is not active")),
            };
        };
        let address = address.to_string();
        let end = self.node.clock.monotonic() + limit;
        loop {
            let seen = tls::served(&address, None, limit).await;
            match &seen {
                Ok(seen) if seen.serial == held.leaf.serial => {
                    return Ok(Some(seen.serial.clone()));
                }
                _ if self.node.clock.monotonic() < end => {}
                Ok(seen) => return Err(self.not_served(&address, &seen.serial, held)),
                Err(error) => return Err(self.not_served(&address, &format!("{error:#}"), held)),
            }
            self.node.clock.sleep(PROBE_PAUSE).await;
        }
    }

    fn not_served(&self, address: &str, found: &str, held: &Held) -> Error {
        let text = format!("{address} does not serve {}: {found}", held.leaf.serial);
        let advice = match &self.spec.unit {
            Some(unit) => format!("systemctl status {unit}; journalctl -u {unit}"),
            None => format!("restart {} by hand: it has no unit of its own", self.spec.name),
        };
        Error::new(Code::NotServed, text).advise(advice)
    }

    /// Puts the former generation of every changed certificate back and starts the consumer with
    /// it. Where there is no former one that is still valid, the new one stays.
    async fn go_back(&self, error: Error, records: &Records) -> Result<Acted> {
        let mut former = Vec::new();
        for (cert, held) in &self.target {
            if !is_new(&self.record, cert, held) {
                continue;
            }
            let bad = records.certificate(&cert.name).quarantined;
            let identity = self.node.session.get().map(|(session, _)| session.facts.identity);
            match certs::spare(self.node, cert, identity.as_ref(), &bad, Some(held.generation)) {
                Some((_, material)) => former.push((*cert, held.generation, material)),
                None => return Err(error),
            }
        }
        let mut applied = generations(&self.target);
        let mut quarantined = Generations::new();
        for (cert, bad, material) in former {
            applied.insert(cert.name.clone(), certs::restore(self.node, cert, &material).await?);
            quarantined.insert(cert.name.clone(), bad);
        }
        let unit = self.spec.unit.as_deref().unwrap_or_default();
        let again = self.node.units.restart(unit, self.spec.limit).await;
        let fate = match &again {
            Ok(()) => "it runs with the former certificate again".to_string(),
            Err(also) => format!("with the former certificate it failed too: {also:#}"),
        };
        let consumer = self.spec.name.clone();
        let error = Error::new(Code::RolledBack, format!("{error:#}; {fate}"))
            .advise(format!("systemctl status {unit}; journalctl -u {unit}"));
        Ok(Acted::RolledBack(RolledBack { consumer, quarantined, applied, error }))
    }
}

//! One node of a fleet: what it does and when is decided by the agent's own `decide`, with the
//! agent's own records and backoff; only the effects are short here, and take no time. What
//! follows an effect is as in `Agent::settle`.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nodeagent::agent::decide;
use nodeagent::attest::Identity;
use nodeagent::backoff::{self, Pace};
use nodeagent::config::{CertSpec, Config};
use nodeagent::duty::act::{Acted, Adopted};
use nodeagent::duty::certs::leaf::Leaf;
use nodeagent::duty::certs::store::Generation;
use nodeagent::duty::certs::{self, Commit};
use nodeagent::duty::facts::{CertFact, Held};
use nodeagent::duty::session::{self, Judge, Plan};
use nodeagent::duty::{self, Done, DutyId, Facts, Records, Why};
use nodeagent::error::{Code, Error, Result};
use nodeagent::node::{SessionFacts, Standing};

use super::vault::{Call, LEASE, LONGEST, Vault};

/// A measurement of the clock that is older is taken again before an issue: `CLOCK_AGE` there.
const CLOCK_AGE: SignedDuration = SignedDuration::from_mins(5);

/// Vault dates certificates back by this.
const BACKDATED: SignedDuration = SignedDuration::from_secs(30);

/// The loop of a node with nothing due looks again then; here nothing else changes.
const IDLE: SignedDuration = SignedDuration::from_hours(6);

/// What a node has to do with at an instant.
pub(super) struct Moment<'a> {
    pub(super) config: &'a Config,
    pub(super) vault: &'a mut Vault,
    /// When restarts of consumers began.
    pub(super) restarts: &'a mut Vec<Timestamp>,
    pub(super) now: Timestamp,
}

/// A node.
pub(super) struct Node {
    identity: Identity,
    seed: u64,
    facts: Facts,
    records: Records,
    log_ins: u64,
    generation: u64,
    /// When the token in force was made.
    born: Timestamp,
    judge: Judge,
    /// When Vault answered last, and when before the effects that are under way.
    heard: Option<Timestamp>,
    measured: Option<Timestamp>,
}

impl Node {
    /// A node that has never run.
    pub(super) fn new(number: usize, config: &Config) -> Node {
        let instance_id = format!("i-{:017x}", backoff::hash(&number.to_string()) >> 4);
        let absent = |spec: &CertSpec| (spec.name.clone(), CertFact::Absent { archived: None });
        let certificates = config.certificates.iter().map(absent).collect();
        let unknown = String::new;
        let seed = backoff::hash(&format!("{instance_id} {number}"));
        let identity = Identity {
            instance_id,
            private_ip: None,
            region: unknown(),
            availability_zone: unknown(),
            account_id: unknown(),
            image_id: unknown(),
            instance_type: unknown(),
        };
        Node {
            seed,
            facts: Facts { certificates, identity: Some(identity.clone()), ..Facts::default() },
            identity,
            records: Records::default(),
            log_ins: 0,
            generation: 0,
            born: Timestamp::UNIX_EPOCH,
            judge: Judge::default(),
            heard: None,
            measured: None,
        }
    }

    /// A number in 0..1 that is this node's own.
    pub(super) fn fraction(&self, salt: u64) -> f64 {
        backoff::fraction(self.seed, salt)
    }

    /// Whether something that it tried has not worked out yet.
    pub(super) fn is_failing(&self) -> bool {
        self.records.failures().next().is_some()
    }

    /// The machine boots: what was in memory and in /run is gone. The first look is the agent's.
    pub(super) fn boot(&mut self, config: &Config, now: Timestamp) {
        self.facts.session = None;
        (self.heard, self.measured) = (None, None);
        let at = duty::first_log_in(config, &self.facts, &self.records, self.seed, now);
        if let Some(at) = at {
            self.records.put_off(&DutyId::Session, at, now);
        }
    }

    /// Does everything that is due; when the next is due is the answer.
    pub(super) fn turn(&mut self, moment: &mut Moment<'_>) -> Timestamp {
        let now = moment.now;
        loop {
            let none = BTreeSet::new();
            let decision = decide(moment.config, &self.facts, &self.records, &none, now);
            if decision.start.is_empty() {
                let next = decision.next.unwrap_or(now + IDLE);
                return next.max(now + SignedDuration::from_millis(1));
            }
            for (id, why) in decision.start {
                self.perform(moment, &id, why);
            }
            self.measured = self.heard;
        }
    }

    fn perform(&mut self, moment: &mut Moment<'_>, id: &DutyId, why: Why) {
        let now = moment.now;
        let done = match id {
            DutyId::Session => self.session(moment, why).map(Done::Session),
            DutyId::Cert(name) => {
                self.records.count_issue(name, now);
                self.certificate(moment, name).map(Done::Committed)
            }
            DutyId::Act(name) => Ok(self.act(moment, name)),
            DutyId::Files | DutyId::ControlPlane => {
                Err(Error::new(Code::Bug, "no node of this fleet has such a duty"))
            }
        };
        match done {
            Ok(done) => drop(self.records.succeeded(id, &done, now)),
            Err(error) => self.settle_failure(id, &error, now),
        }
    }

    fn settle_failure(&mut self, id: &DutyId, error: &Error, now: Timestamp) {
        let pace = Pace { seed: self.seed, leeway: duty::leeway(id, &self.facts, now) };
        self.records.failed(id, error, now, pace);
        if let DutyId::Cert(name) = id
            && certs::brought_none(error)
        {
            self.records.refund_issue(name);
        }
        let steady = Duration::try_from(now.as_duration()).unwrap_or_default();
        if *id != DutyId::Session
            && let Some(to) = self.judge.hears(error.code(), steady)
            && let Some((_, standing)) = &mut self.facts.session
            && (*standing == Standing::Proved || to == Standing::Doubtful)
        {
            *standing = to;
        }
    }

    fn session(&mut self, moment: &mut Moment<'_>, why: Why) -> Result<Plan> {
        let now = moment.now;
        let failures = self.records.duty(&DutyId::Session).failure;
        let failures = failures.map_or(0, |failure| failure.count);
        let held = self.facts.session.as_ref().map(|(session, _)| session);
        match session::plan(why, held, failures, now) {
            Plan::Renew => {
                self.ask(moment, Call::Renew)?;
                let expires = (now + LEASE).min(self.born + LONGEST);
                if let Some((session, standing)) = &mut self.facts.session {
                    (session.since, session.expires) = (now, expires);
                    *standing = Standing::Proved;
                }
                Ok(Plan::Renew)
            }
            Plan::LogIn => self.log_in(moment),
            Plan::Measure | Plan::Prove => Err(Error::new(
                Code::Bug,
                "clocks are right here, and no agent is started without a reboot",
            )),
        }
    }

    fn log_in(&mut self, moment: &mut Moment<'_>) -> Result<Plan> {
        let now = moment.now;
        self.ask(moment, Call::LogIn)?;
        (self.log_ins, self.born) = (self.log_ins + 1, now);
        let facts = SessionFacts {
            accessor: format!("{} {}", self.identity.instance_id, self.log_ins),
            identity: self.identity.clone(),
            mount: moment.config.identity.mount.clone(),
            role: moment.config.identity.role.clone(),
            since: now,
            expires: now + LEASE,
            asked_s: LEASE.as_secs().unsigned_abs(),
            renewable: true,
        };
        self.facts.session = Some((facts, Standing::Proved));
        Ok(Plan::LogIn)
    }

    fn certificate(&mut self, moment: &mut Moment<'_>, name: &str) -> Result<Commit> {
        let now = moment.now;
        let spec = moment.config.certificates.iter().find(|spec| spec.name == name);
        let spec = spec.ok_or_else(|| Error::new(Code::Bug, "no such certificate"))?;
        if self.measured.is_none_or(|at| at.duration_until(now) > CLOCK_AGE) {
            self.ask(moment, Call::Health)?;
        }
        self.ask(moment, Call::Sign)?;
        if self.facts.session.as_ref().is_none_or(|(session, _)| session.expires <= now) {
            return Err(Error::new(Code::TokenInvalid, "permission denied"));
        }
        self.generation += 1;
        let generation = Generation(self.generation);
        let life = SignedDuration::try_from(spec.ttl).unwrap_or_default();
        let leaf = leaf(now, life);
        let commit = Commit {
            name: spec.name.clone(),
            consumer: spec.consumer.clone(),
            generation,
            serial: String::new(),
            not_after: leaf.not_after,
            issued: true,
            copied_from: None,
        };
        let held = CertFact::Held(Held { generation, leaf, flaw: None });
        self.facts.certificates.insert(spec.name.clone(), held);
        Ok(commit)
    }

    fn ask(&mut self, moment: &mut Moment<'_>, call: Call) -> Result<()> {
        moment.vault.ask(call, moment.now)?;
        self.heard = Some(moment.now);
        Ok(())
    }

    /// The consumer is restarted, and has what is published.
    fn act(&mut self, moment: &mut Moment<'_>, name: &str) -> Done {
        moment.restarts.push(moment.now);
        let mut applied = self.records.consumer(name).applied;
        for spec in moment.config.certificates_of(name) {
            let fact = self.facts.certificates.get(&spec.name);
            if let Some(held) = fact.and_then(CertFact::held) {
                applied.insert(spec.name.clone(), held.generation);
            }
        }
        let consumer = name.to_owned();
        Done::Acted(Acted::Adopted(Adopted {
            consumer,
            applied,
            served: None,
            act: None,
            unseen: false,
        }))
    }
}

/// What is planned by: nothing else of a certificate is looked at.
fn leaf(now: Timestamp, life: SignedDuration) -> Leaf {
    Leaf {
        serial: String::new(),
        fingerprint: String::new(),
        common_names: Vec::new(),
        organizations: Vec::new(),
        dns: Vec::new(),
        ips: Vec::new(),
        uris: Vec::new(),
        others: Vec::new(),
        not_before: now - BACKDATED,
        not_after: now + life,
        server: true,
        client: true,
        is_ca: false,
        public_key: Vec::new(),
    }
}

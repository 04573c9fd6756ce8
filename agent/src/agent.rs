//! The loop: gather facts, decide, start what is due, publish the status, sleep until the next
//! instant that matters or until an effect ends.
//!
//! [`decide`] is pure and never waits. Effects run as tasks, at most one per duty, and an act
//! never beside an issue for the same consumer; each has a deadline. An effect that fails is a
//! record, and the record's backoff is part of the next decision: nothing here retries.

mod memory;
mod outcome;
mod plane;
mod signals;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::backoff::Pace;
use crate::config::Config;
use crate::duty::session::Judge;
use crate::duty::{self, Done, Due, Duty, DutyId, Facts, Records, Why, certs};
use crate::error::{Code, Error, Result};
use crate::host::files::Root;
use crate::host::notify::Notifier;
use crate::node::Node;
use crate::status::{self, Status, text};
use plane::PlaneWatch;
pub use signals::Signals;

/// The loop looks at least this often: the wall clock may step, and files may be torn by others.
/// `status` takes an agent for dead that has not looked for twice as long.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// After SIGTERM effects may end within this; a publication takes 0.2 s.
const GRACE: Duration = Duration::from_secs(10);

/// What to start now, and when to look again.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// What to start, and why.
    pub start: Vec<(DutyId, Why)>,
    /// When the next duty is due, where an instant is known.
    pub next: Option<Timestamp>,
}

/// Decides what to start: pure, asks every duty, never waits.
pub fn decide(
    config: &Config,
    facts: &Facts,
    records: &Records,
    in_flight: &BTreeSet<DutyId>,
    now: Timestamp,
) -> Decision {
    let mut decision = Decision::default();
    for duty in duty::duties(config) {
        if is_busy(config, &duty, in_flight) || is_busy_with(config, &duty, &decision.start) {
            continue;
        }
        match duty.due(config, facts, records, now) {
            Due::Now(why) => decision.start.push((duty.id(), why)),
            Due::At(at) => decision.next = Some(decision.next.map_or(at, |next| next.min(at))),
            Due::Blocked(_) | Due::Idle => {}
        }
    }
    decision
}

/// Whether a duty, or one that it must not run beside, is under way.
fn is_busy(config: &Config, duty: &Duty<'_>, in_flight: &BTreeSet<DutyId>) -> bool {
    let beside = match duty {
        Duty::Session => false,
        Duty::Cert(spec) => in_flight.contains(&DutyId::Act(spec.consumer.clone())),
        Duty::Act(spec) => config
            .certificates_of(&spec.name)
            .any(|cert| in_flight.contains(&DutyId::Cert(cert.name.clone()))),
        Duty::Files | Duty::ControlPlane(_) => false,
    };
    beside || in_flight.contains(&duty.id())
}

fn is_busy_with(config: &Config, duty: &Duty<'_>, start: &[(DutyId, Why)]) -> bool {
    is_busy(config, duty, &start.iter().map(|(id, _)| id.clone()).collect())
}

/// How the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM or SIGINT.
    Stopped,
    /// SIGHUP: the configuration is to be read again.
    Reload,
}

/// The agent's state between two looks.
#[allow(missing_debug_implementations, reason = "the node has nothing to show")]
pub struct Agent {
    node: Arc<Node>,
    records: Records,
    in_flight: BTreeSet<DutyId>,
    /// What of the records was written last.
    saved: Option<Records>,
    /// They could not be written: each look tries once more.
    unsaved: bool,
    /// The effects that an issue was counted for.
    counted: BTreeSet<DutyId>,
    judge: Judge,
    /// How much time each effect under way had when it began.
    leeway: BTreeMap<DutyId, Duration>,
    /// What was wrong with the agent's own files, for `status`.
    own: Option<Error>,
    plane: PlaneWatch,
    started: Timestamp,
    /// Whether an agent has looked since the boot: /run is empty after one.
    has_looked: bool,
    /// Since when the disk has not given the records that are there, by the monotonic clock: who
    /// does not know what was done decides nothing, and writes nothing over them.
    unread: Option<Duration>,
}

impl Agent {
    /// Takes up what an earlier start left: the session, the records, half a publication.
    ///
    /// The caller holds the lock.
    pub fn open(node: Arc<Node>) -> Agent {
        node.recall_session();
        let started = node.clock.now();
        let (records, own) = memory::recall(&node);
        own.iter().for_each(|error| warn!("{error:#}"));
        let unread = memory::is_unread(&node, own.as_ref()).then(|| node.clock.monotonic());
        for spec in &node.config.certificates {
            if let Err(error) = certs::heal(&node, spec) {
                warn!(certificate = %spec.name, "{error:#}");
            }
        }
        let saved = own.is_none().then(|| records.essence());
        let shown = node.root.stat(Path::new(status::PATH));
        Agent {
            node,
            records,
            in_flight: BTreeSet::new(),
            saved,
            unsaved: false,
            counted: BTreeSet::new(),
            judge: Judge::default(),
            leeway: BTreeMap::new(),
            own,
            plane: PlaneWatch::default(),
            started,
            has_looked: shown.is_ok_and(|file| file.is_some()),
            unread,
        }
    }

    /// Takes a look and decides.
    pub async fn look(&mut self) -> (Facts, Decision) {
        self.recall_again();
        if self.unsaved {
            self.save();
        }
        let mut facts = Facts::gather(&self.node, &self.records).await;
        self.plane.look(&self.node, &mut facts).await;
        let now = self.node.clock.now();
        if !std::mem::replace(&mut self.has_looked, true)
            && let Some(at) = self.first_log_in(&facts, now).await
        {
            self.records.put_off(&DutyId::Session, at, now);
        }
        if self.plane.is_whole(&facts) {
            self.records.recovered(&DutyId::ControlPlane);
        }
        let decision = self.decide(&facts);
        (facts, decision)
    }

    /// Decides upon what a look saw.
    pub fn decide(&self, facts: &Facts) -> Decision {
        if self.unread.is_some() {
            return Decision::default();
        }
        let now = self.node.clock.now();
        decide(&self.node.config, facts, &self.records, &self.in_flight, now)
    }

    /// Until when the first log-in waits, where it does. Good certificates on a disk say nothing of
    /// the machine around it: an image of a node has those of that node. So the metadata service
    /// is asked, and where it tells of another machine or nothing at all, there is no waiting.
    async fn first_log_in(&self, facts: &Facts, now: Timestamp) -> Option<Timestamp> {
        let (config, seed) = (&self.node.config, self.node.seed);
        let at = duty::first_log_in(config, facts, &self.records, seed, now)?;
        let told = self.node.attestor.evidence().await.ok()?.identity;
        (facts.identity == Some(told)).then_some(at)
    }

    /// Notes that an effect begins. An issue is counted before it is asked for; where that cannot
    /// be written down it is not asked for.
    pub fn begin(&mut self, id: &DutyId, facts: &Facts) -> Result<()> {
        match id {
            DutyId::Session | DutyId::Files | DutyId::ControlPlane => {}
            DutyId::Cert(name) if !certs::will_issue(facts.certificates.get(name)) => {}
            DutyId::Cert(name) => {
                self.records.count_issue(name, self.node.clock.now());
                self.counted.insert(id.clone());
                if let Err(error) = self.records.save(&self.node.root) {
                    self.refund(id);
                    return Err(error);
                }
            }
            // An act that was intended has to be on disk before it is carried out.
            DutyId::Act(_) => self.records.save(&self.node.root)?,
        }
        if let Some(leeway) = duty::leeway(id, facts, self.node.clock.now()) {
            self.leeway.insert(id.clone(), leeway);
        }
        self.in_flight.insert(id.clone());
        Ok(())
    }

    /// Performs an effect to its end, within its limit.
    pub async fn perform(node: &Node, id: &DutyId, why: Why, records: &Records) -> Result<Done> {
        let duties = duty::duties(&node.config);
        let Some(duty) = duties.iter().find(|duty| duty.id() == *id) else {
            return Err(Error::new(Code::Bug, format!("{id} is no duty of this node")));
        };
        let limit = duty.limit(&node.config);
        match tokio::time::timeout(limit, duty::perform(node, duty, why, records)).await {
            Ok(done) => done,
            Err(_) => {
                let text = format!("cut after {} s", limit.as_secs());
                Err(Error::new(Code::EffectCut, text).during(format!("performing {id}")))
            }
        }
    }

    /// Notes how an effect ended, and logs it once if that is a change of state.
    pub fn settle(&mut self, id: &DutyId, outcome: Result<Done>) {
        let now = self.node.clock.now();
        self.in_flight.remove(id);
        match outcome {
            Ok(done) => {
                if matches!(&done, Done::Committed(commit) if !commit.issued) {
                    self.refund(id);
                }
                let recovered = self.records.succeeded(id, &done, now);
                outcome::log_success(id, &done, recovered);
                let pace = Pace::steady(self.node.seed);
                outcome::note_left_over(&mut self.records, id, &done, (now, pace));
            }
            Err(error) => self.settle_failure(id, &error, now),
        }
        self.counted.remove(id);
        if let DutyId::Cert(name) = id {
            self.records.end_grant(name);
        }
        self.leeway.remove(id);
        self.save();
    }

    fn settle_failure(&mut self, id: &DutyId, error: &Error, now: Timestamp) {
        let leeway = self.leeway.get(id).copied();
        let pace = Pace { seed: self.node.seed, leeway };
        let changed = self.records.failed(id, error, now, pace);
        if certs::brought_none(error) {
            self.refund(id);
        }
        let failures = self.records.duty(id).failure.map_or(1, |failure| failure.count);
        if *id != DutyId::Session
            && let Some(standing) = self.judge.hears(error.code(), self.node.clock.monotonic())
        {
            self.node.session.demote(standing);
        }
        match changed {
            true => warn!(duty = %id, code = error.code().slug(), "{error:#}"),
            false => debug!(duty = %id, code = error.code().slug(), failures, "{error:#}"),
        }
    }

    /// Writes the records where more than the instant of a success has changed: that one is for
    /// people, and a steady node writes nothing.
    fn save(&mut self) {
        if self.unread.is_some() {
            return;
        }
        let essence = self.records.essence();
        if self.own.is_some() || self.saved.as_ref() != Some(&essence) {
            self.own = self.records.save(&self.node.root).err();
            self.unsaved = self.own.is_some();
            self.saved = self.own.is_none().then_some(essence);
        }
    }

    /// Takes back the count of an issue that there surely was not.
    fn refund(&mut self, id: &DutyId) {
        if let DutyId::Cert(name) = id
            && self.counted.remove(id)
        {
            self.records.refund_issue(name);
        }
    }

    /// What `status` shows.
    pub fn status(&self, facts: &Facts) -> Status {
        let now = self.node.clock.now();
        let agent = status::AgentPart::new(self.started, now, plane::interval(&self.node.config));
        status::collect(&self.node.config, facts, &self.records, agent, self.own.as_ref())
    }

    /// A person has reloaded the agent, perhaps because a cause is cured: everything that waits
    /// for its backoff is tried now. The budget of issues stays.
    fn hurry(&mut self) {
        self.records.forget_backoff();
        self.saved = None;
        self.save();
    }

    fn publish(&self, facts: &Facts) -> Status {
        let status = self.status(facts);
        if let Err(error) = status::store(&self.node.root, &status) {
            debug!("{error:#}");
        }
        status
    }

    /// The records, for tests.
    pub fn records(&self) -> &Records {
        &self.records
    }
}

/// Runs until it is told to stop. Only errors of the agent itself leave it.
pub async fn run(node: Arc<Node>, notifier: &Notifier, signals: &mut Signals) -> Result<Ending> {
    let mut agent = Agent::open(node.clone());
    let mut effects: JoinSet<(DutyId, Result<Done>)> = JoinSet::new();
    let mut ready = false;
    loop {
        let (facts, decision) = agent.look().await;
        for (id, why) in &decision.start {
            start(&mut agent, &mut effects, id, *why, &facts);
        }
        let status = agent.publish(&facts);
        tell(notifier, &status, &mut ready);
        tokio::select! {
            Some(ended) = effects.join_next() => settle(&mut agent, ended),
            () = tokio::time::sleep(pause(&agent, notifier, decision.next)) => {}
            ending = signals.next() => {
                announce(notifier, &node, ending);
                finish(&mut agent, effects).await;
                if ending == Ending::Reload {
                    agent.hurry();
                }
                return Ok(ending);
            }
        }
    }
}

fn start(
    agent: &mut Agent,
    effects: &mut JoinSet<(DutyId, Result<Done>)>,
    id: &DutyId,
    why: Why,
    facts: &Facts,
) {
    debug!(duty = %id, %why, "due");
    if let Err(error) = agent.begin(id, facts) {
        agent.settle(id, Err(error));
        return;
    }
    let (node, id, records) = (agent.node.clone(), id.clone(), agent.records.clone());
    effects.spawn(async move {
        let outcome = Agent::perform(&node, &id, why, &records).await;
        (id, outcome)
    });
}

fn settle(
    agent: &mut Agent,
    ended: std::result::Result<(DutyId, Result<Done>), tokio::task::JoinError>,
) {
    match ended {
        Ok((id, outcome)) => agent.settle(&id, outcome),
        // The release aborts on a panic; elsewhere the duty is simply tried again.
        Err(error) => {
            warn!("an effect ended by itself: {error}");
            agent.in_flight.clear();
        }
    }
}

/// The time until the next look: the next instant due, but never longer than the interval or
/// half of systemd's watchdog time.
fn pause(agent: &Agent, notifier: &Notifier, next: Option<Timestamp>) -> Duration {
    let node = &agent.node;
    let interval = agent.plane.interval(node);
    let longest = notifier.watchdog_interval().map_or(interval, |half| half.min(interval));
    let due = next.map(|next| node.clock.now().duration_until(next));
    let due = due.map(|due| Duration::try_from(due).unwrap_or(Duration::ZERO));
    due.map_or(longest, |due| due.min(longest))
}

/// READY once the first decision is published; then STATUS, and the watchdog's ping.
fn tell(notifier: &Notifier, status: &Status, ready: &mut bool) {
    if !*ready {
        notifier.ready().unwrap_or_else(|error| debug!("{error:#}"));
        *ready = true;
    }
    let line = text::line(status);
    notifier.status(&line).unwrap_or_else(|error| debug!("{error:#}"));
    notifier.watchdog().unwrap_or_else(|error| debug!("{error:#}"));
}

/// STOPPING or RELOADING. systemd takes a service that says STOPPING for ended and kills it at its
/// stop timeout; one that says RELOADING has to say READY, as the next `run` does.
fn announce(notifier: &Notifier, node: &Node, ending: Ending) {
    let told = match ending {
        Ending::Stopped => notifier.stopping(),
        Ending::Reload => notifier.reloading(node.clock.awake()),
    };
    told.unwrap_or_else(|error| debug!("{error:#}"));
}

/// Lets effects end within their grace, then cuts them: every commit stands a kill.
async fn finish(agent: &mut Agent, mut effects: JoinSet<(DutyId, Result<Done>)>) {
    let end = async {
        while let Some(ended) = effects.join_next().await {
            settle(agent, ended);
        }
    };
    if tokio::time::timeout(GRACE, end).await.is_err() {
        debug!("cut the effects under way");
    }
    let (facts, _) = agent.look().await;
    agent.publish(&facts);
}

/// Makes the agent's directories where systemd and tmpfiles have not.
pub fn make_directories(root: &Root) -> Result<()> {
    root.make_dir(Path::new("/run/nodeagent"), 0o755, None)?;
    root.make_dir(Path::new("/var/lib/nodeagent"), 0o700, None)?;
    root.make_dir(Path::new("/var/lib/nodeagent-certs"), 0o755, None)
}

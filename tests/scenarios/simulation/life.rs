//! One node's life: look, begin, perform, settle, as the loop of the agent does, every effect to
//! its end before the next, the invariants checked after each, and the clock moved to the next
//! instant at which anything can happen.

mod fate;
mod sight;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nodeagent::agent::{self, Agent};
use nodeagent::duty::{self, DutyId, Facts, Records, Why};
use nodeagent::failpoint::failing::{self, Failing};
use nodeagent::node::{Node, Standing};
use nodeagent::status;
use serde_json::Value;

use super::clock::lock;
use super::invariants;
use super::ledger::Ledger;
use super::random::{Random, derived};
use super::schedule::{Blow, Change, Fault};
use super::weather::recovery_from;
use super::world::{Published, World};
use sight::Known;

/// After a look that saw less than there is comes another. The agent's own comes after 30 s; of a
/// disk that gives nothing at all it sees no more then.
const SPOILED: SignedDuration = SignedDuration::from_mins(5);

/// The agent looks as often as this, whether or not something is due.
const LOOK: SignedDuration = SignedDuration::from_secs(30);

/// The clock never jumps further, so that what only time changes is seen.
const JUMP: SignedDuration = SignedDuration::from_hours(6);

/// After this long a look is taken, and the invariants are checked, though nothing has happened.
const LITTLE: SignedDuration = SignedDuration::from_mins(40);

/// The status is published at every so many checks; what it says is checked at each.
const PUBLISH_EVERY: u64 = 8;

/// How often it is tried whether a look asks for the one effect that is under way.
const LOOKS_AGAIN: f64 = 0.03;

/// The same where there are more.
const LOOKS_AGAIN_AT_MANY: f64 = 0.3;

/// A broken invariant.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    pub(super) invariant: &'static str,
    pub(super) at: Timestamp,
    pub(super) text: String,
    /// The last lines of the log, with the blows of fate among them.
    pub(super) story: Vec<String>,
}

/// What a life came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) broken: Vec<Broken>,
    pub(super) effects: u64,
    pub(super) issued: u64,
    pub(super) acts: usize,
    pub(super) starts: u64,
}

/// Lines of log as the agent writes them.
pub(super) type Log = Arc<Mutex<Vec<u8>>>;

/// A life in progress.
pub(super) struct Life {
    pub(super) world: World,
    node: Arc<Node>,
    agent: Option<Agent>,
    ledger: Ledger,
    plan: VecDeque<(Timestamp, Change)>,
    kept: Value,
    random: Random,
    seed: u64,
    log: Log,
    story: VecDeque<String>,
    accessors: u64,
    /// What the look after the last effect saw.
    seen: Option<Facts>,
    /// What the last look saw of each certificate, and of which files.
    known: BTreeMap<String, Known>,
    looks: u64,
    /// When the invariants were checked last, unless something has happened since.
    checked: Option<Timestamp>,
    checks: u64,
    outcome: Outcome,
}

impl Life {
    pub(super) fn new(
        world: World,
        plan: Vec<(Timestamp, Change)>,
        seed: u64,
        log: Log,
    ) -> Result<Life, String> {
        failing::begin(seed);
        let node = world.node(seed)?;
        world.model.server().clear_log();
        let mut life = Life {
            world,
            node,
            agent: None,
            ledger: Ledger::default(),
            plan: plan.into(),
            kept: Value::Null,
            random: Random::new(derived(seed, 2)),
            seed,
            log,
            story: VecDeque::new(),
            accessors: 0,
            seen: None,
            known: BTreeMap::new(),
            looks: 0,
            checked: None,
            checks: 0,
            outcome: Outcome::default(),
        };
        life.ledger.weather.fair(life.world.now(), recovery_from(Blow::Reboot));
        life.start()?;
        Ok(life)
    }

    /// Lives until an instant, or until an invariant is broken.
    pub(super) async fn live(&mut self, until: Timestamp) -> Result<(), String> {
        while self.world.now() < until && self.outcome.broken.is_empty() {
            self.fate().await?;
            match self.agent.is_some() {
                true => self.turn().await?,
                false => self.jump(None),
            }
        }
        Ok(())
    }

    /// What was broken so far.
    pub(super) fn broken(&self) -> &[Broken] {
        &self.outcome.broken
    }

    /// What Vault has signed in the last day: when, and the role.
    pub(super) fn signed(&self) -> &[(Timestamp, String)] {
        &self.ledger.signed
    }

    /// What it came to.
    pub(super) fn outcome(self) -> Outcome {
        let (issued, acts) = (self.ledger.issued, self.world.units.count());
        Outcome { issued, acts, ..self.outcome }
    }

    /// One turn of the agent's loop.
    async fn turn(&mut self) -> Result<(), String> {
        if self.let_consumer_come_up() {
            self.seen = None;
        }
        // Where nothing but time has passed since the look after the last effect, it would see
        // the same: what it saw is decided upon anew.
        let facts = match self.seen.take() {
            Some(facts) => facts,
            None => self.look().await,
        };
        let decision = self.agent().decide(&facts);
        if decision.start.is_empty() {
            let spoiled = self.spoiled(&facts).map(|wait| self.node.clock.now() + wait);
            self.jump([decision.next, spoiled].into_iter().flatten().min());
            self.seen = Some(facts).filter(|facts| self.is_seen_still(facts));
            return Ok(());
        }
        let mut begun = Vec::new();
        for (id, why) in decision.start {
            match self.agent().begin(&id, &facts) {
                Ok(()) => begun.push((id, why)),
                Err(error) => self.agent().settle(&id, Err(error)),
            }
        }
        let chance = if begun.len() > 1 { LOOKS_AGAIN_AT_MANY } else { LOOKS_AGAIN };
        if self.random.chance(chance) {
            self.look_again(&begun).await;
        }
        self.random.shuffle(&mut begun);
        let records = self.agent().records().clone();
        for (id, why) in begun {
            if !self.perform(&id, why, &records).await {
                self.tell("killed".into());
                return self.start();
            }
            self.seen = Some(self.look().await);
        }
        Ok(())
    }

    /// A look of the agent, and every invariant held against it.
    async fn look(&mut self) -> Facts {
        let files = self.world.looked_at();
        let facts = self.facts(&files).await;
        self.check(&facts, files.0);
        facts
    }

    /// Somebody else than the agent has changed something.
    pub(super) fn touched(&mut self) {
        (self.seen, self.checked) = (None, None);
        self.known.clear();
        self.ledger.forget_marks();
    }

    /// When to look again, where a disk that fails has kept the look from seeing a certificate.
    fn spoiled(&self, facts: &Facts) -> Option<SignedDuration> {
        let held = facts.certificates.values().all(|fact| fact.held().is_some());
        match self.ledger.weather.fault {
            Some(Fault::DiskFailing(Failing::OneIn(_))) if !held => Some(LOOK),
            Some(Fault::DiskFailing(_)) if !held => Some(SPOILED),
            _ => None,
        }
    }

    /// Whether a look would see the same though time has passed: not long, nothing that time
    /// alone can change, and nothing wrong with what is published.
    fn is_seen_still(&self, facts: &Facts) -> bool {
        let lately = self.checked.is_some_and(|at| at.duration_until(self.world.now()) < LITTLE);
        let held = facts.certificates.values().all(|fact| fact.held().is_some());
        let drifts = matches!(self.ledger.weather.fault, Some(Fault::Drift(_)));
        lately && held && !drifts && !self.ledger.weather.disk_fails()
    }

    /// While effects are under way, a look asks for none of them, nor for an act beside an issue.
    async fn look_again(&mut self, begun: &[(DutyId, Why)]) {
        let under_way: BTreeSet<DutyId> = begun.iter().map(|(id, _)| id.clone()).collect();
        let (_, again) = self.agent().look().await;
        let is_cert = |id: &DutyId| matches!(id, DutyId::Cert(_));
        let is_act = |id: &DutyId| matches!(id, DutyId::Act(_));
        let beside = |id: &DutyId| {
            is_act(id) && under_way.iter().any(is_cert)
                || is_cert(id) && under_way.iter().any(is_act)
        };
        let wrong = again.start.into_iter().map(|(id, _)| id);
        let wrong = wrong.filter(|id| under_way.contains(id) || beside(id));
        self.ledger.asked_again.extend(wrong);
    }

    /// Performs an effect; false where it was killed in the middle.
    async fn perform(&mut self, id: &DutyId, why: Why, records: &Records) -> bool {
        let begun = self.world.now();
        self.ledger.effects.push(begun);
        self.outcome.effects += 1;
        let (node, kill) = (self.node.clone(), self.world.clock.kill.clone());
        let outcome = tokio::select! {
            biased;
            outcome = Agent::perform(&node, id, why, records) => Some(outcome),
            () = kill.struck() => None,
        };
        let took = begun.duration_until(self.world.now());
        let duties = duty::duties(&node.config);
        let limit = duties.iter().find(|duty| duty.id() == *id);
        let limit = limit.map_or(Duration::ZERO, |duty| duty.limit(&node.config));
        self.ledger.effect = Some((id.clone(), took, limit));
        self.world.let_sockets_settle().await;
        let Some(outcome) = outcome else { return false };
        self.agent().settle(id, outcome);
        self.name_session();
        true
    }

    /// The accessor is Vault's random choice, and the instant of the renewal hangs on it: it is
    /// replaced by one of the seed, or no life would be the same again.
    fn name_session(&mut self) {
        let Some((mut session, standing)) = self.node.session.get() else { return };
        if standing == Standing::Proved && !session.facts.accessor.starts_with("seeded-") {
            self.accessors += 1;
            session.facts.accessor = format!("seeded-{}-{}", self.seed, self.accessors);
            self.node.session.set(session.clone(), standing);
            // A disk that is full keeps the session that it has, as the agent's own write would.
            self.node.store_session(&session).ok();
        }
    }

    /// Starts the agent as a new process.
    fn start(&mut self) -> Result<(), String> {
        self.agent = None;
        self.touched();
        self.outcome.starts += 1;
        self.ledger.started(self.world.now());
        self.node = self.world.node(derived(self.seed, 1000 + self.outcome.starts))?;
        // On a full disk they are there already, and nothing else can be done about it.
        agent::make_directories(&self.node.root).ok();
        self.agent = Some(Agent::open(self.node.clone()));
        self.take_log();
        Ok(())
    }

    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("the node is up in a turn")
    }

    /// systemd starts the consumer once its gate is open, which it is with good certificates on
    /// disk, and again where it has exited. Says whether it came.
    fn let_consumer_come_up(&mut self) -> bool {
        if self.world.consumer.is_running() || !self.ledger.gate_is_open(&self.world) {
            return false;
        }
        self.world.units.come_up();
        self.world.consumer.is_running()
    }

    /// Publishes the status and holds every invariant against what can be seen.
    fn check(&mut self, facts: &Facts, published: Published) {
        self.world.consumer.look();
        self.take_log();
        let Some(agent) = &self.agent else { return };
        let shown = agent.status(facts);
        self.checked = Some(self.world.now());
        self.checks += 1;
        if self.checks.is_multiple_of(PUBLISH_EVERY) {
            // On a full disk the old status stays, and its age tells.
            status::store(&self.node.root, &shown).ok();
        }
        let evidence =
            self.ledger.observe(&self.world, agent, &self.node, (published, Some(shown)));
        if !self.outcome.broken.is_empty() {
            return;
        }
        // All that are broken at this instant: what comes after may follow from it.
        for (invariant, holds) in invariants::ALL {
            let Err(text) = holds(&evidence) else { continue };
            let problems = evidence.status.as_ref().map(|status| &status.problems);
            let problems = serde_json::to_string(&problems).unwrap_or_default();
            let text = format!("{text}\n    problems: {problems}");
            let story = self.story.iter().cloned().collect();
            let at = self.world.now();
            self.outcome.broken.push(Broken { invariant, at, text, story });
        }
    }

    /// Moves the clock to the next instant at which anything is due, or is planned.
    fn jump(&mut self, due: Option<Timestamp>) {
        self.seen = None;
        let now = self.world.now();
        // What is due is due by the node's own clock.
        let due = due.map(|due| due.saturating_sub(self.world.clock.wrong()).unwrap_or(due));
        let planned = self.plan.front().map(|(at, _)| *at);
        let next = [due, planned].into_iter().flatten().min();
        let next = next.map_or(now + JUMP, |next| next.min(now + JUMP));
        // A due instant of the past is one that a coarser clock has just missed.
        self.world.truth.set(next.max(now + SignedDuration::from_millis(1)));
    }

    fn tell(&mut self, text: String) {
        const KEPT: usize = 60;
        self.story.push_back(format!("{} {text}", self.world.now()));
        let excess = self.story.len().saturating_sub(KEPT);
        self.story.drain(..excess);
    }

    fn take_log(&mut self) {
        let bytes = std::mem::take(&mut *lock(&self.log));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        for line in text.lines() {
            self.tell(line.to_owned());
        }
        self.ledger.log.push_str(&text);
    }
}

#[cfg(test)]
mod tests;

//! systemd in the simulation: one unit, whose jobs start and stop the simulated consumer, and a
//! record of every job that was carried out, with what was published at that moment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use nodeagent::error::{Code, Error, Result};
use nodeagent::host::clock::Clock;
use nodeagent::host::units::{Active, Load, UnitState, Units};
use rig::clock::ModelClock;

use super::clock::{NodeClock, Place, lock};
use super::consumer::{Consumer, Start};

/// A kubelet that is slow to come takes so long.
const LATE: SignedDuration = SignedDuration::from_secs(30);

/// One that cannot come is known to have exited after this.
const EXIT: SignedDuration = SignedDuration::from_secs(2);

/// A job that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) at: Timestamp,
    /// The generation that each certificate's `current` led to.
    pub(super) generations: BTreeMap<String, u64>,
    /// What the agent can know of it if it was killed before it could note the end.
    pub(super) trace: Trace,
}

/// What is left of a job when whoever asked for it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    /// Its end was told, or the unit has had another invocation since.
    Known,
    /// The agent was killed, and systemd keeps nothing of a reload.
    Lost,
}

/// What systemd knows of the unit's starts.
#[derive(Default)]
struct Starts {
    /// How many there were: each is an invocation.
    count: u64,
    entered: Option<Timestamp>,
    /// Whether the last one failed.
    failed: bool,
}

/// The recorder.
pub(super) struct Recorder {
    truth: ModelClock,
    clock: Arc<NodeClock>,
    consumer: Consumer,
    published: PathBuf,
    starts: Mutex<Starts>,
    acts: Mutex<Vec<Act>>,
    away: AtomicBool,
}

impl Recorder {
    /// `published` is the directory of the consumer, with one directory for each certificate.
    pub(super) fn new(
        truth: ModelClock,
        clock: Arc<NodeClock>,
        consumer: Consumer,
        published: PathBuf,
    ) -> Recorder {
        Recorder {
            truth,
            clock,
            consumer,
            published,
            starts: Mutex::default(),
            acts: Mutex::default(),
            away: AtomicBool::new(false),
        }
    }

    /// Takes D-Bus away.
    pub(super) fn leave(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    /// Brings D-Bus back.
    pub(super) fn come_back(&self) {
        self.away.store(false, Ordering::SeqCst);
    }

    /// How many jobs there were so far.
    pub(super) fn count(&self) -> usize {
        lock(&self.acts).len()
    }

    /// The last of the jobs that came after so many: a generation that came back after forty
    /// others would have a number of its own.
    pub(super) fn acts_since(&self, forgiven: usize) -> Vec<Act> {
        const LAST: usize = 40;
        let acts = lock(&self.acts);
        let from = forgiven.max(acts.len().saturating_sub(LAST));
        acts[from..].to_vec()
    }

    /// The unit comes up by itself: at boot, when its gate has opened.
    pub(super) fn come_up(&self) {
        self.start().ok();
    }

    /// The unit is stopped, as it is when the machine goes down.
    pub(super) fn go_down(&self) {
        self.consumer.stop();
        lock(&self.starts).failed = false;
    }

    /// A start of the unit: another invocation, whether it comes or not.
    fn start(&self) -> std::result::Result<(), String> {
        let started = self.consumer.start();
        let mut starts = lock(&self.starts);
        starts.count += 1;
        starts.failed = started.is_err();
        if started.is_ok() {
            starts.entered = Some(self.clock.now());
        }
        started
    }

    fn bus(&self) -> Result<()> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Error::new(Code::SystemdUnreachable, "connection refused"));
        }
        Ok(())
    }

    fn record(&self) {
        let generations = generations(&self.published);
        let act = Act { at: self.truth.now(), generations, trace: Trace::Known };
        lock(&self.acts).push(act);
    }

    /// The agent may be killed now, and cannot know of the job.
    async fn end_without_a_trace(&self) {
        if self.clock.kill.is_armed(Place::AfterAct)
            && let Some(act) = lock(&self.acts).last_mut()
        {
            act.trace = Trace::Lost;
        }
        self.clock.kill.pass(Place::AfterAct).await;
    }

    fn run(&self, limit: Duration) -> Result<()> {
        self.record();
        match self.consumer.start_mode() {
            Start::Well => {}
            Start::Late => self.truth.advance(LATE),
            Start::Fails => self.truth.advance(EXIT),
            Start::Hangs => {
                self.truth.advance(SignedDuration::try_from(limit).expect("a limit is short"));
            }
        }
        self.start().map_err(|text| Error::new(Code::RestartFailed, text).at("kubelet.service"))
    }
}

#[async_trait]
impl Units for Recorder {
    async fn state(&self, _: &str) -> Result<UnitState> {
        self.bus()?;
        let starts = lock(&self.starts);
        let active = match self.consumer.is_running() {
            true => Active::Active,
            false if starts.failed => Active::Failed,
            false => Active::Inactive,
        };
        let invocation = (starts.count > 0).then(|| starts.count.to_string());
        Ok(UnitState { load: Load::Loaded, active, entered: starts.entered, invocation })
    }

    async fn restart(&self, _: &str, limit: Duration) -> Result<()> {
        self.bus()?;
        self.clock.kill.pass(Place::BeforeAct).await;
        let done = self.run(limit);
        self.clock.kill.pass(Place::AfterAct).await;
        done
    }

    async fn reload(&self, _: &str, _: Duration) -> Result<()> {
        self.bus()?;
        self.clock.kill.pass(Place::BeforeAct).await;
        self.record();
        self.consumer.reload();
        self.end_without_a_trace().await;
        Ok(())
    }

    async fn start(&self, unit: &str, limit: Duration) -> Result<()> {
        self.restart(unit, limit).await
    }
}

/// The generation that each certificate's `current` leads to, below a consumer's directory.
pub(super) fn generations(published: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(published).into_iter().flatten().flatten() {
        let link = std::fs::read_link(entry.path().join("current"));
        let number = link.ok().and_then(|to| to.to_str()?.parse().ok());
        if let Some(number) = number {
            found.insert(entry.file_name().to_string_lossy().into_owned(), number);
        }
    }
    found
}

//! The control plane of this node: raised, and raised again, by one list of steps.
//!
//! [`run`] looks, takes the first step that is not true yet, does it, and looks again. It is the
//! same code for a person's `bootstrap`, for `--recover` and for the duty that watches. Facts
//! decide what is next, so that a run can be killed anywhere and begun again, on any controller:
//! it adopts what it finds. The cluster's lock and the super-user are a bracket around the changing
//! steps.

mod apply_assets;
pub mod assets;
pub mod clients;
pub mod facts;
pub mod inputs;
pub mod journal;
mod leases;
pub mod lock;
pub mod manifests;
pub mod membership;
pub mod outdated;
mod perform;
mod pivot;
mod place;
mod refresh;
pub mod secrets;
pub mod step;
pub mod super_user;
mod waits;

use std::path::Path;
use std::time::Duration;

use crate::config::CertSpec;
use crate::config::plane::{ControlPlane, Etcd, Style};
use crate::duty::certs;
use crate::error::{Code, Context, Error, Result};
use crate::host::lock::Lock;
use crate::node::Node;
use crate::render;
use assets::Set;
use facts::PlaneFacts;
use journal::{Event, Journal, Mode};
use leases::Leases;
use lock::{Attempt, Held};
use step::Step;
use super_user::SuperUser;

/// Held by the one run of a node: a person's and the daemon's exclude each other.
const LOCK: &str = "/run/nodeagent/bootstrap.lock";

/// Between two looks at something that is awaited.
const PAUSE: Duration = Duration::from_millis(200);

/// Between two attempts to take the cluster's lock.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Another controller's run may take as long as its steps; then something is wrong with it.
const LOCK_LIMIT: Duration = Duration::from_secs(1200);

/// All certificates of a fresh controller are there within seconds of the first log-in.
const CERTIFICATES: Duration = Duration::from_secs(120);

/// A step that is done and is still not true is done again this often, after a pause that doubles.
const REPEATS: u32 = 5;

/// The first of these pauses. While a second API server starts behind the same port, the one that
/// is ready and the one that is not answer in turn, for two seconds here; all pauses are 5.5 s.
const REPEAT_PAUSE: Duration = Duration::from_millis(500);

/// The longest of them: the cluster's lock, which is not prolonged meanwhile, outlasts it.
const REPEAT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a run tells while it goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// A step begins, and why it is next.
    Begun(Step, String),
    /// A step is done, and how long it took.
    Done(Step, Duration),
    /// What is still missing.
    Waiting(Step, String),
    /// Another controller holds the cluster's lock.
    HeldBy(String),
    /// Something that a person should know, and that holds nothing up.
    Note(String),
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// What was done, and how long each took; empty where nothing was to do.
    pub done: Vec<(Step, Duration)>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// What is wrong with assets, where something is: nothing else was held back by it.
    pub remarks: Option<Error>,
}

/// Where a run tells how it goes.
pub type Tell<'a> = &'a mut (dyn FnMut(&Progress) + Send + Sync);

/// A run under way.
struct Run<'a> {
    node: &'a Node,
    plane: &'a ControlPlane,
    etcd: &'a Etcd,
    journal: Journal,
    tell: Tell<'a>,
    report: Report,
    super_user: Option<SuperUser>,
    /// When Vault had none for this run, and why.
    no_super_user: Option<(Duration, Code, String)>,
    leases: Leases,
    /// How often a wait has given way to an earlier step, and whether the last one has.
    gave_way: (u32, bool),
    /// The waits that gave way and are not known to be over, and when each began.
    open: Vec<(Step, Duration)>,
    /// The digest of the assets, as they were read last.
    assets: Option<String>,
    /// What was wrong with them then.
    faults: Vec<String>,
    /// What Vault says of the shared secrets, once it was asked.
    shared_changed: Option<String>,
}

/// Does every step that is not true yet.
pub async fn run(node: &Node, mode: Mode, tell: Tell<'_>) -> Result<Report> {
    let (plane, etcd) = facts::told(node)?;
    let _only = alone(node, tell).await?;
    let journal = Journal::load(&node.root)?;
    journal.compact(&node.root, node.clock.now())?;
    let report = Report::default();
    let mut run = Run {
        node,
        plane,
        etcd,
        journal,
        tell,
        report,
        super_user: None,
        no_super_user: None,
        leases: Leases::default(),
        gave_way: (0, false),
        open: Vec::new(),
        assets: None,
        faults: Vec::new(),
        shared_changed: None,
    };
    run.check()?;
    if mode == Mode::Recover || run.journal.style != Some(plane.style) {
        let style = plane.style;
        run.note_event(Event::Opened { mode, style })?;
    }
    let mut held = None;
    let ended = run.steps(&mut held).await;
    if let Some(held) = held {
        // Where it fails the lease ends by itself.
        held.release().await.ok();
    }
    let faults = std::mem::take(&mut run.faults);
    run.remark(faults);
    ended.map(|()| run.report)
}

/// The one run of this node; another one's end is waited for.
async fn alone(node: &Node, tell: Tell<'_>) -> Result<Lock> {
    let begun = node.clock.monotonic();
    let mut told = false;
    loop {
        let waited = node.clock.monotonic().saturating_sub(begun);
        match Lock::acquire(&node.root.path(Path::new(LOCK))) {
            Err(error) if error.code() == Code::Locked && waited < LOCK_LIMIT => {
                if !std::mem::replace(&mut told, true) {
                    tell(&Progress::HeldBy(format!("another run of this node: {error:#}")));
                }
                node.clock.sleep(LOCK_PAUSE).await;
            }
            other => return other,
        }
    }
}

impl Run<'_> {
    /// What is refused before anything is touched.
    fn check(&mut self) -> Result<()> {
        refuse_style(&self.journal, self.plane.style)?;
        membership::check(&self.node.root, &self.etcd.data_dir)?;
        let set = asset_set(self.node, self.plane)?;
        self.know_assets(&set);
        // On a cluster that lives a broken document holds back nothing else.
        if !self.faults.is_empty() && self.journal.assets.is_none() {
            return Err(Error::new(Code::AssetsBad, self.faults.join("\n"))
                .advise("correct the documents named; nothing was touched"));
        }
        Ok(())
    }

    async fn steps(&mut self, held: &mut Option<Held>) -> Result<()> {
        self.await_certificates().await?;
        self.compare_secrets().await;
        let mut last = None;
        let mut repeats = 0;
        loop {
            let facts = self.look().await?;
            let next = step::next(self.plane.style, &facts, &self.journal);
            self.close(next)?;
            let Some(step) = next else {
                return Ok(());
            };
            if step.changes() && held.is_none() {
                *held = Some(self.take_lock().await?);
                continue; // Another controller may have done it meanwhile.
            }
            repeats = if last == Some(step) { repeats + 1 } else { 0 };
            if repeats >= REPEATS {
                let why = step.satisfied(self.plane.style, &facts, &self.journal).err();
                let text = format!("{step} was done and is not true: {}", why.unwrap_or_default());
                return Err(Error::new(Code::PlaneWaiting, text)
                    .advise("see what undoes it: `nodeagent status`, the log of the kubelet"));
            }
            if repeats > 0 {
                let pause = REPEAT_PAUSE * 2_u32.pow(repeats - 1);
                self.node.clock.sleep(pause.min(REPEAT_PAUSE_MAX)).await;
            }
            last = self.one(step, &facts, held.as_ref()).await.during(step.name())?;
        }
    }

    /// One step, noted before and after; gives the step, or nothing where its wait gave way.
    async fn one(
        &mut self,
        step: Step,
        facts: &PlaneFacts,
        held: Option<&Held>,
    ) -> Result<Option<Step>> {
        let why = step.satisfied(self.plane.style, facts, &self.journal).err().unwrap_or_default();
        let begun = self.node.clock.monotonic();
        self.open.retain(|(open, _)| *open != step);
        self.note_event(Event::Begun { step })?;
        (self.tell)(&Progress::Begun(step, why));
        let node = self.node;
        let outcome = match held {
            Some(held) => held.guard(&*node.clock, self.perform(step)).await,
            None => self.perform(step).await,
        };
        if let Err(error) = outcome {
            let text = format!("{error:#}");
            self.note_event(Event::Failed { step, text })?;
            return Err(error);
        }
        if std::mem::take(&mut self.gave_way.1) {
            self.open.push((step, begun));
            return Ok(None);
        }
        self.done(step, begun).map(|()| Some(step))
    }

    fn done(&mut self, step: Step, begun: Duration) -> Result<()> {
        self.note_event(Event::Done { step })?;
        if step == Step::AwaitControlPlane {
            self.note_event(Event::Completed)?;
        }
        let took = self.node.clock.monotonic().saturating_sub(begun);
        self.report.done.push((step, took));
        (self.tell)(&Progress::Done(step, took));
        Ok(())
    }

    /// Looks at this node; what only the API can tell is asked for where this run may.
    async fn look(&mut self) -> Result<PlaneFacts> {
        let gathered = facts::gather(self.node, self.assets.clone()).await;
        let mut facts = gathered.ok_or_else(|| Error::new(Code::Bug, "no control plane"))?;
        if facts.shared_missing.is_none() {
            facts.shared_missing.clone_from(&self.shared_changed);
        }
        let next = step::next(self.plane.style, &facts, &self.journal);
        if next == Some(Step::AwaitSuccessors) {
            facts.successors = Some(self.successors(&facts).await);
        }
        Ok(facts)
    }

    /// A person may be quicker than the agent, which gets the certificates.
    async fn await_certificates(&mut self) -> Result<()> {
        let begun = self.node.clock.monotonic();
        let mut told = false;
        loop {
            let absent =
                |spec: &&CertSpec| certs::examine(self.node, spec, None, &[]).held().is_none();
            let Some(missing) = clients::needed(&self.node.config).find(absent) else {
                return Ok(());
            };
            let text = format!("there is no certificate {} yet", missing.name);
            let waited = self.node.clock.monotonic().saturating_sub(begun);
            if waited >= CERTIFICATES {
                return Err(Error::new(Code::CertificateBad, text)
                    .advise("the agent gets it: see `nodeagent status` and whether it runs"));
            }
            if !std::mem::replace(&mut told, true) {
                (self.tell)(&Progress::Note(format!("waiting: {text}")));
            }
            self.node.clock.sleep(PAUSE).await;
        }
    }

    /// Vault may have newer keys than this node; where it cannot be asked, these have to do.
    async fn compare_secrets(&mut self) {
        match secrets::changed(self.node, self.plane).await {
            Ok(changed) => self.shared_changed = changed,
            Err(error) if secrets::missing(&self.node.root).is_none() => {
                self.note(format!("the shared keys were not compared with vault's: {error:#}"));
            }
            Err(_) => {}
        }
    }

    async fn take_lock(&mut self) -> Result<Held> {
        let instance = self.node.identity()?.instance_id;
        let begun = self.node.clock.monotonic();
        let mut told = None;
        loop {
            let holder = match self.attempt_lock(&instance).await {
                Ok(Attempt::Taken(held)) => return Ok(held),
                Ok(Attempt::HeldBy(holder)) => holder,
                Err(error) => return Err(error.during("taking the cluster's lock")),
            };
            let text = format!("{} holds the lock since {}", holder.instance, holder.since);
            let waited = self.node.clock.monotonic().saturating_sub(begun);
            if waited >= LOCK_LIMIT {
                return Err(Error::new(Code::LockHeld, text)
                    .advise("see how its run goes: `nodeagent status` on that controller"));
            }
            if told.as_ref() != Some(&holder) {
                (self.tell)(&Progress::HeldBy(text));
                told = Some(holder);
            }
            self.node.clock.sleep(LOCK_PAUSE).await;
        }
    }

    /// Who waits only looks: a lease and a transaction each second are no way to treat an etcd
    /// that may be slow.
    async fn attempt_lock(&self, instance: &str) -> Result<Attempt> {
        let etcd = clients::etcd(self.node, facts::LOOK)?;
        let (cluster, term) = (&self.node.config.cluster, self.plane.lock_lease);
        if let Some(holder) = lock::holder(&etcd, cluster).await? {
            return Ok(Attempt::HeldBy(holder));
        }
        lock::take(etcd, &*self.node.clock, cluster, instance, term).await
    }

    fn remark(&mut self, texts: Vec<String>) {
        if texts.is_empty() {
            return;
        }
        let before = self.report.remarks.take().map(|error| format!("{error:#}\n"));
        let text = format!("{}{}", before.unwrap_or_default(), texts.join("\n"));
        self.report.remarks = Some(
            Error::new(Code::AssetsBad, text)
                .advise("correct the documents named, then run `nodeagent bootstrap`"),
        );
    }

    fn note_event(&mut self, event: Event) -> Result<()> {
        self.journal.note(&self.node.root, self.node.clock.now(), event)
    }

    fn note(&mut self, text: String) {
        (self.tell)(&Progress::Note(text.clone()));
        self.report.notes.push(text);
    }
}

/// A living cluster does not change its style: what is there would be in the way.
fn refuse_style(journal: &Journal, wanted: Style) -> Result<()> {
    // What never came so far as to be served may still be raised otherwise.
    match journal.style.filter(|_| journal.assets.is_some()) {
        Some(raised) if raised != wanted => {
            let text =
                format!("the control plane was raised as {raised}, and is to be {wanted} now");
            Err(Error::new(Code::Config, text)
                .advise(format!("say control_plane.style = \"{raised}\" again")))
        }
        _ => Ok(()),
    }
}

/// One line of what would be done.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The step.
    pub step: Step,
    /// Why it is to be done; nothing where it is true already.
    pub why: Option<String>,
}

/// What a run would do, and why; touches nothing.
pub async fn preview(node: &Node) -> Result<Vec<Planned>> {
    let (plane, etcd) = facts::told(node)?;
    let journal = Journal::load(&node.root)?;
    refuse_style(&journal, plane.style)?;
    membership::check(&node.root, &etcd.data_dir)?;
    let facts = facts::gather(node, assets_digest(node)).await;
    let mut facts = facts.ok_or_else(|| Error::new(Code::Bug, "no control plane"))?;
    if facts.shared_missing.is_none() {
        facts.shared_missing = secrets::changed(node, plane).await.ok().flatten();
    }
    let steps = step::steps(plane.style).iter();
    let planned = steps.map(|step| Planned {
        step: *step,
        why: step.satisfied(plane.style, &facts, &journal).err(),
    });
    Ok(planned.collect())
}

/// The assets: what the agent brings, and what the directory holds.
pub fn asset_set(node: &Node, plane: &ControlPlane) -> Result<Set> {
    let builtin = inputs::Inputs::gather(node)?.with(node, |input| -> Result<_> {
        let mut objects = render::builtin_assets(input)?;
        if plane.style == Style::SelfHosted {
            objects.extend(render::daemon_sets(input)?);
        }
        Ok(objects)
    })?;
    Ok(assets::read(&node.root, plane.assets.as_deref(), builtin))
}

/// The digest of the assets, where there are any and they can be read.
pub fn assets_digest(node: &Node) -> Option<String> {
    let plane = node.config.control_plane.as_ref()?;
    asset_set(node, plane).ok().map(|set| set.digest)
}

//! Jobs: queued by a call that is answered at once, run one per unit, and told by `JobRemoved`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::unit::{ActiveState, Behaviour, LoadState, is_unit_name};
use super::{Shared, bus, unit};
use crate::clock::lock;

/// A job takes a moment; what is answered first does not hang on it.
const MOMENT: Duration = Duration::from_millis(1);

/// What a job wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Start,
    Stop,
    Restart,
    TryRestart,
    Reload,
    ReloadOrRestart,
}

impl Kind {
    pub(super) fn of(method: &str) -> Option<Self> {
        match method {
            "StartUnit" => Some(Self::Start),
            "StopUnit" => Some(Self::Stop),
            "RestartUnit" => Some(Self::Restart),
            "TryRestartUnit" => Some(Self::TryRestart),
            "ReloadUnit" => Some(Self::Reload),
            "ReloadOrRestartUnit" => Some(Self::ReloadOrRestart),
            _ => None,
        }
    }
}

impl Kind {
    /// systemd's word for the type of job.
    fn wire(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart | Self::TryRestart | Self::ReloadOrRestart => "restart",
            Self::Reload => "reload",
        }
    }
}

/// The job that a unit has.
pub(super) struct Job {
    pub(super) id: u32,
    kind: Kind,
    task: AbortHandle,
}

/// A job that was asked for: an own one, or one that was queued before and is joined.
pub(super) struct Queued {
    pub(super) id: u32,
    /// Lets an own job begin, once the call was answered.
    pub(super) begin: Option<oneshot::Sender<()>>,
}

/// An error of the bus: its name and text.
pub(super) type Refusal = (&'static str, String);

pub(super) fn path(id: u32) -> String {
    format!("/org/freedesktop/systemd1/job/{id}")
}

/// Queues a job. One of the same kind is joined, another makes way (mode `replace`) or refuses.
pub(super) async fn queue(
    shared: &Arc<Shared>,
    name: &str,
    kind: Kind,
    mode: &str,
) -> Result<Queued, Refusal> {
    check(shared, name, kind, mode)?;
    let displaced = {
        let mut units = lock(&shared.units);
        let job = units.get_mut(name).and_then(|entry| entry.job.take_if(|job| job.kind != kind));
        if job.is_none()
            && let Some(job) = units.get(name).and_then(|entry| entry.job.as_ref())
        {
            return Ok(Queued { id: job.id, begin: None });
        }
        job
    };
    if let Some(job) = displaced {
        job.task.abort();
        bus::job_removed(shared, job.id, name, "canceled").await;
    }
    let id = shared.next_job.fetch_add(1, Ordering::Relaxed);
    let (begin, begun) = oneshot::channel();
    let (sharing, unit) = (Arc::clone(shared), name.to_owned());
    let task = tokio::spawn(async move {
        // Where the caller is gone the job is done all the same.
        begun.await.ok();
        tokio::time::sleep(MOMENT).await;
        let result = perform(&sharing, &unit, kind).await;
        if let Some(entry) = lock(&sharing.units).get_mut(&unit) {
            entry.job = None;
        }
        bus::job_removed(&sharing, id, &unit, result).await;
    });
    if let Some(entry) = lock(&shared.units).get_mut(name) {
        entry.job = Some(Job { id, kind, task: task.abort_handle() });
    }
    Ok(Queued { id, begin: Some(begin) })
}

fn check(shared: &Shared, name: &str, kind: Kind, mode: &str) -> Result<(), Refusal> {
    const INVALID: &str = "org.freedesktop.DBus.Error.InvalidArgs";
    if !is_unit_name(name) {
        return Err((INVALID, unit::invalid_name(name)));
    }
    if !["replace", "fail", "replace-irreversibly", "ignore-dependencies"].contains(&mode) {
        return Err((INVALID, format!("Job mode {mode} invalid")));
    }
    let units = lock(&shared.units);
    let Some(entry) = units.get(name) else {
        let what = if kind == Kind::Stop { "loaded" } else { "found" };
        let text = format!("Unit {name} not {what}.");
        return Err(("org.freedesktop.systemd1.NoSuchUnit", text));
    };
    match entry.unit.load {
        LoadState::Loaded => {}
        LoadState::Masked => {
            return Err(("org.freedesktop.systemd1.UnitMasked", format!("Unit {name} is masked.")));
        }
        LoadState::BadSetting => {
            let text = format!("Unit {name} has a bad unit file setting.");
            return Err(("org.freedesktop.systemd1.BadUnitSetting", text));
        }
    }
    if kind == Kind::Reload && entry.unit.on_reload.is_none() {
        let text = format!("Job type reload is not applicable for unit {name}.");
        return Err(("org.freedesktop.systemd1.JobTypeNotApplicable", text));
    }
    if mode == "fail"
        && let Some(job) = entry.job.as_ref().filter(|job| job.kind != kind)
    {
        // A restart of what is down, or has come down, is a start.
        let queued = match job.kind {
            Kind::Restart if !entry.state.is_up() => Kind::Start.wire(),
            queued => queued.wire(),
        };
        let wanted = kind.wire();
        let text = format!(
            "Transaction for {name}/{wanted} is destructive ({name} has '{queued}' job queued, \
             but '{wanted}' is included in transaction)."
        );
        return Err(("org.freedesktop.systemd1.TransactionIsDestructive", text));
    }
    Ok(())
}

/// Does what the job wants and returns its result in systemd's word.
async fn perform(shared: &Shared, name: &str, kind: Kind) -> &'static str {
    let found = lock(&shared.units).get(name).map(|entry| (entry.state, entry.unit.clone()));
    let Some((state, unit)) = found else {
        return "canceled";
    };
    match kind {
        Kind::Start if state.is_up() => "done",
        Kind::TryRestart if !state.is_up() => "done",
        Kind::Stop if state.is_down() => "done",
        Kind::Reload if !state.is_up() => "invalid",
        Kind::Stop => {
            shared.enter(name, ActiveState::Deactivating);
            let (state, result) = match run(unit.on_stop).await {
                End::Failed => (ActiveState::Failed, "failed"),
                End::Up | End::Down => (ActiveState::Inactive, "done"),
            };
            shared.enter(name, state);
            result
        }
        Kind::Reload | Kind::ReloadOrRestart if state.is_up() && unit.on_reload.is_some() => {
            shared.enter(name, ActiveState::Reloading);
            let end = run(unit.on_reload.unwrap_or(Behaviour::Works)).await;
            shared.enter(name, ActiveState::Active);
            if matches!(end, End::Failed) { "failed" } else { "done" }
        }
        _ => {
            if state.is_up() {
                shared.enter(name, ActiveState::Deactivating);
            }
            if matches!(unit.on_restart, Behaviour::LacksAnother) {
                if state.is_up() {
                    shared.enter(name, ActiveState::Inactive);
                }
                return "dependency";
            }
            shared.enter(name, ActiveState::Activating);
            let (state, result) = match run(unit.on_restart).await {
                End::Up => (ActiveState::Active, "done"),
                End::Failed => (ActiveState::Failed, "failed"),
                End::Down => (ActiveState::Inactive, "done"),
            };
            shared.enter(name, state);
            result
        }
    }
}

enum End {
    Up,
    Failed,
    Down,
}

async fn run(mut behaviour: Behaviour) -> End {
    loop {
        behaviour = match behaviour {
            Behaviour::Works => return End::Up,
            Behaviour::Fails => return End::Failed,
            Behaviour::EndsAtOnce | Behaviour::LacksAnother => return End::Down,
            Behaviour::Hangs => std::future::pending().await,
            Behaviour::Slow(by, then) => {
                tokio::time::sleep(by).await;
                *then
            }
            Behaviour::Run(action) => {
                let ran = tokio::task::spawn_blocking(move || action()).await;
                return if matches!(ran, Ok(Ok(()))) { End::Up } else { End::Failed };
            }
        };
    }
}

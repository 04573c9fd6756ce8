//! Units: what a test says of one, what the model knows of it, and what the bus shows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::SecureRandom;
use zbus::wire::{ObjectPath, Variant};

use super::job::Job;

const UNIT_ROOT: &str = "/org/freedesktop/systemd1/unit/";

/// `ActiveState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActiveState {
    /// Up.
    Active,
    /// Up, re-reading its configuration.
    Reloading,
    /// Down.
    Inactive,
    /// Down, after a failure.
    Failed,
    /// On its way up.
    Activating,
    /// On its way down.
    Deactivating,
}

impl ActiveState {
    /// The words of `ActiveState` and of a service's `SubState`.
    #[must_use]
    pub fn wire(self) -> (&'static str, &'static str) {
        match self {
            Self::Active => ("active", "running"),
            Self::Reloading => ("reloading", "reload"),
            Self::Inactive => ("inactive", "dead"),
            Self::Failed => ("failed", "failed"),
            Self::Activating => ("activating", "start"),
            Self::Deactivating => ("deactivating", "stop-sigterm"),
        }
    }

    /// Active or reloading.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Active | Self::Reloading)
    }

    /// Inactive or failed.
    #[must_use]
    pub fn is_down(self) -> bool {
        matches!(self, Self::Inactive | Self::Failed)
    }
}

/// `LoadState` of a unit that was added; one that was not is `not-found`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// Its file is good.
    Loaded,
    /// An administrator masked it.
    Masked,
    /// Its file is not.
    BadSetting,
}

impl LoadState {
    fn wire(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Masked => "masked",
            Self::BadSetting => "bad-setting",
        }
    }
}

/// What a unit does when a job wants it to start, restart, reload or stop.
#[derive(Clone)]
pub enum Behaviour {
    /// What the job wants.
    Works,
    /// What the function does; an error fails the job. It runs on a thread where it may block.
    Run(Arc<dyn Fn() -> Result<(), String> + Send + Sync>),
    /// The job fails and so does the unit (a failed reload leaves it up).
    Fails,
    /// The job never ends.
    Hangs,
    /// The other behaviour so much later.
    Slow(Duration, Box<Behaviour>),
    /// The job is done, and the unit is down: a service that ends at once.
    EndsAtOnce,
    /// A unit that it requires does not come up: it is stopped for a restart, and not started.
    LacksAnother,
}

impl Behaviour {
    /// [`Behaviour::Run`] of a function.
    pub fn run(action: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self::Run(Arc::new(action))
    }
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Works => f.write_str("Works"),
            Self::Run(_) => f.write_str("Run(..)"),
            Self::Fails => f.write_str("Fails"),
            Self::Hangs => f.write_str("Hangs"),
            Self::Slow(by, then) => write!(f, "Slow({by:?}, {then:?})"),
            Self::EndsAtOnce => f.write_str("EndsAtOnce"),
            Self::LacksAnother => f.write_str("LacksAnother"),
        }
    }
}

/// A unit as a test adds it.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Whether its file is good.
    pub load: LoadState,
    /// The state it is in when it is added.
    pub state: ActiveState,
    /// What a start or restart does.
    pub on_restart: Behaviour,
    /// What a reload does; a unit without cannot reload.
    pub on_reload: Option<Behaviour>,
    /// What a stop does.
    pub on_stop: Behaviour,
}

impl Unit {
    /// One that runs, restarts as told, cannot reload and stops when told.
    #[must_use]
    pub fn active(on_restart: Behaviour) -> Self {
        let (load, state) = (LoadState::Loaded, ActiveState::Active);
        Self { load, state, on_restart, on_reload: None, on_stop: Behaviour::Works }
    }

    /// The same, down.
    #[must_use]
    pub fn inactive(on_restart: Behaviour) -> Self {
        Self { state: ActiveState::Inactive, ..Self::active(on_restart) }
    }

    /// The same with a reload.
    #[must_use]
    pub fn with_reload(mut self, on_reload: Behaviour) -> Self {
        self.on_reload = Some(on_reload);
        self
    }

    /// The same with another load state.
    #[must_use]
    pub fn with_load(mut self, load: LoadState) -> Self {
        self.load = load;
        self
    }
}

/// A unit as the model knows it.
pub(super) struct Entry {
    pub(super) unit: Unit,
    pub(super) state: ActiveState,
    pub(super) job: Option<Job>,
    active_enter: u64,
    active_enter_monotonic: u64,
    invocation: Vec<u8>,
    main_pid: u32,
}

impl Entry {
    pub(super) fn new(unit: Unit) -> Self {
        Self {
            unit,
            state: ActiveState::Inactive,
            job: None,
            active_enter: 0,
            active_enter_monotonic: 0,
            invocation: Vec::new(),
            main_pid: 0,
        }
    }

    pub(super) fn has_process(&self) -> bool {
        self.main_pid != 0
    }

    /// Starts its process: a new invocation with a process of its own.
    pub(super) fn invoke(&mut self, pid: u32) {
        let mut invocation = vec![0; 16];
        ring::rand::SystemRandom::new().fill(&mut invocation).expect("the system has randomness");
        (self.invocation, self.main_pid) = (invocation, pid);
    }

    pub(super) fn enter(&mut self, state: ActiveState, micros: u64, monotonic: u64) {
        if state == ActiveState::Active && !self.state.is_up() {
            (self.active_enter, self.active_enter_monotonic) = (micros, monotonic);
        }
        if state.is_down() {
            self.main_pid = 0;
        }
        self.state = state;
    }
}

/// The properties of an interface; `None` where there is no such interface.
pub(super) fn properties(
    name: &str,
    entry: Option<&Entry>,
    interface: &str,
) -> Option<HashMap<&'static str, Variant<'static>>> {
    match interface {
        "org.freedesktop.systemd1.Unit" => Some(unit_properties(name, entry)),
        "org.freedesktop.systemd1.Service" if name.ends_with(".service") => Some(HashMap::from([
            ("MainPID", Variant::from(entry.map_or(0, |entry| entry.main_pid))),
            ("NRestarts", Variant::from(0_u32)),
        ])),
        _ => None,
    }
}

fn unit_properties(name: &str, entry: Option<&Entry>) -> HashMap<&'static str, Variant<'static>> {
    let (active, sub) = entry.map_or(ActiveState::Inactive, |entry| entry.state).wire();
    let load = entry.map_or("not-found", |entry| entry.unit.load.wire());
    let entered = entry.map_or((0, 0), |entry| (entry.active_enter, entry.active_enter_monotonic));
    let can_reload = entry.is_some_and(|entry| entry.unit.on_reload.is_some());
    let invocation = entry.map_or_else(Vec::new, |entry| entry.invocation.clone());
    let job = entry.and_then(|entry| entry.job.as_ref());
    let job = job.map_or((0, "/".to_owned()), |job| (job.id, super::job::path(job.id)));
    let job_path = ObjectPath::try_from(job.1).expect("job paths are paths");
    HashMap::from([
        ("Id", Variant::from(name.to_owned())),
        ("LoadState", Variant::from(load)),
        ("ActiveState", Variant::from(active)),
        ("SubState", Variant::from(sub)),
        ("ActiveEnterTimestamp", Variant::from(entered.0)),
        ("ActiveEnterTimestampMonotonic", Variant::from(entered.1)),
        ("CanReload", Variant::from(can_reload)),
        ("NeedDaemonReload", Variant::from(false)),
        ("InvocationID", Variant::from(invocation)),
        ("Job", Variant::from((job.0, job_path))),
    ])
}

/// The object path of a unit: systemd escapes all but letters and digits as `_xx`.
#[must_use]
pub fn unit_path(name: &str) -> String {
    let mut path = String::from(UNIT_ROOT);
    for (place, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => path.push(char::from(byte)),
            b'0'..=b'9' if place > 0 => path.push(char::from(byte)),
            _ => path.push_str(&format!("_{byte:02x}")),
        }
    }
    path
}

/// The unit's name of an object path; `None` where it is no unit's.
pub(super) fn unit_name(path: &str) -> Option<String> {
    let mut rest = path.strip_prefix(UNIT_ROOT)?.bytes();
    let mut name = Vec::new();
    while let Some(byte) = rest.next() {
        if byte != b'_' {
            name.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        name.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(name).ok()
}

/// Whether systemd takes it for the name of a unit: a known suffix and none but its characters.
pub(super) fn is_unit_name(name: &str) -> bool {
    const SUFFIXES: [&str; 11] = [
        "service",
        "socket",
        "target",
        "device",
        "mount",
        "automount",
        "swap",
        "timer",
        "path",
        "slice",
        "scope",
    ];
    let characters = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.rsplit_once('.').is_some_and(|(stem, suffix)| {
        !stem.is_empty()
            && !stem.ends_with('@')
            && SUFFIXES.contains(&suffix)
            && name.len() < 256
            && name.bytes().all(characters)
    })
}

/// What systemd says of a name that is none.
pub(super) fn invalid_name(name: &str) -> String {
    match name.split_once("@.") {
        Some((stem, _)) if !stem.is_empty() => {
            format!("Unit name {name} is missing the instance name.")
        }
        _ => format!("Unit name {name} is not valid."),
    }
}

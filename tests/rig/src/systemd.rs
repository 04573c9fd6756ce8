//! A model of systemd's manager on a peer-to-peer D-Bus socket. It behaves as systemd does on the
//! system bus, where it tells only those who subscribed: jobs are queued and answered before they
//! end, `JobRemoved` tells how they ended, units have states and times. (systemd's own private
//! socket names a sender that zbus refuses, so the bus is what a client of zbus sees of it.) What
//! a unit does when it is restarted is data, so that a kubelet that hangs, fails or never comes
//! back needs no kubelet.

mod bus;
mod job;
mod unit;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::clock::{ModelClock, lock};
pub use unit::{ActiveState, Behaviour, LoadState, Unit, unit_path};

/// The model's machine "booted" so long before the model started: the monotonic times of units
/// that were up before are not zero.
const BOOTED_BEFORE: Duration = Duration::from_secs(10);
/// How often [`Systemd::wait_idle`] looks: a job takes a millisecond or more.
const JOB_POLL: Duration = Duration::from_millis(1);
/// How long `stop` lets a unit's action go on.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

/// One call that a client made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The method: `RestartUnit`, `Get` …
    pub method: String,
    /// The unit it was about; empty where about none.
    pub unit: String,
    /// The job's mode, or the property's name; else empty.
    pub argument: String,
    /// When, by the model's clock.
    pub at: Timestamp,
}

/// What the threads share.
struct Shared {
    clock: ModelClock,
    /// The origin of monotonic times, which a test's jumps of the clock must not move.
    booted: Instant,
    units: Mutex<BTreeMap<String, unit::Entry>>,
    calls: Mutex<Vec<Call>>,
    called: Condvar,
    clients: Mutex<Vec<bus::Client>>,
    next_job: AtomicU32,
    next_pid: AtomicU32,
}

impl Shared {
    fn record(&self, method: &str, unit: &str, argument: &str) {
        let (method, unit, argument) = (method.into(), unit.into(), argument.into());
        lock(&self.calls).push(Call { method, unit, argument, at: self.clock.now() });
        self.called.notify_all();
    }

    /// Sets a unit's state with what follows from it: times, invocation and process.
    fn enter(&self, name: &str, state: ActiveState) {
        let monotonic = u64::try_from(self.booted.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Some(entry) = lock(&self.units).get_mut(name) {
            if state == ActiveState::Activating || !entry.has_process() && state.is_up() {
                entry.invoke(self.next_pid.fetch_add(1, Ordering::Relaxed));
            }
            entry.enter(state, self.clock.micros(), monotonic);
        }
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// The running model; dropping it stops it and removes its socket.
pub struct Systemd {
    shared: Arc<Shared>,
    socket: PathBuf,
    running: Mutex<Option<Running>>,
}

impl Systemd {
    /// Serves at a socket path (at most 107 bytes, the kernel's limit), which must not exist.
    pub fn start(socket: impl AsRef<Path>, clock: ModelClock) -> io::Result<Self> {
        let now = Instant::now();
        let shared = Arc::new(Shared {
            clock,
            booted: now.checked_sub(BOOTED_BEFORE).unwrap_or(now),
            units: Mutex::default(),
            calls: Mutex::default(),
            called: Condvar::new(),
            clients: Mutex::default(),
            next_job: AtomicU32::new(1),
            next_pid: AtomicU32::new(1001),
        });
        let systemd =
            Self { shared, socket: socket.as_ref().to_owned(), running: Mutex::default() };
        systemd.restart()?;
        Ok(systemd)
    }

    /// The D-Bus address, for a peer-to-peer connection.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }

    /// Adds a unit, or puts another in its place.
    pub fn add_unit(&self, name: &str, unit: Unit) {
        let state = unit.state;
        lock(&self.shared.units).insert(name.into(), unit::Entry::new(unit));
        self.shared.enter(name, state);
    }

    /// Takes a unit away: it is not found from now on.
    pub fn remove_unit(&self, name: &str) {
        lock(&self.shared.units).remove(name);
    }

    /// Sets what the next start or restart of a unit does.
    pub fn behave(&self, name: &str, on_restart: Behaviour) {
        let mut units = lock(&self.shared.units);
        units.get_mut(name).expect("the test names a unit it added").unit.on_restart = on_restart;
    }

    /// Puts a unit into a state without a job, as a crash does.
    pub fn set_state(&self, name: &str, state: ActiveState) {
        self.shared.enter(name, state);
    }

    /// The state of a unit that was added.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<ActiveState> {
        lock(&self.shared.units).get(name).map(|entry| entry.state)
    }

    /// Waits, blocking the caller's thread, until a unit has no job; false where the deadline came
    /// first. What asked for a job may be gone long before the job has ended.
    #[must_use]
    pub fn wait_idle(&self, name: &str, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while lock(&self.shared.units).get(name).is_some_and(|entry| entry.job.is_some()) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(JOB_POLL);
        }
        true
    }

    /// Every call so far, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// How often a method was called for a unit.
    #[must_use]
    pub fn count(&self, method: &str, unit: &str) -> usize {
        count(&lock(&self.shared.calls), method, unit)
    }

    /// Waits, blocking the caller's thread, until [`Self::count`] is at least `wanted`; false
    /// where the deadline came first.
    #[must_use]
    pub fn wait_for(&self, method: &str, unit: &str, wanted: usize, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut calls = lock(&self.shared.calls);
        while count(&calls, method, unit) < wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.called.wait_timeout(calls, left);
            calls = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }

    /// Forgets the calls so far.
    pub fn clear_calls(&self) {
        lock(&self.shared.calls).clear();
    }

    /// Takes the manager away: the socket is removed, connections and jobs end; units stay.
    pub fn stop(&self) {
        if let Some(running) = lock(&self.running).take() {
            running.stop.send(()).ok();
            running.thread.join().expect("the model's thread ends without a panic");
        }
    }

    /// Brings a stopped manager back at the same socket; nothing where it runs.
    pub fn restart(&self) -> io::Result<()> {
        let mut running = lock(&self.running);
        if running.is_none() {
            *running = Some(spawn(Arc::clone(&self.shared), self.socket.clone())?);
        }
        Ok(())
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Systemd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Systemd({})", self.socket.display())
    }
}

fn count(calls: &[Call], method: &str, unit: &str) -> usize {
    calls.iter().filter(|call| call.method == method && call.unit == unit).count()
}

/// Serves on a thread of its own, and returns once it listens.
fn spawn(shared: Arc<Shared>, socket: PathBuf) -> io::Result<Running> {
    let (stop, stopped) = oneshot::channel();
    let (listening, ready) = mpsc::channel();
    let thread = std::thread::Builder::new().name("rig systemd".into()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                return listening.send(Err(error)).expect("the starter waits for this");
            }
        };
        runtime.block_on(async {
            match tokio::net::UnixListener::bind(&socket) {
                Ok(listener) => {
                    listening.send(Ok(())).expect("the starter waits for this");
                    bus::serve(&shared, listener, stopped).await;
                    std::fs::remove_file(&socket).ok();
                }
                Err(error) => listening.send(Err(error)).expect("the starter waits for this"),
            }
        });
        runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    })?;
    ready.recv().map_err(io::Error::other)??;
    Ok(Running { stop, thread })
}

#[cfg(test)]
mod tests;

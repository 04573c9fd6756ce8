//! The node's clock in the simulation. There is one true time, which Vault and AWS share; the
//! node's wall clock is that plus an error that faults put there, and its monotonic clock runs
//! with its oscillator. To sleep is to move the true time on, and returns at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nodeagent::host::Pending;
use nodeagent::host::clock::Clock;
use rig::clock::ModelClock;
use tokio::sync::Notify;

use super::consumer::Consumer;

/// At which step of an effect the agent is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a pause: between the swap and the unlink of a publication, or between two probes.
    Pause,
    /// Before systemd is asked for a restart or reload that is on record.
    BeforeAct,
    /// When the unit is up again and nobody knows yet.
    AfterAct,
}

/// kill -9 in the middle of an effect: it stops at the place and goes on no more.
#[derive(Debug, Default)]
pub(super) struct Kill {
    armed: Mutex<Option<Place>>,
    struck: AtomicBool,
    told: Notify,
}

impl Kill {
    pub(super) fn arm(&self, place: Option<Place>) {
        *lock(&self.armed) = place;
    }

    /// Whether it stops the next effect at this place.
    pub(super) fn is_armed(&self, place: Place) -> bool {
        *lock(&self.armed) == Some(place)
    }

    /// Passes, or never returns.
    pub(super) async fn pass(&self, place: Place) {
        {
            let mut armed = lock(&self.armed);
            if *armed != Some(place) {
                return;
            }
            *armed = None;
        }
        self.struck.store(true, Ordering::SeqCst);
        self.told.notify_one();
        std::future::pending::<()>().await;
    }

    /// Ends when an effect was stopped.
    pub(super) async fn struck(&self) {
        while !self.struck.swap(false, Ordering::SeqCst) {
            self.told.notified().await;
        }
    }
}

/// The clock that the agent is given.
#[derive(Debug)]
pub(super) struct NodeClock {
    truth: ModelClock,
    state: Mutex<State>,
    pub(super) kill: Arc<Kill>,
    /// Who looks at its files while the agent pauses, as programs do that watch them.
    watcher: OnceLock<Consumer>,
}

#[derive(Debug)]
struct State {
    booted: Timestamp,
    /// What the wall clock was wrong by when the drift was last counted.
    wrong: SignedDuration,
    /// What the oscillator has gained since boot.
    gained: SignedDuration,
    drift_ppm: f64,
    counted: Timestamp,
}

impl NodeClock {
    pub(super) fn new(truth: ModelClock) -> NodeClock {
        let now = truth.now();
        let state = State {
            booted: now,
            wrong: SignedDuration::ZERO,
            gained: SignedDuration::ZERO,
            drift_ppm: 0.0,
            counted: now,
        };
        NodeClock {
            truth,
            state: Mutex::new(state),
            kill: Arc::default(),
            watcher: OnceLock::new(),
        }
    }

    /// Has a consumer look at its files in each pause of the agent.
    pub(super) fn shows(&self, consumer: Consumer) {
        self.watcher.set(consumer).ok();
    }

    /// A boot: the monotonic clock starts anew, the wall clock keeps its error.
    pub(super) fn boot(&self) {
        let mut state = self.counted();
        state.booted = self.truth.now();
        state.gained = SignedDuration::ZERO;
    }

    /// Somebody sets the wall clock wrong by this.
    pub(super) fn step(&self, by: SignedDuration) {
        let mut state = self.counted();
        state.wrong = state.wrong.saturating_add(by);
    }

    /// The time service sets the wall clock right.
    pub(super) fn correct(&self) {
        self.counted().wrong = SignedDuration::ZERO;
    }

    /// How fast the oscillator runs from now on, in millionths too fast.
    pub(super) fn drift(&self, ppm: f64) {
        self.counted().drift_ppm = ppm;
    }

    /// How far the wall clock is ahead of the truth.
    pub(super) fn wrong(&self) -> SignedDuration {
        self.counted().wrong
    }

    fn counted(&self) -> MutexGuard<'_, State> {
        let now = self.truth.now();
        let mut state = lock(&self.state);
        let passed = state.counted.duration_until(now).as_secs_f64();
        let drifted = SignedDuration::from_secs_f64(passed * state.drift_ppm / 1e6);
        state.wrong = state.wrong.saturating_add(drifted);
        state.gained = state.gained.saturating_add(drifted);
        state.counted = now;
        state
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        let wrong = self.counted().wrong;
        self.truth.now().saturating_add(wrong).expect("a signed duration fits")
    }

    fn monotonic(&self) -> Duration {
        let state = self.counted();
        let up = state.booted.duration_until(self.truth.now()).saturating_add(state.gained);
        // A minute has passed before the agent is started.
        Duration::try_from(up).unwrap_or_default() + Duration::from_secs(60)
    }

    fn sleep(&self, duration: Duration) -> Pending<'_, ()> {
        Box::pin(async move {
            if let Some(consumer) = self.watcher.get() {
                consumer.look();
            }
            self.kill.pass(Place::Pause).await;
            self.truth.advance(SignedDuration::try_from(duration).expect("a pause is short"));
        })
    }

    fn synchronized(&self) -> Option<bool> {
        None
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_wall_clock_is_wrong_by_steps_and_drift_and_the_monotonic_by_drift_alone() {
    let truth = ModelClock::manual(Timestamp::from_second(1_800_000_000).unwrap());
    let clock = NodeClock::new(truth.clone());
    let begun = clock.monotonic();
    clock.drift(100.0);
    clock.step(SignedDuration::from_hours(1));
    truth.advance(SignedDuration::from_secs(100_000));
    assert_eq!(clock.wrong(), SignedDuration::from_secs(3610));
    assert_eq!(clock.monotonic() - begun, Duration::from_secs(100_010));
    clock.correct();
    assert_eq!(clock.now(), truth.now());
}

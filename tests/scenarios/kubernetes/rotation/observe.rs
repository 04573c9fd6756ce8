//! What is seen of controllers from outside while something is done to them: on threads of their
//! own, because the story itself waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rig::controllers::api::Api;
use serde_json::{Value, json};

use super::{SOON, Story, told};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// A story is over before.
const LONG: Duration = Duration::from_secs(1200);

/// What a thread notes until it is stopped.
struct Observer<T> {
    stop: Arc<AtomicBool>,
    noted: Arc<Mutex<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Clone + Send + 'static> Observer<T> {
    fn start(noted: T, mut look: impl FnMut(&Mutex<T>) + Send + 'static) -> Observer<T> {
        let (stop, noted) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(noted)));
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&noted));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                look(&seen);
                std::thread::sleep(PAUSE);
            }
        });
        Observer { stop, noted, thread: Some(thread) }
    }

    fn noted(&self) -> T {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn stop(mut self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("an observer does not panic");
        }
        self.noted()
    }
}

impl<T> Drop for Observer<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How often programs were restarted, and for how long each was away.
pub(super) struct Restarts(Observer<BTreeMap<&'static str, Life>>);

#[derive(Clone, Default)]
struct Life {
    pids: Vec<u32>,
    gone: Option<Instant>,
    away: Vec<f64>,
}

impl Restarts {
    /// Watches programs of a controller from now on.
    pub(super) fn watch(story: &Story, node: usize, programs: &[&'static str]) -> Restarts {
        let (processes, programs) = (story.nodes[node].processes(), programs.to_owned());
        let first = processes.of(&programs).into_iter();
        let first = first.map(|(program, pids)| (program, Life { pids, ..Life::default() }));
        Restarts(Observer::start(first.collect(), move |lives| {
            let now = processes.of(&programs);
            let mut lives = lives.lock().unwrap_or_else(PoisonError::into_inner);
            for (program, pids) in now {
                lives.entry(program).or_default().note(pids);
            }
        }))
    }

    /// For how many seconds each was away so far, each time.
    pub(super) fn seen(&self) -> BTreeMap<&'static str, Vec<f64>> {
        away(self.0.noted())
    }

    /// The same, for the last time.
    pub(super) fn stop(self) -> BTreeMap<&'static str, Vec<f64>> {
        away(self.0.stop())
    }
}

fn away(lives: BTreeMap<&'static str, Life>) -> BTreeMap<&'static str, Vec<f64>> {
    lives.into_iter().map(|(program, life)| (program, life.away)).collect()
}

impl Life {
    /// A verb of the agent beside the agent is no restart of it.
    fn note(&mut self, now: Vec<u32>) {
        if self.pids.iter().all(|pid| now.contains(pid)) {
            return;
        }
        let gone = *self.gone.get_or_insert_with(Instant::now);
        if now.len() == 1 {
            self.away.push(gone.elapsed().as_secs_f64());
            (self.pids, self.gone) = (now, None);
        }
    }
}

/// A watch that is kept open.
pub(super) struct Follow {
    seen: Arc<Mutex<Vec<String>>>,
    ended: Arc<Mutex<Option<String>>>,
}

const WATCHED: &str = "/api/v1/namespaces/default/configmaps";

impl Follow {
    /// Watches the API of a controller.
    pub(super) fn start(story: &Story, node: usize) -> Result<Follow, String> {
        let api = story.api(node)?;
        let (seen, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(None)));
        let (names, end) = (Arc::clone(&seen), Arc::clone(&ended));
        // It ends with its connection, at the latest with the machine.
        std::thread::spawn(move || {
            let path = format!("{WATCHED}?watch=true&timeoutSeconds=3600");
            let outcome = runtime().block_on(api.follow(&path, LONG, |event: Value| {
                let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
                names.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
            }));
            let text = outcome.err().unwrap_or_else(|| "its end".to_owned());
            *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        });
        Ok(Follow { seen, ended })
    }

    /// Waits until it sees what is made now; it must not have been ended meanwhile.
    pub(super) async fn still_sees(self, api: &Api) {
        let name = "seen-by-the-watch";
        told(api.create(WATCHED, &json!({ "metadata": { "name": name } })).await);
        let deadline = Instant::now() + SOON;
        let sees =
            || self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(&name.into());
        while !sees() {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
            assert_eq!(ended, None, "the watch ended");
            assert!(Instant::now() < deadline, "the watch sees nothing");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// For a thread of its own.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made")
}

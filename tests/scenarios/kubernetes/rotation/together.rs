//! Three controllers seen at once: what a client that knows all of them gets, and which of them
//! are away at the same time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rig::controllers::api::{Api, Identity};

use super::observe::runtime;
use super::{SOON, Story, told};

/// Fifty clients a second.
const EVERY: Duration = Duration::from_millis(20);
/// Between two looks at one server.
const PAUSE: Duration = Duration::from_millis(100);
/// What a client asks for.
const ASKED: &str = "/api/v1/namespaces/kube-system/configmaps?limit=1";

/// A server that did not answer: from the last answer before to the first one after.
#[derive(Clone, Debug)]
pub(super) struct Away {
    pub(super) server: String,
    pub(super) from: Duration,
    pub(super) to: Duration,
}

/// What clients got that know all controllers.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    pub(super) total: usize,
    /// Requests that one controller did not answer and the next one did, and why.
    pub(super) moved: Vec<String>,
    /// Requests that none answered, and why.
    pub(super) failed: Vec<String>,
}

impl Served {
    /// Tells the figures.
    pub(super) fn tell(&self, what: &str) {
        let (moved, failed) = (self.moved.len(), self.failed.len());
        println!("FIGURE {what}_total={} {what}_moved={moved} {what}_failed={failed}", self.total);
    }
}

/// Clients and looks, until they are stopped.
pub(super) struct Together {
    stop: Arc<AtomicBool>,
    served: Arc<Mutex<Served>>,
    away: Arc<Mutex<Vec<Away>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Together {
    /// Starts clients, and looks at the API servers and, with an identity for them, at the
    /// members of etcd.
    pub(super) fn start(story: &Story, clients: &Identity) -> Together {
        let numbers = 0..story.nodes.len();
        let apis: Vec<Api> = numbers.clone().map(|n| told(story.api_as(n, clients))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (served, away) = (Arc::default(), Arc::default());
        let mut threads = vec![std::thread::spawn({
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            move || runtime().block_on(work(apis, &stop, &served))
        })];
        let begun = Instant::now();
        for number in numbers {
            for (kind, api, path) in [
                ("API", told(story.api(number)), "/livez?exclude=etcd"),
                ("etcd", told(story.etcd(number)), "/health"),
            ] {
                let server = format!("{kind} {number}");
                let (stop, away) = (Arc::clone(&stop), Arc::clone(&away));
                let look = async move |look: Look| look.go_on(&api, path).await;
                let state = Look { server, begun, stop, away };
                threads.push(std::thread::spawn(move || runtime().block_on(look(state))));
            }
        }
        Together { stop, served, away, threads }
    }

    /// Waits until so many clients have come.
    pub(super) async fn until(&self, total: usize) {
        let deadline = Instant::now() + SOON;
        while self.served.lock().unwrap_or_else(PoisonError::into_inner).total < total {
            assert!(Instant::now() < deadline, "{total} clients do not come in {SOON:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What they saw.
    pub(super) fn stop(self) -> (Served, Vec<Away>) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it does not panic");
        }
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (served, self.away.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Pairs of servers of one kind that were away at the same moment.
pub(super) fn coinciding(away: &[Away]) -> Vec<(Away, Away)> {
    let kind = |away: &Away| away.server.split(' ').next().map(str::to_owned);
    let mut pairs = Vec::new();
    for (index, one) in away.iter().enumerate() {
        for other in &away[index + 1..] {
            let same = kind(one) == kind(other) && one.server != other.server;
            if same && one.from < other.to && other.from < one.to {
                pairs.push((one.clone(), other.clone()));
            }
        }
    }
    pairs
}

struct Look {
    server: String,
    begun: Instant,
    stop: Arc<AtomicBool>,
    away: Arc<Mutex<Vec<Away>>>,
}

impl Look {
    /// Any answer is one: a member that has no leader for a moment is there.
    async fn go_on(self, api: &Api, path: &str) {
        let mut missing: Option<Duration> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let asked = self.begun.elapsed();
            match api.call("GET", path, None).await {
                Ok(_) => {
                    if let Some(from) = missing.take() {
                        let away = Away { server: self.server.clone(), from, to: asked };
                        self.away.lock().unwrap_or_else(PoisonError::into_inner).push(away);
                    }
                }
                Err(_) => {
                    missing.get_or_insert(asked);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn work(apis: Vec<Api>, stop: &AtomicBool, served: &Arc<Mutex<Served>>) {
    let mut tick = tokio::time::interval(EVERY);
    let mut pending = tokio::task::JoinSet::new();
    let mut first = 0;
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        while pending.try_join_next().is_some() {}
        let (apis, served) = (apis.clone(), Arc::clone(served));
        first += 1;
        pending.spawn(async move { one(&apis, first, &served).await });
    }
    pending.join_all().await;
}

/// A client that asks one controller, and the others where that one does not answer.
async fn one(apis: &[Api], first: usize, served: &Mutex<Served>) {
    let mut why = Vec::new();
    for turn in 0..apis.len() {
        match apis[(first + turn) % apis.len()].call("GET", ASKED, None).await {
            Ok(answer) if answer.status == 200 => break,
            Ok(answer) => why.push(format!("{}: {}", answer.status, answer.text)),
            Err(error) => why.push(error),
        }
    }
    let mut served = served.lock().unwrap_or_else(PoisonError::into_inner);
    served.total += 1;
    match why.len() {
        0 => {}
        all if all == apis.len() => served.failed.push(why.join("; ")),
        _ => served.moved.push(why.join("; ")),
    }
}

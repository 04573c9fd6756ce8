//! Clients of the API while something is done to it: so many new connections a second, each with
//! one request that RBAC has to allow, on a thread of its own. None retries, so that every failure
//! is one that a client would have seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Controllers;
use super::api::{Api, Identity};

/// The group that the clients are in, and the role that RBAC gives it.
const GROUP: &str = "rig:clients";

/// What they ask for.
const PATH: &str = "/api/v1/namespaces/kube-system/configmaps?limit=1";

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many requests there were.
    pub total: usize,
    /// No connection, or one that ended before the answer.
    pub refused: usize,
    /// Answers 403.
    pub forbidden: usize,
    /// All other answers but 200.
    pub other: usize,
    /// When each failure was, since the start, and what it was.
    pub failures: Vec<(Duration, String)>,
}

impl Tally {
    /// Everything that was not answered as it should be.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.refused + self.forbidden + self.other
    }

    /// From the first to the last failure whose text holds this, in seconds.
    #[must_use]
    pub fn span(&self, holds: &str) -> f64 {
        let at: Vec<_> =
            self.failures.iter().filter(|(_, what)| what.contains(holds)).map(|f| f.0).collect();
        match (at.iter().min(), at.iter().max()) {
            (Some(first), Some(last)) => last.saturating_sub(*first).as_secs_f64(),
            _ => 0.0,
        }
    }
}

/// Clients at work, until [`Load::stop`].
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Ends the clients and tells what they saw.
    #[must_use]
    pub fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the clients' thread does not panic");
        }
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Controllers {
    /// Lets clients in a group of their own read, and waits until they may.
    pub async fn admit_clients(&self) -> Result<Identity, String> {
        let api = self.api(0)?;
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "metadata": {"name": "rig-clients"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": group, "kind": "Group", "name": GROUP}],
        });
        let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        api.create(path, &binding).await?;
        let root = &self.site.configured.roots;
        let who = Identity::issue(&self.vault(), ("pki", &root["pki"]), &[GROUP]).await?;
        let client = self.api_as(0, &who)?;
        let limit = Duration::from_secs(60);
        let allowed = async || client.get(PATH).await;
        self.wait(0, "its clients have their rights", limit, allowed).await?;
        Ok(who)
    }

    /// Starts clients of one controller's API, so many a second.
    pub fn load(&self, node: usize, who: &Identity, per_second: u32) -> Result<Load, String> {
        let api = self.api_as(node, who)?;
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, noted) = (Arc::clone(&stop), Arc::clone(&tally));
        let every = Duration::from_secs(1) / per_second;
        let thread = std::thread::spawn(move || work(&api, every, &stopped, &noted));
        Ok(Load { stop, tally, thread: Some(thread) })
    }
}

fn work(api: &Api, every: Duration, stop: &AtomicBool, tally: &Arc<Mutex<Tally>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let begun = Instant::now();
    runtime.block_on(async {
        let mut tick = tokio::time::interval(every);
        let mut pending = tokio::task::JoinSet::new();
        while !stop.load(Ordering::Relaxed) {
            tick.tick().await;
            while pending.try_join_next().is_some() {}
            let (api, tally) = (api.clone(), Arc::clone(tally));
            pending.spawn(async move { one(&api, &tally, begun).await });
        }
        pending.join_all().await;
    });
}

async fn one(api: &Api, tally: &Mutex<Tally>, begun: Instant) {
    let at = begun.elapsed();
    let answer = api.call("GET", PATH, None).await;
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.total += 1;
    let failure = match answer {
        Ok(answer) if answer.status == 200 => return,
        Ok(answer) if answer.status == 403 => {
            tally.forbidden += 1;
            "403".to_owned()
        }
        Ok(answer) => {
            tally.other += 1;
            format!("{}: {}", answer.status, answer.text.chars().take(120).collect::<String>())
        }
        Err(error) => {
            tally.refused += 1;
            error
        }
    };
    tally.failures.push((at, failure));
}

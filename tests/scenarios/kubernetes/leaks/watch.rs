//! What the processes of a machine show of themselves, looked at again and again while a story
//! goes on, and the secrets that come and go meanwhile. A process that lives for less than one
//! look and the next (some 30 ms) may be missed, and so may what one sets aside in its first
//! instants, as the arguments of a shell before it starts another program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rig::controllers::Controller;
use serde_json::Value;

use crate::scan::Secrets;

/// Between two looks, which take about as long.
const PAUSE: Duration = Duration::from_millis(15);

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Arguments and environments, each once, by whose they are.
    pub(super) shown: BTreeMap<String, Vec<u8>>,
    /// Keys and tokens that there were, however briefly.
    pub(super) secrets: Secrets,
    /// How many looks there were, and how many processes.
    pub(super) looks: usize,
    pub(super) processes: usize,
}

/// A thread that looks.
pub(super) struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    /// Begins with the machine as it runs now; another boot needs another watch.
    pub(super) fn start(node: &Controller) -> Watch {
        let init = node.machine.init().expect("it runs");
        let root = PathBuf::from(format!("/proc/{init}/root"));
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut looker = Looker { root, ..Looker::default() };
            while !end.load(Ordering::Relaxed) {
                looker.look();
                std::thread::sleep(PAUSE);
            }
            looker.seen.processes = looker.processes.len();
            looker.seen
        });
        Watch { ended, thread }
    }

    /// Ends it.
    pub(super) fn stop(self) -> Seen {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

#[derive(Default)]
struct Looker {
    root: PathBuf,
    seen: Seen,
    known: BTreeSet<Vec<u8>>,
    processes: BTreeSet<(String, String)>,
    generations: BTreeSet<PathBuf>,
    session: String,
}

impl Looker {
    fn look(&mut self) {
        self.seen.looks += 1;
        for (pid, path) in entries(&self.root.join("proc")) {
            if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            for name in ["cmdline", "environ"] {
                let Ok(text) = fs::read(path.join(name)) else { continue };
                if !text.is_empty() && self.known.insert(text.clone()) {
                    let place = format!("{name} of process {pid} ({})", self.known.len());
                    self.seen.shown.insert(place, text);
                }
            }
            let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            let started = after_name.split_whitespace().nth(19).unwrap_or_default();
            self.processes.insert((pid, started.to_owned()));
        }
        self.keep_secrets();
    }

    /// Of the archive, which has each generation of each certificate for a while.
    fn keep_secrets(&mut self) {
        for (certificate, path) in entries(&self.root.join("var/lib/nodeagent/archive")) {
            for (_, generation) in entries(&path) {
                let Ok(key) = fs::read_to_string(generation.join("key.pem")) else { continue };
                // One in the making is read again under its own name.
                if key.ends_with("-----\n") && self.generations.insert(generation) {
                    self.seen.secrets.add_key(&format!("key of {certificate}"), &key);
                }
            }
        }
        let session = fs::read_to_string(self.root.join("run/nodeagent/token"));
        let session = session.unwrap_or_default();
        if session != self.session {
            let json: Value = serde_json::from_str(&session).unwrap_or_default();
            if let Some(token) = json["token"].as_str() {
                self.seen.secrets.add("token", token);
            }
            self.session = session;
        }
    }
}

/// What is in a directory; what vanishes meanwhile is not there.
fn entries(path: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
}

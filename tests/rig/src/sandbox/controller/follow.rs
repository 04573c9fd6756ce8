//! One controller from power on to a Ready node: what its agent notes in the journal of the run,
//! and the moments that a person waits for, each told once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::{is_whole, say};
use crate::controllers::{COMPONENTS, Controller, Controllers};

/// Where the agent notes each step of a run.
pub(super) const JOURNAL: &str = "/var/lib/nodeagent/journal";

/// What a person waits for, in the order in which it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// All certificates are committed.
    Certificates,
    /// The API server says that it is ready.
    Served,
    /// The node is Ready.
    Ready,
}

/// What was told of a controller.
pub(super) struct Followed {
    name: String,
    journal: PathBuf,
    lines: usize,
    begun: BTreeMap<String, Timestamp>,
    told: Vec<Moment>,
}

impl Followed {
    /// From the beginning.
    pub(super) fn new(node: &Controller) -> Followed {
        let journal = node.machine.root().join(JOURNAL.trim_start_matches('/'));
        let (begun, told) = (BTreeMap::new(), Vec::new());
        Followed { name: node.member.clone(), journal, lines: 0, begun, told }
    }

    /// It was switched on again: all moments are to come; what was noted was told.
    pub(super) fn switched_on(&mut self) {
        self.told.clear();
    }

    /// It was disturbed: the log-in and the certificates are as before.
    pub(super) fn disturbed(&mut self) {
        self.told.retain(|moment| *moment == Moment::Certificates);
    }

    /// What was noted so far was seen already.
    pub(super) fn pass_over(&mut self) {
        let journal = std::fs::read_to_string(&self.journal).unwrap_or_default();
        self.lines = journal.lines().count();
    }

    /// Tells what is new; the error says what is missing.
    pub(super) async fn look(
        &mut self,
        plane: &Controllers,
        number: usize,
        took: Duration,
    ) -> Result<(), String> {
        let node = &plane.nodes[number];
        let status = node.machine.agent_status();
        if !has_certificates(&status) {
            return Err(format!("{}: certificates are missing", self.name));
        }
        self.tell(Moment::Certificates, took, "has logged in, its certificates are committed");
        self.steps();
        let served = plane.api(number)?.call("GET", "/readyz", None).await;
        if !served.is_ok_and(|answer| answer.status == 200) {
            return Err(format!("{}: its API server is not ready", self.name));
        }
        self.tell(Moment::Served, took, "serves the API");
        let path = format!("/api/v1/nodes/{}", node.instance);
        let found = plane.api(number)?.get(&path).await.unwrap_or_default();
        if !super::tables::is_true(&found, "Ready") {
            return Err(format!("{}: its node is not Ready", self.name));
        }
        self.tell(Moment::Ready, took, "is a Ready node");
        // What was just broken may not be told by the status yet.
        let runs = COMPONENTS.iter().all(|component| !node.pids(component).is_empty());
        if is_whole(&status) && runs && self.steps() == 0 {
            return Ok(());
        }
        Err(format!("{}: at {}", self.name, status["control_plane"]["step"]))
    }

    fn tell(&mut self, moment: Moment, took: Duration, what: &str) {
        if !self.told.contains(&moment) {
            self.told.push(moment);
            say(&format!("{} {what} ({:.1} s)", self.name, took.as_secs_f64()));
        }
    }

    /// Tells each new line of the journal that a person would want; gives how many there were.
    fn steps(&mut self) -> usize {
        let journal = std::fs::read_to_string(&self.journal).unwrap_or_default();
        // The last line may be half written.
        let whole = journal.rfind('\n').map_or("", |end| &journal[..end]);
        let news: Vec<String> = whole.lines().skip(self.lines).map(String::from).collect();
        self.lines += news.len();
        for line in &news {
            let entry: Value = serde_json::from_str(line).unwrap_or_default();
            if let Some(text) = self.entry(&entry) {
                say(&format!("{}  {text}", self.name));
            }
        }
        news.len()
    }

    fn entry(&mut self, entry: &Value) -> Option<String> {
        let word = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let (step, at) = (word("step"), word("at").parse::<Timestamp>().ok()?);
        Some(match entry["event"].as_str()? {
            "opened" => {
                format!("epoch {} begins, to {}: {}", entry["epoch"], word("mode"), word("style"))
            }
            "begun" => {
                self.begun.insert(step.clone(), at);
                format!("{step:27} ...")
            }
            "done" => {
                let begun = self.begun.get(&step).copied().unwrap_or(at);
                let took = at.duration_since(begun).as_secs_f64();
                format!("{step:27} done in {took:.1} s")
            }
            "failed" => format!("{step:27} FAILED: {}", word("text")),
            "completed" => "every step is true".into(),
            _ => return None,
        })
    }
}

/// Whether the node has all certificates.
pub(super) fn has_certificates(status: &Value) -> bool {
    let all = status["certificates"].as_array().map_or(&[][..], Vec::as_slice);
    !all.is_empty() && all.iter().all(|part| part["serial"].is_string())
}

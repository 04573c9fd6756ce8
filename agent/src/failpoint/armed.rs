//! What a test can have a point do: be logged, and be the end of the process. The environment is
//! read once. The log holds what was written, keys too, so that a test can rebuild the disk; only
//! tests ask for it, and it is theirs alone to read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{Detail, Edge, Kind};

/// Names the file to which each point that is passed adds a line of JSON.
pub const LOG: &str = "NODEAGENT_FAILPOINT_LOG";

/// Names the point at which the process ends: `NTH EDGE KIND SUBJECT`.
pub const KILL: &str = "NODEAGENT_FAILPOINT_KILL";

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// On which side of the change.
    pub edge: Edge,
    /// What is changed.
    pub kind: Kind,
    /// The path, the job or the request.
    pub subject: String,
    /// What is written, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// Where the file ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// The permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// The new name, or where the link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

impl Passed {
    fn new((edge, kind): (Edge, Kind), subject: String, detail: Detail<'_>) -> Passed {
        let bare = Passed {
            edge,
            kind,
            subject,
            bytes: None,
            length: None,
            mode: None,
            gid: None,
            to: None,
        };
        match detail {
            Detail::Nothing => bare,
            Detail::Bytes(bytes) => Passed { bytes: Some(STANDARD.encode(bytes)), ..bare },
            Detail::Length(length) => Passed { length: Some(length), ..bare },
            Detail::Mode(mode) => Passed { mode: Some(mode), ..bare },
            Detail::Group(gid) => Passed { gid: Some(gid), ..bare },
            Detail::To(path) => Passed { to: Some(path.display().to_string()), ..bare },
            Detail::Target(target) => Passed { to: Some(target.into()), ..bare },
        }
    }

    /// What is written.
    pub fn content(&self) -> Option<Vec<u8>> {
        self.bytes.as_ref().and_then(|text| STANDARD.decode(text).ok())
    }
}

struct Armed {
    log: Option<File>,
    kill: Option<Target>,
}

/// The point at which the process ends.
struct Target {
    edge: Edge,
    kind: Kind,
    subject: String,
    left: AtomicUsize,
}

pub(super) fn pass(point: (Edge, Kind), subject: fmt::Arguments<'_>, detail: Detail<'_>) {
    // One for the process: what would hand it down to every write would be there in a release.
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    if let Some(armed) = ARMED.get_or_init(Armed::from_environment) {
        armed.pass(point, subject.to_string(), detail);
    }
}

impl Armed {
    fn from_environment() -> Option<Armed> {
        let log = std::env::var_os(LOG).map(|path| {
            let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            opened.expect("a test names a file that can be written")
        });
        let kill = std::env::var(KILL).ok();
        let kill = kill.map(|text| Target::parse(&text).expect("a test names a point"));
        (log.is_some() || kill.is_some()).then_some(Armed { log, kill })
    }

    fn pass(&self, (edge, kind): (Edge, Kind), subject: String, detail: Detail<'_>) {
        let ends = self.kill.as_ref().is_some_and(|kill| kill.is_met((edge, kind), &subject));
        if let Some(mut log) = self.log.as_ref() {
            let passed = Passed::new((edge, kind), subject, detail);
            let mut line = serde_json::to_vec(&passed).expect("text and numbers");
            line.push(b'\n');
            log.write_all(&line).expect("the test's log takes a line");
        }
        if ends {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).ok();
        }
    }
}

impl Target {
    fn parse(text: &str) -> Option<Target> {
        let mut words = text.splitn(4, ' ');
        let nth: usize = words.next()?.parse().ok()?;
        let edge = Edge::from_str(words.next()?, false).ok()?;
        let kind = Kind::from_str(words.next()?, false).ok()?;
        let subject = words.next()?.to_owned();
        Some(Target { edge, kind, subject, left: AtomicUsize::new(nth) })
    }

    /// Whether this is the point, and the time at it that was named.
    fn is_met(&self, point: (Edge, Kind), subject: &str) -> bool {
        point == (self.edge, self.kind)
            && subject == self.subject
            && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

//! A `nodeagent bootstrap` that is under way, its journal followed from outside the machine: so
//! that a story can end it, or the machine, at the very event that it is about.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Controller, text};
use crate::node::PROGRAM;

/// Where the agent keeps the journal of its steps.
const JOURNAL: &str = "var/lib/nodeagent/journal";
/// Between two looks at the journal: what follows an event takes some milliseconds at least, a look
/// at a file of some kilobytes 20 µs.
const PAUSE: Duration = Duration::from_millis(1);
/// A run has bounds of its own, below this one.
const LIMIT: Duration = Duration::from_secs(600);

/// The run; it is killed when it is dropped.
#[derive(Debug)]
pub struct Underway {
    child: Child,
    journal: std::path::PathBuf,
    begun_at: usize,
    printed: File,
}

/// How a run ended, and what it printed and complained about.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// Both of its outputs.
    pub printed: String,
}

impl Controller {
    /// Begins `nodeagent bootstrap` with more arguments.
    pub fn begin_bootstrap(&self, arguments: &[&str]) -> Result<Underway, String> {
        let init = self.machine.init().ok_or("the machine is off")?.to_string();
        let journal = self.machine.root().join(JOURNAL);
        let begun_at = fs::metadata(&journal).map_or(0, |data| data.len());
        let printed = tempfile::tempfile().map_err(text)?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &init, "--all", "--", PROGRAM, "bootstrap"]).args(arguments);
        command.env_clear().stdin(Stdio::null());
        command.stdout(printed.try_clone().map_err(text)?);
        command.stderr(printed.try_clone().map_err(text)?);
        let child = command.spawn().map_err(text)?;
        let begun_at = usize::try_from(begun_at).map_err(text)?;
        Ok(Underway { child, journal, begun_at, printed })
    }

    /// The journal of the agent's steps, one value an entry.
    #[must_use]
    pub fn steps_journal(&self) -> Vec<Value> {
        let bytes = fs::read(self.machine.root().join(JOURNAL)).unwrap_or_default();
        entries(&bytes)
    }
}

impl Underway {
    /// Waits until this run has noted an event (`begun`, `done`) of a step.
    pub fn until(&mut self, event: &str, step: &str) -> Result<(), String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let bytes = fs::read(&self.journal).unwrap_or_default();
            let new = entries(bytes.get(self.begun_at..).unwrap_or_default());
            if new.iter().any(|entry| entry["event"] == event && entry["step"] == step) {
                return Ok(());
            }
            let ended = self.child.try_wait().map_err(text)?;
            if ended.is_some() || Instant::now() >= deadline {
                let printed = self.printed()?;
                return Err(format!(
                    "no `{event} {step}`; it ended: {ended:?}\n{printed}\n{new:?}"
                ));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Kills it with SIGKILL; an error where it had ended before.
    pub fn kill(mut self) -> Result<(), String> {
        kill(self.inside()?, Signal::SIGKILL).map_err(text)?;
        let ended = self.wait()?;
        match ended.status.signal() {
            Some(9) => Ok(()),
            _ => Err(format!("it was not killed: {}\n{}", ended.status, ended.printed)),
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<Ended, String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().map_err(text)? {
                return Ok(Ended { status, printed: self.printed()? });
            }
            if Instant::now() >= deadline {
                return Err(format!("not at its end in {LIMIT:?}:\n{}", self.printed()?));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What it has printed so far.
    pub fn printed(&mut self) -> Result<String, String> {
        let mut bytes = Vec::new();
        self.printed.rewind().map_err(text)?;
        self.printed.read_to_end(&mut bytes).map_err(text)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `nsenter` waits for the process that it has started in the machine.
    fn inside(&self) -> Result<Pid, String> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let first = children.map_err(text)?;
        let first = first.split_whitespace().next().ok_or("it has ended")?;
        Ok(Pid::from_raw(first.parse().map_err(text)?))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if let Ok(pid) = self.inside() {
            kill(pid, Signal::SIGKILL).ok();
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A torn line is none yet.
fn entries(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

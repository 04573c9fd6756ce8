//! One stage on which a story is told over and over: undisturbed, with the agent killed at a point,
//! and after a loss of power.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nodeagent::failpoint::{Edge, KILL, Kind, LOG, Passed};
use rig::stage::{Running, Stage};
use serde_json::{Value, json};

use super::disk::{Content, Disk};
use super::plots::{Crash, Plot, WISH, set_off};
use super::replay::Replay;
use super::shape::{self, Shape};
use crate::play::*;

const PAUSE: Duration = Duration::from_millis(10);

/// A story with its stage.
pub(super) struct Lane {
    pub plot: Plot,
    stage: Stage,
    begin: Disk,
    began: Option<String>,
    crash: Crash,
    runtime: tokio::runtime::Runtime,
}

/// A point of the log, the same on each stage and for each instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Point {
    pub edge: Edge,
    pub kind: Kind,
    pub subject: String,
    pub nth: usize,
}

/// How a story ended.
#[derive(Debug)]
pub(super) struct End {
    pub shape: Shape,
    /// Files in the making that nothing will clear.
    pub leftovers: Vec<String>,
    /// Generations in the archive.
    pub archived: usize,
    /// Whether Vault has noted the nonce that is on disk.
    pub nonce: bool,
    pub health: Value,
    /// Certificates of the server that Vault was asked for.
    pub asked: usize,
    /// Those that the budget counts.
    pub counted: usize,
    /// Generations of the server certificate that were published since.
    pub generations: usize,
    pub restarts: usize,
    pub reloads: usize,
}

/// A story that nobody disturbed.
pub(super) struct Whole {
    pub log: Vec<Passed>,
    /// How much of the log is of the verb that the kills come into.
    pub verb: usize,
    pub end: End,
    /// The instance that Vault knows the nonce of.
    instance: String,
}

impl End {
    /// What is not as at another end.
    pub(super) fn unlike(&self, other: &End) -> Vec<String> {
        let mut faults = shape::differences(&self.shape, &other.shape);
        if self.health != other.health {
            faults.push(format!("it is {}, not {}", self.health, other.health));
        }
        faults
    }

    /// What should not be, or not so often. A crash may cost a certificate that was asked for and
    /// not kept, and a reload that was not noted; never a second restart for a generation.
    pub(super) fn excess(&self, whole: &End) -> Vec<String> {
        let mut faults = Vec::new();
        let mut hold = |holds: bool, text: String| {
            if !holds {
                faults.push(text);
            }
        };
        hold(self.leftovers.is_empty(), format!("{:?} are left", self.leftovers));
        hold(self.archived <= 3, format!("{} generations are in the archive", self.archived));
        hold(self.nonce, "vault has noted another nonce than is on disk".into());
        hold(self.asked <= whole.asked + 1, format!("{} certificates were asked for", self.asked));
        hold(self.counted >= self.asked, format!("{} of {} count", self.counted, self.asked));
        let made = self.generations;
        hold(self.restarts <= made, format!("{} restarts for {made} generations", self.restarts));
        hold(self.reloads <= made + 1, format!("{} reloads for {made} generations", self.reloads));
        faults
    }
}

impl Lane {
    pub(super) fn set(plot: Plot) -> Lane {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let stage = runtime.block_on(stage(plot.options()));
        // Nobody boots as often as this.
        for quota in ["aws-login", "pki"] {
            let path = format!("sys/quotas/rate-limit/{quota}");
            runtime.block_on(change_entry(&stage, &path, &json!({ "rate": 100_000 })));
        }
        let begin = plot.prepare(&stage);
        let began = (!plot.boots()).then(|| serial(&stage));
        Lane { plot, stage, begin, began, crash: Crash::Kill, runtime }
    }

    /// The story as it is without a crash, with its log. What the log says of the disk is what is
    /// there, to the byte: nothing is written past it.
    pub(super) fn undisturbed(&mut self) -> Whole {
        let log = self.log_path();
        std::fs::remove_file(&log).ok();
        let asked = self.begin();
        let since = self.started();
        let mut first = self.start(self.plot.verb(), |command| {
            command.env(LOG, &log);
        });
        let mut verb = None;
        if self.plot == Plot::Renew {
            assert_eq!(first.wait(SOON), Ok(0));
            verb = Some(self.read_log().len());
            first = self.start(&["run"], |command| {
                command.env(LOG, &log);
            });
        }
        self.await_end(&mut first, &since, "undisturbed end");
        self.quit(first);
        let log = self.read_log();
        let mut replay = Replay::from(&self.begin, ids());
        log.iter().for_each(|passed| replay.pass(passed));
        let differing = replay.now().differences(&Disk::read(self.stage.root()));
        assert!(differing.is_empty(), "{:?} wrote past its points: {differing:#?}", self.plot);
        let end = self.end(asked);
        let verb = verb.unwrap_or(log.len());
        Whole { log, verb, end, instance: self.stage.instance.clone() }
    }

    /// The agent is killed at a point and started again; nothing where it never came there.
    pub(super) fn killed_at(&mut self, point: &Point) -> Option<End> {
        let asked = self.begin();
        let since = self.started();
        let named = self.named(point);
        let mut first = self.start(self.plot.verb(), |command| {
            command.env(KILL, &named);
        });
        let killed = self.await_death(&mut first, &since);
        drop(first);
        self.fits_at(point);
        if self.plot == Plot::Renew {
            let output = run_verb(&self.stage, self.plot.verb());
            assert!(output.status.success(), "{point:?}: {}", text_of(&output));
        }
        self.go_on(&format!("order after {point:?}"));
        killed.then(|| self.end(asked))
    }

    /// The machine comes up with a disk that a loss of power left, after so much of a story.
    pub(super) fn powered_on(&mut self, disk: &Disk, whole: &Whole, told: &[Passed]) -> End {
        let asks = |path: &str| {
            let subject = format!("POST /v1/{path}");
            let asked = told.iter().filter(|p| p.edge == Edge::Before && p.subject == subject);
            asked.count()
        };
        let mut disk = disk.clone();
        if self.plot.boots() && asks("auth/aws/login") == 0 {
            // Vault has not met this instance yet.
            self.stage.replace_node().expect("another instance");
            disk = disk.renamed(&whole.instance, &self.stage.instance);
        }
        // What was asked for before the loss counts too.
        let asked = issues(&self.stage) - asks(&format!("pki/sign/{SERVER}"));
        self.crash = Crash::Power;
        set_off(&self.stage);
        disk.lay(self.stage.root());
        self.stage.systemd.clear_calls();
        self.go_on("order after a loss of power");
        self.end(asked)
    }

    /// Puts everything back to where the story begins; gives the requests so far.
    fn begin(&mut self) -> usize {
        if self.plot == Plot::FirstBoot {
            self.stage.replace_node().expect("another instance");
        }
        self.clear_log();
        self.plot.set(&self.stage, &self.begin);
        self.stage.systemd.clear_calls();
        issues(&self.stage)
    }

    fn clear_log(&self) {
        self.stage.write("/agent.log", b"").expect("an empty log");
    }

    fn start(&self, verb: &[&str], change: impl FnOnce(&mut Command)) -> Running {
        if verb == ["run"] {
            return self.stage.run_with(change).expect("the agent starts");
        }
        let log = std::fs::OpenOptions::new().append(true).open(self.stage.path("/agent.log"));
        let log = log.expect("a log");
        let mut command = self.stage.command(verb);
        command.stdout(log.try_clone().expect("the log again")).stderr(log);
        change(&mut command);
        command.spawn().expect("the verb starts").into()
    }

    /// A run that nobody disturbs, to the end of the story.
    fn go_on(&mut self, what: &str) {
        self.clear_log();
        let since = self.started();
        let verb = if self.plot == Plot::Bootstrap { self.plot.verb() } else { &["run"] };
        let mut again = self.start(verb, |_| ());
        self.await_end(&mut again, &since, what);
        self.quit(again);
    }

    fn await_end(&self, running: &mut Running, since: &Value, what: &str) {
        let end = Instant::now() + SOON;
        let mut starting = !self.stage.kubelet.is_running() && self.plot != Plot::Bootstrap;
        loop {
            if self.is_over(since) {
                if !starting {
                    return;
                }
                // As the gate lets it.
                self.stage.start_kubelet().expect("the consumer starts");
                starting = false;
            }
            assert!(running.is_running(), "{}: it ended: {}", self.told(what), self.stage.log());
            assert!(Instant::now() < end, "{}", self.told(what));
            std::thread::sleep(PAUSE);
        }
    }

    /// Until the process has ended, by the kill or by itself, or the story is over; whether it was
    /// killed.
    fn await_death(&self, running: &mut Running, since: &Value) -> bool {
        let end = Instant::now() + SOON;
        while running.is_running() {
            if self.is_over(since) {
                return false;
            }
            assert!(Instant::now() < end, "{}", self.told("death or end"));
            std::thread::sleep(PAUSE);
        }
        match running.wait(SOON) {
            Ok(code) => {
                assert_eq!(code, 0, "{}", self.told("a kill"));
                false
            }
            Err(text) => {
                assert!(text.contains("SIGKILL"), "{text}");
                true
            }
        }
    }

    fn is_over(&self, since: &Value) -> bool {
        if self.plot == Plot::Bootstrap {
            return self.plot.is_over(&self.stage, None, self.crash);
        }
        let status = self.stage.status();
        let started = &status["agent"]["started"];
        if !started.is_string() || started == since {
            return false;
        }
        let down = !self.stage.kubelet.is_running();
        let serves = || self.stage.kubelet.serial() == Some(serial(&self.stage));
        let over = self.plot.is_over(&self.stage, self.began.as_deref(), self.crash);
        over && (down || serves())
    }

    fn told(&self, what: &str) -> String {
        let wish = self.stage.path(WISH).exists();
        let log = self.stage.log();
        let status = self.stage.status();
        let (state, calls) = (self.stage.systemd.state(KUBELET), self.stage.systemd.calls());
        let calls: Vec<_> =
            calls.iter().map(|c| format!("{} {} {}", c.at, c.method, c.argument)).collect();
        let unit = format!("{KUBELET} {state:?} after {}", calls.join("; "));
        format!("{:?}: no {what}; wish {wish}; {unit}\n{status:#}\nlog:\n{log}", self.plot)
    }

    fn quit(&self, running: Running) {
        match self.plot {
            Plot::Bootstrap => running.kill().expect("it waits for certificates"),
            _ => assert_eq!(running.stop(SOON), Ok(0)),
        }
    }

    fn started(&self) -> Value {
        self.stage.status()["agent"]["started"].clone()
    }

    /// What a consumer would read just now is a pair.
    fn fits_at(&self, point: &Point) {
        let current = self.stage.path(&format!("{PUBLISHED}/current"));
        if self.plot == Plot::Repair || !current.is_symlink() {
            return;
        }
        let read = |name: &str| std::fs::read_to_string(current.join(name)).unwrap_or_default();
        let fits = shape::fits(&read("cert.pem"), &read("key.pem"));
        assert_eq!(fits, Ok(()), "{:?} {point:?}", self.plot);
    }

    fn end(&self, asked: usize) -> End {
        let disk = Disk::read(self.stage.root());
        let mut shape = shape::shape(&self.stage, &disk);
        // A wish's directory goes with the boot.
        shape.retain(|name, _| !name.starts_with("/run"));
        End {
            shape,
            leftovers: shape::leftovers(&disk).into_iter().cloned().collect(),
            archived: shape::archived(&disk),
            nonce: self.plot == Plot::Bootstrap || self.nonce(&disk) == self.noted(),
            health: self.stage.status()["health"].clone(),
            asked: issues(&self.stage) - asked,
            counted: shape::counted(&disk) - shape::counted(&self.begin),
            generations: shape::newest(&disk) - shape::newest(&self.begin),
            restarts: self.stage.systemd.count("RestartUnit", KUBELET),
            reloads: self.stage.systemd.count("ReloadUnit", KUBELET),
        }
    }

    fn nonce(&self, disk: &Disk) -> String {
        let path = format!("/var/lib/nodeagent/nonce/aws/{}", self.stage.instance);
        match disk.0.get(&path).map(|entry| &entry.content) {
            Some(Content::File(bytes)) => String::from_utf8_lossy(bytes).trim().to_owned(),
            _ => "none".into(),
        }
    }

    /// The nonce that Vault has for this instance.
    fn noted(&self) -> String {
        let path = format!("auth/aws/identity-accesslist/{}", self.stage.instance);
        let admin = self.stage.admin();
        let read = self.runtime.block_on(admin.read(&path)).expect("vault answers");
        read.json["data"]["client_nonce"].as_str().unwrap_or_default().to_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.stage.path("/points")
    }

    /// The log, its paths from the root of the node.
    fn read_log(&self) -> Vec<Passed> {
        let root = self.stage.root().display().to_string();
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines = text.lines().map(|line| {
            let passed: Passed = serde_json::from_str(line).expect("a line of the log");
            let inside = |path: String| match path.strip_prefix(&root) {
                Some("") => "/".to_owned(),
                Some(rest) => rest.to_owned(),
                None => path,
            };
            Passed { subject: inside(passed.subject), to: passed.to.map(inside), ..passed }
        });
        lines.collect()
    }

    /// The points of a log.
    pub(super) fn points(&self, log: &[Passed]) -> Vec<Point> {
        let mut seen = std::collections::BTreeMap::new();
        let points = log.iter().map(|passed| {
            let subject = passed.subject.replace(&self.stage.instance, "INSTANCE");
            let (edge, kind) = (passed.edge, passed.kind);
            let nth = seen.entry((edge, kind, subject.clone())).or_insert(0);
            *nth += 1;
            Point { edge, kind, subject, nth: *nth }
        });
        points.collect()
    }

    /// A point as the agent of this stage is told it.
    fn named(&self, point: &Point) -> String {
        use clap::ValueEnum;
        let word = |value: Option<clap::builder::PossibleValue>| {
            value.expect("none is hidden").get_name().to_owned()
        };
        let (edge, kind) =
            (word(point.edge.to_possible_value()), word(point.kind.to_possible_value()));
        let subject = point.subject.replace("INSTANCE", &self.stage.instance);
        let root = if subject.starts_with('/') {
            self.stage.root().display().to_string()
        } else {
            String::new()
        };
        format!("{} {edge} {kind} {root}{subject}", point.nth)
    }

    /// The disk that the story begins with.
    pub(super) fn disk(&self) -> &Disk {
        &self.begin
    }
}

/// Who owns what is made here.
pub(super) fn ids() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

//! What was done, appended and fsynced before and after each step: one JSON line an entry.
//!
//! Facts decide what is to be done next. The journal only remembers what no look can tell: in which
//! style the control plane was raised, which assets were applied, and how far a run had come.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::step::Step;
use crate::config::plane::Style;
use crate::error::{Code, Error, Result, said};
use crate::host::files::Root;

/// Where the journal is kept.
pub const PATH: &str = "/var/lib/nodeagent/journal";

/// A journal of this size has seen ten thousand steps; it is begun anew with what it knows.
const COMPACT: usize = 1 << 20;

/// A journal larger than this is none.
const LIMIT: usize = 8 << 20;

/// Why a run was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// To do what is not done yet.
    Raise,
    /// A person asked for a recovery: what former runs did is not relied on.
    Recover,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was made.
    pub at: Timestamp,
    /// The epoch that it belongs to.
    pub epoch: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run was begun that has the whole list before it.
    Opened {
        /// Why.
        mode: Mode,
        /// For which style.
        style: Style,
    },
    /// A step was begun.
    Begun {
        /// Which.
        step: Step,
    },
    /// A step was done.
    Done {
        /// Which.
        step: Step,
    },
    /// A step failed.
    Failed {
        /// Which.
        step: Step,
        /// Why.
        text: String,
    },
    /// Every step was satisfied.
    Completed,
    /// A set of assets was applied to its end.
    AssetsApplied {
        /// Its digest.
        digest: String,
    },
}

/// What the journal knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// The epoch in progress; none has begun at 0.
    pub epoch: u64,
    /// Why it was begun.
    pub mode: Option<Mode>,
    /// The style that the control plane was raised in.
    pub style: Option<Style>,
    /// The step that was begun last.
    pub step: Option<Step>,
    /// When it was begun.
    pub since: Option<Timestamp>,
    /// Whether the epoch has come to its end.
    pub completed: bool,
    /// The assets that were applied last, and when.
    pub assets: Option<(String, Timestamp)>,
    /// The assets that were applied in this epoch.
    pub assets_now: Option<String>,
}

impl Journal {
    /// Reads the journal. A torn last line is what a power cut leaves, and was not done; a line
    /// that cannot be read elsewhere is an error, because what it said must not be guessed.
    pub fn load(root: &Root) -> Result<Journal> {
        let bytes = root.read_optional(Path::new(PATH), LIMIT)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut journal = Journal::default();
        for (index, line) in whole.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let entry: Entry = serde_json::from_str(line).map_err(|error| {
                Error::new(Code::Disk, format!("line {}: {}", index + 1, said(&error)))
                    .at(PATH)
                    .advise(format!(
                        "look at it; where it cannot be mended, move it away and run `nodeagent \
                         bootstrap` once etcd is known to be healthy: mv {PATH} {PATH}.away"
                    ))
            })?;
            journal.take(&entry);
        }
        Ok(journal)
    }

    fn take(&mut self, entry: &Entry) {
        self.epoch = self.epoch.max(entry.epoch);
        match &entry.event {
            Event::Opened { mode, style } => {
                (self.mode, self.style) = (Some(*mode), Some(*style));
                (self.step, self.since) = (None, Some(entry.at));
                (self.completed, self.assets_now) = (false, None);
            }
            Event::Begun { step } => {
                (self.step, self.since) = (Some(*step), Some(entry.at));
                self.completed = false;
                // The final components are lost, and maybe because their DaemonSets are.
                if *step == Step::PlaceTemporaryManifests {
                    self.assets_now = None;
                }
            }
            Event::Done { .. } | Event::Failed { .. } => {}
            Event::Completed => {
                (self.completed, self.step, self.since) = (true, None, Some(entry.at));
            }
            Event::AssetsApplied { digest } => {
                self.assets = Some((digest.clone(), entry.at));
                self.assets_now = Some(digest.clone());
            }
        }
    }

    /// Appends an event, durable before anything follows from it.
    pub fn note(&mut self, root: &Root, now: Timestamp, event: Event) -> Result<()> {
        if matches!(event, Event::Opened { .. }) {
            self.epoch = self.epoch.saturating_add(1);
        }
        let entry = Entry { at: now, epoch: self.epoch, event };
        root.append(Path::new(PATH), &line(&entry)?, 0o600)?;
        self.take(&entry);
        Ok(())
    }

    /// A journal that has grown too long is begun anew with what it knows; each run begins so.
    pub fn compact(&self, root: &Root, now: Timestamp) -> Result<()> {
        let size = root.stat(Path::new(PATH))?.map_or(0, |stat| stat.size);
        if size < COMPACT as u64 {
            return Ok(());
        }
        let mut text = Vec::new();
        let mut keep = |at, event| -> Result<()> {
            text.extend(line(&Entry { at, epoch: self.epoch, event })?);
            Ok(())
        };
        let applied = |digest: &String| Event::AssetsApplied { digest: digest.clone() };
        if let Some((digest, at)) = self.assets.as_ref().filter(|_| self.assets_now.is_none()) {
            keep(*at, applied(digest))?;
        }
        if let (Some(style), Some(mode)) = (self.style, self.mode) {
            keep(now, Event::Opened { mode, style })?;
        }
        if let (Some(_), Some((digest, at))) = (&self.assets_now, &self.assets) {
            keep(*at, applied(digest))?;
        }
        if self.completed {
            keep(now, Event::Completed)?;
        }
        root.write_atomic(Path::new(PATH), &text, 0o600, None)
    }
}

fn line(entry: &Entry) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(entry)
        .map_err(|error| Error::new(Code::Bug, error.to_string()).at(PATH))?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir_all(dir.path().join("var/lib/nodeagent")).expect("its directory");
        let root = Root::new(dir.path());
        (dir, root)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("an instant")
    }

    fn opened(mode: Mode) -> Event {
        Event::Opened { mode, style: Style::Static }
    }

    #[test]
    fn what_was_noted_is_known_at_the_next_start() {
        let (_dir, root) = root();
        let mut journal = Journal::load(&root).expect("an empty one");
        assert_eq!(journal, Journal::default());
        journal.note(&root, at(0), opened(Mode::Raise)).expect("noted");
        let digest = "d".to_string();
        journal.note(&root, at(2), Event::AssetsApplied { digest }).expect("noted");
        journal.note(&root, at(3), Event::Begun { step: Step::AwaitControlPlane }).expect("noted");
        let again = Journal::load(&root).expect("it reads");
        assert_eq!(again, journal);
        assert_eq!((again.epoch, again.completed), (1, false));
        assert_eq!(again.step, Some(Step::AwaitControlPlane));
    }

    #[test]
    fn a_recovery_opens_an_epoch_that_relies_on_no_former_assets() {
        let (_dir, root) = root();
        let mut journal = Journal::default();
        journal.note(&root, at(0), opened(Mode::Raise)).expect("noted");
        let digest = "d".to_string();
        journal.note(&root, at(2), Event::AssetsApplied { digest }).expect("noted");
        journal.note(&root, at(3), Event::Completed).expect("noted");
        journal.note(&root, at(4), opened(Mode::Recover)).expect("noted");
        assert_eq!((journal.epoch, journal.completed), (2, false));
        assert_eq!(journal.assets_now, None);
        assert_eq!(journal.assets, Some(("d".into(), at(2))));
    }

    #[test]
    fn where_temporary_pods_are_placed_again_the_assets_are_looked_at_again() {
        let (_dir, root) = root();
        let mut journal = Journal::default();
        journal.note(&root, at(0), opened(Mode::Raise)).expect("noted");
        let digest = "d".to_string();
        journal.note(&root, at(2), Event::AssetsApplied { digest }).expect("noted");
        let step = Step::PlaceTemporaryManifests;
        journal.note(&root, at(3), Event::Begun { step }).expect("noted");
        assert_eq!((journal.assets_now, journal.assets), (None, Some(("d".into(), at(2)))));
    }

    #[test]
    fn a_torn_last_line_was_not_done_and_a_broken_one_before_it_is_told_with_its_number() {
        let (dir, root) = root();
        let mut journal = Journal::default();
        journal.note(&root, at(0), opened(Mode::Raise)).expect("noted");
        let file = dir.path().join("var/lib/nodeagent/journal");
        let whole = std::fs::read_to_string(&file).expect("it is there");
        std::fs::write(&file, format!("{whole}{{\"at\":\"2026")).expect("torn");
        let torn = Journal::load(&root).expect("it reads");
        assert_eq!(torn.epoch, 1);
        std::fs::write(&file, format!("{whole}nonsense\n{whole}")).expect("broken");
        let error = Journal::load(&root).expect_err("it is refused");
        assert!(format!("{error:#}").contains("line 2"), "{error:#}");
    }

    #[test]
    fn a_broken_line_is_told_in_one_short_line_whatever_is_in_it() {
        let (dir, root) = root();
        let file = dir.path().join("var/lib/nodeagent/journal");
        let odd = "\\u001b[2J".repeat(1000);
        let entry =
            format!("{{\"at\":\"2026-11-29T12:00:00Z\",\"epoch\":1,\"event\":\"{odd}\"}}\n");
        std::fs::write(&file, entry).expect("written");
        let error = format!("{:#}", Journal::load(&root).expect_err("it is refused"));
        assert!(error.starts_with("/var/lib/nodeagent/journal: line 1: "), "{error}");
        assert!(error.chars().count() < 400 && !error.contains(char::is_control), "{error:?}");
    }

    #[test]
    fn the_last_epoch_there_can_be_is_not_followed_by_the_first() {
        let (dir, root) = root();
        let file = dir.path().join("var/lib/nodeagent/journal");
        let last = u64::MAX;
        let entry = format!(
            "{{\"at\":\"2026-11-29T12:00:00Z\",\"epoch\":{last},\"event\":\"completed\"}}\n"
        );
        std::fs::write(&file, entry).expect("written");
        let mut journal = Journal::load(&root).expect("it reads");
        journal.note(&root, at(0), opened(Mode::Raise)).expect("noted");
        assert_eq!(journal.epoch, last);
    }

    #[test]
    fn what_follows_a_torn_line_is_read_by_itself() {
        let (dir, root) = root();
        let file = dir.path().join("var/lib/nodeagent/journal");
        std::fs::write(&file, "{\"at\":\"2026").expect("torn");
        let mut journal = Journal::load(&root).expect("it reads");
        journal.note(&root, at(0), opened(Mode::Raise)).expect("noted");
        assert_eq!(Journal::load(&root).expect("it reads").epoch, 1);
    }

    #[test]
    fn a_long_journal_is_begun_anew_with_what_it_knows() {
        let (dir, root) = root();
        let mut journal = Journal::default();
        journal.note(&root, at(0), opened(Mode::Raise)).expect("noted");
        let digest = "d".to_string();
        journal.note(&root, at(1), Event::AssetsApplied { digest }).expect("noted");
        let file = dir.path().join("var/lib/nodeagent/journal");
        let blank = vec![b'\n'; COMPACT];
        let mut long = std::fs::read(&file).expect("it is there");
        long.extend(blank);
        std::fs::write(&file, long).expect("long");
        journal.note(&root, at(2), Event::Completed).expect("noted");
        journal.compact(&root, at(3)).expect("begun anew");
        assert!(std::fs::metadata(&file).expect("it is there").len() < 1000);
        let again = Journal::load(&root).expect("it reads");
        assert_eq!(Journal { since: journal.since, ..again }, journal);
        // In a new epoch the assets of the one before are known, and not relied on.
        journal.note(&root, at(4), opened(Mode::Recover)).expect("noted");
        let mut long = std::fs::read(&file).expect("it is there");
        long.extend(vec![b'\n'; COMPACT]);
        std::fs::write(&file, long).expect("long");
        journal.compact(&root, at(5)).expect("begun anew");
        let again = Journal::load(&root).expect("it reads");
        assert_eq!((again.epoch, again.completed, &again.assets_now), (2, false, &None));
        assert_eq!(again.assets, Some(("d".into(), at(1))));
    }
}

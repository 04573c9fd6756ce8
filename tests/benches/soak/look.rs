//! One look at an agent that lives fast: what its process holds, and what it has on disk.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use nodeagent::duty::certs::publish::TOP;
use nodeagent::duty::certs::store::ARCHIVE;
use nodeagent::duty::records;
use rig::stage::Stage;

use crate::footprint::Sample;

/// What there was.
#[derive(Clone, Debug)]
pub(super) struct Look {
    at: Duration,
    /// Resident memory, file pages and all.
    pub(super) rss_kib: usize,
    /// Resident memory that is in no file.
    pub(super) anonymous_kib: usize,
    /// Descriptors.
    pub(super) fds: usize,
    /// Threads.
    pub(super) threads: usize,
    /// The most directories of one published certificate.
    pub(super) generations: usize,
    /// The most directories of one certificate in the archive.
    pub(super) archived: usize,
    /// Files and links below the agent's own directories.
    pub(super) files: usize,
    /// Bytes of its records.
    pub(super) records: usize,
    log_lines: usize,
}

impl Look {
    /// Looks; `at` is when.
    pub(super) fn at(stage: &Stage, pid: u32, at: Duration) -> Result<Look, String> {
        let sample = Sample::of(pid)?;
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|e| e.to_string())?.count();
        let consumers = directories(&stage.path(TOP)).into_iter();
        let published = consumers.flat_map(|consumer| {
            let consumer = stage.path(TOP).join(consumer);
            directories(&consumer).into_iter().map(move |name| consumer.join(name))
        });
        let archives = directories(&stage.path(ARCHIVE));
        let archives = archives.into_iter().map(|name| stage.path(ARCHIVE).join(name));
        let most = |all: &mut dyn Iterator<Item = std::path::PathBuf>| {
            all.map(|directory| directories(&directory).len()).max().unwrap_or_default()
        };
        let own = [TOP, "/var/lib/nodeagent", "/run/nodeagent"];
        Ok(Look {
            at,
            rss_kib: sample.rss_kib as usize,
            anonymous_kib: sample.anonymous_kib as usize,
            fds,
            threads: sample.threads as usize,
            generations: most(&mut published.into_iter()),
            archived: most(&mut archives.into_iter()),
            files: own.iter().map(|path| files(&stage.path(path))).sum(),
            records: stage.read(records::PATH).len(),
            log_lines: lines(stage),
        })
    }

    /// When it was, in hours.
    pub(super) fn hours(&self) -> f64 {
        self.at.as_secs_f64() / 3600.0
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Look { rss_kib, anonymous_kib, fds, threads, .. } = self;
        let Look { generations, archived, files, records, log_lines, .. } = self;
        write!(
            f,
            "{:.0}s rss_kib={rss_kib} anonymous_kib={anonymous_kib} fds={fds} threads={threads} \
             generations={generations} archived={archived} files={files} records={records} \
             log_lines={log_lines}",
            self.at.as_secs_f64()
        )
    }
}

/// How many lines the agent has logged.
pub(super) fn lines(stage: &Stage) -> usize {
    stage.log().lines().count()
}

/// The names of the directories in a directory, those in the making too.
pub(super) fn directories(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// How many files and links there are below a directory; what vanishes meanwhile is not there.
fn files(path: &Path) -> usize {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let count = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        Ok(_) => 1,
        Err(_) => 0,
    };
    entries.map(count).sum()
}

//! What the targets share: a root directory to read files from, a server that gives the answers
//! they make up, and the promises that hold for every text a person is shown.

pub mod server;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use jiff::Timestamp;
use nodeagent::error::Error;
use nodeagent::host::files::Root;

/// The one instant of all targets: what is found is found again.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_795_953_600).expect("2026-11-29T12:00:00Z")
}

/// A private root directory. It lies in `TMPDIR`, which tests/fuzz/run makes in memory and removes.
pub struct Stage {
    /// Where all paths of the agent start.
    pub root: Root,
    directory: PathBuf,
}

impl Stage {
    /// An empty root with these directories.
    pub fn new(directories: &[&str]) -> Stage {
        let directory = env::temp_dir().join(format!("nodeagent-fuzz-{}", process::id()));
        let stage = Stage { root: Root::new(&directory), directory };
        for path in directories {
            fs::create_dir_all(stage.path(path)).expect("a directory");
        }
        stage
    }

    /// Where a path of the agent is on this machine.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.join(path.trim_start_matches('/'))
    }

    /// Puts a file in place.
    pub fn write(&self, path: &str, bytes: &[u8]) {
        fs::write(self.path(path), bytes).expect("a file");
    }

    /// What a file holds; nothing where there is none.
    pub fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_default()
    }

    /// Removes all files of a directory.
    pub fn empty(&self, path: &str) {
        for entry in fs::read_dir(self.path(path)).expect("a directory") {
            fs::remove_file(entry.expect("an entry").path()).expect("a file");
        }
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, path: &str) {
        let path: &Path = &self.path(path);
        if path.exists() {
            fs::remove_file(path).expect("a file");
        }
    }
}

/// One line that a terminal and a log can show: no control characters, and not more than so many
/// letters.
pub fn assert_line(what: &str, text: &str, limit: usize) {
    assert!(!text.contains(char::is_control), "{what} is not one plain line: {text:?}");
    assert!(text.chars().count() <= limit, "{what} is longer than {limit} letters: {text:?}");
}

/// The same of all that an error tells: its frames, and its advice.
pub fn assert_error(error: &Error, limit: usize) {
    assert_line("an error", &format!("{error:#}"), limit);
    assert_line("an advice", error.advice().unwrap_or_default(), limit);
}

/// Nothing of a secret as long as `window` letters stands in what is shown.
pub fn assert_hides(secret: &str, window: usize, shown: &str) {
    let letters: Vec<char> = secret.chars().collect();
    for part in letters.windows(window) {
        let part: String = part.iter().collect();
        assert!(!shown.contains(&part), "{part:?} of a secret is shown: {shown:?}");
    }
}

/// The parts of an input of several files: a line `== HEAD` begins one. What stands before the
/// first has the head that is given.
pub fn sections<'a>(bytes: &'a [u8], first: &str) -> Vec<(String, &'a [u8])> {
    let mut found = Vec::new();
    let (mut head, mut begin, mut at) = (first.to_owned(), 0, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if let Some(next) = line.strip_prefix(b"== ") {
            if at > begin {
                found.push((head, &bytes[begin..at]));
            }
            head = String::from_utf8_lossy(next).trim().to_owned();
            begin = at + line.len();
        }
        at += line.len();
    }
    found.push((head, &bytes[begin..]));
    found.truncate(8);
    found
}

/// A seed that must not be committed: it is made anew in the directory that tests/fuzz/run names.
pub fn seed(name: &str, bytes: &[u8]) {
    if let Some(directory) = env::var_os("NODEAGENT_FUZZ_SEEDS") {
        fs::write(Path::new(&directory).join(name), bytes).expect("a seed");
    }
}

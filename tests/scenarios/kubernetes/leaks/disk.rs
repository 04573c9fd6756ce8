//! Every file that has been written to on a machine since a story began, on its disk and in its
//! memory file systems, whoever may read it: which secrets it holds, and whether it is a dump.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rig::clock::ModelClock;
use rig::controllers::Controller;

use crate::scan::{Scanner, Secrets};

/// What is no file that somebody has written. /dev/shm is searched for itself.
const NO_FILES: [&str; 3] = ["/dev", "/proc", "/sys"];
/// The journal and the log of etcd have files of 64 MiB.
const LARGEST: u64 = 256 << 20;
/// The kernel's clock of files is behind the other by a tick at most.
const COARSE: i128 = 20_000_000;
/// The type of an ELF file that is a dump of memory, and where it stands.
const DUMP: (usize, [u8; 2]) = (16, [4, 0]);

/// The disk, from an instant on. No file can hold a secret of the story and have been changed
/// before: the kernel sets the time of a change, and nobody else does.
#[derive(Debug)]
pub(super) struct Disk {
    since: Timestamp,
}

/// Where what was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The secret, the path, and whether others may read it.
    secrets: Vec<(String, String, bool)>,
    /// Files that are dumps of memory.
    pub(super) dumps: Vec<String>,
}

impl Disk {
    /// From now on.
    pub(super) fn since_now() -> Disk {
        Disk { since: ModelClock::real().now() }
    }

    /// Searches everything that was changed since then.
    pub(super) fn search(&self, node: &Controller, secrets: &Secrets) -> Found {
        let init = node.machine.init().expect("it runs");
        let root = PathBuf::from(format!("/proc/{init}/root"));
        let mut search = Search {
            since: self.since.as_nanosecond() - COARSE,
            scanner: secrets.scanner(),
            found: Found::default(),
            searched: (0, 0),
        };
        for top in ["", "/dev/shm"] {
            search.walk(&root, top, true);
        }
        let (files, bytes) = search.searched;
        println!("FIGURE leaks_files={files} leaks_files_mib={}", bytes >> 20);
        search.found
    }
}

struct Search {
    since: i128,
    scanner: Scanner,
    found: Found,
    searched: (usize, u64),
}

impl Search {
    /// `open` is whether others get as far as here.
    fn walk(&mut self, root: &Path, inside: &str, open: bool) {
        let directory = root.join(inside.trim_start_matches('/'));
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = format!("{inside}/{}", entry.file_name().to_string_lossy());
            let Ok(data) = entry.metadata() else { continue };
            if data.is_dir() && !NO_FILES.contains(&path.as_str()) {
                self.walk(root, &path, open && data.mode() & 0o001 != 0);
            } else if data.is_file() && changed(&data) >= self.since {
                self.file(&entry.path(), path, open && data.mode() & 0o004 != 0);
            }
        }
    }

    fn file(&mut self, file: &Path, path: String, open: bool) {
        let size = fs::metadata(file).map_or(0, |data| data.len());
        assert!(size <= LARGEST, "{path} has {size} bytes");
        let Ok(bytes) = fs::read(file) else { return };
        self.searched.0 += 1;
        self.searched.1 += bytes.len() as u64;
        for what in self.scanner.find(&bytes) {
            self.found.secrets.push((what.to_owned(), path.clone(), open));
        }
        let kind = bytes.get(DUMP.0..DUMP.0 + DUMP.1.len());
        if bytes.starts_with(b"\x7fELF") && kind == Some(&DUMP.1) {
            self.found.dumps.push(path);
        }
    }
}

fn changed(data: &fs::Metadata) -> i128 {
    i128::from(data.ctime()) * 1_000_000_000 + i128::from(data.ctime_nsec())
}

impl Found {
    /// What is not in the places where it is kept, or is for others to read there.
    pub(super) fn astray(&self, kept: &[&str]) -> Vec<String> {
        let all = self.secrets.iter();
        let astray = all.filter(|(_, path, open)| *open || !kept.iter().any(|k| is_in(path, k)));
        astray
            .map(|(what, path, open)| {
                let whose = if *open { ", for everybody" } else { "" };
                format!("the {what} is in {path}{whose}")
            })
            .collect()
    }

    /// Whether anything was found there.
    pub(super) fn is_in(&self, place: &str) -> bool {
        self.secrets.iter().any(|(_, path, _)| is_in(path, place))
    }
}

/// A place is a file, or with a slash at its end a directory.
fn is_in(path: &str, place: &str) -> bool {
    path == place || place.ends_with('/') && path.starts_with(place)
}

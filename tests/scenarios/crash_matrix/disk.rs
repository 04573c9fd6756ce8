//! What a node has on its disk: read, laid down again, and compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

/// What the agent writes below. The configuration is laid down once and stays.
const TOPS: [&str; 3] = ["/var", "/run", "/etc/kubernetes"];

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Content {
    Directory,
    File(Vec<u8>),
    Link(String),
}

/// One name on the disk.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub content: Content,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Every name that the agent may have written, by its path on the node.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Disk(pub BTreeMap<String, Entry>);

impl Disk {
    /// What is there below the root of a node.
    pub(super) fn read(root: &Path) -> Disk {
        let mut found = BTreeMap::new();
        for top in TOPS {
            collect(root, top, &mut found);
        }
        Disk(found)
    }

    /// Puts this in place of what is there.
    pub(super) fn lay(&self, root: &Path) {
        for top in TOPS {
            match fs::remove_dir_all(real(root, top)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    panic!("{top}: {error}")
                }
                _ => {}
            }
        }
        fs::create_dir_all(real(root, "/etc")).expect("a directory");
        // A path sorts before those below it.
        for (path, entry) in &self.0 {
            let full = real(root, path);
            match &entry.content {
                Content::Directory => fs::create_dir(&full).expect("a directory"),
                Content::File(bytes) => fs::write(&full, bytes).expect("a file"),
                Content::Link(target) => {
                    symlink(target, &full).expect("a link");
                    continue;
                }
            }
            let metadata = fs::metadata(&full).expect("it was made");
            if (metadata.uid(), metadata.gid()) != (entry.uid, entry.gid) {
                chown(&full, Some(entry.uid), Some(entry.gid)).expect("only root has others");
            }
            let mode = fs::Permissions::from_mode(entry.mode);
            fs::set_permissions(&full, mode).expect("the mode is set");
        }
    }

    /// The same after a loss of power: what lies in memory is gone.
    pub(super) fn without_memory(mut self) -> Disk {
        self.0.retain(|path, _| !path.starts_with("/run"));
        self
    }

    /// The same with a text in place of another, in names and contents.
    pub(super) fn renamed(&self, from: &str, to: &str) -> Disk {
        let entries = self.0.iter().map(|(path, entry)| {
            let content = match &entry.content {
                Content::File(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => Content::File(text.replace(from, to).into_bytes()),
                    Err(_) => entry.content.clone(),
                },
                other => other.clone(),
            };
            (path.replace(from, to), Entry { content, ..entry.clone() })
        });
        Disk(entries.collect())
    }

    /// Where two disks differ, for people; nothing where they do not.
    pub(super) fn differences(&self, other: &Disk) -> Vec<String> {
        let mut found = Vec::new();
        for path in self.0.keys().chain(other.0.keys().filter(|path| !self.0.contains_key(*path))) {
            let (one, two) = (self.0.get(path), other.0.get(path));
            if one != two {
                found.push(format!("{path}: {} or {}", told(one), told(two)));
            }
        }
        found
    }
}

/// Keys are on these disks: sizes are told, contents are not.
fn told(entry: Option<&Entry>) -> String {
    let Some(entry) = entry else { return "nothing".into() };
    let what = match &entry.content {
        Content::Directory => "a directory".to_owned(),
        Content::File(bytes) => format!("{} bytes", bytes.len()),
        Content::Link(target) => format!("a link to {target}"),
    };
    format!("{what} {:o} {}:{}", entry.mode, entry.uid, entry.gid)
}

fn real(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn collect(root: &Path, path: &str, found: &mut BTreeMap<String, Entry>) {
    let full = real(root, path);
    let Ok(metadata) = fs::symlink_metadata(&full) else { return };
    let content = if metadata.is_dir() {
        for entry in fs::read_dir(&full).expect("a directory").flatten() {
            let name = entry.file_name().into_string().expect("a name of ours");
            collect(root, &format!("{path}/{name}"), found);
        }
        Content::Directory
    } else if metadata.is_symlink() {
        Content::Link(fs::read_link(&full).expect("a link").display().to_string())
    } else {
        Content::File(fs::read(&full).expect("a file"))
    };
    // The kernel gives links a mode that nobody can change.
    let mode = if metadata.is_symlink() { 0o777 } else { metadata.permissions().mode() & 0o7777 };
    let entry = Entry { content, mode, uid: metadata.uid(), gid: metadata.gid() };
    found.insert(path.to_owned(), entry);
}

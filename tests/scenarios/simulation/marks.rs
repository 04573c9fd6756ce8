//! Whether a file was changed since it was looked at last, by what the kernel notes of it. Most of
//! what a node does in foul weather changes no file; so nothing is read and verified again there.
//! The agent gives each content an inode of its own, and what the world tears has another size: so
//! a change is seen even where the kernel counts its time in whole ticks.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the kernel notes of a name: links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    inode: u64,
    size: u64,
    changed: (i64, i64),
    /// Kind and permissions, user and group.
    access: (u32, u32, u32),
}

/// The names below a directory and their marks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks(Vec<(String, Option<Mark>)>);

/// The mark of a name; none where there is none.
pub(super) fn mark(path: &Path) -> Option<Mark> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some(Mark {
        inode: found.ino(),
        size: found.size(),
        changed: (found.ctime(), found.ctime_nsec()),
        access: (found.mode(), found.uid(), found.gid()),
    })
}

impl Marks {
    /// Of these names.
    pub(super) fn of(paths: &[&Path]) -> Marks {
        Marks(paths.iter().map(|path| (String::new(), mark(path))).collect())
    }

    /// Of a directory, its entries, and the entries of those.
    pub(super) fn tree(dir: &Path) -> Marks {
        let mut marks = Marks(vec![(String::new(), mark(dir))]);
        marks.add(dir, "");
        for (name, found) in marks.0.clone() {
            if found.is_some_and(|found| found.is_dir()) && !name.is_empty() {
                marks.add(&dir.join(&name), &format!("{name}/"));
            }
        }
        marks.0.sort_by(|a, b| a.0.cmp(&b.0));
        marks
    }

    /// How many entries of the directory itself have a number for a name, or are in the making.
    pub(super) fn numbered(&self) -> usize {
        let own = self.0.iter().map(|(name, _)| name).filter(|name| !name.contains('/'));
        own.filter(|name| name.trim_start_matches('.').starts_with('0')).count()
    }

    fn add(&mut self, dir: &Path, prefix: &str) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            self.0.push((name, mark(&entry.path())));
        }
    }
}

impl Mark {
    fn is_dir(&self) -> bool {
        self.access.0 & 0o170_000 == 0o040_000
    }
}

/// What was made of files, for as long as they do not change.
#[derive(Debug)]
pub(super) struct Memo<V>(Option<(Marks, V)>);

impl<V> Default for Memo<V> {
    fn default() -> Memo<V> {
        Memo(None)
    }
}

impl<V: Clone> Memo<V> {
    /// What was made of them while they had these marks.
    pub(super) fn get(&self, marks: &Marks) -> Option<V> {
        self.0.as_ref().filter(|(seen, _)| seen == marks).map(|(_, made)| made.clone())
    }

    /// Made now, of files with these marks.
    pub(super) fn keep(&mut self, marks: Marks, made: V) -> V {
        self.0 = Some((marks, made.clone()));
        made
    }

    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

#[test]
fn a_change_of_a_file_a_link_or_a_name_changes_the_marks() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("0001")).expect("a directory");
    std::fs::write(path("0001/cert.pem"), "one").expect("a file");
    std::os::unix::fs::symlink("0001", path("current")).expect("a link");
    let mut before = Marks::tree(dir.path());
    assert_eq!((before.numbered(), &before), (1, &Marks::tree(dir.path())));
    let mut changes = |what: &str, change: &dyn Fn()| {
        change();
        let after = Marks::tree(dir.path());
        assert_ne!(before, after, "{what}");
        before = after;
    };
    changes("a file torn", &|| std::fs::write(path("0001/cert.pem"), "o").expect("a file"));
    changes("a file replaced", &|| {
        std::fs::write(path("0001/new"), "p").expect("a file");
        std::fs::rename(path("0001/new"), path("0001/cert.pem")).expect("a rename");
    });
    changes("a generation", &|| std::fs::create_dir(path("0002")).expect("a directory"));
    changes("a link", &|| {
        std::os::unix::fs::symlink("0002", path("new")).expect("a link");
        std::fs::rename(path("new"), path("current")).expect("a rename");
    });
    changes("a file gone", &|| std::fs::remove_file(path("0001/cert.pem")).expect("a file"));
}

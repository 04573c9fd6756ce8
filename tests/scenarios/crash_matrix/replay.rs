//! A disk rebuilt from the log of points, as it may be after a loss of power at any of them.
//!
//! A name is durable once its directory was fsynced, a file's content, mode and group once the file
//! was; a directory's own name belongs to the directory above it. Of what was not fsynced POSIX
//! promises nothing, so each disk that is allowed is tried: nothing of it survived; the names did
//! and the contents did not, or did in half; the names of one directory did and those of the others
//! did not, and the other way round; all of it did, which is a kill.

use std::collections::BTreeMap;

use nodeagent::failpoint::{Edge, Kind, Passed};

use super::disk::{Content, Disk, Entry};

/// What can survive of contents that were not fsynced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    None,
    Half,
    All,
}

/// Attributes that an fsync of the file makes durable.
#[derive(Clone, Copy)]
struct Attributes {
    mode: u32,
    gid: u32,
}

enum Body {
    Directory { now: BTreeMap<String, usize>, durable: BTreeMap<String, usize> },
    File { now: Vec<u8>, durable: Vec<u8> },
    Link(String),
}

struct Inode {
    body: Body,
    uid: u32,
    now: Attributes,
    durable: Attributes,
}

/// A disk with what is durable of it.
pub(super) struct Replay {
    inodes: Vec<Inode>,
    /// The change that was announced last.
    announced: Option<Passed>,
    ids: (u32, u32),
}

impl Replay {
    /// Begins with a disk that is durable; `ids` own what is made.
    pub(super) fn from(disk: &Disk, ids: (u32, u32)) -> Replay {
        let mut replay = Replay { inodes: Vec::new(), announced: None, ids };
        replay.inode(Body::Directory { now: BTreeMap::new(), durable: BTreeMap::new() }, 0o755);
        for top in ["/var", "/run", "/etc", "/etc/kubernetes"] {
            if top == "/etc" || disk.0.contains_key(top) {
                replay.make_dir(top, 0o755);
            }
        }
        for (path, entry) in &disk.0 {
            let body = match &entry.content {
                Content::Directory => {
                    replay.make_dir(path, 0o755);
                    replay.set(path, entry);
                    continue;
                }
                Content::File(bytes) => Body::File { now: bytes.clone(), durable: Vec::new() },
                Content::Link(target) => Body::Link(target.clone()),
            };
            let made = replay.inode(body, entry.mode);
            replay.link(path, made);
            replay.set(path, entry);
        }
        for inode in &mut replay.inodes {
            inode.settle();
        }
        replay
    }

    fn set(&mut self, path: &str, entry: &Entry) {
        let inode = self.find(path).expect("it was made");
        self.inodes[inode].uid = entry.uid;
        self.inodes[inode].now = Attributes { mode: entry.mode, gid: entry.gid };
    }

    /// Takes the next line of the log, its paths from the root of the node.
    pub(super) fn pass(&mut self, passed: &Passed) {
        match passed.edge {
            Edge::Before => self.announced = Some(passed.clone()),
            Edge::After => {
                let announced = self.announced.take();
                let same = |before: &Passed| {
                    (before.kind, &before.subject) == (passed.kind, &passed.subject)
                };
                // Changes of files are made without a pause, and so follow their announcement.
                if let Some(change) = announced.filter(same) {
                    self.make(&change);
                }
            }
        }
    }

    fn make(&mut self, change: &Passed) {
        let path = change.subject.as_str();
        let mode = change.mode.unwrap_or(0o600);
        match change.kind {
            Kind::Create | Kind::Lock if self.find(path).is_none() => {
                let made = self.inode(Body::File { now: Vec::new(), durable: Vec::new() }, mode);
                self.link(path, made);
            }
            Kind::Create | Kind::Lock => {}
            Kind::Write => {
                let bytes = change.content().expect("the log holds what was written");
                self.file(path).extend_from_slice(&bytes);
            }
            Kind::Truncate => {
                let length = change.length.and_then(|length| usize::try_from(length).ok());
                self.file(path).truncate(length.expect("the log holds the length"));
            }
            Kind::Grant => {
                let inode = self.find(path).expect("what is granted is there");
                let now = &mut self.inodes[inode].now;
                now.mode = change.mode.unwrap_or(now.mode);
                now.gid = change.gid.unwrap_or(now.gid);
            }
            Kind::Fsync => {
                let inode = self.find(path).expect("what is fsynced is there");
                self.inodes[inode].settle();
            }
            Kind::FsyncDir => {
                let inode = self.find(path).expect("what is fsynced is there");
                self.inodes[inode].settle();
            }
            Kind::MakeDir => self.make_dir(path, mode),
            Kind::Symlink => {
                let target = change.to.clone().expect("the log holds the target");
                let made = self.inode(Body::Link(target), 0o777);
                self.link(path, made);
            }
            Kind::Rename => {
                let to = change.to.as_deref().expect("the log holds the new name");
                let moved = self.unlink(path).expect("what is renamed is there");
                self.link(to, moved);
            }
            Kind::Unlink | Kind::RemoveDir => drop(self.unlink(path)),
            Kind::State | Kind::Job | Kind::JobEnd | Kind::Request => {}
        }
    }

    /// The disk as every reader sees it now.
    pub(super) fn now(&self) -> Disk {
        self.view(|_| true, Data::All)
    }

    /// Every disk that a loss of power may leave now.
    pub(super) fn losses(&self) -> Vec<Disk> {
        let open: Vec<usize> = (0..self.inodes.len())
            .filter(|inode| match &self.inodes[*inode].body {
                Body::Directory { now, durable } => now != durable,
                _ => false,
            })
            .collect();
        let mut disks = vec![
            self.view(|_| false, Data::None),
            self.view(|_| true, Data::None),
            self.view(|_| true, Data::Half),
            self.now(),
        ];
        for one in open {
            disks.push(self.view(|inode| inode == one, Data::None));
            disks.push(self.view(|inode| inode != one, Data::None));
        }
        disks.into_iter().map(Disk::without_memory).collect()
    }

    fn view(&self, survive: impl Fn(usize) -> bool, data: Data) -> Disk {
        let mut disk = Disk::default();
        self.walk(0, "", &survive, (data, &mut disk));
        // The directory above is not the agent's.
        disk.0.remove("/etc");
        disk
    }

    fn walk(
        &self,
        at: usize,
        path: &str,
        survive: &impl Fn(usize) -> bool,
        (data, disk): (Data, &mut Disk),
    ) {
        let Body::Directory { now, durable } = &self.inodes[at].body else { return };
        let names = if survive(at) { now } else { durable };
        for (name, inode) in names {
            let path = format!("{path}/{name}");
            disk.0.insert(path.clone(), self.inodes[*inode].entry(data));
            self.walk(*inode, &path, survive, (data, disk));
        }
    }

    fn inode(&mut self, body: Body, mode: u32) -> usize {
        let now = Attributes { mode, gid: self.ids.1 };
        self.inodes.push(Inode { body, uid: self.ids.0, now, durable: now });
        self.inodes.len() - 1
    }

    fn find(&self, path: &str) -> Option<usize> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(0, |at, name| {
            match &self.inodes[at].body {
                Body::Directory { now, .. } => now.get(name).copied(),
                _ => None,
            }
        })
    }

    fn names(&mut self, path: &str) -> (&mut BTreeMap<String, usize>, String) {
        let (above, name) = path.rsplit_once('/').expect("a path from the root");
        let above = self.find(above).unwrap_or_else(|| panic!("no directory for {path}"));
        match &mut self.inodes[above].body {
            Body::Directory { now, .. } => (now, name.to_owned()),
            _ => panic!("{path} lies in no directory"),
        }
    }

    fn link(&mut self, path: &str, inode: usize) {
        let (names, name) = self.names(path);
        names.insert(name, inode);
    }

    fn unlink(&mut self, path: &str) -> Option<usize> {
        let (names, name) = self.names(path);
        names.remove(&name)
    }

    fn make_dir(&mut self, path: &str, mode: u32) {
        if self.find(path).is_none() {
            let body = Body::Directory { now: BTreeMap::new(), durable: BTreeMap::new() };
            let made = self.inode(body, mode);
            self.link(path, made);
        }
    }

    fn file(&mut self, path: &str) -> &mut Vec<u8> {
        let inode = self.find(path).expect("what is written to is there");
        match &mut self.inodes[inode].body {
            Body::File { now, .. } => now,
            _ => panic!("{path} is no file"),
        }
    }
}

impl Inode {
    fn settle(&mut self) {
        self.durable = self.now;
        match &mut self.body {
            Body::Directory { now, durable } => durable.clone_from(now),
            Body::File { now, durable } => durable.clone_from(now),
            Body::Link(_) => {}
        }
    }

    fn entry(&self, data: Data) -> Entry {
        let attributes = if data == Data::All { self.now } else { self.durable };
        let content = match &self.body {
            Body::Directory { .. } => Content::Directory,
            Body::Link(target) => Content::Link(target.clone()),
            Body::File { now, durable } => Content::File(match data {
                Data::None => durable.clone(),
                Data::All => now.clone(),
                Data::Half if now == durable => now.clone(),
                Data::Half => now[..now.len() / 2].to_vec(),
            }),
        };
        Entry { content, mode: attributes.mode, uid: self.uid, gid: attributes.gid }
    }
}

#[test]
fn what_was_not_fsynced_is_lost_in_every_way_that_is_allowed() {
    let point = |edge, kind, subject: &str| Passed {
        edge,
        kind,
        subject: subject.into(),
        bytes: (kind == Kind::Write).then(|| "c2VjcmV0cw==".into()),
        length: None,
        mode: None,
        gid: None,
        to: (kind == Kind::Rename).then(|| "/var/file".into()),
    };
    let mut replay = Replay::from(&Disk::default(), (0, 0));
    let mut make = |kind, subject: &str| {
        replay.pass(&point(Edge::Before, kind, subject));
        replay.pass(&point(Edge::After, kind, subject));
        let mut seen: Vec<_> = replay.losses().iter().map(shown).collect();
        seen.sort();
        seen.dedup();
        seen
    };
    assert_eq!(make(Kind::MakeDir, "/var"), ["", "/var"]);
    assert_eq!(make(Kind::FsyncDir, "/"), ["/var"]);
    assert_eq!(make(Kind::Create, "/var/new"), ["/var", "/var /var/new="]);
    let torn = ["/var", "/var /var/new=", "/var /var/new=sec", "/var /var/new=secrets"];
    assert_eq!(make(Kind::Write, "/var/new"), torn);
    assert_eq!(make(Kind::Fsync, "/var/new"), ["/var", "/var /var/new=secrets"]);
    assert_eq!(make(Kind::Rename, "/var/new"), ["/var", "/var /var/file=secrets"]);
    assert_eq!(make(Kind::FsyncDir, "/var"), ["/var /var/file=secrets"]);
    assert_eq!(make(Kind::Unlink, "/var/file"), ["/var", "/var /var/file=secrets"]);
}

#[cfg(test)]
fn shown(disk: &Disk) -> String {
    let entries = disk.0.iter().map(|(path, entry)| match &entry.content {
        Content::File(bytes) => format!("{path}={}", String::from_utf8_lossy(bytes)),
        _ => path.clone(),
    });
    entries.collect::<Vec<_>>().join(" ")
}

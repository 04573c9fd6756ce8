//! Files below one root directory, and the only code that writes them. A file appears whole or
//! not at all and survives a power cut once a call has returned; modes are set explicitly,
//! whatever the umask; a symbolic link planted at the place of writing is never followed. Tests
//! give a private root, so that nothing else needs to know where it runs.

mod place;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use place::{Place, TEMPORARY, failed, open_dir};

use crate::error::{Code, Error, Result};

/// More entries than any directory of ours can have; stops a runaway listing.
const LIST_LIMIT: usize = 4096;

/// Who may do what with a file or directory that we make.
#[derive(Clone, Copy)]
struct Access {
    mode: u32,
    gid: Option<u32>,
}

/// What stands at a path, the link itself where it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// File, directory, link or something stranger.
    pub kind: FileKind,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
    /// The number of hard links.
    pub links: u64,
    /// The size in bytes.
    pub size: u64,
}

/// The kinds of file that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A socket, a pipe, a device.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, lossy where it is not UTF-8; no name of ours is.
    pub name: String,
    /// What it is.
    pub stat: Stat,
}

/// Everything below one directory: `/` on a node, a private one in tests.
#[derive(Clone, Debug)]
pub struct Root {
    dir: PathBuf,
}

impl Root {
    /// Everything below `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Root {
        Root { dir: dir.into() }
    }

    /// Where an absolute path of the node really is; `..` does not lead out of the root.
    pub fn path(&self, path: &Path) -> PathBuf {
        let mut inside = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => inside.push(name),
                Component::ParentDir => drop(inside.pop()),
                _ => {}
            }
        }
        let mut full = self.dir.clone();
        full.extend(inside);
        full
    }

    /// The content of a regular file of at most `limit` bytes; links are followed.
    pub fn read(&self, path: &Path, limit: usize) -> Result<Vec<u8>> {
        let full = self.path(path);
        read(&full, limit).map_err(|error| failed(&full, error))?
    }

    /// The same, or `None` where there is no such file.
    pub fn read_optional(&self, path: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        let full = self.path(path);
        match read(&full, limit) {
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(&full, error)),
            Ok(content) => content.map(Some),
        }
    }

    /// Puts a whole file in place of what was there: readers see the old bytes or the new ones,
    /// and so does the next start after a power cut. The mode is exact, against any umask; the
    /// group is our own where none is given.
    pub fn write_atomic(
        &self,
        path: &Path,
        bytes: &[u8],
        mode: u32,
        gid: Option<u32>,
    ) -> Result<()> {
        let place = self.place(path)?;
        replace(&place, |temporary| temporary.create(bytes, Access { mode, gid }))?;
        place.fsync_dir()
    }

    /// The same for what a reboot clears anyway: readers see the old bytes or the new ones, and
    /// nothing is made durable.
    pub fn write_volatile(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        let access = Access { mode, gid: None };
        replace(&self.place(path)?, |temporary| temporary.write(bytes, access).map(|_| ()))
    }

    /// Adds a line to a file and makes it durable; the file is made where it is missing.
    pub fn append(&self, path: &Path, line: &[u8], mode: u32) -> Result<()> {
        self.place(path)?.append_line(line, Access { mode, gid: None })
    }

    /// Puts a whole file in place of what was there, made in another directory: for directories
    /// whose watcher must not see a file in the making. Both are below one mount.
    pub fn write_through(
        &self,
        staging: &Path,
        path: &Path,
        bytes: &[u8],
        mode: u32,
    ) -> Result<()> {
        let place = self.place(path)?;
        let name = path.file_name().unwrap_or_default();
        let staged = self.place(&staging.join(name))?;
        staged.unlink()?;
        let moved =
            staged.create(bytes, Access { mode, gid: None }).and_then(|()| staged.rename(&place));
        if moved.is_err() {
            // The first error is the one to tell; what stays is removed by the next write.
            staged.unlink().ok();
        }
        moved?;
        staged.fsync_dir()?;
        place.fsync_dir()
    }

    /// Makes files that must not exist yet in a directory that may, all of them durable and the
    /// directory's own name not: for what nobody looks at before it is whole. Who may read the
    /// files may enter the directory.
    pub fn write_dir(
        &self,
        path: &Path,
        files: &[(&str, &[u8])],
        mode: u32,
        gid: Option<u32>,
    ) -> Result<()> {
        let enter = (mode & 0o444) >> 2;
        self.place(path)?.make_dir(Access { mode: mode | enter, gid })?;
        let place = |(name, bytes): &(&str, _)| Ok((self.place(&path.join(name))?, *bytes));
        let places = files.iter().map(place).collect::<Result<Vec<_>>>()?;
        Place::create_all(&places, Access { mode, gid })?;
        self.fsync_dir(path)
    }

    /// Sees to it that the directory exists, is a real one of ours, and has this access; missing
    /// parents are made for everyone to read.
    pub fn make_dir(&self, path: &Path, mode: u32, gid: Option<u32>) -> Result<()> {
        self.make_parents(path)?;
        let place = self.place(path)?;
        if place.make_dir(Access { mode, gid })? { place.fsync_dir() } else { Ok(()) }
    }

    /// A parent appears with its mode: later calls leave one that is there as it is, and so would
    /// never open one that a crash has left closed.
    fn make_parents(&self, path: &Path) -> Result<()> {
        let parent = path.parent().filter(|parent| parent.parent().is_some());
        let Some(parent) = parent else { return Ok(()) };
        if self.stat(parent)?.is_some() {
            return Ok(());
        }
        self.make_parents(parent)?;
        let place = self.place(parent)?;
        let making = place.temporary();
        making.make_dir(Access { mode: 0o755, gid: None })?;
        making.rename(&place)?;
        place.fsync_dir()
    }

    /// Makes the names in a directory durable.
    pub fn fsync_dir(&self, path: &Path) -> Result<()> {
        let full = self.path(path);
        place::fsync_dir(&full, open_dir(&full)?)
    }

    /// Points the link `name` in `dir` to `target` in one step and makes that durable.
    pub fn swap_link(&self, dir: &Path, name: &str, target: &str) -> Result<()> {
        let link = self.place(&dir.join(name))?;
        let temporary = link.temporary();
        temporary.unlink()?;
        temporary.symlink(target)?;
        temporary.rename(&link)?;
        link.fsync_dir()
    }

    /// Renames within one directory; what stood at the new name is replaced if the kernel lets
    /// it. The directory has to be fsynced afterwards.
    pub fn rename(&self, from: &Path, name: &str) -> Result<()> {
        let from = self.place(from)?;
        from.rename(&from.sibling(OsStr::new(name)))
    }

    /// Removes a file or link; one that is gone already is what was wanted.
    pub fn unlink(&self, path: &Path) -> Result<()> {
        self.place(path)?.unlink()
    }

    /// Removes an empty directory; one that is gone already is what was wanted.
    pub fn remove_dir(&self, path: &Path) -> Result<()> {
        self.place(path)?.remove_dir()
    }

    /// Where a link points, or `None` where there is none. What is not a link is an error.
    pub fn read_link(&self, path: &Path) -> Result<Option<String>> {
        let full = self.path(path);
        match rustix::fs::readlinkat(CWD, &full, Vec::new()) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::INVAL) => Err(Error::new(Code::Foreign, "not a symbolic link")
                .at(full.display())
                .advise(format!("move it away: mv {0} {0}.away", full.display()))),
            Err(error) => Err(failed(&full, error)),
        }
    }

    /// What stands at a path, links not followed; `None` where nothing does.
    pub fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        let full = self.path(path);
        match rustix::fs::statat(CWD, &full, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stat::from(stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(&full, error)),
        }
    }

    /// What a directory holds, sorted by name; nothing where there is no such directory.
    pub fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        if self.stat(path)?.is_none() {
            return Ok(Vec::new());
        }
        let full = self.path(path);
        let mut entries =
            entries(&open_dir(&full)?, LIST_LIMIT).map_err(|error| failed(&full, error))?;
        if entries.len() > LIST_LIMIT {
            let text = format!("holds more than {LIST_LIMIT} entries");
            return Err(Error::new(Code::Foreign, text)
                .at(full.display())
                .advise("move away what nodeagent did not write"));
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn place(&self, path: &Path) -> Result<Place> {
        Place::open(self.path(path))
    }
}

/// Makes a temporary file beside a place and renames it there.
fn replace(place: &Place, make: impl FnOnce(&Place) -> Result<()>) -> Result<()> {
    let temporary = place.temporary();
    temporary.unlink()?;
    let renamed = make(&temporary).and_then(|()| temporary.rename(place));
    if renamed.is_err() {
        // The first error is the one to tell; what stays is removed by the next write.
        temporary.unlink().ok();
    }
    renamed
}

/// The user that owns what we write.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The name that a file, link or directory has while it is made.
pub fn temporary(name: &str) -> String {
    format!(".{name}{TEMPORARY}")
}

/// Whether a name is that of a file or link in the making, left by a crash.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

impl From<rustix::fs::Stat> for Stat {
    fn from(stat: rustix::fs::Stat) -> Stat {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Link,
            _ => FileKind::Other,
        };
        Stat {
            kind,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            links: stat.st_nlink,
            size: u64::try_from(stat.st_size).unwrap_or(0),
        }
    }
}

fn entries(dir: &OwnedFd, limit: usize) -> std::result::Result<Vec<Entry>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() == b"." || name.to_bytes() == b".." {
            continue;
        }
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        found.push(Entry { name: name.to_string_lossy().into_owned(), stat: stat.into() });
        if found.len() > limit {
            break;
        }
    }
    Ok(found)
}

/// Opening does not wait for the writer of a pipe that stands where a file belongs.
fn read(full: &Path, limit: usize) -> std::result::Result<Result<Vec<u8>>, Errno> {
    #[cfg(debug_assertions)]
    crate::failpoint::failing::read()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::openat(CWD, full, flags, Mode::empty())?);
    let stat = Stat::from(rustix::fs::fstat(&file)?);
    let corrupt = |text: String| Ok(Err(Error::new(Code::Disk, text).at(full.display())));
    if stat.kind != FileKind::File {
        return corrupt("not a regular file".to_owned());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(stat.size).unwrap_or(0).min(limit) + 1);
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(errno)?;
    if bytes.len() > limit {
        return corrupt(format!("larger than {limit} bytes"));
    }
    Ok(Ok(bytes))
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
#[path = "files/tests.rs"]
mod tests;

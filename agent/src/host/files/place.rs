//! One name in an open directory, and every change that can be made to it. All of them are made
//! relative to the directory that was opened, so that exchanging it for a link meanwhile changes
//! nothing, and each passes a checkpoint at which the tests cut the power.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, RawMode};
use rustix::io::Errno;

use super::{Access, own_uid};
use crate::error::{Code, Error, Result};

/// Ends the names of files in the making, so that the leftover of a crash is known as ours.
pub(super) const TEMPORARY: &str = ".nodeagent~";

/// A name in an open directory.
pub(super) struct Place {
    dir: Rc<OwnedFd>,
    name: OsString,
    full: PathBuf,
}

impl Place {
    /// The name at the end of a full path; its directory has to exist and to be no link.
    pub(super) fn open(full: PathBuf) -> Result<Place> {
        let (Some(parent), Some(name)) = (full.parent(), full.file_name()) else {
            let text = format!("{} is no place for a file", full.display());
            return Err(Error::new(Code::Bug, text));
        };
        Ok(Place { dir: Rc::new(open_dir(parent)?), name: name.to_owned(), full })
    }

    /// The name that a file has while it is made.
    pub(super) fn temporary(&self) -> Place {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(TEMPORARY);
        self.sibling(&name)
    }

    pub(super) fn sibling(&self, name: &OsStr) -> Place {
        Place { dir: self.dir.clone(), name: name.to_owned(), full: self.full.with_file_name(name) }
    }

    /// A new file, durable.
    pub(super) fn create(&self, bytes: &[u8], access: Access) -> Result<()> {
        let file = self.write(bytes, access)?;
        rustix::fs::fsync(&file).map_err(|error| failed(&self.full, error))
    }

    /// A new file, not durable yet. The cut between opening and writing leaves a torn file, as a
    /// crash there does.
    pub(super) fn write(&self, bytes: &[u8], access: Access) -> Result<File> {
        let fail = |error| failed(&self.full, error);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let flags = flags | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        checkpoint(&self.full)?;
        let opened = rustix::fs::openat(&*self.dir, &self.name, flags, mode).map_err(fail)?;
        let mut file = File::from(opened);
        checkpoint(&self.full)?;
        file.write_all(bytes).map_err(|error| fail(super::errno(error)))?;
        grant(&file, access).map_err(fail)?;
        Ok(file)
    }

    /// Adds to the end of a file, durable; the file is made where it is missing. What a cut left
    /// behind the last line's end was never whole, and goes.
    pub(super) fn append_line(&self, line: &[u8], access: Access) -> Result<()> {
        let fail = |error| failed(&self.full, error);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(access.mode as RawMode);
        checkpoint(&self.full)?;
        let opened = rustix::fs::openat(&*self.dir, &self.name, flags, mode).map_err(fail)?;
        let mut file = File::from(opened);
        let end = last_line_end(&mut file).map_err(|error| fail(super::errno(error)))?;
        file.set_len(end).map_err(|error| fail(super::errno(error)))?;
        checkpoint(&self.full)?;
        file.write_all(line).map_err(|error| fail(super::errno(error)))?;
        grant(&file, access).map_err(fail)?;
        rustix::fs::fsync(&file).map_err(fail)?;
        self.fsync_dir()
    }

    pub(super) fn make_dir(&self, access: Access) -> Result<()> {
        let fail = |error| failed(&self.full, error);
        checkpoint(&self.full)?;
        let made = match rustix::fs::mkdirat(&*self.dir, &self.name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(fail(error)),
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&*self.dir, &self.name, flags, Mode::empty()).map_err(fail)?;
        let stat = rustix::fs::fstat(&dir).map_err(fail)?;
        if stat.st_uid != own_uid() {
            return Err(foreign_owner(&self.full, stat.st_uid));
        }
        let changed = grant(&dir, access).map_err(fail)?;
        if made || changed {
            rustix::fs::fsync(&dir).map_err(fail)?;
        }
        if made { self.fsync_dir() } else { Ok(()) }
    }

    pub(super) fn symlink(&self, target: &str) -> Result<()> {
        checkpoint(&self.full)?;
        rustix::fs::symlinkat(target, &*self.dir, &self.name)
            .map_err(|error| failed(&self.full, error))
    }

    pub(super) fn rename(&self, to: &Place) -> Result<()> {
        checkpoint(&self.full)?;
        rustix::fs::renameat(&*self.dir, &self.name, &*to.dir, &to.name)
            .map_err(|error| failed(&to.full, error))
    }

    pub(super) fn unlink(&self) -> Result<()> {
        self.remove(AtFlags::empty())
    }

    pub(super) fn remove(&self, flags: AtFlags) -> Result<()> {
        checkpoint(&self.full)?;
        match rustix::fs::unlinkat(&*self.dir, &self.name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(&self.full, error)),
        }
    }

    pub(super) fn fsync_dir(&self) -> Result<()> {
        checkpoint(&self.full)?;
        rustix::fs::fsync(&*self.dir).map_err(|error| failed(&self.full, error))
    }
}

/// Where the last whole line of a file ends; the file is left positioned there.
fn last_line_end(file: &mut File) -> std::io::Result<u64> {
    const BLOCK: u64 = 4096;
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        file.take(end - begin).read_to_end(&mut block)?;
        if let Some(last) = block.iter().rposition(|byte| *byte == b'\n') {
            end = begin + last as u64 + 1;
            break;
        }
        end = begin;
    }
    file.seek(SeekFrom::Start(end))
}

/// Sets group and mode where they differ; the answer is whether anything did. The group comes
/// first, because changing it clears bits of the mode.
fn grant(file: impl AsFd, access: Access) -> std::result::Result<bool, Errno> {
    let before = rustix::fs::fstat(&file)?;
    let regroup = access.gid.filter(|gid| *gid != before.st_gid);
    if let Some(gid) = regroup {
        rustix::fs::fchown(&file, None, Some(Gid::from_raw(gid)))?;
    }
    let remode = before.st_mode & 0o7777 != access.mode || regroup.is_some();
    if remode {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(access.mode as RawMode))?;
    }
    Ok(remode)
}

/// A directory, never through a link in its place.
pub(super) fn open_dir(full: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, full, flags, Mode::empty()).map_err(|error| failed(full, error))
}

fn foreign_owner(full: &Path, uid: u32) -> Error {
    let text = format!("belongs to user {uid}, not to {}", own_uid());
    Error::new(Code::Foreign, text)
        .at(full.display())
        .advise(format!("give it back or move it away: ls -ld {}", full.display()))
}

/// The error of a path, with what a person does about it.
pub(super) fn failed(full: &Path, error: Errno) -> Error {
    let path = full.display();
    let found = Error::disk(full, &error.into());
    match error {
        Errno::NOSPC | Errno::DQUOT => {
            found.advise(format!("free some space on the file system of {path}: df -h, df -i"))
        }
        Errno::ROFS => found.advise(format!(
            "{path} is read-only: see `dmesg` for a failed disk, and whether ReadWritePaths= of \
             nodeagent.service names its directory"
        )),
        Errno::ACCESS | Errno::PERM => {
            found.advise(format!("user {} needs the right: namei -l {path}", own_uid()))
        }
        Errno::LOOP | Errno::NOTDIR | Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY => {
            Error::new(Code::Foreign, std::io::Error::from(error).to_string())
                .at(&path)
                .advise(format!("see what stands there and move it away: namei -l {path}"))
        }
        _ => found,
    }
}

/// Where the tests cut the power: see [`power`].
#[cfg(not(test))]
pub(super) fn checkpoint(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) fn checkpoint(full: &Path) -> Result<()> {
    power::spend().map_err(|()| Error::new(Code::Disk, "power cut").at(full.display()))
}

/// A power cut after so many changes, for tests of what a crash leaves behind. Once it is out,
/// it stays out: cleaning up after the error fails too, as it would.
#[cfg(test)]
pub(crate) mod power {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// Cuts the power of this thread after `changes`; `None` restores it.
    pub(crate) fn cut_after(changes: Option<usize>) {
        LEFT.set(changes);
    }

    pub(super) fn spend() -> Result<(), ()> {
        match LEFT.get() {
            None => Ok(()),
            Some(0) => Err(()),
            Some(left) => {
                LEFT.set(Some(left - 1));
                Ok(())
            }
        }
    }
}

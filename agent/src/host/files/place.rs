//! One name in an open directory, and every change that can be made to it. All of them are made
//! relative to the directory that was opened, so that exchanging it for a link meanwhile changes
//! nothing, and each passes the points at which the tests have a crash come.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Advice, AtFlags, CWD, Gid, Mode, OFlags, RawMode};
use rustix::io::Errno;

use super::{Access, own_uid};
use crate::error::{Code, Error, Result};
use crate::failpoint::{Detail, Kind, change};

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
        self.fsync(&file)
    }

    /// New files beside each other, all durable, their names not. They are all on their way to the
    /// disk before the first is waited for: that takes a bit more than half the time.
    pub(super) fn create_all(places: &[(Place, &[u8])], access: Access) -> Result<()> {
        let mut files = Vec::new();
        for (place, bytes) in places {
            let file = place.write(bytes, access)?;
            // By posix_fadvise(2) a hint, which begins to write back and says nothing of failures:
            // fsync does.
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).ok();
            files.push(file);
        }
        places.iter().zip(&files).try_for_each(|((place, _), file)| place.fsync(file))
    }

    /// A new file, not durable yet.
    pub(super) fn write(&self, bytes: &[u8], access: Access) -> Result<File> {
        let fail = |error| failed(&self.full, error);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let flags = flags | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let opened = change(Kind::Create, &self.full, Detail::Mode(mode.as_raw_mode()), || {
            rustix::fs::openat(&*self.dir, &self.name, flags, mode).map_err(fail)
        })?;
        let mut file = File::from(opened);
        change(Kind::Write, &self.full, Detail::Bytes(bytes), || {
            file.write_all(bytes).map_err(|error| fail(super::errno(error)))
        })?;
        self.grant(&file, access)?;
        Ok(file)
    }

    /// Adds to the end of a file, durable; the file is made where it is missing. What a cut left
    /// behind the last line's end was never whole, and goes.
    pub(super) fn append_line(&self, line: &[u8], access: Access) -> Result<()> {
        let fail = |error| failed(&self.full, error);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(access.mode as RawMode);
        let opened = change(Kind::Create, &self.full, Detail::Mode(access.mode), || {
            rustix::fs::openat(&*self.dir, &self.name, flags, mode).map_err(fail)
        })?;
        let mut file = File::from(opened);
        let end = last_line_end(&mut file).map_err(|error| fail(super::errno(error)))?;
        change(Kind::Truncate, &self.full, Detail::Length(end), || {
            file.set_len(end).map_err(|error| fail(super::errno(error)))
        })?;
        change(Kind::Write, &self.full, Detail::Bytes(line), || {
            file.write_all(line).map_err(|error| fail(super::errno(error)))
        })?;
        self.grant(&file, access)?;
        self.fsync(&file)?;
        self.fsync_dir()
    }

    /// Sees to it that there is a directory of ours with this access; the answer is whether it is
    /// new, and so its name not durable yet. It appears closed, and its access is durable.
    pub(super) fn make_dir(&self, access: Access) -> Result<bool> {
        let fail = |error| failed(&self.full, error);
        let mode = Mode::RWXU;
        let made = change(Kind::MakeDir, &self.full, Detail::Mode(mode.as_raw_mode()), || {
            match rustix::fs::mkdirat(&*self.dir, &self.name, mode) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => Ok(false),
                Err(error) => Err(fail(error)),
            }
        })?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&*self.dir, &self.name, flags, Mode::empty()).map_err(fail)?;
        let stat = rustix::fs::fstat(&dir).map_err(fail)?;
        if stat.st_uid != own_uid() {
            return Err(foreign_owner(&self.full, stat.st_uid));
        }
        let changed = self.grant(&dir, access)?;
        if changed {
            self.fsync(&dir)?;
        }
        Ok(made)
    }

    pub(super) fn symlink(&self, target: &str) -> Result<()> {
        change(Kind::Symlink, &self.full, Detail::Target(target), || {
            rustix::fs::symlinkat(target, &*self.dir, &self.name)
                .map_err(|error| failed(&self.full, error))
        })
    }

    pub(super) fn rename(&self, to: &Place) -> Result<()> {
        change(Kind::Rename, &self.full, Detail::To(&to.full), || {
            rustix::fs::renameat(&*self.dir, &self.name, &*to.dir, &to.name)
                .map_err(|error| failed(&to.full, error))
        })
    }

    pub(super) fn unlink(&self) -> Result<()> {
        self.remove(Kind::Unlink, AtFlags::empty())
    }

    pub(super) fn remove_dir(&self) -> Result<()> {
        self.remove(Kind::RemoveDir, AtFlags::REMOVEDIR)
    }

    fn remove(&self, kind: Kind, flags: AtFlags) -> Result<()> {
        change(kind, &self.full, Detail::Nothing, || {
            match rustix::fs::unlinkat(&*self.dir, &self.name, flags) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(failed(&self.full, error)),
            }
        })
    }

    pub(super) fn fsync_dir(&self) -> Result<()> {
        fsync_dir(self.full.parent().unwrap_or(&self.full), &*self.dir)
    }

    fn fsync(&self, file: impl AsFd) -> Result<()> {
        change(Kind::Fsync, &self.full, Detail::Nothing, || {
            rustix::fs::fsync(&file).map_err(|error| failed(&self.full, error))
        })
    }

    /// Sets group and mode where they differ; the answer is whether anything did. The group comes
    /// first, because changing it clears bits of the mode.
    fn grant(&self, file: impl AsFd, access: Access) -> Result<bool> {
        let fail = |error| failed(&self.full, error);
        let before = rustix::fs::fstat(&file).map_err(fail)?;
        let regroup = access.gid.filter(|gid| *gid != before.st_gid);
        if let Some(gid) = regroup {
            change(Kind::Grant, &self.full, Detail::Group(gid), || {
                rustix::fs::fchown(&file, None, Some(Gid::from_raw(gid))).map_err(fail)
            })?;
        }
        let remode = before.st_mode & 0o7777 != access.mode || regroup.is_some();
        if remode {
            change(Kind::Grant, &self.full, Detail::Mode(access.mode), || {
                let mode = Mode::from_raw_mode(access.mode as RawMode);
                rustix::fs::fchmod(&file, mode).map_err(fail)
            })?;
        }
        Ok(remode)
    }
}

/// Makes the names in a directory durable.
pub(super) fn fsync_dir(full: &Path, dir: impl AsFd) -> Result<()> {
    change(Kind::FsyncDir, full, Detail::Nothing, || {
        rustix::fs::fsync(&dir).map_err(|error| failed(full, error))
    })
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

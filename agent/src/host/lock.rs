//! One agent at a time: an advisory lock that the kernel drops with the process, so that a crash
//! leaves nothing to clean up. Who holds it is asked of the kernel too, not written to the file.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::error::{Code, Error, Result};
use crate::failpoint::{Detail, Kind, change};

/// 256 KiB of `/proc/locks`: several thousand locks.
const LOCKS_LIMIT: u64 = 256 << 10;

/// The lock, held until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock at once or says who holds it; the file is created where it is missing.
    pub fn acquire(path: &Path) -> Result<Lock> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { path: path.to_path_buf(), _file: file }),
            Err(Errno::WOULDBLOCK) => Err(held(path, &file)),
            Err(error) => Err(Error::disk(path, &error.into()).during("locking")),
        }
    }

    /// The file that carries the lock.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The descriptor closes on exec (std's default), so that no child keeps the lock alive.
fn open(path: &Path) -> Result<File> {
    const MODE: u32 = 0o600;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(MODE);
    options.custom_flags(flags.bits().cast_signed());
    change(Kind::Lock, path, Detail::Mode(MODE), || {
        options.open(path).map_err(|error| {
            Error::disk(path, &error)
                .during("opening the lock")
                .advise("the directory has to exist and be writable: systemd-tmpfiles --create")
        })
    })
}

/// Sends SIGHUP to whoever holds the lock; says whether somebody certainly does.
pub fn wake_holder(path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else {
        return false;
    };
    let (dev, ino) = (metadata.dev(), metadata.ino());
    let place = format!("{:02x}:{:02x}:{ino}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let locks = locks();
    // A signal needs certainty where a message does not: the device has to be the same too. On a
    // file system that reports another one nobody is told, and the agent looks by itself soon.
    let line = locks.lines().find(|line| line.split_whitespace().any(|field| field == place));
    let pid = line.and_then(|line| holder(line, ino)).and_then(|pid| i32::try_from(pid).ok());
    pid.is_some_and(|pid| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGHUP).is_ok()
    })
}

fn held(path: &Path, file: &File) -> Error {
    let inode = file.metadata().map(|metadata| metadata.ino()).unwrap_or(0);
    let holder = holder(&locks(), inode);
    let (who, advice) = match holder {
        Some(pid) => (
            format!("held by process {pid}"),
            format!("see what it is: ps -fp {pid}; end it, or wait until it ends"),
        ),
        None => {
            ("held by another process".to_owned(), format!("find it: fuser -v {}", path.display()))
        }
    };
    Error::new(Code::Locked, who).at(path.display()).advise(advice)
}

fn locks() -> String {
    let mut text = String::new();
    File::open("/proc/locks")
        .and_then(|file| file.take(LOCKS_LIMIT).read_to_string(&mut text))
        .map_or_else(|_| String::new(), |_| text)
}

/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:131 0 EOF`. The device is not compared: btrfs and
/// overlayfs report another one in stat(2), and the inode is enough for a hint.
fn holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = fields.as_slice() else {
            return None;
        };
        let found: u64 = place.rsplit(':').next()?.parse().ok()?;
        let pid: u32 = pid.parse().ok()?;
        (found == inode && pid > 0).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it_until_it_is_dropped() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lock");
        let first = Lock::acquire(&path).expect("a free lock");
        let error = Lock::acquire(&path).expect_err("a held lock");
        assert_eq!(error.code(), Code::Locked);
        let pid = std::process::id();
        assert!(format!("{error:#}").contains(&format!("process {pid}")), "{error:#}");
        drop(first);
        assert_eq!(Lock::acquire(&path).expect("free again").path(), path);
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink(dir.path().join("victim"), &path).expect("a link");
        assert_eq!(Lock::acquire(&path).expect_err("a link").code(), Code::Disk);
        assert!(!dir.path().join("victim").exists());
    }

    #[test]
    fn the_holder_is_found_by_inode_among_other_locks() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:2d:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 22 fe:00:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 23 fe:00:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 33 fe:00:77 0 EOF\nnonsense\n";
        assert_eq!(holder(locks, 77), Some(33));
        assert_eq!(holder(locks, 79), None);
    }
}

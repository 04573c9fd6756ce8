//! The disk of a simulated node: a small file system in memory, mounted for one thread alone where
//! the test runs as root. Then it can be full or read-only, and vanishes with the thread; without
//! root it is a directory in memory, and these faults are left out.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// Enough for a node's files, little enough to be filled in no time.
const SIZE: &str = "size=4m,mode=755";

/// Where directories in memory are on every Linux.
const MEMORY: &str = "/dev/shm";

/// A node's root directory.
#[derive(Debug)]
pub(super) struct Disk {
    dir: TempDir,
    mounted: bool,
}

/// Gives the calling thread mounts of its own, so that nobody else sees what it mounts. Says
/// whether that was possible.
pub(super) fn own_mounts() -> bool {
    let none: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::unistd::geteuid().is_root()
        && unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && mount(none, "/", none, private, none).is_ok()
}

impl Disk {
    /// A directory in memory.
    pub(super) fn directory() -> io::Result<Disk> {
        let parent = match Path::new(MEMORY).is_dir() {
            true => PathBuf::from(MEMORY),
            false => std::env::temp_dir(),
        };
        let dir = tempfile::Builder::new().prefix("nodeagent-simulation").tempdir_in(parent)?;
        Ok(Disk { dir, mounted: false })
    }

    /// A file system of its own; the thread must have [`own_mounts`].
    pub(super) fn mounted() -> io::Result<Disk> {
        let mut disk = Disk::directory()?;
        disk.mount(MsFlags::empty())?;
        disk.mounted = true;
        Ok(disk)
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether it can be made full and read-only.
    pub(super) fn has_faults(&self) -> bool {
        self.mounted
    }

    fn mount(&self, flags: MsFlags) -> io::Result<()> {
        mount(Some("tmpfs"), self.path(), Some("tmpfs"), flags, Some(SIZE)).map_err(io::Error::from)
    }

    /// Not a byte is free any more.
    pub(super) fn fill(&self) {
        let Ok(mut ballast) = std::fs::File::create(self.ballast()) else { return };
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    /// There is room again.
    pub(super) fn free(&self) {
        std::fs::remove_file(self.ballast()).ok();
    }

    /// Writes fail from now on, as after an error of the disk. It is the mount that changes: the
    /// file system itself refuses while somebody holds a file that was unlinked.
    pub(super) fn lock(&self) -> io::Result<()> {
        self.mount(MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY)
    }

    /// Writes succeed again.
    pub(super) fn unlock(&self) -> io::Result<()> {
        self.mount(MsFlags::MS_REMOUNT | MsFlags::MS_BIND)
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            umount2(self.path(), MntFlags::MNT_DETACH).ok();
        }
    }
}

//! The machine's disk: an overlay of its own over the cached layers of `tests/peers/rootfs`.
//! Nothing is copied at a boot (a copy of the same root took 2.3 s), and what the machine writes
//! stays with it over a loss of power.
//!
//! /var/lib is a plain directory laid over it. It holds what is measured (published certificates,
//! inotify on them, fsync) and what cannot lie on an overlay (containerd's own overlays).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::command;
use super::slot::Slot;
use super::{MachineError, Result, tail};

/// Not /tmp, which may be memory, and small.
const DISKS: &str = "/var/tmp";
/// The first call downloads Debian and builds Kubernetes.
const ROOTFS_LIMIT: Duration = Duration::from_secs(3600);
const COPY_LIMIT: Duration = Duration::from_secs(60);

/// The disk; its directory and its mounts go when it is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    root: PathBuf,
}

/// The layers of a flavour as overlayfs wants them; made at the first call.
pub(super) fn layers(flavour: &str) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers/rootfs");
    let mut command = Command::new(script);
    command.arg(flavour);
    let printed = command::run(command, ROOTFS_LIMIT, &[])?.ok(&["tests/peers/rootfs", flavour])?;
    Ok(printed.trim_end().to_owned())
}

impl Disk {
    /// Makes it anew: what a killed predecessor left under this name is removed.
    pub(super) fn make(slot: &Slot, layers: &str) -> Result<Self> {
        let directory = Path::new(DISKS).join(slot.name());
        let root = directory.join("root");
        let disk = Self { directory, root };
        disk.remove()?;
        let (upper, work) = (disk.directory.join("upper"), disk.directory.join("work"));
        let var_lib = disk.directory.join("var-lib");
        for directory in [&disk.root, &upper, &work, &var_lib] {
            fs::create_dir_all(directory).map_err(|error| at(directory, &error))?;
        }
        let (upper, work) = (upper.display(), work.display());
        let options = format!("lowerdir={layers},upperdir={upper},workdir={work}");
        disk.mount_overlay(&options)?;
        disk.lay_over(&var_lib, "var/lib")?;
        Ok(disk)
    }

    /// Where the host sees the machine's root.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What systemd-nspawn and the machine's console print.
    pub(super) fn console_log(&self) -> Result<File> {
        let path = self.directory.join("console.log");
        let log = File::options().create(true).append(true).open(&path);
        log.map_err(|error| at(&path, &error))
    }

    /// The end of that.
    pub(super) fn console(&self) -> String {
        let path = self.directory.join("console.log");
        let text = fs::read(&path).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), 4000).to_owned()
    }

    fn mount_overlay(&self, options: &str) -> Result<()> {
        let kind = Some("overlay");
        let mounted = mount(kind, &self.root, kind, MsFlags::empty(), Some(options));
        mounted.map_err(|errno| self.error("overlay", errno))
    }

    /// Lays `plain`, filled with what the root holds there, over a directory of the root.
    fn lay_over(&self, plain: &Path, inside: &str) -> Result<()> {
        let target = self.root.join(inside);
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(target.join(".")).arg(plain);
        command::run(copy, COPY_LIMIT, &[])?.ok(&["cp", "-a", inside])?;
        let none = None::<&str>;
        let mounted = mount(Some(plain), &target, none, MsFlags::MS_BIND, none);
        mounted.map_err(|errno| self.error(inside, errno))
    }

    fn remove(&self) -> Result<()> {
        for mounted in [self.root.join("var/lib"), self.root.clone()] {
            self.unmount(&mounted)?;
        }
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory).map_err(|error| at(&self.directory, &error))?;
        }
        Ok(())
    }

    /// Lazily, because the host may still look into it (a shell, an indexer).
    fn unmount(&self, path: &Path) -> Result<()> {
        loop {
            match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                // Not mounted, or never made.
                Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
                Err(errno) => return Err(self.error("unmount", errno)),
            }
        }
    }

    fn error(&self, what: &str, errno: Errno) -> MachineError {
        MachineError::new(format!("{}: {what}: {errno}", self.root.display()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{error}");
        }
    }
}

fn at(path: &Path, error: &std::io::Error) -> MachineError {
    MachineError::new(format!("{}: {error}", path.display()))
}

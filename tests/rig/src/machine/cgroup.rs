//! The machine's own cgroup. Without one, the payloads of all machines that a process starts share
//! one cgroup, and their systemds manage each other's slices. It is also the power switch: the
//! kernel kills everything in it at once, however often it has forked.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::slot::Slot;
use super::{MachineError, Result, wait_for};

/// The kernel kills in milliseconds; a process in an uninterruptible read may take longer.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// A cgroup in each hierarchy that matters: cgroup2, and systemd's named one where the host still
/// mounts the version 1 controllers.
#[derive(Debug)]
pub(super) struct Cgroup {
    unified: PathBuf,
    named: Option<PathBuf>,
}

impl Cgroup {
    /// The cgroup of this name, without processes: what a killed predecessor left in it is killed.
    pub(super) fn make(slot: &Slot) -> Result<Self> {
        let top = Path::new("/sys/fs/cgroup");
        let (hybrid, named) = (top.join("unified"), top.join("systemd"));
        let cgroup = if hybrid.is_dir() {
            Self {
                unified: hybrid.join(slot.name()),
                named: named.is_dir().then(|| named.join(slot.name())),
            }
        } else {
            Self { unified: top.join(slot.name()), named: None }
        };
        cgroup.renew()?;
        Ok(cgroup)
    }

    /// Removes it with all below it and makes it again, for another life of the machine. Linux
    /// counts the kills of each cgroup and kills a process that is cloned from one cgroup into
    /// another with a different count; systemd clones its services like that, and a cgroup of its
    /// own that survived a kill would lose each service of the next life at its start.
    pub(super) fn renew(&self) -> Result<()> {
        self.remove()?;
        for directory in self.directories() {
            fs::create_dir(directory).map_err(|error| at(directory, &error))?;
        }
        Ok(())
    }

    /// The files to write a process id to for it to join.
    pub(super) fn procs(&self) -> Vec<PathBuf> {
        let file = |directory: &PathBuf| directory.join("cgroup.procs");
        self.directories().map(file).collect()
    }

    /// Kills every process in it and waits until they are gone; nothing where there are none.
    pub(super) fn kill(&self) -> Result<()> {
        let file = self.unified.join("cgroup.kill");
        fs::write(&file, "1").map_err(|error| at(&file, &error))?;
        let events = self.unified.join("cgroup.events");
        let what = format!("no process is left in {}", self.unified.display());
        wait_for(&what, KILL_LIMIT, || {
            let events = fs::read_to_string(&events).ok()?;
            events.contains("populated 0").then_some(())
        })
    }

    fn directories(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.unified).chain(&self.named)
    }

    fn remove(&self) -> Result<()> {
        if self.unified.is_dir() {
            self.kill()?;
        }
        for directory in self.directories().filter(|directory| directory.is_dir()) {
            let what = format!("{} could be removed", directory.display());
            wait_for(&what, KILL_LIMIT, || remove_tree(directory).ok())?;
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{error}");
        }
    }
}

/// A cgroup's files cannot be deleted, its directories can, from the leaves.
fn remove_tree(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn at(path: &Path, error: &std::io::Error) -> MachineError {
    MachineError::new(format!("cgroup {}: {error}", path.display()))
}

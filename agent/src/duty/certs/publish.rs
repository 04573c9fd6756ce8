//! What consumers see: `<consumer>/<certificate>/<generation>/` with four files, and a relative
//! link `current` beside the generations.
//!
//! A generation is published in steps: written, checked and fsynced; `current` swapped by rename;
//! a pause for readers in the middle; then the files of the superseded generation unlinked. *That
//! unlink is the notification*: kubelet and kube-apiserver watch the inode behind the link and
//! never look again otherwise. What a crash leaves between the steps is healed at the next start.
//! What we did not write is told and never touched.

mod look;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::store::{Generation, Material};
use crate::error::{Code, Context, Error, Result};
use crate::host::clock::Clock;
use crate::host::files::{self, Entry, FileKind, Root};

use look::{
    Current, current, is_complete, is_own_dir, is_own_file, load, newest_complete, strange,
};
pub use look::{generations, inspect, strangers, superseded};

/// Where consumers find their certificates; made for all to pass by systemd-tmpfiles.
pub const TOP: &str = "/var/lib/nodeagent-certs";

/// The link to the generation in force.
pub const CURRENT: &str = "current";

/// The files of a published generation.
pub const FILES: [&str; 4] = ["cert.pem", "key.pem", "ca.pem", "pair.pem"];

/// How long readers in the middle have to finish: with an immediate unlink, one in four of them
/// met a missing file, with this pause none of 22,000 did.
const READERS: Duration = Duration::from_millis(100);

const DIR_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;

/// One certificate for one consumer: where it is published, and for which group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The consumer's name.
    pub consumer: String,
    /// The certificate's name.
    pub certificate: String,
    /// The group that may read it.
    pub gid: u32,
}

/// A generation to be published.
#[derive(Clone, Copy, Debug)]
pub struct Edition<'a> {
    /// Its number, above all that were published.
    pub generation: Generation,
    /// What it consists of.
    pub material: &'a Material,
}

/// What is published.
#[derive(Debug)]
pub enum Published {
    /// Nothing yet: there is no `current`.
    Absent,
    /// A whole generation whose key fits.
    Sound {
        /// Its number.
        generation: Generation,
        /// What is in it.
        material: Material,
    },
    /// `current` leads nowhere, or to what is torn, tampered with, or not readable for its group.
    Broken {
        /// What is wrong, with the path.
        reason: String,
    },
    /// Something that we did not write stands where we write.
    Foreign {
        /// What it is, with the path.
        what: String,
    },
}

/// What healing did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healed {
    /// Nothing: all is well, or nothing could be done.
    Nothing,
    /// The files of these superseded generations are gone.
    Retired(Vec<Generation>),
    /// `current` leads to this complete generation again.
    Adopted(Generation),
}

impl Target {
    /// The directory with the generations and `current`.
    pub fn dir(&self) -> PathBuf {
        self.consumer_dir().join(&self.certificate)
    }

    /// The path by which a consumer reads one of [`FILES`].
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir().join(CURRENT).join(name)
    }

    fn consumer_dir(&self) -> PathBuf {
        Path::new(TOP).join(&self.consumer)
    }

    fn generation(&self, generation: Generation) -> PathBuf {
        self.dir().join(generation.to_string())
    }
}

/// Publishes a generation, all steps.
pub async fn publish(
    root: &Root,
    clock: &dyn Clock,
    target: &Target,
    edition: Edition<'_>,
) -> Result<()> {
    place(root, target, edition)?;
    swap(root, target, edition.generation)?;
    clock.sleep(READERS).await;
    // The generation is in force. What could not be retired is seen at the next look, and the
    // publication is carried to its end then.
    retire(root, target, edition.generation).ok();
    Ok(())
}

/// First step: the new generation is written, read back, checked and made durable; nobody sees
/// it yet. On failure what was written of it is removed again.
pub fn place(root: &Root, target: &Target, edition: Edition<'_>) -> Result<()> {
    refuse_foreign(root, target)?;
    let dir = target.generation(edition.generation);
    if root.stat(&dir)?.is_some() {
        return Err(foreign(root, &dir, "is there already"));
    }
    prepare(root, target)?;
    let placed = write(root, target, edition).and_then(|()| root.fsync_dir(&target.dir()));
    if placed.is_err() {
        // The first error is the one to tell; what stays is removed by the next `retire`.
        remove(root, &dir).ok();
    }
    placed
}

/// Second step: `current` leads to the new generation, durably.
pub fn swap(root: &Root, target: &Target, generation: Generation) -> Result<()> {
    refuse_foreign(root, target)?;
    root.swap_link(&target.dir(), CURRENT, &generation.to_string())
}

/// Last step: our files of every other generation are unlinked, which is what tells the
/// consumers. Strangers among them stay. Gives the generations that had files of ours.
pub fn retire(root: &Root, target: &Target, kept: Generation) -> Result<Vec<Generation>> {
    let current = current(root, target)?;
    if current != Current::To(kept) {
        let text = format!("current does not lead to {kept}");
        return Err(Error::new(Code::Bug, text).at(root.path(&target.dir()).display()));
    }
    let temporary = target.dir().join(files::temporary(CURRENT));
    if root.stat(&temporary)?.is_some_and(|stat| stat.kind == FileKind::Link) {
        root.unlink(&temporary)?;
    }
    let (mut retired, mut outcome) = (Vec::new(), Ok(()));
    for generation in generations(root, target)? {
        if generation == kept {
            continue;
        }
        // One that a failing disk does not let go keeps none of the others.
        match remove(root, &target.generation(generation)) {
            Ok(true) => retired.push(generation),
            Ok(false) => {}
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    outcome.map(|()| retired)
}

/// Brings order into what a crash left between the steps. Only where `current` leads to a
/// generation that passes all checks are the others retired; where it leads nowhere, the newest
/// complete generation is adopted. Anything else is left to the next publication.
pub fn heal(root: &Root, target: &Target) -> Result<Healed> {
    let generation = match current(root, target)? {
        Current::Foreign(_) => return Ok(Healed::Nothing),
        Current::To(generation) if is_complete(root, target, generation)? => {
            let retired = retire(root, target, generation)?;
            let nothing = retired.is_empty();
            return Ok(if nothing { Healed::Nothing } else { Healed::Retired(retired) });
        }
        Current::To(_) | Current::Missing => newest_complete(root, target)?,
    };
    let Some(generation) = generation else {
        return Ok(Healed::Nothing);
    };
    swap(root, target, generation)?;
    retire(root, target, generation)?;
    Ok(Healed::Adopted(generation))
}

fn refuse_foreign(root: &Root, target: &Target) -> Result<()> {
    match current(root, target)? {
        Current::Foreign(what) => Err(Error::new(Code::Foreign, what).advise(format!(
            "nodeagent did not write it and leaves it: move it out of {}",
            root.path(&target.dir()).display()
        ))),
        _ => Ok(()),
    }
}

/// The directories above the generations. The top is systemd-tmpfiles' business where it is.
fn prepare(root: &Root, target: &Target) -> Result<()> {
    if root.stat(Path::new(TOP))?.is_none() {
        root.make_dir(Path::new(TOP), 0o755, None)?;
    }
    root.make_dir(&target.consumer_dir(), DIR_MODE, Some(target.gid))?;
    root.make_dir(&target.dir(), DIR_MODE, Some(target.gid))
}

fn write(root: &Root, target: &Target, edition: Edition<'_>) -> Result<()> {
    let dir = target.generation(edition.generation);
    let material = edition.material;
    let gid = Some(target.gid);
    let pair = material.pair();
    let contents = [&material.cert, material.key.expose(), &material.ca, pair.expose()];
    let files = FILES.into_iter().zip(contents.map(str::as_bytes)).collect::<Vec<_>>();
    root.write_dir(&dir, &files, FILE_MODE, gid)?;
    let back = load(root, target, edition.generation).during("reading back")?;
    let same = back.cert == material.cert
        && back.key.expose() == material.key.expose()
        && back.ca == material.ca;
    if !same {
        let text = "what was read back is not what was written";
        return Err(Error::new(Code::Disk, text).at(root.path(&dir).display()));
    }
    Ok(())
}

/// Unlinks our files in a generation, and the directory if nothing else is in it. A second hard
/// link (a backup's) is no reason to keep ours: the file itself stays with the other link.
fn remove(root: &Root, dir: &Path) -> Result<bool> {
    if !root.stat(dir)?.is_some_and(|stat| is_own_dir(&stat)) {
        return Ok(false);
    }
    let entries = root.list(dir)?;
    let ours: Vec<&Entry> = entries.iter().filter(|entry| is_own_file(entry)).collect();
    for entry in &ours {
        root.unlink(&dir.join(&entry.name))?;
    }
    if ours.len() == entries.len() {
        root.remove_dir(dir)?;
    }
    Ok(!ours.is_empty())
}

fn foreign(root: &Root, path: &Path, what: &str) -> Error {
    Error::new(Code::Foreign, strange(root, path, what)).advise("move it away")
}

#[cfg(test)]
mod tests;

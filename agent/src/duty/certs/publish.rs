//! What consumers see: `<consumer>/<certificate>/<generation>/` with four files, and a relative
//! link `current` beside the generations.
//!
//! A generation is published in steps: written, checked and fsynced; `current` swapped by rename;
//! a pause for readers in the middle; then the files of the superseded generation unlinked. *That
//! unlink is the notification*: kubelet and kube-apiserver watch the inode behind the link and
//! never look again otherwise. What a crash leaves between the steps is healed at the next start.
//! What we did not write is told and never touched.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::leaf;
use super::store::{Generation, Material};
use crate::error::{Code, Context, Error, Result};
use crate::host::clock::Clock;
use crate::host::files::{self, Entry, FileKind, Root, Stat};
use crate::secret::Secret;

/// Where consumers find their certificates; made for all to pass by systemd-tmpfiles.
pub const TOP: &str = "/var/lib/nodeagent-certs";

/// The link to the generation in force.
pub const CURRENT: &str = "current";

/// The files of a published generation.
pub const FILES: [&str; 4] = ["cert.pem", "key.pem", "ca.pem", "pair.pem"];

/// How long readers in the middle have to finish: with an immediate unlink, one in four of them
/// met a missing file, with this pause none of 22,000 did.
const READERS: Duration = Duration::from_millis(100);

/// The largest file that is read back, in bytes: leaf, chain and key in one.
const FILE_LIMIT: usize = leaf::BUNDLE_LIMIT;

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
    retire(root, target, edition.generation).map(|_| ())
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
    if root
        .stat(&temporary)?
        .is_some_and(|stat| stat.kind == FileKind::Link)
    {
        root.unlink(&temporary)?;
    }
    let mut retired = Vec::new();
    for generation in generations(root, target)? {
        if generation != kept && remove(root, &target.generation(generation))? {
            retired.push(generation);
        }
    }
    Ok(retired)
}

/// The numbers that are taken, oldest first.
pub fn generations(root: &Root, target: &Target) -> Result<Vec<Generation>> {
    let entries = root.list(&target.dir())?;
    Ok(entries
        .iter()
        .filter_map(|entry| Generation::parse(&entry.name))
        .collect())
}

/// Looks at what is published, through `current` as a consumer does.
pub fn inspect(root: &Root, target: &Target) -> Result<Published> {
    let generation = match current(root, target)? {
        Current::Missing => return Ok(Published::Absent),
        Current::Foreign(what) => return Ok(Published::Foreign { what }),
        Current::To(generation) => generation,
    };
    let looked = open_to_group(root, target).and_then(|()| load(root, target, generation));
    match looked {
        Ok(material) => Ok(Published::Sound {
            generation,
            material,
        }),
        Err(error) if error.code() == Code::CertificateBad => Ok(Published::Broken {
            reason: format!("{error:#}"),
        }),
        Err(error) => Err(error),
    }
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
            return Ok(if nothing {
                Healed::Nothing
            } else {
                Healed::Retired(retired)
            });
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

/// What lies among the generations and is not ours, for a person to look at.
pub fn strangers(root: &Root, target: &Target) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in root.list(&target.dir())? {
        let path = target.dir().join(&entry.name);
        if is_generation(&entry) {
            let inside = root.list(&path)?;
            let strange = inside
                .iter()
                .filter(|file| !is_own_file(file) || file.stat.links > 1);
            found.extend(strange.map(|file| tell(root, &path, file)));
        } else if !(is_own_link(&entry.stat) && is_link_name(&entry.name)) {
            found.push(tell(root, &target.dir(), &entry));
        }
    }
    Ok(found)
}

/// Where `current` leads.
#[derive(Debug, PartialEq, Eq)]
enum Current {
    Missing,
    To(Generation),
    Foreign(String),
}

fn current(root: &Root, target: &Target) -> Result<Current> {
    for dir in [target.consumer_dir(), target.dir()] {
        match root.stat(&dir)? {
            None => return Ok(Current::Missing),
            Some(stat) if is_own_dir(&stat) => {}
            Some(_) => {
                return Ok(Current::Foreign(strange(
                    root,
                    &dir,
                    "is not our directory",
                )));
            }
        }
    }
    let link = target.dir().join(CURRENT);
    let Some(stat) = root.stat(&link)? else {
        return Ok(Current::Missing);
    };
    if !is_own_link(&stat) {
        return Ok(Current::Foreign(strange(root, &link, "is not our link")));
    }
    let to = root.read_link(&link)?.unwrap_or_default();
    Ok(match Generation::parse(&to) {
        Some(generation) => Current::To(generation),
        None => Current::Foreign(strange(root, &link, &format!("leads to {to:?}"))),
    })
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
    root.make_dir(&dir, DIR_MODE, gid)?;
    let pair = material.pair();
    let contents = [
        &material.cert,
        material.key.expose(),
        &material.ca,
        pair.expose(),
    ];
    for (name, content) in FILES.into_iter().zip(contents) {
        root.write_new(&dir.join(name), content.as_bytes(), FILE_MODE, gid)?;
    }
    root.fsync_dir(&dir)?;
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

/// A generation that is whole, ours, readable for its group, and whose parts fit each other;
/// what does not is [`Code::CertificateBad`].
fn load(root: &Root, target: &Target, generation: Generation) -> Result<Material> {
    let dir = target.generation(generation);
    check_access(root, &dir, FileKind::Directory, (DIR_MODE, target.gid))?;
    let read = |name: &str| -> Result<String> {
        let path = dir.join(name);
        check_access(root, &path, FileKind::File, (FILE_MODE, target.gid))?;
        let bytes = root.read(&path, FILE_LIMIT)?;
        String::from_utf8(bytes).map_err(|_| flaw(root, &path, "is not text"))
    };
    let [cert, key, ca, pair] = FILES;
    let (key, pair) = (Secret::new(read(key)?), Secret::new(read(pair)?));
    let material = Material::published(read(cert)?, key, read(ca)?);
    material.check().at(root.path(&dir).display())?;
    if pair.expose() != material.pair().expose() {
        return Err(flaw(
            root,
            &dir.join(FILES[3]),
            "is not certificate and key",
        ));
    }
    Ok(material)
}

/// The directories above are open to the group, and to nobody else.
fn open_to_group(root: &Root, target: &Target) -> Result<()> {
    for dir in [target.consumer_dir(), target.dir()] {
        check_access(root, &dir, FileKind::Directory, (DIR_MODE, target.gid))?;
    }
    Ok(())
}

fn check_access(root: &Root, path: &Path, kind: FileKind, (mode, gid): (u32, u32)) -> Result<()> {
    let Some(stat) = root.stat(path)? else {
        return Err(flaw(root, path, "is missing"));
    };
    if stat.kind != kind || stat.uid != files::own_uid() {
        return Err(flaw(root, path, "is not ours"));
    }
    if stat.mode != mode || stat.gid != gid {
        let text = format!(
            "has mode {:04o} and group {}, not {mode:04o} and {gid}",
            stat.mode, stat.gid
        );
        return Err(flaw(root, path, &text));
    }
    if stat.size > FILE_LIMIT as u64 && kind == FileKind::File {
        return Err(flaw(root, path, &format!("has {} bytes", stat.size)));
    }
    Ok(())
}

fn is_complete(root: &Root, target: &Target, generation: Generation) -> Result<bool> {
    match load(root, target, generation) {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Code::CertificateBad => Ok(false),
        Err(error) => Err(error),
    }
}

fn newest_complete(root: &Root, target: &Target) -> Result<Option<Generation>> {
    for generation in generations(root, target)?.into_iter().rev() {
        if is_complete(root, target, generation)? {
            return Ok(Some(generation));
        }
    }
    Ok(None)
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

fn is_generation(entry: &Entry) -> bool {
    Generation::parse(&entry.name).is_some() && is_own_dir(&entry.stat)
}

fn is_own_file(entry: &Entry) -> bool {
    FILES.contains(&entry.name.as_str())
        && entry.stat.kind == FileKind::File
        && entry.stat.uid == files::own_uid()
}

fn is_own_dir(stat: &Stat) -> bool {
    stat.kind == FileKind::Directory && stat.uid == files::own_uid()
}

fn is_own_link(stat: &Stat) -> bool {
    stat.kind == FileKind::Link && stat.uid == files::own_uid()
}

fn is_link_name(name: &str) -> bool {
    name == CURRENT || name == files::temporary(CURRENT)
}

fn tell(root: &Root, dir: &Path, entry: &Entry) -> String {
    let what = match entry.stat.kind {
        FileKind::File if entry.stat.links > 1 => "has a second hard link",
        FileKind::File => "is a file of somebody else",
        FileKind::Directory => "is a directory of somebody else",
        FileKind::Link => "is a link of somebody else",
        FileKind::Other => "is neither file nor directory",
    };
    strange(root, &dir.join(&entry.name), what)
}

fn strange(root: &Root, path: &Path, what: &str) -> String {
    format!("{} {what}", root.path(path).display())
}

fn foreign(root: &Root, path: &Path, what: &str) -> Error {
    Error::new(Code::Foreign, strange(root, path, what)).advise("move it away")
}

fn flaw(root: &Root, path: &Path, what: &str) -> Error {
    Error::new(Code::CertificateBad, strange(root, path, what))
}

#[cfg(test)]
mod tests;

//! Looking at what is published, as it really is: whose, whole, readable for its group, and its
//! parts fitting each other. Nothing here changes anything.

use std::path::Path;

use super::super::leaf;
use super::super::store::{Generation, Material};
use super::{CURRENT, DIR_MODE, FILE_MODE, FILES, Published, Target};
use crate::error::{Code, Context, Error, Result};
use crate::host::files::{self, Entry, FileKind, Root, Stat};
use crate::secret::Secret;

/// The largest file that is read back, in bytes: leaf, chain and key in one.
const FILE_LIMIT: usize = leaf::BUNDLE_LIMIT;

/// The numbers that are taken, oldest first.
pub fn generations(root: &Root, target: &Target) -> Result<Vec<Generation>> {
    let entries = root.list(&target.dir())?;
    Ok(entries.iter().filter_map(|entry| Generation::parse(&entry.name)).collect())
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
        Ok(material) => Ok(Published::Sound { generation, material }),
        Err(error) if error.code() == Code::CertificateBad => {
            Ok(Published::Broken { reason: format!("{error:#}") })
        }
        Err(error) => Err(error),
    }
}

/// What lies among the generations and is not ours, for a person to look at.
pub fn strangers(root: &Root, target: &Target) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in root.list(&target.dir())? {
        let path = target.dir().join(&entry.name);
        if is_generation(&entry) {
            let inside = root.list(&path)?;
            let strange = inside.iter().filter(|file| !is_own_file(file) || file.stat.links > 1);
            found.extend(strange.map(|file| tell(root, &path, file)));
        } else if !(is_own_link(&entry.stat) && is_link_name(&entry.name)) {
            found.push(tell(root, &target.dir(), &entry));
        }
    }
    Ok(found)
}

/// Where `current` leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Current {
    Missing,
    To(Generation),
    Foreign(String),
}

pub(super) fn current(root: &Root, target: &Target) -> Result<Current> {
    for dir in [target.consumer_dir(), target.dir()] {
        match root.stat(&dir)? {
            None => return Ok(Current::Missing),
            Some(stat) if is_own_dir(&stat) => {}
            Some(_) => {
                return Ok(Current::Foreign(strange(root, &dir, "is not our directory")));
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

/// A generation that is whole, ours, readable for its group, and whose parts fit each other;
/// what does not is [`Code::CertificateBad`].
pub(super) fn load(root: &Root, target: &Target, generation: Generation) -> Result<Material> {
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
        return Err(flaw(root, &dir.join(FILES[3]), "is not certificate and key"));
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
        let text =
            format!("has mode {:04o} and group {}, not {mode:04o} and {gid}", stat.mode, stat.gid);
        return Err(flaw(root, path, &text));
    }
    if stat.size > FILE_LIMIT as u64 && kind == FileKind::File {
        return Err(flaw(root, path, &format!("has {} bytes", stat.size)));
    }
    Ok(())
}

pub(super) fn is_complete(root: &Root, target: &Target, generation: Generation) -> Result<bool> {
    match load(root, target, generation) {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Code::CertificateBad => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn newest_complete(root: &Root, target: &Target) -> Result<Option<Generation>> {
    for generation in generations(root, target)?.into_iter().rev() {
        if is_complete(root, target, generation)? {
            return Ok(Some(generation));
        }
    }
    Ok(None)
}

/// The generations beside `kept` that still have something of ours: their unlink, which tells the
/// consumers, is open. A directory that a stranger's file keeps there is done with.
pub fn superseded(root: &Root, target: &Target, kept: Generation) -> Result<Vec<Generation>> {
    let mut found = Vec::new();
    for entry in root.list(&target.dir())?.iter().filter(|entry| is_generation(entry)) {
        let inside = root.list(&target.dir().join(&entry.name))?;
        let ours = inside.is_empty() || inside.iter().any(is_own_file);
        let other = Generation::parse(&entry.name).filter(|generation| *generation != kept);
        found.extend(other.filter(|_| ours));
    }
    Ok(found)
}

fn is_generation(entry: &Entry) -> bool {
    Generation::parse(&entry.name).is_some() && is_own_dir(&entry.stat)
}

pub(super) fn is_own_file(entry: &Entry) -> bool {
    FILES.contains(&entry.name.as_str())
        && entry.stat.kind == FileKind::File
        && entry.stat.uid == files::own_uid()
}

pub(super) fn is_own_dir(stat: &Stat) -> bool {
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

pub(super) fn strange(root: &Root, path: &Path, what: &str) -> String {
    format!("{} {what}", root.path(path).display())
}

fn flaw(root: &Root, path: &Path, what: &str) -> Error {
    Error::new(Code::CertificateBad, strange(root, path, what))
}

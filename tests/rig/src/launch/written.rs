//! What is on a disk, so that two looks tell what was written in between; and what a configuration
//! of Ignition names, so that the one can be held against the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What Ignition writes about itself.
const RESULT: &str = "/etc/.ignition-result.json";
/// Where it writes which units are enabled, if the configuration says so of any.
const PRESET: &str = "/etc/systemd/system-preset/20-ignition.preset";

/// What tells one state of a file from another. Directories have neither size nor time: a new entry
/// changes both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    mode: u32,
    owner: (u32, u32),
    inode: u64,
    size: u64,
    changed: (i64, i64),
    target: PathBuf,
}

/// Everything on a disk, by its path.
pub type Disk = BTreeMap<String, Entry>;

/// Reads the tree below a root; links are not followed.
pub(super) fn read(root: &Path) -> Result<Disk, String> {
    let mut disk = Disk::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let at = |error: std::io::Error| format!("{}: {error}", directory.display());
        for entry in fs::read_dir(&directory).map_err(at)? {
            let path = entry.map_err(at)?.path();
            let data = fs::symlink_metadata(&path).map_err(at)?;
            let target = fs::read_link(&path).unwrap_or_default();
            let mut entry = Entry {
                mode: data.mode(),
                owner: (data.uid(), data.gid()),
                inode: data.ino(),
                size: data.size(),
                changed: (data.mtime(), data.mtime_nsec()),
                target,
            };
            if data.is_dir() {
                (entry.inode, entry.size, entry.changed) = (0, 0, (0, 0));
                open.push(path.clone());
            }
            let relative = path.strip_prefix(root).map_err(|error| error.to_string())?;
            disk.insert(format!("/{}", relative.display()), entry);
        }
    }
    Ok(disk)
}

/// The paths that differ between two looks; new directories count only where nothing is in them,
/// for a path that is written implies those above it.
#[must_use]
pub fn changed(before: &Disk, after: &Disk) -> BTreeSet<String> {
    let of_both: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differ = of_both.into_iter().filter(|path| before.get(*path) != after.get(*path));
    let differ: BTreeSet<String> = differ.cloned().collect();
    let above = |path: &String| differ.range(format!("{path}/")..).next();
    let holds =
        |path: &String| above(path).is_some_and(|next| next.starts_with(&format!("{path}/")));
    differ.iter().filter(|path| !holds(path)).cloned().collect()
}

/// The paths that a configuration of Ignition names: files, links, directories, units and their
/// drop-ins, and what Ignition writes of its own accord.
#[must_use]
pub fn named(config: &Value) -> BTreeSet<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut paths = BTreeSet::from([RESULT.to_owned()]);
    for kind in ["files", "links", "directories"] {
        paths.extend(list(&config["storage"][kind]).iter().map(|node| text(&node["path"])));
    }
    for unit in list(&config["systemd"]["units"]) {
        let path = format!("/etc/systemd/system/{}", text(&unit["name"]));
        let dropins = list(&unit["dropins"]);
        paths.extend(dropins.iter().map(|part| format!("{path}.d/{}", text(&part["name"]))));
        if unit["enabled"].is_boolean() {
            paths.insert(PRESET.to_owned());
        }
        if unit["contents"].is_string() {
            paths.insert(path);
        }
    }
    paths
}

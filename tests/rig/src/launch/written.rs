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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_removed_or_changed_is_told_by_its_path() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("it is made");
            fs::write(path, text).expect("it is written");
        };
        for path in ["etc/kept", "etc/changed", "etc/removed"] {
            write(path, "1");
        }
        let before = read(root.path()).expect("a tree");
        write("etc/changed", "22");
        write("opt/bin/program", "");
        fs::create_dir(root.path().join("empty")).expect("it is made");
        fs::remove_file(root.path().join("etc/removed")).expect("it is removed");
        std::os::unix::fs::symlink("kept", root.path().join("etc/link")).expect("a link");
        let after = read(root.path()).expect("a tree");
        let told: Vec<String> = changed(&before, &after).into_iter().collect();
        let wanted = ["/empty", "/etc/changed", "/etc/link", "/etc/removed", "/opt/bin/program"];
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_configuration_names_what_it_places() {
        let config = json!({
            "storage": { "files": [{ "path": "/a" }], "links": [{ "path": "/b" }] },
            "systemd": { "units": [
                { "name": "c.service", "contents": "x", "enabled": true },
                { "name": "d.service", "dropins": [{ "name": "1.conf" }] },
            ] },
        });
        let told: Vec<String> = named(&config).into_iter().collect();
        let units = "/etc/systemd/system";
        let wanted = ["/a", "/b", RESULT, PRESET];
        let mut wanted: Vec<String> = wanted.map(str::to_owned).to_vec();
        wanted.extend([format!("{units}/c.service"), format!("{units}/d.service.d/1.conf")]);
        wanted.sort();
        assert_eq!(told, wanted);
    }
}

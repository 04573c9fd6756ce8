//! The group that may read a consumer's files. A number is taken as it is; a name is looked up in
//! `/etc/group` and nowhere else, because the static binary (musl) knows no other source: groups
//! of `/usr/lib/group`, LDAP or systemd-userdb have to be given by number.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Code, Error, Result};

/// 1 MiB: about 20,000 groups, far more than any node has.
const LIMIT: u64 = 1 << 20;

/// The ids that a process of this user namespace can give to a file: `inside outside count`.
const MAP: &str = "/proc/self/gid_map";

/// The group id of a name or a number; `file` is the `/etc/group` of the root in question.
pub fn group_id(file: &Path, group: &str) -> Result<u32> {
    let id = match group.parse::<u32>() {
        Ok(id) => numeric(id)?,
        Err(_) => named(file, group)?,
    };
    match read(Path::new(MAP)) {
        Ok(map) if !is_mapped(id, &map) => Err(Error::new(
            Code::Config,
            format!("the group id {id} does not exist in this process's user namespace"),
        )
        .at(MAP)
        .advise("a drop-in for nodeagent.service with PrivateUsers=no; see docs/security.md")),
        _ => Ok(id),
    }
}

fn named(file: &Path, group: &str) -> Result<u32> {
    let text = read(file)?;
    text.lines().find_map(|line| id_of(line, group)).ok_or_else(|| {
        Error::new(Code::Config, format!("there is no group {group:?}"))
            .at(file.display())
            .advise("give the group by its number (getent group NAME), or add it to the file")
    })
}

fn is_mapped(id: u32, map: &str) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next().and_then(std::result::Result::ok);
        let (Some(inside), Some(_outside), Some(count)) = (next(), next(), next()) else {
            return false;
        };
        id.checked_sub(inside).is_some_and(|place| place < count)
    })
}

/// The kernel reads the highest number as "leave the group as it is".
fn numeric(id: u32) -> Result<u32> {
    if id == u32::MAX {
        return Err(Error::new(Code::Config, format!("{id} is no group id")));
    }
    Ok(id)
}

fn read(file: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|open| open.take(LIMIT).read_to_end(&mut bytes))
        .map_err(|error| Error::disk(file, &error).advise("give the group by its number"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `name:password:id:members`
fn id_of(line: &str, group: &str) -> Option<u32> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let id = fields.nth(1)?.parse().ok()?;
    (name == group && id != u32::MAX).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(group: &str) -> Result<u32> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("group");
        let text = "root:x:0:\nbroken\netcd:x:232:core,etcd\netcd-2:x:233:\nlast:x:nine:\n";
        std::fs::write(&file, text).expect("a file in it");
        group_id(&file, group)
    }

    #[test]
    fn names_come_from_the_file_and_numbers_from_themselves() {
        assert_eq!(check("root").ok(), Some(0));
        assert_eq!(check("etcd").ok(), Some(232));
        assert_eq!(check("etcd-2").ok(), Some(233));
        assert_eq!(check("4711").ok(), Some(4711));
    }

    #[test]
    fn a_group_beyond_the_namespace_is_none() {
        let identity = "         0          0      65536\n";
        assert!(is_mapped(0, identity) && is_mapped(65_535, identity));
        assert!(!is_mapped(65_536, identity));
        let whole = "0 0 4294967295\n";
        assert!(is_mapped(1_000_000, whole));
        let two = "0 1000 1\n100 5000 10\n";
        assert!(is_mapped(0, two) && is_mapped(109, two));
        assert!(!is_mapped(1, two) && !is_mapped(110, two) && !is_mapped(99, two));
    }

    #[test]
    fn what_is_no_group_is_told_with_the_file() {
        for group in ["core", "broken", "last", "", "4294967295", "-1"] {
            let error = check(group).expect_err(group);
            assert_eq!(error.code(), Code::Config, "{group}");
        }
        let error = check("core").expect_err("a member, not a group");
        assert!(format!("{error:#}").contains("/group: there is no group \"core\""));
    }

    #[test]
    fn a_number_needs_no_file() {
        assert_eq!(group_id(Path::new("/nonexistent"), "12").ok(), Some(12));
        let error = group_id(Path::new("/nonexistent"), "etcd").expect_err("no file");
        assert_eq!(error.code(), Code::Disk);
    }
}

//! Whether this node was ever a member of etcd. An empty data directory alone does not tell: a
//! member that has lost its data and starts as a new one forms a second cluster, or votes twice.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::facts;
use crate::config::plane::Etcd;
use crate::error::{Code, Error, Result, said};
use crate::host::files::Root;
use crate::node::Node;
use crate::render::Membership;

/// Where it is kept.
const PATH: &str = "/var/lib/nodeagent/etcd-member.json";

const LIMIT: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Member {
    since: jiff::Timestamp,
    data_dir: std::path::PathBuf,
}

/// Whether this node was ever a member. A file that cannot be read says that it was.
pub fn is_formed(root: &Root) -> bool {
    !matches!(root.stat(Path::new(PATH)), Ok(None))
}

/// Notes that this node holds the data of a member, where that is news.
pub fn note(node: &Node, etcd: &Etcd) -> Result<()> {
    if is_formed(&node.root) || !facts::has_data(&node.root, &etcd.data_dir)? {
        return Ok(());
    }
    let member = Member { since: node.clock.now(), data_dir: etcd.data_dir.clone() };
    let bytes = serde_json::to_vec(&member)
        .map_err(|error| Error::new(Code::Bug, error.to_string()).at(PATH))?;
    node.root.write_atomic(Path::new(PATH), &bytes, 0o600, None)
}

/// What etcd may be told: it forms a cluster only where there has never been one.
pub fn of(node: &Node, etcd: &Etcd) -> Membership {
    match (is_formed(&node.root), facts::has_data(&node.root, &etcd.data_dir)) {
        (false, Ok(false)) => Membership::Forming,
        _ => Membership::Formed,
    }
}

/// The same by what is noted alone, for a start while the configuration cannot be read.
pub fn check_noted(root: &Root) -> Result<()> {
    let Some(bytes) = root.read_optional(Path::new(PATH), LIMIT)? else {
        return Ok(());
    };
    let member: Member = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(Code::Disk, said(&error)).at(PATH))?;
    check(root, &member.data_dir)
}

/// Whether etcd may be started: not where its data are gone.
pub fn check(root: &Root, data: &Path) -> Result<()> {
    if !is_formed(root) || facts::has_data(root, data)? {
        return Ok(());
    }
    let place = data.display();
    let text = "this node was a member of etcd, and the data of that member are gone";
    Err(Error::new(Code::EtcdDataGone, text).at(&place).advise(format!(
        "bring the data back (is the volume mounted? findmnt {place}); to replace the member see \
         etcd-data-gone in docs/operating.md, and leave {PATH} where it is"
    )))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DATA: &str = "/var/lib/etcd";

    #[test]
    fn z12_etcd_is_never_begun_anew_where_its_data_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let here = |path: &str| directory.path().join(path.trim_start_matches('/'));
        let starts = || [check(&root, Path::new(DATA)), check_noted(&root)];
        fs::create_dir_all(here(DATA)).unwrap();
        assert!(starts().iter().all(Result::is_ok), "a new node may form a cluster");
        assert!(!is_formed(&root));

        fs::create_dir_all(here("/var/lib/nodeagent")).unwrap();
        let note = format!(r#"{{"since":"2026-11-21T12:00:00Z","data_dir":"{DATA}"}}"#);
        fs::write(here(PATH), note).unwrap();
        fs::create_dir_all(here("/var/lib/etcd/member/wal")).unwrap();
        fs::write(here("/var/lib/etcd/member/wal/0.wal"), "entries").unwrap();
        assert!(starts().iter().all(Result::is_ok), "its data are there");

        // A disk that was replaced, a volume that is not mounted, a log that was wiped.
        fs::remove_file(here("/var/lib/etcd/member/wal/0.wal")).unwrap();
        for emptied in ["/var/lib/etcd/member/wal", "/var/lib/etcd/member", DATA] {
            for refused in starts() {
                let error = refused.unwrap_err();
                assert_eq!(error.code(), Code::EtcdDataGone, "{error:#}");
                assert!(error.advice().is_some_and(|text| text.contains("findmnt /var/lib/etcd")));
            }
            fs::remove_dir(here(emptied)).unwrap();
        }
        assert!(starts().iter().all(Result::is_err));

        fs::write(here(PATH), "torn").unwrap();
        assert!(is_formed(&root), "who cannot tell was a member");
        assert!(starts().iter().all(Result::is_err));
        assert!(!here(DATA).exists(), "nothing was made in its place");
    }
}

//! The shipped data of `packaging/vault` as writes: each file with its values filled in, at the
//! path that it goes to, in the order of docs/vault.md. Nothing is chosen by name, so that a new
//! file is applied and what no file says is not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::SetupOptions;

/// One write.
#[derive(Debug, Clone)]
pub struct Write {
    /// The file, relative to `packaging/vault`.
    pub file: String,
    /// Where it is written to.
    pub path: String,
    /// What is written.
    pub body: Value,
}

impl Write {
    /// The mount, where this makes its authority.
    #[must_use]
    pub fn authority_of(&self) -> Option<&str> {
        self.path.strip_suffix(MAKES_AUTHORITY).map(|mount| mount.trim_end_matches('/'))
    }
}

/// The path below a PKI mount at which its root is made.
const MAKES_AUTHORITY: &str = "root/generate/internal";

/// Where the shipped data is.
#[must_use]
pub fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/vault")
}

/// The auth mount, which comes first: the rest names its accessor.
pub fn auth(options: &SetupOptions) -> Result<Vec<Write>, String> {
    writes(options, &options.values(), |file| rank(file) == 0)
}

/// Everything after the auth mount, in order.
pub fn shipped(options: &SetupOptions, accessor: &str) -> Result<Vec<Write>, String> {
    let mut values = options.values();
    values.insert("auth_accessor", accessor.to_owned());
    writes(options, &values, |file| rank(file) > 0)
}

/// The auth mount, mounts, authorities, the rest, and quotas, which want the mounts to be there
/// and would count what is written to them.
fn rank(file: &str) -> u8 {
    match file {
        _ if file.starts_with("sys/auth/") => 0,
        _ if file.starts_with("sys/mounts/") => 1,
        _ if file.trim_end_matches(".json").ends_with(MAKES_AUTHORITY) => 2,
        _ if file.starts_with("sys/quotas/") => 4,
        _ => 3,
    }
}

fn writes(
    options: &SetupOptions,
    values: &BTreeMap<&'static str, String>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Write>, String> {
    let mut files = files(&data_dir())?;
    files.retain(|file| wanted(file));
    files.sort_by_key(|file| rank(file));
    files.into_iter().map(|file| write(file, options, values)).collect()
}

fn write(
    file: String,
    options: &SetupOptions,
    values: &BTreeMap<&'static str, String>,
) -> Result<Write, String> {
    let full = data_dir().join(&file);
    let text = std::fs::read_to_string(&full).map_err(|e| format!("{}: {e}", full.display()))?;
    let text = fill(&text, values).map_err(|name| format!("{file}: no value for ${{{name}}}"))?;
    let (path, body) = match file.strip_suffix(".hcl") {
        Some(path) => (path, json!({ "policy": text })),
        None => {
            let body = serde_json::from_str(&text).map_err(|e| format!("{file}: {e}"))?;
            (file.trim_end_matches(".json"), body)
        }
    };
    Ok(Write { path: placed(path, options), body, file })
}

/// What a cluster has of its own in a Vault, and what its prefix therefore goes before.
const OF_A_CLUSTER: [&str; 4] = ["pki", "kv", "controller", "worker"];

/// The auth mount is free, the files call it `aws`; and a cluster's own things have its prefix.
fn placed(path: &str, options: &SetupOptions) -> String {
    let mount = &options.auth_mount;
    let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    let auth = usize::from(parts[0] == "sys");
    if parts.len() > auth + 1 && parts[auth] == "auth" && parts[auth + 1] == "aws" {
        parts[auth + 1].clone_from(mount);
    }
    let own = |part: &String| OF_A_CLUSTER.iter().any(|name| part.starts_with(name));
    if let Some(part) = parts.iter_mut().find(|part| own(part)) {
        part.insert_str(0, &options.prefix);
    }
    parts.join("/")
}

/// Puts the values in; the error is the name that has none.
fn fill(text: &str, values: &BTreeMap<&'static str, String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or_else(|| after.to_owned())?;
        filled.push_str(before);
        filled.push_str(values.get(name).ok_or_else(|| name.to_owned())?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// All files below a directory as paths relative to it, sorted; the README is no write.
fn files(root: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let entries =
            std::fs::read_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| e.to_string())?.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let relative = path.strip_prefix(root).map_err(|e| e.to_string())?;
            let name = relative.display().to_string();
            match path.extension().and_then(|kind| kind.to_str()) {
                Some("json" | "hcl") => found.push(name),
                _ if name == "README.md" => {}
                _ => return Err(format!("packaging/vault/{name} is no write: .json or .hcl")),
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auth_mount_and_the_prefix_are_free() {
        let mut options = SetupOptions::new("", "");
        options.auth_mount = "aws-ec2".into();
        options.prefix = "b-".into();
        for (file, path) in [
            ("sys/auth/aws", "sys/auth/aws-ec2"),
            ("auth/aws/config/client", "auth/aws-ec2/config/client"),
            ("auth/aws/role/worker", "auth/aws-ec2/role/b-worker"),
            ("sys/mounts/pki-etcd", "sys/mounts/b-pki-etcd"),
            ("sys/mounts/kv-control-plane", "sys/mounts/b-kv-control-plane"),
            ("sys/policies/acl/controller", "sys/policies/acl/b-controller"),
            ("sys/quotas/rate-limit/pki", "sys/quotas/rate-limit/b-pki"),
            ("sys/quotas/rate-limit/aws-login", "sys/quotas/rate-limit/aws-login"),
            ("pki/roles/controller-manager", "b-pki/roles/controller-manager"),
        ] {
            assert_eq!(placed(file, &options), path);
        }
    }

    #[test]
    fn a_value_that_is_missing_is_named() {
        let values = BTreeMap::from([("a", "1".to_owned())]);
        assert_eq!(fill("x${a}y", &values), Ok("x1y".into()));
        assert_eq!(fill("${b}", &values), Err("b".into()));
    }

    #[test]
    fn every_file_is_one_write_and_no_file_is_left() {
        let options = SetupOptions::new("", "");
        let mut writes = auth(&options).expect("the data");
        writes.extend(shipped(&options, "accessor").expect("the data"));
        let mut written: Vec<&str> = writes.iter().map(|write| write.file.as_str()).collect();
        written.sort_unstable();
        assert_eq!(written, files(&data_dir()).expect("the data directory"));
        let mut paths: Vec<&str> = writes.iter().map(|write| write.path.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), writes.len(), "two files are written to one path");
    }

    #[test]
    fn a_file_that_is_no_write_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("pki.yaml"), "").expect("a file");
        let refused = files(directory.path()).expect_err("no write");
        assert!(refused.contains("pki.yaml is no write"), "{refused}");
    }

    #[test]
    fn quotas_come_last_and_mounts_first() {
        let writes = shipped(&SetupOptions::new("", ""), "accessor").expect("the data");
        let ranks: Vec<u8> = writes.iter().map(|write| rank(&write.file)).collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
        assert_eq!((ranks.first(), ranks.last()), (Some(&1), Some(&4)));
    }
}

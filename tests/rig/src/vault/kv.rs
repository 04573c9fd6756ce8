//! A `kv` version 2 engine: data with check-and-set, for what a cluster has to agree on once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::answer::{Operation, Refusal, Reply};

/// One mount.
#[derive(Debug, Default)]
pub(super) struct Kv {
    secrets: BTreeMap<String, Vec<Version>>,
}

#[derive(Debug)]
struct Version {
    data: Value,
    created: Timestamp,
    deleted: Option<Timestamp>,
}

impl Version {
    fn metadata(&self, number: usize) -> Value {
        json!({
            "created_time": self.created.to_string(),
            "custom_metadata": null,
            "deletion_time": self.deleted.map(|at| at.to_string()).unwrap_or_default(),
            "destroyed": false,
            "version": number,
        })
    }
}

impl Kv {
    pub(super) fn exists(&self, path: &str) -> bool {
        path.strip_prefix("data/").is_some_and(|name| self.secrets.contains_key(name))
    }

    pub(super) fn handle(
        &mut self,
        path: &str,
        operation: Operation,
        body: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Reply, Refusal> {
        let (area, name) = path.split_once('/').unwrap_or((path, ""));
        match (area, operation) {
            ("data", Operation::Read) => Ok(self.read(name)),
            ("data", Operation::Write) => self.write(name, body, now),
            ("data", Operation::Delete) => {
                if let Some(version) = self.secrets.get_mut(name).and_then(|all| all.last_mut()) {
                    version.deleted = Some(now);
                }
                Ok(Reply::NoContent)
            }
            ("metadata", Operation::List) => Ok(Reply::Keys(self.list(name))),
            ("metadata", Operation::Delete) => {
                self.secrets.remove(name);
                Ok(Reply::NoContent)
            }
            _ => Err(Refusal::unsupported_path()),
        }
    }

    fn read(&self, name: &str) -> Reply {
        let Some(versions) = self.secrets.get(name) else {
            return Reply::Absent;
        };
        match versions.last() {
            Some(version) if version.deleted.is_none() => Reply::data(json!({
                "data": version.data,
                "metadata": version.metadata(versions.len()),
            })),
            _ => Reply::Absent,
        }
    }

    fn write(
        &mut self,
        name: &str,
        body: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Reply, Refusal> {
        let data = body.get("data").cloned().ok_or_else(|| Refusal::bad("no data provided"))?;
        let versions = self.secrets.entry(name.to_owned()).or_default();
        let expected = body.get("options").and_then(|options| options.get("cas"));
        if let Some(expected) = expected.and_then(Value::as_u64)
            && usize::try_from(expected).ok() != Some(versions.len())
        {
            let text = "check-and-set parameter did not match the current version";
            return Err(Refusal::bad(text));
        }
        versions.push(Version { data, created: now, deleted: None });
        let number = versions.len();
        Ok(versions.last().map_or(Reply::Absent, |version| Reply::data(version.metadata(number))))
    }

    fn list(&self, folder: &str) -> Vec<String> {
        let prefix = if folder.is_empty() || folder.ends_with('/') {
            folder.to_owned()
        } else {
            format!("{folder}/")
        };
        let below = self.secrets.keys().filter_map(|name| name.strip_prefix(&prefix));
        let mut names: Vec<String> = below
            .map(|rest| match rest.split_once('/') {
                Some((folder, _)) => format!("{folder}/"),
                None => rest.to_owned(),
            })
            .collect();
        names.dedup();
        names
    }
}

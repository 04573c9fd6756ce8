//! What the agent has applied, as one ConfigMap in the cluster: the memory from which pruning
//! takes what to remove. It grows before anything is applied and shrinks after everything else,
//! and each write is a compare-and-swap on the version that was read, so that two agents with
//! different sets never prune by each other's memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Asset, Key, MANAGER, group};
use crate::error::{Code, Context, Error, Result, said};
use crate::wire::kube::Kube;

/// The API's limit for a ConfigMap is 1 MiB; what quotes cost in an answer has to fit as well.
/// It is some 3000 objects.
const LIMIT: usize = 700_000;

const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/nodeagent-assets";

/// Who made an object: only what the agent made may be pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Origin {
    /// It was not there before the agent first applied it.
    Created,
    /// It was there, and the agent's fields were laid over it.
    Adopted,
}

/// One object that was applied, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// What the API calls this very object; unknown until it was seen once.
    pub(super) uid: Option<String>,
    pub(super) origin: Origin,
}

impl Entry {
    pub(super) fn new(asset: &Asset, origin: Origin, uid: Option<String>) -> Entry {
        let Key { kind, namespace, name, .. } = asset.key();
        Entry { api_version: asset.api_version.clone(), kind, namespace, name, uid, origin }
    }

    pub(super) fn key(&self) -> Key {
        Key {
            group: group(&self.api_version).to_owned(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// The content of the inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Inventory {
    /// The digest of the set that was applied last, or began to be.
    pub(super) digest: String,
    /// Whether all of that set was taken and all that it lacks is gone.
    pub(super) complete: bool,
    /// The objects, in the order in which they were applied.
    pub(super) entries: Vec<Entry>,
}

/// An inventory as it was read.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Its content; nothing where there is none, or none that can be read.
    pub(super) inventory: Inventory,
    /// What is wrong with it, where something is.
    pub(super) fault: Option<String>,
    /// The version to swap, where there is an inventory.
    version: Option<String>,
}

/// The object that holds the inventory.
pub(super) fn key() -> Key {
    Key {
        group: String::new(),
        kind: "ConfigMap".into(),
        namespace: "kube-system".into(),
        name: "nodeagent-assets".into(),
    }
}

impl Inventory {
    /// The entries by what they name.
    pub(super) fn by_key(&self) -> BTreeMap<Key, &Entry> {
        self.entries.iter().map(|entry| (entry.key(), entry)).collect()
    }

    fn parse(object: &Value) -> std::result::Result<Inventory, String> {
        let field = |name: &str| {
            object["data"][name].as_str().ok_or_else(|| format!("it has no data.{name}"))
        };
        let entries = field("objects")?
            .lines()
            .enumerate()
            .map(|(at, line)| {
                serde_json::from_str(line)
                    .map_err(|error| format!("object {}: {}", at + 1, said(&error)))
            })
            .collect::<std::result::Result<_, _>>()?;
        let complete = field("state")? == "complete";
        Ok(Inventory { digest: field("digest")?.to_owned(), complete, entries })
    }

    fn render(&self, version: Option<&str>) -> Result<Value> {
        let mut objects = String::new();
        for entry in &self.entries {
            let line = serde_json::to_string(entry)
                .map_err(|error| Error::new(Code::Bug, format!("an inventory: {error}")))?;
            objects.push_str(&line);
            objects.push('\n');
        }
        if objects.len() > LIMIT {
            let count = self.entries.len();
            let text = format!("{count} objects are more than one inventory can name");
            return Err(Error::new(Code::Config, text)
                .advise("put fewer objects into the directory of assets"));
        }
        let mut metadata = json!({ "name": "nodeagent-assets", "namespace": "kube-system" });
        if let Some(version) = version {
            metadata["resourceVersion"] = version.into();
        }
        let state = if self.complete { "complete" } else { "incomplete" };
        let data = json!({ "digest": self.digest, "state": state, "objects": objects });
        Ok(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data,
        }))
    }
}

impl Stored {
    /// Reads the inventory; one that cannot be read forgets, and so prunes nothing.
    pub(super) async fn read(kube: &Kube) -> Result<Stored> {
        let object = kube.get(PATH).await.during("reading the inventory of assets")?;
        let Some(object) = object else {
            return Ok(Stored::default());
        };
        let version = object["metadata"]["resourceVersion"].as_str().map(String::from);
        Ok(match Inventory::parse(&object) {
            Ok(inventory) => Stored { inventory, fault: None, version },
            Err(fault) => Stored { fault: Some(fault), version, ..Stored::default() },
        })
    }

    /// Puts another content in the place of the one that was read, or fails where somebody has
    /// done so since; the same content is not written.
    pub(super) async fn swap(&self, kube: &Kube, inventory: &Inventory) -> Result<()> {
        if self.fault.is_none() && self.inventory == *inventory && self.version.is_some() {
            return Ok(());
        }
        let object = inventory.render(self.version.as_deref())?;
        kube.apply(&object, MANAGER).await.during("writing the inventory of assets")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        let entry = |name: &str, uid: Option<&str>, origin| Entry {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            namespace: "default".into(),
            name: name.into(),
            uid: uid.map(String::from),
            origin,
        };
        let entries =
            vec![entry("a", Some("1-2"), Origin::Created), entry("b", None, Origin::Adopted)];
        Inventory { digest: "d1".into(), complete: true, entries }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = inventory().render(Some("7")).expect("it fits");
        assert_eq!(written["metadata"]["resourceVersion"], "7");
        assert_eq!(Inventory::parse(&written), Ok(inventory()));
    }

    #[test]
    fn an_inventory_that_was_edited_says_what_is_wrong() {
        let mut object = inventory().render(None).expect("it fits");
        object["data"]["objects"] = "{\"kind\":\"Pod\"}\n".into();
        let fault = Inventory::parse(&object).expect_err("half an entry");
        assert!(fault.starts_with("object 1: missing field"), "{fault}");
        object["data"] = Value::Null;
        assert!(Inventory::parse(&object).is_err());
    }

    #[test]
    fn more_than_a_config_map_holds_is_told() {
        let mut large = inventory();
        large.entries[0].name = "n".repeat(LIMIT);
        let error = large.render(None).expect_err("it does not fit");
        assert_eq!(error.code(), Code::Config);
    }
}

//! Takes out of the cluster what an earlier set had and this one has no more: only what this
//! agent made, only that very object, and never what holds data of others.

use serde_json::Value;

use super::MANAGER;
use super::apply::{Outcome, path, remark, uid};
use super::inventory::{Entry, Origin};
use crate::error::Result;
use crate::wire::kube::Kube;

/// Kinds whose end is the end of what others keep in them: a person deletes those.
const HOLDS_DATA: [&str; 4] =
    ["CustomResourceDefinition", "Namespace", "PersistentVolume", "PersistentVolumeClaim"];

/// What became of one object.
enum Fate {
    Gone,
    Removed,
    Stays(String),
}

/// Prunes `rest` from the last applied to the first; gives back what has to be tried again.
pub(super) async fn prune(
    kube: &Kube,
    rest: Vec<Entry>,
    applied: &[Entry],
    outcome: &mut Outcome,
) -> Vec<Entry> {
    let mut again = Vec::new();
    for entry in rest.into_iter().rev() {
        // A kind that moved to another group shows the same object under both.
        if entry.uid.is_some() && applied.iter().any(|other| other.uid == entry.uid) {
            continue;
        }
        let key = entry.key();
        match fate(kube, &entry).await {
            Ok(Fate::Gone) => {}
            Ok(Fate::Removed) => outcome.pruned.push(key.to_string()),
            Ok(Fate::Stays(reason)) => outcome.kept.push(remark(&key, "", reason)),
            Err(error) => {
                let reason = format!("is to be pruned: {error:#}");
                outcome.pending.push(remark(&key, "", reason));
                again.push(entry);
            }
        }
    }
    again.reverse();
    again
}

async fn fate(kube: &Kube, entry: &Entry) -> Result<Fate> {
    let Some(resource) = kube.resource(&entry.api_version, &entry.kind).await? else {
        // With the definition of a kind all its objects went.
        return Ok(Fate::Gone);
    };
    let path = path(&resource, &entry.key());
    let Some(object) = kube.get(&path).await? else {
        return Ok(Fate::Gone);
    };
    if let Err(reason) = ours(entry, &object) {
        return Ok(Fate::Stays(reason));
    }
    let Some(uid) = uid(&object) else {
        return Ok(Fate::Stays("the API shows it without a uid".into()));
    };
    Ok(if kube.delete(&path, Some(&uid)).await? { Fate::Removed } else { Fate::Gone })
}

/// Whether the object may go; the error says why it stays.
fn ours(entry: &Entry, object: &Value) -> std::result::Result<(), String> {
    if HOLDS_DATA.contains(&entry.kind.as_str()) {
        return Err(format!(
            "is in no manifest any more; a {} takes with it what others keep there: delete it by \
             hand",
            entry.kind
        ));
    }
    if entry.origin == Origin::Adopted {
        return Err("is in no manifest any more; it was there before the agent, and stays".into());
    }
    if entry.uid.is_some() && entry.uid != uid(object) {
        return Err("is in no manifest any more; somebody made it anew, and it stays".into());
    }
    let managers = object["metadata"]["managedFields"].as_array();
    let managed = managers.is_some_and(|list| list.iter().any(|one| one["manager"] == MANAGER));
    match managed {
        true => Ok(()),
        false => {
            Err("is in no manifest any more; the agent has no field in it, and it stays".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_agent_made_and_still_has_may_go() {
        for (kind, uid, origin, manager, goes) in [
            ("ConfigMap", Some("1"), Origin::Created, MANAGER, true),
            ("ConfigMap", None, Origin::Created, MANAGER, true),
            ("ConfigMap", Some("2"), Origin::Created, MANAGER, false),
            ("ConfigMap", Some("1"), Origin::Adopted, MANAGER, false),
            ("ConfigMap", Some("1"), Origin::Created, "kubectl", false),
            ("Namespace", Some("1"), Origin::Created, MANAGER, false),
            ("CustomResourceDefinition", Some("1"), Origin::Created, MANAGER, false),
        ] {
            let entry = Entry {
                api_version: "v1".into(),
                kind: kind.into(),
                namespace: "default".into(),
                name: "x".into(),
                uid: uid.map(String::from),
                origin,
            };
            let metadata = json!({ "uid": "1", "managedFields": [{ "manager": manager }] });
            let object = json!({ "metadata": metadata });
            let verdict = ours(&entry, &object);
            assert_eq!(verdict.is_ok(), goes, "{kind} {uid:?} {origin:?} {manager}: {verdict:?}");
        }
    }
}

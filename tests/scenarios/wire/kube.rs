//! Applying, listing and deleting with the real API.

use nodeagent::error::Code;
use nodeagent::wire::kube::{Applied, Kube, Probe};
use serde_json::{Value, json};

use super::{eventually, real_api};

const US: &str = "nodeagent";

fn settings(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": "default", "labels": { "of": "story" } },
        "data": data,
    })
}

async fn apply(kube: &Kube, object: &Value) -> Applied {
    match kube.apply(object, US).await {
        Ok(applied) => applied,
        Err(error) => panic!("{error:#}"),
    }
}

async fn read(kube: &Kube, path: &str) -> Value {
    kube.get(path).await.expect("an answer").expect("an object")
}

#[tokio::test]
async fn an_object_is_applied_listed_and_deleted() {
    let Some(api) = real_api().await else { return };
    let kube = api.admin();
    for path in ["/readyz", "/livez", "/healthz"] {
        assert_eq!(kube.probe(path).await.expect("an answer"), Probe::Ok, "{path}");
    }
    applied_once(&kube).await;
    fields_of_others_stay(&kube).await;
    a_status_is_no_change(&kube).await;
    listed_page_by_page(&kube).await;
    deleted_by_uid(&kube).await;
    names_lead_nowhere_else(&kube).await;
    a_namespace_on_its_way_out(&kube).await;
}

async fn applied_once(kube: &Kube) {
    let maps = kube.resource("v1", "ConfigMap").await.expect("an answer").expect("known");
    assert!(maps.namespaced);
    let path = maps.path(Some("default"), "a");
    assert_eq!(path, "/api/v1/namespaces/default/configmaps/a");
    assert_eq!(kube.get(&path).await.expect("an answer"), None);
    let object = settings("a", &json!({ "x": "1", "y": "1" }));
    assert_eq!(apply(kube, &object).await, Applied::Created);
    let first = read(kube, &path).await;
    assert_eq!(apply(kube, &object).await, Applied::Unchanged);
    assert_eq!(read(kube, &path).await, first, "not even the revision");
    let less = settings("a", &json!({ "x": "2" }));
    assert_eq!(apply(kube, &less).await, Applied::Changed);
    assert_eq!(read(kube, &path).await["data"], json!({ "x": "2" }), "what is not named goes");

    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": { "name": "nodeagent:story" },
        "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] }],
    });
    assert_eq!(apply(kube, &role).await, Applied::Created);
    assert_eq!(apply(kube, &role).await, Applied::Unchanged);
    let roles = kube.resource("rbac.authorization.k8s.io/v1", "ClusterRole").await;
    let roles = roles.expect("an answer").expect("known");
    assert!(!roles.namespaced);
    let path = roles.path(Some("of-no-matter"), "nodeagent:story");
    assert_eq!(read(kube, &path).await["metadata"]["name"], "nodeagent:story");
}

async fn fields_of_others_stay(kube: &Kube) {
    let path = "/api/v1/namespaces/default/configmaps/shared";
    apply(kube, &settings("shared", &json!({ "ours": "1", "both": "1" }))).await;
    let theirs = settings("shared", &json!({ "theirs": "1", "both": "2" }));
    let applied = kube.apply(&theirs, "somebody").await.expect("taken by force");
    assert_eq!(applied, Applied::Changed);
    apply(kube, &settings("shared", &json!({ "ours": "2", "both": "3" }))).await;
    let wanted = json!({ "ours": "2", "both": "3", "theirs": "1" });
    assert_eq!(read(kube, path).await["data"], wanted);
}

async fn a_status_is_no_change(kube: &Kube) {
    let budget = json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": { "name": "story", "namespace": "default" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "of": "story" } } },
    });
    assert_eq!(apply(kube, &budget).await, Applied::Created);
    assert_eq!(apply(kube, &budget).await, Applied::Unchanged);
}

async fn listed_page_by_page(kube: &Kube) {
    for number in 0..205 {
        apply_quickly(kube, &format!("page-{number}")).await;
    }
    let path = "/api/v1/namespaces/paged/configmaps";
    let all = kube.list(path, None).await.expect("an answer");
    let mut names: Vec<_> = all.iter().map(|one| one["metadata"]["name"].clone()).collect();
    assert_eq!(names.len(), 205);
    names.dedup();
    assert_eq!(names.len(), 205);
    let some = kube.list(path, Some("parity in (odd)")).await.expect("an answer");
    assert_eq!(some.len(), 102);
    let none = kube.list("/api/v1/namespaces/nowhere/configmaps", None).await;
    assert!(none.expect("an answer").is_empty());
}

async fn apply_quickly(kube: &Kube, name: &str) {
    let number: u32 = name.trim_start_matches("page-").parse().expect("a number");
    if number == 0 {
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "paged" } });
        apply(kube, &namespace).await;
    }
    let parity = if number.is_multiple_of(2) { "even" } else { "odd" };
    let mut object = settings(name, &json!({}));
    object["metadata"]["namespace"] = json!("paged");
    object["metadata"]["labels"] = json!({ "parity": parity });
    assert_eq!(apply(kube, &object).await, Applied::Created);
}

async fn deleted_by_uid(kube: &Kube) {
    let path = "/api/v1/namespaces/default/configmaps/doomed";
    apply(kube, &settings("doomed", &json!({}))).await;
    let uid = read(kube, path).await["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let another = "00000000-0000-4000-8000-000000000000";
    assert!(!kube.delete(path, Some(another)).await.expect("an answer"), "another's");
    read(kube, path).await;
    assert!(kube.delete(path, Some(&uid)).await.expect("an answer"));
    assert_eq!(kube.get(path).await.expect("an answer"), None);
    assert!(!kube.delete(path, Some(&uid)).await.expect("gone"));
    assert!(!kube.delete(path, None).await.expect("gone"));
    apply(kube, &settings("doomed", &json!({}))).await;
    assert!(!kube.delete(path, Some(&uid)).await.expect("the next of the name"));
    assert!(kube.delete(path, None).await.expect("whoever it is"));
}

async fn names_lead_nowhere_else(kube: &Kube) {
    let maps = kube.resource("v1", "ConfigMap").await.expect("an answer").expect("known");
    let before = kube.list(&maps.list_path(None), None).await.expect("an answer").len();
    assert!(before > 0);
    for name in ["", ".", "..", "../secrets", "a?x=1", "a#b", "%2e%2e"] {
        let path = maps.path(Some("default"), name);
        // The API knows no such object, or says that there can be none.
        for error in [
            kube.get(&path).await.map(|found| assert_eq!(found, None, "{path}")).err(),
            kube.delete(&path, None).await.map(|deleted| assert!(!deleted, "{path}")).err(),
        ] {
            let code = error.as_ref().map(|error| error.code());
            assert!(code.is_none_or(|code| code == Code::ApiserverRefused), "{path}: {error:?}");
        }
    }
    let after = kube.list(&maps.list_path(None), None).await.expect("an answer").len();
    assert_eq!(before, after);
}

async fn a_namespace_on_its_way_out(kube: &Kube) {
    let path = "/api/v1/namespaces/paged";
    assert!(kube.delete(path, None).await.expect("an answer"));
    assert!(kube.delete(path, None).await.expect("it is being deleted"), "nobody empties it");
    assert_eq!(read(kube, path).await["status"]["phase"], "Terminating");
}

#[tokio::test]
async fn a_kind_is_known_once_its_definition_is_there() {
    let Some(api) = real_api().await else { return };
    let kube = api.admin();
    let version = "rig.example/v1";
    assert_eq!(kube.resource(version, "Story").await.expect("an answer"), None);
    assert_eq!(kube.resource("v1", "Story").await.expect("an answer"), None);
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "stories.rig.example" },
        "spec": {
            "group": "rig.example",
            "scope": "Cluster",
            "names": { "plural": "stories", "singular": "story", "kind": "Story" },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": { "spec": {
                        "type": "object",
                        "properties": { "pages": { "type": "integer" } },
                    } },
                } },
            }],
        },
    });
    assert_eq!(apply(&kube, &definition).await, Applied::Created);
    eventually("the kind", async || {
        kube.resource(version, "Story").await.expect("an answer").is_some()
    })
    .await;
    assert_eq!(apply(&kube, &definition).await, Applied::Unchanged, "its status is not ours");
    let story = json!({
        "apiVersion": version,
        "kind": "Story",
        "metadata": { "name": "one" },
        "spec": { "pages": 3 },
    });
    // Between the definition and the first object of it the API has a moment of its own.
    eventually("the first object", async || kube.apply(&story, US).await.is_ok()).await;
    assert_eq!(apply(&kube, &story).await, Applied::Unchanged);
    let stories = kube.resource(version, "Story").await.expect("an answer").expect("known");
    assert_eq!(stories.path(None, "one"), "/apis/rig.example/v1/stories/one");
    assert_eq!(kube.list(&stories.list_path(None), None).await.expect("an answer").len(), 1);
}

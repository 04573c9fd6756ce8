//! What the real API refuses, and in which words.

use nodeagent::error::{Code, Error};
use nodeagent::wire::kube::{Kube, Probe};
use rig::pki::Ca;
use serde_json::{Value, json};

use super::{eventually, real_api};

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "d", "namespace": "default" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "a": "b" } },
            "template": {
                "metadata": { "labels": { "a": "b" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
    })
}

fn changed(pointer: &str, value: Value) -> Value {
    let mut object = deployment();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    object.pointer_mut(parent).expect("a parent")[name] = value;
    object
}

async fn refused(kube: &Kube, object: &Value) -> Error {
    kube.apply(object, "nodeagent").await.expect_err("it is wrong")
}

#[tokio::test]
async fn a_wrong_object_is_refused_in_the_words_of_the_api() {
    let Some(api) = real_api().await else { return };
    let kube = api.admin();
    kube.apply(&deployment(), "nodeagent").await.expect("it is right");
    for (object, words) in [
        (changed("/spec/replicass", json!(1)), "replicass"),
        (changed("/spec/replicas", json!("many")), "replicas"),
        (changed("/spec/replicas", json!(-1)), "greater than or equal to 0"),
        (changed("/spec/selector", json!({ "matchLabels": { "a": "c" } })), "immutable"),
        (changed("/metadata/name", json!("Not A Name")), "RFC 1123"),
        (changed("/metadata/namespace", json!("nowhere")), "nowhere"),
        (changed("/metadata/resourceVersion", json!("1")), "modified"),
        (changed("/kind", json!("Deploymant")), "no kind \"Deploymant\" in \"apps/v1\""),
        (changed("/apiVersion", json!("apps/v9")), "no kind \"Deployment\" in \"apps/v9\""),
        (changed("/kind", json!("")), "the object has no kind"),
        (changed("/metadata/name", Value::Null), "the object has no metadata.name"),
        (json!([1]), "the object has no apiVersion"),
    ] {
        let error = refused(&kube, &object).await;
        let text = format!("{error:#}");
        assert_eq!(error.code(), Code::ApiserverRefused, "{text}");
        assert!(text.contains(words), "{words}: {text}");
        assert!(!text.contains('\n') && text.len() < 700, "{text}");
    }
}

#[tokio::test]
async fn who_may_not_is_denied_and_who_is_away_is_unreachable() {
    let Some(api) = real_api().await else { return };
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "a", "namespace": "kube-system" },
    });
    let stranger = Ca::new("another").issue_client("rig", Some("system:masters"));
    let stranger = api.client(Some(&stranger));
    let error = stranger.list("/api/v1/nodes", None).await.expect_err("unknown");
    assert_eq!(error.code(), Code::ApiserverDenied, "{error:#}");
    assert!(format!("{error:#}").contains("401 Unauthorized"), "{error:#}");
    let probe = stranger.probe("/readyz").await.expect("an answer");
    assert!(matches!(probe, Probe::Failing { status: 401, .. }), "{probe:?}");

    let node = api.server.ca().issue_client("system:node:i-0aaa", Some("system:nodes"));
    let node = api.client(Some(&node));
    // A server that has just started does not know its own roles yet.
    eventually("discovery for everybody", async || node.resource("v1", "ConfigMap").await.is_ok())
        .await;
    let error = refused(&node, &map).await;
    assert_eq!(error.code(), Code::ApiserverDenied, "{error:#}");
    assert!(format!("{error:#}").contains("system:node:i-0aaa"), "{error:#}");

    let anyone = api.client(None);
    assert_eq!(anyone.probe("/readyz").await.expect("an answer"), Probe::Ok);
    let error = anyone.get("/api/v1/nodes").await.expect_err("not for everybody");
    assert_eq!(error.code(), Code::ApiserverDenied, "{error:#}");
    assert!(format!("{error:#}").contains("system:anonymous"), "{error:#}");
}

#[tokio::test]
async fn an_api_without_etcd_says_what_it_lacks() {
    let Some(mut api) = real_api().await else { return };
    let kube = api.admin();
    api.etcd.kill(0);
    eventually("not being ready", async || {
        let probe = kube.probe("/readyz").await;
        matches!(probe, Ok(Probe::Failing { status: 500, text }) if text.contains("[-]etcd"))
    })
    .await;
    let probe = kube.probe("/readyz").await.expect("an answer");
    let Probe::Failing { text, .. } = probe else { panic!("{probe:?}") };
    assert!(!text.contains("[+]"), "only what fails: {text}");
}

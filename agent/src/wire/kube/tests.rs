//! Addresses, and what the API's answers mean that are hard to have from a real one.

use http::StatusCode;

use super::answer::{applied, deleted, object, page, probe, resources};
use super::path::{identify, of_version};
use super::*;

fn reply(status: u16, body: &Value) -> Response<Vec<u8>> {
    raw(status, &body.to_string())
}

fn raw(status: u16, body: &str) -> Response<Vec<u8>> {
    let reply = Response::builder().status(status);
    reply.body(body.as_bytes().to_vec()).expect("an answer")
}

fn refusal(code: u16, message: &str) -> Response<Vec<u8>> {
    reply(code, &json!({ "kind": "Status", "message": message }))
}

#[test]
fn an_address_is_of_one_object_whatever_its_name() {
    let list = json!([{ "name": "pods", "kind": "Pod", "namespaced": true }]);
    let known = resources(json!({ "resources": list })).expect("kinds").remove(0);
    let pods = Resource::of("/api/v1".into(), known);
    assert_eq!(pods.list_path(None), "/api/v1/pods");
    assert_eq!(pods.list_path(Some("a")), "/api/v1/namespaces/a/pods");
    assert_eq!(pods.path(None, "p"), "/api/v1/namespaces/default/pods/p");
    assert_eq!(pods.path(Some(""), "p"), "/api/v1/namespaces/default/pods/p");
    for (name, coded) in [
        ("system:a.b-c_d~", "system:a.b-c_d~"),
        ("a/b?c#d e", "a%2Fb%3Fc%23d%20e"),
        ("é", "%C3%A9"),
        ("", "%25"),
        (".", "%25"),
        ("..", "%25"),
        ("%2e%2e", "%252e%252e"),
    ] {
        assert_eq!(pods.path(Some("a"), name), format!("/api/v1/namespaces/a/pods/{coded}"));
    }
    assert_eq!(pods.list_path(Some("..")), "/api/v1/namespaces/%25/pods");
    assert_eq!(of_version("v1"), "/api/v1");
    assert_eq!(of_version("apps/v1"), "/apis/apps/v1");
    assert_eq!(of_version("a/../b"), "/apis/a/..%2Fb");
}

#[test]
fn an_object_says_which_one_it_is() {
    let role = json!({ "apiVersion": "v1", "kind": "A", "metadata": { "name": "n" } });
    assert_eq!(identify(&role).expect("complete").to_string(), "A n");
    let mut spaced = role.clone();
    spaced["metadata"]["namespace"] = json!("s");
    assert_eq!(identify(&spaced).expect("complete").to_string(), "A s/n");
    let mut nameless = role;
    nameless["metadata"] = json!({ "generateName": "n-" });
    let error = identify(&nameless).err().expect("no name");
    assert_eq!(format!("{error:#}"), "the object has no metadata.name");
}

#[test]
fn only_the_checks_that_fail_are_told() {
    let checks = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]log ok\n[-]b failed\nno\n";
    let text = "[-]etcd failed: reason withheld, [-]b failed".to_owned();
    assert_eq!(probe(&raw(500, checks)), Probe::Failing { status: 500, text });
    let text = "x".repeat(400);
    assert_eq!(probe(&raw(503, &"x".repeat(900))), Probe::Failing { status: 503, text });
    let text = "in words".to_owned();
    assert_eq!(probe(&refusal(401, "in\n words")), Probe::Failing { status: 401, text });
    assert_eq!(probe(&raw(200, "ok")), Probe::Ok);
}

#[test]
fn a_refusal_means_what_its_status_and_words_say() {
    let misfit = "failed to create typed patch object (a/b; v1, Kind=X): .c: field not declared";
    for (code, message, wanted) in [
        (400, "x", Code::ApiserverRefused),
        (401, "Unauthorized", Code::ApiserverDenied),
        (403, "forbidden", Code::ApiserverDenied),
        (409, "x", Code::ApiserverRefused),
        (410, "the provided continue parameter is too old", Code::ApiserverFailing),
        (415, "x", Code::ApiserverRefused),
        (422, "x", Code::ApiserverRefused),
        (429, "x", Code::ApiserverFailing),
        (500, "etcdserver: request timed out", Code::ApiserverFailing),
        (500, misfit, Code::ApiserverRefused),
        (503, "x", Code::ApiserverFailing),
        (504, "x", Code::ApiserverFailing),
    ] {
        let error = object(&refusal(code, message)).expect_err("a refusal");
        assert_eq!(error.code(), wanted, "{code} {message}");
    }
    let long = object(&refusal(422, &"long\n".repeat(900))).expect_err("a refusal");
    assert!(format!("{long:#}").len() < 450, "{long:#}");
}

#[test]
fn a_redirect_is_named_without_its_query() {
    let moved = Response::builder().status(302).header("location", "http://other:1/a?token=1");
    let error = object(&moved.body(Vec::new()).expect("an answer")).expect_err("no answer");
    assert_eq!(format!("{error:#}"), "302 redirect to http://other:1/a");
    assert_eq!(error.code(), Code::ApiserverFailing);
}

#[test]
fn what_others_write_is_no_change() {
    let before = json!({
        "metadata": { "name": "a", "generation": 1, "resourceVersion": "1", "managedFields": [1] },
        "spec": { "x": 1 },
        "status": { "ready": 0 },
    });
    let mut after = before.clone();
    after["metadata"]["resourceVersion"] = json!("2");
    after["metadata"]["managedFields"] = json!([1, 2]);
    after["status"]["ready"] = json!(1);
    let ok = StatusCode::OK;
    assert_eq!(applied(ok, Some(before.clone()), after.clone()), Applied::Unchanged);
    assert_eq!(applied(ok, None, after.clone()), Applied::Changed);
    assert_eq!(applied(StatusCode::CREATED, None, after.clone()), Applied::Created);
    after["spec"]["x"] = json!(2);
    assert_eq!(applied(ok, Some(before), after), Applied::Changed);
}

#[test]
fn who_is_gone_or_another_is_not_deleted() {
    assert!(deleted(&reply(200, &json!({ "kind": "Pod" }))).expect("an answer"));
    assert!(deleted(&reply(202, &json!({ "kind": "Status" }))).expect("an answer"));
    assert!(!deleted(&refusal(404, "not found")).expect("an answer"));
    for words in ["Precondition failed: UID in precondition: a", "the UID in the precondition (a)"]
    {
        assert!(!deleted(&refusal(409, words)).expect("an answer"), "{words}");
    }
    let error = deleted(&refusal(409, "something else")).expect_err("a refusal");
    assert_eq!(error.code(), Code::ApiserverRefused);
    deleted(&raw(404, "<html>")).expect_err("no answer of the API");
}

#[test]
fn lists_and_kinds_are_read() {
    let list = json!({ "metadata": { "continue": "c" }, "items": [1] });
    let first = page(list).expect("a list");
    assert_eq!((first.items, first.rest.as_str()), (vec![json!(1)], "c"));
    let empty = page(json!({ "metadata": {}, "items": null })).expect("a list");
    assert!(empty.items.is_empty() && empty.rest.is_empty());
    assert!(page(json!({ "kind": "Pod" })).is_err());
    let known = resources(json!({ "resources": [
        { "name": "pods/status", "kind": "Pod", "namespaced": true },
        { "name": "pods", "kind": "Pod", "namespaced": true },
    ] }));
    let known = known.expect("kinds");
    assert!(!known[0].is("Pod") && known[1].is("Pod") && !known[1].is("pods"));
}

#[test]
fn an_address_without_tls_is_refused() {
    let options = KubeOptions {
        address: "http://10.0.0.1:6443".into(),
        ca_pem: Vec::new(),
        client: None,
        limits: Limits::default(),
    };
    let error = Kube::new(options).expect_err("no https");
    assert_eq!(error.code(), Code::Config);
}

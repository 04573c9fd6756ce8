//! What etcd's answers mean that are hard to have from a real one.

use http::Response;

use super::answer::{Lease as LeaseBody, Range, Status, Streamed, Txn, health, parse, sort};
use super::*;

fn reply(status: u16, body: &str) -> Response<Vec<u8>> {
    let reply = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    reply.body(body.as_bytes().to_vec()).expect("an answer")
}

fn refused(status: u16, body: &str) -> Error {
    match sort(reply(status, body)) {
        Ok(_) => panic!("{status} is a refusal"),
        Err(refused) => refused.error(),
    }
}

#[test]
fn the_end_of_a_prefix_is_the_next_key_that_has_it_not() {
    for (prefix, end) in [
        (b"/registry/".as_slice(), b"/registry0".as_slice()),
        (b"a\xff", b"b"),
        (b"\xff\xff", b"\0"),
        (b"", b"\0"),
    ] {
        assert_eq!(after(prefix), end, "{prefix:?}");
    }
}

#[test]
fn numbers_keep_all_their_bits_and_what_is_left_out_is_zero() {
    let body = br#"{"header":{"member_id":"18446744073709551615"},"leader":"9223372036854775809",
        "dbSize":"20480","version":"3.7.3","errors":["memberID:1 alarm:NOSPACE "]}"#;
    let status = EtcdStatus::from(parse::<Status>(body).expect("a status"));
    assert_eq!((status.member_id, status.leader_id), (u64::MAX, (1 << 63) + 1));
    assert_eq!(status.errors, ["memberID:1 alarm:NOSPACE"]);
    let range: Range = parse(br#"{"header":{}}"#).expect("nothing found");
    assert_eq!(range.count, 0);
    assert_eq!(range.found(), None);
    let gone: Streamed<LeaseBody> =
        parse(br#"{"result":{"header":{},"ID":"7"}}"#).expect("a lease that ended");
    assert_eq!(gone.result.ttl(), Duration::ZERO);
    let below: Streamed<LeaseBody> =
        parse(br#"{"result":{"header":{},"ID":"7","TTL":"-1"}}"#).expect("a lease that ended");
    assert_eq!(below.result.ttl(), Duration::ZERO);
}

#[test]
fn what_is_no_answer_to_the_call_is_not_read_as_zeros() {
    for body in ["{}", "[]", "null", "", "{\"header\":{}", "{\"header\":{\"member_id\":7}}"] {
        assert!(parse::<Range>(body.as_bytes()).is_err(), "{body}");
        assert!(parse::<Txn>(body.as_bytes()).is_err(), "{body}");
    }
    let binary = br#"{"header":{},"kvs":[{"value":"no base64!","create_revision":"1",
        "mod_revision":"1"}]}"#;
    assert!(parse::<Range>(binary).is_err());
}

#[test]
fn an_error_within_a_stream_is_told_in_its_words() {
    let body = br#"{"error":{"code":14,"message":"etcdserver: no leader"}}"#;
    let error = parse::<Streamed<LeaseBody>>(body).err().expect("an error");
    assert_eq!(error.code(), Code::EtcdFailing);
    assert_eq!(format!("{error:#}"), "etcdserver: no leader");
}

#[test]
fn refusals_are_told_apart() {
    let said = |text: &str| json!({ "code": 1, "message": text, "details": [] }).to_string();
    for (status, text, code) in [
        (503, "etcdserver: request timed out", Code::EtcdFailing),
        (429, "etcdserver: mvcc: database space exceeded", Code::EtcdFailing),
        (403, "etcdserver: permission denied", Code::EtcdDenied),
        (401, "etcdserver: invalid auth token", Code::EtcdDenied),
        (400, "etcdserver: user name is empty", Code::EtcdDenied),
        (400, "etcdserver: key is not provided", Code::EtcdFailing),
        (404, "etcdserver: requested lease not found", Code::EtcdFailing),
    ] {
        let error = refused(status, &said(text));
        assert_eq!(error.code(), code, "{status} {text}");
        assert_eq!(format!("{error:#}"), format!("{status} {text}"));
    }
    let error = refused(502, "<html>");
    assert_eq!(error.code(), Code::EtcdFailing);
    assert!(format!("{error:#}").contains("no answer of etcd"), "{error:#}");
    let long = refused(500, &said(&"long\n".repeat(400)));
    assert!(format!("{long:#}").len() < 320 && !format!("{long:#}").contains('\n'), "{long:#}");
}

#[test]
fn health_is_its_words_and_its_status() {
    let told = |status, body| health(&reply(status, body)).map(|health| health.healthy);
    assert_eq!(told(200, r#"{"health":"true","reason":""}"#), Some(true));
    assert_eq!(told(503, r#"{"health":"false","reason":"RAFT NO LEADER"}"#), Some(false));
    assert_eq!(told(503, r#"{"health":"true"}"#), Some(false), "a proxy in between");
    assert_eq!(told(200, "<html>"), None);
    assert_eq!(told(200, "{}"), None);
}

#[test]
fn an_endpoint_without_tls_is_refused() {
    let options = EtcdOptions {
        endpoint: "http://127.0.0.1:2379".into(),
        ca_pem: Vec::new(),
        client: None,
        limits: Limits::default(),
    };
    assert_eq!(Etcd::new(options).expect_err("no https").code(), Code::Config);
}

//! What is no answer of etcd or of the API, from a server that has their port: it is never taken
//! for one, and it is never a reason to do anything but to try again.

use std::time::Duration;

use nodeagent::error::{Code, Error, Kind, Result};
use nodeagent::wire::etcd::{Etcd, EtcdOptions};
use nodeagent::wire::http::Limits;
use nodeagent::wire::kube::{Kube, KubeOptions, Probe};
use rig::clock::ModelClock;
use rig::pki::Ca;
use rig::server::{Fault, Request, Response, Server, ServerOptions, Step, handler};
use serde_json::{Value, json};

/// Bytes of an answer, so that one beyond it is soon written.
const BODY: usize = 2000;

struct Bench {
    server: Server,
    kube: Kube,
    etcd: Etcd,
}

fn bench() -> Bench {
    let ca = Ca::new("rig");
    let anything = handler(|_: Request| async { Response::json(200, json!({})) });
    let options = ServerOptions::new(anything, ModelClock::real()).tls(ca.server_config());
    let server = Server::start(options).expect("a free port");
    let limits = Limits { body: BODY, ..Limits::default() };
    let ca_pem = ca.pem().as_bytes().to_vec();
    let kube = KubeOptions { address: server.url(), ca_pem: ca_pem.clone(), client: None, limits };
    let etcd = EtcdOptions { endpoint: server.url(), ca_pem, client: None, limits };
    Bench {
        server,
        kube: Kube::new(kube).expect("a client"),
        etcd: Etcd::new(etcd).expect("a client"),
    }
}

impl Bench {
    /// Has every call answered so.
    fn says(&self, code: u16, kind: &str, body: &str) {
        let headers = vec![("content-type".to_owned(), kind.to_owned())];
        let fault = Fault::Status { code, body: body.to_owned(), headers };
        self.server.script(vec![Step::on("/", fault)]);
    }

    /// What each call of both clients makes of it.
    async fn errors(&self) -> Vec<(&'static str, Error)> {
        let object = json!({ "apiVersion": "v1", "kind": "A", "metadata": { "name": "a" } });
        let (kube, etcd) = (&self.kube, &self.etcd);
        let lease = nodeagent::wire::etcd::Lease { id: 1, ttl: Duration::from_secs(9) };
        let told = [
            failed("get", kube.get("/api/v1/x").await),
            failed("list", kube.list("/api/v1/x", None).await),
            failed("resource", kube.resource("v1", "A").await),
            failed("apply", kube.apply(&object, "us").await),
            failed("delete", kube.delete("/api/v1/x", None).await),
            failed("health", etcd.health().await),
            failed("status", etcd.status().await),
            failed("members", etcd.members().await),
            failed("grant", etcd.grant(lease.ttl).await),
            failed("keep_alive", etcd.keep_alive(&lease).await),
            failed("put_new", etcd.put_new("k", b"v", None).await),
            failed("get", etcd.get("k").await),
            failed("delete_if", etcd.delete_if("k", 1).await),
            failed("count_prefix", etcd.count_prefix("k").await),
        ];
        told.into_iter().collect()
    }
}

fn failed<T: std::fmt::Debug>(call: &'static str, result: Result<T>) -> (&'static str, Error) {
    match result {
        Err(error) => (call, error),
        Ok(answer) => panic!("{call} took it for an answer: {answer:?}"),
    }
}

#[tokio::test]
async fn z16_what_is_no_answer_is_a_reason_to_try_again_and_nothing_else() {
    let bench = bench();
    let long = format!("\"{}\"", "x".repeat(BODY));
    for (code, kind, body) in [
        (200, "text/html", "<html>please log in</html>"),
        (200, "application/json", "[]"),
        (200, "application/json", "{\"header\":7}"),
        (200, "application/json", "{}"),
        (200, "application/json", "{\"kind\":\"Pod\",\"items\":["),
        (200, "application/json", long.as_str()),
        (400, "text/html", "<html>"),
        (403, "text/html", "<html>forbidden"),
        (404, "text/html", "<html>not found"),
        (409, "application/json", "{}"),
        (500, "", ""),
        (502, "text/html", "<html>bad gateway"),
        (503, "text/plain", "no healthy upstream"),
    ] {
        bench.says(code, kind, body);
        for (call, error) in bench.errors().await {
            let text = format!("{error:#}");
            assert_eq!(error.kind(), Kind::Unavailable, "{call} {code} {body:.40}: {text}");
            assert!(text.contains("https://127.0.0.1:"), "{call} {code}: {text}");
            assert!(text.len() < 500 && !text.contains('\n'), "{call} {code}: {text}");
        }
    }
}

#[tokio::test]
async fn connections_that_break_are_unreachable() {
    let bench = bench();
    for fault in [Fault::Close, Fault::Cut { after_bytes: 40 }, Fault::WrongLength] {
        bench.server.script(vec![Step::on("/", fault)]);
        for (call, error) in bench.errors().await {
            let known = [Code::ApiserverUnreachable, Code::EtcdUnreachable];
            assert!(known.contains(&error.code()), "{call}: {error:#}");
        }
    }
    bench.server.script(vec![Step::on("/", Fault::Garbage)]);
    for (call, error) in bench.errors().await {
        let known = [Code::ApiserverFailing, Code::EtcdFailing];
        assert!(known.contains(&error.code()), "{call}: {error:#}");
    }
}

fn status(code: u16, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": message, "code": code, "details": { "retryAfterSeconds": 7 } })
}

#[tokio::test]
async fn an_api_that_asks_for_time_gets_it() {
    let bench = bench();
    for (code, wanted) in [
        (429, Code::ApiserverFailing),
        (503, Code::ApiserverFailing),
        (410, Code::ApiserverFailing),
        (403, Code::ApiserverDenied),
        (422, Code::ApiserverRefused),
        (413, Code::ApiserverRefused),
    ] {
        bench.says(code, "application/json", &status(code, "in words").to_string());
        let error = bench.kube.get("/api/v1/x").await.expect_err("no");
        assert_eq!(error.code(), wanted, "{error:#}");
        assert_eq!(error.wait(), Some(Duration::from_secs(7)));
        assert!(format!("{error:#}").ends_with(&format!("/api/v1/x: {code} in words")));
    }
    let header = vec![("retry-after".to_owned(), "3".to_owned())];
    let body = status(429, "in words").to_string();
    let both = Fault::Status { code: 429, body, headers: header.clone() };
    bench.server.script(vec![Step::on("/", both)]);
    let error = bench.kube.get("/api/v1/x").await.expect_err("no");
    assert_eq!(error.wait(), Some(Duration::from_secs(3)), "the header is of this very answer");
    let busy = Fault::Status { code: 429, body: String::new(), headers: header };
    bench.server.script(vec![Step::on("/", busy)]);
    let error = bench.kube.get("/api/v1/x").await.expect_err("no");
    assert_eq!(
        (error.code(), error.wait()),
        (Code::ApiserverFailing, Some(Duration::from_secs(3)))
    );
    let probe = bench.kube.probe("/readyz").await.expect("any answer is one");
    assert!(matches!(probe, Probe::Failing { status: 429, .. }), "{probe:?}");
}

#[tokio::test]
async fn a_list_without_an_end_is_left() {
    let bench = bench();
    let page = json!({ "kind": "List", "metadata": { "continue": "more" }, "items": [] });
    bench.says(200, "application/json", &page.to_string());
    let error = bench.kube.list("/api/v1/x", Some("a in (b)")).await.expect_err("no end");
    assert_eq!(error.code(), Code::ApiserverFailing, "{error:#}");
    assert_eq!(bench.server.count("/api/v1/x"), 100);
}

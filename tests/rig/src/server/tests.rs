//! The server as its clients see it.

use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::pki::{Ca, install_crypto};

const LIMIT: Duration = Duration::from_secs(10);

fn echo() -> Handler {
    handler(|request: Request| async move {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        Response::json(200, json!({ "path": request.path, "query": request.query, "body": body }))
    })
}

fn start() -> Server {
    let start = "2026-11-21T12:00:00Z".parse().expect("a timestamp");
    let clock = ModelClock::manual(start);
    Server::start(ServerOptions::new(echo(), clock)).expect("a free port")
}

fn client() -> reqwest::Client {
    install_crypto();
    reqwest::Client::builder().no_proxy().timeout(LIMIT).build().expect("a client")
}

async fn get(client: &reqwest::Client, server: &Server, path: &str) -> reqwest::Result<String> {
    client.get(format!("{}{path}", server.url())).send().await?.text().await
}

#[tokio::test]
async fn answers_with_the_clock_s_date_and_logs_no_query() {
    let server = start();
    server.shared.clock.advance(SignedDuration::from_secs(5));
    let url = format!("{}/v1/x?token=secret", server.url());
    let answer = client().post(url).body("hello").send().await.expect("an answer");
    assert_eq!(answer.headers()["date"], "Sat, 21 Nov 2026 12:00:05 GMT");
    assert_eq!(
        answer.text().await.expect("a body"),
        r#"{"body":"hello","path":"/v1/x","query":"token=secret"}"#
    );
    let log = server.requests();
    assert_eq!((log.len(), log[0].path.as_str(), log[0].status), (1, "/v1/x", Some(200)));
    assert_eq!(log[0].at, server.shared.clock.now());
    assert!(!format!("{log:?}").contains("secret"));
    server.clear_log();
    assert_eq!(server.count("/"), 0);
}

#[tokio::test]
async fn a_stopped_server_refuses_keeps_its_port_and_comes_back() {
    let server = start();
    let client = client();
    get(&client, &server, "/a").await.expect("an answer");
    server.stop();
    assert!(!server.is_running());
    get(&client, &server, "/b").await.expect_err("its kept connection was cut");
    let refused = get(&super::tests::client(), &server, "/b").await.expect_err("refused");
    assert!(refused.is_connect(), "{refused:?}");
    let thief = TcpSocket::new_v4().and_then(|socket| socket.bind(server.addr()));
    assert_eq!(thief.map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
    server.restart().expect("its own port");
    get(&client, &server, "/c").await.expect("an answer");
    assert_eq!(server.count("/"), 2);
    assert!(server.wait_for("/c", 1, LIMIT) && !server.wait_for("/b", 1, Duration::ZERO));
}

#[tokio::test]
async fn a_script_hits_the_requests_it_names_in_its_order() {
    let server = start();
    let client = client();
    server.script(vec![
        Step::on("/v1/sys", Fault::status(503, "Vault is sealed")).method(http::Method::GET),
        Step::on("/v1/", Fault::Html200).skip(1).times(1),
    ]);
    let sealed = get(&client, &server, "/v1/sys/health").await.expect("an answer");
    assert_eq!(sealed, r#"{"errors":["Vault is sealed"]}"#);
    assert!(get(&client, &server, "/v1/a").await.expect("the skipped one").contains("/v1/a"));
    assert!(get(&client, &server, "/v1/a").await.expect("a page").starts_with("<!DOCTYPE"));
    assert!(get(&client, &server, "/v1/a").await.expect("used up").contains("/v1/a"));
    assert_eq!(server.requests()[0].status, Some(503));
    server.script(Vec::new());
    assert!(get(&client, &server, "/v1/sys/health").await.expect("an answer").contains("path"));
}

#[tokio::test]
async fn broken_answers_are_broken_for_the_client_and_only_once() {
    let ca = Ca::new("rig");
    let options = ServerOptions::new(echo(), ModelClock::real()).tls(ca.server_config());
    let tls = Server::start(options).expect("a free port");
    let trusting = reqwest::Client::builder()
        .tls_backend_preconfigured(ca.client_config())
        .no_proxy()
        .timeout(LIMIT)
        .build()
        .expect("a client");
    for (server, client) in [(start(), client()), (tls, trusting)] {
        for fault in [
            Fault::Cut { after_bytes: 40 },
            Fault::Cut { after_bytes: 130 },
            Fault::Garbage,
            Fault::WrongLength,
        ] {
            server.script(vec![Step::on("/", fault.clone()).times(1)]);
            get(&client, &server, "/x").await.expect_err(&format!("{fault:?} at {server:?}"));
            get(&client, &server, "/x").await.expect("whole again");
        }
    }
}

#[tokio::test]
async fn closed_lost_and_hanging_answers_have_no_status() {
    let server = start();
    // One that was lost before the head may be tried again by the client itself, so count none.
    for fault in [Fault::Close, Fault::Cut { after_bytes: 0 }] {
        server.script(vec![Step::on("/", fault)]);
        get(&client(), &server, "/x").await.expect_err("no answer");
    }
    server.script(vec![Step::on("/", Fault::Hang)]);
    let client = client();
    let asked = tokio::spawn(client.get(server.url() + "/hang").send());
    while server.count("/hang") == 0 {
        tokio::task::yield_now().await;
    }
    asked.abort();
    assert!(server.requests().iter().all(|entry| entry.status.is_none()));
    server.stop();
}

#[tokio::test]
async fn a_tls_port_tells_plain_clients_what_go_tells_them() {
    let options = ServerOptions::new(echo(), ModelClock::real());
    let server = Server::start(options.tls(Ca::new("rig").server_config())).expect("a free port");
    let url = server.url().replace("https", "http");
    let answer = client().get(url).send().await.expect("an answer");
    assert_eq!(answer.status(), 400);
    let text = answer.text().await.expect("a body");
    assert_eq!(text, "Client sent an HTTP request to an HTTPS server.\n");
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let server = start();
    let body = vec![b'x'; BODY_LIMIT_BYTES + 1];
    let answer = client().post(server.url()).body(body).send().await.expect("an answer");
    assert_eq!(answer.status(), 413);
}

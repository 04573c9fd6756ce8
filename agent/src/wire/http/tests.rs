//! The client against a server that misbehaves.

use rig::clock::ModelClock;
use rig::pki::Ca;
use rig::server::{Fault, Handler, Request as Asked, Response as Told};
use rig::server::{Server, ServerOptions, Step, handler};

use super::*;

const PEER: Peer = Peer {
    unreachable: Code::VaultUnreachable,
    failing: Code::VaultFailing,
    denied: Code::VaultUnreachable,
};

const SHORT: Limits =
    Limits { connect: Duration::from_secs(5), total: Duration::from_millis(300), body: 1000 };

fn long() -> Limits {
    Limits { total: Duration::from_secs(20), ..SHORT }
}

fn echo() -> Handler {
    handler(|asked: Asked| async move {
        let token = asked.header("x-vault-token").unwrap_or("none").to_owned();
        let text = format!("{} {} {token} ", asked.method, asked.path);
        Told::text(200, text + &String::from_utf8_lossy(&asked.body)).with_header("x-kept", "yes")
    })
}

fn plain() -> Server {
    Server::start(ServerOptions::new(echo(), ModelClock::real())).expect("a free port")
}

fn with_tls(ca: &Ca, handler: Handler) -> Server {
    let options = ServerOptions::new(handler, ModelClock::real()).tls(ca.server_config());
    Server::start(options).expect("a free port")
}

fn client(limits: Limits, trust: &Trust) -> Http {
    Http::new(limits, trust, PEER).expect("a client")
}

fn post(url: &str) -> Request<Vec<u8>> {
    let request = Request::post(format!("{url}/v1/x?secret=1")).header("x-vault-token", "hvs.t");
    request.body(b"hello".to_vec()).expect("a request")
}

async fn text(client: &Http, url: &str) -> String {
    let answer = client.send(post(url)).await.expect("an answer");
    String::from_utf8(answer.into_body()).expect("text")
}

async fn told(client: &Http, url: &str) -> Error {
    let error = client.send(post(url)).await.expect_err("no answer");
    let line = format!("{error:#}");
    assert!(line.contains("127.0.0.1"), "names the address: {line}");
    assert!(!line.contains("secret") && !line.contains("hvs"), "{line}");
    error
}

#[tokio::test]
async fn keeps_status_and_headers_of_every_answer() {
    let server = plain();
    let client = client(long(), &Trust::Plain);
    let answer = client.send(post(&server.url())).await.expect("an answer");
    assert_eq!(answer.headers()["x-kept"], "yes");
    assert_eq!(answer.body(), b"POST /v1/x hvs.t hello");
    server.script(vec![Step::on("/", Fault::status(503, "Vault is sealed"))]);
    let answer = client.send(post(&server.url())).await.expect("an answer");
    assert_eq!(answer.status(), 503);
}

#[tokio::test]
async fn a_server_that_hangs_ends_at_the_deadline() {
    let server = plain();
    server.script(vec![Step::on("/", Fault::Hang)]);
    let error = told(&client(SHORT, &Trust::Plain), &server.url()).await;
    assert_eq!(error.code(), Code::VaultUnreachable);
    assert!(format!("{error:#}").ends_with("no answer within 300ms"), "{error:#}");
}

#[tokio::test]
async fn refused_cut_and_garbled_answers_are_told_in_plain_words() {
    let server = plain();
    let client = client(long(), &Trust::Plain);
    for (fault, code) in [
        (Fault::Close, Code::VaultUnreachable),
        (Fault::Cut { after_bytes: 40 }, Code::VaultUnreachable),
        (Fault::Cut { after_bytes: 145 }, Code::VaultUnreachable),
        (Fault::WrongLength, Code::VaultUnreachable),
        (Fault::Garbage, Code::VaultFailing),
    ] {
        server.script(vec![Step::on("/", fault.clone())]);
        let error = told(&client, &server.url()).await;
        assert_eq!(error.code(), code, "{fault:?}: {error:#}");
        assert!(!format!("{error:#}").contains("error sending request"), "{error:#}");
    }
    server.stop();
    let error = told(&client, &server.url()).await;
    assert!(format!("{error:#}").ends_with("/v1/x: connection refused"), "{error:#}");
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_at_the_deadline_of_connections() {
    // The kernel connects, nobody accepts.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://{}", silent.local_addr().expect("its address"));
    let limits = Limits { connect: Duration::from_millis(200), ..long() };
    let error = told(&client(limits, &Trust::Plain), &url).await;
    assert!(format!("{error:#}").ends_with("no connection within 200ms"), "{error:#}");
}

#[tokio::test]
async fn nothing_is_tried_twice() {
    let server = plain();
    let client = client(long(), &Trust::Plain);
    server.script(vec![Step::on("/", Fault::Cut { after_bytes: 40 })]);
    told(&client, &server.url()).await;
    server.script(vec![Step::on("/", Fault::status(503, "x"))]);
    client.send(post(&server.url())).await.expect("an answer");
    assert_eq!(server.count("/"), 2);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_at_the_limit() {
    let big = handler(|_: Asked| async { Told::text(200, "x".repeat(1001)) });
    let server = Server::start(ServerOptions::new(big, ModelClock::real())).expect("a free port");
    let error = told(&client(long(), &Trust::Plain), &server.url()).await;
    assert_eq!(error.code(), Code::VaultFailing);
    assert!(format!("{error:#}").ends_with("longer than 1000 bytes"), "{error:#}");
}

#[tokio::test]
async fn a_wrong_name_and_a_port_without_tls_are_told_apart() {
    let ca = Ca::new("vault");
    let trust = Trust::Pinned(ca.pem().as_bytes().to_vec());
    let named = rig::pki::server_config(&ca.issue(&["vault.example"])).expect("a pair");
    let options = ServerOptions::new(echo(), ModelClock::real()).tls(named);
    let server = Server::start(options).expect("a free port");
    let error = told(&client(long(), &trust), &server.url()).await;
    assert!(format!("{error:#}").ends_with("does not name the host of this address"), "{error:#}");
    let server = plain();
    let https = server.url().replace("http:", "https:");
    let error = told(&client(long(), &trust), &https).await;
    assert!(format!("{error:#}").ends_with("this port does not speak TLS"), "{error:#}");
}

#[tokio::test]
async fn only_the_pinned_authority_is_believed() {
    let (ours, other) = (Ca::new("ours"), Ca::new("other"));
    let server = with_tls(&ours, echo());
    let both = [other.pem(), ours.pem()].concat();
    let pinned = client(long(), &Trust::Pinned(both.into_bytes()));
    assert_eq!(text(&pinned, &server.url()).await, "POST /v1/x hvs.t hello");
    for trust in [Trust::Pinned(other.pem().as_bytes().to_vec()), Trust::Plain] {
        let error = told(&client(long(), &trust), &server.url()).await;
        assert_eq!(error.code(), Code::VaultUnreachable);
        assert!(
            format!("{error:#}").contains("certificate not trusted: no authority"),
            "{error:#}"
        );
    }
    for pem in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let error = Http::new(long(), &Trust::Pinned(pem.into()), PEER).expect_err("no bundle");
        assert_eq!(error.code(), Code::CertificateBad, "{pem:?}");
    }
}

/// Redirects everything to `to`, as a standby that may not forward does.
fn standby(to: String) -> Handler {
    handler(move |asked: Asked| {
        let location = format!("{to}{}?{}", asked.path, asked.query);
        async move { Told::empty(307).with_header("location", &location) }
    })
}

#[tokio::test]
async fn a_standby_leads_to_the_active_server_with_token_and_body() {
    let ca = Ca::new("vault");
    let active = with_tls(&ca, echo());
    let standby_server = with_tls(&ca, standby(active.url()));
    let client = client(long(), &Trust::Pinned(ca.pem().as_bytes().to_vec()));
    assert_eq!(text(&client, &standby_server.url()).await, "POST /v1/x hvs.t hello");

    active.stop();
    let error = told(&client, &standby_server.url()).await;
    assert!(format!("{error:#}").starts_with("redirected from "), "{error:#}");

    let twin = with_tls(&ca, standby(standby_server.url()));
    let looping = client.send(post(&twin.url())).await;
    assert!(looping.is_err(), "the active one is still away");
    assert_eq!(twin.count("/"), 1);
}

#[tokio::test]
async fn a_token_is_never_led_to_plain_http_nor_to_a_stranger() {
    let (ca, strange) = (Ca::new("vault"), Ca::new("stranger"));
    let http = plain();
    let stranger = with_tls(&strange, echo());
    let client = client(long(), &Trust::Pinned(ca.pem().as_bytes().to_vec()));

    let down = with_tls(&ca, standby(http.url()));
    let answer = client.send(post(&down.url())).await.expect("the redirect itself");
    assert_eq!((answer.status().as_u16(), http.count("/")), (307, 0));

    let aside = with_tls(&ca, standby(stranger.url()));
    let error = told(&client, &aside.url()).await;
    assert!(format!("{error:#}").contains("not trusted"), "{error:#}");
    assert_eq!(stranger.count("/"), 0);

    let from_plain = handler(move |_: Asked| {
        let location = stranger.url();
        async move { Told::empty(307).with_header("location", &location) }
    });
    let options = ServerOptions::new(from_plain, ModelClock::real());
    let unproved = Server::start(options).expect("a free port");
    let answer = client.send(post(&unproved.url())).await.expect("the redirect itself");
    assert_eq!(answer.status(), 307);
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    let ca = Ca::new("vault");
    let own = Arc::new(std::sync::OnceLock::<String>::new());
    let location = Arc::clone(&own);
    let circle = handler(move |_: Asked| {
        let to = format!("{}/v1/x", location.get().expect("set before the first request"));
        async move { Told::empty(307).with_header("location", &to) }
    });
    let server = with_tls(&ca, circle);
    own.set(server.url()).expect("set once");
    let client = client(long(), &Trust::Pinned(ca.pem().as_bytes().to_vec()));
    let answer = client.send(post(&server.url())).await.expect("the last redirect");
    assert_eq!(answer.status(), 307);
    assert_eq!(server.count("/"), 1 + REDIRECTS);
}

#[test]
fn the_place_of_a_request_shows_no_query_and_no_user() {
    let uri = "https://user:pass@vault:8200/v1/x?token=1";
    assert_eq!(place(&uri.parse().expect("a URI")), "https://vault:8200/v1/x");
}

/// A server that wants a client certificate of an authority, and tells nobody whose it was.
fn choosy(servers: &Ca, clients: &Ca) -> Server {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(clients.pem().as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        roots.into(),
        Arc::clone(&provider),
    );
    let leaf = servers.issue(&["127.0.0.1"]);
    let chain = vec![CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).expect("PEM");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(chain, key)
        .expect("a pair");
    let options = ServerOptions::new(echo(), ModelClock::real()).tls(config);
    Server::start(options).expect("a free port")
}

fn identity(ca: &Ca) -> ClientIdentity {
    let leaf = ca.issue_client("us", None);
    ClientIdentity { cert_pem: leaf.cert_pem, key_pem: Secret::new(leaf.key_pem) }
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_is_shown_ours_and_may_not_take_it() {
    const CHOOSY: Peer = Peer { denied: Code::EtcdDenied, ..PEER };
    let (servers, clients) = (Ca::new("servers"), Ca::new("clients"));
    let server = choosy(&servers, &clients);
    let trust = Trust::Pinned(servers.pem().as_bytes().to_vec());
    let of = |identity: Option<&ClientIdentity>| {
        Http::with_identity(long(), &trust, identity, CHOOSY).expect("a client")
    };
    let known = of(Some(&identity(&clients)));
    assert!(text(&known, &server.url()).await.starts_with("POST"));
    for unknown in [None, Some(identity(&servers))] {
        let error = told(&of(unknown.as_ref()), &server.url()).await;
        assert_eq!(error.code(), Code::EtcdDenied, "{error:#}");
        assert!(format!("{error:#}").contains("does not take our client certificate"));
    }
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_told_without_its_key() {
    let good = identity(&Ca::new("clients"));
    let other = identity(&Ca::new("others"));
    let trust = Trust::Plain;
    for (cert_pem, key_pem) in [
        (String::new(), good.key_pem.clone()),
        (good.cert_pem.clone(), Secret::new("no key".into())),
        (good.cert_pem.clone(), other.key_pem),
    ] {
        let identity = ClientIdentity { cert_pem, key_pem };
        let made = Http::with_identity(long(), &trust, Some(&identity), PEER);
        let error = made.expect_err("no pair");
        assert_eq!(error.code(), Code::CertificateBad, "{error:#}");
        assert!(!format!("{error:#}").contains("no key"), "{error:#}");
    }
    assert!(!format!("{good:?}").contains("PRIVATE KEY"));
}

#[test]
fn a_torn_bundle_or_identity_is_told_in_one_short_line() {
    let torn = format!("-----BEGIN CERTIFICATE{}-----\nMIIB\n", "x".repeat(2000));
    let pinned = Trust::Pinned(torn.clone().into_bytes());
    let told = Http::new(SHORT, &pinned, PEER).expect_err("no bundle");
    let identity = ClientIdentity { cert_pem: torn, key_pem: Secret::new(String::new()) };
    let identity = Http::with_identity(SHORT, &Trust::Plain, Some(&identity), PEER);
    for error in [told, identity.expect_err("no identity")] {
        assert!(format!("{error:#}").chars().count() < 400, "{error:#}");
    }
}

//! The proxy before a small HTTPS server, so that every fault is seen through TLS.

use crate::clock::ModelClock;
use crate::pki::{Ca, install_crypto};
use crate::server::{Request, Response, Server, ServerOptions, handler};

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

struct Bench {
    server: Server,
    proxy: Proxy,
    ca: Ca,
}

impl Bench {
    fn new() -> Self {
        install_crypto();
        let ca = Ca::new("rig");
        let answer = handler(|_: Request| async { Response::text(200, "x".repeat(5000)) });
        let options = ServerOptions::new(answer, ModelClock::real()).tls(ca.server_config());
        let server = Server::start(options).expect("a free port");
        let proxy = Proxy::start(server.addr()).expect("a free port");
        Self { server, proxy, ca }
    }

    /// A client that has no connection yet.
    fn client(&self) -> reqwest::Client {
        reqwest::Client::builder()
            .tls_backend_preconfigured(self.ca.client_config())
            .no_proxy()
            .timeout(LIMIT)
            .build()
            .expect("a client")
    }

    async fn get(&self, client: &reqwest::Client) -> reqwest::Result<String> {
        let url = format!("https://{}/", self.proxy.addr());
        client.get(url).send().await?.error_for_status()?.text().await
    }
}

#[tokio::test]
async fn refuses_cuts_open_connections_and_comes_back_at_the_same_port() {
    let bench = Bench::new();
    let kept = bench.client();
    assert_eq!(bench.get(&kept).await.expect("passed on").len(), 5000);
    bench.get(&kept).await.expect("passed on again");
    assert_eq!(bench.proxy.connections(), 1, "TLS and keep-alive pass through");
    bench.proxy.set(Fault::Refuse);
    bench.get(&kept).await.expect_err("cut");
    assert!(bench.get(&bench.client()).await.expect_err("refused").is_connect());
    bench.proxy.set(Fault::None);
    bench.get(&kept).await.expect("back");
}

#[tokio::test]
async fn cut_and_garbage_hit_open_and_new_connections_alike() {
    let bench = Bench::new();
    for fault in [Fault::Cut { after_bytes: 0 }, Fault::Cut { after_bytes: 3000 }, Fault::Garbage] {
        let kept = bench.client();
        bench.get(&kept).await.expect("passed on");
        bench.proxy.set(fault.clone());
        bench.get(&kept).await.expect_err(&format!("{fault:?} on an open connection"));
        bench.get(&bench.client()).await.expect_err(&format!("{fault:?} on a new connection"));
        bench.proxy.set(Fault::None);
        bench.get(&kept).await.expect("passed on");
    }
}

#[tokio::test]
async fn a_cut_counts_all_pieces_of_a_connection() {
    let bench = Bench::new();
    // More than the answer, less than the answer and the handshake's.
    bench.proxy.set(Fault::Cut { after_bytes: 5500 });
    bench.get(&bench.client()).await.expect_err("cut");
    bench.proxy.set(Fault::Cut { after_bytes: 50_000 });
    bench.get(&bench.client()).await.expect("not yet");
}

#[tokio::test]
async fn what_hangs_goes_on_when_the_fault_ends() {
    let bench = Bench::new();
    bench.proxy.set(Fault::Hang);
    let client = bench.client();
    let mut asked = Box::pin(bench.get(&client));
    while bench.proxy.connections() == 0 {
        tokio::select! {
            answer = &mut asked => panic!("answered while it hung: {answer:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert!(bench.server.requests().is_empty());
    bench.proxy.set(Fault::None);
    asked.await.expect("answered afterwards");
}

#[tokio::test]
async fn a_delay_holds_answers_back_and_not_requests() {
    let bench = Bench::new();
    let kept = bench.client();
    bench.get(&kept).await.expect("passed on");
    bench.proxy.set(Fault::Delay(Duration::from_secs(3600)));
    let mut asked = Box::pin(bench.get(&kept));
    while bench.server.count("/") < 2 {
        tokio::select! {
            answer = &mut asked => panic!("answered an hour early: {answer:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    bench.proxy.set(Fault::Delay(Duration::from_millis(1)));
    asked.await.expect("answered");
}

#[tokio::test]
async fn a_flapping_port_is_closed_and_open_in_turn() {
    let bench = Bench::new();
    let length = Duration::from_millis(5);
    bench.proxy.set(Fault::Flap { up: length, down: length });
    let (mut refused, mut answered) = (0, 0);
    let deadline = Instant::now() + LIMIT;
    while (refused == 0 || answered == 0) && Instant::now() < deadline {
        match tokio::net::TcpStream::connect(bench.proxy.addr()).await {
            Ok(_) => answered += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0 && answered > 0, "{refused} refused, {answered} answered");
}

#[tokio::test]
async fn another_peer_can_take_the_first_one_s_place() {
    let bench = Bench::new();
    let other = Bench::new();
    bench.proxy.retarget(other.server.addr());
    assert!(bench.get(&bench.client()).await.is_err(), "the other's certificate is not ours");
    bench.server.stop();
    bench.proxy.retarget(bench.server.addr());
    bench.get(&bench.client()).await.expect_err("nobody there");
}

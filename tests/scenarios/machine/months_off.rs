//! What a node does that was switched off for longer than its certificates live, and one whose
//! Vault is away while it boots.

use std::time::Duration;

use jiff::Timestamp;
use nodeagent::host::clock::{Clock, SystemClock};
use rig::clock::ModelClock;
use rig::node::{AGENT, GATE, KUBELET, NodeOptions};
use serde_json::{Value, json};

use rig::proxy::Fault;

use super::{SOON, Story, installed, serving};

/// Certificates that end soon after the power is off. Vault's role dates them back by 30 s unless
/// it is told otherwise, and here they live for less.
const BRIEF: &str = "[rotation]\nsurvive_vault_outage = \"4s\"\nissues_per_hour = 3600\n\
                     [[certificate]]\nname = \"kubelet-server\"\nttl = \"15s\"\n\
                     [[certificate]]\nname = \"kubelet-client\"\nttl = \"15s\"\n";

#[tokio::test]
async fn n09_a_node_that_was_off_for_months_is_repaired_before_its_kubelet_starts() {
    let Some(mut story) = installed(NodeOptions::worker()).await else {
        return;
    };
    date_back_little(&story).await;
    story.configure(BRIEF);
    story.boot().expect("it boots");
    story.machine.wait_unit(KUBELET, "active", SOON).expect("the kubelet is READY");
    story.machine.power_off().expect("it shuts down");
    let old = published(&story);
    story.wait("the certificates have ended", || ModelClock::real().now() > old.1);

    // Vault is away too: the agent is up and says so, the gate holds the kubelet.
    story.configure("");
    story.proxy.set(Fault::Refuse);
    story.boot().expect("it boots");
    story.machine.wait_unit(AGENT, "active", SOON).expect("the agent is READY without Vault");
    let status = story.wait_status("the failed log-in", |status| {
        Story::problem(status, "vault-unreachable").is_some()
    });
    assert_eq!(status["health"], "failed", "{status:#}");
    let machine = &story.machine;
    assert_eq!(machine.unit_state(GATE).expect("a state"), "activating");
    assert_eq!(machine.unit_state(KUBELET).expect("a state"), "inactive");
    let agent = machine.main_pid(AGENT).expect("a pid");

    let back = ModelClock::real().now();
    story.proxy.set(Fault::None);
    let serial = story.wait_serving();
    assert_ne!(serial, old.0);
    let committed = ["kubelet-client", "kubelet-server"].map(|name| story.committed_at(name));
    let gate = wall(story.instant(GATE, "ActiveEnter"));
    let kubelet = wall(story.instant(KUBELET, "ExecMainStart"));
    let order = [back, committed[0].max(committed[1]), gate, kubelet];
    assert!(order.is_sorted(), "vault back, certificates, gate, kubelet: {order:#?}");
    println!("FIGURE vault_back_to_open_gate_ms={}", back.duration_until(gate).as_millis());
    assert_eq!(machine.main_pid(AGENT).expect("a pid"), agent, "it was never killed");
    assert_eq!(machine.unit_property(KUBELET, "NRestarts").expect("a number"), "0");
    assert!(!story.log().contains("nonce"), "its nonce was still good: {}", story.log());
}

#[tokio::test]
async fn a_kubelet_with_good_certificates_starts_though_vault_is_away() {
    let Some(mut story) = serving(NodeOptions::worker()).await else {
        return;
    };
    let serial = story.wait_serving();
    story.configure("[vault]\nsplay = \"1s\"\n");
    story.machine.power_off().expect("it shuts down");
    story.proxy.set(Fault::Refuse);
    story.boot().expect("it boots");
    story.machine.wait_unit(KUBELET, "active", SOON).expect("the kubelet is READY");
    assert_eq!(story.wait_served(), serial);
    let status = story.wait_status("the failed log-in", |status| {
        Story::problem(status, "vault-unreachable").is_some()
    });
    assert_eq!(status["health"], "degraded", "{status:#}");
    let screen = story.verb(&["status"]).expect("the verb runs");
    assert_eq!(screen.status.code(), Some(1), "{}", screen.stdout);

    story.proxy.set(Fault::None);
    let status = story.wait_healthy();
    assert_eq!(status["vault"]["session"], "logged-in");
    assert_eq!(story.served().expect("it serves"), serial, "nothing was issued for nothing");
}

async fn date_back_little(story: &Story) {
    let admin = story.admin();
    for role in ["pki/roles/kubelet-server", "pki/roles/kubelet-client"] {
        let read = admin.read(role).await.expect("vault answers");
        let mut body: Value = read.json["data"].clone();
        body["not_before_duration"] = json!("1s");
        admin.must_write(role, &body).await.expect("the role is taken");
    }
}

/// The published server certificate of a node that is off: its serial and its end.
fn published(story: &Story) -> (String, Timestamp) {
    let path = "var/lib/nodeagent-certs/kubelet/kubelet-server/current/cert.pem";
    let pem = std::fs::read(story.machine.root().join(path)).expect("it is published");
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("it is PEM");
    let leaf = pem.parse_x509().expect("a certificate");
    let end = Timestamp::from_second(leaf.validity().not_after.timestamp());
    (rig::pki::serial_text(leaf.raw_serial()), end.expect("an instant"))
}

/// The wall clock at an instant of the clock that systemd stamps units by.
fn wall(micros: u64) -> Timestamp {
    let clock = SystemClock::new("/");
    let ago = clock.awake().saturating_sub(Duration::from_micros(micros));
    clock.now().checked_sub(ago).expect("an instant")
}

//! What a node does that was switched off for longer than its certificates live, and one whose
//! Vault is away while it boots.

use std::time::Duration;

use jiff::Timestamp;
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
async fn a_node_that_was_off_for_months_is_repaired_before_its_kubelet_starts() {
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

    let back = monotonic(&story);
    story.proxy.set(Fault::None);
    let serial = story.wait_serving();
    assert_ne!(serial, old.0);
    let (issued, gate) = (issued_at(&story), story.instant(GATE, "ActiveEnter"));
    let kubelet = story.instant(KUBELET, "ExecMainStart");
    let order = [back, issued, gate, kubelet];
    assert!(order.is_sorted(), "vault back, certificate, gate, kubelet: {order:?}");
    println!("FIGURE vault_back_to_open_gate_s={:.2}", (gate - back) as f64 / 1e6);
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
    story.machine.power_off().expect("it shuts down");
    story.proxy.set(Fault::Refuse);
    story.boot().expect("it boots");
    story.machine.wait_unit(KUBELET, "active", SOON).expect("the kubelet is READY");
    assert_eq!(story.served().expect("it serves"), serial);
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
    (leaf.raw_serial_as_string(), end.expect("an instant"))
}

/// The clock that systemd stamps units by, now.
fn monotonic(story: &Story) -> u64 {
    let uptime = story.run(&["cat", "/proc/uptime"]);
    let seconds = uptime.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
    Duration::from_secs_f64(seconds.expect("seconds")).as_micros() as u64
}

/// When the agent logged the first issue of this boot.
fn issued_at(story: &Story) -> u64 {
    let log = story.run(&["journalctl", "--boot", "--unit", AGENT, "--output=json"]);
    let line = log.lines().find(|line| line.contains("issued, valid until"));
    let line: Value = serde_json::from_str(line.expect("an issue is told")).expect("json");
    let instant = line["__MONOTONIC_TIMESTAMP"].as_str().and_then(|text| text.parse().ok());
    instant.expect("microseconds")
}

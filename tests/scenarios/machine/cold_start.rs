//! A node's first boot: the gate holds the kubelet until its certificates are there.

use rig::node::{AGENT, GATE, KUBELET, NodeOptions};

use super::{SOON, installed};

#[tokio::test]
async fn the_kubelet_of_a_new_node_starts_when_its_certificates_are_there() {
    let Some(mut story) = installed(NodeOptions::worker()).await else {
        return;
    };
    story.boot().expect("it boots");
    let serial = story.wait_serving();
    let machine = &story.machine;
    assert_eq!(machine.settled(SOON).expect("it settles"), "running", "{}", story.log());
    for unit in [AGENT, GATE, KUBELET] {
        assert_eq!(machine.unit_state(unit).expect("a state"), "active", "{unit}");
    }
    assert_eq!(machine.unit_property(AGENT, "UnitFileState").expect("a property"), "enabled");
    assert_eq!(machine.unit_property(KUBELET, "NRestarts").expect("a property"), "0");

    let gate = story.instant(GATE, "ActiveEnter");
    let begun = story.instant(GATE, "InactiveExit");
    assert!(begun < gate, "the gate waited from {begun} to {gate}");
    let start = story.instant(KUBELET, "ExecMainStart");
    assert!(gate <= start, "the gate opened at {gate}, the kubelet started at {start}");
    assert!(machine.journal(GATE).expect("a journal").contains("waiting: "), "the gate tells why");

    let status = machine.unit_property(AGENT, "StatusText").expect("a property");
    assert!(status.starts_with("healthy; "), "{status}");
    let screen = story.verb(&["status"]).expect("the verb runs");
    assert_eq!(screen.status.code(), Some(0), "{}{}", screen.stdout, screen.stderr);
    assert!(screen.stdout.contains("is healthy"), "{}", screen.stdout);
    assert!(screen.stdout.contains(&serial[..11]), "{}", screen.stdout);
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let asked = [&nobody[..], &["nodeagent", "status"]].concat();
    assert!(story.run(&asked).contains(&serial[..11]), "an ordinary user sees it too");
    let token = [&nobody[..], &["cat", "/run/nodeagent/token"]].concat();
    assert!(!machine.exec(&token).expect("exec").status.success(), "the token is for root");

    let lines = story.run(&["journalctl", "--unit", AGENT, "--output=json"]);
    let line = lines
        .lines()
        .find(|line| line.contains("issued, valid until") && line.contains("cert/kubelet-server"));
    let line: serde_json::Value =
        serde_json::from_str(line.expect("an issue is told")).expect("json");
    assert_eq!(line["F_SERIAL"], serial.as_str(), "{line:#}");
    let issued = line["__MONOTONIC_TIMESTAMP"].as_str().and_then(|text| text.parse().ok());
    let since = |instant: u64| (instant - story.booted()) as f64 / 1e6;
    println!("FIGURE boot_to_first_certificate_s={:.2}", since(issued.expect("an instant")));
    println!("FIGURE boot_to_open_gate_s={:.2}", since(gate));
    println!("FIGURE boot_to_kubelet_ready_s={:.2}", since(story.instant(KUBELET, "ActiveEnter")));
}

//! The units as shipped, in systemd's own judgement: their sandbox, their syntax, what they do
//! when the configuration is wrong.

use rig::node::{AGENT, GATE, KUBELET, NodeOptions};

use super::{SOON, Story, installed, serving};

/// `systemd-analyze security` at most, in its tenths: 2.0 OK.
const EXPOSURE: u32 = 20;

/// A group that root is not in: giving it a file needs what the sandbox leaves of root's power.
const GROUP: &str = "[[consumer]]\nname = \"kubelet\"\ngroup = \"nogroup\"\n";

#[tokio::test]
async fn the_sandbox_of_the_agent_leaves_little_exposed_and_the_job_done() {
    let Some(story) = serving(NodeOptions::worker().with(GROUP)).await else {
        return;
    };
    let former = story.wait_serving();
    for unit in [AGENT, GATE] {
        let report = story.run(&["systemd-analyze", "--no-pager", "security", unit]);
        let overall = report.lines().find(|line| line.contains("Overall exposure level"));
        let overall = overall.unwrap_or_else(|| panic!("{unit}: {report}"));
        let words = overall.split_whitespace();
        let level: f64 = words.filter_map(|word| word.parse().ok()).next_back().expect("a number");
        println!("FIGURE exposure_of_{}={level}", unit.replace(['.', '@', '-'], "_"));
        assert!((level * 10.0).round() <= f64::from(EXPOSURE), "{report}");
    }
    let all = "/usr/lib/systemd/system/nodeagent.service";
    let verified = ["systemd-analyze", "verify", "--man=no", all, GATE, KUBELET];
    let output = story.machine.exec(&verified).expect("exec");
    let complaints = format!("{}{}", output.stdout, output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{complaints}");
    // A rotation under the sandbox, to the end: key, signature, publication, probe.
    story.renew();
    let (serial, _) = story.wait_served_other(&former, SOON).expect("another serial");
    assert_eq!(story.wait_proved(&serial)["problems"], serde_json::json!([]));
    let key = "/var/lib/nodeagent-certs/kubelet/kubelet-server/current/key.pem";
    assert_eq!(story.run(&["stat", "--format=%U:%G %a", key]).trim(), "root:nogroup 640");
    // node_exporter runs as nobody: it reads the metrics, and not the session beside them.
    let as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "cat"];
    let read = |path| story.machine.exec(&[&as_nobody[..], &[path]].concat()).expect("exec");
    let metrics = read("/run/nodeagent/metrics.prom");
    assert!(metrics.stdout.contains("nodeagent_health{state=\"healthy\"} 1\n"), "{metrics:?}");
    assert!(!read("/run/nodeagent/token").status.success(), "the token is root's");
    let denied = story.run(&["journalctl", "--unit", AGENT, "--output=cat"]);
    assert!(!denied.contains("ermission denied") && !denied.contains("not permitted"), "{denied}");
}

#[tokio::test]
async fn a_wrong_configuration_is_told_once_and_not_tried_in_a_loop() {
    let Some(mut story) = installed(NodeOptions::worker()).await else {
        return;
    };
    story.configure("[vault]\naddres = \"https://elsewhere\"\n");
    story.boot().expect("it boots");
    story.machine.wait_unit(AGENT, "failed", SOON).expect("it gives up");
    let machine = &story.machine;
    assert_eq!(machine.unit_property(AGENT, "ExecMainStatus").expect("a code"), "78");
    assert_eq!(machine.unit_property(AGENT, "NRestarts").expect("a number"), "0");
    let log = story.log();
    assert!(log.contains("30-story.toml") && log.contains("addres"), "{log}");
    assert_eq!(machine.unit_state(GATE).expect("a state"), "activating", "the gate waits");
    assert_eq!(machine.unit_state(KUBELET).expect("a state"), "inactive", "and the kubelet");

    story.configure("");
    story.run(&["systemctl", "start", AGENT]);
    story.wait_serving();
}

#[tokio::test]
async fn what_user_data_may_get_wrong_is_told_with_its_place_and_not_tried_in_a_loop() {
    let Some(mut story) = installed(NodeOptions::worker()).await else {
        return;
    };
    let wrong = "/etc/nodeagent/config.d/30-story.toml";
    story.configure("[node]\nrole = \"edge\"\n");
    story.boot().expect("it boots");
    let place = format!("{wrong}:2: node.role: unknown variant `edge`");
    gives_up(&story, &[&place, "`worker`, `controller`, `bare`"]);

    story.configure("\n[pki.cluster]\nca = \"/etc/nodeagent/ca/gone.pem\"\n");
    // It ends with the start, which fails.
    story.machine.exec(&["systemctl", "restart", AGENT]).expect("exec");
    let place = format!("{wrong}:3: pki.cluster.ca: /etc/nodeagent/ca/gone.pem: No such file");
    gives_up(&story, &[&place, "put the CA's PEM there"]);

    story.configure("");
    story.run(&["systemctl", "start", AGENT]);
    story.wait_serving();
}

/// Waits until systemd has given up on the agent, at its first failure, and its journal says what
/// is wrong and what to do.
fn gives_up(story: &Story, wanted: &[&str]) {
    let machine = &story.machine;
    machine.wait_unit(AGENT, "failed", SOON).expect("it gives up");
    assert_eq!(machine.unit_property(AGENT, "ExecMainStatus").expect("a code"), "78");
    assert_eq!(machine.unit_property(AGENT, "NRestarts").expect("a number"), "0");
    story.wait(&format!("the journal says {wanted:?}"), || {
        let log = story.log();
        wanted.iter().all(|text| log.contains(text))
    });
}

//! What the agent does to a kubelet over the system's D-Bus, and what it takes back.

use rig::node::{AGENT, KUBELET, NodeOptions};
use rig::peer::kube::container_pids;
use serde_json::Value;

use super::{SOON, Story, serving};

const RESTART: &str = "[[consumer]]\nname = \"kubelet\"\nact = \"restart\"\n";

/// A start of the kubelet fails as long as the certificate on disk is not the one that the story
/// allows: a consumer that cannot live with the new one.
const PICKY: &str = "[Service]
ExecStartPre=/usr/bin/cmp /etc/allowed.pem \
    /var/lib/nodeagent-certs/kubelet/kubelet-server/current/cert.pem
";

#[tokio::test]
async fn a_kubelet_that_has_to_be_restarted_keeps_its_containers() {
    let Some(story) = serving(NodeOptions::worker().with(RESTART)).await else {
        return;
    };
    let former = story.wait_serving();
    let containers = story.containers();
    let run = story.kubelet_run().expect("the kubelet runs");
    story.renew();
    let (serial, _) = story.wait_served_other(&former, SOON).expect("another serial");
    let status = story.wait_proved(&serial);
    let consumer = &status["consumers"][0];
    assert_eq!(consumer["last_act"], "restarted", "{consumer:#}");
    let again = story.kubelet_run().expect("the kubelet runs");
    assert_ne!(again, run, "it was restarted");
    assert_eq!(story.machine.unit_state(KUBELET).expect("a state"), "active");
    assert_eq!(story.machine.unit_property(KUBELET, "NRestarts").expect("a number"), "0");
    assert_eq!(container_pids(&story.machine).expect("they run"), containers);
    assert_eq!(story.wait_healthy()["problems"], serde_json::json!([]));
    assert_eq!(story.kubelet_run().expect("the kubelet runs"), again, "it was restarted once");
}

#[tokio::test]
async fn a_kubelet_that_does_not_come_back_gets_its_former_certificate_again() {
    let Some(story) = serving(NodeOptions::worker().with(RESTART)).await else {
        return;
    };
    let former = story.wait_serving();
    let containers = story.containers();
    let current = "/var/lib/nodeagent-certs/kubelet/kubelet-server/current/cert.pem";
    story.run(&["cp", current, "/etc/allowed.pem"]);
    story.drop_in(KUBELET, PICKY);
    story.renew();
    let status =
        story.wait_status("the rollback", |status| Story::problem(status, "rolled-back").is_some());
    let problem = Story::problem(&status, "rolled-back").expect("it is told");
    let text = problem["text"].as_str().unwrap_or_default();
    assert!(text.contains("with the former certificate"), "{problem:#}");
    assert!(!text.contains("failed too"), "{problem:#}");
    let found = status["certificates"].as_array().expect("a list").iter();
    let server: &Value = found.clone().find(|part| part["name"] == "kubelet-server").expect("it");
    assert_eq!((&server["quarantined"], &server["generation"]), (&2.into(), &3.into()));
    assert_eq!(server["serial"], former.as_str());

    story.machine.wait_unit(KUBELET, "active", SOON).expect("the kubelet runs again");
    story.wait("the former certificate is served", || {
        story.served().is_ok_and(|serial| serial == former)
    });
    assert_eq!(container_pids(&story.machine).expect("they run"), containers);
    let screen = story.verb(&["status"]).expect("the verb runs");
    assert_eq!(screen.status.code(), Some(1), "{}", screen.stdout);
    assert!(screen.stdout.contains("PROBLEM   rolled-back"), "{}", screen.stdout);
    // What was taken back is not tried again by a new start of the agent either.
    let run = story.kubelet_run().expect("the kubelet runs");
    story.run(&["systemctl", "restart", AGENT]);
    let status = story.wait_status("the restarted agent's look", |status| {
        status["agent"]["started"] != Value::Null && status["consumers"][0]["state"] != "pending"
    });
    assert!(Story::problem(&status, "rolled-back").is_some(), "{status:#}");
    assert_eq!(story.kubelet_run().expect("the kubelet runs"), run);
}

impl Story {
    /// The processes of the static pod, once both of its containers run.
    fn containers(&self) -> std::collections::BTreeMap<String, u32> {
        let both = || container_pids(&self.machine).ok().filter(|pids| pids.len() == 2);
        let pids = rig::machine::wait_for("sandbox and container run", SOON, both);
        pids.expect("the static pod runs")
    }
}

//! A rotation on a node: the kubelet takes up the new certificate by itself.

use std::os::unix::fs::MetadataExt;

use jiff::Timestamp;
use rig::node::NodeOptions;

use super::{SOON, Story, serving};

/// The link whose swap is the commit.
const CURRENT: &str = "var/lib/nodeagent-certs/kubelet/kubelet-server/current";

#[tokio::test]
async fn a_rotation_is_served_at_once_by_the_kubelet_that_runs() {
    let Some(story) = serving(NodeOptions::worker()).await else {
        return;
    };
    let mut serial = story.wait_serving();
    let run = story.kubelet_run().expect("the kubelet runs");
    for _ in 0..3 {
        story.renew();
        let (served, at) = story.wait_served_other(&serial, SOON).expect("another serial");
        let took = at.as_millisecond() - committed_at(&story).as_millisecond();
        println!("FIGURE commit_to_served_ms={took}");
        let status = story.wait_proved(&served);
        assert_eq!(status["consumers"][0]["last_act"], serde_json::Value::Null);
        serial = served;
    }
    assert_eq!(story.kubelet_run().expect("the kubelet runs"), run, "it was not restarted");
    assert_eq!(story.wait_healthy()["problems"], serde_json::json!([]));
}

/// When the link was put in place; by the clock of the file system, which is late by at most the
/// kernel's tick.
fn committed_at(story: &Story) -> Timestamp {
    let link = std::fs::symlink_metadata(story.machine.root().join(CURRENT));
    let link = link.expect("the link is there");
    let nanos = i128::from(link.ctime()) * 1_000_000_000 + i128::from(link.ctime_nsec());
    Timestamp::from_nanosecond(nanos).expect("an instant")
}

//! A rotation on a node: the kubelet takes up the new certificate by itself.

use rig::node::NodeOptions;

use super::{SOON, serving};

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
        let took = at.as_millisecond() - story.committed_at("kubelet-server").as_millisecond();
        println!("FIGURE commit_to_served_ms={took}");
        let status = story.wait_proved(&served);
        assert_eq!(status["consumers"][0]["last_act"], serde_json::Value::Null);
        serial = served;
    }
    assert_eq!(story.kubelet_run().expect("the kubelet runs"), run, "it was not restarted");
    assert_eq!(story.wait_healthy()["problems"], serde_json::json!([]));
}

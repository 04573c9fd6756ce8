//! What a kubelet is in the cluster that the agent has told it of, and what it may not be.

use rig::controllers::ControllersOptions;
use serde_json::json;

use super::{raised, told};

const TOLD: &str = "[kubelet]\n\
    labels = { \"example.com/rack\" = \"7\" }\n\
    taints = [\"example.com/quiet=yes:NoSchedule\"]\n";

#[tokio::test]
async fn a_kubelet_joins_with_the_name_labels_and_taints_that_it_was_told() {
    let Some(story) = raised(ControllersOptions::new(1).with(TOLD)).await else { return };
    let instance = &story.nodes[0].instance;
    let api = told(story.api(0));
    let path = format!("/api/v1/nodes/{instance}");
    let node = told(api.get(&path).await);
    assert_eq!(node["metadata"]["labels"]["example.com/rack"], "7", "{node:#}");
    let taints = node["spec"]["taints"].as_array().expect("a list");
    let taint = json!({"key": "example.com/quiet", "value": "yes", "effect": "NoSchedule"});
    assert!(taints.contains(&taint), "{taints:?}");
    let address = json!({"type": "InternalIP", "address": story.nodes[0].machine.ip()});
    let addresses = node["status"]["addresses"].as_array().expect("a list");
    assert!(addresses.contains(&address), "{addresses:?}");

    // With its own certificate a kubelet is this node and no other.
    let other = json!({"metadata": {"name": "i-00000000000000bad"}});
    told(api.create("/api/v1/nodes", &other).await);
    let identity = told(story.kubelet_identity(0));
    let kubelet = told(story.api_as(0, &identity));
    let label = json!({"metadata": {"labels": {"example.com/rack": "8"}}});
    let own = told(kubelet.call("PATCH", &path, Some(&label)).await);
    assert_eq!(own.status, 200, "{}", own.text);
    let foreign = "/api/v1/nodes/i-00000000000000bad";
    let refused = told(kubelet.call("PATCH", foreign, Some(&label)).await);
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert!(
        refused.text.contains(&format!("node \\\"{instance}\\\" is not allowed")),
        "{}",
        refused.text
    );
    let role = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
    let refused = told(kubelet.call("PATCH", &path, Some(&role)).await);
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert!(refused.text.contains("is not allowed to modify labels"), "{}", refused.text);
}

//! A cluster of nothing but user data: a controller raises its control plane, and a worker joins.

use std::time::Instant;

use rig::controllers::api::Api;
use serde_json::{Value, json};

use super::secrets::{assert_none_shown, assert_none_told};
use super::{SOON, booted, first_issue, ignited, opened, told, wait_up};

#[tokio::test]
async fn a_controller_raises_its_cluster_and_a_worker_joins_it() {
    let Some(story) = opened(2).await else { return };
    let mut controller = told(story.launch("controller-0", "controller"));
    let mut worker = told(story.launch("worker-0", "worker"));
    let release = told(story.publish());
    let of_controller = story.controller_inputs(&release, &controller);
    let of_worker = story.worker_inputs(&release, controller.machine.ip());
    ignited(&story, &mut controller, &of_controller);
    ignited(&story, &mut worker, &of_worker);
    assert_none_told(&story, &controller);

    let begun = Instant::now();
    told(controller.boot());
    told(worker.boot());
    wait_up(&worker);
    let api = told(story.api(&controller).await);
    let labels = |node: &Value, key: &str| node["metadata"]["labels"][key].clone();
    let node = told(wait_ready(&api, &controller.id).await);
    let taint = json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"});
    assert!(taints(&node).contains(&taint), "{node:#}");
    assert_eq!(labels(&node, "example.com/pool"), Value::Null);
    let node = told(wait_ready(&api, &worker.id).await);
    println!("launch: boot_to_ready_cluster_s={:.1}", begun.elapsed().as_secs_f64());
    assert_eq!(labels(&node, "example.com/pool"), "general", "{node:#}");
    let taint = json!({"key": "example.com/quiet", "value": "yes", "effect": "PreferNoSchedule"});
    assert!(taints(&node).contains(&taint), "{node:#}");
    wait_up(&controller);
    for instance in [&controller, &worker] {
        let took = (first_issue(instance) - booted(instance)) as f64 / 1e6;
        let name = instance.machine.name();
        println!("launch: {name}: boot_to_first_certificate_s={took:.2}");
        assert_none_shown(instance);
    }
}

fn taints(node: &Value) -> Vec<Value> {
    node["spec"]["taints"].as_array().cloned().unwrap_or_default()
}

/// The node of this name, once it is Ready.
async fn wait_ready(api: &Api, name: &str) -> Result<Value, String> {
    let (path, deadline) = (format!("/api/v1/nodes/{name}"), Instant::now() + SOON);
    loop {
        let seen = api.get(&path).await;
        let conditions =
            seen.as_ref().ok().and_then(|node| node["status"]["conditions"].as_array());
        let ready = |part: &Value| part["type"] == "Ready" && part["status"] == "True";
        if conditions.is_some_and(|all| all.iter().any(ready)) {
            return seen;
        }
        if Instant::now() >= deadline {
            return Err(format!("{name} is not Ready within {SOON:?}: {seen:#?}"));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

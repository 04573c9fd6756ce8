//! What the stories of Kubernetes build on: machines of the rig run a whole control plane, one or
//! three of them, and can be broken in the ways that stories break them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Controllers, ControllersOptions, Raising};
use crate::machine::Machine;

const LIMIT: Duration = Duration::from_secs(60);

async fn by_hand(count: usize) -> Option<Controllers> {
    if !Machine::available() {
        return None;
    }
    if let Some(reason) = Controllers::unavailable() {
        eprintln!("skipped: {reason}");
        return None;
    }
    let options = ControllersOptions::new(count).raised(Raising::ByHand);
    Some(Controllers::prepare(options).await.expect("controllers can be made"))
}

#[tokio::test]
async fn a_controller_raised_by_hand_is_ready_and_can_be_broken() {
    let Some(mut plane) = by_hand(1).await else { return };
    let begun = Instant::now();
    plane.boot().expect("it boots");
    plane.wait_readyz(0, LIMIT).await.unwrap_or_else(|error| panic!("{error}"));
    println!("FIGURE by_hand_readyz_s={:.1}", begun.elapsed().as_secs_f64());
    plane.wait_node_ready(0, 0, LIMIT).await.unwrap_or_else(|error| panic!("{error}"));
    println!("FIGURE by_hand_node_ready_s={:.1}", begun.elapsed().as_secs_f64());
    plane.wait_mirror_pods(0, LIMIT).await.unwrap_or_else(|error| panic!("{error}"));
    println!("FIGURE by_hand_mirror_pods_s={:.1}", begun.elapsed().as_secs_f64());

    let api = plane.api(0).expect("a client");
    let namespace = json!({"metadata": {"name": "story"}});
    api.create("/api/v1/namespaces", &namespace).await.expect("it is created");
    let kubelet = plane.kubelet_identity(0).expect("a kubelet's certificate");
    let as_kubelet = plane.api_as(0, &kubelet).expect("a client");
    let refused = as_kubelet.call("GET", "/api/v1/secrets", None).await.expect("an answer");
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert_eq!(plane.etcd_health(0).await.expect("etcd answers")["health"], "true");

    let node = &plane.nodes[0];
    let before = node.pids("kube-apiserver");
    assert_eq!(before.len(), 1);
    assert_eq!(node.signal("kube-apiserver", Signal::SIGKILL).expect("it is killed"), 1);
    let other = async || match plane.nodes[0].pids("kube-apiserver") {
        now if now.len() == 1 && now != before => Ok(()),
        now => Err(format!("{now:?}")),
    };
    plane.wait(0, "another API server runs", LIMIT, other).await.expect("it is restarted");
    plane.wait_readyz(0, LIMIT).await.unwrap_or_else(|error| panic!("{error}"));

    let begun = Instant::now();
    plane.power_cut().expect("it boots again");
    plane.wait_readyz(0, LIMIT).await.unwrap_or_else(|error| panic!("{error}"));
    println!("FIGURE by_hand_after_power_cut_s={:.1}", begun.elapsed().as_secs_f64());
    let kept = plane.api(0).expect("a client").get("/api/v1/namespaces/story").await;
    assert_eq!(kept.expect("it was kept")["metadata"]["name"], "story");
}

#[tokio::test]
async fn three_controllers_are_one_cluster_until_one_is_cut_off() {
    let Some(mut plane) = by_hand(3).await else { return };
    let begun = Instant::now();
    plane.boot().expect("they boot");
    for node in 0..3 {
        plane.wait_readyz(node, LIMIT).await.unwrap_or_else(|error| panic!("{error}"));
        plane.wait_node_ready(node, 0, LIMIT).await.unwrap_or_else(|error| panic!("{error}"));
    }
    println!("FIGURE by_hand_three_ready_s={:.1}", begun.elapsed().as_secs_f64());
    assert_eq!(plane.etcd_members(1).await.expect("etcd answers").len(), 3);

    plane.partition(2).expect("it is cut off");
    let alone = async || match plane.etcd_health(2).await {
        Ok(health) if health["health"] == "true" => Err(health.to_string()),
        _ => Ok(()),
    };
    plane.wait(2, "it has no quorum", LIMIT, alone).await.expect("it is alone");
    let rest = async || match plane.etcd_health(0).await?["health"] == "true" {
        true => Ok(()),
        false => Err("unhealthy".to_owned()),
    };
    plane.wait(0, "the others have one", LIMIT, rest).await.expect("two of three are enough");
    plane.heal(2).expect("it is joined again");
    let joined = async || match plane.etcd_health(2).await?["health"] == "true" {
        true => Ok(()),
        false => Err("unhealthy".to_owned()),
    };
    plane.wait(2, "it is one of three again", LIMIT, joined).await.expect("it comes back");
}

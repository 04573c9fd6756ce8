//! Three controllers and no first among them: whoever has the cluster's lock acts, the others wait
//! and say for whom, and take over when it is gone. What is shown of the order of things comes
//! from the journals: the machines have one clock.

use std::time::Instant;

use jiff::Timestamp;
use nodeagent::bootstrap::journal::{self, Event};
use nodeagent::bootstrap::step::Step;
use rig::controllers::{Controller, ControllersOptions, MANIFESTS, PLANE};
use rig::machine::Output;
use serde_json::json;

use super::{SOON, Story, entries, installed, told};

const SHARED: [&str; 3] =
    ["service-account/signing.key", "service-account/verify.pem", "encryption.yaml"];
const ASSETS: &str = "/etc/nodeagent/assets";
const CONFIG: &str = "[control_plane]\nassets = \"/etc/nodeagent/assets\"\nlock_lease = \"8s\"\n";
const LOCK: &str = "/nodeagent/rig/control-plane";

/// An object of a kind that the API does not know: it is waited for.
const TALE: &str = "apiVersion: stories.rig.test/v1\nkind: Tale\nmetadata:\n  name: kept\n";

/// A step that changes something, on one controller.
#[derive(Debug)]
struct Changing {
    node: usize,
    step: Step,
    begun: Timestamp,
    ended: Timestamp,
}

#[tokio::test]
async fn z21_three_controllers_act_one_at_a_time_and_survive_the_loss_of_any_and_of_all() {
    let Some(mut story) = installed(ControllersOptions::new(3).with(CONFIG)).await else { return };
    for node in &story.nodes {
        told(node.write(&format!("{ASSETS}/README"), "assets of this site\n"));
    }
    let begun = Instant::now();
    boot_at_once(&mut story);
    story.wait_whole().await;
    println!("FIGURE three_at_once_whole_s={:.1}", begun.elapsed().as_secs_f64());
    wait_settled(&story);
    each_raised_its_own(&story).await;
    two_recover_at_once(&story);
    a_holder_is_cut_off(&story).await;
    without_quorum_nothing_is_touched(&mut story);
    let begun = Instant::now();
    told(story.nodes[2].machine.kill_power());
    boot_at_once(&mut story);
    story.wait_whole().await;
    println!("FIGURE three_after_power_cut_whole_s={:.1}", begun.elapsed().as_secs_f64());
    wait_settled(&story);
    told(told(story.api(1)).get("/apis/stories.rig.test/v1/tales/kept").await);
    one_at_a_time(&story);
}

/// As a rack does when its power comes back.
fn boot_at_once(story: &mut Story) {
    std::thread::scope(|scope| {
        let boots: Vec<_> =
            story.nodes.iter_mut().map(|node| scope.spawn(|| node.boot())).collect();
        boots.into_iter().for_each(|boot| told(boot.join().expect("it does not panic")));
    });
}

/// Nothing is left to do for any agent, and nobody has the lock.
fn wait_settled(story: &Story) {
    for node in 0..story.nodes.len() {
        story.wait_status(node, "a whole control plane and a free lock", |status| {
            let plane = &status["control_plane"];
            plane["epoch"].as_u64() >= Some(1)
                && plane["step"].is_null()
                && plane["holder"].is_null()
        });
    }
}

async fn each_raised_its_own(story: &Story) {
    assert_eq!(told(story.etcd_members(0).await).len(), 3);
    let nodes = told(told(story.api(2)).list("/api/v1/nodes").await);
    assert_eq!(nodes.len(), 3);
    let shared: Vec<_> = story.nodes.iter().map(shared_secrets).collect();
    assert!(shared.iter().all(|files| *files == shared[0]), "{shared:?}");
    for (number, node) in story.nodes.iter().enumerate() {
        assert_eq!(node.manifests().len(), 3, "{}", node.member);
        let steps: Vec<Step> = changing(node, number).iter().map(|each| each.step).collect();
        assert!(steps.contains(&Step::PlaceManifests), "{}: {steps:?}", node.member);
        assert!(steps.contains(&Step::ApplyAssets), "{}: {steps:?}", node.member);
    }
    one_at_a_time(story);
}

/// No changing step of one controller lies over one of another.
fn one_at_a_time(story: &Story) {
    let nodes = story.nodes.iter().enumerate();
    let mut all: Vec<Changing> = nodes.flat_map(|(number, node)| changing(node, number)).collect();
    all.sort_by_key(|each| each.begun);
    for pair in all.windows(2).filter(|pair| pair[0].node != pair[1].node) {
        assert!(pair[0].ended <= pair[1].begun, "two at once: {pair:#?}");
    }
    assert!(all.len() >= 9, "{all:#?}");
}

/// The changing steps that a controller's journal tells of.
fn changing(node: &Controller, number: usize) -> Vec<Changing> {
    let mut found: Vec<Changing> = Vec::new();
    for entry in entries(node) {
        match entry.event {
            Event::Begun { step } if step.changes() => {
                found.push(Changing { node: number, step, begun: entry.at, ended: entry.at });
            }
            Event::Done { step } | Event::Failed { step, .. } if step.changes() => {
                found.last_mut().expect("it was begun").ended = entry.at;
            }
            _ => {}
        }
    }
    found
}

/// Two persons have the same thought.
fn two_recover_at_once(story: &Story) {
    let outputs = std::thread::scope(|scope| {
        let runs: Vec<_> = story.nodes[..2]
            .iter()
            .map(|node| scope.spawn(|| told(node.bootstrap(&["--recover"]))))
            .collect();
        runs.into_iter().map(|run| run.join().expect("it does not panic")).collect::<Vec<_>>()
    });
    for (node, output) in story.nodes.iter().zip(&outputs) {
        assert!(output.status.success(), "{}: {}", node.member, printed(output));
        assert!(output.stdout.contains(&format!("{:27} done in ", "apply-assets")));
    }
    one_at_a_time(story);
}

/// The last controller waits for something with the lock in its hand, and is cut off.
async fn a_holder_is_cut_off(story: &Story) {
    let holder = &story.nodes[2];
    told(holder.write(&format!("{ASSETS}/tale.yaml"), TALE));
    told(holder.machine.systemctl("reload", "nodeagent"));
    let etcd = told(story.etcd(0));
    let held = async || {
        let key = base64(LOCK);
        let range = etcd.create("/v3/kv/range", &json!({ "key": key })).await?;
        match range["kvs"].is_null() {
            true => Err("nobody has it".to_owned()),
            false => Ok(()),
        }
    };
    told(story.wait(2, "it has the lock", SOON, held).await);
    told(story.nodes[0].machine.systemctl("reload", "nodeagent"));
    story.wait_status(0, "who has the lock", |status| {
        status["control_plane"]["holder"]["instance"] == holder.instance.as_str()
    });

    let begun = Instant::now();
    told(story.partition(2));
    let next = told(story.nodes[0].bootstrap(&["--recover"]));
    let shown = printed(&next);
    assert!(next.status.success(), "{shown}\n{}", story.nodes[0].evidence());
    assert!(shown.contains(&format!("{} holds the lock since", holder.instance)), "{shown}");
    println!("FIGURE taken_over_s={:.1}", begun.elapsed().as_secs_f64());
    let journal = told(holder.machine.read(journal::PATH));
    let journal = String::from_utf8_lossy(&journal).into_owned();
    assert!(journal.contains("the lease of the cluster's lock"), "{journal}");

    told(story.heal(2));
    let api = told(story.api(0));
    told(api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd()).await);
    let kept = async || api.get("/apis/stories.rig.test/v1/tales/kept").await;
    told(story.wait(2, "its asset is applied", SOON, kept).await);
    story.wait_whole().await;
    wait_settled(story);
    one_at_a_time(story);
}

fn crd() -> serde_json::Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "tales.stories.rig.test" },
        "spec": {
            "group": "stories.rig.test",
            "scope": "Cluster",
            "names": { "kind": "Tale", "plural": "tales", "singular": "tale" },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object" } },
            }],
        },
    })
}

/// With one member of three there is nothing that a bootstrap may do.
fn without_quorum_nothing_is_touched(story: &mut Story) {
    for node in &mut story.nodes[..2] {
        told(node.machine.kill_power());
    }
    let left = &story.nodes[2];
    let before = tree(left);
    let output = told(left.bootstrap(&[]));
    let shown = printed(&output);
    assert!(!output.status.success() && shown.contains("no quorum: 1 of 3"), "{shown}");
    assert_eq!(tree(left), before, "something was written");
}

/// The digests of all that a bootstrap may write.
fn tree(node: &Controller) -> String {
    let list = format!("find {PLANE} {MANIFESTS} -type f | sort | xargs sha256sum");
    told(node.machine.exec_ok(&["sh", "-c", &list]))
}

fn shared_secrets(node: &Controller) -> String {
    let list = format!("cd {PLANE} && sha256sum {}", SHARED.join(" "));
    told(node.machine.exec_ok(&["sh", "-c", &list]))
}

fn printed(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

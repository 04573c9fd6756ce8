//! The configuration of a living control plane changes: what it says otherwise is replaced, and
//! nothing else; another style is refused.

use std::time::Duration;

use nix::sys::signal::Signal;
use nodeagent::bootstrap::facts;
use nodeagent::bootstrap::journal::{Entry, Event};
use nodeagent::bootstrap::step::Step;
use rig::controllers::{Controller, ControllersOptions};

use super::{Story, entries, raised, told};

const CHANGE: &str = "/etc/nodeagent/config.d/40-change.toml";

#[tokio::test]
async fn a_changed_flag_replaces_one_component_and_another_style_is_refused() {
    let Some(story) = raised(ControllersOptions::new(1)).await else { return };
    whole(&story);
    let node = &story.nodes[0];
    let (apiserver, manager) = (node.pids("kube-apiserver"), node.pids("kube-controller-manager"));
    let (scheduler, kubelet) = (node.pids("kube-scheduler"), node.pids("kubelet"));

    let flag = |v: u32| format!("[control_plane.flags.kube-scheduler]\nv = \"{v}\"\n");
    told(node.write(CHANGE, &flag(1)));
    reload(&story);
    story.wait_status(0, "the new flag", |_| {
        let pids = node.pids("kube-scheduler");
        let arguments = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        pids.iter().any(|pid| arguments(pid).is_ok_and(|line| line.contains("--v=1")))
    });
    whole(&story);
    assert_ne!(node.pids("kube-scheduler"), scheduler);
    assert_eq!(node.pids("kube-apiserver"), apiserver, "nothing of it has changed");
    assert_eq!(node.pids("kube-controller-manager"), manager, "nothing of it has changed");

    told(node.write(CHANGE, "[control_plane]\nstyle = \"self-hosted\"\n"));
    let planned = told(node.bootstrap(&["--plan"]));
    let refused = told(node.bootstrap(&[]));
    for output in [&planned, &refused] {
        assert_eq!(output.status.code(), Some(78), "{}{}", output.stdout, output.stderr);
        assert!(output.stderr.contains("raised as static"), "{}", output.stderr);
        assert!(output.stderr.contains("control_plane.style"), "{}", output.stderr);
    }
    reload(&story);
    story.wait_status(0, "the refusal", |status| {
        status["problems"].as_array().is_some_and(|problems| {
            let text = |part: &serde_json::Value| part["text"].as_str().unwrap_or_default().into();
            problems.iter().map(text).any(|text: String| text.contains("raised as static"))
        })
    });
    assert_eq!(node.pids("kube-apiserver"), apiserver, "nothing was touched");
    assert_eq!(node.manifests().len(), 3, "nothing was touched");

    take_back_unseen(&story, &flag(3), &flag(1));

    // What the last component of a change does not survive is taken back with all of it.
    let bad = "[control_plane.flags.kube-apiserver]\nv = \"1\"\n\
               [control_plane.flags.kube-controller-manager]\nnode-monitor-period = \"x\"\n";
    told(node.write(CHANGE, bad));
    // The API server misses a look meanwhile, which is no reason to take the kubelet for one that
    // has never met it: it would be restarted.
    let before = placings(node);
    assert_eq!(told(node.signal("kube-apiserver", Signal::SIGSTOP)), 1);
    reload(&story);
    story.wait_status(0, "manifests being placed", |_| placings(node) > before);
    tokio::time::sleep(facts::LOOK + Duration::from_secs(1)).await;
    told(node.signal("kube-apiserver", Signal::SIGCONT));
    story.wait_status(0, "the mistake", |_| placed(node, "--node-monitor-period=x"));
    told(node.write(CHANGE, ""));
    reload(&story);
    story.wait_status(0, "its end", |_| {
        !placed(node, "--node-monitor-period=x") && !placed(node, "--v=1")
    });
    whole(&story);
    assert_eq!(node.pids("kube-controller-manager").len(), 1);
    assert_eq!(node.pids("kubelet"), kubelet, "it let go of what was replaced by itself");
    change_beside_no_kubelet(&story);
}

/// Before the kubelet has seen a change it is taken back: there is nothing to wait for.
fn take_back_unseen(story: &Story, change: &str, former: &str) {
    let node = &story.nodes[0];
    let scheduler = node.pids("kube-scheduler");
    assert_eq!(told(node.signal("kubelet", Signal::SIGSTOP)), 1);
    told(node.write(CHANGE, change));
    reload(story);
    story.wait_status(0, "a change", |_| placed(node, "--v=3"));
    told(node.write(CHANGE, former));
    reload(story);
    story.wait_status(0, "its end", |_| !placed(node, "--v=3"));
    told(node.signal("kubelet", Signal::SIGCONT));
    whole(story);
    assert_eq!(node.pids("kube-scheduler"), scheduler, "the kubelet had nothing to do");
}

/// What would be ended for a file that has changed is left alone while nobody starts it again.
fn change_beside_no_kubelet(story: &Story) {
    let node = &story.nodes[0];
    let apiserver = node.pids("kube-apiserver");
    let policy = "/etc/nodeagent/audit.yaml";
    told(node.write(policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None}]\n"));
    told(node.machine.systemctl("stop", "kubelet"));
    told(node.write(CHANGE, &format!("[control_plane]\naudit_policy = \"{policy}\"\n")));
    reload(story);
    story.wait_status(0, "why it waits", |status| status.to_string().contains("unit is inactive"));
    assert_eq!(node.pids("kube-apiserver"), apiserver, "nobody would start it again");
    told(node.machine.systemctl("start", "kubelet"));
    reload(story);
    story.wait_status(0, "its restart", |_| {
        let now = node.pids("kube-apiserver");
        !now.is_empty() && now != apiserver
    });
    whole(story);
}

/// Whether a manifest has a flag.
fn placed(node: &Controller, flag: &str) -> bool {
    let directory = node.machine.root().join("etc/kubernetes/manifests");
    let text = |name: &String| std::fs::read_to_string(directory.join(name));
    node.manifests().iter().any(|name| text(name).is_ok_and(|text| text.contains(flag)))
}

/// How often manifests were begun to be placed, by the node's journal.
fn placings(node: &Controller) -> usize {
    let begun = |entry: &&Entry| matches!(entry.event, Event::Begun { step: Step::PlaceManifests });
    entries(node).iter().filter(begun).count()
}

fn whole(story: &Story) {
    story.wait_status(0, "a whole control plane", |status| {
        let plane = &status["control_plane"];
        plane["epoch"].as_u64() >= Some(1) && plane["step"].is_null()
    });
}

fn reload(story: &Story) {
    told(story.nodes[0].machine.systemctl("reload", "nodeagent"));
}

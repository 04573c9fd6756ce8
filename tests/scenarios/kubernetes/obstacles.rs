//! What stands in the way of a control plane is told, and once it is gone the agent goes on.

use rig::controllers::{ControllersOptions, ETCD, Raising};

use super::{SOON, installed, told};

const LARGE_KIB: u32 = 16 * 1024;

#[tokio::test]
async fn a_port_that_another_program_has_is_told_and_waited_for() {
    let options = ControllersOptions::new(1);
    let Some(mut story) = installed(options).await else { return };
    told(story.boot());
    told(story.nodes[0].take_port(6443));
    let told_of = async || {
        let output = told(story.nodes[0].machine.nodeagent(SOON, &["status"]));
        let names = ["await-apiserver: ", "port 6443 is taken by "];
        match names.iter().all(|name| output.stdout.contains(name)) {
            true => Ok(()),
            false => Err(output.stdout + &output.stderr),
        }
    };
    told(story.wait(0, "the status names the step that waits, and why", SOON, told_of).await);
    // A person, who may look into every process, is told which it is.
    let mut run = told(story.nodes[0].begin_bootstrap(&["--plan"]));
    let planned = told(run.wait());
    assert!(planned.printed.contains("port 6443 is taken by systemd-socket"), "{planned:?}");
    told(story.nodes[0].free_port());
    story.wait_whole().await;
}

#[tokio::test]
async fn n15_a_disk_that_is_full_leaves_nothing_half_and_is_told() {
    let options = ControllersOptions::new(1).raised(Raising::Told);
    let Some(mut story) = installed(options).await else { return };
    told(story.nodes[0].put_plane_on_disk_of(LARGE_KIB));
    told(story.boot());
    let node = &story.nodes[0];
    told(node.machine.wait_unit(ETCD, "active", SOON));
    story.wait_status(0, "the certificates of the API server", |status| {
        !rig::node::watch::serial(status, "kube-apiserver").is_empty()
    });
    // Room for the three files of shared secrets and for one page more: not for three manifests.
    told(node.resize_plane_disk(told(node.plane_disk_used()) + 16));
    let output = told(node.bootstrap(&[]));
    assert!(!output.status.success(), "{}\n{}", output.stdout, node.evidence());
    assert!(output.stderr.contains("No space left on device"), "{}", output.stderr);
    for name in node.manifests() {
        let path = format!("{}/{name}", rig::controllers::MANIFESTS);
        let manifest = told(node.machine.read(&path));
        let end = "hostNetwork";
        assert!(String::from_utf8_lossy(&manifest).contains(end), "{name} is half");
    }
    told(node.resize_plane_disk(LARGE_KIB));
    let output = told(node.bootstrap(&[]));
    assert!(output.status.success(), "{}{}\n{}", output.stdout, output.stderr, node.evidence());
    story.wait_whole().await;
}

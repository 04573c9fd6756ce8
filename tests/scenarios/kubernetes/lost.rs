//! A control plane that is lost is raised again: by the agent itself, or by one command.

use std::time::Instant;

use rig::controllers::{ControllersOptions, Raising};

use super::{SOON, Story, installed, raised, told};

/// Takes the manifests away and waits until nothing of the control plane runs.
async fn lose(story: &Story) {
    told(story.nodes[0].remove_manifests());
    let gone = async || match story.processes(0) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?} run")),
    };
    told(story.wait(0, "nothing of the control plane runs", SOON, gone).await);
}

#[tokio::test]
async fn an_agent_raises_its_control_plane_again() {
    let Some(story) = raised(ControllersOptions::new(1)).await else { return };
    let before = story.processes(0);
    told(story.nodes[0].remove_manifests());
    // The manifests may be back before the kubelet has ended anything: then nothing would be lost.
    told(story.nodes[0].kill_components());
    let begun = Instant::now();
    let other = async || {
        let now = story.processes(0);
        match now.len() == 3 && now.iter().all(|pid| !before.contains(pid)) {
            true => Ok(()),
            false => Err(format!("{now:?}, {before:?} before")),
        }
    };
    told(story.wait(0, "other processes run", SOON, other).await);
    story.wait_whole().await;
    println!("FIGURE recovered_by_the_agent_s={:.1}", begun.elapsed().as_secs_f64());
}

#[tokio::test]
async fn a_person_raises_a_lost_control_plane_with_one_command() {
    let options = ControllersOptions::new(1).raised(Raising::Told);
    let Some(mut story) = installed(options).await else { return };
    told(story.boot());
    story.wait_status(0, "the certificates of the API server", |status| {
        !rig::node::watch::serial(status, "kube-apiserver").is_empty()
    });
    let node = &story.nodes[0];
    let first = told(node.bootstrap(&[]));
    assert!(first.status.success(), "{}{}\n{}", first.stdout, first.stderr, node.evidence());
    lose(&story).await;
    let begun = Instant::now();
    let output = told(node.bootstrap(&["--recover"]));
    let printed = format!("{}{}", output.stdout, output.stderr);
    assert!(output.status.success(), "{printed}\n{}", node.evidence());
    assert!(printed.contains(&format!("{:27} done in ", "place-manifests")), "{printed}");
    let ready = told(story.api(0)).call("GET", "/readyz", None).await;
    assert_eq!(ready.expect("an answer").status, 200);
    println!("FIGURE recovered_by_command_s={:.1}", begun.elapsed().as_secs_f64());
    story.wait_whole().await;
}

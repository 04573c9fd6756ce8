//! The self-hosted style: temporary static pods raise DaemonSets and go when those lead; after a
//! reboot, when no API server comes back by itself, the agent raises it again.

use rig::controllers::{ControllersOptions, Style};

use super::{SOON, Story, installed, told};

const FINAL: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

fn options() -> ControllersOptions {
    ControllersOptions { style: Style::SelfHosted, ..ControllersOptions::new(1) }
}

/// Waits until the agent says that all of it is whole and no temporary manifest is left.
pub(super) async fn wait_final(story: &Story) {
    story.wait_status(0, "a whole control plane", |status| {
        let plane = &status["control_plane"];
        plane["epoch"].as_u64() >= Some(1) && plane["step"].is_null()
    });
    assert_eq!(story.nodes[0].manifests(), Vec::<String>::new(), "the temporary ones are gone");
    told(story.wait_readyz(0, SOON).await);
    let api = told(story.api(0));
    for name in FINAL {
        let path = format!("/apis/apps/v1/namespaces/kube-system/daemonsets/{name}");
        let set = told(api.get(&path).await);
        assert_eq!(set["status"]["numberReady"], 1, "{name}: {}", set["status"]);
        assert_eq!(story.nodes[0].pids(name).len(), 1, "{name} runs once");
    }
}

#[tokio::test]
async fn the_plane_moves_into_daemon_sets_and_is_raised_again_after_a_reboot() {
    let Some(mut story) = installed(options()).await else { return };
    told(story.boot());
    wait_final(&story).await;

    told(story.nodes[0].machine.reboot());
    story.wait_status(0, "the loss of the API server", |status| {
        !status["control_plane"]["step"].is_null()
    });
    wait_final(&story).await;
}

//! A control plane in static pods comes back by itself: after an orderly reboot, and after the
//! power of a controller is lost.

use rig::controllers::ControllersOptions;
use serde_json::json;

use super::{raised, told};

#[tokio::test]
async fn a_control_plane_is_back_after_a_reboot_and_after_a_loss_of_power() {
    let Some(mut story) = raised(ControllersOptions::new(1)).await else { return };
    let api = told(story.api(0));
    let kept = json!({"metadata": {"name": "kept"}, "data": {"a": "b"}});
    told(api.create("/api/v1/namespaces/default/configmaps", &kept).await);
    let manifests = manifests(&story);

    told(story.nodes[0].machine.reboot());
    story.wait_whole().await;
    told(api.get("/api/v1/namespaces/default/configmaps/kept").await);

    told(story.power_cut());
    story.wait_whole().await;
    told(api.get("/api/v1/namespaces/default/configmaps/kept").await);
    assert_eq!(self::manifests(&story), manifests, "nothing was rendered otherwise");
    let again = told(story.nodes[0].bootstrap(&[]));
    assert!(again.stdout.ends_with("nothing is to do\n"), "{}{}", again.stdout, again.stderr);
}

fn manifests(story: &super::Story) -> Vec<Vec<u8>> {
    let node = &story.nodes[0];
    let read = |name: &String| {
        let path = format!("{}/{name}", rig::controllers::MANIFESTS);
        node.machine.read(&path).expect("it can be read")
    };
    node.manifests().iter().map(read).collect()
}

//! From nothing to certificates on disk and a consumer that serves them.

use std::time::Duration;

use rig::stage::StageOptions;

use crate::stage;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_fresh_node_proves_itself_and_gets_its_certificates() {
    let stage = stage(StageOptions::worker()).await;
    let agent = stage.run().unwrap();
    let status = stage
        .wait_status("health", SOON, |status| status["health"] == "healthy")
        .unwrap();
    assert_eq!(status["node"]["instance_id"], stage.instance);
    stage.start_kubelet().unwrap();
    let served = stage.kubelet.serial().unwrap();
    assert_eq!(stage.certificate("kubelet-server")["serial"], served);
    println!(
        "{}",
        String::from_utf8_lossy(&stage.command(&["status"]).output().unwrap().stdout)
    );
    println!("{}", stage.log());
    assert_eq!(agent.stop(SOON), Ok(0));
}

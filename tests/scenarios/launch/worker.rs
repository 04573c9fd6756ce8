//! A worker: what its user data bring, and that nothing else is needed.

use rig::node::KUBELET;

use super::secrets::{assert_none_shown, assert_none_told};
use super::{booted, first_issue, ignited, opened, read, text, told, wait_up};

#[tokio::test]
async fn a_worker_needs_nothing_but_its_user_data() {
    let Some(story) = opened(1).await else { return };
    let mut worker = told(story.launch("worker-0", "worker"));
    let release = told(story.publish());
    // Nobody serves the API yet: a kubelet starts all the same.
    let inputs = story.worker_inputs(&release, worker.machine.host_ip());
    ignited(&story, &mut worker, &inputs);
    assert_none_told(&story, &worker);

    told(worker.boot());
    wait_up(&worker);
    let took = (first_issue(&worker) - booted(&worker)) as f64 / 1e6;
    println!("launch: boot_to_first_certificate_s={took:.2}");
    let starts = told(worker.machine.unit_property(KUBELET, "NRestarts").map_err(text));
    assert_eq!(starts, "0", "the gate holds the kubelet back, so nothing fails before");
    let flags = read(&worker, "/etc/kubernetes/nodeagent/kubelet.env");
    for flag in [
        format!("--hostname-override={}", worker.id),
        format!("--node-ip={}", worker.machine.ip()),
        "--node-labels=example.com/pool=general".to_owned(),
    ] {
        assert!(flags.contains(&flag), "{flag} in {flags}");
    }
    assert_none_shown(&worker);
}

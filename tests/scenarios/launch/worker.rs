//! A worker: what its user data bring, and that nothing else is needed.

use rig::launch::Cloud;
use rig::machine::wait_for;
use rig::node::{AGENT, KUBELET};

use super::secrets::{assert_none_shown, assert_none_told};
use super::{SOON, booted, first_issue, ignited, opened, read, text, told, wait_up};
use crate::play::skip;

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

#[tokio::test]
async fn the_agent_may_come_as_a_system_extension() {
    if let Some(reason) = Cloud::without_loops() {
        skip::<()>(&reason);
        return;
    }
    let Some(story) = opened(1).await else { return };
    let mut worker = told(story.launch_with_loops("worker-0", "worker"));
    let release = told(story.publish_sysext());
    let inputs = story.worker_inputs(&release, worker.machine.host_ip());
    ignited(&story, &mut worker, &inputs);
    told(worker.boot());
    wait_up(&worker);
    let path = told(worker.machine.unit_property(AGENT, "FragmentPath").map_err(text));
    assert_eq!(path, "/usr/lib/systemd/system/nodeagent.service");
    assert_none_shown(&worker);
}

#[tokio::test]
async fn without_the_system_extension_no_kubelet_runs() {
    let Some(story) = opened(1).await else { return };
    // There is no loop device to mount it through.
    let mut worker = told(story.launch("worker-0", "worker"));
    let release = told(story.publish_sysext());
    let inputs = story.worker_inputs(&release, worker.machine.host_ip());
    ignited(&story, &mut worker, &inputs);
    told(worker.boot());
    let machine = &worker.machine;
    let failed = || {
        let state = machine.unit_property(KUBELET, "Result").ok()?;
        (state != "success").then_some(state)
    };
    let result = told(wait_for("the kubelet fails", SOON, failed).map_err(text));
    assert_eq!(result, "resources", "{}", told(machine.journal(KUBELET).map_err(text)));
    // A kubelet without the agent's flags would take orders from everybody.
    let ran = told(machine.unit_property(KUBELET, "ExecMainStartTimestampMonotonic").map_err(text));
    assert_eq!(ran, "0");
}

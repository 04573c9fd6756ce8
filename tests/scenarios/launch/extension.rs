//! The agent as a system extension, and what runs without it: nothing that the image would bring.

use rig::controllers::ETCD;
use rig::launch::Cloud;
use rig::machine::wait_for;
use rig::node::{AGENT, KUBELET};

use super::secrets::assert_none_shown;
use super::{SOON, ignited, opened, text, told, wait_up};
use crate::play::skip;

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
async fn without_the_system_extension_neither_kubelet_nor_etcd_runs() {
    let Some(story) = opened(1).await else { return };
    // There is no loop device to mount it through.
    let mut controller = told(story.launch("controller-0", "controller"));
    let release = told(story.publish_sysext());
    let inputs = story.controller_inputs(&release, &controller);
    ignited(&story, &mut controller, &inputs);
    told(controller.boot());
    let machine = &controller.machine;
    let property = |unit: &str, name: &str| told(machine.unit_property(unit, name).map_err(text));
    let failed = || (property(KUBELET, "Result") == "resources").then_some(());
    told(wait_for("the kubelet finds no file of the agent", SOON, failed).map_err(text));
    told(machine.settled(SOON).map_err(text));
    // The one would take orders from everybody, the other give everything to everybody.
    for unit in [KUBELET, ETCD] {
        let ran = property(unit, "ExecMainStartTimestampMonotonic");
        assert_eq!(ran, "0", "{unit}: {}", told(machine.journal(unit).map_err(text)));
    }
}

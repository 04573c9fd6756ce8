//! Stories of machines that are launched with nothing but user data: Terraform's own module
//! renders them, the real Ignition fetches and applies them, systemd boots what that left, and the
//! agent does the rest with the real Vault. AWS and its S3 are models; nothing else is.

mod cluster;
mod extension;
mod refused;
mod secrets;
mod worker;

use std::collections::BTreeSet;
use std::ops::Deref;
use std::time::Duration;

use rig::launch::written::{changed, named};
use rig::launch::{Cloud, Instance};
use rig::machine::wait_for;
use rig::node::watch::serial;
use rig::node::{AGENT, GATE, KUBELET};
use rig::peer::kube::kubelet_probe;
use rig::setup::SetupOptions;
use rig::terraform::render_user_data;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::play::skip;

/// The deadline of every wait. What takes seconds here may take minutes beside a build.
const SOON: Duration = Duration::from_secs(180);

/// Two machines keep two cores busy, and one story waits for a minute.
static MACHINES: Semaphore = Semaphore::const_new(3);

/// A cloud, and the turns that its machines have among the others.
struct Story {
    cloud: Cloud,
    _turns: SemaphorePermit<'static>,
}

impl Deref for Story {
    type Target = Cloud;

    fn deref(&self) -> &Cloud {
        &self.cloud
    }
}

/// A cloud for so many machines; nothing, with the reason told, where there can be none.
async fn opened(machines: u32) -> Option<Story> {
    if let Some(reason) = Cloud::unavailable() {
        return skip(&reason);
    }
    let turns = MACHINES.acquire_many(machines).await.expect("nobody closes it");
    let cloud = told(Cloud::open(SetupOptions::new("", "")).await);
    Some(Story { cloud, _turns: turns })
}

/// The user data that Terraform's module makes of these inputs.
fn rendered(inputs: &Value) -> String {
    let user_data = told(render_user_data(inputs));
    assert_eq!(user_data.bytes, user_data.text.len());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (role, kind) = (text(&inputs["role"]), text(&inputs["release"]["kind"]));
    println!("launch: {role}_{kind}_user_data_bytes={}", user_data.bytes);
    user_data.text
}

/// Gives an instance its user data, ignites and boots it; nothing but what the user data name may
/// be written, and all of it.
fn ignited(story: &Story, instance: &mut Instance, inputs: &Value) {
    story.user_data(instance, &rendered(inputs));
    let before = told(instance.disk());
    told(instance.ignite());
    let written = changed(&before, &told(instance.disk()));
    let named = named(&instance.ignition().config());
    let only = |these: &BTreeSet<String>, those: &BTreeSet<String>| -> Vec<String> {
        these.difference(those).cloned().collect()
    };
    assert_eq!(only(&written, &named), [""; 0], "written, and not in the user data");
    assert_eq!(only(&named, &written), [""; 0], "in the user data, and not written");
}

/// Waits until the agent is healthy and systemd has started the kubelet, behind its gate.
fn wait_up(instance: &Instance) {
    let machine = &instance.machine;
    told(machine.wait_agent_status("health", SOON, |now| now["health"] == "healthy"));
    for unit in [AGENT, GATE, KUBELET] {
        told(machine.wait_unit(unit, "active", SOON).map_err(text));
    }
    let instant = |unit: &str, name: &str| -> u64 {
        let name = format!("{name}TimestampMonotonic");
        let value = told(machine.unit_property(unit, &name).map_err(text));
        value.parse().expect("microseconds")
    };
    let (open, start) = (instant(GATE, "ActiveEnter"), instant(KUBELET, "ExecMainStart"));
    assert!(open <= start, "the gate opened at {open}, the kubelet started at {start}");
    let committed = serial(&machine.agent_status(), "kubelet-server");
    let serves = || (kubelet_probe(machine).ok()? == committed).then_some(());
    told(wait_for("the kubelet serves what Vault has signed", SOON, serves).map_err(text));
}

/// A text of the running machine.
fn read(instance: &Instance, path: &str) -> String {
    let bytes = told(instance.machine.read(path).map_err(text));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// When the machine's systemd began, in microseconds of the monotonic clock, which is the host's.
fn booted(instance: &Instance) -> u64 {
    let argv = ["systemctl", "show", "--value", "--property=UserspaceTimestampMonotonic"];
    let printed = told(instance.machine.exec_ok(&argv).map_err(text));
    printed.trim().parse().expect("microseconds")
}

/// When the agent told that its first certificate was issued, on that clock.
fn first_issue(instance: &Instance) -> u64 {
    let argv = ["journalctl", "--unit", AGENT, "--output=json"];
    let issue = wait_for("the first certificate is told", SOON, || {
        let lines = instance.machine.exec_ok(&argv).ok()?;
        let line = lines.lines().find(|line| line.contains("issued, valid until"))?;
        let line: Value = serde_json::from_str(line).ok()?;
        line["__MONOTONIC_TIMESTAMP"].as_str()?.parse().ok()
    });
    told(issue.map_err(text))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The value, or a failure whose text keeps its lines.
fn told<T>(result: Result<T, String>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

//! Stories on a booted machine: the units as shipped under a real systemd, the static binary, a
//! real kubelet as the consumer, the real Vault. What only they can show is here: order, restarts,
//! the watchdog, the sandbox, and what a killed process or a lost power supply leaves.

mod act;
mod cold_start;
mod crash;
mod guard;
mod life;
mod months_off;
mod rotation;
mod unit;

use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use jiff::Timestamp;
use rig::node::watch::serial;
use rig::node::{KUBELET, Node, NodeOptions};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::play::skip;

/// The deadline of every wait. What takes a second here may take a minute beside a build.
const SOON: Duration = Duration::from_secs(120);

/// Two machines keep two cores busy; more would only make each other late.
static MACHINES: Semaphore = Semaphore::const_new(2);

/// A node, and the turn that it has among the others.
struct Story {
    node: Node,
    _turn: SemaphorePermit<'static>,
}

impl Deref for Story {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl DerefMut for Story {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.node
    }
}

/// A node that is installed and switched off; nothing, with the reason told, where there can be
/// none.
async fn installed(options: NodeOptions) -> Option<Story> {
    if let Some(reason) = Node::unavailable() {
        return skip(&reason);
    }
    let turn = MACHINES.acquire().await.expect("nobody closes it");
    let node = Node::prepare(options).await.expect("a node can be made");
    Some(Story { node, _turn: turn })
}

/// A node that has booted and whose kubelet serves its certificate.
async fn serving(options: NodeOptions) -> Option<Story> {
    let mut story = installed(options).await?;
    story.boot().expect("it boots");
    story.wait_serving();
    Some(story)
}

impl Story {
    /// Waits until the kubelet is READY and serves what is committed, and the node is healthy;
    /// gives the serial.
    fn wait_serving(&self) -> String {
        let up = self.machine.wait_unit(KUBELET, "active", SOON);
        up.expect("the kubelet is READY");
        self.wait_healthy();
        // A status is as old as the agent's last look, so it is read again each time.
        let serves = || self.served().ok().filter(|serial| *serial == self.committed());
        let waited = rig::machine::wait_for("the kubelet serves what is committed", SOON, serves);
        waited.unwrap_or_else(|error| {
            let (served, committed) = (self.served(), self.committed());
            panic!("{error}: {served:?}, not {committed}:\n{}", self.kubelet_log())
        })
    }

    /// What the kubelet serves as soon as it listens, which is after it has said READY.
    fn wait_served(&self) -> String {
        let served = rig::machine::wait_for("the kubelet serves", SOON, || self.served().ok());
        served.unwrap_or_else(|error| panic!("{error}:\n{}", self.kubelet_log()))
    }

    /// Waits until the status is healthy and every consumer's server certificate is proved.
    fn wait_healthy(&self) -> Value {
        self.wait_status("health", |status| status["health"] == "healthy")
    }

    /// Waits until the agent has seen the consumer serve this certificate, which is the one on
    /// disk.
    fn wait_proved(&self, expected: &str) -> Value {
        self.wait_status("proof of the serial on disk", |status| {
            let served = &status["consumers"][0]["served"];
            *served == expected && serial(status, "kubelet-server") == expected
        })
    }

    fn wait_status(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        match self.node.wait_status(what, SOON, fits) {
            Ok(status) => status,
            Err(error) => panic!("{error}"),
        }
    }

    fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let waited = rig::machine::wait_for(what, SOON, || holds().then_some(()));
        waited.unwrap_or_else(|error| panic!("{error}\nlog:\n{}", self.log()));
    }

    /// Asks for a new server certificate, as a person does.
    fn renew(&self) {
        let told = self.verb(&["renew", "kubelet-server"]).expect("the verb runs");
        assert!(told.status.success(), "{}{}", told.stdout, told.stderr);
    }

    /// What a command in the machine prints; it has to succeed.
    fn run(&self, argv: &[&str]) -> String {
        match self.machine.exec_ok(argv) {
            Ok(printed) => printed,
            Err(error) => panic!("{error}"),
        }
    }

    /// When the machine's systemd began, in microseconds of the monotonic clock, which is the
    /// host's.
    fn booted(&self) -> u64 {
        let argv = ["systemctl", "show", "--value", "--property=UserspaceTimestampMonotonic"];
        self.run(&argv).trim().parse().expect("microseconds")
    }

    /// An instant of a unit's life on that clock; 0 where there was none.
    fn instant(&self, unit: &str, name: &str) -> u64 {
        let property = self.machine.unit_property(unit, &format!("{name}TimestampMonotonic"));
        property.expect("a property").parse().expect("microseconds")
    }

    /// The problem of this code in the status.
    fn problem(status: &Value, code: &str) -> Option<Value> {
        let problems = status["problems"].as_array()?;
        problems.iter().find(|problem| problem["code"] == code).cloned()
    }

    /// When a certificate of the kubelet was committed: the instant at which its link was put in
    /// place. The clock of a file system is late by a tick of the kernel at most, never ahead.
    fn committed_at(&self, certificate: &str) -> Timestamp {
        let path = format!("var/lib/nodeagent-certs/kubelet/{certificate}/current");
        let link = std::fs::symlink_metadata(self.machine.root().join(path));
        let link = link.expect("the link is there");
        let nanos = i128::from(link.ctime()) * 1_000_000_000 + i128::from(link.ctime_nsec());
        Timestamp::from_nanosecond(nanos).expect("an instant")
    }

    /// The end of what the kubelet logged.
    fn kubelet_log(&self) -> String {
        let lines = ["journalctl", "--unit", KUBELET, "--output=cat", "--lines=40"];
        self.run(&lines)
    }

    /// A drop-in for a unit, in force at its next start or reload of systemd.
    fn drop_in(&self, unit: &str, text: &str) {
        let path = format!("/etc/systemd/system/{unit}.d/50-story.conf");
        self.write(&path, text).expect("it is written");
        if self.machine.is_on() {
            self.run(&["systemctl", "daemon-reload"]);
        }
    }

    /// Lays a drop-in over the agent's configuration.
    fn configure(&self, text: &str) {
        self.write("/etc/nodeagent/config.d/30-story.toml", text).expect("it is written");
    }
}

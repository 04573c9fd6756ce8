//! Stories of the control plane on booted controllers: the units as shipped, the static binary, the
//! real etcd, kubelet, containerd and components of Kubernetes, the real Vault. Nothing of
//! Kubernetes is modelled here.

mod boot;
mod changes;
mod crash;
mod faults_api;
mod faults_etcd;
mod joins;
mod leaks;
mod lock;
mod lost;
mod obstacles;
mod raise;
mod recover;
mod rotation;
mod self_hosted;
mod three;

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use nodeagent::bootstrap::journal::{self, Entry};
use rig::controllers::{Controller, Controllers, ControllersOptions, Raising};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::play::skip;

/// The deadline of every wait. What takes seconds here may take minutes beside a build.
const SOON: Duration = Duration::from_secs(180);

/// Leases that are given up after 8 s instead of 15, for stories in which many holders are killed:
/// each time the next one waits as long. The flags are the components' own.
const BRIEF_LEASES: &str = r#"
[control_plane.flags.kube-controller-manager]
leader-elect-lease-duration = "8s"
leader-elect-renew-deadline = "6s"
leader-elect-retry-period = "1s"
[control_plane.flags.kube-scheduler]
leader-elect-lease-duration = "8s"
leader-elect-renew-deadline = "6s"
leader-elect-retry-period = "1s"
"#;

/// Two controllers keep two cores busy; three of one story have them for themselves.
const TURNS: u32 = 2;
static MACHINES: Semaphore = Semaphore::const_new(TURNS as usize);

/// Controllers, and the turn that they have among the others.
struct Story {
    plane: Controllers,
    _turn: SemaphorePermit<'static>,
}

impl Deref for Story {
    type Target = Controllers;

    fn deref(&self) -> &Controllers {
        &self.plane
    }
}

impl DerefMut for Story {
    fn deref_mut(&mut self) -> &mut Controllers {
        &mut self.plane
    }
}

/// Controllers that are installed and switched off; nothing, with the reason told, where there can
/// be none.
async fn installed(options: ControllersOptions) -> Option<Story> {
    if let Some(reason) = Controllers::unavailable() {
        return skip(&reason);
    }
    let turns = if options.count == 1 { 1 } else { TURNS };
    let turn = MACHINES.acquire_many(turns).await.expect("nobody closes it");
    let plane = Controllers::prepare(options).await.expect("controllers can be made");
    Some(Story { plane, _turn: turn })
}

/// Controllers whose control plane is whole: served and Ready everywhere.
async fn raised(options: ControllersOptions) -> Option<Story> {
    let mut story = installed(options).await?;
    story.boot().expect("they boot");
    story.wait_whole().await;
    Some(story)
}

/// One controller whose control plane a person has raised, and whose agent never will.
async fn raised_when_told() -> Option<Story> {
    let mut story = installed(ControllersOptions::new(1).raised(Raising::Told)).await?;
    told(story.boot());
    crash::wait_for_certificates(&story);
    let first = told(story.nodes[0].bootstrap(&[]));
    assert!(first.status.success(), "{}{}", first.stdout, first.stderr);
    Some(story)
}

impl Story {
    /// Waits until the API is served on every controller, and every node and static pod is Ready.
    async fn wait_whole(&self) {
        for node in 0..self.nodes.len() {
            told(self.wait_readyz(node, SOON).await);
            told(self.wait_node_ready(node, node, SOON).await);
            told(self.wait_mirror_pods(node, SOON).await);
        }
    }

    /// The published status of a controller's agent, once it fits.
    fn wait_status(&self, node: usize, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        told(self.nodes[node].machine.wait_agent_status(what, SOON, fits))
    }

    /// What the components of a controller run as: a restart of any of them changes it.
    fn processes(&self, node: usize) -> Vec<u32> {
        let node = &self.nodes[node];
        rig::controllers::COMPONENTS.iter().flat_map(|component| node.pids(component)).collect()
    }
}

/// What the journal of a node's runs tells, from the first to the last.
fn entries(node: &Controller) -> Vec<Entry> {
    let journal = told(node.machine.read(journal::PATH));
    let journal = String::from_utf8_lossy(&journal);
    journal.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect()
}

/// The value, or a failure whose text keeps its lines.
fn told<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

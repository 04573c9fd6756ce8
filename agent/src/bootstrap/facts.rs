//! What one look sees of the control plane of this node. Each item carries its own fault, each
//! question has its deadline, and all are asked at once: a look ends within [`LOOK`].

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::clients;
use super::journal::Journal;
use super::lock::{self, Holder};
use super::manifests;
use super::membership;
use super::outdated;
use super::secrets;
use crate::config::plane::{Component, ControlPlane, Etcd};
use crate::error::{Code, Context, Error, Result};
use crate::host::files::Root;
use crate::host::processes;
use crate::host::units::Active;
use crate::node::Node;
use crate::wire::kube::Probe;
use crate::wire::tls;

/// The longest that one question of a look may take.
pub const LOOK: Duration = Duration::from_secs(3);

/// etcd's unit.
pub const ETCD_UNIT: &str = "etcd-member.service";

/// What one look saw.
#[derive(Debug)]
pub struct PlaneFacts {
    /// The local member of etcd.
    pub etcd: Answer,
    /// What of the shared secrets is not on this node; nothing if all is.
    pub shared_missing: Option<String>,
    /// The manifests that the style asks for.
    pub manifests: BTreeMap<Component, ManifestFact>,
    /// Files in the kubelet's directory that the agent did not write.
    pub foreign: Vec<String>,
    /// Temporary manifests, or pods of theirs, that are still there.
    pub temporary: Vec<String>,
    /// What of the final components is missing; asked of the API by a run only.
    pub successors: Option<Vec<String>>,
    /// The local components.
    pub components: BTreeMap<Component, ComponentFact>,
    /// What runs with files that have changed since its start.
    pub outdated: Vec<String>,
    /// The digest of the assets that are to be applied; none where there are none to read.
    pub assets: Option<String>,
    /// Whether any API server runs on this node; one that does may become ready by itself.
    pub apiserver_runs: bool,
    /// Who holds the cluster's lock.
    pub holder: Option<Holder>,
    /// What the journal knows; nothing where it cannot be read, which a run then tells.
    pub journal: Journal,
}

/// A manifest in the kubelet's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestFact {
    /// It is what it should be.
    Current,
    /// It is not there.
    Missing,
    /// It is ours, and should say something else.
    Differs,
    /// Something that the agent did not write has its name.
    Foreign(String),
    /// It cannot be told.
    Unknown(String),
}

/// How a component answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is well.
    Ready,
    /// It answers that it is not.
    Unready(String),
    /// It does not answer.
    Silent(String),
}

/// A component of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentFact {
    /// How it answered.
    pub answer: Answer,
    /// The serial of the certificate that it serves.
    pub served: Option<String>,
}

impl Answer {
    /// Whether it is well; the error says why it is not.
    pub fn settled(&self) -> std::result::Result<(), String> {
        match self {
            Answer::Ready => Ok(()),
            Answer::Unready(text) | Answer::Silent(text) => Err(text.clone()),
        }
    }

    fn of(probe: Result<Probe>) -> Answer {
        match probe {
            Ok(Probe::Ok) => Answer::Ready,
            Ok(Probe::Failing { status, text }) => Answer::Unready(format!("{status}: {text}")),
            Err(error) => Answer::Silent(format!("{error:#}")),
        }
    }
}

impl PlaneFacts {
    /// How a component answered; silent where it was not asked.
    pub fn component(&self, component: Component) -> &Answer {
        static UNASKED: Answer = Answer::Silent(String::new());
        self.components.get(&component).map_or(&UNASKED, |fact| &fact.answer)
    }
}

/// Takes one look; nothing where the node has no control plane. The digest of the assets is given:
/// to read all of them is too much for every look.
pub async fn gather(node: &Node, assets: Option<String>) -> Option<PlaneFacts> {
    let (plane, etcd) = node.config.control_plane.as_ref().zip(node.config.etcd.as_ref())?;
    let (member, holder, components) =
        tokio::join!(member(node, etcd), holder(node), components(node));
    let placed = manifests::look(node, plane);
    Some(PlaneFacts {
        etcd: member,
        shared_missing: secrets::missing(&node.root),
        manifests: placed.manifests,
        foreign: placed.foreign,
        temporary: placed.temporary,
        successors: None,
        components,
        outdated: outdated::running(node),
        assets,
        apiserver_runs: outdated::runs(node, Component::Apiserver),
        holder,
        journal: Journal::load(&node.root).unwrap_or_default(),
    })
}

/// Whether a member of etcd has kept its data here. What cannot be looked at is not known to be
/// empty.
pub fn has_data(root: &Root, data: &Path) -> Result<bool> {
    let log = data.join("member/wal");
    Ok(!root.list(&log).during("looking for the data of etcd")?.is_empty())
}

async fn member(node: &Node, etcd: &Etcd) -> Answer {
    if let Err(error) = membership::check(&node.root, &etcd.data_dir) {
        return Answer::Unready(format!("{error:#}"));
    }
    let asked = async {
        let client = clients::etcd(node, LOOK)?;
        client.health().await
    };
    let silent = match asked.await {
        Ok(health) if health.healthy => return Answer::Ready,
        Ok(health) => return Answer::Unready(without_quorum(node, etcd, &health.reason).await),
        Err(error) => error,
    };
    Answer::Silent(why_silent(node, &silent).await)
}

/// Who of the members answers at all: that tells a lost quorum from a slow member.
async fn without_quorum(node: &Node, etcd: &Etcd, reason: &str) -> String {
    let silent = clients::silent_members(node, etcd).await.into_iter();
    let missing = silent.map(|member| format!("{} ({})", member.name, member.address));
    let missing: Vec<String> = missing.collect();
    let all = etcd.members.len();
    let (up, missing) = (all - missing.len(), missing.join(", "));
    match up < all / 2 + 1 {
        true => format!("etcd has no quorum: {up} of {all} members answer, not {missing}"),
        false => format!("etcd is not healthy: {reason}"),
    }
}

/// A member that does not answer has a unit that says why.
async fn why_silent(node: &Node, error: &Error) -> String {
    if error.code() == Code::CertificateBad {
        return format!("the agent has no certificate for etcd yet: {error:#}");
    }
    match node.units.state(ETCD_UNIT).await {
        Ok(state) if state.active == Active::Active => format!("{error:#}"),
        Ok(state) => {
            let word = format!("{:?}", state.active).to_lowercase();
            format!("{ETCD_UNIT} is {word}")
        }
        Err(_) => format!("{error:#}"),
    }
}

async fn holder(node: &Node) -> Option<Holder> {
    let client = clients::etcd(node, LOOK).ok()?;
    lock::holder(&client, &node.config.cluster).await.ok().flatten()
}

async fn components(node: &Node) -> BTreeMap<Component, ComponentFact> {
    let asked = Component::ALL.iter().map(|component| component_fact(node, *component));
    let facts = join_all(asked).await;
    Component::ALL.into_iter().zip(facts).collect()
}

async fn component_fact(node: &Node, component: Component) -> ComponentFact {
    let address = clients::local(component);
    let probe = async {
        let path = if component == Component::Apiserver { "/readyz" } else { "/healthz" };
        clients::anonymous(node, &address, LOOK)?.probe(path).await
    };
    let (probe, served) = tokio::join!(probe, tls::served(&address, None, LOOK));
    let served = served.ok().map(|served| served.serial);
    let answer = match Answer::of(probe) {
        Answer::Silent(text) if !outdated::runs(node, component) => {
            Answer::Silent(why_absent(node, component, &text))
        }
        answer => answer,
    };
    ComponentFact { answer, served }
}

/// What does not even run has left its reason elsewhere: with the kubelet, or with another program
/// that has its port and makes each attempt end.
fn why_absent(node: &Node, component: Component, text: &str) -> String {
    let port = clients::port(component);
    match processes::listener(&outdated::proc(node), port) {
        Some(holder) => format!("no {component} runs: port {port} is taken by {holder}"),
        None => format!("no {component} runs: journalctl -u kubelet says why ({text})"),
    }
}

/// Whether a file is there.
pub(super) fn exists(node: &Node, path: &Path) -> bool {
    matches!(node.root.stat(path), Ok(Some(_)))
}

/// The control plane of this node as it was told, or that it has none.
pub fn told(node: &Node) -> Result<(&ControlPlane, &Etcd)> {
    let told = node.config.control_plane.as_ref().zip(node.config.etcd.as_ref());
    told.ok_or_else(|| {
        Error::new(Code::Config, "this node has no control plane")
            .advise("it needs role = \"controller\", [cluster], [etcd] and [control_plane]")
    })
}

//! The control plane's part of the status.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Problem;
use crate::bootstrap::facts::{Answer, PlaneFacts};
use crate::bootstrap::step;
use crate::config::plane::{Component, ControlPlane};
use crate::duty::DutyId;
use crate::duty::records::Failure;
use crate::error::Code;

/// The control plane of this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanePart {
    /// `static` or `self-hosted`.
    pub style: String,
    /// Whether the agent raises and recovers it by itself.
    pub automatic: bool,
    /// The epoch of the journal; 0 before the first run.
    pub epoch: u64,
    /// The step that is next; none where the control plane is whole.
    pub step: Option<String>,
    /// What that step waits for.
    pub why: Option<String>,
    /// Since when the control plane is not whole.
    pub since: Option<Timestamp>,
    /// Who holds the cluster's lock.
    pub holder: Option<HolderPart>,
    /// etcd, and each component of this node.
    pub components: Vec<ComponentPart>,
    /// Files among the manifests that the agent did not write, and that the kubelet runs.
    pub foreign: Vec<String>,
    /// What runs with files that have changed since its start.
    pub outdated: Vec<String>,
}

/// Who holds the cluster's lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HolderPart {
    /// The instance.
    pub instance: String,
    /// Since when.
    pub since: Timestamp,
}

/// One component of this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComponentPart {
    /// Its name.
    pub name: String,
    /// `ready`, `unready` or `silent`.
    pub state: String,
    /// Why it is not ready.
    pub why: Option<String>,
    /// The serial of the certificate that it serves.
    pub served: Option<String>,
}

/// Collects the part; pure.
pub(super) fn collect(
    plane: &ControlPlane,
    seen: &PlaneFacts,
    since: Option<Timestamp>,
) -> PlanePart {
    let next = step::next(plane.style, seen, &seen.journal);
    let mut components = vec![component("etcd", &seen.etcd, None)];
    for each in Component::ALL {
        let served = seen.components.get(&each).and_then(|fact| fact.served.clone());
        components.push(component(each.name(), seen.component(each), served));
    }
    PlanePart {
        style: plane.style.to_string(),
        automatic: plane.automatic,
        epoch: seen.journal.epoch,
        step: next.map(|step| step.to_string()),
        why: next.and_then(|step| step.satisfied(plane.style, seen, &seen.journal).err()),
        since: next.and(since),
        holder: seen
            .holder
            .as_ref()
            .map(|holder| HolderPart { instance: holder.instance.clone(), since: holder.since }),
        components,
        foreign: seen.foreign.clone(),
        outdated: seen.outdated.clone(),
    }
}

fn component(name: &str, answer: &Answer, served: Option<String>) -> ComponentPart {
    let state = match answer {
        Answer::Ready => "ready",
        Answer::Unready(_) => "unready",
        Answer::Silent(_) => "silent",
    };
    let why = answer.settled().err();
    ComponentPart { name: name.into(), state: state.into(), why, served }
}

/// What of it needs attention, beside the failures of the duty itself, which tell more.
pub(super) fn problems(part: &PlanePart, failures: Option<&Failure>) -> Vec<Problem> {
    let place = DutyId::ControlPlane.to_string();
    let mut problems = Vec::new();
    if let Some(step) = part.step.as_ref().filter(|_| failures.is_none()) {
        let why = part.why.clone().unwrap_or_default();
        let advice = match part.automatic {
            true => "the agent goes on by itself; `nodeagent bootstrap` shows each step",
            false => "run `nodeagent bootstrap`",
        };
        problems.push(Problem {
            code: Code::PlaneWaiting,
            place: place.clone(),
            text: format!("{step}: {why}"),
            advice: Some(advice.into()),
            since: part.since,
        });
    }
    problems
}

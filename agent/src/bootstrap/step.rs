//! The steps, in order. Each is asked *is it already true?* of what one look saw; the first that
//! is not is done next. Recovery is the same list.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::facts::{Answer, ManifestFact, PlaneFacts};
use super::journal::Journal;
use crate::config::plane::{Component, Style};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The local member of etcd answers, with a quorum behind it.
    AwaitEtcd,
    /// The keys that all controllers share are on this node.
    SharedSecrets,
    /// The static pods' manifests are in the kubelet's directory.
    PlaceManifests,
    /// The manifests of the temporary control plane are in the kubelet's directory.
    PlaceTemporaryManifests,
    /// What reads a file only at its start has started since that file last changed.
    RefreshComponents,
    /// The local API server is ready.
    AwaitApiserver,
    /// The cluster has the assets.
    ApplyAssets,
    /// The final components on this node are ready beside the temporary ones.
    AwaitSuccessors,
    /// The temporary control plane is gone, and the final one leads.
    RemoveTemporaryManifests,
    /// The control plane is whole: API served, leases held, node registered.
    AwaitControlPlane,
}

/// The list of the static style.
const STATIC: &[Step] = &[
    Step::AwaitEtcd,
    Step::SharedSecrets,
    Step::PlaceManifests,
    Step::RefreshComponents,
    Step::AwaitApiserver,
    Step::ApplyAssets,
    Step::AwaitControlPlane,
];

/// The list of the self-hosted style.
const SELF_HOSTED: &[Step] = &[
    Step::AwaitEtcd,
    Step::SharedSecrets,
    Step::PlaceTemporaryManifests,
    Step::RefreshComponents,
    Step::AwaitApiserver,
    Step::ApplyAssets,
    Step::AwaitSuccessors,
    Step::RemoveTemporaryManifests,
    Step::AwaitControlPlane,
];

/// The steps of a style, in order.
pub fn steps(style: Style) -> &'static [Step] {
    match style {
        Style::Static => STATIC,
        Style::SelfHosted => SELF_HOSTED,
    }
}

/// The first step that is not true yet.
pub fn next(style: Style, facts: &PlaneFacts, journal: &Journal) -> Option<Step> {
    steps(style).iter().copied().find(|step| step.satisfied(style, facts, journal).is_err())
}

impl Step {
    /// Every step there is, for the documentation and for the crash matrix.
    pub const ALL: &'static [Step] = &[
        Step::AwaitEtcd,
        Step::SharedSecrets,
        Step::PlaceManifests,
        Step::PlaceTemporaryManifests,
        Step::RefreshComponents,
        Step::AwaitApiserver,
        Step::ApplyAssets,
        Step::AwaitSuccessors,
        Step::RemoveTemporaryManifests,
        Step::AwaitControlPlane,
    ];

    /// Its name in the journal, on the screen and in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Step::AwaitEtcd => "await-etcd",
            Step::SharedSecrets => "shared-secrets",
            Step::PlaceManifests => "place-manifests",
            Step::PlaceTemporaryManifests => "place-temporary-manifests",
            Step::RefreshComponents => "refresh-components",
            Step::AwaitApiserver => "await-apiserver",
            Step::ApplyAssets => "apply-assets",
            Step::AwaitSuccessors => "await-successors",
            Step::RemoveTemporaryManifests => "remove-temporary-manifests",
            Step::AwaitControlPlane => "await-control-plane",
        }
    }

    /// What is true once it is done.
    pub fn describe(self) -> &'static str {
        match self {
            Step::AwaitEtcd => "etcd answers here, with a quorum",
            Step::SharedSecrets => "the keys that all controllers share are on this node",
            Step::PlaceManifests => "the static pods are placed",
            Step::PlaceTemporaryManifests => "the temporary static pods are placed",
            Step::RefreshComponents => "nothing runs with files that have changed since its start",
            Step::AwaitApiserver => "the API server of this node is ready",
            Step::ApplyAssets => "the cluster has the assets",
            Step::AwaitSuccessors => "the final components of this node are ready",
            Step::RemoveTemporaryManifests => "the temporary pods are gone and the final ones lead",
            Step::AwaitControlPlane => "the control plane is whole",
        }
    }

    /// Whether doing it changes anything but the time: those are done under the cluster's lock.
    pub fn changes(self) -> bool {
        !matches!(self, Step::AwaitEtcd | Step::AwaitApiserver | Step::AwaitControlPlane)
    }

    /// The longest that doing it may take. Images may have to be pulled before an API server is
    /// there; the rest is seconds on a machine that is not starved.
    pub fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Step::AwaitEtcd => 300,
            Step::SharedSecrets => 120,
            Step::PlaceManifests | Step::PlaceTemporaryManifests => 60,
            Step::RefreshComponents => 300,
            Step::AwaitApiserver | Step::AwaitSuccessors => 600,
            Step::ApplyAssets => 300,
            Step::RemoveTemporaryManifests => 180,
            Step::AwaitControlPlane => 300,
        })
    }

    /// Whether it is true already; the error says what is missing.
    pub fn satisfied(
        self,
        style: Style,
        facts: &PlaneFacts,
        journal: &Journal,
    ) -> Result<(), String> {
        match self {
            Step::AwaitEtcd => facts.etcd.settled(),
            Step::SharedSecrets => match &facts.shared_missing {
                None => Ok(()),
                Some(missing) => Err(missing.clone()),
            },
            Step::PlaceManifests => placed(facts),
            // The successors serve: the temporary ones are not needed (any more).
            Step::PlaceTemporaryManifests if final_plane_serves(facts, journal) => Ok(()),
            Step::PlaceTemporaryManifests => placed(facts),
            Step::RefreshComponents if facts.outdated.is_empty() => Ok(()),
            Step::RefreshComponents => {
                Err(format!("started before their files changed: {}", facts.outdated.join(", ")))
            }
            Step::AwaitApiserver => facts.component(Component::Apiserver).settled(),
            Step::ApplyAssets => match (&facts.assets, &journal.assets_now) {
                (Some(wanted), Some(applied)) if wanted == applied => Ok(()),
                (None, _) => Ok(()),
                (Some(_), None) => Err("not applied yet".into()),
                (Some(_), Some(_)) => Err("the assets have changed".into()),
            },
            Step::AwaitSuccessors if facts.temporary.is_empty() => Ok(()),
            Step::AwaitSuccessors => match &facts.successors {
                None => Err("not looked at yet".into()),
                Some(missing) if missing.is_empty() => Ok(()),
                Some(missing) => Err(missing.join("; ")),
            },
            Step::RemoveTemporaryManifests if facts.temporary.is_empty() => Ok(()),
            Step::RemoveTemporaryManifests => {
                Err(format!("still there: {}", facts.temporary.join(", ")))
            }
            Step::AwaitControlPlane => whole(style, facts, journal),
        }
    }
}

fn placed(facts: &PlaneFacts) -> Result<(), String> {
    let missing = facts.manifests.iter().filter_map(|(component, fact)| match fact {
        ManifestFact::Current => None,
        ManifestFact::Missing => Some(format!("{component} is not there")),
        ManifestFact::Differs => Some(format!("{component} is to be another")),
        ManifestFact::Foreign(path) => Some(format!("{path} is not nodeagent's")),
        ManifestFact::Unknown(text) => Some(format!("{component}: {text}")),
    });
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
}

/// The final components of a self-hosted control plane were proved before, and answer without
/// the temporary ones.
fn final_plane_serves(facts: &PlaneFacts, journal: &Journal) -> bool {
    let serves = Component::ALL.iter().all(|component| facts.component(*component).settled().is_ok());
    journal.assets_now.is_some() && facts.temporary.is_empty() && serves
}

fn whole(style: Style, facts: &PlaneFacts, journal: &Journal) -> Result<(), String> {
    for component in Component::ALL {
        if let Answer::Ready = facts.component(component) {
            continue;
        }
        let found = facts.component(component).settled().err().unwrap_or_default();
        return Err(format!("{component}: {found}"));
    }
    match journal.completed && journal.style == Some(style) {
        true => Ok(()),
        false => Err("leases and node are to be looked at".into()),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

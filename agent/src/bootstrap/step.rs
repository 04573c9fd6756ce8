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
            // Three pods that are replaced, one after another, of 12 s each.
            Step::PlaceManifests | Step::PlaceTemporaryManifests => 240,
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
    let serves =
        Component::ALL.iter().all(|component| facts.component(*component).settled().is_ok());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::facts::ComponentFact;
    use super::*;

    fn whole_facts() -> PlaneFacts {
        let ready = || ComponentFact { answer: Answer::Ready, served: None };
        PlaneFacts {
            etcd: Answer::Ready,
            shared_missing: None,
            manifests: Component::ALL.into_iter().map(|c| (c, ManifestFact::Current)).collect(),
            foreign: Vec::new(),
            temporary: Vec::new(),
            successors: None,
            components: Component::ALL.into_iter().map(|c| (c, ready())).collect(),
            outdated: Vec::new(),
            assets: Some("a".into()),
            apiserver_runs: true,
            holder: None,
            journal: Journal::default(),
        }
    }

    fn known(style: Style) -> Journal {
        let assets_now = Some("a".to_string());
        Journal { epoch: 1, style: Some(style), completed: true, assets_now, ..Journal::default() }
    }

    #[test]
    fn nothing_is_next_where_all_is_true() {
        for style in [Style::Static, Style::SelfHosted] {
            assert_eq!(next(style, &whole_facts(), &known(style)), None, "{style}");
        }
    }

    #[test]
    fn the_first_that_is_not_true_is_next() {
        type Change = fn(&mut PlaneFacts);
        let cases: [(Change, Step); 6] = [
            (|f| f.etcd = Answer::Silent("x".into()), Step::AwaitEtcd),
            (|f| f.shared_missing = Some("x".into()), Step::SharedSecrets),
            (
                |f| f.manifests = BTreeMap::from([(Component::Scheduler, ManifestFact::Missing)]),
                Step::PlaceManifests,
            ),
            (|f| f.outdated = vec!["etcd".into()], Step::RefreshComponents),
            (|f| f.components.clear(), Step::AwaitApiserver),
            (|f| f.assets = Some("b".into()), Step::ApplyAssets),
        ];
        for (change, expected) in cases {
            let mut facts = whole_facts();
            change(&mut facts);
            assert_eq!(next(Style::Static, &facts, &known(Style::Static)), Some(expected));
        }
        let mut facts = whole_facts();
        facts.components.remove(&Component::Scheduler);
        let journal = known(Style::Static);
        assert_eq!(next(Style::Static, &facts, &journal), Some(Step::AwaitControlPlane));
    }

    #[test]
    fn facts_come_before_the_journal() {
        // The journal says completed, and the manifests are gone: they are placed again.
        let mut facts = whole_facts();
        facts.manifests.insert(Component::Apiserver, ManifestFact::Missing);
        assert_eq!(next(Style::Static, &facts, &known(Style::Static)), Some(Step::PlaceManifests));
        // The journal knows of nothing, and all is there: only the proof is missing.
        let journal = Journal { assets_now: Some("a".into()), ..Journal::default() };
        let facts = whole_facts();
        assert_eq!(next(Style::Static, &facts, &journal), Some(Step::AwaitControlPlane));
    }

    #[test]
    fn a_self_hosted_plane_that_serves_needs_no_temporary_one_and_a_lost_one_does() {
        let (style, journal) = (Style::SelfHosted, known(Style::SelfHosted));
        let mut facts = whole_facts();
        facts.manifests.values_mut().for_each(|fact| *fact = ManifestFact::Missing);
        assert_eq!(next(style, &facts, &journal), None);
        facts.components.clear();
        assert_eq!(next(style, &facts, &journal), Some(Step::PlaceTemporaryManifests));
    }

    #[test]
    fn temporary_pods_go_only_when_their_successors_are_ready() {
        let (style, journal) = (Style::SelfHosted, known(Style::SelfHosted));
        let mut facts = whole_facts();
        facts.temporary = vec!["kube-apiserver-temporary.yaml".into()];
        assert_eq!(next(style, &facts, &journal), Some(Step::AwaitSuccessors));
        facts.successors = Some(vec!["kube-apiserver is not ready".into()]);
        assert_eq!(next(style, &facts, &journal), Some(Step::AwaitSuccessors));
        facts.successors = Some(Vec::new());
        assert_eq!(next(style, &facts, &journal), Some(Step::RemoveTemporaryManifests));
    }

    #[test]
    fn every_step_is_in_a_list_and_has_a_name_of_its_own() {
        let listed: Vec<Step> =
            [Style::Static, Style::SelfHosted].iter().flat_map(|s| steps(*s)).copied().collect();
        let mut names: Vec<_> = Step::ALL.iter().map(|step| step.name()).collect();
        assert!(Step::ALL.iter().all(|step| listed.contains(step)));
        names.dedup();
        assert_eq!(names.len(), Step::ALL.len());
    }
}

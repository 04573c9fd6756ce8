//! The step that brings the assets into the cluster.

use std::time::Duration;

use super::assets::{self, Set};
use super::journal::Event;
use super::step::Step;
use super::{Run, asset_set};
use crate::duty::certs;
use crate::error::{Kind, Result};
use crate::wire::kube::Kube;

/// Assets that differ from what was applied are taken once they have stayed the same for this long.
const SETTLED: Duration = Duration::from_secs(5);

/// Between two passes over the assets.
const PASS: Duration = Duration::from_millis(500);

impl Run<'_> {
    /// Keeps what a look at the assets saw.
    pub(super) fn know_assets(&mut self, set: &Set) {
        self.assets = Some(set.digest.clone());
        self.faults = set.faults.iter().map(ToString::to_string).collect();
    }

    pub(super) async fn apply_assets(&mut self) -> Result<()> {
        let mut set = asset_set(self.node, self.plane)?;
        let kube = match self.as_super_user().await {
            Ok(kube) => kube,
            Err(error) if self.was_applied(&set.digest) && error.kind().is_away() => {
                let lasts = self.lasts();
                self.note(format!("assets: taken as applied before, not looked at: {error:#}"));
                self.note(lasts);
                let digest = set.digest;
                return self.note_event(Event::AssetsApplied { digest });
            }
            Err(error) => return Err(error),
        };
        // Another controller has just applied them, as the cluster's inventory tells. It does not
        // tell whether the objects are still there: a node that applied some itself looks at each.
        let by_another =
            self.journal.assets.is_none() && assets::satisfied(&kube, &set).await.unwrap_or(false);
        if !by_another {
            set = self.settled(set, &kube).await?;
            if !self.apply_set(&set).await? {
                return Ok(());
            }
        }
        self.note_event(Event::AssetsApplied { digest: set.digest })
    }

    /// The assets once they have stayed the same. Of a directory that is being filled half is read,
    /// and what is not there yet would be taken out of a cluster that has it.
    async fn settled(&mut self, mut set: Set, kube: &Kube) -> Result<Set> {
        let is_new = self.journal.assets.is_none() && !assets::are_recorded(kube).await?;
        while !is_new && !self.was_applied(&set.digest) {
            self.node.clock.sleep(SETTLED).await;
            let former = std::mem::replace(&mut set, asset_set(self.node, self.plane)?);
            if former.digest == set.digest {
                break;
            }
        }
        self.know_assets(&set);
        Ok(set)
    }

    /// For how long this node can do without Vault.
    fn lasts(&self) -> String {
        let certificates = self.node.config.certificates.iter();
        let ends = certificates.filter_map(|spec| {
            let fact = certs::examine(self.node, spec, None, &[]);
            fact.held().map(|held| (held.leaf.not_after, spec.name.clone()))
        });
        match ends.min() {
            Some((end, name)) => {
                format!("without vault the certificates here last until {end} ({name} ends first)")
            }
            None => "there is no certificate on this node".into(),
        }
    }

    fn was_applied(&self, digest: &str) -> bool {
        self.journal.assets.as_ref().is_some_and(|(applied, _)| applied == digest)
    }

    /// Passes over the assets until the API has answered for each of them; the step's limit ends
    /// it. What will never be taken is told, and what is written otherwise can be applied later.
    /// False where it gave way: what never comes must not hold up a control plane that goes down.
    async fn apply_set(&mut self, set: &Set) -> Result<bool> {
        let mut told = (self.node.clock.monotonic(), String::new());
        loop {
            let kube = self.as_super_user().await?;
            let missing = match assets::apply(&kube, set).await {
                Ok(outcome) if outcome.settled() => {
                    if !outcome.pruned.is_empty() {
                        let gone = outcome.pruned.join(", ");
                        self.note(format!("assets: in no manifest any more, taken out: {gone}"));
                    }
                    let remarks = outcome.refused.iter().chain(&outcome.kept);
                    self.remark(remarks.map(ToString::to_string).collect());
                    return Ok(true);
                }
                Ok(outcome) => outcome
                    .pending
                    .first()
                    .map_or(String::new(), |first| format!("{}: {}", first.object, first.reason)),
                Err(error) if matches!(error.kind(), Kind::Unavailable) => format!("{error:#}"),
                Err(error) => return Err(error),
            };
            self.tell_missing(Step::ApplyAssets, missing, &mut told);
            let facts = self.look().await?;
            if self.gives_way(Step::ApplyAssets, &facts) {
                return Ok(false);
            }
            self.node.clock.sleep(PASS).await;
        }
    }
}

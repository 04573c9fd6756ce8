//! Manifests are put in place: all at once where nothing runs, and on a node that lives one after
//! another, each proved before the next, and only while the others are well.

use serde_json::Value;

use super::manifests::{self, Pending};
use super::outdated::{self, MANIFEST, Outdated};
use super::perform::{advice, is_ready};
use super::step::Step;
use super::{PAUSE, Run};
use crate::config::plane::Component;
use crate::error::{Code, Error, Result};
use crate::host::processes::Process;
use crate::render;

impl Run<'_> {
    /// On a node that has none they are all placed at once; on one that lives, one after another,
    /// each only while the other controllers are well.
    pub(super) async fn place_manifests(&mut self) -> Result<()> {
        let pending = manifests::pending(self.node, self.plane)?;
        if self.is_deaf(&pending).await? {
            return self.place_unheard(&pending);
        }
        for replaced in &pending {
            let Pending { manifest, former } = replaced;
            let component = manifest.component;
            if former.is_empty() {
                manifests::write(self.node, self.plane, manifest)?;
                continue;
            }
            let was_well = self.look().await?.component(component).settled().is_ok();
            if was_well {
                self.own_are_well(component).await?;
                self.until_others_are_well().await?;
                self.others_have(component).await?;
            }
            outdated::mark_replaced(self.node, replaced)?;
            manifests::write(self.node, self.plane, manifest)?;
            self.until_replaced(former).await;
            if was_well {
                self.until_component(component).await?;
            }
        }
        Ok(())
    }

    /// What is replaced before it on this node has come up: a mistake stops at its first component.
    /// What comes after it may be down by that mistake, and is mended by what takes it back.
    async fn own_are_well(&mut self, before: Component) -> Result<()> {
        let facts = self.look().await?;
        for component in Component::ALL.into_iter().take_while(|component| *component != before) {
            if let Err(found) = facts.component(component).settled() {
                let text = format!("not while {component} of this node is unwell: {found}");
                return Err(
                    Error::new(Code::PlaneWaiting, text).advise(advice(Step::AwaitControlPlane))
                );
            }
        }
        Ok(())
    }

    /// The other controllers' pod of a component is ready: what a change has broken there is not
    /// broken here too. Without a super-user it cannot be seen.
    async fn others_have(&mut self, component: Component) -> Result<()> {
        let Ok(kube) = self.as_super_user().await else {
            return Ok(());
        };
        let selector = format!("{}={}", render::COMPONENT_LABEL, component.name());
        let pods = kube.list("/api/v1/namespaces/kube-system/pods", Some(&selector)).await?;
        for member in self.others()? {
            let address = member.address.to_string();
            let there = |pod: &&Value| pod["status"]["hostIP"] == address.as_str();
            if !pods.iter().filter(there).any(is_ready) {
                let text = format!("not while {component} of {} is not ready", member.name);
                return Err(Error::new(Code::PlaneWaiting, text)
                    .advise("see `nodeagent status` there; this one goes on by itself then"));
            }
        }
        Ok(())
    }

    pub(super) async fn until_component(&mut self, component: Component) -> Result<()> {
        while self.look().await?.component(component).settled().is_err() {
            self.node.clock.sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Until nothing runs any more by a former manifest: the old API server answers on until the
    /// kubelet has ended it.
    pub(super) async fn until_replaced(&self, former: &[Process]) {
        let is_due = |note: &Outdated| note.file == MANIFEST && former.contains(&note.process);
        while outdated::notes(self.node).iter().any(is_due) {
            self.node.clock.sleep(PAUSE).await;
        }
    }
}

//! The hand-over of the self-hosted style: from the temporary static pods to their successors in
//! DaemonSets, which have to be proved before anything is taken away.

use std::time::Duration;

use super::facts::PlaneFacts;
use super::leases::LEASE;
use super::perform::{advice, is_ready};
use super::step::Step;
use super::{PAUSE, Run, manifests};
use crate::config::plane::Component;
use crate::error::{Code, Error, Kind, Result};
use crate::render;

/// For how long the successors have to lead before the temporary API server goes.
const PROVED: Duration = Duration::from_secs(3);

impl Run<'_> {
    /// What of the final components of this node is missing. What runs here is seen here; that
    /// the pods are Ready only the API tells, whose word may be as old as the last boot.
    pub(super) async fn successors(&mut self, facts: &PlaneFacts) -> Vec<String> {
        let mut missing = Vec::new();
        for component in [Component::ControllerManager, Component::Scheduler] {
            if let Err(text) = facts.component(component).settled() {
                missing.push(format!("{component} of the DaemonSet: {text}"));
            }
        }
        if !manifests::final_runs(self.node, Component::Apiserver) {
            missing.push("the API server of the DaemonSet does not run".into());
        }
        if missing.is_empty() {
            missing = self.unready().await.unwrap_or_else(|error| match error.kind().is_away() {
                true => Vec::new(),
                false => vec![format!("{error:#}")],
            });
        }
        missing
    }

    async fn unready(&mut self) -> Result<Vec<String>> {
        let kube = self.as_super_user().await?;
        let node = self.node.identity()?.instance_id;
        let selector = format!("{}=daemon-set", render::PLACE_LABEL);
        let pods = kube.list("/api/v1/namespaces/kube-system/pods", Some(&selector)).await;
        let pods = match pods {
            Err(error) if error.kind() == Kind::Unavailable => {
                return Ok(vec![format!("the pods cannot be listed: {error:#}")]);
            }
            pods => pods?,
        };
        let ready = |component: &Component| {
            pods.iter().any(|pod| {
                pod["spec"]["nodeName"] == node.as_str()
                    && pod["metadata"]["labels"][render::COMPONENT_LABEL] == component.name()
                    && is_ready(pod)
            })
        };
        let missing = Component::ALL.iter().filter(|component| !ready(component));
        Ok(missing.map(|each| format!("{each} of the DaemonSet is not ready")).collect())
    }

    /// First the controllers go, whose successors then win their leases; the API server goes last,
    /// when that is proved. Where the successors do not win, the temporary ones are put back.
    pub(super) async fn remove_temporary(&mut self) -> Result<()> {
        for component in [Component::ControllerManager, Component::Scheduler] {
            manifests::remove_temporary(self.node, self.plane, component).await?;
        }
        let gone = self.node.clock.monotonic();
        let led = tokio::time::timeout(LEASE * 4, self.until_led(gone)).await;
        if !matches!(led, Ok(Ok(()))) {
            manifests::place(self.node, self.plane)?;
            let found = match led {
                Ok(Err(error)) => format!("{error:#}"),
                _ => format!("no lease within {} s", (LEASE * 4).as_secs()),
            };
            let text =
                format!("the final components do not lead: {found}; the temporary ones are back");
            return Err(Error::new(Code::PlaneWaiting, text).advise(advice(Step::AwaitSuccessors)));
        }
        manifests::remove_temporary(self.node, self.plane, Component::Apiserver).await
    }

    /// Until both leases were renewed since an instant, and for a time. Where Vault has no
    /// super-user for this run, the successors' own health has to do.
    async fn until_led(&mut self, after: Duration) -> Result<()> {
        let mut since = None;
        loop {
            let now = self.node.clock.monotonic();
            since = match self.unled(after).await {
                Ok(None) => since.or(Some(now)),
                Ok(Some(_)) => None,
                Err(error) if error.kind() == Kind::Unavailable && self.super_user.is_some() => {
                    None
                }
                Err(error) if error.kind().is_away() => {
                    self.note(format!("leases were not looked at: {error:#}"));
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            if since.is_some_and(|since| now.saturating_sub(since) >= PROVED) {
                return Ok(());
            }
            self.node.clock.sleep(PAUSE).await;
        }
    }
}

//! The hand-over of the self-hosted style: from the temporary static pods to their successors in
//! DaemonSets, which have to be proved before anything is taken away.

use std::time::Duration;

use super::perform::{LEASE, advice, is_ready};
use super::step::Step;
use super::{PAUSE, Run, manifests};
use crate::config::plane::Component;
use crate::error::{Code, Error, Kind, Result};
use crate::render;

/// For how long the successors have to lead before the temporary API server goes.
const PROVED: Duration = Duration::from_secs(3);

impl Run<'_> {
    /// What of the final components is missing, of a self-hosted control plane.
    pub(super) async fn successors(&mut self) -> Option<Vec<String>> {
        let kube = self.as_super_user().await.ok()?;
        let node = self.node.identity().ok()?.instance_id;
        let selector = format!("{}=daemon-set", render::PLACE_LABEL);
        let pods = kube.list("/api/v1/namespaces/kube-system/pods", Some(&selector)).await.ok()?;
        let ready = |component: &Component| {
            pods.iter().any(|pod| {
                pod["spec"]["nodeName"] == node.as_str()
                    && pod["metadata"]["labels"][render::COMPONENT_LABEL] == component.name()
                    && is_ready(pod)
            })
        };
        let missing = Component::ALL.iter().filter(|component| !ready(component));
        Some(
            missing.map(|component| format!("{component} of the DaemonSet is not ready")).collect(),
        )
    }

    /// First the controllers go, whose successors then win their leases; the API server goes last,
    /// when that is proved. Where the successors do not win, the temporary ones are put back.
    pub(super) async fn remove_temporary(&mut self) -> Result<()> {
        for component in [Component::ControllerManager, Component::Scheduler] {
            manifests::remove_temporary(self.node, self.plane, component).await?;
        }
        let led = tokio::time::timeout(LEASE * 4, self.until_led(PROVED)).await;
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

    /// Until both leases have been held for a time.
    async fn until_led(&mut self, proved: Duration) -> Result<()> {
        let mut since = None;
        loop {
            let now = self.node.clock.monotonic();
            since = match self.unled().await {
                Ok(None) => since.or(Some(now)),
                Ok(Some(_)) => None,
                Err(error) if error.kind() == Kind::Unavailable => None,
                Err(error) => return Err(error),
            };
            if since.is_some_and(|since| now.saturating_sub(since) >= proved) {
                return Ok(());
            }
            self.node.clock.sleep(PAUSE).await;
        }
    }
}

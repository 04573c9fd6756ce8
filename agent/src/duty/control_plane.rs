//! Is the control plane of this node alive? If not for long enough, the same list of steps that
//! raised it is run again.

use jiff::{SignedDuration, Timestamp};

use super::{Due, DutyId, Facts, Hold, Why};
use crate::bootstrap::facts::PlaneFacts;
use crate::bootstrap::journal::Mode;
use crate::bootstrap::step::{self, Step};
use crate::bootstrap::{self, Report, clients};
use crate::config::Config;
use crate::config::plane::ControlPlane;
use crate::error::Result;
use crate::node::Node;

/// A container that ended is started again within this, where the kubelet is to.
const RESTART: SignedDuration = SignedDuration::from_secs(3);

/// When a run is due, and why.
pub fn due(config: &Config, plane: &ControlPlane, facts: &Facts, now: Timestamp) -> Due {
    let Some(seen) = facts.plane.as_ref().filter(|_| plane.automatic) else {
        return Due::Idle;
    };
    let Some(step) = step::next(plane.style, seen, &seen.journal) else {
        return Due::Idle;
    };
    if let Some(hold) = not_yet(config, facts) {
        return Due::Blocked(hold);
    }
    match step {
        // Its members come back by themselves or by a person.
        Step::AwaitEtcd => Due::Blocked(Hold::Etcd),
        _ if !seen.journal.completed => Due::Now(Why::Missing),
        // No kubelet brings back what only the API could tell it of.
        Step::PlaceTemporaryManifests if !seen.apiserver_runs => after(RESTART, facts, now),
        Step::AwaitApiserver | Step::AwaitControlPlane | Step::PlaceTemporaryManifests => {
            let patience = SignedDuration::try_from(plane.dead_after);
            after(patience.unwrap_or(SignedDuration::MAX), facts, now)
        }
        Step::RefreshComponents => Due::Now(Why::SpecChanged),
        _ => Due::Now(Why::Missing),
    }
}

/// What is down may be on its way up: the kubelet starts its pods again by itself.
fn after(patience: SignedDuration, facts: &Facts, now: Timestamp) -> Due {
    let since = facts.plane_down_since.unwrap_or(now);
    match since.checked_add(patience) {
        Ok(at) if at > now => Due::At(at),
        _ => Due::Now(Why::Down),
    }
}

/// What has to be there before a run can get anywhere.
fn not_yet(config: &Config, facts: &Facts) -> Option<Hold> {
    for spec in clients::needed(config) {
        if facts.certificates.get(&spec.name).and_then(super::facts::CertFact::held).is_none() {
            return Some(Hold::Duty(DutyId::Cert(spec.name.clone())));
        }
    }
    match &facts.files {
        Some(Ok(files)) if files.stale.is_empty() => None,
        _ => Some(Hold::Duty(DutyId::Files)),
    }
}

/// Whether the control plane is down in a way that may end by itself.
pub fn is_down(plane: &ControlPlane, seen: &PlaneFacts) -> bool {
    step::next(plane.style, seen, &seen.journal).is_some()
}

/// Runs the list.
pub async fn perform(node: &Node) -> Result<Report> {
    bootstrap::run(node, Mode::Raise, &mut |progress| {
        tracing::debug!(?progress, "bootstrap");
    })
    .await
}

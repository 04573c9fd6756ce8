//! Who leads: told by a lease that is seen to be renewed, and by no clock but this machine's own. A
//! time that another machine has written says nothing here, and a lease that was renewed just
//! before its holder ended looks held for as long as nobody looks twice.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Run;
use crate::config::plane::Component;
use crate::error::Result;

/// A lease that was not renewed for as long is held by nobody: the components' own
/// `--leader-elect-lease-duration`. They renew every 2 s.
pub(super) const LEASE: Duration = Duration::from_secs(15);

/// The components of which one leads.
const LED: [Component; 2] = [Component::ControllerManager, Component::Scheduler];

/// What this run has seen of the leases.
#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<Component, Seen>);

#[derive(Debug)]
struct Seen {
    renewed: String,
    /// When it was last seen to change, by the monotonic clock.
    changed: Option<Duration>,
}

impl Leases {
    /// Notes what a lease says now.
    fn note(&mut self, component: Component, renewed: &str, now: Duration) {
        let first = || Seen { renewed: renewed.to_string(), changed: None };
        let seen = self.0.entry(component).or_insert_with(first);
        if seen.renewed != renewed {
            *seen = Seen { renewed: renewed.to_string(), changed: Some(now) };
        }
    }

    /// Whether somebody has renewed it after an instant, and not too long ago.
    fn is_led(&self, component: Component, after: Duration, now: Duration) -> bool {
        let changed = self.0.get(&component).and_then(|seen| seen.changed);
        changed.is_some_and(|at| at >= after && now.saturating_sub(at) < LEASE)
    }
}

impl Run<'_> {
    /// Which lease nobody was seen to renew after an instant, if there is one.
    pub(super) async fn unled(&mut self, after: Duration) -> Result<Option<String>> {
        let kube = self.as_super_user().await?;
        let mut missing = None;
        for component in LED {
            let path = format!(
                "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{}",
                component.name()
            );
            let lease = kube.get(&path).await?.unwrap_or_default();
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            let renewed = lease["spec"]["renewTime"].as_str().filter(|_| !holder.is_empty());
            let now = self.node.clock.monotonic();
            if let Some(renewed) = renewed {
                self.leases.note(component, renewed, now);
            }
            if !self.leases.is_led(component, after, now) {
                let text = format!("nobody was seen to renew the lease of {component} yet");
                missing = missing.or(Some(text));
            }
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_by_whoever_renews_it_and_for_no_longer_than_its_term() {
        let (manager, at) = (Component::ControllerManager, Duration::from_secs);
        let mut leases = Leases::default();
        leases.note(manager, "a", at(1));
        assert!(!leases.is_led(manager, at(0), at(1)), "seen once");
        leases.note(manager, "a", at(2));
        assert!(!leases.is_led(manager, at(0), at(2)), "not renewed");
        leases.note(manager, "b", at(3));
        assert!(leases.is_led(manager, at(0), at(3)));
        assert!(!leases.is_led(manager, at(4), at(5)), "renewed before what counts");
        assert!(!leases.is_led(manager, at(0), at(18)), "its term is over");
        assert!(!leases.is_led(Component::Scheduler, at(0), at(3)), "another one's");
    }
}

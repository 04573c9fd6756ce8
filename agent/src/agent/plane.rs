//! What the loop keeps in mind of the control plane between two looks, and how often it looks.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::INTERVAL;
use crate::bootstrap;
use crate::config::Config;
use crate::duty::{Facts, control_plane};
use crate::node::Node;

/// A node with a control plane looks as often as this: a lost one is noticed within it.
const PLANE_INTERVAL: Duration = Duration::from_secs(5);

/// While it is on its way up there is more to see: what is waited for is acted on at once.
const RISING_INTERVAL: Duration = Duration::from_millis(250);

/// What has not come up within this waits for something that does not end in a moment.
const RISING: SignedDuration = SignedDuration::from_secs(60);

/// While it stays down.
const DOWN_INTERVAL: Duration = Duration::from_secs(1);

/// The assets are read again after this: they may be megabytes, and seldom change.
const ASSETS: Duration = Duration::from_secs(30);

/// How often the loop looks at least, where nothing is amiss.
pub(super) fn interval(config: &Config) -> Duration {
    if config.control_plane.is_some() { PLANE_INTERVAL } else { INTERVAL }
}

/// What is kept in mind.
#[derive(Debug, Default)]
pub(super) struct PlaneWatch {
    /// Since when the control plane has not been whole.
    down_since: Option<Timestamp>,
    /// The digest of the assets, and when they were read.
    assets: Option<(Duration, Option<String>)>,
}

impl PlaneWatch {
    /// Looks at the control plane, where there is one.
    pub(super) async fn look(&mut self, node: &Node, facts: &mut Facts) {
        let Some(plane) = &node.config.control_plane else {
            return;
        };
        let now = node.clock.monotonic();
        let old = self.assets.as_ref().is_none_or(|(at, _)| now.saturating_sub(*at) >= ASSETS);
        if old {
            self.assets = Some((now, bootstrap::assets_digest(node)));
        }
        let assets = self.assets.as_ref().and_then(|(_, digest)| digest.clone());
        facts.plane = bootstrap::facts::gather(node, assets).await;
        let is_down = facts.plane.as_ref().is_some_and(|seen| control_plane::is_down(plane, seen));
        self.down_since = is_down.then(|| down_since(self.down_since, node.clock.now()));
        facts.plane_down_since = self.down_since;
    }

    /// Whether there is a control plane, and it is whole.
    pub(super) fn is_whole(&self, facts: &Facts) -> bool {
        facts.plane.is_some() && self.down_since.is_none()
    }

    /// How often the loop looks at least.
    pub(super) fn interval(&self, node: &Node) -> Duration {
        let acts = node.config.control_plane.as_ref().is_some_and(|plane| plane.automatic);
        match self.down_since.filter(|_| acts) {
            None => interval(&node.config),
            Some(since) if node.clock.now().duration_since(since) < RISING => RISING_INTERVAL,
            Some(_) => DOWN_INTERVAL,
        }
    }
}

/// Since when it is down. A clock that has stepped back would put the beginning ahead, and what is
/// down for long enough would wait for it.
fn down_since(before: Option<Timestamp>, now: Timestamp) -> Timestamp {
    before.map_or(now, |since| since.min(now))
}

#[test]
fn a_clock_that_steps_back_delays_nothing_that_is_down() {
    let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).expect("an instant");
    assert_eq!(down_since(None, at(5)), at(5));
    assert_eq!(down_since(Some(at(5)), at(9)), at(5));
    assert_eq!(down_since(Some(at(3600)), at(9)), at(9));
}

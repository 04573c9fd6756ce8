//! Manifests into the cluster: a directory is read into a [`Set`], applied object by object in
//! one bounded pass ([`apply()`]), and what an earlier set had and this one has no more is taken
//! out again. What was applied is written down in one ConfigMap, before it is applied, so that
//! no crash makes an object that nobody knows of. The caller repeats the pass while something is
//! [pending](Outcome::pending).
//!
//! Nothing is pruned but what this agent made: recorded in the inventory as made by it, with the
//! uid that it had then, and still carrying the agent's field manager.

mod apply;
mod inventory;
mod order;
mod prune;
mod read;

use std::fmt;

pub use apply::{Outcome, Remark, apply, are_recorded, satisfied};
pub use read::{Asset, Fault, Set, read};

/// The field manager that our objects carry: server-side apply keeps the fields of each apart.
pub const MANAGER: &str = "nodeagent";

/// Where an object of a namespaced kind goes that names no namespace, as with kubectl.
const NAMESPACE: &str = "default";

/// Which object of a cluster: without the version, so that a manifest that moves from `v1beta1`
/// to `v1` is still the same object and not one to prune.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    group: String,
    kind: String,
    /// `default` where none is named; of a cluster's own kind it means nothing.
    namespace: String,
    name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if self.namespace != NAMESPACE {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// The group of an `apiVersion`; the oldest kinds have none.
fn group(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or("", |(group, _)| group)
}

//! What the archive has in place of a certificate that is gone or torn, so that it is mended where
//! Vault is away.

use super::leaf::{self, Leaf};
use super::store::{Archive, Generation, Material};
use super::{flaw, pinned};
use crate::attest::Identity;
use crate::config::CertSpec;
use crate::duty::Why;
use crate::node::Node;

/// A generation in the archive that could be published again: sound, valid, ours and not
/// quarantined.
#[derive(Debug)]
pub struct Spare {
    /// Its number in the archive.
    pub generation: Generation,
    /// What it holds.
    pub material: Material,
    /// Whether an authority was added to the pinned bundle after it was issued.
    pub is_stale: bool,
}

impl Spare {
    /// Whether what is published is this very certificate with a bundle that has lost something.
    pub(super) fn is_the_whole_of(&self, published: &Material) -> bool {
        let (kept, ca) = (&self.material, &published.ca);
        let more = !self.is_stale || kept.ca.starts_with(ca.as_str());
        kept.cert == published.cert && kept.ca != *ca && more
    }
}

/// The newest generation below `below` that could be published again; one from before an authority
/// was added only where there is no other.
pub fn spare(
    node: &Node,
    spec: &CertSpec,
    identity: Option<&Identity>,
    quarantined: &[Generation],
    below: Option<Generation>,
) -> Option<Spare> {
    let archive = Archive::of(&node.root, &spec.name);
    let mut generations = archive.list().ok()?;
    generations.sort_unstable();
    let usable = |generation: Generation| {
        if quarantined.contains(&generation) || below.is_some_and(|below| generation >= below) {
            return None;
        }
        let material = archive.load(generation).ok()?;
        let leaf = Leaf::of(&material).ok()?;
        leaf::check_validity(&leaf, node.clock.now()).ok()?;
        let is_stale = match flaw(node, spec, identity, &leaf, &material) {
            None => false,
            Some(Why::CaRotated) if was_outgrown(node, spec, &material) => true,
            Some(_) => return None,
        };
        Some(Spare { generation, material, is_stale })
    };
    let mut stale = None;
    for found in generations.into_iter().rev().filter_map(usable) {
        if !found.is_stale {
            return Some(found);
        }
        stale = stale.or(Some(found));
    }
    stale
}

/// Whether a bundle lacks only what was added to the pinned one since: it has all that was pinned
/// when the certificate was issued, and the certificate verifies by it and by what is pinned now.
fn was_outgrown(node: &Node, spec: &CertSpec, material: &Material) -> bool {
    let (own, then) = (leaf::bundle(&material.ca), leaf::bundle(&material.pinned));
    let (Ok(own), Ok(then), Ok(now)) = (own, then, pinned(node, spec)) else { return false };
    let verifies = |bundle| leaf::check_chain(material, bundle, node.clock.now()).is_ok();
    leaf::has_all(&own, &then) && verifies(&own) && verifies(&now)
}

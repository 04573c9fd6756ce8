//! A generation is kept in the archive and then put in force, under a number that there was not.

use jiff::Timestamp;

use super::leaf::Leaf;
use super::publish::{self, Target};
use super::store::{self, Archive, Generation, Material};
use super::target;
use crate::config::CertSpec;
use crate::error::Result;
use crate::host::files::Root;
use crate::node::Node;

/// What was committed.
#[derive(Debug)]
pub struct Commit {
    /// The certificate's name.
    pub name: String,
    /// The consumer's name.
    pub consumer: String,
    /// The new generation.
    pub generation: Generation,
    /// Its serial.
    pub serial: String,
    /// Its end.
    pub not_after: Timestamp,
    /// Whether it was issued; if not it was published again from the archive.
    pub issued: bool,
    /// The generation that it is a copy of.
    pub copied_from: Option<Generation>,
}

/// Keeps and publishes.
pub(super) async fn commit(node: &Node, spec: &CertSpec, material: &Material) -> Result<Commit> {
    let target = target(node, spec)?;
    let leaf = Leaf::of(material)?;
    let archive = Archive::of(&node.root, &spec.name);
    let generation = match unpublished(&archive, &node.root, &target, material) {
        Some(generation) => generation,
        None => keep(&archive, &node.root, &target, material)?,
    };
    let edition = publish::Edition { generation, material };
    publish::publish(&node.root, &*node.clock, &target, edition).await?;
    Ok(Commit {
        name: spec.name.clone(),
        consumer: spec.consumer.clone(),
        generation,
        serial: leaf.serial,
        not_after: leaf.not_after,
        issued: false,
        copied_from: None,
    })
}

fn keep(
    archive: &Archive,
    root: &Root,
    target: &Target,
    material: &Material,
) -> Result<Generation> {
    let generation = next_generation(archive, root, target)?;
    archive.save(generation, material)?;
    // What is too old goes whether or not the publication succeeds; what stays is met again.
    archive.prune(store::KEPT).ok();
    Ok(generation)
}

/// The newest generation in the archive, where it is this very certificate and nothing of it is
/// published: one more copy for each publication that fails would push out what there is to go
/// back to.
fn unpublished(
    archive: &Archive,
    root: &Root,
    target: &Target,
    material: &Material,
) -> Option<Generation> {
    let newest = archive.list().ok()?.into_iter().max()?;
    let published = publish::generations(root, target).ok()?.into_iter().max();
    let copy = archive.load(newest).ok().filter(|_| Some(newest) > published)?;
    (copy.cert == material.cert && copy.ca == material.ca).then_some(newest)
}

/// Puts a former generation back as a new one; gives the new one's number.
pub async fn restore(node: &Node, spec: &CertSpec, material: &Material) -> Result<Generation> {
    commit(node, spec, material).await.map(|commit| commit.generation)
}

/// Whether there is a number for the generation to come.
pub(super) fn can_be_kept(node: &Node, spec: &CertSpec) -> Result<Generation> {
    next_generation(&Archive::of(&node.root, &spec.name), &node.root, &target(node, spec)?)
}

/// A number above all that the archive and the published tree know: neither alone can be trusted
/// to be complete.
fn next_generation(archive: &Archive, root: &Root, target: &Target) -> Result<Generation> {
    let archived = archive.list()?.into_iter().max();
    let published = publish::generations(root, target)?.into_iter().max();
    Ok(archived.max(published).map_or(Generation(1), |newest| Generation(newest.0 + 1)))
}

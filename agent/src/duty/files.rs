//! The files that the kubelet, etcd and the control plane are told their set-up by: rendered from
//! the configuration and written where they differ. Static pods are not among them, they are
//! placed by a bootstrap; nor are keys.

use std::path::PathBuf;

use super::{Due, DutyId, Facts, Hold, Why};
use crate::bootstrap::inputs::Inputs;
use crate::bootstrap::{clients, membership, outdated};
use crate::error::{Code, Context, Result};
use crate::node::Node;
use crate::render::{self, File};

/// A rendered file larger than this is none of ours.
const LIMIT: usize = 4 << 20;

/// What a look saw.
#[derive(Debug)]
pub struct FilesFact {
    /// The files that are missing or differ.
    pub stale: Vec<PathBuf>,
    /// Whether the membership in etcd has to be written down.
    pub unnoted: bool,
}

/// Looks at the files; nothing where the cluster was not told.
pub fn examine(node: &Node) -> Option<Result<FilesFact>> {
    node.config.cluster_plan.as_ref()?;
    let looked = || -> Result<FilesFact> {
        let mut stale = Vec::new();
        for file in wanted(node)? {
            if !is_current(node, &file)? {
                stale.push(file.path);
            }
        }
        let unnoted = node.config.etcd.as_ref().is_some_and(|etcd| {
            let has_data = crate::bootstrap::facts::has_data(&node.root, &etcd.data_dir);
            has_data.unwrap_or(false) && !membership::is_formed(&node.root)
        });
        Ok(FilesFact { stale, unnoted })
    };
    Some(looked())
}

/// When files have to be written, and why.
pub fn due(facts: &Facts) -> Due {
    match &facts.files {
        None => Due::Idle,
        Some(Ok(fact)) if fact.stale.is_empty() && !fact.unnoted => Due::Idle,
        Some(Ok(_)) => Due::Now(Why::SpecChanged),
        Some(Err(error)) if error.code() == Code::TokenInvalid => {
            Due::Blocked(Hold::Duty(DutyId::Session))
        }
        // The effect fails in the same way, and its failure is told.
        Some(Err(_)) => Due::Now(Why::Unreadable),
    }
}

/// Writes what differs; gives the names.
pub fn perform(node: &Node) -> Result<Vec<String>> {
    if let Some(etcd) = &node.config.etcd {
        membership::note(node, etcd)?;
    }
    let mut written = Vec::new();
    for file in wanted(node)? {
        if !is_current(node, &file)? {
            written.push(outdated::replace(node, &file).during("writing set-up")?);
        }
    }
    Ok(written)
}

fn wanted(node: &Node) -> Result<Vec<File>> {
    Inputs::gather(node)?.with(node, |input| {
        let mut files = render::kubelet(input)?;
        if let Some(etcd) = &node.config.etcd {
            files.extend(render::etcd(input, membership::of(node, etcd))?);
        }
        if node.config.control_plane.is_some() {
            files.extend(render::plane(input)?);
        }
        Ok(files)
    })
}

fn is_current(node: &Node, file: &File) -> Result<bool> {
    let text = clients::text(node, &file.path, LIMIT)?;
    Ok(text.is_some_and(|text| text == file.content.text()))
}

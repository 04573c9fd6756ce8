//! What the rendering of files is given: who this node is, and the texts that it is made from.

use std::path::Path;

use crate::attest::Identity;
use crate::duty::certs::leaf;
use crate::error::{Code, Context, Error, Result};
use crate::node::Node;
use crate::render::{Bundles, Input};

/// An audit policy larger than this is none.
const POLICY_LIMIT: usize = 1 << 20;

/// The texts, owned.
#[derive(Debug)]
pub struct Inputs {
    identity: Identity,
    bundles: Bundles,
    audit_policy: Option<String>,
}

impl Inputs {
    /// Reads what there is. Who the node is has to be known: from its session with Vault, or from
    /// the last one.
    pub fn gather(node: &Node) -> Result<Inputs> {
        let identity = node.identity()?;
        let policy = node.config.control_plane.as_ref().and_then(|p| p.audit_policy.as_deref());
        let audit_policy = policy.map(|path| text(node, path, POLICY_LIMIT)).transpose()?;
        let bundles = Bundles {
            cluster: bundle(node, "cluster")?,
            etcd: bundle(node, "etcd")?,
            front_proxy: bundle(node, "front-proxy")?,
        };
        Ok(Inputs { identity, bundles, audit_policy })
    }

    /// Renders with them.
    pub fn with<T>(&self, node: &Node, render: impl FnOnce(&Input<'_>) -> T) -> T {
        render(&Input {
            config: &node.config,
            identity: &self.identity,
            bundles: &self.bundles,
            audit_policy: self.audit_policy.as_deref(),
        })
    }
}

/// A worker has no bundle of etcd's, and nothing of it is rendered there. One that is torn takes
/// the place of none that was good.
fn bundle(node: &Node, authority: &str) -> Result<String> {
    let Some(known) = node.config.authorities.get(authority) else {
        return Ok(String::new());
    };
    let text = text(node, &known.ca, leaf::BUNDLE_LIMIT)?;
    leaf::bundle(&text).at(known.ca.display())?;
    Ok(text)
}

fn text(node: &Node, path: &Path, limit: usize) -> Result<String> {
    let bytes = node.root.read(path, limit)?;
    String::from_utf8(bytes).map_err(|_| Error::new(Code::Config, "not UTF-8")).at(path.display())
}

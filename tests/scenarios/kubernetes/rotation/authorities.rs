//! Another authority of etcd: made in Vault, trusted beside the former one, then signing.

use rig::controllers::api::{Api, Identity};
use serde_json::json;

use super::Story;

const MOUNT: &str = "pki-etcd";
const BUNDLE: &str = "/etc/nodeagent/etcd-ca.pem";

/// The new authority.
pub(super) struct Authority {
    issuer: String,
    pem: String,
}

impl Authority {
    /// Has Vault make it; it signs nothing yet.
    pub(super) async fn make(story: &Story) -> Result<Authority, String> {
        let ask = json!({
            "common_name": "rig second etcd authority", "issuer_name": "second",
            "key_type": "ec", "key_bits": 256, "ttl": "87600h",
        });
        let made =
            story.vault().must_write(&format!("{MOUNT}/root/generate/internal"), &ask).await?;
        let part = |name: &str| made.data(name).as_str().unwrap_or_default().trim().to_owned();
        Ok(Authority { issuer: part("issuer_id"), pem: part("certificate") })
    }

    /// Puts it beside the former one on every controller, as an operator does.
    pub(super) fn trust_beside(&self, story: &Story) -> Result<(), String> {
        let former = story.site.configured.roots[MOUNT].trim();
        for node in &story.nodes {
            node.write(BUNDLE, &format!("{former}\n{}\n", self.pem))?;
        }
        for node in &story.nodes {
            node.machine.systemctl("reload", "nodeagent").map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// From now on Vault signs with it.
    pub(super) async fn sign(&self, story: &Story) -> Result<(), String> {
        let ask = json!({ "default": self.issuer });
        story.vault().must_write(&format!("{MOUNT}/config/issuers"), &ask).await.map(drop)
    }

    /// Asks a member of etcd for its health as somebody who knows only the new authority.
    pub(super) async fn health(&self, story: &Story, node: usize) -> Result<(), String> {
        let who = Identity::issue(&story.vault(), (MOUNT, &self.pem), &[]).await?;
        let etcd = Api::new(format!("https://{}:2379", story.nodes[node].machine.ip()), &who)?;
        match etcd.get("/health").await?["health"] == "true" {
            true => Ok(()),
            false => Err("it is not healthy".into()),
        }
    }
}

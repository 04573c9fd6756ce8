//! The super-user of a run: a client certificate of `system:masters` for ten minutes at most. Its
//! key is made in memory and dies with the process: nothing of it is ever written to a disk, so
//! that a crash leaves nothing to clean up.

use std::time::Duration;

use crate::config::Names;
use crate::duty::certs::leaf::{self, Leaf};
use crate::duty::certs::request;
use crate::duty::certs::store::Material;
use crate::error::{Code, Context, Error, Result};
use crate::node::Node;
use crate::wire::http::ClientIdentity;
use crate::wire::vault::SignRequest;

/// The PKI role that signs it; its `max_ttl` says the same.
pub const ROLE: &str = "bootstrap-admin";

/// Who it says it is.
pub const NAME: &str = "nodeagent-bootstrap";

/// How long it is asked for.
pub const TTL: Duration = Duration::from_secs(600);

/// A run that needs it for longer gets another one this long before the end of the first.
pub const MARGIN: Duration = Duration::from_secs(60);

/// The certificate and its key.
#[derive(Debug)]
pub struct SuperUser {
    /// For the client.
    pub identity: ClientIdentity,
    /// Its end, by the monotonic clock of this machine.
    pub expires: Duration,
}

/// Has Vault sign a super-user.
pub async fn obtain(node: &Node) -> Result<SuperUser> {
    sign(node).await.during("getting the super-user of this run")
}

async fn sign(node: &Node) -> Result<SuperUser> {
    let session = node.session.proved()?;
    let authority = node.config.authorities.get("cluster");
    let authority =
        authority.ok_or_else(|| Error::new(Code::Config, "there is no [pki.cluster]"))?;
    let names = Names {
        common_name: NAME.into(),
        organizations: vec!["system:masters".into()],
        ..Names::default()
    };
    let (key, csr_pem) = request::make(&names)?;
    let asked = node.clock.monotonic();
    let wanted = SignRequest {
        csr_pem,
        common_name: names.common_name.clone(),
        dns: Vec::new(),
        ips: Vec::new(),
        uris: Vec::new(),
        ttl: TTL,
    };
    let signed = node.vault.sign(&session.token, &authority.mount, ROLE, &wanted).await?;
    let pinned = leaf::bundle(node.root.read(&authority.ca, leaf::BUNDLE_LIMIT)?)?;
    let material = Material::new(&signed.certificate_pem, &signed.chain_pem, key, &pinned)?;
    let leaf = Leaf::of(&material)?;
    leaf::check_key(&leaf, &material)?;
    leaf::check_chain(&material, &pinned, node.clock.now())?;
    leaf::check_validity(&leaf, node.clock.now())?;
    // Vault dates certificates back by 30 s; no clock of this machine is in it.
    let life = Duration::try_from(leaf.not_before.duration_until(leaf.not_after));
    let life = life.unwrap_or_default();
    if life > TTL + MARGIN {
        let text = format!("a super-user for {} s is longer than {ROLE} may give", life.as_secs());
        return Err(Error::new(Code::ValidityWrong, text)
            .advise(format!("set max_ttl=10m at the PKI role {ROLE} (packaging/vault)")));
    }
    let identity = ClientIdentity { cert_pem: material.cert, key_pem: material.key };
    Ok(SuperUser { identity, expires: asked + life.min(TTL) })
}

//! Issuing: a key is made here, Vault signs, and the answer is checked as if an enemy had sent it.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::leaf::{self, Leaf};
use super::store::{Archive, Material};
use super::{names, pinned, request};
use crate::config::{CertSpec, Names};
use crate::duty::facts::CertFact;
use crate::error::{Code, Context, Error, Result};
use crate::node::{Node, Session};
use crate::secret::Secret;
use crate::wire::vault::SignRequest;

/// A measurement of the clock that is older than this is taken again before an issue.
const CLOCK_AGE: Duration = Duration::from_secs(300);

/// What is asked for, and what the answer is held against.
struct Question<'a> {
    session: Session,
    mount: &'a str,
    pinned: Vec<leaf::Authority>,
    names: Names,
    key: Secret,
    request: SignRequest,
}

/// Has Vault sign a new key, and checks the answer, also against what is in force.
pub(super) async fn issue(node: &Node, spec: &CertSpec, fact: &CertFact) -> Result<Material> {
    let question = prepare(node, spec).await.map_err(Error::unsent)?;
    let Question { session, mount, pinned, names, key, request } = question;
    let signed = node.vault.sign(&session.token, mount, &spec.role, &request).await?;
    let before = previous_authorities(node, spec);
    let material = Material::new(&signed.certificate_pem, &signed.chain_pem, key, &pinned)?
        .trusting_also(&before)?;
    let leaf = Leaf::of(&material)?;
    leaf::check_key(&leaf, &material)?;
    leaf::check_chain(&material, &pinned, node.clock.now())?;
    leaf::check_names(&leaf, &names)?;
    leaf::check_usage(&leaf, spec.usage)?;
    leaf::check_validity(&leaf, node.clock.now())?;
    lasts_longer(&leaf, fact, node.clock.now())?;
    Ok(material)
}

/// Everything before Vault is asked for a certificate: what fails here has brought none.
async fn prepare<'a>(node: &'a Node, spec: &CertSpec) -> Result<Question<'a>> {
    fresh_clock(node).await?;
    let session = node.session.proved()?;
    let authority = node.config.authorities.get(&spec.authority);
    let authority =
        authority.ok_or_else(|| Error::new(Code::Bug, "an authority went unchecked"))?;
    let pinned = pinned(node, spec)?;
    let names = names(&node.config, spec, &session.facts.identity)?;
    let (key, csr_pem) = request::make(&names)?;
    let request = SignRequest {
        csr_pem,
        common_name: names.common_name.clone(),
        dns: names.dns.clone(),
        ips: names.ips.iter().map(|text| address(text)).collect::<Result<_>>()?,
        uris: names.uris.clone(),
        ttl: spec.ttl,
    };
    Ok(Question { session, mount: &authority.mount, pinned, names, key, request })
}

/// A renewal is for another end: a role whose lives were cut by mistake would replace hours by
/// minutes, over and over. What is wrong with the one in force is another matter.
fn lasts_longer(new: &Leaf, fact: &CertFact, now: Timestamp) -> Result<()> {
    let held = fact.held().filter(|held| held.flaw.is_none() && held.leaf.not_after > now);
    let Some(held) = held.filter(|held| held.leaf.not_after > new.not_after) else {
        return Ok(());
    };
    let (ends, force) = (new.not_after, held.leaf.not_after);
    let text = format!("it ends at {ends}, before the one in force, which ends at {force}");
    Err(Error::new(Code::ValidityWrong, text)
        .advise("see `ttl` and `max_ttl` of the PKI role, and `max_lease_ttl` of its mount"))
}

/// Makes sure that the clock was measured lately and is within its bound.
async fn fresh_clock(node: &Node) -> Result<()> {
    let now = node.clock.monotonic();
    let measured = node.vault.observed().map(|seen| now.saturating_sub(seen.monotonic));
    if measured.is_none_or(|age| age > CLOCK_AGE) {
        node.vault.health().await.during("measuring the clock")?;
    }
    if node.clock_fits() {
        return Ok(());
    }
    let ahead = node.clock_ahead().unwrap_or_default();
    Err(Error::new(Code::ClockSkew, format!("the clock is {ahead:#} ahead of vault's"))
        .advise("set the clock: check systemd-timesyncd or chrony on this node"))
}

/// The authorities that the generation in force was issued under: they stay in the published
/// bundle for one more generation, for peers that still show a certificate of theirs.
fn previous_authorities(node: &Node, spec: &CertSpec) -> Vec<leaf::Authority> {
    let archive = Archive::of(&node.root, &spec.name);
    let newest = archive.list().ok().and_then(|generations| generations.into_iter().max());
    let material = newest.and_then(|newest| archive.load(newest).ok());
    material.and_then(|material| leaf::bundle(&material.pinned).ok()).unwrap_or_default()
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| {
        Error::new(Code::Config, format!("`{text}` is no IP address"))
            .advise("correct `ips` of the certificate, or the variable that it names")
    })
}

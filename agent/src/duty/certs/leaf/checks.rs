//! The checks of one certificate by itself: names, usage, validity, key. Each says what was found
//! and what had been asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};

use super::super::store::Material;
use super::{Leaf, bad, shown};
use crate::config::{Names, Usage};
use crate::error::{Code, Error, Result};

/// Names are ours, all of them, and nothing more. Of the subject, common name and organisations
/// are compared: they are the user and the groups of Kubernetes. What else a role puts there
/// (country, unit) names nobody. Letter case of DNS names does not matter.
pub fn check_names(leaf: &Leaf, names: &Names) -> Result<()> {
    let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let same = |names: &[String]| names.iter().cloned().collect();
    let checks = [
        differ("common name", &same(&leaf.common_names), &one(&names.common_name)),
        differ("organisation", &same(&leaf.organizations), &same(&names.organizations)),
        differ("DNS name", &lower(&leaf.dns), &lower(&names.dns)),
        differ("address", &leaf.ips.iter().copied().collect(), &addresses(&names.ips)?),
        differ("URI", &same(&leaf.uris), &same(&names.uris)),
        differ("other name", &same(&leaf.others), &BTreeSet::new()),
        (leaf.common_names.len() > 1).then(|| "more than one common name".to_owned()),
    ];
    let found: Vec<String> = checks.into_iter().flatten().collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::new(Code::NamesWrong, found.join("; "))
        .advise("see what the PKI role puts into certificates, or correct the names asked for"))
}

fn one(name: &str) -> BTreeSet<String> {
    let name = Some(name).filter(|name| !name.is_empty());
    name.map(str::to_owned).into_iter().collect()
}

fn addresses(texts: &[String]) -> Result<BTreeSet<IpAddr>> {
    texts
        .iter()
        .map(|text| {
            text.parse().map_err(|_| Error::new(Code::Config, format!("{text:?} is no address")))
        })
        .collect()
}

/// What is there and was not asked for, and the other way round; the first few of each.
fn differ<T: Ord + ToString>(
    what: &str,
    found: &BTreeSet<T>,
    asked: &BTreeSet<T>,
) -> Option<String> {
    let list = |names: Vec<&T>| {
        let few: Vec<String> = names.iter().take(5).map(|name| shown(&name.to_string())).collect();
        let more = if names.len() > 5 { " and more" } else { "" };
        (!few.is_empty()).then(|| format!("{}{more}", few.join(", ")))
    };
    let extra = list(found.difference(asked).collect());
    let missing = list(asked.difference(found).collect());
    match (extra, missing) {
        (None, None) => None,
        (Some(extra), None) => Some(format!("{what} {extra} was not asked for")),
        (None, Some(missing)) => Some(format!("{what} {missing} is missing")),
        (Some(extra), Some(missing)) => Some(format!("{what} {extra} instead of {missing}")),
    }
}

/// The certificate says that it may be used for this, and is none that signs others.
pub fn check_usage(leaf: &Leaf, usage: Usage) -> Result<()> {
    if leaf.is_ca {
        return Err(bad("it is the certificate of an authority")
            .advise("use a role for `sign`, not an authority's own certificate"));
    }
    let (server, client) = match usage {
        Usage::Server => (true, false),
        Usage::Client => (false, true),
        Usage::Both => (true, true),
    };
    let missing = match (server && !leaf.server, client && !leaf.client) {
        (false, false) => return Ok(()),
        (true, false) => "servers (server_flag)",
        (false, true) => "clients (client_flag)",
        (true, true) => "servers and clients (server_flag, client_flag)",
    };
    Err(bad(format!("its extended key usage does not allow {missing}"))
        .advise("set that flag of the PKI role to true"))
}

/// It has begun and has not ended.
pub fn check_validity(leaf: &Leaf, now: Timestamp) -> Result<()> {
    let text = if leaf.not_after <= leaf.not_before {
        format!("it ends at {} before it begins at {}", leaf.not_after, leaf.not_before)
    } else if now < leaf.not_before {
        format!("it begins at {}, and it is {now}", leaf.not_before)
    } else if leaf.not_after <= now {
        format!("it ended at {}, and it is {now}", leaf.not_after)
    } else {
        return Ok(());
    };
    Err(Error::new(Code::ValidityWrong, text)
        .advise("compare the clocks of this node and of vault: timedatectl"))
}

/// The key is the one that the certificate was issued for.
pub fn check_key(leaf: &Leaf, material: &Material) -> Result<()> {
    let key = KeyPair::from_pem(material.key.expose())
        .map_err(|_| bad("the key is no private key in PKCS#8 PEM"))?;
    if key.subject_public_key_info() == leaf.public_key {
        return Ok(());
    }
    Err(bad("the certificate is for another key"))
}

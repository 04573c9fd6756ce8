//! What can be seen of a node from outside, at one instant: the published files as a consumer
//! reads them, what the consumer serves, what Vault was asked, what the agent shows. Everything is
//! read and verified here anew, with other code than the agent's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nodeagent::duty::DutyId;
use nodeagent::status::Status;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::consumer::pair;
use super::units::Act;
use super::weather::Weather;

/// What is known of a node at one instant.
#[derive(Debug)]
pub(super) struct Evidence {
    /// The true time.
    pub(super) now: Timestamp,
    /// How far the node's clock is from it.
    pub(super) clock_wrong: SignedDuration,
    /// For how long the node has to do without Vault.
    pub(super) survive: SignedDuration,
    /// When it was fair.
    pub(super) weather: Weather,
    /// Each certificate.
    pub(super) certificates: BTreeMap<&'static str, Certificate>,
    /// What the consumer serves, where it runs.
    pub(super) served: Option<String>,
    /// Pairs that did not fit when the consumer read them.
    pub(super) mismatches: Vec<String>,
    /// Jobs of systemd, oldest first, since the records were last lost.
    pub(super) acts: Vec<Act>,
    /// When the records were last lost.
    pub(super) forgotten: Option<Timestamp>,
    /// When each generation was first seen in force.
    pub(super) commits: Arc<BTreeMap<(String, u64), Timestamp>>,
    /// What Vault was asked in the last hour.
    pub(super) asked: Arc<Vec<(Timestamp, Asked)>>,
    /// What Vault has signed in the last day: the role and when.
    pub(super) signed: Arc<Vec<(Timestamp, String)>>,
    /// How many signatures of a certificate may be asked for in an hour; more than configured
    /// where records were lost or the clock was stepped.
    pub(super) budget: u32,
    /// How often the agent was started in the last hour.
    pub(super) starts: usize,
    /// How many effects were begun in the last hour.
    pub(super) effects: usize,
    /// What anybody may read: the place and the text.
    pub(super) shown: Vec<(String, String)>,
    /// What nobody may.
    pub(super) secrets: Vec<String>,
    /// What the agent says.
    pub(super) status: Option<Status>,
    /// What was asked for while it, or what it must not run beside, was under way.
    pub(super) asked_again: Vec<DutyId>,
    /// The effect that has just ended: how long it took, and its limit.
    pub(super) effect: Option<(DutyId, SignedDuration, Duration)>,
    /// The client nonce as it was first seen, and as it is.
    pub(super) nonces: (Option<String>, Option<String>),
    /// Generations that lie about: published beside the one in force, and kept in the archive.
    pub(super) leftovers: (usize, usize),
}

/// What Vault was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Login,
    Sign,
    Other,
    /// Whatever it was, Vault was sealed.
    Refused,
}

/// One certificate.
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    /// What is published.
    pub(super) found: Found,
    /// The world has torn what is published, and it was not published anew since.
    pub(super) torn: bool,
    /// Since when nothing good is published.
    pub(super) bad_since: Option<Timestamp>,
    /// The end of the rest after a generation was taken back.
    pub(super) rests_until: Option<Timestamp>,
}

/// What is published.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// There is no such file, or it cannot be read, and why.
    #[allow(dead_code, reason = "it is read by whoever reads the report of a broken invariant")]
    Nothing(String),
    /// A leaf.
    Leaf(Leaf),
}

/// A leaf, with what is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) generation: u64,
    pub(super) serial: String,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// The key is the certificate's, in both forms.
    pub(super) fits: Result<(), String>,
    /// An authority of the published bundle signed it, and one that was pinned.
    pub(super) trusted: Result<(), String>,
    /// Names and usage are the node's.
    pub(super) ours: Result<(), String>,
}

impl Certificate {
    pub(super) fn leaf(&self) -> Option<&Leaf> {
        self.found.leaf()
    }
}

impl Found {
    pub(super) fn leaf(&self) -> Option<&Leaf> {
        match self {
            Found::Leaf(leaf) => Some(leaf),
            Found::Nothing(_) => None,
        }
    }
}

/// Reads what is published for a certificate through its `current`.
pub(super) fn found(current: &Path, expected: &Expected<'_>) -> Found {
    match leaf(current, expected) {
        Ok(leaf) => Found::Leaf(leaf),
        Err(text) => Found::Nothing(text),
    }
}

/// What a certificate has to be.
#[derive(Clone, Debug)]
pub(super) struct Expected<'a> {
    /// The roots that were ever pinned.
    pub(super) roots: &'a [String],
    pub(super) common_name: String,
    pub(super) dns: Vec<String>,
    pub(super) ips: Vec<Vec<u8>>,
    pub(super) server: Usage,
}

/// What it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
}

fn leaf(current: &Path, expected: &Expected<'_>) -> Result<Leaf, String> {
    let link = std::fs::read_link(current).map_err(|error| format!("current: {error}"))?;
    let generation = link.to_str().and_then(|to| to.parse().ok());
    let generation = generation.ok_or_else(|| format!("current leads to {}", link.display()))?;
    let read =
        |name: &str| std::fs::read(current.join(name)).map_err(|error| format!("{name}: {error}"));
    let (cert, key, ca, both) =
        (read("cert.pem")?, read("key.pem")?, read("ca.pem")?, read("pair.pem")?);
    let der =
        CertificateDer::from_pem_slice(&cert).map_err(|error| format!("cert.pem: {error}"))?;
    let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
    let fits = pair(&cert, &key).and_then(|_| pair(&both, &both)).map(drop);
    let instant = |at: x509_parser::time::ASN1Time| Timestamp::from_second(at.timestamp());
    Ok(Leaf {
        generation,
        serial: rig::pki::serial_text(parsed.raw_serial()),
        not_before: instant(parsed.validity().not_before).map_err(|error| error.to_string())?,
        not_after: instant(parsed.validity().not_after).map_err(|error| error.to_string())?,
        fits,
        trusted: signed_by_one_of(&parsed, &[ca])
            .and_then(|()| signed_by_one_of(&parsed, expected.roots)),
        ours: ours(&parsed, expected),
    })
}

/// Whether one of the authorities in these bundles signed it.
fn signed_by_one_of(
    leaf: &X509Certificate<'_>,
    bundles: &[impl AsRef<[u8]>],
) -> Result<(), String> {
    let all = bundles.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_ref()));
    // The newest first: mostly it is that one.
    for der in all.flatten().collect::<Vec<_>>().iter().rev() {
        let Ok((_, authority)) = X509Certificate::from_der(der) else { continue };
        if leaf.verify_signature(Some(authority.public_key())).is_ok() {
            return Ok(());
        }
    }
    Err(format!("no authority signed {}", rig::pki::serial_text(leaf.raw_serial())))
}

fn ours(leaf: &X509Certificate<'_>, expected: &Expected<'_>) -> Result<(), String> {
    let common: Vec<_> =
        leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    let names = leaf.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => ips.push(bytes.to_vec()),
            other => return Err(format!("it names {other}")),
        }
    }
    let usage = leaf.extended_key_usage().ok().flatten();
    let usage = usage.map(|usage| (usage.value.server_auth, usage.value.client_auth));
    let wanted = (expected.server == Usage::Server, expected.server == Usage::Client);
    ips.sort();
    let mut wanted_ips = expected.ips.clone();
    wanted_ips.sort();
    match () {
        () if common != [expected.common_name.as_str()] => Err(format!("it is of {common:?}")),
        () if dns != expected.dns => Err(format!("it names {dns:?}")),
        () if ips != wanted_ips => Err(format!("it names the addresses {ips:?}")),
        () if usage != Some(wanted) => Err(format!("its usage is {usage:?}")),
        () => Ok(()),
    }
}

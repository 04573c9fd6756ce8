//! Whether a certificate verifies up to the pinned bundle. The signatures, the path and its
//! constraints are webpki's business, by way of rustls: the same code that verifies TLS peers.
//! What webpki does not ask of an anchor, that it is an authority and is valid, is asked here,
//! and so is whose the certificate is when it is none of ours.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::super::store::Material;
use super::{Authority, Leaf, bad, certificates, instant, shown};
use crate::error::{Code, Error, Result};

/// The longest chain that is walked up to tell whose a certificate is.
const DEPTH: usize = 6;

/// The certificate verifies up to an authority of `pinned` that is valid now. Its own validity is
/// another check's business ([`super::check_validity`]), so an expired one is judged at its end.
pub fn check_chain(material: &Material, pinned: &[Authority], now: Timestamp) -> Result<()> {
    let mut sent = certificates(material.cert.as_bytes())?;
    let leaf = sent.remove(0);
    let read = Leaf::from_parsed(&leaf.parsed()?, leaf.fingerprint.clone())?;
    let judged = now.min(read.not_after).max(read.not_before);
    let case = Case { leaf: &leaf, sent: &sent, pinned, now };
    let Err(error) = case.verify(&read, judged) else {
        return Ok(());
    };
    let mut offered = sent.clone();
    offered.extend_from_slice(&material.issuers);
    Err(case.explain(&offered, error))
}

/// Whether a certificate is one of an authority that may sign others.
pub(super) fn may_sign(authority: &Authority) -> bool {
    let usage = |parsed: &X509Certificate<'_>| match parsed.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    authority.parsed().is_ok_and(|parsed| parsed.is_ca() && usage(&parsed))
}

struct Case<'a> {
    leaf: &'a Authority,
    sent: &'a [Authority],
    pinned: &'a [Authority],
    now: Timestamp,
}

impl Case<'_> {
    /// A path of no intermediate is tried first: then the anchor's own limit does not matter.
    fn verify(&self, leaf: &Leaf, at: Timestamp) -> std::result::Result<(), rustls::Error> {
        let direct = self.verify_with(leaf, &[], at, |_| true);
        if direct.is_ok() || self.sent.is_empty() {
            return direct;
        }
        self.verify_with(leaf, self.sent, at, allows_intermediates)
    }

    fn verify_with(
        &self,
        leaf: &Leaf,
        intermediates: &[Authority],
        at: Timestamp,
        fits: impl Fn(&Authority) -> bool,
    ) -> std::result::Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        for anchor in self.pinned {
            if may_sign(anchor) && is_valid(anchor, self.now) && fits(anchor) {
                // What webpki cannot read cannot have signed anything that it accepts.
                roots.add(der(anchor)).ok();
            }
        }
        if roots.is_empty() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let seconds = u64::try_from(at.as_second()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let chain: Vec<CertificateDer<'_>> = intermediates.iter().map(der).collect();
        verify_path(self.leaf, leaf, (&chain, roots), at)
    }

    /// Why it does not verify, and whose it is.
    fn explain(&self, offered: &[Authority], error: rustls::Error) -> Error {
        if let Some(ended) = self.pinned.iter().find(|ca| signed(ca, self.leaf)) {
            let name = ended.subject();
            if !is_valid(ended, self.now) {
                return Error::new(
                    Code::ValidityWrong,
                    format!("authority {name} is not valid now"),
                )
                .advise("replace the authority in vault, then the pinned bundle");
            }
            return refused(&error);
        }
        match error {
            rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => self.stranger(offered),
            error => refused(&error),
        }
    }

    fn stranger(&self, offered: &[Authority]) -> Error {
        let same_key = |ca: &&Authority| names_key(ca, self.leaf);
        if let Some(ca) = self.pinned.iter().chain(offered).find(same_key)
            && !signed(ca, self.leaf)
        {
            return bad(format!("the signature of authority {} does not verify", ca.subject()));
        }
        let mut path: Vec<&Authority> = Vec::new();
        while let Some(next) = offered.iter().find(|ca| {
            let last = path.last().copied().unwrap_or(self.leaf);
            signed(ca, last) && !path.contains(ca)
        }) {
            path.push(next);
            if path.len() == DEPTH {
                break;
            }
        }
        let told: Vec<String> = path
            .iter()
            .map(|ca| format!("{} (SHA-256 {})", ca.subject(), ca.fingerprint))
            .collect();
        let issuer = if told.is_empty() { self.by_name() } else { told.join(", under ") };
        let text = format!("issued by {issuer}, which is not in the pinned bundle");
        Error::new(Code::IssuerUnknown, text).advise(
            "if the authority was replaced on purpose, add its certificate to the pinned bundle; \
             compare first: openssl x509 -in CA.pem -outform DER | sha256sum",
        )
    }

    /// The issuer as the certificate itself names it, where its own certificate did not come.
    fn by_name(&self) -> String {
        let Ok(parsed) = self.leaf.parsed() else {
            return "?".to_owned();
        };
        let name = shown(&parsed.issuer().to_string());
        match authority_key(&parsed) {
            Some(id) => format!("{name} (key id {})", super::serial(id)),
            None => name,
        }
    }
}

fn verify_path(
    leaf: &Authority,
    read: &Leaf,
    (chain, roots): (&[CertificateDer<'_>], RootCertStore),
    at: UnixTime,
) -> std::result::Result<(), rustls::Error> {
    let provider: CryptoProvider = ring::default_provider();
    if read.client && !read.server {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.into())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        return verifier.verify_client_cert(&der(leaf), chain, at).map(|_| ());
    }
    let algorithms = provider.signature_verification_algorithms.all;
    let (end, roots) = (der(leaf), Arc::new(roots));
    let parsed = ParsedCertificate::try_from(&end)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, chain, at, algorithms)
}

fn refused(error: &rustls::Error) -> Error {
    let text = match error {
        rustls::Error::InvalidCertificate(error) => shown(&error.to_string()),
        error => shown(&error.to_string()),
    };
    bad(format!("the chain does not verify: {text}"))
}

fn der(certificate: &Authority) -> CertificateDer<'_> {
    CertificateDer::from(certificate.der.as_slice())
}

fn is_valid(authority: &Authority, now: Timestamp) -> bool {
    authority.parsed().is_ok_and(|parsed| {
        let validity = parsed.validity();
        let begun = instant(validity.not_before).is_ok_and(|begin| begin <= now);
        begun && instant(validity.not_after).is_ok_and(|end| now < end)
    })
}

/// webpki does not ask an anchor how long a path below it may be.
fn allows_intermediates(anchor: &Authority) -> bool {
    let Ok(parsed) = anchor.parsed() else {
        return false;
    };
    let constraints = parsed.basic_constraints().ok().flatten();
    constraints.is_none_or(|found| found.value.path_len_constraint.is_none_or(|most| most > 0))
}

/// Whether an authority really signed a certificate: its name is there and its key verifies.
fn signed(authority: &Authority, certificate: &Authority) -> bool {
    let (Ok(ca), Ok(parsed)) = (authority.parsed(), certificate.parsed()) else {
        return false;
    };
    ca.subject().as_raw() == parsed.issuer().as_raw()
        && parsed.verify_signature(Some(ca.public_key())).is_ok()
}

/// Whether a certificate names this authority and its very key as its issuer.
fn names_key(authority: &Authority, certificate: &Authority) -> bool {
    let (Ok(ca), Ok(parsed)) = (authority.parsed(), certificate.parsed()) else {
        return false;
    };
    let wanted = authority_key(&parsed);
    ca.subject().as_raw() == parsed.issuer().as_raw()
        && wanted.is_some()
        && wanted == subject_key(&ca)
}

fn authority_key<'a>(parsed: &X509Certificate<'a>) -> Option<&'a [u8]> {
    parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

fn subject_key<'a>(parsed: &X509Certificate<'a>) -> Option<&'a [u8]> {
    parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

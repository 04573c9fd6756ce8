//! What a certificate says, and whether that is what was asked for. Everything here is pure, and
//! reads what it is given as if an enemy had written it: with limits, without trust, never
//! panicking.

mod chain;
mod checks;

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

pub use chain::check_chain;
pub use checks::{check_key, check_names, check_usage, check_validity};

use super::store::Material;
use crate::error::{Code, Error, Result, said};

/// The largest bundle that is read, in bytes: that of a whole browser is smaller.
pub const BUNDLE_LIMIT: usize = 256 << 10;

/// The most certificates in one bundle.
const CERTIFICATES_LIMIT: usize = 256;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The serial number as Vault prints it: `0a:1b:2c`.
    pub serial: String,
    /// The SHA-256 of the whole certificate, in hex.
    pub fingerprint: String,
    /// The common names of the subject; one, if all is well.
    pub common_names: Vec<String>,
    /// The organisations of the subject.
    pub organizations: Vec<String>,
    /// The DNS names.
    pub dns: Vec<String>,
    /// The IP addresses.
    pub ips: Vec<IpAddr>,
    /// The URIs.
    pub uris: Vec<String>,
    /// Subject alternative names of any other kind, for the text of an error.
    pub others: Vec<String>,
    /// The beginning of its validity.
    pub not_before: Timestamp,
    /// The end of its validity.
    pub not_after: Timestamp,
    /// Whether it may be shown by a server.
    pub server: bool,
    /// Whether it may be shown by a client.
    pub client: bool,
    /// Whether it may sign others, which none of ours may.
    pub is_ca: bool,
    /// The public key, as SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

/// A certificate of an authority, or one that was sent as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The certificate in DER.
    der: Vec<u8>,
    /// The SHA-256 of the whole certificate, in hex.
    pub fingerprint: String,
}

impl Leaf {
    /// The leaf of a generation.
    pub fn of(material: &Material) -> Result<Leaf> {
        Leaf::read(material.cert.as_bytes())
    }

    /// The first certificate of a PEM text.
    pub fn read(pem: &[u8]) -> Result<Leaf> {
        let first = certificates(pem)?.swap_remove(0);
        first.parsed().and_then(|parsed| Leaf::from_parsed(&parsed, first.fingerprint.clone()))
    }

    /// What is left of its life; negative when it has expired.
    pub fn left(&self, now: Timestamp) -> SignedDuration {
        now.duration_until(self.not_after)
    }

    fn from_parsed(parsed: &X509Certificate<'_>, fingerprint: String) -> Result<Leaf> {
        let mut leaf = Leaf {
            serial: serial(parsed.raw_serial()),
            fingerprint,
            common_names: texts(parsed.subject().iter_common_name())?,
            organizations: texts(parsed.subject().iter_organization())?,
            dns: Vec::new(),
            ips: Vec::new(),
            uris: Vec::new(),
            others: Vec::new(),
            not_before: instant(parsed.validity().not_before)?,
            not_after: instant(parsed.validity().not_after)?,
            server: false,
            client: false,
            is_ca: false,
            public_key: parsed.public_key().raw.to_vec(),
        };
        // An extension that is there twice is read differently by different readers.
        parsed.extensions_map().map_err(|error| bad(said(&error)))?;
        for extension in parsed.extensions() {
            leaf.take(extension.parsed_extension())?;
        }
        Ok(leaf)
    }

    fn take(&mut self, extension: &ParsedExtension<'_>) -> Result<()> {
        match extension {
            ParsedExtension::SubjectAlternativeName(san) => {
                san.general_names.iter().for_each(|name| self.name(name));
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.server = usage.server_auth;
                self.client = usage.client_auth;
            }
            ParsedExtension::BasicConstraints(constraints) => self.is_ca = constraints.ca,
            ParsedExtension::ParseError { error } => return Err(bad(said(error))),
            _ => {}
        }
        Ok(())
    }

    fn name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(dns) => self.dns.push((*dns).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => match address(bytes) {
                Some(ip) => self.ips.push(ip),
                None => self.others.push(format!("an address of {} bytes", bytes.len())),
            },
            GeneralName::RFC822Name(mail) => self.others.push(format!("email {mail}")),
            other => self.others.push(other.to_string()),
        }
    }
}

impl Authority {
    /// The subject, for texts; escaped and cut, since a stranger chose it.
    pub fn subject(&self) -> String {
        let parsed = self.parsed();
        parsed.map_or_else(|_| "?".to_owned(), |parsed| shown(&parsed.subject().to_string()))
    }

    /// The end of its validity.
    pub fn not_after(&self) -> Result<Timestamp> {
        instant(self.parsed()?.validity().not_after)
    }

    /// Whether it is signed by its own name, as a root is.
    fn is_root(&self) -> bool {
        self.parsed().is_ok_and(|parsed| parsed.subject().as_raw() == parsed.issuer().as_raw())
    }

    fn parsed(&self) -> Result<X509Certificate<'_>> {
        match X509Certificate::from_der(&self.der) {
            Ok(([], parsed)) => Ok(parsed),
            Ok(_) => Err(bad("there are bytes after the certificate")),
            Err(error) => Err(bad(format!("no X.509 certificate: {}", said(&error)))),
        }
    }
}

/// The authorities of a bundle; each has to be one.
pub fn bundle(pem: impl AsRef<[u8]>) -> Result<Vec<Authority>> {
    let found = certificates(pem.as_ref())?;
    if let Some(stranger) = found.iter().find(|found| !chain::may_sign(found)) {
        let text = format!("{} is not a certificate authority", stranger.subject());
        return Err(bad(text).advise("put only certificates of authorities into the bundle"));
    }
    Ok(found)
}

/// The certificates of a PEM text, at least one; other sections are skipped.
pub fn certificates(pem: &[u8]) -> Result<Vec<Authority>> {
    if pem.len() > BUNDLE_LIMIT {
        return Err(bad(format!("more than {BUNDLE_LIMIT} bytes of PEM")));
    }
    let mut found = Vec::new();
    for section in CertificateDer::pem_slice_iter(pem) {
        let der = section.map_err(|error| bad(format!("no PEM: {}", said(&error))))?.to_vec();
        let fingerprint = fingerprint(&der);
        let certificate = Authority { der, fingerprint };
        certificate.parsed()?;
        found.push(certificate);
        if found.len() > CERTIFICATES_LIMIT {
            return Err(bad(format!("more than {CERTIFICATES_LIMIT} certificates")));
        }
    }
    if found.is_empty() {
        return Err(bad("no certificate in it"));
    }
    Ok(found)
}

/// Those of `first`, then those of `second` that are not among them.
pub fn union(first: &[Authority], second: &[Authority]) -> Vec<Authority> {
    let mut all: Vec<Authority> = Vec::new();
    for authority in first.iter().chain(second) {
        if all.iter().all(|known| known.fingerprint != authority.fingerprint) {
            all.push(authority.clone());
        }
    }
    all
}

/// Whether all of these certificates are in a bundle.
pub fn has_all(bundle: &[Authority], wanted: &[Authority]) -> bool {
    let is_there = |one: &Authority| bundle.iter().any(|ca| ca.fingerprint == one.fingerprint);
    wanted.iter().all(is_there)
}

/// What a server sends after its leaf: the certificates of a chain but for roots, each once.
pub fn intermediates(chain: &[Authority]) -> Vec<Authority> {
    union(chain, &[]).into_iter().filter(|certificate| !certificate.is_root()).collect()
}

/// Certificates as PEM text.
pub fn pem(certificates: &[Authority]) -> String {
    use base64::Engine as _;
    use std::fmt::Write as _;
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = base64::engine::general_purpose::STANDARD.encode(&certificate.der);
        for line in encoded.as_bytes().chunks(64) {
            writeln!(text, "{}", String::from_utf8_lossy(line)).ok();
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn bad(text: impl Into<String>) -> Error {
    Error::new(Code::CertificateBad, text)
}

/// At most 100 characters of a text that a stranger chose, control characters escaped.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(100).collect();
    let mark = if cut.len() < text.len() { "…" } else { "" };
    format!("\"{}{mark}\"", cut.escape_debug())
}

fn fingerprint(der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// DER puts a zero before a number whose first bit is set; Vault does not print it.
fn serial(raw: &[u8]) -> String {
    let digits = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let hex: Vec<String> = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.join(":")
}

fn texts<'a>(
    attributes: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Result<Vec<String>> {
    attributes
        .map(|attribute| attribute.as_str().map(str::to_owned))
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| bad(format!("the subject is unreadable: {}", said(&error))))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn instant(time: ASN1Time) -> Result<Timestamp> {
    Timestamp::from_second(time.timestamp()).map_err(|error| bad(said(&error)))
}

#[cfg(test)]
mod tests;

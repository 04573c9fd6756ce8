//! What a certificate signing request asks for, and whether its key is one that a role takes.

use std::net::IpAddr;

use rcgen::{PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use super::super::answer::Refusal;
use super::super::field::Form;

/// The parts of a request that signing needs.
#[derive(Debug, Default)]
pub(super) struct Csr {
    pub(super) common_name: String,
    pub(super) dns: Vec<String>,
    pub(super) emails: Vec<String>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) uris: Vec<String>,
    pub(super) key: Key,
}

/// A public key as rcgen wants it.
#[derive(Debug, Clone)]
pub(super) struct Key {
    bits: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
    family: &'static str,
    size: usize,
}

impl Default for Key {
    fn default() -> Key {
        Key { bits: Vec::new(), algorithm: &rcgen::PKCS_ECDSA_P256_SHA256, family: "ec", size: 256 }
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl Csr {
    /// Reads a request and checks that its sender holds the key.
    pub(super) fn read(text: &str) -> Result<Csr, Refusal> {
        if text.is_empty() {
            return Err(Refusal::bad("\"csr\" is empty"));
        }
        let (_, block) = x509_parser::pem::parse_x509_pem(text.trim().as_bytes())
            .map_err(|_| Refusal::bad("csr contains no data"))?;
        let (_, request) = X509CertificationRequest::from_der(&block.contents)
            .map_err(|_| Refusal::bad("certificate request could not be parsed: asn1"))?;
        request.verify_signature().map_err(|_| Refusal::bad("request signature invalid"))?;
        let info = &request.certification_request_info;
        let common_name = info.subject.iter_common_name().next();
        let mut csr = Csr {
            common_name: common_name.and_then(|name| name.as_str().ok()).unwrap_or("").to_owned(),
            key: key_of(&info.subject_pki)?,
            ..Csr::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| csr.add(name));
            }
        }
        Ok(csr)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(raw) => self.ips.extend(address(raw)),
            _ => {}
        }
    }

    /// Whether the key is of the role's kind and long enough.
    pub(super) fn check_key(&self, role: &Form) -> Result<(), Refusal> {
        let wanted = role.text("key_type");
        if wanted == "any" {
            return Ok(());
        }
        if wanted != self.key.family {
            return Err(Refusal::bad(format!("role requires keys of type {wanted}")));
        }
        let size = self.key.size;
        let bits = usize::try_from(role.number("key_bits")).unwrap_or(0);
        let least = if wanted == "rsa" { bits.max(2048) } else { bits };
        if size < least {
            return Err(Refusal::bad(format!(
                "role requires a minimum of a {least}-bit key, but CSR's key is {size} bits"
            )));
        }
        Ok(())
    }
}

fn address(raw: &[u8]) -> Option<IpAddr> {
    match raw.len() {
        4 => <[u8; 4]>::try_from(raw).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(raw).ok().map(IpAddr::from),
        _ => None,
    }
}

fn key_of(spki: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<Key, Refusal> {
    let refused = || Refusal::bad("certificate request has a key of an unsupported kind");
    let bits = spki.subject_public_key.data.to_vec();
    let parsed = spki.parsed().map_err(|_| refused())?;
    let (algorithm, family, size): (&'static SignatureAlgorithm, _, _) = match &parsed {
        PublicKey::EC(point) => match point.key_size() {
            256 => (&rcgen::PKCS_ECDSA_P256_SHA256, "ec", 256),
            384 => (&rcgen::PKCS_ECDSA_P384_SHA384, "ec", 384),
            _ => return Err(refused()),
        },
        PublicKey::RSA(key) => (&rcgen::PKCS_RSA_SHA256, "rsa", key.key_size()),
        _ if bits.len() == 32 => (&rcgen::PKCS_ED25519, "ed25519", 0),
        _ => return Err(refused()),
    };
    Ok(Key { bits, algorithm, family, size })
}

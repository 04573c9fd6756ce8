//! Requests for certificates, and what the certificates say.

use std::net::IpAddr;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rig::setup::Reply;
use serde_json::Value;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The DER of the first PEM block in a text.
pub(crate) fn der(pem: &str) -> Result<Vec<u8>, String> {
    let (_, block) =
        x509_parser::pem::parse_x509_pem(pem.trim().as_bytes()).map_err(|e| e.to_string())?;
    Ok(block.contents)
}

fn san(name: &str) -> SanType {
    if let Ok(address) = name.parse::<IpAddr>() {
        return SanType::IpAddress(address);
    }
    let text = name.try_into().expect("the case's names are ASCII");
    if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
}

/// A request of a fresh key, PEM; names may be DNS names, addresses and URIs.
pub(crate) fn request(common_name: &str, names: &[&str]) -> String {
    let key = KeyPair::generate().expect("ring makes P-256 keys");
    request_with(&key, common_name, names)
}

/// A request of a given key.
pub(crate) fn request_with(key: &KeyPair, common_name: &str, names: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    if !common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, common_name);
    }
    params.subject_alt_names = names.iter().map(|name| san(name)).collect();
    let request = params.serialize_request(key).expect("a key signs its request");
    request.pem().expect("a request is PEM")
}

/// What a certificate says, as sorted text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) common_name: String,
    pub(crate) organizations: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) server: bool,
    pub(crate) client: bool,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

/// Reads the certificate of a `sign` answer and checks it against the issuer beside it.
pub(crate) fn said(reply: &Reply) -> Result<Said, String> {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let leaf = der(&text(reply.data("certificate")))?;
    let issuer = der(&text(reply.data("issuing_ca")))?;
    let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|e| e.to_string())?;
    let (_, issuer) = X509Certificate::from_der(&issuer).map_err(|e| e.to_string())?;
    leaf.verify_signature(Some(issuer.public_key()))
        .map_err(|error| format!("the certificate is not its issuer's: {error}"))?;
    let parts = |parts: Vec<&str>| parts.into_iter().map(String::from).collect::<Vec<String>>();
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(sans)) = leaf.subject_alternative_name() {
        names.extend(sans.value.general_names.iter().map(name));
    }
    names.sort();
    let usage = leaf.extended_key_usage().ok().flatten().map(|usage| usage.value);
    let subject = leaf.subject();
    let common = subject.iter_common_name().filter_map(|part| part.as_str().ok()).collect();
    Ok(Said {
        common_name: parts(common).join(","),
        organizations: parts(
            subject.iter_organization().filter_map(|part| part.as_str().ok()).collect(),
        ),
        names,
        server: usage.is_some_and(|usage| usage.server_auth),
        client: usage.is_some_and(|usage| usage.client_auth),
        not_before: leaf.validity().not_before.timestamp(),
        not_after: leaf.validity().not_after.timestamp(),
    })
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) => (*text).to_owned(),
        GeneralName::IPAddress(raw) => match raw.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(*raw).unwrap_or_default()).to_string(),
            16 => IpAddr::from(<[u8; 16]>::try_from(*raw).unwrap_or_default()).to_string(),
            _ => "?".into(),
        },
        other => format!("{other:?}"),
    }
}

//! A key made on this node, and the request for a certificate of it. The key is P-256: every
//! consumer reads it, and making one takes less than a millisecond. It never leaves the node.

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};

use crate::config::Names;
use crate::error::{Code, Error, Result};
use crate::secret::Secret;

/// The OID of organizationName, 2.5.4.10.
const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];

/// A new private key (PKCS#8 PEM) and the request (PEM) that has all the names in it: some roles
/// of Vault read the names from the request, others from the parameters beside it.
pub fn make(names: &Names) -> Result<(Secret, String)> {
    let params = params(names)?;
    let fail = |error: rcgen::Error| Error::new(Code::Bug, format!("making a key: {error}"));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
    let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(fail)?;
    Ok((Secret::new(key.serialize_pem()), csr))
}

fn params(names: &Names) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(names)?;
    for name in &names.dns {
        params.subject_alt_names.push(SanType::DnsName(ascii("DNS name", name)?));
    }
    for text in &names.ips {
        let ip = text.parse().map_err(|_| wrong("address", text))?;
        params.subject_alt_names.push(SanType::IpAddress(ip));
    }
    for uri in &names.uris {
        params.subject_alt_names.push(SanType::URI(ascii("URI", uri)?));
    }
    Ok(params)
}

/// The library keeps one value per attribute type, so that a second organisation goes in under
/// its bare OID and a third has no place.
fn subject(names: &Names) -> Result<DistinguishedName> {
    let mut subject = DistinguishedName::new();
    let kinds = [DnType::OrganizationName, DnType::CustomDnType(ORGANIZATION.to_vec())];
    if names.organizations.len() > kinds.len() {
        let text = format!("{} organisations, two are possible", names.organizations.len());
        return Err(Error::new(Code::Config, text).advise("name at most two organisations"));
    }
    for (kind, organization) in kinds.into_iter().zip(&names.organizations) {
        subject.push(kind, organization.as_str());
    }
    if !names.common_name.is_empty() {
        subject.push(DnType::CommonName, names.common_name.as_str());
    }
    Ok(subject)
}

fn ascii(what: &str, text: &str) -> Result<Ia5String> {
    Ia5String::try_from(text).map_err(|_| wrong(what, text))
}

fn wrong(what: &str, text: &str) -> Error {
    Error::new(Code::Config, format!("{text:?} is no {what}"))
}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::pem::parse_x509_pem;
    use x509_parser::prelude::FromDer;

    use super::*;

    fn names() -> Names {
        Names {
            common_name: "system:node:i-0abc".into(),
            organizations: vec!["system:nodes".into(), "second".into()],
            dns: vec!["node.example".into()],
            ips: vec!["10.0.0.1".into(), "fd00::1".into()],
            uris: vec!["spiffe://example/node".into()],
        }
    }

    #[test]
    fn the_request_has_all_the_names_and_is_signed_by_the_key() {
        let (_, csr) = make(&names()).unwrap();
        let (_, pem) = parse_x509_pem(csr.as_bytes()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        request.verify_signature().unwrap();
        let info = &request.certification_request_info;
        let subject = info.subject.to_string();
        assert_eq!(subject, "O=system:nodes, O=second, CN=system:node:i-0abc");
        let extensions = format!("{:?}", request.requested_extensions().unwrap().next());
        for name in ["node.example", "[10, 0, 0, 1]", "spiffe://example/node"] {
            assert!(extensions.contains(name), "{name} in {extensions}");
        }
    }

    #[test]
    fn every_key_is_another_and_none_is_shown() {
        let (first, _) = make(&names()).unwrap();
        let (second, _) = make(&names()).unwrap();
        assert_ne!(first.expose(), second.expose());
        assert!(first.expose().starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(format!("{first:?}"), "Secret(..)");
    }

    #[test]
    fn names_that_no_certificate_can_hold_are_told() {
        let three = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let cases = [
            Names { dns: vec!["knöten".into()], ..names() },
            Names { ips: vec!["10.0.0".into()], ..names() },
            Names { uris: vec!["spiffe://é".into()], ..names() },
            Names { organizations: three, ..names() },
        ];
        for names in cases {
            assert_eq!(make(&names).unwrap_err().code(), Code::Config, "{names:?}");
        }
    }
}

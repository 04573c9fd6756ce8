//! Instance identity documents and their two signatures, as the metadata service serves them:
//! `signature` is bare SHA-256 with RSA, `rsa2048` is PKCS #7 around the document. The DER is
//! written by hand because it is one fixed shape of eleven elements.

use std::sync::OnceLock;

use base64::prelude::{BASE64_STANDARD, Engine};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rsa::pkcs8::EncodePrivateKey;
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::Instance;

const OID_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const OID_SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const OID_CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
const OID_MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
const OID_SIGNING_TIME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x05];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const NULL: u8 = 0x05;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Constructed and context-specific, number 0.
const CONTEXT_0: u8 = 0xa0;

/// The document of an instance, laid out as AWS lays it out; no newline at its end.
#[must_use]
pub fn identity_document(instance: &Instance) -> String {
    let spec = &instance.spec;
    let fields = [
        ("accountId", Some(spec.account.clone())),
        ("architecture", Some("x86_64".into())),
        ("availabilityZone", Some(spec.availability_zone.clone())),
        ("billingProducts", None),
        ("devpayProductCodes", None),
        ("marketplaceProductCodes", None),
        ("imageId", Some(spec.image_id.clone())),
        ("instanceId", Some(instance.id.clone())),
        ("instanceType", Some(spec.instance_type.clone())),
        ("kernelId", None),
        ("pendingTime", Some(aws_time(instance.pending_time))),
        ("privateIp", Some(instance.private_ip.to_string())),
        ("ramdiskId", None),
        ("region", Some(spec.region.clone())),
        ("version", Some("2017-09-30".into())),
    ];
    let lines: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("  \"{name}\" : {}", serde_json::json!(value)))
        .collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}

/// RFC 3339 to the second, as AWS writes times.
#[must_use]
pub fn aws_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The model's RSA-2048 key and the certificate that stands for AWS' own.
pub struct Signer {
    key: RsaKeyPair,
    certificate_pem: String,
    /// The certificate's issuer and serial number, in DER, by which it is found.
    issuer_and_serial: Vec<u8>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(..)")
    }
}

impl Signer {
    /// The one of this process; its key is made at the first use, in about a second.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Signer> = OnceLock::new();
        SHARED.get_or_init(Self::generate)
    }

    /// One with a key of its own, which no Vault was told of.
    #[must_use]
    pub fn generate() -> Self {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048)
            .expect("2048 is a size that RSA keys may have");
        let pkcs8 = key.to_pkcs8_der().expect("a fresh key encodes");
        let certificate_key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(pkcs8.as_bytes()),
            &rcgen::PKCS_RSA_SHA256,
        )
        .expect("ring takes PKCS #8 RSA keys");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "US");
        params.distinguished_name.push(DnType::OrganizationName, "Amazon Web Services LLC (model)");
        let certificate = params.self_signed(&certificate_key).expect("the key signs itself");
        Self {
            key: RsaKeyPair::from_pkcs8(pkcs8.as_bytes()).expect("a fresh key is good"),
            certificate_pem: certificate.pem(),
            issuer_and_serial: issuer_and_serial(certificate.der()),
        }
    }

    /// The certificate that verifies both forms.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What `dynamic/instance-identity/signature` serves for a document.
    #[must_use]
    pub fn signature(&self, document: &[u8]) -> String {
        wrapped(&self.sign(document))
    }

    /// What `dynamic/instance-identity/rsa2048` serves for a document.
    #[must_use]
    pub fn rsa2048(&self, document: &[u8], now: Timestamp) -> String {
        self.rsa2048_showing(document, document, now)
    }

    /// The same with another content put in place of the signed one, for lies.
    pub(super) fn rsa2048_showing(&self, signed: &[u8], shown: &[u8], now: Timestamp) -> String {
        let attributes = signed_attributes(signed, now);
        let signature = self.sign(&der(SET, &[&attributes]));
        let signer = der(
            SEQUENCE,
            &[
                &der(INTEGER, &[&[1]]),
                &self.issuer_and_serial,
                &algorithm(OID_SHA256),
                &der(CONTEXT_0, &[&attributes]),
                &algorithm(OID_RSA),
                &der(OCTET_STRING, &[&signature]),
            ],
        );
        let content = der(CONTEXT_0, &[&der(OCTET_STRING, &[shown])]);
        let signed_data = der(
            SEQUENCE,
            &[
                &der(INTEGER, &[&[1]]),
                &der(SET, &[&algorithm(OID_SHA256)]),
                &der(SEQUENCE, &[&der(OID, &[OID_DATA]), &content]),
                &der(SET, &[&signer]),
            ],
        );
        let outer = der(CONTEXT_0, &[&signed_data]);
        wrapped(&der(SEQUENCE, &[&der(OID, &[OID_SIGNED_DATA]), &outer]))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.key.public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        self.key
            .sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
            .expect("a 2048-bit key signs SHA-256");
        signature
    }
}

/// Content type, signing time and digest, in DER's order of a SET: by their encoding, and so here
/// by their length.
fn signed_attributes(document: &[u8], now: Timestamp) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, document);
    let time = now.strftime("%y%m%d%H%M%SZ").to_string();
    let attribute =
        |oid: &[u8], value: Vec<u8>| der(SEQUENCE, &[&der(OID, &[oid]), &der(SET, &[&value])]);
    let attributes = [
        attribute(OID_CONTENT_TYPE, der(OID, &[OID_DATA])),
        attribute(OID_SIGNING_TIME, der(UTC_TIME, &[time.as_bytes()])),
        attribute(OID_MESSAGE_DIGEST, der(OCTET_STRING, &[digest.as_ref()])),
    ];
    attributes.concat()
}

fn algorithm(oid: &[u8]) -> Vec<u8> {
    der(SEQUENCE, &[&der(OID, &[oid]), &der(NULL, &[])])
}

/// One element of a tag and the joined parts as its content.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut element = vec![tag];
    match length {
        [] => element.push(0),
        [short @ 0..=0x7f] => element.push(*short),
        long => {
            element.push(0x80 | u8::try_from(long.len()).expect("at most eight bytes"));
            element.extend_from_slice(long);
        }
    }
    element.extend_from_slice(&content);
    element
}

fn issuer_and_serial(certificate: &[u8]) -> Vec<u8> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).expect("a fresh certificate parses");
    der(SEQUENCE, &[parsed.issuer().as_raw(), &der(INTEGER, &[parsed.raw_serial()])])
}

/// Base64 in lines of 64, as the metadata service wraps it; no newline at the end.
fn wrapped(bytes: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(bytes);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    fn unwrapped(text: &str) -> Vec<u8> {
        assert!(text.lines().all(|line| line.len() <= 64));
        BASE64_STANDARD.decode(text.replace('\n', "")).expect("base64")
    }

    fn verifies(signer: &Signer, message: &[u8], signature: &[u8]) -> bool {
        let pem = x509_parser::pem::parse_x509_pem(signer.certificate_pem().as_bytes());
        let pem = pem.expect("a PEM").1;
        let certificate = pem.parse_x509().expect("a certificate");
        let key = &certificate.public_key().subject_public_key.data;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, signature).is_ok()
    }

    #[test]
    fn lengths_are_short_up_to_127_and_long_above() {
        assert_eq!(der(4, &[]), [4, 0]);
        assert_eq!(der(4, &[&[7; 127]])[..2], [4, 127]);
        assert_eq!(der(4, &[&[7; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(der(4, &[&[7; 256]])[..4], [4, 0x82, 1, 0]);
    }

    #[test]
    fn both_forms_sign_the_document_and_nothing_else() {
        let signer = Signer::shared();
        let document = b"{\"instanceId\":\"i-1\"}";
        let bare = unwrapped(&signer.signature(document));
        assert!(verifies(signer, document, &bare));
        assert!(!verifies(signer, b"{\"instanceId\":\"i-2\"}", &bare));

        let now = "2026-11-21T12:00:00Z".parse().expect("a timestamp");
        let pkcs7 = unwrapped(&signer.rsa2048(document, now));
        let attributes = signed_attributes(document, now);
        let holds = |part: &[u8]| pkcs7.windows(part.len()).any(|window| window == part);
        assert!(holds(&der(OCTET_STRING, &[document])) && holds(&attributes));
        let signature = &pkcs7[pkcs7.len() - 256..];
        assert!(verifies(signer, &der(SET, &[&attributes]), signature));
    }
}

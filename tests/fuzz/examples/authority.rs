//! Makes the certificates that the targets know, with keys that are forgotten at the end:
//! `cargo run --manifest-path tests/fuzz/Cargo.toml --example authority`. Only what is public is
//! written, so that nobody, and no fuzzer, can sign another one.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

fn main() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = authority("fuzz root", None);
    let middle = authority("fuzz issuing", Some(&root));
    let server = leaf(&root, ExtendedKeyUsagePurpose::ServerAuth, 1);
    let client = leaf(&middle, ExtendedKeyUsagePurpose::ClientAuth, 2);
    let stranger = leaf(&authority("fuzz stranger", None), ExtendedKeyUsagePurpose::ServerAuth, 3);
    let write = |path: &str, bytes: &[u8]| fs::write(here.join(path), bytes).expect("written");
    write("certificates/ca.pem", root.pem().as_bytes());
    write("certificates/server.pem", pem(&server).as_bytes());
    write("certificates/client.pem", pem(&client).as_bytes());
    let chain = [&client[..], middle.der()].concat();
    let made = [root.der(), &chain[..], &server, &stranger].map(|der| STANDARD.encode(der) + "\n");
    let corpus = "corpus/certificates";
    write(&format!("{corpus}/made.base64"), made.concat().as_bytes());
    write(&format!("{corpus}/bundle.pem"), [root.pem(), middle.pem()].concat().as_bytes());
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

fn authority<'a>(
    name: &str,
    by: Option<&CertifiedIssuer<'a, KeyPair>>,
) -> CertifiedIssuer<'a, KeyPair> {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    let made = match by {
        None => CertifiedIssuer::self_signed(params, key),
        Some(by) => CertifiedIssuer::signed_by(params, key, by),
    };
    made.expect("a certificate")
}

fn leaf(by: &CertifiedIssuer<'_, KeyPair>, usage: ExtendedKeyUsagePurpose, serial: u64) -> Vec<u8> {
    let mut params = params("system:node:i-0abc");
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.serial_number = Some(serial.into());
    params.subject_alt_names = vec![
        SanType::DnsName("node.example".try_into().expect("a name")),
        SanType::IpAddress([10, 0, 0, 1].into()),
        SanType::URI("spiffe://example/node".try_into().expect("a name")),
    ];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("a key");
    params.signed_by(&key, by).expect("a certificate").der().to_vec()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 11, 1);
    params.not_after = date_time_ymd(2126, 11, 1);
    params
}

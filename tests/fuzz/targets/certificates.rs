//! Certificates, bundles and keys, as an enemy may send them: read or refused, never more. What
//! verifies up to the pinned authority says what the authority signed, down to each name; what is
//! written is read again; and of a key nothing is told.
//!
//! An input is certificates in DER, one behind the other: the leaf, then what was sent with it; or
//! a PEM text; or the line `key` and a key in PEM.

#![no_main]

use std::cell::LazyCell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use nodeagent::config::bundle::last_end;
use nodeagent::config::{Names, Usage};
use nodeagent::duty::certs::leaf::{self, Authority, Leaf};
use nodeagent::duty::certs::store::Material;
use nodeagent::error::{Code, Error};
use nodeagent::secret::Secret;
use nodeagent::wire::http::{ClientIdentity, Http, Limits, Peer, Trust};
use nodeagent_fuzz::{assert_error, assert_hides, assert_line, now};
use rcgen::KeyPair;

const CA: &[u8] = include_bytes!("../certificates/ca.pem");
const SERVER: &[u8] = include_bytes!("../certificates/server.pem");
const CLIENT: &[u8] = include_bytes!("../certificates/client.pem");

const PEER: Peer = Peer {
    unreachable: Code::VaultUnreachable,
    failing: Code::VaultFailing,
    denied: Code::VaultUnreachable,
};

/// What there is once.
struct Known {
    pinned: Vec<Authority>,
    /// All that the authority, or whom it let sign, has ever signed.
    signed: Vec<Leaf>,
    /// A key that no certificate is for.
    key: String,
}

thread_local! {
    static KNOWN: LazyCell<Known> = LazyCell::new(|| Known {
        pinned: leaf::bundle(CA).expect("a bundle"),
        signed: [SERVER, CLIENT].map(|pem| Leaf::read(pem).expect("a leaf")).into(),
        key: KeyPair::generate().expect("a key").serialize_pem(),
    });
}

fuzz_target!(
    init: KNOWN.with(|known| nodeagent_fuzz::seed("key", format!("key\n{}", known.key).as_bytes())),
    |bytes: &[u8]| KNOWN.with(|known| certificates(known, bytes))
);

fn certificates(known: &Known, bytes: &[u8]) {
    if let Some(text) = bytes.strip_prefix(b"key\n") {
        return key(known, &String::from_utf8_lossy(text));
    }
    if bytes.starts_with(b"-----") {
        return text(known, bytes);
    }
    let mut parts = split(bytes).into_iter();
    let first = pem(parts.next().unwrap_or_default());
    let chain: Vec<String> = parts.map(pem).collect();
    text(known, first.as_bytes());
    answer(known, &first, &chain, &known.pinned);
    if let Ok(pinned) = leaf::bundle(chain.concat()) {
        // One that a stranger pinned: then nothing is known of what it signed.
        let key = Secret::new(known.key.clone());
        if let Ok(material) = Material::new(&first, &chain, key, &pinned) {
            tell(leaf::check_chain(&material, &pinned, now()));
        }
    }
}

/// A certificate that was answered, and what came with it.
fn answer(known: &Known, first: &str, chain: &[String], pinned: &[Authority]) {
    let key = Secret::new(known.key.clone());
    let material = match Material::new(first, chain, key, pinned) {
        Ok(material) => material,
        Err(error) => return assert_error(&error, 500),
    };
    let Ok(read) = Leaf::of(&material) else {
        return;
    };
    assert_line("a serial", &read.serial, 3 * first.len());
    tell(leaf::check_key(&read, &material));
    assert!(leaf::check_key(&read, &material).is_err(), "a certificate for a key of ours");
    let names = tell(leaf::check_names(&read, &names()));
    let usages = [Usage::Server, Usage::Client, Usage::Both].map(|usage| {
        let allowed = tell(leaf::check_usage(&read, usage));
        assert!(!(allowed && read.is_ca), "an authority's own");
        allowed
    });
    assert_eq!(usages[2], usages[0] && usages[1]);
    let valid = tell(leaf::check_validity(&read, now()));
    assert_eq!(valid, read.not_before <= now() && now() < read.not_after);
    if tell(leaf::check_chain(&material, pinned, now())) {
        let same = known.signed.iter().any(|known| same(known, &read));
        assert!(same, "nobody signed this: {read:?}");
        assert!(names && valid, "what was signed has these names, and is valid");
    }
}

fn same(known: &Leaf, read: &Leaf) -> bool {
    let read = Leaf { fingerprint: known.fingerprint.clone(), ..read.clone() };
    read == *known
}

/// The names that both have that were signed.
fn names() -> Names {
    Names {
        common_name: "system:node:i-0abc".into(),
        organizations: vec!["system:nodes".into()],
        dns: vec!["node.example".into()],
        ips: vec!["10.0.0.1".into()],
        uris: vec!["spiffe://example/node".into()],
    }
}

fn text(known: &Known, bytes: &[u8]) {
    if let Err(fault) = last_end(bytes) {
        assert_line("a fault of a bundle", &fault, 500);
    }
    if let Err(error) = Http::new(Limits::default(), &Trust::Pinned(bytes.to_vec()), PEER) {
        assert_error(&error, 500);
    }
    if let Err(error) = leaf::bundle(bytes) {
        assert_error(&error, 500);
    }
    match leaf::certificates(bytes) {
        Err(error) => assert_error(&error, 500),
        Ok(found) => {
            let written = leaf::pem(&found);
            let again = leaf::certificates(written.as_bytes()).expect("it was written");
            assert_eq!(again, found);
            assert_eq!(leaf::pem(&again), written);
            let once = leaf::union(&found, &found);
            assert_eq!(leaf::union(&once, &once), once);
            assert!(leaf::intermediates(&found).len() <= once.len());
            for authority in &found {
                assert_line("a subject", &authority.subject(), 1100);
                authority.not_after().ok();
            }
            answer(known, &String::from_utf8_lossy(bytes), &[], &known.pinned);
        }
    }
}

/// A key: nothing that was signed is for it, and whatever is said of it does not say it.
fn key(known: &Known, text: &str) {
    let cert_pem = String::from_utf8_lossy(SERVER).into_owned();
    let secret = Secret::new(text.to_owned());
    let told = |error: Error| {
        assert_error(&error, 500);
        let shown = format!("{error:#} {}", error.advice().unwrap_or_default());
        text.lines().filter(|line| is_body(line)).for_each(|line| assert_hides(line, 24, &shown));
    };
    let material = Material::new(&cert_pem, &[], secret.clone(), &known.pinned).expect("it is one");
    told(leaf::check_key(&known.signed[0], &material).expect_err("nobody has its key"));
    told(material.check().expect_err("nobody has its key"));
    let identity = ClientIdentity { cert_pem, key_pem: secret };
    if let Err(error) = Http::with_identity(Limits::default(), &Trust::Plain, Some(&identity), PEER)
    {
        told(error);
    }
}

/// Whether a line may be of a key, and not a word of an error that was made up to be hit.
fn is_body(line: &str) -> bool {
    line.len() > 40
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

/// Whether it is well; what is wrong is told in a line.
fn tell(checked: Result<(), Error>) -> bool {
    match checked {
        Ok(()) => true,
        Err(error) => {
            assert_error(&error, 4000);
            false
        }
    }
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

/// Cuts what stands one behind the other, by the length that each says it has.
fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while !bytes.is_empty() && parts.len() < 8 {
        let length = match bytes {
            [_, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
            [_, 0x81, length, ..] => 3 + usize::from(*length),
            [_, length, ..] => 2 + usize::from(*length),
            _ => bytes.len(),
        };
        let (part, rest) = bytes.split_at(length.min(bytes.len()));
        parts.push(part);
        bytes = rest;
    }
    parts
}

//! What the metadata service answers: the document of an instance and the PKCS#7 that signs it.
//! What is believed is what was signed, its id can be a file's name, and an error is one short
//! line.
//!
//! An input that begins as a SEQUENCE of BER is a signed message beside a document that is well;
//! one that begins with `raw` is the answer to the first request as it is on the wire; one with a
//! line `==` is a document and the content of a message; any other is both.

#![no_main]

use std::cell::LazyCell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use nodeagent::wire::imds::{Imds, SignedDocument};
use nodeagent_fuzz::server::{LIMITS, Server, answer};
use nodeagent_fuzz::{assert_error, sections};

const DOCUMENT: &[u8] = include_bytes!("../corpus/imds_document/document.json");
const SESSION: &[u8] = b"AQAEABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789==";

thread_local! {
    static SERVER: LazyCell<Server> = LazyCell::new(Server::start);
}

fuzz_target!(|bytes: &[u8]| SERVER.with(|server| imds_document(server, bytes)));

fn imds_document(server: &Server, bytes: &[u8]) {
    let session = answer(200, &[], SESSION);
    if let Some(raw) = bytes.strip_prefix(b"raw\n") {
        ask(server, vec![raw.to_vec(), raw.to_vec(), raw.to_vec()]).ok();
        ask(server, vec![session, raw.to_vec(), raw.to_vec()]).ok();
        return;
    }
    let split = sections(bytes, "");
    let (document, message) = match (bytes.first(), &split[..]) {
        (Some(0x30), _) => (DOCUMENT, bytes.to_vec()),
        (_, [(_, document), (_, content), ..]) => (*document, message(content)),
        _ => (bytes, message(bytes)),
    };
    let signed = STANDARD.encode(&message).into_bytes();
    let answers = vec![session, answer(200, &[], &signed), answer(200, &[], document)];
    let Ok(found) = ask(server, answers) else {
        return;
    };
    assert_eq!(STANDARD.decode(found.pkcs7.expose()).ok(), Some(message), "another proof");
    assert!(!format!("{found:?}").contains(found.pkcs7.expose()), "the proof is shown");
    // In what it does not use the agent takes escapes that are none.
    let Ok(told) = serde_json::from_slice::<serde_json::Value>(document) else {
        return;
    };
    assert_eq!(told["instanceId"], found.document.instance_id);
    assert_eq!(told["accountId"], found.document.account_id);
    assert_eq!(told["imageId"], found.document.image_id);
}

fn ask(server: &Server, answers: Vec<Vec<u8>>) -> Result<SignedDocument, ()> {
    let imds = Imds::new(&server.url(), LIMITS).expect("a client");
    let found = server.answering(answers, imds.signed_document());
    let found = found.map_err(|error| assert_error(&error, 600))?;
    let id = &found.document.instance_id;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    assert!((1..=64).contains(&id.len()) && id.bytes().all(plain), "{id:?} is a file's name");
    Ok(found)
}

/// A signed message in DER around a content, without a signature.
fn message(content: &[u8]) -> Vec<u8> {
    let oid = [0x06, 0x01, 0x2a];
    let encapsulated = [&oid[..], &wrap(0xa0, &wrap(0x04, content))].concat();
    let data = [&[0x02, 0x01, 0x01, 0x31, 0x00][..], &wrap(0x30, &encapsulated)].concat();
    let info = [&oid[..], &wrap(0xa0, &wrap(0x30, &data))].concat();
    wrap(0x30, &info)
}

fn wrap(tag: u8, inside: &[u8]) -> Vec<u8> {
    let length = u32::try_from(inside.len()).expect("a short input").to_be_bytes();
    [&[tag, 0x84], &length[..], inside].concat()
}

//! What Vault answers, or what stands before it: whatever it is, a call ends with what it asked for
//! or with an error of one short line, and no token is in that line.
//!
//! An input is a line `CALL STATUS TYPE RETRY-AFTER LOCATION`, of which the end may be left out,
//! and the body; or the line `raw CALL` and an answer as it is on the wire. `%TOKEN%` and `%NONCE%`
//! in it become what the agent shows.

#![no_main]

use std::cell::LazyCell;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nodeagent::error::Error;
use nodeagent::secret::Secret;
use nodeagent::wire::vault::{Auth, Login, SignRequest, Signed, Vault, VaultOptions};
use nodeagent_fuzz::server::{LIMITS, Server, answer};
use nodeagent_fuzz::{assert_error, assert_hides, now};

/// In the form of Vault's own.
const TOKEN: &str = "hvs.CAESIGm0YnVzdGVycyBhcmUgbm90IHNlY3JldHMgaGVyZQ";
const NONCE: &str = "7d0ad2f4-4c4f-4a7e-9a4b-5c3f1f2e6b11";
/// As many letters of a secret are not shown.
const WINDOW: usize = 20;

thread_local! {
    static SERVER: LazyCell<Server> = LazyCell::new(Server::start);
}

fuzz_target!(|bytes: &[u8]| SERVER.with(|server| vault_answers(server, bytes)));

fn vault_answers(server: &Server, bytes: &[u8]) {
    if [TOKEN, NONCE].iter().any(|secret| holds_part(bytes, secret)) {
        return;
    }
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (head, body) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    let head = String::from_utf8_lossy(head);
    let mut words = head.split(' ');
    let mut next = || words.next().unwrap_or_default();
    let first = next();
    let body = fill(body);
    let (call, answer) = match first {
        "raw" => (next(), body),
        call => {
            let status = next().parse::<u16>().unwrap_or(200).clamp(100, 999);
            let kind = Some(next()).filter(|kind| !kind.is_empty());
            let headers = [
                ("Content-Type", kind.unwrap_or("application/json")),
                ("Retry-After", next()),
                ("Location", next()),
                ("Date", "Sun, 29 Nov 2026 12:00:00 GMT"),
            ];
            (call, answer(status, &headers, &body))
        }
    };
    let options = VaultOptions {
        address: server.url(),
        ca_pem: None,
        namespace: None,
        limits: LIMITS,
        stamp: Arc::new(|| (now(), Duration::from_secs(1000))),
    };
    let vault = Vault::new(options).expect("a client");
    if let Err(error) = server.answering(vec![answer], ask(&vault, call)) {
        assert_error(&error, 700);
        let shown = format!("{error:#} {}", error.advice().unwrap_or_default());
        assert_hides(TOKEN, WINDOW, &shown);
        if call == "login" {
            assert_hides(NONCE, WINDOW, &shown);
        }
        assert!(error.wait().is_none_or(|wait| wait >= Duration::ZERO));
    }
    if let Some(seen) = vault.observed() {
        seen.skew();
    }
}

fn fill(body: &[u8]) -> Vec<u8> {
    let mut filled = body.to_vec();
    for (mark, secret) in [("%TOKEN%", TOKEN), ("%NONCE%", NONCE)] {
        while let Some(at) = place(&filled, mark.as_bytes()) {
            filled.splice(at..at + mark.len(), secret.bytes());
        }
    }
    filled
}

/// Whether an input holds a piece of a secret by itself: libFuzzer learns one from the comparison
/// that looks for it, and of what a stranger has made up nothing can be hidden.
fn holds_part(bytes: &[u8], secret: &str) -> bool {
    secret.as_bytes().windows(WINDOW).any(|part| place(bytes, part).is_some())
}

fn place(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|found| found == part)
}

async fn ask(vault: &Vault, call: &str) -> Result<(), Error> {
    let token = Secret::new(TOKEN.into());
    match call {
        "login" => {
            let login = Login::Ec2 {
                role: "worker".into(),
                pkcs7: Secret::new("MIIB".into()),
                nonce: Secret::new(NONCE.into()),
                instance_id: "i-0abc".into(),
            };
            authenticated(&vault.login("aws", &login).await?);
        }
        "renew" => authenticated(&vault.renew_self(&token, Duration::from_secs(3600)).await?),
        "lookup" => assert_hides(TOKEN, 20, &format!("{:?}", vault.lookup_self(&token).await?.ttl)),
        "revoke" => vault.revoke_self(&token).await?,
        "health" => drop(vault.health().await?),
        "kv-read" => {
            if let Some(kept) = vault.kv_read(&token, "kv", "shared").await? {
                let object: serde_json::Value =
                    serde_json::from_str(kept.data.expose()).expect("JSON");
                assert!(object.is_object(), "what was read is no object");
                assert_eq!(kept.data.expose(), object.to_string());
            }
        }
        "kv-create" => {
            let data = Secret::new(r#"{"key":"value"}"#.into());
            vault.kv_create(&token, "kv", "shared", &data).await?;
        }
        _ => signed(&vault.sign(&token, "pki", "kubelet", &request()).await?),
    }
    Ok(())
}

fn request() -> SignRequest {
    SignRequest {
        csr_pem: "-----BEGIN CERTIFICATE REQUEST-----\n".into(),
        common_name: "system:node:i-0abc".into(),
        dns: vec!["node.example".into()],
        ips: vec![[10, 0, 0, 1].into()],
        uris: Vec::new(),
        ttl: Duration::from_secs(86_400),
    }
}

/// A token is one, it is not shown, and a nonce that Vault made is kept from everybody.
fn authenticated(auth: &Auth) {
    assert!(!auth.token.expose().is_empty());
    assert!(!auth.metadata.contains_key("nonce"));
    assert!(format!("{auth:?}").contains("token: Secret(..)"));
}

/// PEM texts end with one newline each, so that they can stand in one file.
fn signed(signed: &Signed) {
    for pem in signed.chain_pem.iter().chain([&signed.certificate_pem]) {
        assert!(pem.ends_with('\n') && !pem.ends_with("\n\n"), "{pem:?}");
    }
    assert!(!signed.chain_pem.is_empty());
}

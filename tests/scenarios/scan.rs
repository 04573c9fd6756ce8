//! Searching for secrets where they must not be. What is searched for is each secret in the forms
//! that a slip gives it: as it is, in hexadecimal, in base64 at any place of a longer text, a key
//! also by the lines of its PEM. What is searched is given by the story: a map of texts by their
//! place, or one text after another where there are too many to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;

/// Shorter than this it is no secret, and found everywhere.
const SHORTEST: usize = 20;

/// In front of the number that is the secret of a key on P-256, in PKCS#8 and SEC 1: version 1 and
/// 32 bytes.
const SCALAR: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];

/// What must not be found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets {
    /// What to look for, and what it is.
    needles: BTreeMap<Vec<u8>, String>,
}

impl Secrets {
    /// What a node keeps to itself: token, nonce, and the keys at these paths.
    pub(crate) fn of_node(read: impl Fn(&str) -> String, instance: &str, keys: &[&str]) -> Secrets {
        let mut secrets = Secrets::default();
        let session: Value = serde_json::from_str(&read("/run/nodeagent/token")).expect("JSON");
        secrets.add("token", session["token"].as_str().expect("a token"));
        let nonce = read(&format!("/var/lib/nodeagent/nonce/aws/{instance}"));
        secrets.add("nonce", nonce.trim());
        keys.iter().for_each(|path| secrets.add_key("key", &read(path)));
        secrets
    }

    /// A secret that is a text.
    pub(crate) fn add(&mut self, what: &str, secret: &str) {
        assert!(secret.len() >= SHORTEST, "the {what} is short");
        self.add_bytes(what, secret.as_bytes());
    }

    /// A key: its lines, and the number that all of it is about.
    pub(crate) fn add_key(&mut self, what: &str, pem: &str) {
        let body: Vec<&str> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(body.concat()).expect("the body of PEM is base64");
        let at = der.windows(SCALAR.len()).position(|part| part == SCALAR);
        let start = at.expect("a key on P-256") + SCALAR.len();
        self.add_bytes(what, &der[start..start + 32]);
        // The first line begins as every such key does, and is another from its 49th letter on.
        for line in body.iter().filter(|line| line.len() >= SHORTEST) {
            self.add_bytes(what, line.as_bytes());
        }
    }

    /// What secrets look like, whoever they belong to.
    pub(crate) fn add_look(&mut self, look: &str) {
        self.needles.insert(look.as_bytes().to_vec(), format!("`{look}`"));
    }

    /// What the other has, too.
    pub(crate) fn extend(&mut self, other: Secrets) {
        self.needles.extend(other.needles);
    }

    fn add_bytes(&mut self, what: &str, secret: &[u8]) {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let forms = [secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
        let embedded = (0..3).flat_map(|before| {
            [&STANDARD, &URL_SAFE].map(|kind| {
                let padded = [&[0; 3][..before], secret].concat();
                let text = kind.encode(&padded);
                // The letters that what stands before and behind has no part in.
                let ends = padded.len() * 8 / 6;
                text.as_bytes()[(before * 8).div_ceil(6)..ends].to_vec()
            })
        });
        for form in forms.into_iter().chain(embedded) {
            self.needles.insert(form, what.to_owned());
        }
    }

    /// All of them at once.
    pub(crate) fn scanner(&self) -> Scanner {
        let automaton = AhoCorasick::new(self.needles.keys()).expect("there are some thousands");
        Scanner { automaton, whats: self.needles.values().cloned().collect() }
    }

    /// Where which secret is in these texts.
    pub(crate) fn leaks(&self, texts: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
        let scanner = self.scanner();
        let found = texts.iter().flat_map(|(place, text)| {
            let whats = scanner.find(text).into_iter();
            whats.map(move |what| format!("the {what} is in {place}"))
        });
        found.collect()
    }
}

/// Finds secrets in a text.
#[derive(Debug)]
pub(crate) struct Scanner {
    automaton: AhoCorasick,
    whats: Vec<String>,
}

impl Scanner {
    /// What is in a text.
    pub(crate) fn find(&self, text: &[u8]) -> BTreeSet<&str> {
        let all = self.automaton.find_overlapping_iter(text);
        all.map(|found| self.whats[found.pattern().as_usize()].as_str()).collect()
    }
}

/// Every file for everybody below a directory, with its content.
pub(crate) fn open_files(directory: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(data) = entry.metadata() else { continue };
        let mode = data.permissions().mode();
        if data.is_dir() && mode & 0o005 != 0 {
            open_files(&entry.path(), found);
        } else if data.is_file() && mode & 0o004 != 0 {
            let content = std::fs::read(entry.path()).unwrap_or_default();
            found.insert(entry.path().display().to_string(), content);
        }
    }
}

#[test]
fn a_secret_is_found_in_every_form_and_at_every_place() {
    let key = rcgen::KeyPair::generate().expect("ring makes P-256 keys");
    let (pem, der) = (key.serialize_pem(), key.serialize_der());
    let token = "hvs.a-token-of-thirty-two-letters";
    let mut secrets = Secrets::default();
    secrets.add_key("key", &pem);
    secrets.add("token", token);
    let scanner = secrets.scanner();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    let found = |text: &[u8]| scanner.find(text).into_iter().map(str::to_owned).collect::<Vec<_>>();
    for before in 0..4 {
        for (what, text) in [("key", pem.as_bytes()), ("key", &der), ("token", token.as_bytes())] {
            let padded = [&b"before"[..before], text, b"behind"].concat();
            for text in [
                padded.clone(),
                hex(&padded).into_bytes(),
                hex(&padded).to_lowercase().into_bytes(),
                STANDARD.encode(&padded).into_bytes(),
                URL_SAFE.encode(&padded).into_bytes(),
            ] {
                assert_eq!(found(&text), [what], "{before}: {}", String::from_utf8_lossy(&text));
            }
        }
    }
    let other = rcgen::KeyPair::generate().expect("ring makes P-256 keys");
    let public = [key.public_key_pem().into_bytes(), other.serialize_der()].concat();
    assert_eq!(found(&public), [""; 0]);
    assert_eq!(found(other.serialize_pem().as_bytes()), [""; 0]);
}

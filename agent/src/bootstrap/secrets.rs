//! What all controllers share and none of them may change: the keys that sign service-account
//! tokens, and the key that the API server encrypts secrets with.
//!
//! They are made once, by whoever is first, with a compare-and-swap in Vault, and never
//! overwritten by the agent. A person rotates them there: a new key in front of the list, the old
//! one behind it for as long as it is needed. Whoever finds keys here that Vault does not know,
//! or data in etcd and no keys in Vault, stops: another key would make them unreadable.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::{clients, facts, outdated};
use crate::config::plane::ControlPlane;
use crate::error::{Code, Context, Error, Result};
use crate::host::files::Root;
use crate::node::Node;
use crate::render::{self, EncryptionKey, SharedSecrets, SigningKey};
use crate::secret::Secret;

/// The files that are made of them, below the plane directory.
const FILES: [&str; 3] =
    ["service-account/signing.key", "service-account/verify.pem", "encryption.yaml"];

/// A key file larger than this is none.
const LIMIT: usize = 1 << 20;

/// As they lie in Vault: a JSON object, the newest of each list in front.
#[derive(Serialize, Deserialize)]
struct Document {
    service_account: Vec<SigningDocument>,
    encryption: Vec<EncryptionDocument>,
}

#[derive(Serialize, Deserialize)]
struct SigningDocument {
    id: String,
    private_pem: String,
}

#[derive(Serialize, Deserialize)]
struct EncryptionDocument {
    name: String,
    secret: String,
}

/// Which of the files is not on this node.
pub fn missing(root: &Root) -> Option<String> {
    let absent = |name: &&&str| !matches!(root.stat(&path(name)), Ok(Some(_)));
    let absent: Vec<&str> = FILES.iter().filter(absent).copied().collect();
    (!absent.is_empty()).then(|| format!("missing: {}", absent.join(", ")))
}

/// Whether Vault has other keys than this node; nothing where it cannot be asked.
pub async fn changed(node: &Node, plane: &ControlPlane) -> Result<Option<String>> {
    let Some(shared) = read(node, plane).await? else {
        return Ok(None);
    };
    for file in render::shared(&shared)? {
        if !is_held(&node.root, &file)? {
            return Ok(Some(format!("vault has another {}", file.path.display())));
        }
    }
    Ok(None)
}

/// Gets the keys, made by whoever was first, and writes the files that are made of them.
pub async fn establish(node: &Node, plane: &ControlPlane) -> Result<()> {
    let shared = match read(node, plane).await? {
        Some(shared) => shared,
        None => {
            refuse_to_replace(node).await?;
            create(node, plane).await?
        }
    };
    let mut files = render::shared(&shared)?;
    // What verifies and decrypts comes before what signs: a kill in between harms nobody.
    files.sort_by_key(|file| file.path.ends_with(FILES[0]));
    agree(&node.root, &shared)?;
    for file in &files {
        if !is_held(&node.root, file)? {
            outdated::replace(node, file)?;
        }
    }
    Ok(())
}

/// Where keys were used before, new ones are not made.
async fn refuse_to_replace(node: &Node) -> Result<()> {
    let advice = "put the former keys back into Vault: `vault kv rollback` or from its backup";
    if FILES.iter().any(|name| facts::exists(node, &path(name))) {
        let text = "vault has no shared keys, this node has some: they are not replaced";
        return Err(Error::new(Code::SharedSecrets, text).advise(advice));
    }
    let etcd = clients::etcd(node, facts::LOOK)?;
    if etcd.count_prefix("/registry/").await.during("looking for a cluster in etcd")? > 0 {
        let text = "vault has no shared keys, and etcd holds a cluster that was made with some";
        return Err(Error::new(Code::SharedSecrets, text).advise(advice));
    }
    Ok(())
}

/// A list in which nothing of this node's is left is another cluster's, or a mistake.
fn agree(root: &Root, shared: &SharedSecrets) -> Result<()> {
    let known: Vec<&str> = shared.service_account.iter().map(|key| key.public_pem.trim()).collect();
    let verify = held(root, &path(FILES[1]))?;
    let encryption = held(root, &path(FILES[2]))?;
    let foreign_key = verify.is_some_and(|text| !known.iter().any(|key| text.contains(key)));
    let foreign_encryption = encryption
        .is_some_and(|text| !shared.encryption.iter().any(|k| text.contains(k.secret.expose())));
    if foreign_key || foreign_encryption {
        let text = "none of the keys in vault is one that this node has used so far";
        return Err(Error::new(Code::SharedSecrets, text).advise(
            "keep the former key in the list until nothing is left that was made with it",
        ));
    }
    Ok(())
}

async fn read(node: &Node, plane: &ControlPlane) -> Result<Option<SharedSecrets>> {
    let session = node.session.proved()?;
    let (mount, path) = (&plane.secrets_mount, &plane.secrets_path);
    let stored = node.vault.kv_read(&session.token, mount, path).await;
    let stored = stored.during("reading the keys that all controllers share")?;
    stored.map(|stored| parse(&stored.data)).transpose().at(format!("vault {mount}/{path}"))
}

async fn create(node: &Node, plane: &ControlPlane) -> Result<SharedSecrets> {
    let document = make()?;
    let session = node.session.proved()?;
    let (mount, path) = (&plane.secrets_mount, &plane.secrets_path);
    let made = node.vault.kv_create(&session.token, mount, path, &document).await;
    made.during("making the keys that all controllers share")?;
    // Whoever was first, Vault's are the ones in force.
    let stored = read(node, plane).await?;
    stored.ok_or_else(|| Error::new(Code::SharedSecrets, "vault keeps no keys"))
}

fn make() -> Result<Secret> {
    let bug = |text: String| Error::new(Code::Bug, text);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| bug(format!("making a key: {error}")))?;
    let mut secret = zeroize::Zeroizing::new([0_u8; 32]);
    SystemRandom::new().fill(secret.as_mut()).map_err(|_| bug("no randomness".into()))?;
    let document = Document {
        service_account: vec![SigningDocument {
            id: id(&key.public_key_pem()),
            private_pem: key.serialize_pem(),
        }],
        encryption: vec![EncryptionDocument {
            name: "key-1".into(),
            secret: STANDARD.encode(secret.as_ref()),
        }],
    };
    let text = serde_json::to_string(&document).map_err(|error| bug(error.to_string()))?;
    Ok(Secret::new(text))
}

/// A short name for a key: the beginning of its public half's digest.
fn id(public_pem: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, public_pem.as_bytes());
    digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn parse(data: &Secret) -> Result<SharedSecrets> {
    let bad = |text: String| {
        Error::new(Code::SharedSecrets, text)
            .advise("docs/operating.md, shared-secrets, has the form")
    };
    let document: Document = serde_json::from_str(data.expose())
        .map_err(|error| bad(format!("not the form of shared keys: column {}", error.column())))?;
    let mut shared = SharedSecrets { service_account: Vec::new(), encryption: Vec::new() };
    for entry in document.service_account {
        let key = KeyPair::from_pem(&entry.private_pem).map_err(|_| {
            bad(format!("service_account {}: no private key (PKCS#8 PEM)", entry.id))
        })?;
        let (public_pem, private_pem) = (key.public_key_pem(), Secret::new(entry.private_pem));
        shared.service_account.push(SigningKey { id: entry.id, private_pem, public_pem });
    }
    for entry in document.encryption {
        let length = STANDARD.decode(&entry.secret).map(|bytes| bytes.len());
        if length != Ok(32) {
            return Err(bad(format!("encryption {}: not 32 bytes in base64", entry.name)));
        }
        let secret = Secret::new(entry.secret);
        shared.encryption.push(EncryptionKey { name: entry.name, secret });
    }
    match shared.service_account.is_empty() || shared.encryption.is_empty() {
        true => Err(bad("a list of keys is empty".into())),
        false => Ok(shared),
    }
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(render::DIRECTORY).join(name)
}

fn is_held(root: &Root, file: &render::File) -> Result<bool> {
    Ok(held(root, &file.path)?.is_some_and(|text| text.as_str() == file.content.text()))
}

fn held(root: &Root, path: &Path) -> Result<Option<zeroize::Zeroizing<String>>> {
    let bytes = root.read_optional(path, LIMIT)?.map(zeroize::Zeroizing::new);
    Ok(bytes.map(|bytes| zeroize::Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_were_made_are_read_again_and_differ_each_time() {
        let made = make().expect("keys");
        let shared = parse(&made).expect("their form");
        assert_eq!((shared.service_account.len(), shared.encryption.len()), (1, 1));
        assert!(shared.service_account[0].public_pem.contains("BEGIN PUBLIC KEY"));
        assert_ne!(make().expect("others").expose(), made.expose());
    }

    #[test]
    fn what_is_no_list_of_keys_is_told_without_showing_it() {
        for (text, expected) in [
            ("{}", "not the form"),
            (r#"{"service_account":[],"encryption":[]}"#, "empty"),
            (r#"{"service_account":[{"id":"a","private_pem":"hush"}],"encryption":[]}"#, "a: no"),
            (r#"{"service_account":[],"encryption":[{"name":"k","secret":"aGk="}]}"#, "32 bytes"),
        ] {
            let error = parse(&Secret::new(text.into())).expect_err(text);
            let shown = format!("{error:#}");
            assert!(shown.contains(expected) && !shown.contains("hush"), "{shown}");
        }
    }
}

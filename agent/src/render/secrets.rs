//! What all controllers share: the keys of service account tokens and of encryption at rest. Each
//! file stands beside others of its kind, so that a reader who mounts the directory sees a rename.

use super::{Content, EncryptionKey, File, MARK, SharedSecrets, in_directory};
use crate::config::plane::ControlPlane;
use crate::error::{Code, Error, Result};
use crate::secret::Secret;

/// The file that the newest key signs from.
const SIGNING: &str = "service-account/signing.key";
/// The file with all public keys.
const VERIFYING: &str = "service-account/verify.pem";
/// The file with the keys of encryption at rest.
const ENCRYPTION: &str = "encryption.yaml";

/// How many bytes a key of secretbox has.
const KEY_BYTES: usize = 32;

/// The files that hold shared secrets.
pub fn shared(secrets: &SharedSecrets) -> Result<Vec<File>> {
    let newest = secrets.service_account.first().ok_or_else(|| none("signs service accounts"))?;
    let publics: Vec<&str> =
        secrets.service_account.iter().map(|key| key.public_pem.trim_end()).collect();
    Ok(vec![
        File::secret(SIGNING, newest.private_pem.clone()),
        File::open(in_directory(VERIFYING), format!("{}\n", publics.join("\n"))),
        File::secret(ENCRYPTION, encryption(&secrets.encryption)?),
    ])
}

/// The same files for who may not see them.
pub(super) fn notes(control_plane: &ControlPlane) -> Vec<File> {
    let note = format!(
        "# A secret of all controllers, which is not shown. It comes from Vault: {}/data/{}\n",
        control_plane.secrets_mount, control_plane.secrets_path
    );
    [(SIGNING, 0o600), (VERIFYING, 0o644), (ENCRYPTION, 0o600)]
        .map(|(name, mode)| File {
            path: in_directory(name).into(),
            mode,
            content: Content::Open(note.clone()),
        })
        .into()
}

/// The first key encrypts, all decrypt; `identity` at the end reads what was written before there
/// was encryption. Put together by hand: a YAML writer would leave copies of the keys in memory.
fn encryption(keys: &[EncryptionKey]) -> Result<Secret> {
    if keys.is_empty() {
        return Err(none("encrypts what is at rest"));
    }
    let mut text = String::with_capacity(512 + 128 * keys.len());
    text.push_str(MARK);
    text.push_str(
        "\napiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources:\n  - secrets\n  providers:\n  - secretbox:\n      keys:\n",
    );
    for key in keys {
        check(key)?;
        text.push_str("      - name: \"");
        text.push_str(&key.name);
        text.push_str("\"\n        secret: \"");
        text.push_str(key.secret.expose().trim());
        text.push_str("\"\n");
    }
    text.push_str("  - identity: {}\n");
    Ok(Secret::new(text))
}

/// A key that the API server would refuse stops it at its next start, so it goes no further.
fn check(key: &EncryptionKey) -> Result<()> {
    use base64::Engine;
    let decoded = base64::engine::general_purpose::STANDARD.decode(key.secret.expose().trim());
    let length = decoded.map(|bytes| zeroize::Zeroizing::new(bytes).len()).unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if length == KEY_BYTES && !key.name.is_empty() && key.name.chars().all(plain) {
        return Ok(());
    }
    let name: String = key.name.chars().filter(|c| plain(*c)).take(40).collect();
    Err(Error::new(
        Code::Config,
        format!("encryption key `{name}` is not {KEY_BYTES} bytes in base64 with a plain name"),
    )
    .advise("see the secret that all controllers share in Vault's KV store"))
}

fn none(what: &str) -> Error {
    Error::new(Code::Config, format!("among the shared secrets there is no key that {what}"))
        .advise("see the secret that all controllers share in Vault's KV store")
}

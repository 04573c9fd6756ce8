//! The page as a test sees it: its blocks of commands, and the shell and the home of the person
//! that types them.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use x509_parser::prelude::FromDer as _;

use crate::peer::vault::RealVault;

/// The top of the repository, where the page begins.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The blocks of commands under a heading, in order.
pub(super) fn blocks(heading: &str) -> Vec<String> {
    let page = std::fs::read_to_string(top().join("docs/vault.md")).expect("the page");
    let mut found = Vec::new();
    let (mut inside, mut block) = (false, None);
    for line in page.lines() {
        if block.is_none() && line.starts_with("##") {
            inside = line.trim_start_matches('#').trim() == heading;
        }
        match (&mut block, line) {
            (None, "```sh") if inside => block = Some(String::new()),
            (Some(_), "```") => found.extend(block.take()),
            (Some(text), line) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    assert!(!found.is_empty(), "docs/vault.md has no commands under {heading:?}");
    found
}

/// The one line of the step of the auth method that a second cluster needs.
pub(super) fn accessor(step: &str) -> String {
    let line = step.lines().find(|line| line.starts_with("auth_accessor="));
    format!("{}\n", line.expect("the page reads the accessor"))
}

/// Whether a program can be found.
pub(super) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A home as `vault login` leaves it; the token is in no argument and in no environment.
pub(super) fn home(vault: &RealVault) -> io::Result<tempfile::TempDir> {
    let home = tempfile::tempdir()?;
    let token = home.path().join(".vault-token");
    std::fs::write(&token, vault.root_token().expose())?;
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600))?;
    std::fs::write(home.path().join("vault.pem"), vault.ca_pem())?;
    Ok(home)
}

/// Runs commands in a shell that stops at the first that fails.
pub(super) fn run(vault: &RealVault, home: &Path, commands: &str) -> String {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let program = vault.program().parent().expect("a program is in a directory").to_owned();
    let path = std::iter::once(program).chain(std::env::split_paths(&inherited));
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .current_dir(top())
        .env_clear()
        .env("PATH", std::env::join_paths(path).expect("directories without colons"))
        .env("HOME", home)
        .env("VAULT_ADDR", vault.address())
        .env("VAULT_CACERT", home.join("vault.pem"))
        .stdin(Stdio::null())
        .output()
        .expect("bash starts");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{told}\n{errors}");
    told
}

/// Makes the root that the page calls offline, in two files.
pub(super) fn offline_root(directory: &Path) -> io::Result<()> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "offline root");
    let root = params.self_signed(&key).map_err(io::Error::other)?;
    std::fs::write(directory.join("root.pem"), root.pem())?;
    std::fs::write(directory.join("root.key"), key.serialize_pem())
}

/// Whether a certificate is signed by another.
pub(super) fn verifies(leaf: &str, issuer: &str) -> bool {
    let der = |text: &str| {
        x509_parser::pem::parse_x509_pem(text.as_bytes()).expect("PEM").1.contents.clone()
    };
    let (leaf, issuer) = (der(leaf), der(issuer));
    let parsed = |der| x509_parser::certificate::X509Certificate::from_der(der).expect("DER").1;
    let (leaf, issuer) = (parsed(&leaf), parsed(&issuer));
    leaf.issuer() == issuer.subject() && leaf.verify_signature(Some(issuer.public_key())).is_ok()
}

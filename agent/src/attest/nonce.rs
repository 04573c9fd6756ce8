//! The client nonce of the ec2 log-in. Vault notes it at the first log-in of an instance and
//! from then on refuses every other; it cannot be asked back, so it is made once, is on disk
//! before Vault hears of it, and is never replaced: a file that cannot be used is an error that a
//! person resolves, not a reason for a new nonce that Vault would refuse.
//!
//! One file for each auth mount and instance, because Vault keeps one nonce for each: an image
//! that was made of a running node brings along a file that is not this instance's.

use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use crate::error::{Code, Context, Error, Result};
use crate::host::files::Root;
use crate::secret::Secret;

/// Where the nonces are on a node.
pub const DIRECTORY: &str = "/var/lib/nodeagent/nonce";

/// Vault takes no more than this many characters.
const LONGEST: usize = 128;

/// 256 bits, twice what is needed, in 64 characters.
const RANDOM_BYTES: usize = 32;

/// The most that is read of a file; one that is longer is no nonce anyway.
const READ_LIMIT: usize = 4096;

/// Whose nonce it is, for Vault.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The aws auth mount.
    pub mount: &'a str,
    /// The instance id.
    pub instance: &'a str,
}

/// The nonce of an instance at a mount: ours; else the one that another agent left at `import`,
/// made ours; else a new one. It is on disk, file and directory fsynced, when this returns.
pub fn obtain(root: &Root, owner: Owner<'_>, import: Option<&Path>) -> Result<Secret> {
    let top = Path::new(DIRECTORY);
    let directory = top.join(name_of(owner.mount));
    let path = directory.join(name_of(owner.instance));
    if let Some(bytes) = root.read_optional(&path, READ_LIMIT)? {
        return ours(&bytes).ok_or_else(|| unusable(root, &path, owner));
    }
    let left = import.map(|path| imported(root, path)).transpose();
    let left = left.during("importing the nonce of another agent")?;
    let nonce = match left.flatten() {
        Some(nonce) => nonce,
        None => random()?,
    };
    root.make_dir(top, 0o700, None)?;
    root.make_dir(&directory, 0o700, None)?;
    let line = format!("{}\n", nonce.expose());
    root.write_atomic(&path, line.as_bytes(), 0o600, None)?;
    // The directories may be those of a start that was killed before it made their names durable.
    root.fsync_dir(top)?;
    root.fsync_dir(top.parent().unwrap_or(top))?;
    Ok(nonce)
}

/// What another agent left. No file is a node on which that agent never ran; one that is there
/// and unreadable is an error, because Vault may know what it held.
fn imported(root: &Root, path: &Path) -> Result<Option<Secret>> {
    let Some(bytes) = root.read_optional(path, READ_LIMIT)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).unwrap_or_default();
    usable(text.trim()).map(Some).ok_or_else(|| {
        Error::new(Code::Foreign, "the file holds no nonce").at(root.path(path).display()).advise(
            format!(
                "put the nonce there, 1 to {LONGEST} printable characters, or take the path out \
                 of the configuration"
            ),
        )
    })
}

/// Our own file ends with a newline: without it, it is torn.
fn ours(bytes: &[u8]) -> Option<Secret> {
    usable(std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?)
}

fn usable(text: &str) -> Option<Secret> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    let length = 1..=LONGEST;
    (printable && length.contains(&text.len())).then(|| Secret::new(text.to_owned()))
}

fn random() -> Result<Secret> {
    let mut bytes = [0u8; RANDOM_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::new(Code::Disk, "the kernel gives no random bytes"))?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Secret::new(hex))
}

/// A mount may hold slashes, a file name may not; other names keep their letters.
fn name_of(text: &str) -> PathBuf {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let mut name = String::new();
    for letter in text.chars() {
        if plain(letter) && !(letter == '.' && name.is_empty()) {
            name.push(letter);
        } else {
            name.push_str(&format!("%{:02x}", u32::from(letter)));
        }
    }
    PathBuf::from(name)
}

fn unusable(root: &Root, path: &Path, owner: Owner<'_>) -> Error {
    let Owner { mount, instance } = owner;
    let place = root.path(path);
    let text = "the file of the client nonce is empty, torn or too long";
    Error::new(Code::Foreign, text).at(place.display()).advise(format!(
        "put the nonce back from a copy, one line; or, where there is none, forget it on both \
         sides: vault delete auth/{mount}/identity-accesslist/{instance}, then rm {}",
        place.display()
    ))
}

#[cfg(test)]
mod tests;

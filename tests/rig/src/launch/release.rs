//! A release as a site has it in its bucket: the artifact, and what the user data say of it.

use std::path::Path;
use std::process::Command;

use ring::digest::{SHA512, digest};
use serde_json::{Value, json};

use super::{Cloud, text};
use crate::node::static_binary;

const SYSEXT: &str = "../../packaging/release/sysext";

/// An object in the bucket that Ignition fetches and checks.
#[derive(Clone, Debug)]
pub struct Release {
    /// `binary` or `sysext`.
    pub kind: &'static str,
    /// `s3://bucket/key`.
    pub url: String,
    /// In lower-case hexadecimal digits.
    pub sha512: String,
}

impl Release {
    /// As the Terraform module takes it.
    #[must_use]
    pub fn input(&self) -> Value {
        json!({ "kind": self.kind, "url": self.url, "sha512": self.sha512 })
    }
}

impl Cloud {
    /// Puts the static binary into the bucket.
    pub fn publish(&self) -> Result<Release, String> {
        let program = static_binary()?;
        let bytes = std::fs::read(&program).map_err(text)?;
        self.publish_as("binary", "artifacts/nodeagent", &bytes)
    }

    /// Puts the image of a system extension into the bucket, made as a release makes it.
    pub fn publish_sysext(&self) -> Result<Release, String> {
        let directory = tempfile::tempdir().map_err(text)?;
        let image = directory.path().join("image.raw");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(SYSEXT);
        let made = Command::new(script).arg(static_binary()?).arg(&image).output();
        let made = made.map_err(text)?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
        let bytes = std::fs::read(&image).map_err(text)?;
        self.publish_as("sysext", "artifacts/nodeagent-0.0.0-x86-64.raw", &bytes)
    }

    /// Puts an artifact into the bucket.
    pub fn publish_as(
        &self,
        kind: &'static str,
        key: &str,
        bytes: &[u8],
    ) -> Result<Release, String> {
        let url = self.s3.put(key, bytes)?;
        Ok(Release { kind, url, sha512: hex(digest(&SHA512, bytes).as_ref()) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

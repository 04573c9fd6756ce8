//! A release as a site has it in its bucket: the artifact, and what the user data say of it.

use ring::digest::{SHA512, digest};
use serde_json::{Value, json};

use super::Cloud;
use crate::node::static_binary;

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
        let bytes = std::fs::read(&program).map_err(|error| error.to_string())?;
        self.publish_as("binary", "artifacts/nodeagent", &bytes)
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

//! Who this machine is, and how it proves it: the seam to the clouds. An attestor yields
//! evidence and nothing else: it neither talks to Vault nor writes what others read.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::host::files::Root;
use crate::wire::imds::Imds;
use crate::wire::vault::Login;

pub mod aws;
pub mod nonce;

/// Verified facts about this machine; names and SANs of certificates are made of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cloud's name of the machine.
    pub instance_id: String,
    /// The address in the private network, where the cloud tells it.
    pub private_ip: Option<IpAddr>,
    /// The region.
    pub region: String,
    /// The zone within the region.
    pub availability_zone: String,
    /// The account or project that owns the machine.
    pub account_id: String,
    /// The image that it was started from.
    pub image_id: String,
    /// Its size, in the cloud's words.
    pub instance_type: String,
}

/// Who this machine is, with the proof.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Who it is.
    pub identity: Identity,
    /// What Vault takes for proof.
    pub login: Login,
}

/// A way to prove who this machine is: one for each cloud.
#[async_trait]
pub trait Attestor: Send + Sync {
    /// Asks the cloud, now.
    async fn evidence(&self) -> Result<Evidence>;
}

/// The clouds that there is an attestor for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Amazon EC2: [`aws::Aws`].
    Aws,
}

impl Provider {
    /// All of them, in the order of the documentation.
    pub const ALL: &'static [Provider] = &[Provider::Aws];

    /// The word for it in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Provider::Aws => "aws",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Provider {
    type Err = Error;

    fn from_str(text: &str) -> Result<Provider> {
        let found = Provider::ALL.iter().find(|provider| provider.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Provider::ALL.iter().map(|provider| provider.name()).collect();
            Error::new(Code::Config, format!("{text:?} is no provider"))
                .advise(format!("write one of: {}", names.join(", ")))
        })
    }
}

/// What an attestor is made of; a provider takes what it needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which cloud.
    pub provider: Provider,
    /// Where all paths start.
    pub root: Root,
    /// The auth mount in Vault.
    pub mount: String,
    /// The login role at that mount.
    pub role: String,
    /// The metadata service's base URL.
    pub imds: String,
    /// A nonce that another agent left, taken if there is none of ours.
    pub import_nonce: Option<PathBuf>,
}

/// The attestor of a cloud; nothing is asked yet.
pub fn attestor(options: Options) -> Result<Arc<dyn Attestor>> {
    match options.provider {
        Provider::Aws => {
            let imds = Imds::new(&options.imds, crate::wire::imds::LIMITS)?;
            let aws = aws::AwsOptions {
                mount: options.mount,
                role: options.role,
                import: options.import_nonce,
            };
            Ok(Arc::new(aws::Aws::new(imds, options.root, aws)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_written_as_it_is_read() {
        for provider in Provider::ALL {
            assert_eq!(provider.name().parse::<Provider>().ok(), Some(*provider));
            let written = serde_json::to_value(provider).expect("a word");
            assert_eq!(written, provider.name());
        }
        let error = "amazon".parse::<Provider>().expect_err("no such provider");
        assert_eq!(error.kind().exit_code(), 78);
        assert_eq!(error.advice(), Some("write one of: aws"));
    }
}

//! An EC2 instance proves itself with the identity document that AWS signed for it, and with a
//! client nonce that it made itself: the document can be fetched by every process on the machine,
//! the nonce is known to this agent alone.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;

use super::nonce;
use super::{Attestor, Evidence, Identity};
use crate::error::{Context, Result};
use crate::host::files::Root;
use crate::wire::imds::{IdentityDocument, Imds};
use crate::wire::vault::Login;

/// Where and as what to log in, and where the nonce is kept.
#[derive(Clone, Debug)]
pub struct AwsOptions {
    /// The aws auth mount, `aws` or `aws-ec2` or any other.
    pub mount: String,
    /// The login role.
    pub role: String,
    /// The nonce file of another agent, taken if there is none of ours yet.
    pub import: Option<PathBuf>,
}

/// The attestor of Amazon EC2.
pub struct Aws {
    imds: Imds,
    root: Root,
    options: AwsOptions,
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Aws {
    /// An attestor that asks this metadata service and keeps its nonce below this root.
    pub fn new(imds: Imds, root: Root, options: AwsOptions) -> Aws {
        Aws { imds, root, options }
    }
}

#[async_trait]
impl Attestor for Aws {
    async fn evidence(&self) -> Result<Evidence> {
        let signed = self.imds.signed_document().await;
        let signed = signed.during("reading the instance identity")?;
        let identity = Identity::from(signed.document);
        // On disk before Vault hears of it: a nonce that Vault has and we forgot locks us out.
        let owner = nonce::Owner { mount: &self.options.mount, instance: &identity.instance_id };
        let nonce = nonce::obtain(&self.root, owner, self.options.import.as_deref())
            .during("reading the client nonce")?;
        let login = Login::Ec2 {
            role: self.options.role.clone(),
            pkcs7: signed.pkcs7,
            nonce,
            instance_id: identity.instance_id.clone(),
        };
        Ok(Evidence { identity, login })
    }
}

impl From<IdentityDocument> for Identity {
    fn from(document: IdentityDocument) -> Identity {
        Identity {
            instance_id: document.instance_id,
            private_ip: document.private_ip,
            region: document.region,
            availability_zone: document.availability_zone,
            account_id: document.account_id,
            image_id: document.image_id,
            instance_type: document.instance_type,
        }
    }
}

#[cfg(test)]
mod tests;

//! Secrets that a cluster shares, in a KV mount of version 2. Making one is a compare-and-swap on
//! "there never was one", so of several nodes that try exactly one succeeds, and nobody can
//! overwrite what is in use; the policy that is shipped would not let them either.

use serde::Deserialize;
use serde_json::value::Map;
use serde_json::{Value, from_str};
use vaultrs::api::kv2::requests::{ReadSecretRequest, SetSecretRequest, SetSecretRequestOptions};

use super::sort::{self, Call, Reply};
use super::{Vault, answer};
use crate::error::{Code, Context, Error, Result};
use crate::secret::Secret;

/// A secret as it is kept.
#[derive(Clone, Debug)]
pub struct KvSecret {
    /// Counted by Vault from 1; each write is one more.
    pub version: u64,
    /// What was written: the text of a JSON object.
    pub data: Secret,
}

#[derive(Deserialize)]
struct ReadBody {
    data: Option<Map<String, Value>>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
}

impl Vault {
    /// The newest version of a secret; none where there is none or it was deleted.
    pub async fn kv_read(
        &self,
        token: &Secret,
        mount: &str,
        path: &str,
    ) -> Result<Option<KvSecret>> {
        let call = Call::KvRead { mount, path };
        let endpoint =
            ReadSecretRequest { mount: mount.to_owned(), path: path.to_owned(), version: None };
        let request = self.request(Some(token), endpoint).at(call.place())?;
        let reply = self.exchange(request).await?;
        if is_nothing(&reply) {
            return Ok(None);
        }
        if !reply.is_success() {
            return Err(sort::sort(&call, &reply)).at(call.place());
        }
        secret(&reply).at(call.place())
    }

    /// Makes a secret where there never was one; false where somebody was first. A secret that was
    /// deleted, and not destroyed with its metadata, counts as one.
    pub async fn kv_create(
        &self,
        token: &Secret,
        mount: &str,
        path: &str,
        data: &Secret,
    ) -> Result<bool> {
        let call = Call::KvCreate { mount, path };
        let object: Map<String, Value> = from_str(data.expose())
            .map_err(|_| Error::new(Code::Bug, "the secret to keep is no JSON object"))?;
        let endpoint = SetSecretRequest {
            mount: mount.to_owned(),
            path: path.to_owned(),
            data: Value::Object(object),
            options: Some(SetSecretRequestOptions { cas: 0 }),
        };
        let request = self.request(Some(token), endpoint).at(call.place())?;
        let reply = self.exchange(request).await?;
        if sort::was_late(&reply) {
            return Ok(false);
        }
        if !reply.is_success() {
            let refused = sort::sort(&call, &reply);
            // To whoever may create and not overwrite, Vault refuses a second creation as a whole.
            let may_exist = refused.code() == Code::PolicyDenied;
            if may_exist && self.kv_read(token, mount, path).await.is_ok_and(|kept| kept.is_some())
            {
                return Ok(false);
            }
            return Err(refused).at(call.place());
        }
        // A mount of version 1 takes the write too, without the condition and without a version.
        answer::data_of::<Metadata>(&reply)
            .map_err(|error| error.advise(versioned(mount)))
            .at(call.place())?;
        Ok(true)
    }
}

/// Vault's 404 for a path without a secret has no words; the one for no mount has.
fn is_nothing(reply: &Reply) -> bool {
    reply.status == 404 && reply.is_vaults() && reply.errors().is_none_or(|said| said.is_empty())
}

fn secret(reply: &Reply) -> Result<Option<KvSecret>> {
    let body: ReadBody = answer::data_of(reply)?;
    let version = body.metadata.version;
    let data = body.data.map(|data| Secret::new(Value::Object(data).to_string()));
    Ok(data.map(|data| KvSecret { version, data }))
}

fn versioned(mount: &str) -> String {
    format!("is {mount}/ a kv mount of version 2 (vault secrets list -detailed)?")
}

//! The identity access list: who may log in again as an instance. The first login of an instance
//! id writes its entry, and from then on the nonce, the pending time and the word of the first
//! role decide, however the roles change.

use jiff::Timestamp;
use serde_json::json;

use super::super::answer::{Operation, Refusal, Reply};
use super::super::field::Form;
use super::{Aws, Request};

/// The nonce that stands for "never again".
pub(super) const DISABLED: &str = "reauthentication-disabled-nonce";

/// What is remembered of one instance.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) role: String,
    pub(super) nonce: String,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    pub(super) expires: Timestamp,
    pub(super) pending_time: String,
    pub(super) disallow_reauthentication: bool,
}

impl Entry {
    /// Whether a later login with this nonce and document may pass.
    pub(super) fn admits(
        &self,
        nonce: &str,
        pending_time: &str,
        role: &Form,
    ) -> Result<(), String> {
        if self.disallow_reauthentication || nonce == DISABLED {
            return Err("reauthentication is disabled".into());
        }
        let given = instant(pending_time)?;
        let stored = instant(&self.pending_time)?;
        if nonce != self.nonce {
            if !role.flag("allow_instance_migration") {
                return Err("client nonce mismatch".into());
            }
            if given <= stored {
                return Err("client nonce mismatch and instance meta-data incorrect".into());
            }
        }
        if given < stored {
            let text = "instance meta-data is older than the one used for previous login";
            return Err(text.into());
        }
        Ok(())
    }
}

fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": \
             cannot parse {text:?} as \"2006\""
        )
    })
}

impl Aws {
    pub(super) fn access_list(
        &mut self,
        path: &[&str],
        request: &Request<'_>,
    ) -> Result<Reply, Refusal> {
        match (path, request.operation) {
            ([] | [""], Operation::List) => Ok(Reply::Keys(self.list.keys().cloned().collect())),
            ([id], Operation::Read) => Ok(self.list.get(*id).map_or(Reply::Absent, |entry| {
                Reply::data(json!({
                    "client_nonce": entry.nonce,
                    "creation_time": entry.created.to_string(),
                    "disallow_reauthentication": entry.disallow_reauthentication,
                    "expiration_time": entry.expires.to_string(),
                    "last_updated_time": entry.updated.to_string(),
                    "pending_time": entry.pending_time,
                    "role": entry.role,
                }))
            })),
            ([id], Operation::Delete) => {
                self.list.remove(*id);
                Ok(Reply::NoContent)
            }
            _ => Err(Refusal::unsupported_operation()),
        }
    }
}

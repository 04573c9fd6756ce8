//! What the status tells for machines above all: how each duty has fared, and until when the
//! pinned authorities last. A person sees of both only what is wrong, among the problems.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::duty::{self, DutyId, Records};

/// One pinned authority.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuthorityPart {
    /// Its name in the configuration.
    pub name: String,
    /// When the last certificate in its bundle ends.
    pub not_after: Timestamp,
}

/// How one duty has fared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DutyPart {
    /// Its name, as in the problems.
    pub name: String,
    /// When it last succeeded.
    pub last_success: Option<Timestamp>,
    /// How often it has failed in a row.
    pub failures: u32,
    /// Since when it fails.
    pub failing_since: Option<Timestamp>,
}

/// The authorities of the configuration; pure.
pub(super) fn authorities(config: &Config) -> Vec<AuthorityPart> {
    let known = config.authorities.values();
    known.map(|known| AuthorityPart { name: known.name.clone(), not_after: known.end }).collect()
}

/// How each duty of the node has fared; pure.
pub(super) fn collect(config: &Config, records: &Records) -> Vec<DutyPart> {
    duty::duties(config).iter().map(|duty| part(&duty.id(), records)).collect()
}

fn part(id: &DutyId, records: &Records) -> DutyPart {
    let record = records.duty(id);
    DutyPart {
        name: id.to_string(),
        last_success: record.last_success,
        failures: record.failure.as_ref().map_or(0, |failure| failure.count),
        failing_since: record.failure.map(|failure| failure.since),
    }
}

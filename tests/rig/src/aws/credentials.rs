//! The temporary credentials of instance roles: what the metadata service hands to whoever asks on
//! the instance, and what a service of AWS knows the caller by. They live as long as the world.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_STANDARD, Engine};
use jiff::{SignedDuration, Timestamp};
use ring::rand::SecureRandom;
use serde_json::{Value, json};

use super::document::aws_time;
use super::{Instance, World};
use crate::clock::lock;

/// How long AWS says that they are good for.
const LIFE: SignedDuration = SignedDuration::from_hours(6);

/// What one instance signs its requests with.
#[derive(Clone)]
pub struct RoleCredentials {
    /// The role that they are of: the one of the instance profile.
    pub role: String,
    /// The instance that they were handed to.
    pub instance: String,
    /// The public part, which a request names.
    pub access_key_id: String,
    /// What it is signed with.
    pub secret_access_key: String,
    /// The session, which a request shows beside its signature.
    pub token: String,
}

/// The name of the key is public, the rest is secret.
impl fmt::Debug for RoleCredentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RoleCredentials({} of {})", self.access_key_id, self.role)
    }
}

impl RoleCredentials {
    fn generate(role: &str, instance: &str, number: usize) -> Self {
        Self {
            role: role.into(),
            instance: instance.into(),
            access_key_id: format!("ASIARIG{number:013}"),
            secret_access_key: random(30),
            token: random(96),
        }
    }

    /// As the metadata service tells them.
    pub(super) fn document(&self, now: Timestamp) -> Value {
        let end = now.checked_add(LIFE).unwrap_or(Timestamp::MAX);
        json!({
            "Code": "Success",
            "LastUpdated": aws_time(now),
            "Type": "AWS-HMAC",
            "AccessKeyId": self.access_key_id,
            "SecretAccessKey": self.secret_access_key,
            "Token": self.token,
            "Expiration": aws_time(end),
        })
    }
}

/// The credentials of all instances, by instance id.
#[derive(Debug, Default)]
pub(super) struct Issued(Mutex<BTreeMap<String, RoleCredentials>>);

impl Issued {
    /// Those of an instance, made at the first call; none where it has no profile, and others
    /// where the profile has changed.
    pub(super) fn of(&self, instance: &Instance) -> Option<RoleCredentials> {
        let role = instance.spec.instance_profile.as_deref()?;
        let mut issued = lock(&self.0);
        let number = issued.len();
        let known = issued
            .entry(instance.id.clone())
            .or_insert_with(|| RoleCredentials::generate(role, &instance.id, number));
        if known.role != role {
            *known = RoleCredentials::generate(role, &instance.id, number);
        }
        Some(known.clone())
    }
}

/// What a service of AWS asks: whose a key is.
#[derive(Clone, Debug)]
pub struct Keys(pub(super) Arc<World>);

impl Keys {
    /// The credentials with this access key id, where there are any.
    #[must_use]
    pub fn find(&self, access_key_id: &str) -> Option<RoleCredentials> {
        let issued = lock(&self.0.issued.0);
        issued.values().find(|known| known.access_key_id == access_key_id).cloned()
    }
}

fn random(bytes: usize) -> String {
    let mut secret = vec![0; bytes];
    ring::rand::SystemRandom::new().fill(&mut secret).expect("the system has randomness");
    BASE64_STANDARD.encode(secret)
}

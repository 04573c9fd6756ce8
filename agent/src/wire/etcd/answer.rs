//! Reading etcd's answers. The gateway leaves out what is zero or empty, so every field has a
//! default, and an answer to a call that is no answer to it would read as all zeros: `header`,
//! which each answer has, tells them apart.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::{EtcdHealth, EtcdMember, EtcdStatus, Stored};
use crate::error::{Code, Error, Result};

/// Enough of a text for a status screen.
const LONGEST: usize = 300;

#[derive(Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    member_id: u64,
}

#[derive(Deserialize)]
pub(super) struct Status {
    header: Header,
    #[serde(default, deserialize_with = "number")]
    leader: u64,
    #[serde(default, rename = "dbSize", deserialize_with = "number")]
    db_size: u64,
    #[serde(default)]
    version: String,
    #[serde(default)]
    errors: Vec<String>,
}

impl From<Status> for EtcdStatus {
    fn from(status: Status) -> EtcdStatus {
        EtcdStatus {
            member_id: status.header.member_id,
            leader_id: status.leader,
            db_size: status.db_size,
            version: status.version,
            errors: status.errors.iter().map(|error| line(error)).collect(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Members {
    #[serde(rename = "header")]
    _header: Header,
    #[serde(default)]
    members: Vec<MemberBody>,
}

#[derive(Deserialize)]
struct MemberBody {
    #[serde(rename = "ID", deserialize_with = "number")]
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(default, rename = "clientURLs")]
    client_urls: Vec<String>,
    #[serde(default, rename = "isLearner")]
    is_learner: bool,
}

impl From<Members> for Vec<EtcdMember> {
    fn from(list: Members) -> Vec<EtcdMember> {
        let member = |body: MemberBody| EtcdMember {
            id: body.id,
            name: body.name,
            peer_urls: body.peer_urls,
            client_urls: body.client_urls,
            is_learner: body.is_learner,
        };
        list.members.into_iter().map(member).collect()
    }
}

#[derive(Deserialize)]
pub(super) struct Lease {
    #[serde(rename = "header")]
    _header: Header,
    #[serde(rename = "ID", deserialize_with = "number")]
    pub(super) id: i64,
    /// Left out where the lease has ended.
    #[serde(default, rename = "TTL", deserialize_with = "number")]
    seconds: i64,
}

impl Lease {
    pub(super) fn ttl(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.seconds).unwrap_or_default())
    }
}

/// One answer of a stream.
#[derive(Deserialize)]
pub(super) struct Streamed<T> {
    pub(super) result: T,
}

#[derive(Deserialize)]
pub(super) struct Range {
    #[serde(rename = "header")]
    _header: Header,
    #[serde(default)]
    kvs: Vec<Pair>,
    #[serde(default, deserialize_with = "number")]
    pub(super) count: u64,
}

impl Range {
    pub(super) fn found(self) -> Option<Stored> {
        self.kvs.into_iter().next().map(Stored::from)
    }
}

#[derive(Deserialize)]
struct Pair {
    #[serde(default, deserialize_with = "bytes")]
    value: Vec<u8>,
    #[serde(deserialize_with = "number")]
    create_revision: i64,
    #[serde(deserialize_with = "number")]
    mod_revision: i64,
    #[serde(default, deserialize_with = "number")]
    lease: i64,
}

impl From<Pair> for Stored {
    fn from(pair: Pair) -> Stored {
        Stored {
            value: pair.value,
            create_revision: pair.create_revision,
            mod_revision: pair.mod_revision,
            lease: pair.lease,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Txn {
    #[serde(rename = "header")]
    _header: Header,
    #[serde(default)]
    pub(super) succeeded: bool,
    #[serde(default)]
    responses: Vec<Done>,
}

#[derive(Deserialize)]
struct Done {
    response_range: Option<Found>,
}

/// A range within a transaction.
#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    kvs: Vec<Pair>,
}

impl Txn {
    pub(super) fn found(self) -> Option<Stored> {
        let range = self.responses.into_iter().find_map(|done| done.response_range)?;
        range.kvs.into_iter().next().map(Stored::from)
    }
}

/// The answer of `/health`, whose status says the same as its body.
pub(super) fn health(reply: &Response<Vec<u8>>) -> Option<EtcdHealth> {
    #[derive(Deserialize)]
    struct Health {
        health: String,
        #[serde(default)]
        reason: String,
    }
    let body: Health = serde_json::from_slice(reply.body()).ok()?;
    let healthy = body.health == "true" && reply.status() == 200;
    Some(EtcdHealth { healthy, reason: line(&body.reason) })
}

/// A call that etcd did not do.
pub(super) struct Refused {
    status: u16,
    said: Option<Said>,
    kind: String,
    wait: Option<Duration>,
}

/// What the gateway says of a refusal.
#[derive(Deserialize)]
struct Said {
    #[serde(alias = "error")]
    message: String,
}

impl Refused {
    fn of(reply: &Response<Vec<u8>>) -> Refused {
        let header = |name| reply.headers().get(name).and_then(|value| value.to_str().ok());
        let wait = header(RETRY_AFTER).and_then(|text| text.trim().parse().ok());
        Refused {
            status: reply.status().as_u16(),
            said: said(reply.body()),
            kind: line(header(CONTENT_TYPE).unwrap_or("no content type")),
            wait: wait.map(Duration::from_secs),
        }
    }

    /// Whether the lease of the call has ended.
    pub(super) fn is_lease_gone(&self) -> bool {
        let said = self.said.as_ref();
        self.status == 404
            && said.is_some_and(|said| said.message.contains("requested lease not found"))
    }

    pub(super) fn error(self) -> Error {
        let status = self.status;
        let Some(said) = self.said else {
            return strange(&format!("{status} with {}, which is no answer of etcd", self.kind))
                .retry_after(self.wait);
        };
        // etcd with users says 400 where none was named.
        let nobody = status == 400 && said.message.contains("user name is empty");
        let code = match status {
            401 | 403 => Code::EtcdDenied,
            _ if nobody => Code::EtcdDenied,
            _ => Code::EtcdFailing,
        };
        Error::new(code, format!("{status} {}", line(&said.message))).retry_after(self.wait)
    }
}

/// The body of a success, or the refusal.
pub(super) fn sort(reply: Response<Vec<u8>>) -> std::result::Result<Vec<u8>, Refused> {
    if reply.status() == 200 { Ok(reply.into_body()) } else { Err(Refused::of(&reply)) }
}

/// The error that an answer is which was to be something else.
pub(super) fn refusal(reply: &Response<Vec<u8>>) -> Error {
    Refused::of(reply).error()
}

/// An error within a stream comes with the status of a success.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| match said(body) {
        Some(said) => strange(&line(&said.message)),
        None => {
            let (line, column) = (error.line(), error.column());
            strange(&format!("200 with what is no answer to this call ({line}:{column})"))
        }
    })
}

fn said(body: &[u8]) -> Option<Said> {
    #[derive(Deserialize)]
    struct Failed {
        error: Said,
    }
    #[derive(Deserialize)]
    struct Plain {
        message: String,
    }
    let plain: Option<Plain> = serde_json::from_slice(body).ok();
    let said = plain.map(|plain| Said { message: plain.message });
    said.or_else(|| serde_json::from_slice(body).ok().map(|failed: Failed| failed.error))
}

pub(super) fn strange(text: &str) -> Error {
    Error::new(Code::EtcdFailing, text)
}

/// A text of the other side in one line.
fn line(text: &str) -> String {
    let text = text.replace(|letter: char| letter.is_control(), " ");
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST).collect()
}

/// A 64-bit number, which the gateway writes as a text; JSON's own numbers would lose bits.
fn number<'de, T, D>(deserializer: D) -> std::result::Result<T, D::Error>
where
    T: std::str::FromStr,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom("no number"))
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(|_| serde::de::Error::custom("no base64"))
}

//! etcd, through the JSON gateway that every member serves on its client port: the calls of the
//! lock and of looking after a member. Keys and values travel as base64 and 64-bit numbers as
//! texts. Every change here is a compare-and-swap or idempotent, because an answer that was lost
//! says nothing of what was done.

mod answer;

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::http::{ClientIdentity, Http, Limits, Peer, Trust};
use crate::error::{Code, Context, Error, Result};

const PEER: Peer = Peer {
    unreachable: Code::EtcdUnreachable,
    failing: Code::EtcdFailing,
    denied: Code::EtcdDenied,
};

/// Where a member is and whom to believe there.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// `https://127.0.0.1:2379`, no path.
    pub endpoint: String,
    /// The authorities (PEM) that sign etcd's certificate.
    pub ca_pem: Vec<u8>,
    /// Who we are there; an etcd that authenticates its clients wants it.
    pub client: Option<ClientIdentity>,
    /// What a call may cost. Without a leader etcd holds a call for 7 s before it says so.
    pub limits: Limits,
}

/// A client of one member.
#[derive(Clone)]
pub struct Etcd {
    http: Http,
    endpoint: String,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What a member says of its health: of a read that needs the agreement of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdHealth {
    /// Whether it has a leader, answers reads and has no alarm.
    pub healthy: bool,
    /// Why not, in etcd's words: `RAFT NO LEADER`, `ALARM NOSPACE`.
    pub reason: String,
}

/// What a member says of itself, without asking the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdStatus {
    /// Who answered.
    pub member_id: u64,
    /// Whom it follows; zero where it knows of no leader.
    pub leader_id: u64,
    /// Bytes of its database on disk.
    pub db_size: u64,
    /// Its version.
    pub version: String,
    /// Alarms and other troubles, in etcd's words.
    pub errors: Vec<String>,
}

/// A member of the cluster, as the one that was asked knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its id.
    pub id: u64,
    /// Its name; empty where it was added and has not started yet.
    pub name: String,
    /// Where the members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Whether it only listens and has no vote yet.
    pub is_learner: bool,
}

/// A lease: keys that were put with it go when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: i64,
    /// How long it lives from its grant or a keep-alive, in whole seconds.
    pub ttl: Duration,
}

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its value.
    pub value: Vec<u8>,
    /// The revision of the store in which it appeared.
    pub create_revision: i64,
    /// The revision of the store in which it was last written.
    pub mod_revision: i64,
    /// The lease that it hangs on; zero for none.
    pub lease: i64,
}

/// What became of a put that must be the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It was.
    Done,
    /// Somebody else's is there.
    Exists(Stored),
}

impl Etcd {
    /// A client of the member at an endpoint; nothing is sent yet.
    pub fn new(options: EtcdOptions) -> Result<Etcd> {
        let endpoint = options.endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") {
            let text = format!("the endpoint of etcd is no https address: {endpoint:?}");
            return Err(Error::new(Code::Config, text));
        }
        let trust = Trust::Pinned(options.ca_pem);
        let http = Http::with_identity(options.limits, &trust, options.client.as_ref(), PEER);
        Ok(Etcd { http: http.at(&endpoint)?, endpoint })
    }

    /// Asks the member how it is; `false` with a reason is an answer too. What it tests is a read
    /// that the majority has to agree to.
    pub async fn health(&self) -> Result<EtcdHealth> {
        let url = self.url("/health");
        let request = Request::get(&url).body(Vec::new());
        let reply = self.http.send(sound(request)?).await?;
        match answer::health(&reply) {
            Some(health) => Ok(health),
            None => Err(answer::refusal(&reply)).at(url),
        }
    }

    /// What the member says of itself; it answers without a majority too.
    pub async fn status(&self) -> Result<EtcdStatus> {
        let status: answer::Status = self.call("/v3/maintenance/status", &json!({})).await?;
        Ok(status.into())
    }

    /// The members that this one knows of; it answers without a majority too, and may then be
    /// behind.
    pub async fn members(&self) -> Result<Vec<EtcdMember>> {
        let list: answer::Members = self.call("/v3/cluster/member/list", &json!({})).await?;
        Ok(list.into())
    }

    /// A lease for at least this long; etcd counts whole seconds.
    pub async fn grant(&self, ttl: Duration) -> Result<Lease> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let asked = json!({ "TTL": seconds.to_string() });
        let lease: answer::Lease = self.call("/v3/lease/grant", &asked).await?;
        Ok(Lease { id: lease.id, ttl: lease.ttl() })
    }

    /// Prolongs a lease and tells for how long from now; zero: it has ended and does not come back.
    pub async fn keep_alive(&self, lease: &Lease) -> Result<Duration> {
        let asked = json!({ "ID": lease.id.to_string() });
        // A stream, of which one answer is awaited.
        let kept: answer::Streamed<answer::Lease> =
            self.call("/v3/lease/keepalive", &asked).await?;
        Ok(kept.result.ttl())
    }

    /// Ends a lease, and with it its keys. One that has ended already is no error.
    pub async fn revoke(&self, lease: &Lease) -> Result<()> {
        let asked = json!({ "ID": lease.id.to_string() });
        match self.exchange("/v3/lease/revoke", &asked).await? {
            Ok(_) => Ok(()),
            Err(refused) if refused.is_lease_gone() => Ok(()),
            Err(refused) => Err(refused.error()).at(self.url("/v3/lease/revoke")),
        }
    }

    /// Puts a key that must not be there yet.
    pub async fn put_new(&self, key: &str, value: &[u8], lease: Option<&Lease>) -> Result<Put> {
        let lease = lease.map_or(0, |lease| lease.id).to_string();
        let put = json!({ "key": text(key), "value": STANDARD.encode(value), "lease": lease });
        let asked = json!({
            "compare": [{
                "key": text(key),
                "target": "CREATE",
                "result": "EQUAL",
                "create_revision": "0",
            }],
            "success": [{ "request_put": put }],
            "failure": [{ "request_range": { "key": text(key) } }],
        });
        let done: answer::Txn = self.call("/v3/kv/txn", &asked).await?;
        if done.succeeded {
            return Ok(Put::Done);
        }
        let found = done.found().ok_or_else(|| answer::strange("a put neither done nor refused"));
        Ok(Put::Exists(found.at(self.url("/v3/kv/txn"))?))
    }

    /// Reads a key, as the majority has it.
    pub async fn get(&self, key: &str) -> Result<Option<Stored>> {
        let asked = json!({ "key": text(key) });
        let range: answer::Range = self.call("/v3/kv/range", &asked).await?;
        Ok(range.found())
    }

    /// Deletes a key if nobody wrote it after this revision; false where somebody did.
    pub async fn delete_if(&self, key: &str, mod_revision: i64) -> Result<bool> {
        let asked = json!({
            "compare": [{
                "key": text(key),
                "target": "MOD",
                "result": "EQUAL",
                "mod_revision": mod_revision.to_string(),
            }],
            "success": [{ "request_delete_range": { "key": text(key) } }],
        });
        let done: answer::Txn = self.call("/v3/kv/txn", &asked).await?;
        Ok(done.succeeded)
    }

    /// How many keys begin with a prefix, which must not be empty.
    pub async fn count_prefix(&self, prefix: &str) -> Result<u64> {
        let end = STANDARD.encode(after(prefix.as_bytes()));
        let asked = json!({ "key": text(prefix), "range_end": end, "count_only": true });
        let range: answer::Range = self.call("/v3/kv/range", &asked).await?;
        Ok(range.count)
    }

    /// One call whose refusal is an error.
    async fn call<T: DeserializeOwned>(&self, path: &str, asked: &Value) -> Result<T> {
        let body = self.exchange(path, asked).await?.map_err(|refused| refused.error());
        body.and_then(|body| answer::parse(&body)).at(self.url(path))
    }

    async fn exchange(
        &self,
        path: &str,
        asked: &Value,
    ) -> Result<std::result::Result<Vec<u8>, answer::Refused>> {
        let request = Request::post(self.url(path)).header(CONTENT_TYPE, "application/json");
        let request = sound(request.body(asked.to_string().into_bytes()))?;
        let reply = self.http.send(request).await?;
        Ok(answer::sort(reply))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint)
    }
}

fn sound(request: http::Result<Request<Vec<u8>>>) -> Result<Request<Vec<u8>>> {
    request.map_err(|error| Error::new(Code::Config, format!("no request to etcd: {error}")))
}

fn text(key: &str) -> String {
    STANDARD.encode(key)
}

/// The first key that no longer begins with a prefix.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Nothing is behind such a prefix: to etcd a zero byte is the end of all keys.
    vec![0]
}

#[cfg(test)]
mod tests;

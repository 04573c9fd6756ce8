//! A client of an API server, or of etcd's JSON gateway: a certificate, JSON, a deadline on each
//! call, no retries and no connection kept, so that each call tells how the server is now.

use std::time::Duration;

use serde_json::{Value, json};

use crate::setup::Admin;

/// A healthy server answers in milliseconds, one that has lost its etcd after its own time-outs.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// The role of both authorities that the rig's own certificates are signed with.
const ROLE: &str = "rig-story";

/// A client certificate and the authority of the servers that it is for.
#[derive(Clone)]
pub struct Identity {
    ca: String,
    pub(super) pem: Vec<u8>,
}

/// It holds a key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

impl Identity {
    /// The certificate and its key, as one PEM text.
    #[must_use]
    pub fn new(ca: &str, pem: Vec<u8>) -> Self {
        Self { ca: ca.to_owned(), pem }
    }

    /// Has Vault's root sign one, past every role that is shipped: stories must see a cluster
    /// whatever the agent may or may not do. `authority` is the PKI mount and its root.
    pub async fn issue(
        vault: &Admin,
        authority: (&str, &str),
        organizations: &[&str],
    ) -> Result<Self, String> {
        let (mount, ca) = authority;
        let role = json!({
            "allow_any_name": true, "enforce_hostnames": false, "organization": organizations,
            "server_flag": false, "client_flag": true, "key_type": "ec", "key_bits": 256,
            "max_ttl": "72h",
        });
        vault.must_write(&format!("{mount}/roles/{ROLE}"), &role).await?;
        let ask = json!({
            "common_name": "rig-story", "ttl": "72h", "private_key_format": "pkcs8",
        });
        let reply = vault.must_write(&format!("{mount}/issue/{ROLE}"), &ask).await?;
        let part = |name: &str| reply.data(name).as_str().unwrap_or_default().to_owned();
        let pem = format!("{}\n{}\n", part("certificate"), part("private_key"));
        Ok(Self::new(ca, pem.into_bytes()))
    }
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body as text.
    pub text: String,
    /// The body as JSON, null where it is none.
    pub json: Value,
}

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    base: String,
}

impl Api {
    /// A client of the server at `base`, an URL without a path.
    pub fn new(base: String, who: &Identity) -> Result<Self, String> {
        crate::pki::install_crypto();
        let failed = |error: reqwest::Error| format!("{base}: {error:?}");
        let root = reqwest::Certificate::from_pem(who.ca.as_bytes()).map_err(failed)?;
        let identity = reqwest::Identity::from_pem(&who.pem).map_err(failed)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(CALL_DEADLINE)
            .pool_max_idle_per_host(0)
            .tls_certs_only([root])
            .identity(identity)
            .build()
            .map_err(failed)?;
        Ok(Self { http, base })
    }

    /// Any call; an error only where there is no answer.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, String> {
        let url = format!("{}{path}", self.base);
        let failed = |error: reqwest::Error| format!("{method} {url}: {error:?}");
        let verb = reqwest::Method::from_bytes(method.as_bytes()).map_err(|e| e.to_string())?;
        let mut request = self.http.request(verb, &url);
        if let Some(body) = body {
            let kind = match method {
                "PATCH" => "application/merge-patch+json",
                _ => "application/json",
            };
            request = request.header("content-type", kind).body(body.to_string());
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(failed)?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, text, json })
    }

    /// A call that has to succeed.
    pub async fn must(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        let answer = self.call(method, path, body).await?;
        match answer.status {
            200..300 => Ok(answer.json),
            status => {
                Err(format!("{method} {}{path}: {status}: {}", self.base, answer.text.trim()))
            }
        }
    }

    /// Follows a watch for at most this long: gives each line as it comes, and then what ended it.
    pub async fn follow(
        &self,
        path: &str,
        limit: Duration,
        mut line: impl FnMut(Value),
    ) -> Result<(), String> {
        let url = format!("{}{path}", self.base);
        let failed = |error: reqwest::Error| format!("GET {url}: {error:?}");
        let response = self.http.get(&url).timeout(limit).send().await.map_err(failed)?;
        let mut response = response.error_for_status().map_err(failed)?;
        let mut kept = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(failed)? {
            kept.extend_from_slice(&bytes);
            while let Some(end) = kept.iter().position(|byte| *byte == b'\n') {
                let whole: Vec<u8> = kept.drain(..=end).collect();
                line(serde_json::from_slice(&whole).map_err(|error| error.to_string())?);
            }
        }
        Ok(())
    }

    /// An object.
    pub async fn get(&self, path: &str) -> Result<Value, String> {
        self.must("GET", path, None).await
    }

    /// The items of a list.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, String> {
        let list = self.get(path).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Creates an object in the collection at `path`.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, String> {
        self.must("POST", path, Some(object)).await
    }

    /// Merges into an object.
    pub async fn patch(&self, path: &str, change: &Value) -> Result<Value, String> {
        self.must("PATCH", path, Some(change)).await
    }

    /// Deletes an object.
    pub async fn delete(&self, path: &str) -> Result<Value, String> {
        self.must("DELETE", path, None).await
    }
}

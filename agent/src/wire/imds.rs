//! The instance metadata service of AWS, version 2: a session token first, then the signed
//! identity document. The `rsa2048` form is taken because it is the one that Vault's maintainers
//! recommend: `pkcs7` is DSA with SHA-1 and broke twice with the Go that Vault is built with.

mod ber;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;

use super::http::{Http, Limits, Peer, Trust};
use crate::error::{Code, Context, Error, Result, said};
use crate::secret::Secret;

/// The service is on the host of the instance and answers in milliseconds; the signed document
/// has 2 KiB.
pub const LIMITS: Limits =
    Limits { connect: Duration::from_secs(2), total: Duration::from_secs(5), body: 64 << 10 };

/// Where every instance finds it.
pub const ENDPOINT: &str = "http://169.254.169.254";

const PEER: Peer = Peer {
    unreachable: Code::ImdsUnreachable,
    failing: Code::ImdsAnswer,
    denied: Code::ImdsUnreachable,
};

/// Seconds that a session token is asked for: the two reads of a log-in take far less, and a
/// token that is dropped soon is of no use to anybody who finds it.
const SESSION_SECONDS: &str = "300";

const SESSION: &str = "/latest/api/token";
const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
const SIGNED: &str = "/latest/dynamic/instance-identity/rsa2048";

/// Who an instance is, in AWS's words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityDocument {
    /// `i-…`
    pub instance_id: String,
    /// `ami-…`
    pub image_id: String,
    /// Twelve digits.
    pub account_id: String,
    /// `eu-central-1`
    pub region: String,
    /// `eu-central-1a`
    pub availability_zone: String,
    /// `m7g.large`
    pub instance_type: String,
    /// The address in the VPC.
    pub private_ip: Option<IpAddr>,
    /// When the instance was last started. Vault remembers it and takes nothing older; one that
    /// it cannot read would lock the instance out at the first log-in, so it is read here first.
    pub pending_time: Timestamp,
}

/// A document and the proof of it.
#[derive(Clone, Debug)]
pub struct SignedDocument {
    /// What the instance is.
    pub document: IdentityDocument,
    /// The PKCS#7 that says so: base64 without newlines, as Vault takes it.
    pub pkcs7: Secret,
}

/// A client of the metadata service.
pub struct Imds {
    http: Http,
    endpoint: String,
    session: Mutex<Option<Secret>>,
}

impl fmt::Debug for Imds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imds").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Imds {
    /// A client of the service at an endpoint, [`ENDPOINT`] but for tests.
    pub fn new(endpoint: &str, limits: Limits) -> Result<Imds> {
        Ok(Imds {
            http: Http::new(limits, &Trust::Plain, PEER)?,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            session: Mutex::new(None),
        })
    }

    /// Who this instance is.
    pub async fn document(&self) -> Result<IdentityDocument> {
        let body = self.get(DOCUMENT).await?;
        parse(&body).at(self.url(DOCUMENT))
    }

    /// The signed document: base64 without newlines.
    pub async fn rsa2048(&self) -> Result<String> {
        let body = self.get(SIGNED).await?;
        let text: Vec<u8> = body.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let decoded = STANDARD.decode(&text).ok().filter(|decoded| !decoded.is_empty());
        match (decoded, String::from_utf8(text)) {
            (Some(_), Ok(text)) => Ok(text),
            (_, text) => {
                let found = text.unwrap_or_else(|error| lossy(error.as_bytes()));
                Err(answer(format!("no base64: {}", start(&found)))).at(self.url(SIGNED))
            }
        }
    }

    /// The document and its proof, of one session, and the proof is of this very document: what
    /// Vault will read is what the agent believes of itself. The signature is Vault's to check.
    pub async fn signed_document(&self) -> Result<SignedDocument> {
        let pkcs7 = self.rsa2048().await?;
        let document = self.document().await?;
        let der = STANDARD.decode(&pkcs7).unwrap_or_default();
        let content = ber::signed_content(&der)
            .ok_or_else(|| answer("base64 of what is no PKCS#7 with content".into()))
            .at(self.url(SIGNED))?;
        let signed = parse(&content).at(self.url(SIGNED))?;
        if signed != document {
            let text = format!(
                "the signed document is of {} started {}, the plain one of {} started {}",
                signed.instance_id,
                signed.pending_time,
                document.instance_id,
                document.pending_time
            );
            return Err(answer(text)).at(self.url(SIGNED));
        }
        let pkcs7 = Secret::new(pkcs7);
        Ok(SignedDocument { document, pkcs7 })
    }

    /// Reads a path with the session token; one that has run out (401) is replaced once.
    async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let kept = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(session) = kept {
            let reply = self.read(path, &session).await?;
            if reply.status() != StatusCode::UNAUTHORIZED {
                return good(reply).at(self.url(path));
            }
        }
        let session = self.open_session().await?;
        let reply = self.read(path, &session).await?;
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        good(reply).at(self.url(path))
    }

    async fn read(&self, path: &str, session: &Secret) -> Result<Response<Vec<u8>>> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(self.url(path))
            .header("x-aws-ec2-metadata-token", session.expose());
        self.send(request).await
    }

    async fn open_session(&self) -> Result<Secret> {
        let request = Request::builder()
            .method(Method::PUT)
            .uri(self.url(SESSION))
            .header("x-aws-ec2-metadata-token-ttl-seconds", SESSION_SECONDS);
        let sent = self.send(request).await.map_err(|error| {
            // The answer to this one request carries the hop limit as its IP time to live.
            error.advise(
                "is this an AWS instance, is its metadata service on, and is there no bridge or \
                 container between (the hop limit is 1 unless raised: aws ec2 \
                 modify-instance-metadata-options --http-put-response-hop-limit 2)?",
            )
        })?;
        let body = good(sent).at(self.url(SESSION))?;
        let token = String::from_utf8(body).unwrap_or_default();
        let usable = !token.is_empty()
            && HeaderValue::from_str(&token).is_ok()
            && !token.contains(|letter: char| letter == '<' || letter.is_whitespace());
        if !usable {
            let text = "what was answered is no session token".to_owned();
            return Err(answer(text)).at(self.url(SESSION));
        }
        Ok(Secret::new(token))
    }

    async fn send(&self, request: http::request::Builder) -> Result<Response<Vec<u8>>> {
        let request = request
            .body(Vec::new())
            .map_err(|error| Error::new(Code::Config, format!("{}: {error}", self.endpoint)))?;
        self.http.send(request).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint)
    }
}

fn good(reply: Response<Vec<u8>>) -> Result<Vec<u8>> {
    match reply.status() {
        StatusCode::OK => Ok(reply.into_body()),
        StatusCode::FORBIDDEN => Err(answer("403 the metadata service is switched off".into())
            .advise("aws ec2 modify-instance-metadata-options --http-endpoint enabled")),
        status => Err(answer(format!("{} {}", status.as_u16(), start(&lossy(reply.body()))))),
    }
}

fn parse(body: &[u8]) -> Result<IdentityDocument> {
    let document: IdentityDocument = serde_json::from_slice(body).map_err(|error| {
        answer(format!("no identity document ({}): {}", said(&error), start(&lossy(body))))
    })?;
    let id = &document.instance_id;
    // The id becomes a file name and part of a command that a person is told to run.
    let plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if id.is_empty() || id.len() > 64 || !plain {
        return Err(answer(format!("{:?} is no instance id", start(id))));
    }
    Ok(document)
}

fn answer(text: String) -> Error {
    Error::new(Code::ImdsAnswer, text)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What was found, as far as it fits into a line.
fn start(text: &str) -> String {
    const LETTERS: usize = 80;
    let mut line: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|letter| !letter.is_control())
        .take(LETTERS)
        .collect();
    if line.is_empty() {
        line.push_str("(nothing)");
    }
    line
}

#[cfg(test)]
mod tests;

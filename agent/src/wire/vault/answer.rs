//! Reading Vault's successes: of each only what the agent uses, every field that some Vault
//! leaves out optional. A text that does not fit is never quoted: it may hold the token.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use vaultrs::api::pki::responses::SignCertificateResponse;

use super::sort::Reply;
use super::{Auth, Health, Signed, TokenInfo};
use crate::error::{Code, Error, Result};
use crate::secret::Secret;

/// What all answers are wrapped in.
#[derive(Deserialize)]
struct Envelope<T> {
    data: Option<T>,
    auth: Option<AuthBody>,
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct AuthBody {
    client_token: String,
    #[serde(default)]
    accessor: String,
    lease_duration: u64,
    renewable: bool,
    policies: Option<Vec<String>>,
    metadata: Option<BTreeMap<String, String>>,
}

/// vaultrs' own type for this has no period and takes a `num_uses` of -1 for an error.
#[derive(Deserialize)]
struct TokenBody {
    ttl: u64,
    #[serde(default)]
    creation_ttl: u64,
    issue_time: Option<Timestamp>,
    expire_time: Option<Timestamp>,
    renewable: Option<bool>,
    period: Option<u64>,
    explicit_max_ttl: Option<u64>,
    policies: Option<Vec<String>>,
    #[serde(default)]
    accessor: String,
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct HealthBody {
    initialized: bool,
    sealed: bool,
    standby: bool,
    server_time_utc: i64,
    #[serde(default)]
    version: String,
}

/// The token of a log-in or a renewal.
pub(super) fn auth(reply: &Reply) -> Result<Auth> {
    let envelope: Envelope<serde::de::IgnoredAny> = parse(reply)?;
    let body = envelope.auth.ok_or_else(|| strange("an answer without a token"))?;
    if body.client_token.is_empty() {
        let error = strange("an empty token: the log-in wants a second factor");
        return Err(error.advise("exempt the node's role from login MFA"));
    }
    let mut metadata = body.metadata.unwrap_or_default();
    // Vault puts a nonce of its own there if it took ours for none; whoever holds it can log in.
    metadata.remove("nonce");
    Ok(Auth {
        token: Secret::new(body.client_token),
        accessor: body.accessor,
        lease: Duration::from_secs(body.lease_duration),
        renewable: body.renewable,
        policies: body.policies.unwrap_or_default(),
        metadata,
        warnings: envelope.warnings.unwrap_or_default(),
    })
}

/// The answer of lookup-self.
pub(super) fn token(reply: &Reply) -> Result<TokenInfo> {
    let body: TokenBody = data(parse(reply)?)?.0;
    let limit = |seconds: Option<u64>| {
        let seconds = seconds.filter(|seconds| *seconds > 0);
        seconds.map(Duration::from_secs)
    };
    Ok(TokenInfo {
        ttl: Duration::from_secs(body.ttl),
        creation_ttl: Duration::from_secs(body.creation_ttl),
        issue_time: body.issue_time,
        expire_time: body.expire_time,
        renewable: body.renewable.unwrap_or_default(),
        period: limit(body.period),
        explicit_max_ttl: limit(body.explicit_max_ttl),
        policies: body.policies.unwrap_or_default(),
        accessor: body.accessor,
        metadata: body.meta.unwrap_or_default(),
    })
}

/// The certificate of a sign.
pub(super) fn signed(reply: &Reply) -> Result<Signed> {
    let (body, warnings) = data::<SignCertificateResponse>(parse(reply)?)?;
    let chain = body.ca_chain.filter(|chain| !chain.is_empty());
    let chain = chain.unwrap_or_else(|| vec![body.issuing_ca]);
    Ok(Signed {
        certificate_pem: line(&body.certificate),
        chain_pem: chain.iter().map(|pem| line(pem)).collect(),
        serial: body.serial_number,
        warnings,
    })
}

/// The answer of sys/health, which any status may carry.
pub(super) fn health(reply: &Reply) -> Option<Health> {
    let body: HealthBody = serde_json::from_slice(&reply.body).ok()?;
    Some(Health {
        initialized: body.initialized,
        sealed: body.sealed,
        standby: body.standby,
        version: body.version,
        server_time: Timestamp::from_second(body.server_time_utc).ok()?,
    })
}

/// The `data` of any answer.
pub(super) fn data_of<T: DeserializeOwned>(reply: &Reply) -> Result<T> {
    Ok(data(parse(reply)?)?.0)
}

fn parse<T: DeserializeOwned>(reply: &Reply) -> Result<Envelope<T>> {
    serde_json::from_slice(&reply.body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        strange(&format!(
            "{} with JSON that is no answer to this call (line {line}, column {column})",
            reply.status
        ))
    })
}

fn data<T>(envelope: Envelope<T>) -> Result<(T, Vec<String>)> {
    let data = envelope.data.ok_or_else(|| strange("an answer without data"))?;
    Ok((data, envelope.warnings.unwrap_or_default()))
}

fn strange(text: &str) -> Error {
    Error::new(Code::VaultFailing, text)
}

/// Vault's PEM has no newline at its end, and two of those in one file are no PEM.
fn line(pem: &str) -> String {
    format!("{}\n", pem.trim_end())
}

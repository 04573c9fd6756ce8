//! Vault: the calls that a node makes, typed by vaultrs and sent by our own bounded client.
//!
//! The requests are vaultrs' where those are exact; [`Ec2Login`] is not (vaultrs' sends empty
//! fields beside the document, which Vault may count as given). Of an answer only what the agent
//! uses is read, so that a field more or less in the next Vault is no outage. What is no success
//! goes through [`sort`], the one table of what Vault's refusals mean. Every answer that is
//! Vault's also tells Vault's time: the evidence for the clock gate ([`Observed`]).

mod answer;
mod kv;
mod login;
mod observed;
mod sort;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::HeaderValue;
use http::{Request, Response};
use jiff::Timestamp;
use rustify::endpoint::Endpoint;
use vaultrs::api::EndpointMiddleware;
use vaultrs::api::pki::requests::SignCertificateRequest;
use vaultrs::api::sys::requests::ReadHealthRequest;
use vaultrs::api::token::requests::{
    LookupTokenSelfRequest, RenewTokenSelfRequest, RevokeTokenSelfRequest,
};

pub use self::kv::KvSecret;
use self::login::Ec2Login;
pub use self::observed::Observed;
use self::sort::{Call, Reply};
use super::http::{Http, Limits, Peer, Trust};
use crate::error::{Code, Context, Error, Result};
use crate::secret::Secret;

const PEER: Peer = Peer {
    unreachable: Code::VaultUnreachable,
    failing: Code::VaultFailing,
    denied: Code::VaultUnreachable,
};

/// The wall clock and a monotonic clock, read together. Wire never asks the system itself.
pub type Stamp = Arc<dyn Fn() -> (Timestamp, Duration) + Send + Sync>;

/// Where Vault is and whom to believe there.
#[derive(Clone)]
pub struct VaultOptions {
    /// `https://vault.example:8200`, no path. `http://` is for tests on loopback.
    pub address: String,
    /// The authorities (PEM) that sign Vault's certificate; must be there for `https`.
    pub ca_pem: Option<Vec<u8>>,
    /// The namespace, in Vault Enterprise and OpenBao.
    pub namespace: Option<String>,
    /// What a call may cost. Vault itself holds a log-in for up to 90 s while EC2 does not answer;
    /// to wait for that gains nothing.
    pub limits: Limits,
    /// The clocks.
    pub stamp: Stamp,
}

impl fmt::Debug for VaultOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultOptions")
            .field("address", &self.address)
            .field("namespace", &self.namespace)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A client of one Vault; it holds no token.
pub struct Vault {
    http: Http,
    base: String,
    namespace: Option<String>,
    stamp: Stamp,
    observed: Mutex<Option<Observed>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("base", &self.base)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// How a node proves who it is.
#[derive(Clone, Debug)]
pub enum Login {
    /// An AWS instance: its signed identity document and the client nonce.
    Ec2 {
        /// The role of the aws auth mount.
        role: String,
        /// The `rsa2048` document of IMDS, base64 without newlines.
        pkcs7: Secret,
        /// The client nonce, at most 128 characters.
        nonce: Secret,
        /// Whom the document names: for what an administrator is told when Vault refuses.
        instance_id: String,
    },
}

/// A token and its lease, from a log-in or a renewal.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The token.
    pub token: Secret,
    /// The token's name in Vault's audit log and for `vault token revoke -accessor`.
    pub accessor: String,
    /// How long it is valid from now; zero means for ever.
    pub lease: Duration,
    /// Whether it can be renewed at all.
    pub renewable: bool,
    /// The policies it carries.
    pub policies: Vec<String>,
    /// What the auth method says of its owner. A nonce is never among it.
    pub metadata: BTreeMap<String, String>,
    /// Vault's remarks, say that the lease was cut because the maximum is near.
    pub warnings: Vec<String>,
}

/// What Vault knows of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// What is left; zero with no `expire_time` means for ever.
    pub ttl: Duration,
    /// What it was at the start or the last renewal.
    pub creation_ttl: Duration,
    /// When the token was made.
    pub issue_time: Option<Timestamp>,
    /// When it ends unless renewed.
    pub expire_time: Option<Timestamp>,
    /// Whether it can be renewed at all.
    pub renewable: bool,
    /// The period, if the token is periodic: it can then be renewed without end.
    pub period: Option<Duration>,
    /// The longest life that no renewal exceeds, if there is one.
    pub explicit_max_ttl: Option<Duration>,
    /// The policies it carries.
    pub policies: Vec<String>,
    /// The token's name in Vault's audit log.
    pub accessor: String,
    /// What the auth method said of its owner.
    pub metadata: BTreeMap<String, String>,
}

/// A certificate as it is asked for. The same names are in the request's CSR: roles differ in
/// which of the two they read.
#[derive(Clone, Debug)]
pub struct SignRequest {
    /// The certificate signing request, PEM.
    pub csr_pem: String,
    /// The subject's common name.
    pub common_name: String,
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
    /// URIs.
    pub uris: Vec<String>,
    /// How long it is to live; a role cuts it to its maximum.
    pub ttl: Duration,
}

/// A certificate as it was signed. Nothing of it is checked here.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The leaf, PEM with a newline at its end.
    pub certificate_pem: String,
    /// The issuer first, then whatever signed it, the root included where the mount knows it.
    pub chain_pem: Vec<String>,
    /// The serial as Vault prints it: `3a:f1:…`.
    pub serial: String,
    /// Vault's remarks, say that the life was cut.
    pub warnings: Vec<String>,
}

/// What Vault says of itself; a sealed one answers too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it has been initialised.
    pub initialized: bool,
    /// Whether it is sealed.
    pub sealed: bool,
    /// Whether another server of the cluster is the active one.
    pub standby: bool,
    /// Its version.
    pub version: String,
    /// Its clock, whole seconds.
    pub server_time: Timestamp,
}

impl Vault {
    /// A client of the Vault at an address; nothing is sent yet.
    pub fn new(options: VaultOptions) -> Result<Vault> {
        let trust = trust(&options).at(&options.address)?;
        if let Some(namespace) = &options.namespace {
            HeaderValue::from_str(namespace)
                .map_err(|_| Error::new(Code::Config, format!("no namespace: {namespace:?}")))?;
        }
        Ok(Vault {
            http: Http::new(options.limits, &trust, PEER)?,
            base: options.address.trim_end_matches('/').to_owned(),
            namespace: options.namespace,
            stamp: options.stamp,
            observed: Mutex::new(None),
        })
    }

    /// Logs in at `auth/<mount>`.
    pub async fn login(&self, mount: &str, login: &Login) -> Result<Auth> {
        let Login::Ec2 { role, pkcs7, nonce, instance_id } = login;
        let call = Call::Login { mount, role, instance: instance_id };
        let endpoint = Ec2Login {
            mount: mount.to_owned(),
            role: role.clone(),
            pkcs7: pkcs7.expose().to_owned(),
            nonce: nonce.expose().to_owned(),
        };
        let reply = self.ask_hiding(Some(nonce), &call, None, endpoint).await?;
        answer::auth(&reply).at(call.place())
    }

    /// What Vault knows of a token.
    pub async fn lookup_self(&self, token: &Secret) -> Result<TokenInfo> {
        let endpoint = LookupTokenSelfRequest {};
        let reply = self.ask(&Call::Lookup, Some(token), endpoint).await?;
        answer::token(&reply).at(Call::Lookup.place())
    }

    /// Renews a token. `increment` counts from now, it does not add: a short one shortens.
    pub async fn renew_self(&self, token: &Secret, increment: Duration) -> Result<Auth> {
        let endpoint = RenewTokenSelfRequest { increment: Some(seconds(increment)) };
        let reply = self.ask(&Call::Renew, Some(token), endpoint).await?;
        answer::auth(&reply).at(Call::Renew.place())
    }

    /// Ends a token.
    pub async fn revoke_self(&self, token: &Secret) -> Result<()> {
        let endpoint = RevokeTokenSelfRequest {};
        self.ask(&Call::Revoke, Some(token), endpoint).await?;
        Ok(())
    }

    /// Has a certificate signed by `<mount>/sign/<role>`.
    pub async fn sign(
        &self,
        token: &Secret,
        mount: &str,
        role: &str,
        request: &SignRequest,
    ) -> Result<Signed> {
        let call = Call::Sign { mount, role };
        let endpoint = SignCertificateRequest {
            mount: mount.to_owned(),
            role: role.to_owned(),
            csr: Some(request.csr_pem.clone()),
            common_name: Some(request.common_name.clone()),
            alt_names: Some(list(&request.dns).at(call.place())?),
            ip_sans: Some(list(&request.ips).at(call.place())?),
            uri_sans: Some(list(&request.uris).at(call.place())?),
            // Else a role that reads the parameters adds the common name to the DNS names.
            exclude_cn_from_sans: Some(true),
            format: Some("pem".into()),
            ttl: Some(seconds(request.ttl)),
            ..SignCertificateRequest::default()
        };
        let reply = self.ask(&call, Some(token), endpoint).await?;
        answer::signed(&reply).at(call.place())
    }

    /// Asks Vault how it is. Its status codes tell the same as the body, so all are answers.
    pub async fn health(&self) -> Result<Health> {
        let request = self.request(None, ReadHealthRequest::default())?;
        let reply = self.exchange(request).await?;
        match answer::health(&reply) {
            Some(health) => Ok(health),
            None => Err(sort::sort(&Call::Health, &reply)).at(Call::Health.place()),
        }
    }

    /// What was last learnt of Vault's clock.
    pub fn observed(&self) -> Option<Observed> {
        *self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call, from the typed request to an answer of Vault that is a success.
    async fn ask<E: Endpoint>(
        &self,
        call: &Call<'_>,
        token: Option<&Secret>,
        endpoint: E,
    ) -> Result<Reply> {
        self.ask_hiding(token, call, token, endpoint).await
    }

    /// The same, with what was sent and is not shown, should the answer quote it.
    async fn ask_hiding<E: Endpoint>(
        &self,
        secret: Option<&Secret>,
        call: &Call<'_>,
        token: Option<&Secret>,
        endpoint: E,
    ) -> Result<Reply> {
        let request = self.request(token, endpoint).at(call.place())?;
        let reply = self.exchange(request).await?;
        if reply.is_success() {
            return Ok(reply);
        }
        Err(sort::sort(call, &reply.hiding(secret))).at(call.place())
    }

    /// The request that vaultrs makes of an endpoint. It is sent by our own client rather than by
    /// rustify's `exec`, which drops the headers of a refusal and logs each as an error.
    fn request<E: Endpoint>(
        &self,
        token: Option<&Secret>,
        endpoint: E,
    ) -> Result<Request<Vec<u8>>> {
        let token = token.map_or("", Secret::expose);
        HeaderValue::from_str(token)
            .map_err(|_| Error::new(Code::TokenInvalid, "the token holds control characters"))?;
        let middleware = EndpointMiddleware {
            token: token.to_owned(),
            version: "v1".into(),
            wrap: None,
            namespace: self.namespace.clone(),
        };
        endpoint
            .with_middleware(&middleware)
            .request(&self.base)
            .map_err(|error| Error::new(Code::Bug, format!("no request: {error}")))
    }

    async fn exchange(&self, request: Request<Vec<u8>>) -> Result<Reply> {
        let (_, sent) = (self.stamp)();
        let answer = self.http.send(request).await?;
        let (wall, received) = (self.stamp)();
        let date = observed::date(&answer);
        let reply = reply(answer);
        if let Some(server) = date.filter(|_| reply.is_vaults()) {
            let note = Observed::new(server, wall, received, received.saturating_sub(sent));
            if note.is_sharp() {
                let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
                *observed = Some(note);
            }
        }
        Ok(reply)
    }
}

/// An address that can be used, and whom to trust there.
fn trust(options: &VaultOptions) -> Result<Trust> {
    let wrong = |text: &str| {
        Error::new(Code::Config, text).advise("write it as https://vault.example:8200")
    };
    let address = reqwest::Url::parse(&options.address)
        .map_err(|error| wrong(&format!("the address of Vault is no URL: {error}")))?;
    let user = !address.username().is_empty() || address.password().is_some();
    if user || address.host_str().is_none_or(str::is_empty) {
        return Err(wrong("the address of Vault needs a host and no user name"));
    }
    let rest = address.query().is_some() || address.fragment().is_some();
    if rest || !matches!(address.path(), "" | "/") {
        return Err(wrong("the address of Vault must end after host and port"));
    }
    match (address.scheme(), &options.ca_pem) {
        ("http", _) => Ok(Trust::Plain),
        ("https", Some(pem)) => Ok(Trust::Pinned(pem.clone())),
        ("https", None) => Err(wrong("https needs the authorities that sign for Vault")),
        _ => Err(wrong("the address of Vault begins with neither https:// nor http://")),
    }
}

fn reply(answer: Response<Vec<u8>>) -> Reply {
    let header = |name: http::HeaderName| {
        let value = answer.headers().get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    Reply {
        status: answer.status().as_u16(),
        content_type: header(http::header::CONTENT_TYPE).unwrap_or_default(),
        retry_after: header(http::header::RETRY_AFTER).and_then(|text| text.trim().parse().ok()),
        location: header(http::header::LOCATION),
        body: answer.into_body(),
    }
}

/// Names as Vault takes them, joined by commas; one with a comma in it would be two.
fn list<T: ToString>(names: &[T]) -> Result<String> {
    let names: Vec<String> = names.iter().map(T::to_string).collect();
    match names.iter().find(|name| name.contains(',')) {
        Some(name) => Err(Error::new(Code::Config, format!("a comma in the name {name:?}"))),
        None => Ok(names.join(",")),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

#[cfg(test)]
mod tests;

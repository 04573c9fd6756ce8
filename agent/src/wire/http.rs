//! The one place that builds HTTP clients. Everything that can go on for ever or grow without
//! bound in a client of the shelf has its limit here: the connection, the whole exchange (name
//! resolution included, which can hang in the C library), the size of the answer, the redirects,
//! the idle connections. Nothing is tried twice: whoever calls knows whether that is safe.

use std::error::Error as Cause;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::LOCATION;
use http::uri::{Scheme, Uri};
use http::{Request, Response, StatusCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use crate::error::{Code, Context, Error, Result, said};
use crate::failpoint::{self, Kind};
use crate::secret::Secret;
use crate::version::VERSION;

/// How long an unused connection is kept: long enough for the calls of one log-in and the
/// certificates after it, so short that an idle agent holds no socket.
const IDLE: Duration = Duration::from_secs(20);

/// A standby Vault names the active one, which may have changed meanwhile: two, then it is a loop.
const REDIRECTS: usize = 2;

/// What one exchange may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the connection stands, name resolution and TLS included.
    pub connect: Duration,
    /// From the call to the last byte of the answer, redirects included.
    pub total: Duration,
    /// Bytes of an answer.
    pub body: usize,
}

/// For a server on the network whose answers are texts: a megabyte is a hundred times the longest.
impl Default for Limits {
    fn default() -> Limits {
        Limits { connect: Duration::from_secs(5), total: Duration::from_secs(30), body: 1 << 20 }
    }
}

/// Whom a client believes.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Servers whose certificate leads to one of these roots (PEM), and no other.
    Pinned(Vec<u8>),
    /// Nobody: for plain HTTP. An `https` address fails with it.
    Plain,
}

/// What a client proves itself with in TLS. One that was replaced on disk needs a new client.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// The certificate, and behind it whatever leads to the root (PEM).
    pub cert_pem: String,
    /// Its key (PEM).
    pub key_pem: Secret,
}

/// Who is on the other side: the codes for its troubles.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// It does not answer: refused, timed out, cut, not trusted.
    pub unreachable: Code,
    /// It answers what is no HTTP, or more than the limit.
    pub failing: Code,
    /// It ends TLS over our client certificate: none, expired, of an authority it does not know.
    pub denied: Code,
}

/// A client with limits. Clones share the connections.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    limits: Limits,
    peer: Peer,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Http {
    /// Builds a client. No proxy of the environment is used: a proxy must see neither the token
    /// nor the metadata address, and a variable of a shell must not redirect a daemon.
    pub fn new(limits: Limits, trust: &Trust, peer: Peer) -> Result<Http> {
        Http::with_identity(limits, trust, None, peer)
    }

    /// The same with a client certificate, where there is one.
    pub fn with_identity(
        limits: Limits,
        trust: &Trust,
        identity: Option<&ClientIdentity>,
        peer: Peer,
    ) -> Result<Http> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(trust, identity)?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(limits.connect)
            .pool_idle_timeout(IDLE)
            .user_agent(format!("nodeagent/{VERSION}"))
            .build()
            .map_err(|error| Error::new(Code::Bug, format!("no HTTP client: {error}")))?;
        Ok(Http { client, limits, peer })
    }

    /// Sends a request and reads the answer, whatever its status, to the end.
    pub async fn send(&self, mut request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>> {
        for value in request.headers_mut().values_mut() {
            // Tokens travel in headers, and a sensitive value is not shown by Debug.
            value.set_sensitive(true);
        }
        let place = place(request.uri());
        let total = self.limits.total;
        match tokio::time::timeout(total, self.follow(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(format!("no answer within {total:?}")).at(place)),
        }
    }

    /// Follows redirects that keep method and body, from https to https only: the next server
    /// too has to prove itself to the pinned authority before it is shown the token.
    async fn follow(&self, mut request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>> {
        let mut answer = self.exchange(&request).await?;
        let first = place(request.uri());
        for _ in 0..REDIRECTS {
            let Some(next) = redirect(request.uri(), &answer) else {
                break;
            };
            *request.uri_mut() = next;
            let redirected = self.exchange(&request).await;
            answer = redirected.during(format!("redirected from {first}"))?;
        }
        Ok(answer)
    }

    async fn exchange(&self, request: &Request<Vec<u8>>) -> Result<Response<Vec<u8>>> {
        let (method, path) = (request.method(), request.uri().path());
        failpoint::before(Kind::Request, format_args!("{method} {path}"));
        let answer = self.exchange_at(request.clone()).await;
        failpoint::after(Kind::Request, format_args!("{method} {path}"));
        answer.at(place(request.uri()))
    }

    async fn exchange_at(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>> {
        let request = reqwest::Request::try_from(request)
            .map_err(|error| Error::new(Code::Bug, format!("no request: {}", cause(&error))))?;
        let sent = self.client.execute(request).await;
        let mut answer = sent.map_err(|error| self.broken(&error))?;
        let mut whole = Response::new(Vec::new());
        *whole.status_mut() = answer.status();
        *whole.headers_mut() = std::mem::take(answer.headers_mut());
        let body = whole.body_mut();
        while let Some(part) = answer.chunk().await.map_err(|error| self.broken(&error))? {
            if body.len() + part.len() > self.limits.body {
                let text = format!("the answer is longer than {} bytes", self.limits.body);
                return Err(Error::new(self.peer.failing, text));
            }
            body.extend_from_slice(&part);
        }
        Ok(whole)
    }

    fn unreachable(&self, text: String) -> Error {
        Error::new(self.peer.unreachable, text)
    }

    fn broken(&self, error: &reqwest::Error) -> Error {
        // A connection that stood may time out too, in TCP: that one has carried the request.
        if error.is_timeout() && error.is_connect() {
            let text = format!("no connection within {:?}", self.limits.connect);
            return self.unreachable(text).unsent();
        }
        if let Some(alert) = about_us(error) {
            let text = format!("the server does not take our client certificate ({alert:?})");
            return Error::new(self.peer.denied, text);
        }
        let cause = cause(error);
        if cause.starts_with("invalid HTTP") {
            let text = format!("the answer is no HTTP ({cause})");
            return Error::new(self.peer.failing, text);
        }
        let unreachable = self.unreachable(cause);
        if error.is_connect() { unreachable.unsent() } else { unreachable }
    }
}

/// The TLS side of a client: the roots that are given and nothing of the system's.
fn tls(trust: &Trust, identity: Option<&ClientIdentity>) -> Result<ClientConfig> {
    let roots = match trust {
        Trust::Pinned(pem) => roots(pem)?,
        Trust::Plain => RootCertStore::empty(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Code::Bug, format!("no TLS: {error}")))?;
    let config = config.with_root_certificates(roots);
    match identity {
        None => Ok(config.with_no_client_auth()),
        Some(identity) => {
            let (chain, key) = pair(identity)?;
            config.with_client_auth_cert(chain, key).map_err(|error| ours(&error))
        }
    }
}

fn pair(
    identity: &ClientIdentity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes());
    let chain: Vec<_> =
        chain.collect::<std::result::Result<_, _>>().map_err(|error| ours(&error))?;
    if chain.is_empty() {
        return Err(ours(&"no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose().as_bytes());
    // What the PEM reader says of a key may quote it.
    let key = key.map_err(|_| ours(&"no private key (PEM) in it"))?;
    Ok((chain, key))
}

fn ours(error: &impl fmt::Display) -> Error {
    Error::new(Code::CertificateBad, format!("the client certificate: {}", said(error)))
}

fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let bad = |text: String| {
        Error::new(Code::CertificateBad, text).advise(
            "put the PEM certificate of the authority that signs this server's certificate there",
        )
    };
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let number = index + 1;
        let certificate = certificate.map_err(|error| {
            bad(format!("certificate {number} of the bundle: {}", said(&error)))
        })?;
        roots.add(certificate).map_err(|error| {
            bad(format!("certificate {number} of the bundle: {}", said(&error)))
        })?;
    }
    if roots.is_empty() {
        return Err(bad("the bundle of authorities holds no certificate".into()));
    }
    Ok(roots)
}

/// Where a 307 or 308 leads, if it may be followed.
fn redirect(from: &Uri, answer: &Response<Vec<u8>>) -> Option<Uri> {
    let keeps_method = [StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT];
    if !keeps_method.contains(&answer.status()) {
        return None;
    }
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    let next: Uri = location.parse().ok()?;
    let https = |uri: &Uri| uri.scheme() == Some(&Scheme::HTTPS);
    let plain_authority = !next.authority()?.as_str().contains('@');
    (https(from) && https(&next) && plain_authority).then_some(next)
}

/// The address of a request without its query and without credentials.
pub fn place(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{}", uri.path())
}

/// The innermost cause of an error in plain words; the layers above it only say "failed".
pub(super) fn cause(error: &(dyn Cause + 'static)) -> String {
    let mut current = error;
    loop {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return untrusted(tls);
        }
        // The source of an I/O error skips the error that it wraps, so that one is asked for.
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            match io.get_ref() {
                Some(inner) => current = inner,
                None => return system(io),
            }
            continue;
        }
        match current.source() {
            Some(inner) => current = inner,
            None => return current.to_string(),
        }
    }
}

/// What a server says about a client certificate: it can say nothing else of certificates.
fn about_us(error: &reqwest::Error) -> Option<AlertDescription> {
    use AlertDescription as Alert;
    let mut current: Option<&(dyn Cause + 'static)> = Some(error);
    while let Some(error) = current {
        let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = error.downcast_ref::<rustls::Error>();
        if let Some(rustls::Error::AlertReceived(alert)) = tls {
            let certificates = [
                Alert::CertificateRequired,
                Alert::BadCertificate,
                Alert::UnsupportedCertificate,
                Alert::CertificateRevoked,
                Alert::CertificateExpired,
                Alert::CertificateUnknown,
                Alert::UnknownCA,
                Alert::AccessDenied,
            ];
            return certificates.contains(alert).then_some(*alert);
        }
        current = match io {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// `connection refused` rather than `Connection refused (os error 111)`.
fn system(error: &std::io::Error) -> String {
    let kind = error.kind().to_string();
    let known = error.raw_os_error().is_some() && kind != "uncategorized error";
    if known { kind } else { error.to_string() }
}

fn untrusted(error: &rustls::Error) -> String {
    let reason = match error {
        rustls::Error::InvalidCertificate(reason) => reason,
        rustls::Error::InvalidMessage(_) => return "this port does not speak TLS".into(),
        other => return format!("TLS: {other}"),
    };
    match reason {
        CertificateError::UnknownIssuer => {
            "certificate not trusted: no authority of the pinned bundle signed it".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate not trusted: it has expired (or the local clock is ahead)".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate not trusted: it is not valid yet (or the local clock is behind)".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "certificate not trusted: it does not name the host of this address".into()
        }
        other => format!("certificate not trusted: {other}"),
    }
}

#[cfg(test)]
mod tests;

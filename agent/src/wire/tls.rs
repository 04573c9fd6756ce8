//! Which certificate does a server serve? A TLS handshake that stops as soon as the answer is
//! known. Nothing is sent, so any issuer is accepted: the caller compares serials. One thing is
//! checked all the same: that the server holds the key of the certificate it shows, because a
//! program that serves a new certificate with an old key serves nobody.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::http::cause;
use crate::error::{Code, Context, Error, Result};

/// What a server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The leaf's serial, as Vault prints it.
    pub serial: String,
    /// When the leaf ends.
    pub not_after: Timestamp,
    /// SHA-256 over the leaf's DER, in lower-case hexadecimal.
    pub fingerprint_sha256: String,
}

/// Asks `host:port` for the certificate that it serves now, to `server_name` if that is given
/// (what a client would ask for), else to the host of the address.
pub async fn served(
    address: &str,
    server_name: Option<&str>,
    deadline: Duration,
) -> Result<Served> {
    let asked = tokio::time::timeout(deadline, handshake(address, server_name)).await;
    asked
        .unwrap_or_else(|_| Err(unserved(format!("no certificate within {deadline:?}"))))
        .at(address)
        .during("asking which certificate is served")
}

/// The form in which Vault prints a serial: lower-case bytes joined by colons, without the zero
/// byte that DER puts before a number whose first bit is set.
pub fn serial_text(serial: &[u8]) -> String {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    let number = serial.get(zeros..).unwrap_or_default();
    let bytes: Vec<String> = number.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

async fn handshake(address: &str, server_name: Option<&str>) -> Result<Served> {
    let name = name_of(address, server_name)?;
    let stream = TcpStream::connect(address).await.map_err(|error| unserved(cause(&error)))?;
    let witness = Arc::new(Witness::new());
    let connector = TlsConnector::from(Arc::new(config(Arc::clone(&witness))?));
    // A server that wants a client certificate ends the handshake with an alert, after it has
    // shown its own and proved it: that is an answer too.
    let ended = connector.connect(name, stream).await.err();
    let seen = witness.seen();
    match (seen.leaf, seen.proved, ended) {
        (Some(leaf), true, _) => read(&leaf),
        (Some(_), false, Some(error)) => Err(unserved(format!(
            "the server shows a certificate and does not prove that it has its key: {}",
            cause(&error)
        ))),
        (_, _, Some(error)) => Err(unserved(format!("no TLS handshake: {}", cause(&error)))),
        (_, _, None) => Err(unserved("the server shows no certificate".into())),
    }
}

fn name_of(address: &str, server_name: Option<&str>) -> Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = server_name.unwrap_or(bare).to_owned();
    ServerName::try_from(name.clone())
        .map_err(|_| Error::new(Code::Config, format!("{name:?} is no host name")))
}

fn config(witness: Arc<Witness>) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Code::Bug, format!("no TLS: {error}")))?;
    Ok(config.dangerous().with_custom_certificate_verifier(witness).with_no_client_auth())
}

fn read(leaf: &[u8]) -> Result<Served> {
    let bad = |text: String| Error::new(Code::CertificateBad, text);
    let (_, certificate) = X509Certificate::from_der(leaf)
        .map_err(|error| bad(format!("the certificate served is unreadable: {error}")))?;
    let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp())
        .map_err(|error| bad(format!("the certificate served ends at no time: {error}")))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, leaf);
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    Ok(Served {
        serial: serial_text(certificate.raw_serial()),
        not_after,
        fingerprint_sha256: hex.collect(),
    })
}

fn unserved(text: String) -> Error {
    Error::new(Code::NotServed, text)
}

/// What the handshake showed so far.
#[derive(Clone, Default)]
struct Seen {
    leaf: Option<Vec<u8>>,
    proved: bool,
}

/// A verifier that accepts every issuer and name, and remembers what it saw.
struct Witness {
    seen: Mutex<Seen>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Witness {
    fn new() -> Witness {
        Witness {
            seen: Mutex::default(),
            algorithms: rustls::crypto::ring::default_provider().signature_verification_algorithms,
        }
    }

    fn seen(&self) -> Seen {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }

    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

type Checked<T> = std::result::Result<T, rustls::Error>;

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Checked<ServerCertVerified> {
        self.note(|seen| seen.leaf = Some(leaf.to_vec()));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Checked<HandshakeSignatureValid> {
        let valid = verify_tls12_signature(message, leaf, signature, &self.algorithms)?;
        self.note(|seen| seen.proved = true);
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Checked<HandshakeSignatureValid> {
        let valid = verify_tls13_signature(message, leaf, signature, &self.algorithms)?;
        self.note(|seen| seen.proved = true);
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;

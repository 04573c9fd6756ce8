//! Which certificate a TLS server serves, whoever signed it: a test must see the wrong certificate
//! too. Only that the server holds its key is checked.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::machine::{MachineError, Result};

/// For connecting, and for each read and write of the handshake.
const LIMIT: Duration = Duration::from_secs(5);

/// The leaf, in DER, that the server at this address serves.
pub fn served_leaf(address: SocketAddr) -> Result<Vec<u8>> {
    let failed = |error: &dyn std::fmt::Display| MachineError::new(format!("{address}: {error}"));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).map_err(|e| failed(&e))?;
    stream.set_read_timeout(Some(LIMIT)).map_err(|e| failed(&e))?;
    stream.set_write_timeout(Some(LIMIT)).map_err(|e| failed(&e))?;
    let name = ServerName::IpAddress(address.ip().into());
    let mut connection = ClientConnection::new(client(), name).map_err(|e| failed(&e))?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(|e| failed(&e))?;
    }
    let chain = connection.peer_certificates().unwrap_or_default();
    let leaf = chain.first().ok_or_else(|| failed(&"no certificate"))?;
    Ok(leaf.to_vec())
}

/// The serial number of a certificate in DER, in the form that Vault prints: `3f:a1:…`.
pub fn serial_of(leaf: &[u8]) -> Result<String> {
    let (_, certificate) = X509Certificate::from_der(leaf)
        .map_err(|error| MachineError::new(format!("no certificate: {error}")))?;
    Ok(crate::pki::serial_text(certificate.raw_serial()))
}

fn client() -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyIssuer(provider)))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct AnyIssuer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyIssuer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

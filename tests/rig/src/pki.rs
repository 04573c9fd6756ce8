//! A small certificate authority for the test servers: what a model or a consumer needs to speak
//! TLS, and the client configuration that trusts exactly that authority.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Makes ring the process' TLS provider; harmless where one is chosen already.
pub fn install_crypto() {
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Leaf {
    /// The certificate.
    pub cert_pem: String,
    /// The PKCS#8 key.
    pub key_pem: String,
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leaf(..)")
    }
}

/// A root authority with a P-256 key that lives in memory only.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca(..)")
    }
}

impl Ca {
    /// A fresh root of this common name, valid from 1975 to 4096.
    #[must_use]
    pub fn new(common_name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("ring makes P-256 keys");
        let pem = params.self_signed(&key).expect("a root signs itself").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The root's certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a server (and client) with these DNS names and addresses.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Leaf {
        let mut params = CertificateParams::default();
        let common_name = names.first().copied().unwrap_or("rig");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(&params)
    }

    /// A certificate for a client of this name, in this group where one is given: Kubernetes
    /// reads both from it.
    #[must_use]
    pub fn issue_client(&self, common_name: &str, organization: Option<&str>) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(&params)
    }

    fn leaf(&self, params: &CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("ring makes P-256 keys");
        let cert = params.signed_by(&key, &self.issuer).expect("a root signs a leaf");
        Leaf { cert_pem: cert.pem(), key_pem: key.serialize_pem() }
    }

    /// What a server on loopback serves: a fresh leaf for `127.0.0.1` and `localhost`.
    #[must_use]
    pub fn server_config(&self) -> ServerConfig {
        server_config(&self.issue(&["127.0.0.1", "localhost"])).expect("a fresh leaf is good")
    }

    /// What a client that trusts this root alone uses.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("our own PEM");
        roots.add(root).expect("our own root is a trust anchor");
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }
}

/// A serial number as Vault prints it, `3f:a1:…`: DER puts a zero byte before a number whose first
/// bit is set, and Vault does not.
#[must_use]
pub fn serial_text(raw: &[u8]) -> String {
    let number = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    let bytes: Vec<String> = number.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

fn san(name: &str) -> SanType {
    match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().expect("a DNS name in ASCII")),
    }
}

/// A server configuration from PEM; the certificate may be a chain. Errors where the key is not
/// the certificate's.
pub fn server_config(leaf: &Leaf) -> Result<ServerConfig, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(leaf.cert_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes())
        .map_err(|error| format!("key: {error}"))?;
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_written_without_the_zero_of_its_encoding() {
        assert_eq!(serial_text(&[0, 0xb9, 0x34]), "b9:34");
        assert_eq!(serial_text(&[0x0a, 0x00, 0x1b]), "0a:00:1b");
        assert_eq!(serial_text(&[0]), "00");
    }
}

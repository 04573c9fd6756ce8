//! Authorities and certificates of the tests, all valid through 2026.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SignatureAlgorithm, date_time_ymd,
};

use super::Material;
use crate::duty::certs::leaf;
use crate::secret::Secret;

/// The middle of 2026.
pub(in crate::duty::certs) fn now() -> Timestamp {
    "2026-07-01T00:00:00Z".parse().unwrap()
}

/// An authority with its key.
pub(in crate::duty::certs) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(in crate::duty::certs) pem: String,
}

impl Ca {
    pub(in crate::duty::certs) fn new(name: &str) -> Ca {
        Ca::root(Ca::params(name), &PKCS_ECDSA_P256_SHA256)
    }

    pub(in crate::duty::certs) fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params
    }

    pub(in crate::duty::certs) fn root(
        params: CertificateParams,
        algorithm: &'static SignatureAlgorithm,
    ) -> Ca {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    /// An authority below this one.
    pub(in crate::duty::certs) fn below(&self, params: CertificateParams) -> Ca {
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate with these parameters and its key, both PEM.
    pub(in crate::duty::certs) fn sign(&self, params: &CertificateParams) -> (String, Secret) {
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        (pem, Secret::new(key.serialize_pem()))
    }

    /// This authority as a bundle.
    pub(in crate::duty::certs) fn bundle(&self) -> Vec<leaf::Authority> {
        leaf::certificates(self.pem.as_bytes()).unwrap()
    }

    /// What Vault would answer for these parameters, this authority being pinned.
    pub(in crate::duty::certs) fn material(&self, params: &CertificateParams) -> Material {
        let (cert, key) = self.sign(params);
        Material::new(&cert, std::slice::from_ref(&self.pem), key, &self.bundle()).unwrap()
    }
}

/// A certificate for servers and clients.
pub(in crate::duty::certs) fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.subject_alt_names = vec![
        SanType::DnsName("node.example".try_into().unwrap()),
        SanType::IpAddress([10, 0, 0, 1].into()),
        SanType::URI("spiffe://example/node".try_into().unwrap()),
    ];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date_time_ymd(2026, 6, 1);
    params.not_after = date_time_ymd(2026, 12, 1);
    params
}

/// A generation that is told from others by its common name.
pub(in crate::duty::certs) fn material(common_name: &str) -> Material {
    Ca::new("tests").material(&params(common_name))
}

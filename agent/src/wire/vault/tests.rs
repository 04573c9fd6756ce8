//! The client against the model of Vault and against the real one, configured as shipped: every
//! case runs on both where the real one is built.

mod bench;
mod edges;

use rcgen::{CertificateParams, KeyPair};

use self::bench::{Bench, MOUNT, Peer};
use super::*;
use crate::error::Kind;

fn request(name: &str) -> SignRequest {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let csr = params.serialize_request(&key).expect("a request");
    SignRequest {
        csr_pem: csr.pem().expect("PEM"),
        common_name: name.into(),
        dns: vec![name.into()],
        ips: vec!["10.0.0.10".parse().expect("an address")],
        uris: Vec::new(),
        ttl: Duration::from_secs(3600),
    }
}

#[tokio::test]
async fn a_node_logs_in_looks_up_renews_and_ends_its_token() {
    for peer in Peer::all().await {
        let bench = Bench::new(peer.handle()).await;
        let vault = &bench.vault;
        let auth = bench.login().await;
        assert_eq!(auth.lease, Duration::from_secs(3600));
        assert!(auth.renewable && auth.policies.contains(&"worker".to_owned()));
        assert!(!auth.accessor.is_empty() && !auth.metadata.contains_key("nonce"));
        assert_eq!(auth.metadata["role"], "worker");

        let known = vault.lookup_self(&auth.token).await.expect("known");
        assert!(known.ttl > Duration::from_secs(3500) && known.ttl <= auth.lease);
        assert_eq!((known.accessor, known.renewable), (auth.accessor.clone(), true));
        assert_eq!((known.period, known.explicit_max_ttl), (None, None));
        assert!(known.issue_time.is_some() && known.expire_time > known.issue_time);

        let shorter = vault.renew_self(&auth.token, Duration::from_secs(600)).await;
        assert_eq!(shorter.expect("renewed").lease, Duration::from_secs(600));
        let longer = vault.renew_self(&auth.token, Duration::from_secs(400 * 3600)).await;
        let longer = longer.expect("renewed");
        assert!(longer.lease < Duration::from_secs(24 * 3600 + 1));
        assert_eq!(longer.token.expose(), auth.token.expose());
        assert!(longer.warnings.iter().any(|text| text.contains("capped")), "{longer:?}");

        vault.revoke_self(&auth.token).await.expect("ended");
        let gone = vault.lookup_self(&auth.token).await.expect_err("gone");
        assert_eq!(gone.code(), Code::TokenInvalid);
        let line = format!("{gone:#}");
        assert_eq!(line, "vault auth/token/lookup-self: 403 permission denied, invalid token");
    }
}

fn alternative_names(signed: &Signed) -> usize {
    let der = x509_parser::pem::parse_x509_pem(signed.certificate_pem.as_bytes());
    let (_, pem) = der.expect("PEM");
    let leaf = pem.parse_x509().expect("a certificate");
    let names = leaf.subject_alternative_name().expect("readable").expect("present");
    names.value.general_names.len()
}

#[tokio::test]
async fn a_certificate_is_signed_for_the_names_asked_for_and_no_other() {
    for peer in Peer::all().await {
        let bench = Bench::new(peer.handle()).await;
        let token = bench.login().await.token;
        let signed = bench.vault.sign(&token, "pki", "kubelet-server", &request(&bench.id)).await;
        let signed = signed.expect("signed");
        assert!(signed.certificate_pem.ends_with("-----END CERTIFICATE-----\n"));
        assert!(!signed.chain_pem.is_empty());
        let der = x509_parser::pem::parse_x509_pem(signed.certificate_pem.as_bytes());
        let (_, pem) = der.expect("PEM");
        let leaf = pem.parse_x509().expect("a certificate");
        assert_eq!(crate::wire::tls::serial_text(leaf.raw_serial()), signed.serial);
        assert_eq!(alternative_names(&signed), 2);

        let mut long = request(&bench.id);
        long.ttl = Duration::from_secs(500 * 3600);
        let cut = bench.vault.sign(&token, "pki", "kubelet-server", &long).await.expect("cut");
        assert!(!cut.warnings.is_empty());

        let mut bare = request(&bench.id);
        bare.dns = Vec::new();
        let signed = bench.vault.sign(&token, "pki", "kubelet-server", &bare).await;
        let names = alternative_names(&signed.expect("signed"));
        assert_eq!(names, 1, "the common name is no SAN unless asked for");

        for (mount, role, name, code) in [
            ("pki", "kubelet-server", "i-0stranger", Code::RoleRefused),
            ("pki", "scheduler", bench.id.as_str(), Code::PolicyDenied),
            ("pki-etcd", "etcd-server", bench.id.as_str(), Code::PolicyDenied),
            ("nowhere", "x", bench.id.as_str(), Code::PolicyDenied),
        ] {
            let asked = bench.vault.sign(&token, mount, role, &request(name)).await;
            let error = asked.expect_err(role);
            assert_eq!(error.code(), code, "{mount}/{role} {name}: {error:#}");
            assert!(format!("{error:#}").starts_with(&format!("vault {mount}/sign/{role}: 40")));
        }
        let mut two = request(&bench.id);
        two.dns = vec!["a,b".into()];
        let error = bench.vault.sign(&token, "pki", "kubelet-server", &two).await;
        assert_eq!(error.expect_err("two names in one").code(), Code::Config);
    }
}

#[tokio::test]
async fn refusals_of_a_log_in_are_told_apart() {
    for peer in Peer::all().await {
        let bench = Bench::new(peer.handle()).await;
        bench.login().await;
        bench.login().await;
        let delete = format!("vault delete auth/{MOUNT}/identity-accesslist/{}", bench.id);
        let error = bench.login_as("worker", "another").await.expect_err("another nonce");
        assert_eq!(error.code(), Code::NonceMismatch);
        assert!(error.advice().expect("advice").contains(&delete));

        let error = bench.login_as("no-such-role", "our-nonce").await.expect_err("no role");
        assert_eq!(error.code(), Code::LoginRefused, "{error:#}");
        let error = bench.login_as("controller", "our-nonce").await.expect_err("not for it");
        assert_eq!(error.code(), Code::LoginRefused, "{error:#}");

        bench.aws.stop(&bench.id);
        let error = bench.login_as("worker", "our-nonce").await.expect_err("stopped");
        assert_eq!(error.kind(), Kind::Unavailable, "{error:#}");
        bench.aws.start_instance(&bench.id);
        bench.login().await;

        let nobody = Login::Ec2 {
            role: "worker".into(),
            pkcs7: Secret::new("MIAGCSqGSIb3".into()),
            nonce: Secret::new("n".into()),
            instance_id: bench.id.clone(),
        };
        let error = bench.vault.login(MOUNT, &nobody).await.expect_err("no document");
        assert_eq!(error.code(), Code::LoginRefused, "{error:#}");
        let error = bench.vault.login("nowhere", &nobody).await.expect_err("no mount");
        assert_eq!(error.code(), Code::LoginRefused, "{error:#}");

        let admin = bench.handle.admin();
        let entry = format!("auth/{MOUNT}/identity-accesslist/{}", bench.id);
        admin.delete(&entry).await.expect("deleted");
        bench.login_as("worker", "another").await.expect("a first log-in again");
    }
}

#[tokio::test]
async fn a_renewal_that_ec2_refuses_asks_for_a_log_in() {
    for peer in Peer::all().await {
        let bench = Bench::new(peer.handle()).await;
        let token = bench.login().await.token;
        let admin = bench.handle.admin();
        let entry = format!("auth/{MOUNT}/identity-accesslist/{}", bench.id);
        admin.delete(&entry).await.expect("deleted");
        let renewed = bench.vault.renew_self(&token, Duration::from_secs(600)).await;
        let error = renewed.expect_err("no entry");
        assert_eq!(error.code(), Code::TokenNotRenewable, "{error:#}");
        bench.vault.lookup_self(&token).await.expect("still valid");

        bench.aws.ec2().stop();
        let renewed = bench.vault.renew_self(&token, Duration::from_secs(600)).await;
        let error = renewed.expect_err("no EC2");
        assert_eq!(error.kind(), Kind::Unavailable, "{error:#}");
    }
}

#[tokio::test]
async fn a_sealed_vault_answers_health_and_refuses_the_rest() {
    for peer in Peer::all().await {
        let bench = Bench::new(peer.handle()).await;
        let token = bench.login().await.token;
        let health = bench.vault.health().await.expect("an answer");
        assert!(health.initialized && !health.sealed && !health.standby);
        assert!(!health.version.is_empty());
        match &peer {
            Peer::Model(model) => model.seal(),
            Peer::Real(real) => real.seal().await.expect("sealed"),
        }
        let health = bench.vault.health().await.expect("an answer, though 503");
        assert!(health.initialized && health.sealed);
        let error = bench.vault.lookup_self(&token).await.expect_err("sealed");
        assert_eq!((error.code(), error.kind()), (Code::VaultSealed, Kind::Sealed));
        match &peer {
            Peer::Model(model) => model.unseal(),
            Peer::Real(real) => real.unseal().await.expect("unsealed"),
        }
        bench.vault.lookup_self(&token).await.expect("valid again");
    }
}

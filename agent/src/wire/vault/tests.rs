//! The client against the model of Vault and against the real one, configured as shipped: every
//! case runs on both where the real one is built.

use std::sync::Arc;

use jiff::SignedDuration;
use rcgen::{CertificateParams, KeyPair};
use rig::aws::{Aws, LaunchSpec};
use rig::clock::ModelClock;
use rig::peer::vault::RealVault;
use rig::server::{Fault, Step};
use rig::setup::{self, SetupOptions, VaultHandle};
use rig::vault::{Model, ModelOptions};

use super::*;
use crate::error::Kind;
use crate::wire::imds::{self, Imds};

const MOUNT: &str = "aws-ec2";

/// The clocks of a node whose wall clock is ahead by so much.
fn stamp(ahead: SignedDuration) -> Stamp {
    let clock = ModelClock::real();
    let start = clock.now();
    Arc::new(move || {
        let now = clock.now();
        let steady = Duration::try_from(now.duration_since(start)).unwrap_or_default();
        let wall = now.checked_add(ahead).expect("a test is ahead by hours");
        (wall, steady)
    })
}

fn options(handle: &VaultHandle) -> VaultOptions {
    VaultOptions {
        address: handle.address.clone(),
        ca_pem: Some(handle.ca_pem.clone().into_bytes()),
        namespace: None,
        limits: Limits::default(),
        stamp: stamp(SignedDuration::ZERO),
    }
}

/// A Vault with an AWS behind it and one worker in it.
struct Bench {
    aws: Aws,
    id: String,
    handle: VaultHandle,
    vault: Vault,
}

impl Bench {
    async fn new(handle: VaultHandle) -> Bench {
        let aws = Aws::start(ModelClock::real()).expect("a free port");
        let mut site = SetupOptions::new(aws.ec2_url(), aws.signing_certificate_pem());
        site.auth_mount = MOUNT.into();
        setup::configure(&handle, &site).await.expect("configured");
        let id = aws.launch(LaunchSpec::profile("worker"));
        let vault = Vault::new(options(&handle)).expect("a client");
        Bench {
            aws,
            id,
            handle,
            vault,
        }
    }

    async fn login_as(&self, role: &str, nonce: &str) -> Result<Auth> {
        let model = self.aws.imds(&self.id).expect("a free port");
        let imds = Imds::new(&model.url(), imds::LIMITS).expect("a client");
        let signed = imds.signed_document().await.expect("a document");
        let login = Login::Ec2 {
            role: role.into(),
            pkcs7: signed.pkcs7,
            nonce: Secret::new(nonce.into()),
            instance_id: self.id.clone(),
        };
        self.vault.login(MOUNT, &login).await
    }

    async fn login(&self) -> Auth {
        self.login_as("worker", "our-nonce")
            .await
            .expect("logged in")
    }
}

/// The Vaults that a case runs on; the real one is named where it is missing.
enum Peer {
    Model(Model),
    Real(RealVault),
}

impl Peer {
    async fn all() -> Vec<Peer> {
        let model = Model::start(ModelOptions::new(ModelClock::real())).expect("a free port");
        let mut peers = vec![Peer::Model(model)];
        match rig::peer::vault::program() {
            Ok(_) => peers.push(Peer::Real(
                RealVault::start().await.expect("the real Vault"),
            )),
            Err(why) => {
                let must = std::env::var_os("NODEAGENT_TESTS_MUST_RUN");
                assert!(must.is_none_or(|value| value != "1"), "{why}");
                eprintln!("on the model only: {why}");
            }
        }
        peers
    }

    fn handle(&self) -> VaultHandle {
        match self {
            Peer::Model(model) => model.handle(),
            Peer::Real(real) => real.handle(),
        }
    }
}

fn request(name: &str) -> SignRequest {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
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
        assert_eq!(
            (known.accessor, known.renewable),
            (auth.accessor.clone(), true)
        );
        assert_eq!((known.period, known.explicit_max_ttl), (None, None));
        assert!(known.issue_time.is_some() && known.expire_time > known.issue_time);

        let shorter = vault
            .renew_self(&auth.token, Duration::from_secs(600))
            .await;
        assert_eq!(shorter.expect("renewed").lease, Duration::from_secs(600));
        let longer = vault
            .renew_self(&auth.token, Duration::from_secs(400 * 3600))
            .await;
        let longer = longer.expect("renewed");
        assert!(longer.lease < Duration::from_secs(24 * 3600 + 1));
        assert_eq!(longer.token.expose(), auth.token.expose());
        assert!(
            longer.warnings.iter().any(|text| text.contains("capped")),
            "{longer:?}"
        );

        vault.revoke_self(&auth.token).await.expect("ended");
        let gone = vault.lookup_self(&auth.token).await.expect_err("gone");
        assert_eq!(gone.code(), Code::TokenInvalid);
        let line = format!("{gone:#}");
        assert_eq!(
            line,
            "vault auth/token/lookup-self: 403 permission denied, invalid token"
        );
    }
}

#[tokio::test]
async fn a_certificate_is_signed_for_the_names_asked_for_and_no_other() {
    for peer in Peer::all().await {
        let bench = Bench::new(peer.handle()).await;
        let token = bench.login().await.token;
        let signed = bench
            .vault
            .sign(&token, "pki", "kubelet-server", &request(&bench.id))
            .await;
        let signed = signed.expect("signed");
        assert!(
            signed
                .certificate_pem
                .ends_with("-----END CERTIFICATE-----\n")
        );
        assert!(!signed.chain_pem.is_empty());
        let der = x509_parser::pem::parse_x509_pem(signed.certificate_pem.as_bytes());
        let (_, pem) = der.expect("PEM");
        let leaf = pem.parse_x509().expect("a certificate");
        assert_eq!(
            crate::wire::tls::serial_text(leaf.raw_serial()),
            signed.serial
        );
        let sans = leaf
            .subject_alternative_name()
            .expect("readable")
            .expect("present");
        assert_eq!(
            sans.value.general_names.len(),
            2,
            "{:?}",
            sans.value.general_names
        );

        let mut long = request(&bench.id);
        long.ttl = Duration::from_secs(500 * 3600);
        let cut = bench
            .vault
            .sign(&token, "pki", "kubelet-server", &long)
            .await
            .expect("cut");
        assert!(!cut.warnings.is_empty());

        for (mount, role, name, code) in [
            ("pki", "kubelet-server", "i-0stranger", Code::RoleRefused),
            ("pki", "scheduler", bench.id.as_str(), Code::PolicyDenied),
            (
                "pki-etcd",
                "etcd-server",
                bench.id.as_str(),
                Code::PolicyDenied,
            ),
            ("nowhere", "x", bench.id.as_str(), Code::PolicyDenied),
        ] {
            let asked = bench.vault.sign(&token, mount, role, &request(name)).await;
            let error = asked.expect_err(role);
            assert_eq!(error.code(), code, "{mount}/{role} {name}: {error:#}");
            assert!(format!("{error:#}").starts_with(&format!("vault {mount}/sign/{role}: 40")));
        }
        let mut two = request(&bench.id);
        two.dns = vec!["a,b".into()];
        let error = bench
            .vault
            .sign(&token, "pki", "kubelet-server", &two)
            .await;
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
        let error = bench
            .login_as("worker", "another")
            .await
            .expect_err("another nonce");
        assert_eq!(error.code(), Code::NonceMismatch);
        assert!(error.advice().expect("advice").contains(&delete));

        let error = bench
            .login_as("no-such-role", "our-nonce")
            .await
            .expect_err("no role");
        assert_eq!(error.code(), Code::LoginRefused, "{error:#}");
        let error = bench
            .login_as("controller", "our-nonce")
            .await
            .expect_err("not for it");
        assert_eq!(error.code(), Code::LoginRefused, "{error:#}");

        bench.aws.stop(&bench.id);
        let error = bench
            .login_as("worker", "our-nonce")
            .await
            .expect_err("stopped");
        assert_eq!(error.kind(), Kind::Unavailable, "{error:#}");
        bench.aws.start_instance(&bench.id);
        bench.login().await;

        let nobody = Login::Ec2 {
            role: "worker".into(),
            pkcs7: Secret::new("MIAGCSqGSIb3".into()),
            nonce: Secret::new("n".into()),
            instance_id: bench.id.clone(),
        };
        let error = bench
            .vault
            .login(MOUNT, &nobody)
            .await
            .expect_err("no document");
        assert_eq!(error.code(), Code::LoginRefused, "{error:#}");
        let error = bench
            .vault
            .login("nowhere", &nobody)
            .await
            .expect_err("no mount");
        assert_eq!(error.code(), Code::LoginRefused, "{error:#}");

        let admin = bench.handle.admin();
        let entry = format!("auth/{MOUNT}/identity-accesslist/{}", bench.id);
        admin.delete(&entry).await.expect("deleted");
        bench
            .login_as("worker", "another")
            .await
            .expect("a first log-in again");
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
        let renewed = bench
            .vault
            .renew_self(&token, Duration::from_secs(600))
            .await;
        let error = renewed.expect_err("no entry");
        assert_eq!(error.code(), Code::TokenNotRenewable, "{error:#}");
        bench.vault.lookup_self(&token).await.expect("still valid");

        bench.aws.ec2().stop();
        let renewed = bench
            .vault
            .renew_self(&token, Duration::from_secs(600))
            .await;
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
        assert_eq!(
            (error.code(), error.kind()),
            (Code::VaultSealed, Kind::Sealed)
        );
        match &peer {
            Peer::Model(model) => model.unseal(),
            Peer::Real(real) => real.unseal().await.expect("unsealed"),
        }
        bench.vault.lookup_self(&token).await.expect("valid again");
    }
}

#[tokio::test]
async fn every_answer_of_vault_tells_the_skew() {
    for peer in Peer::all().await {
        let handle = peer.handle();
        for ahead in [SignedDuration::ZERO, SignedDuration::from_hours(-1)] {
            let stamp = stamp(ahead);
            let vault = Vault::new(VaultOptions {
                stamp,
                ..options(&handle)
            });
            let vault = vault.expect("a client");
            assert_eq!(vault.observed(), None);
            let none = Secret::new("hvs.none".into());
            vault.lookup_self(&none).await.expect_err("no such token");
            let seen = vault.observed().expect("a refusal has a date too");
            let error = (seen.skew() - ahead).abs();
            let bound = SignedDuration::try_from(seen.uncertainty).expect("seconds");
            assert!(error <= bound, "{error} within {bound}");
        }
    }
}

#[tokio::test]
async fn what_stands_before_vault_tells_nothing_of_its_clock_and_is_no_refusal() {
    let model = Model::start(ModelOptions::new(ModelClock::real())).expect("a free port");
    let vault = Vault::new(options(&model.handle())).expect("a client");
    let token = Secret::new("hvs.none".into());
    let html = Fault::Status {
        code: 403,
        body: "<html>permission denied</html>".into(),
        headers: vec![("content-type".into(), "text/html".into())],
    };
    for fault in [Fault::Html200, html] {
        model.server().script(vec![Step::on("/", fault)]);
        for error in [
            vault.lookup_self(&token).await.expect_err("a page"),
            vault.revoke_self(&token).await.expect_err("a page"),
            vault.health().await.expect_err("a page"),
        ] {
            assert_eq!(error.code(), Code::VaultFailing, "{error:#}");
        }
    }
    assert_eq!(vault.observed(), None);
    model.server().script(vec![Step::on(
        "/",
        Fault::Status {
            code: 200,
            body: r#"{"request_id":"x","auth":{"client_token":7,"renewable":"hvs.SECRET"}}"#.into(),
            headers: vec![("content-type".into(), "application/json".into())],
        },
    )]);
    let error = vault
        .renew_self(&token, Duration::ZERO)
        .await
        .expect_err("no token in it");
    assert_eq!(error.code(), Code::VaultFailing);
    assert!(!format!("{error:#}").contains("SECRET"), "{error:#}");
}

#[tokio::test]
async fn a_request_carries_what_it_should_and_no_more() {
    let model = Model::start(ModelOptions::new(ModelClock::real())).expect("a free port");
    let named = VaultOptions {
        namespace: Some("team".into()),
        ..options(&model.handle())
    };
    let vault = Vault::new(named).expect("a client");
    let token = Secret::new("hvs.T".into());
    let renew = RenewTokenSelfRequest {
        increment: Some(seconds(Duration::from_secs(90))),
    };
    let request = vault.request(Some(&token), renew).expect("a request");
    assert_eq!(request.uri().path(), "/v1/auth/token/renew-self");
    assert_eq!(request.headers()["x-vault-token"], "hvs.T");
    assert_eq!(request.headers()["x-vault-namespace"], "team");
    assert_eq!(request.body(), br#"{"increment":"90s"}"#);
    let login = Ec2Login {
        mount: "team/aws-ec2".into(),
        role: "worker".into(),
        pkcs7: "MIAG".into(),
        nonce: "n".into(),
    };
    let request = vault.request(None, login).expect("a request");
    assert_eq!(request.uri().path(), "/v1/auth/team/aws-ec2/login");
    assert!(!request.headers().contains_key("x-vault-token"));
    assert_eq!(
        request.body(),
        br#"{"role":"worker","pkcs7":"MIAG","nonce":"n"}"#
    );
    let torn = Secret::new("hvs.\n".into());
    let error = vault.lookup_self(&torn).await.expect_err("no header");
    assert_eq!(error.code(), Code::TokenInvalid);
    assert!(!format!("{vault:?}").contains("hvs"));
}

#[test]
fn an_address_is_refused_before_anything_is_sent() {
    let handle = |address: &str, ca_pem: Option<&str>| {
        Vault::new(VaultOptions {
            address: address.into(),
            ca_pem: ca_pem.map(|pem| pem.as_bytes().to_vec()),
            namespace: None,
            limits: Limits::default(),
            stamp: stamp(SignedDuration::ZERO),
        })
    };
    let ca = rig::pki::Ca::new("vault");
    for address in [
        "",
        "vault",
        "vault:8200",
        "ftp://vault",
        "https://",
        "https://root:x@vault:8200",
        "https://vault:8200/proxy",
        "https://vault:8200?x",
        "https://vault:82000000",
    ] {
        let error = handle(address, Some(ca.pem())).expect_err(address);
        assert_eq!(error.code(), Code::Config, "{address}");
        assert!(error.advice().is_some());
    }
    handle("https://vault:8200/", Some(ca.pem())).expect("good");
    handle("http://127.0.0.1:8200", None).expect("good, for tests");
    let error = handle("https://vault:8200", None).expect_err("whom to trust?");
    assert_eq!(error.code(), Code::Config);
    let error = handle("https://vault:8200", Some("no PEM")).expect_err("no bundle");
    assert_eq!(error.code(), Code::CertificateBad);
}

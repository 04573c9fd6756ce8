//! The edges of the client: what it is given, what it sends, what stands before Vault, and what
//! the answers tell of Vault's clock.

use jiff::SignedDuration;
use rig::clock::ModelClock;
use rig::server::{Fault, Step};
use rig::vault::{Model, ModelOptions};

use super::bench::{Peer, options, stamp};
use crate::wire::vault::*;

#[tokio::test]
async fn every_answer_of_vault_tells_the_skew() {
    for peer in Peer::all().await {
        let handle = peer.handle();
        for ahead in [SignedDuration::ZERO, SignedDuration::from_hours(-1)] {
            let stamp = stamp(ahead);
            let vault = Vault::new(VaultOptions { stamp, ..options(&handle) });
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
    let error = vault.renew_self(&token, Duration::ZERO).await.expect_err("no token in it");
    assert_eq!(error.code(), Code::VaultFailing);
    assert!(!format!("{error:#}").contains("SECRET"), "{error:#}");
}

#[tokio::test]
async fn a_request_carries_what_it_should_and_no_more() {
    let model = Model::start(ModelOptions::new(ModelClock::real())).expect("a free port");
    let named = VaultOptions { namespace: Some("team".into()), ..options(&model.handle()) };
    let vault = Vault::new(named).expect("a client");
    let token = Secret::new("hvs.T".into());
    let renew = RenewTokenSelfRequest { increment: Some(seconds(Duration::from_secs(90))) };
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
    assert_eq!(request.body(), br#"{"role":"worker","pkcs7":"MIAG","nonce":"n"}"#);
    let torn = Secret::new("hvs.\n".into());
    let error = vault.lookup_self(&torn).await.expect_err("no header");
    assert_eq!(error.code(), Code::TokenInvalid);
    assert!(!format!("{vault:?}").contains("hvs"));
}

#[tokio::test]
async fn a_nonce_of_vaults_own_goes_no_further() {
    let model = Model::start(ModelOptions::new(ModelClock::real())).expect("a free port");
    let vault = Vault::new(options(&model.handle())).expect("a client");
    let fault = Fault::Status {
        code: 200,
        body: r#"{"request_id":"x","auth":{"client_token":"hvs.T","lease_duration":60,
            "renewable":true,"metadata":{"nonce":"5defbf9e","role":"worker"}}}"#
            .into(),
        headers: vec![("content-type".into(), "application/json".into())],
    };
    model.server().script(vec![Step::on("/", fault)]);
    let token = Secret::new("hvs.none".into());
    let auth = vault.renew_self(&token, Duration::ZERO).await.expect("an answer");
    assert_eq!(auth.metadata.keys().collect::<Vec<_>>(), ["role"]);
    assert!(!format!("{auth:?}").contains("hvs"));
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

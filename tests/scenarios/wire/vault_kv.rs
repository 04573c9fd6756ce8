//! Secrets that all controllers share, on the model and on the real Vault with the policy that is
//! shipped: who is first makes them, and nobody overwrites them.

use std::sync::Arc;
use std::time::Duration;

use nodeagent::error::{Code, Kind};
use nodeagent::secret::Secret;
use nodeagent::wire::http::Limits;
use nodeagent::wire::vault::{Vault, VaultOptions};
use rig::aws::Aws;
use rig::clock::ModelClock;
use rig::peer::vault::{self as peer, RealVault};
use rig::setup::{self, SetupOptions, VaultHandle};
use rig::vault::{Model, ModelOptions};
use serde_json::{Value, from_str, json};

use crate::play::skip;

const MOUNT: &str = "kv-control-plane";
/// The cluster that the shipped policy is filled in for.
const OURS: &str = "rig";

enum Peer {
    Model(Model),
    Real(RealVault),
}

async fn peers() -> Vec<Peer> {
    let model = Model::start(ModelOptions::new(ModelClock::real())).expect("a free port");
    let mut peers = vec![Peer::Model(model)];
    match peer::program() {
        Ok(_) => peers.push(Peer::Real(RealVault::start().await.expect("the real Vault"))),
        Err(reason) => drop(skip::<()>(&reason)),
    }
    peers
}

/// A Vault as shipped, and a client of it.
async fn configured(peer: &Peer) -> (VaultHandle, Vault) {
    let handle = match peer {
        Peer::Model(model) => model.handle(),
        Peer::Real(real) => real.handle(),
    };
    let aws = Aws::start(ModelClock::real()).expect("a free port");
    let site = SetupOptions::new(aws.ec2_url(), aws.signing_certificate_pem());
    setup::configure(&handle, &site).await.expect("configured");
    let clock = ModelClock::real();
    let vault = Vault::new(VaultOptions {
        address: handle.address.clone(),
        ca_pem: Some(handle.ca_pem.clone().into_bytes()),
        namespace: None,
        limits: Limits::default(),
        stamp: Arc::new(move || (clock.now(), Duration::ZERO)),
    });
    (handle, vault.expect("a client"))
}

/// A token as a node of this role has it.
async fn token(handle: &VaultHandle, policy: &str) -> Secret {
    let asked = json!({ "policies": [policy], "ttl": "1h" });
    let reply = handle.admin().must_write("auth/token/create", &asked).await.expect("a token");
    Secret::new(reply.auth("client_token").as_str().expect("a token").to_owned())
}

fn keys(text: &str) -> Secret {
    Secret::new(json!({ "signing": [text], "made_at": 1_790_000_000_u64 }).to_string())
}

fn json_of(secret: &Secret) -> Value {
    from_str(secret.expose()).expect("JSON")
}

#[tokio::test]
async fn of_two_controllers_one_makes_the_secrets_and_both_read_the_same() {
    for peer in peers().await {
        let (handle, vault) = configured(&peer).await;
        let (a, b) = (token(&handle, "controller").await, token(&handle, "controller").await);
        assert!(vault.kv_read(&a, MOUNT, OURS).await.expect("an answer").is_none());
        let (ours, theirs) = (keys("ours"), keys("theirs"));
        let (first, second) = tokio::join!(
            vault.kv_create(&a, MOUNT, OURS, &ours),
            vault.kv_create(&b, MOUNT, OURS, &theirs),
        );
        let (first, second) = (first.expect("an answer"), second.expect("an answer"));
        assert!(first != second, "one, and one alone: {first} {second}");
        let wanted = if first { ours } else { theirs };
        for token in [&a, &b] {
            let kept = vault.kv_read(token, MOUNT, OURS).await.expect("an answer");
            let kept = kept.expect("a secret");
            assert_eq!(json_of(&kept.data), json_of(&wanted));
            assert_eq!(kept.version, 1);
            assert!(!format!("{kept:?}").contains("signing"), "{kept:?}");
        }
        let late = vault.kv_create(&a, MOUNT, OURS, &keys("late")).await.expect("an answer");
        assert!(!late);
        // Whoever may overwrite is held by the condition alone.
        let root = Secret::new(handle.root_token.expose().to_owned());
        assert!(!vault.kv_create(&root, MOUNT, OURS, &keys("late")).await.expect("an answer"));
        let kept = vault.kv_read(&b, MOUNT, OURS).await.expect("an answer").expect("a secret");
        assert_eq!(json_of(&kept.data), json_of(&wanted));
    }
}

#[tokio::test]
async fn what_was_deleted_is_none_and_is_not_made_again() {
    for peer in peers().await {
        let (handle, vault) = configured(&peer).await;
        let controller = token(&handle, "controller").await;
        let path = format!("{MOUNT}/data/{OURS}");
        assert!(vault.kv_create(&controller, MOUNT, OURS, &keys("a")).await.expect("made"));
        let root = Secret::new(handle.root_token.expose().to_owned());
        let rotated = json!({ "options": { "cas": 1 }, "data": { "signing": ["b", "a"] } });
        handle.admin().must_write(&path, &rotated).await.expect("a person rotates");
        let kept = vault.kv_read(&controller, MOUNT, OURS).await.expect("an answer");
        let kept = kept.expect("a secret");
        assert_eq!((kept.version, &json_of(&kept.data)["signing"][0]), (2, &json!("b")));
        handle.admin().delete(&path).await.expect("deleted");
        assert!(vault.kv_read(&controller, MOUNT, OURS).await.expect("an answer").is_none());
        let again = vault.kv_create(&root, MOUNT, OURS, &keys("c")).await;
        assert!(!again.expect("an answer"), "its versions are counted on");
        let again = vault.kv_create(&controller, MOUNT, OURS, &keys("c")).await;
        assert_eq!(again.expect_err("nor by the policy").code(), Code::PolicyDenied);
    }
}

#[tokio::test]
async fn who_may_not_is_told_what_is_missing() {
    for peer in peers().await {
        let (handle, vault) = configured(&peer).await;
        let worker = token(&handle, "worker").await;
        let controller = token(&handle, "controller").await;
        let read = vault.kv_read(&worker, MOUNT, OURS).await.expect_err("not a worker's");
        assert_eq!(read.code(), Code::PolicyDenied, "{read:#}");
        assert!(format!("{read:#}").starts_with("vault kv-control-plane/data/rig: 403"));
        assert!(read.advice().expect("advice").contains("must allow read"), "{read:?}");
        let made = vault.kv_create(&worker, MOUNT, OURS, &keys("a")).await;
        let made = made.expect_err("not a worker's");
        assert_eq!(made.code(), Code::PolicyDenied, "{made:#}");
        assert!(made.advice().expect("advice").contains("must allow create"), "{made:?}");
        let other = vault.kv_create(&controller, MOUNT, "other", &keys("a")).await;
        assert_eq!(other.expect_err("another cluster's").code(), Code::PolicyDenied);
        let root = Secret::new(handle.root_token.expose().to_owned());
        let nowhere = vault.kv_read(&root, "nowhere", OURS).await.expect_err("no mount");
        assert_eq!(nowhere.code(), Code::PolicyDenied, "{nowhere:#}");
        let ended = Secret::new("hvs.ended".into());
        let ended = vault.kv_create(&ended, MOUNT, OURS, &keys("a")).await.expect_err("no token");
        assert_eq!(ended.kind(), Kind::Unauthenticated, "{ended:#}");
    }
}

#[tokio::test]
async fn a_mount_without_versions_is_not_taken_for_one_with() {
    for peer in peers().await {
        let Peer::Real(_) = &peer else { continue };
        let (handle, vault) = configured(&peer).await;
        let mount = json!({ "type": "kv", "options": { "version": "1" } });
        handle.admin().must_write("sys/mounts/old", &mount).await.expect("mounted");
        let root = Secret::new(handle.root_token.expose().to_owned());
        let error = vault.kv_create(&root, "old", OURS, &keys("a")).await.expect_err("no version");
        assert_eq!(error.code(), Code::VaultFailing, "{error:#}");
        assert!(error.advice().expect("advice").contains("version 2"), "{error:?}");
    }
}

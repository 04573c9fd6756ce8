//! What is asked for changes, the authority is replaced: the certificates follow, and what the
//! consumer trusts is old and new together.

use nodeagent::duty::certs::leaf::Leaf;
use rig::stage::{Stage, StageOptions};
use serde_json::json;

use crate::play::*;

#[tokio::test]
async fn other_names_in_the_configuration_mean_another_certificate() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let before = serial(&stage);
    let names = "[[certificate]]\nname = \"kubelet-server\"\nips = [\"10.1.2.3\"]\n";
    reconfigure(&stage, &agent, names);
    wait_renewed(&stage, &before);
    let pem = stage.read(&format!("{PUBLISHED}/current/cert.pem"));
    let leaf = Leaf::read(pem.as_bytes()).expect("a leaf");
    assert_eq!(leaf.ips, ["10.1.2.3".parse::<std::net::IpAddr>().expect("an address")]);
    assert_eq!(issues(&stage), 2);
}

#[tokio::test]
async fn a_configuration_that_is_wrong_leaves_the_old_one_in_force() {
    let (stage, mut agent) = healthy(StageOptions::worker()).await;
    let before = tree(&stage, PUBLISHED);
    configure(&stage, "[rotation]\nsurvive_vault_outtage = \"1h\"\n");
    look_again(&stage, &agent);
    until("log", || stage.log().contains("30-story.toml:2: unknown field"));
    assert!(agent.is_running());
    assert_eq!(tree(&stage, PUBLISHED), before);
    assert_eq!(stage.status()["health"], "healthy");
    let serial = serial(&stage);
    let names = "[[certificate]]\nname = \"kubelet-server\"\nips = [\"10.1.2.3\"]\n";
    reconfigure(&stage, &agent, names);
    wait_renewed(&stage, &serial);
}

#[tokio::test]
async fn one_node_may_have_certificates_of_two_authorities() {
    let mut options = StageOptions::worker().with(
        "[[certificate]]\nname = \"second\"\nconsumer = \"kubelet\"\npki = \"etcd\"\n\
         role = \"second\"\ncommon_name = \"second\"\nusage = \"client\"\n",
    );
    options.role = "worker";
    let stage = stage(options).await;
    let role = json!({
        "allow_any_name": true, "enforce_hostnames": false, "server_flag": false,
        "client_flag": true, "key_type": "ec", "key_bits": 256, "use_csr_common_name": false,
        "use_csr_sans": false, "ttl": "24h", "max_ttl": "72h",
    });
    let admin = stage.admin();
    admin.must_write("pki-etcd/roles/second", &role).await.expect("the role is taken");
    let policy = stage.admin().read("sys/policies/acl/worker").await.expect("vault answers");
    let policy = policy.json["data"]["policy"].as_str().expect("a policy").to_owned();
    let more = "path \"pki-etcd/sign/second\" { capabilities = [\"create\", \"update\"] }";
    let body = json!({ "policy": format!("{policy}\n{more}") });
    admin.must_write("sys/policies/acl/worker", &body).await.expect("it is taken");
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let second = stage.read("/var/lib/nodeagent-certs/kubelet/second/current/ca.pem");
    let root = |mount: &str| authorities(&stage.configured.roots[mount])[0].fingerprint.clone();
    assert_eq!(authorities(&second)[0].fingerprint, root("pki-etcd"));
    assert_eq!(trusted(&stage), [root("pki")]);
}

#[tokio::test]
async fn an_authority_is_replaced_without_anybody_losing_trust() {
    let (stage, agent) = serving(StageOptions::worker()).await;
    let old = stage.configured.roots["pki"].clone();
    let (id, new) = second_issuer(&stage).await;
    let [old_print, new_print] = [&old, &new].map(|pem| authorities(pem)[0].fingerprint.clone());
    // First the bundle: both are trusted everywhere before anything is signed by the new one.
    let before = serial(&stage);
    pin(&stage, &format!("{old}{new}"));
    agent.reload().expect("it runs");
    let before = wait_renewed(&stage, &before);
    let both = |stage: &Stage| {
        let trusted = trusted(stage);
        trusted.contains(&old_print) && trusted.contains(&new_print)
    };
    assert!(both(&stage));
    // Then Vault's issuer.
    make_default(&stage, &id).await;
    let (_, after) = renew(&stage);
    assert_ne!(after, before);
    assert!(signed_by(&stage, &new) && both(&stage));
    // Then the old one is taken out; peers that still show a certificate of it are trusted on.
    pin(&stage, &new);
    renew(&stage);
    assert!(both(&stage), "one generation longer");
    renew(&stage);
    wait(&stage, "end of the old one", |_| trusted(&stage) == [new_print.clone()]);
}

/// Makes another issuer beside the first; gives its id and certificate.
pub(crate) async fn second_issuer(stage: &Stage) -> (String, String) {
    let body = json!({ "common_name": "the next one", "key_type": "ec", "ttl": "87600h" });
    let made = stage.admin().must_write("pki/root/generate/internal", &body).await;
    let made = made.expect("an issuer");
    let text = |name: &str| made.data(name).as_str().unwrap_or_default().to_owned();
    (text("issuer_id"), format!("{}\n", text("certificate").trim_end()))
}

/// Has Vault sign with an issuer.
pub(crate) async fn make_default(stage: &Stage, id: &str) {
    let body = json!({ "default": id });
    let written = stage.admin().must_write("pki/config/issuers", &body).await;
    written.expect("the issuer is taken");
}

/// Replaces the pinned bundle of the cluster's authority.
pub(crate) fn pin(stage: &Stage, pem: &str) {
    let written = stage.write("/etc/nodeagent/cluster-ca.pem", pem.as_bytes());
    written.expect("the bundle is written");
}

fn signed_by(stage: &Stage, authority: &str) -> bool {
    let block = |pem: &str| {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
        pem.contents
    };
    let leaf = block(&stage.read(&format!("{PUBLISHED}/current/cert.pem")));
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).expect("a leaf");
    let authority = block(authority);
    let (_, authority) = x509_parser::parse_x509_certificate(&authority).expect("an authority");
    leaf.verify_signature(Some(authority.public_key())).is_ok()
}

#[tokio::test]
async fn a_bundle_that_is_torn_changes_nothing() {
    let (stage, mut agent) = healthy(StageOptions::worker()).await;
    let before = tree(&stage, PUBLISHED);
    pin(&stage, "-----BEGIN CERTIFICATE-----\nMIIB");
    look_again(&stage, &agent);
    assert_eq!(tree(&stage, PUBLISHED), before);
    assert_eq!(issues(&stage), 1);
    assert!(agent.is_running());
    until("log", || stage.log().contains("cluster-ca.pem"));
}

//! Certificates that are not what was asked for, or that Vault does not give: told, refused, and
//! what is published stays as it was.

use rig::stage::StageOptions;
use rig::vault::Lie;
use serde_json::json;

use crate::certificates::{make_default, pin, second_issuer};
use crate::play::*;

#[tokio::test]
async fn n14_a_certificate_for_other_names_is_refused() {
    refused(Lie::WrongName, "names-wrong").await;
}

#[tokio::test]
async fn a_certificate_for_another_key_is_refused() {
    refused(Lie::OtherKey, "certificate-bad").await;
}

#[tokio::test]
async fn a_certificate_of_a_forged_authority_is_refused() {
    refused(Lie::OtherIssuer, "issuer-unknown").await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused() {
    refused(Lie::Expired, "validity-wrong").await;
}

#[tokio::test]
async fn a_certificate_without_its_usage_is_refused() {
    refused(Lie::NoUsage, "certificate-bad").await;
}

/// A lie is told, nothing on disk changes, and the truth is taken when it comes.
async fn refused(lie: Lie, code: &str) {
    let (stage, agent) = serving(StageOptions::worker()).await;
    let before = tree(&stage, "/var/lib/nodeagent-certs");
    let archive = tree(&stage, "/var/lib/nodeagent/archive");
    stage.model().lie(Some(lie));
    let serial = ask_renewal(&stage);
    wait_problem(&stage, code);
    assert_eq!(tree(&stage, "/var/lib/nodeagent-certs"), before);
    assert_eq!(tree(&stage, "/var/lib/nodeagent/archive"), archive);
    assert_eq!(stage.kubelet.serial(), Some(serial.clone()));
    assert_eq!(issues(&stage), 2, "no hammering");
    stage.model().lie(None);
    agent.reload().expect("it runs");
    wait_renewed(&stage, &serial);
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_fresh_node_that_is_lied_to_publishes_nothing() {
    let stage = stage(StageOptions::worker()).await;
    stage.model().lie(Some(Lie::OtherKey));
    let _agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "certificate-bad");
    assert_eq!(generations(&stage, PUBLISHED), [""; 0]);
    let output = run_verb(&stage, &["await", "kubelet", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(65), "{}", text_of(&output));
}

#[tokio::test]
async fn an_issuer_outside_of_the_bundle_is_refused_with_its_fingerprint() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let before = tree(&stage, PUBLISHED);
    let (id, pem) = second_issuer(&stage).await;
    make_default(&stage, &id).await;
    let serial = ask_renewal(&stage);
    let text = told(&wait_problem(&stage, "issuer-unknown"));
    let fingerprint = authorities(&pem)[0].fingerprint.clone();
    assert!(text.contains(&fingerprint) && text.contains("the next one"), "{text}");
    assert_eq!(tree(&stage, PUBLISHED), before);
    // As the advice says.
    pin(&stage, &format!("{}{pem}", stage.configured.roots["pki"]));
    agent.reload().expect("it runs");
    wait_renewed(&stage, &serial);
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_role_that_is_too_narrow_is_told_with_the_role() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let before = tree(&stage, PUBLISHED);
    let read = stage.admin().read("pki/roles/kubelet-server").await.expect("vault answers");
    let domains = read.data("allowed_domains").clone();
    let narrow = json!({ "allowed_domains": ["somebody.else"] });
    change_entry(&stage, "pki/roles/kubelet-server", &narrow).await;
    let serial = ask_renewal(&stage);
    let text = told(&wait_problem(&stage, "role-refused"));
    assert!(text.contains("not allowed by this role"), "{text}");
    assert!(text.contains("vault read pki/roles/kubelet-server"), "{text}");
    assert_eq!((issues(&stage), tree(&stage, PUBLISHED)), (2, before));
    let wide = json!({ "allowed_domains": domains });
    change_entry(&stage, "pki/roles/kubelet-server", &wide).await;
    agent.reload().expect("it runs");
    wait_renewed(&stage, &serial);
}

#[tokio::test]
async fn a_role_that_vault_does_not_have_is_told() {
    let stage = stage(StageOptions::worker()).await;
    let deleted = stage.admin().delete("pki/roles/kubelet-server").await;
    assert_eq!(deleted.expect("vault answers").status, 204);
    let _agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "role-refused"));
    assert!(text.contains("pki/roles/kubelet-server"), "{text}");
}

#[tokio::test]
async fn an_authority_that_ends_too_soon_is_told() {
    let (stage, _agent) = healthy(StageOptions::worker()).await;
    let body = json!({ "common_name": "brief", "key_type": "ec", "ttl": "2h" });
    let made = stage.admin().must_write("pki/root/generate/internal", &body).await;
    let made = made.expect("an issuer");
    make_default(&stage, made.data("issuer_id").as_str().expect("an id")).await;
    ask_renewal(&stage);
    let text = told(&wait_problem(&stage, "authority-ending"));
    assert!(text.contains("beyond the expiration of the CA"), "{text}");
}

#[tokio::test]
async fn a_role_that_cuts_the_life_below_the_outage_is_told_with_the_hours() {
    let stage = stage(StageOptions::worker()).await;
    let change = json!({ "ttl": "1h", "max_ttl": "1h" });
    change_entry(&stage, "pki/roles/kubelet-server", &change).await;
    let _agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "autonomy-short"));
    assert!(text.contains("max_ttl of the PKI role"), "{text}");
    assert_eq!(stage.status()["health"], "degraded");
}

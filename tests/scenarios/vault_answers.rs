//! What comes instead of an answer of Vault, inside good TLS: it is told, nothing is changed by
//! it, and it is over when it is over.

use rig::aws::Ec2Fault;
use rig::server::{Fault, Step};
use rig::stage::{Stage, StageOptions, Which};
use serde_json::json;

use crate::play::*;

const LOGIN: &str = "/v1/auth/aws/login";
const SIGN: &str = "/v1/pki/sign/kubelet-server";

#[tokio::test]
async fn a_login_page_instead_of_an_answer_is_no_answer() {
    let text = at_log_in(Fault::Html200, "vault-failing").await;
    assert!(text.contains("no answer of Vault"), "{text}");
}

#[tokio::test]
async fn garbage_instead_of_http_is_no_answer() {
    at_log_in(Fault::Garbage, "vault-failing").await;
}

#[tokio::test]
async fn an_answer_with_a_wrong_length_is_no_answer() {
    at_log_in(Fault::WrongLength, "vault-unreachable").await;
}

#[tokio::test]
async fn an_error_of_the_server_is_tried_again() {
    at_log_in(Fault::status(500, "internal error"), "vault-failing").await;
}

#[tokio::test]
async fn a_quota_is_respected() {
    let text = "request path \"auth/aws/login\": rate limit quota exceeded";
    at_log_in(Fault::status(429, text), "vault-throttled").await;
}

#[tokio::test]
async fn a_quota_is_waited_for_as_long_as_it_says() {
    let Some((stage, others)) = limited(Which::Model).await else { return };
    // The one that was told to wait, the one after that, and one more where a second was cut.
    let asked = stage.model().server().count(LOGIN) - others;
    assert!((2..=3).contains(&asked), "{asked} log-ins");
}

#[tokio::test]
async fn a_quota_of_a_real_vault_is_waited_for_too() {
    limited(Which::Real).await;
}

/// Another client of the node's address has used up the quota of log-ins for ten seconds. Gives
/// how often it had to ask for that.
async fn limited(which: Which) -> Option<(Stage, usize)> {
    let stage = stage_on(which, StageOptions::worker()).await?;
    let rule = json!({
        "path": "auth/aws/login", "rate": 1, "interval": "1s", "block_interval": "10s",
    });
    let path = "sys/quotas/rate-limit/aws-login";
    stage.admin().must_write(path, &rule).await.expect("the quota is taken");
    let other = stage.admin().with_token(None);
    let mut others = 1;
    while other.write("auth/aws/login", &json!({})).await.expect("an answer").status != 429 {
        others += 1;
        assert!(others < 20, "the quota refuses nobody");
    }
    let _agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "vault-throttled");
    wait_healthy(&stage);
    Some((stage, others))
}

/// The first log-in meets the fault twice; then all is well.
async fn at_log_in(fault: Fault, code: &str) -> String {
    let stage = stage(StageOptions::worker()).await;
    stage.model().server().script(vec![Step::on(LOGIN, fault)]);
    let _agent = stage.run().expect("the agent starts");
    let problem = wait_problem(&stage, code);
    stage.model().server().script(Vec::new());
    wait_healthy(&stage);
    assert_eq!(stage.problems(), [""; 0]);
    told(&problem)
}

#[tokio::test]
async fn z02_no_false_answer_to_a_request_for_a_certificate_changes_what_is_published() {
    let empty = concat!(
        r#"{"request_id":"x","data":{"certificate":"-----","issuing_ca":"","#,
        r#""ca_chain":[],"expiration":1,"serial_number":"01"}}"#
    );
    for (fault, code) in [
        (Fault::Html200, "vault-failing"),
        (answer(200, "{}"), "vault-failing"),
        (answer(200, empty), "certificate-bad"),
        (Fault::Cut { after_bytes: 300 }, "vault-unreachable"),
        (Fault::status(500, "1 error occurred:\n\t* no issuer\n\n"), "vault-failing"),
    ] {
        let (stage, _agent) = healthy(StageOptions::worker()).await;
        let before = tree(&stage, PUBLISHED);
        stage.model().server().script(vec![Step::on(SIGN, fault.clone())]);
        ask_renewal(&stage);
        wait_problem(&stage, code);
        assert_eq!(tree(&stage, PUBLISHED), before, "{fault:?}");
    }
}

fn answer(code: u16, body: &str) -> Fault {
    Fault::Status {
        code,
        body: body.into(),
        headers: vec![("content-type".into(), "application/json".into())],
    }
}

#[tokio::test]
async fn throttling_of_aws_is_told_as_such_and_passes() {
    throttled(Which::Model).await;
}

#[tokio::test]
async fn throttling_of_aws_behind_a_real_vault_passes_too() {
    throttled(Which::Real).await;
}

/// Vault says 400 for it, which elsewhere means no.
async fn throttled(which: Which) {
    let Some(stage) = stage_on(which, StageOptions::worker()).await else {
        return;
    };
    stage.aws.set_ec2_fault(Ec2Fault::Throttle);
    let _agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "vault-throttled");
    stage.aws.set_ec2_fault(Ec2Fault::None);
    wait_healthy(&stage);
}

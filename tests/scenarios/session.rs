//! The session: tried first after a restart, renewed, and replaced by a log-in when it has to be.

use rig::aws::Ec2Fault;
use rig::server::{Fault, Step};
use rig::stage::{Stage, StageOptions, Which};
use serde_json::{Value, json};

use crate::play::*;

#[tokio::test]
async fn a_stored_token_is_tried_first_and_saves_the_log_in() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    agent.kill().expect("it is killed");
    stage.model().server().clear_log();
    let _agent = stage.run().expect("the agent starts");
    until("lookup", || calls(&stage, "auth/token/lookup-self") == 1);
    wait(&stage, "session", |status| status["vault"]["session"] == "logged-in");
    wait_healthy(&stage);
    assert_eq!(logins(&stage), 0);
    assert_eq!(issues(&stage), 0);
}

#[tokio::test]
async fn n08_a_worker_that_boots_with_good_certificates_does_not_log_in_with_all_the_others() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    assert_eq!(agent.stop(SOON), Ok(0));
    boot(&stage);
    let agent = stage.run().expect("the agent starts");
    let status = wait(&stage, "an instant", |status| status["vault"]["renew"].is_string());
    assert_eq!(
        (&status["vault"]["session"], &status["health"]),
        (&json!("none"), &json!("healthy"))
    );
    let screen = text_of(&run_verb(&stage, &["status"]));
    assert!(screen.contains(", none, log-in in "), "{screen}");
    assert_eq!(logins(&stage), 1, "it has not logged in again");
    // A certificate that is due waits for nobody, nor does a person who reloads the agent.
    agent.reload().expect("it runs");
    until("second log-in", || logins(&stage) == 2);
    wait_healthy(&stage);
    assert_eq!(agent.stop(SOON), Ok(0));
    boot(&stage);
    let archive = stage.path("/var/lib/nodeagent/archive/kubelet-server");
    std::fs::remove_dir_all(archive).expect("it was kept");
    std::fs::remove_dir_all(stage.path(PUBLISHED)).expect("it was published");
    let _agent = stage.run().expect("the agent starts");
    until("third log-in", || logins(&stage) == 3);
    wait_healthy(&stage);
}

/// What a boot does to the agent: /run is empty after it.
fn boot(stage: &Stage) {
    std::fs::remove_dir_all(stage.path("/run/nodeagent")).expect("it is there");
}

#[tokio::test]
async fn a_stored_token_that_is_torn_costs_a_log_in_and_no_more() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    agent.kill().expect("it is killed");
    let half = &stage.read("/run/nodeagent/token")[..40].to_owned();
    stage.write("/run/nodeagent/token", half.as_bytes()).expect("it is written");
    let _agent = stage.run().expect("the agent starts");
    until("second log-in", || logins(&stage) == 2);
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_revoked_token_is_replaced_when_it_is_used_next() {
    revoked(Which::Model).await;
}

#[tokio::test]
async fn a_token_revoked_at_a_real_vault_is_replaced() {
    revoked(Which::Real).await;
}

async fn revoked(which: Which) {
    let Some(stage) = stage_on(which, StageOptions::worker()).await else {
        return;
    };
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let before = accessor(&stage);
    revoke(&stage).await;
    renew(&stage);
    assert_ne!(accessor(&stage), before);
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_token_revoked_while_the_agent_is_down_is_replaced_at_its_start() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    assert_eq!(agent.stop(SOON), Ok(0));
    revoke(&stage).await;
    let _agent = stage.run().expect("the agent starts");
    until("second log-in", || logins(&stage) == 2);
    wait_healthy(&stage);
}

async fn revoke(stage: &Stage) {
    let token = stored(stage)["token"].as_str().map(str::to_owned);
    let body = json!({ "token": token });
    let revoked = stage.admin().must_write("auth/token/revoke", &body).await;
    revoked.expect("the token is revoked");
}

fn stored(stage: &Stage) -> Value {
    let text = stage.read("/run/nodeagent/token");
    serde_json::from_str(&text).expect("the stored session")
}

fn accessor(stage: &Stage) -> String {
    stored(stage)["accessor"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn before_a_token_reaches_its_longest_life_there_is_another() {
    let mut options = StageOptions::worker();
    options.setup.token_ttl = "4s".into();
    options.setup.token_max_ttl = "6s".into();
    let (stage, _agent) = healthy(options).await;
    until("third log-in", || logins(&stage) >= 3);
    let requests = stage.model().server().requests();
    let refused: Vec<_> = requests.iter().filter(|entry| entry.status != Some(200)).collect();
    let refused: Vec<_> = refused.iter().filter(|entry| entry.status.is_some()).collect();
    let by_agent = refused.iter().filter(|entry| !entry.path.starts_with("/v1/sys/"));
    let by_agent: Vec<_> = by_agent.filter(|entry| entry.status != Some(204)).collect();
    assert!(by_agent.is_empty(), "the agent never used a dead token: {by_agent:?}");
}

#[tokio::test]
async fn a_token_without_an_end_is_kept_and_not_renewed_at_every_look() {
    let mut options = StageOptions::worker();
    options.setup.token_ttl = "8s".into();
    let stage = stage(options).await;
    let answer = |body: Value| {
        let headers = vec![("content-type".into(), "application/json".into())];
        Fault::Status { code: 200, body: body.to_string(), headers }
    };
    // A lease of 0 is how Vault says that there is no end.
    let renewed = json!({ "auth": {
        "client_token": "endless", "accessor": "endless", "lease_duration": 0, "renewable": true,
    } });
    let known = json!({ "data": {
        "ttl": 0, "creation_ttl": 0, "renewable": false, "accessor": "endless",
        "policies": ["worker"], "orphan": true, "num_uses": 0, "path": "auth/aws/login",
    } });
    stage.model().server().script(vec![
        Step::on("/v1/auth/token/renew-self", answer(renewed)),
        Step::on("/v1/auth/token/lookup-self", answer(known)),
    ]);
    let lasts = |status: &Value| {
        let expires = status["vault"]["expires"].as_str().and_then(|text| text.parse().ok());
        let now = rig::clock::ModelClock::real().now();
        let left = |end: jiff::Timestamp| end.duration_since(now);
        expires.is_some_and(|end| left(end) > jiff::SignedDuration::from_mins(50))
    };
    let agent = stage.run().expect("the agent starts");
    wait(&stage, "renewal", lasts);
    assert_eq!(agent.stop(SOON), Ok(0));
    let agent = stage.run().expect("the agent starts again");
    until("lookup", || calls(&stage, "auth/token/lookup-self") == 1);
    wait(&stage, "proof", |status| status["vault"]["session"] == "logged-in" && lasts(status));
    look_again(&stage, &agent);
    assert_eq!((logins(&stage), calls(&stage, "auth/token/renew-self")), (1, 1));
}

#[tokio::test]
async fn an_identity_that_cannot_be_kept_costs_no_second_log_in() {
    let stage = stage(StageOptions::worker()).await;
    let path = "/var/lib/nodeagent/identity.json";
    std::fs::create_dir_all(stage.path(path)).expect("something in its place");
    let agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "disk"));
    assert!(text.contains(path), "{text}");
    wait(&stage, "certificates", |_| {
        [SERVER, "kubelet-client"].iter().all(|name| stage.certificate(name)["state"] == "good")
    });
    agent.kill().expect("it is killed");
    let _agent = stage.run().expect("the agent starts again");
    until("lookup", || calls(&stage, "auth/token/lookup-self") == 1);
    wait(&stage, "session", |status| status["vault"]["session"] == "logged-in");
    assert_eq!(logins(&stage), 1);
}

#[tokio::test]
async fn renewals_that_keep_failing_end_in_a_log_in() {
    let mut options = StageOptions::worker();
    options.setup.token_ttl = "8s".into();
    let stage = stage(options).await;
    let fault = Fault::status(500, "internal error");
    stage.model().server().script(vec![Step::on("/v1/auth/token/renew-self", fault)]);
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    until("second log-in", || logins(&stage) >= 2);
    assert!(calls(&stage, "auth/token/renew-self") >= 1);
    wait_healthy(&stage);
}

#[tokio::test]
async fn throttling_of_aws_at_a_renewal_does_not_cost_the_session() {
    let mut options = StageOptions::worker();
    options.setup.token_ttl = "20s".into();
    let (stage, _agent) = healthy(options).await;
    let before = accessor(&stage);
    stage.aws.set_ec2_fault(Ec2Fault::Throttle);
    wait_problem(&stage, "vault-throttled");
    assert_eq!(accessor(&stage), before);
    stage.aws.set_ec2_fault(Ec2Fault::None);
    wait_healthy(&stage);
}

#[tokio::test]
async fn another_role_in_the_configuration_is_logged_in_with() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let role = stage.admin().read("auth/aws/role/worker").await;
    let mut role = role.expect("vault answers").json["data"].clone();
    role["token_policies"] = json!(["worker"]);
    let written = stage.admin().must_write("auth/aws/role/second", &role).await;
    written.expect("the role is taken");
    let before = accessor(&stage);
    reconfigure(&stage, &agent, "[identity]\nrole = \"second\"\n");
    until("second log-in", || logins(&stage) == 2 && accessor(&stage) != before);
    assert_eq!(stored(&stage)["role"], "second");
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_login_role_that_vault_does_not_have_is_told_with_its_path() {
    let stage = stage(StageOptions::worker().with("[identity]\nrole = \"nobody\"\n")).await;
    let _agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "login-refused"));
    assert!(text.contains("auth/aws/role/nobody"), "{text}");
    assert_eq!(logins(&stage), 1);
    crate::nonce::assert_waits(&stage);
}

#[tokio::test]
async fn a_policy_that_lacks_a_path_is_told_after_one_more_log_in_and_is_not_hammered() {
    let stage = stage(StageOptions::worker()).await;
    let policy = "path \"pki/sign/kubelet-client\" { capabilities = [\"update\"] }";
    let body = json!({ "policy": policy });
    let written = stage.admin().must_write("sys/policies/acl/worker", &body).await;
    written.expect("the policy is taken");
    let _agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "policy-denied"));
    assert!(text.contains("pki/sign/kubelet-server"), "{text}");
    until("one more try with the new token", || issues(&stage) == 2);
    assert_eq!(logins(&stage), 2);
    wait(&stage, "the other certificate", |_| {
        stage.certificate("kubelet-client")["state"] == "good"
    });
    assert_eq!((logins(&stage), issues(&stage)), (2, 2));
}

#[tokio::test]
async fn a_policy_that_the_login_role_lacked_comes_with_a_new_token() {
    given_later(Which::Model).await;
}

#[tokio::test]
async fn a_policy_that_a_real_login_role_lacked_comes_with_a_new_token() {
    given_later(Which::Real).await;
}

/// A token has the policies of its log-in, and no renewal gives it others.
async fn given_later(which: Which) {
    let Some(stage) = stage_on(which, StageOptions::worker()).await else {
        return;
    };
    let role = "auth/aws/role/worker";
    change_entry(&stage, role, &json!({ "token_policies": [] })).await;
    let agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "policy-denied");
    // The log-in that follows the first refusal is over by then, and did not help.
    look_again(&stage, &agent);
    wait_problem(&stage, "policy-denied");
    change_entry(&stage, role, &json!({ "token_policies": ["worker"] })).await;
    agent.reload().expect("it runs");
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_token_is_kept_alive_where_a_policy_refuses_and_no_log_in_is_to_be_had() {
    let mut options = StageOptions::worker();
    options.setup.token_ttl = "8s".into();
    let (stage, agent) = healthy(options).await;
    let policy = "sys/policies/acl/worker";
    let whole = stage.admin().read(policy).await.expect("vault answers").json["data"].clone();
    let nothing = json!({ "policy": "path \"pki/none\" { capabilities = [\"update\"] }" });
    stage.admin().must_write(policy, &nothing).await.expect("the policy is taken");
    let refused = Fault::status(400, "reauthentication is disabled");
    stage.model().server().script(vec![Step::on("/v1/auth/aws/login", refused)]);
    let before = ask_renewal(&stage);
    wait_problem(&stage, "policy-denied");
    until("log-in", || logins(&stage) == 2);
    let renewals = calls(&stage, "auth/token/renew-self");
    until("three renewals", || calls(&stage, "auth/token/renew-self") >= renewals + 3);
    stage.admin().must_write(policy, &whole).await.expect("the policy is taken");
    agent.reload().expect("it runs");
    wait_renewed(&stage, &before);
    wait_healthy(&stage);
}

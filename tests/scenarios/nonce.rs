//! The client nonce: whoever logs in first as an instance owns it. An agent that is killed gets
//! in again; one whose nonce was taken by another says so, and to whom to turn.

use jiff::{SignedDuration, Timestamp};
use rig::aws::document::{Signer, identity_document};
use rig::server::{Fault, Step};
use rig::setup::Reply;
use rig::stage::{Stage, StageOptions, Which};
use serde_json::{Value, json};

use crate::play::*;

/// Somebody else on the node logs in as the instance.
pub(crate) async fn log_in_as(stage: &Stage, nonce: &str) -> Reply {
    let instance = stage.aws.instance(&stage.instance).expect("launched");
    let document = identity_document(&instance);
    let pkcs7 = Signer::shared().rsa2048(document.as_bytes(), stage.clock.now());
    let body = json!({ "role": "worker", "pkcs7": pkcs7, "nonce": nonce });
    let anyone = stage.vault.handle().client(None);
    let answer = anyone.write("auth/aws/login", &body).await;
    answer.expect("vault answers")
}

/// After a no the next log-in is half a minute away at least, and a restart does not forget that.
pub(crate) fn assert_waits(stage: &Stage) {
    let records = stage.read("/var/lib/nodeagent/records.json");
    let records: Value = serde_json::from_str(&records).expect("the records");
    let session = &records["duties"]["session"];
    let instant = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let since = instant(&session["failure"]["since"]).expect("an instant");
    let until = instant(&session["not_before"]).expect("an instant");
    assert!(since.duration_until(until) >= SignedDuration::from_secs(30), "{session:#}");
}

#[tokio::test]
async fn a_stolen_nonce_is_told_with_the_command_that_frees_it_and_then_cured_by_it() {
    let stage = stage(StageOptions::worker()).await;
    assert_eq!(log_in_as(&stage, "a-thief").await.status, 200);
    let agent = stage.run().expect("the agent starts");
    let problem = wait_problem(&stage, "nonce-mismatch");
    let entry = format!("auth/aws/identity-accesslist/{}", stage.instance);
    let text = told(&problem);
    assert!(text.contains(&format!("vault delete {entry}")), "{text}");
    assert_eq!(logins(&stage), 2, "the thief's and one of ours");
    assert_waits(&stage);
    let deleted = stage.admin().delete(&entry).await;
    assert_eq!(deleted.expect("vault answers").status, 204);
    // A person does not wait for the backoff.
    agent.reload().expect("it runs");
    wait_healthy(&stage);
    assert_eq!(logins(&stage), 3);
}

#[tokio::test]
async fn a_disabled_reauthentication_is_told_and_not_hammered() {
    let stage = stage(StageOptions::worker()).await;
    let change = json!({ "disallow_reauthentication": true });
    change_entry(&stage, "auth/aws/role/worker", &change).await;
    assert_eq!(log_in_as(&stage, "an-older-agent").await.status, 200);
    let agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "reauthentication-disabled"));
    assert!(text.contains(&stage.instance), "{text}");
    assert!(text.contains("vault delete auth/aws/identity-accesslist/"), "{text}");
    assert_waits(&stage);
    // Another start is no reason to ask sooner: the backoff is on disk.
    let started = stage.status()["agent"]["started"].clone();
    agent.kill().expect("it is killed");
    let _agent = stage.run().expect("the agent starts");
    wait(&stage, "look of the next agent", |status| status["agent"]["started"] != started);
    assert_eq!(logins(&stage), 2);
}

#[tokio::test]
async fn a_deleted_access_list_entry_is_made_anew() {
    let mut options = StageOptions::worker();
    options.setup.token_ttl = "4s".into();
    let (stage, _agent) = healthy(options).await;
    let entry = format!("auth/aws/identity-accesslist/{}", stage.instance);
    let deleted = stage.admin().delete(&entry).await;
    assert_eq!(deleted.expect("vault answers").status, 204);
    until("second log-in", || logins(&stage) >= 2);
    let end = std::time::Instant::now() + SOON;
    while stage.admin().read(&entry).await.expect("vault answers").status != 200 {
        assert!(std::time::Instant::now() < end, "no entry again");
    }
    wait_healthy(&stage);
}

#[tokio::test]
async fn an_agent_killed_before_vault_heard_of_it_gets_in_again() {
    let stage = stage(StageOptions::worker()).await;
    let step = Step::on("/v1/auth/aws/login", Fault::Hang).times(1);
    stage.model().server().script(vec![step]);
    let agent = stage.run().expect("the agent starts");
    assert!(stage.model().server().wait_for("/v1/auth/aws/login", 1, SOON));
    agent.kill().expect("it is killed");
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
}

#[tokio::test]
async fn n01_an_agent_killed_after_vault_noted_its_nonce_gets_in_again() {
    for answered in [0, 200] {
        let stage = stage(StageOptions::worker()).await;
        let fault = Fault::Cut { after_bytes: answered };
        stage.model().server().script(vec![Step::on("/v1/auth/aws/login", fault).times(1)]);
        let agent = stage.run().expect("the agent starts");
        // The problem tells that the answer was lost after Vault had done its work.
        wait_problem(&stage, "vault-unreachable");
        agent.kill().expect("it is killed");
        let entry = format!("auth/aws/identity-accesslist/{}", stage.instance);
        assert_eq!(stage.admin().read(&entry).await.expect("vault answers").status, 200);
        let _agent = stage.run().expect("the agent starts");
        wait_healthy(&stage);
        assert!(!stage.log().contains("nonce"), "{}", stage.log());
    }
}

#[tokio::test]
async fn an_agent_killed_at_random_moments_of_its_first_start_gets_in_again() {
    killed_at_random(Which::Model, 8).await;
}

#[tokio::test]
async fn an_agent_killed_at_random_moments_gets_in_again_at_a_real_vault() {
    killed_at_random(Which::Real, 3).await;
}

/// The real vault agent locks itself out here: its nonce dies with it.
async fn killed_at_random(which: Which, nodes: u32) {
    let mut seed = seed();
    for _ in 0..nodes {
        let Some(stage) = stage_on(which, StageOptions::worker()).await else {
            return;
        };
        for _ in 0..4 {
            let agent = stage.run().expect("the agent starts");
            let moment = random(&mut seed, 120);
            tokio::time::sleep(std::time::Duration::from_millis(moment)).await;
            agent.kill().expect("it is killed");
            // As a reboot does: every start has to log in, with the nonce of the first.
            std::fs::remove_file(stage.path("/run/nodeagent/token")).ok();
        }
        let _agent = stage.run().expect("the agent starts");
        wait_healthy(&stage);
        assert!(!stage.log().contains("nonce-mismatch"), "{}", stage.log());
    }
}

#[tokio::test]
async fn an_image_of_a_node_does_not_use_the_nonce_of_that_node() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    assert_eq!(agent.stop(SOON), Ok(0));
    // The same disk wakes up as another instance.
    let nonce = format!("/var/lib/nodeagent/nonce/aws/{}", stage.instance);
    let before = stage.read(&nonce);
    let other = stage.aws.launch(rig::aws::LaunchSpec::profile("worker"));
    let imds = stage.aws.imds(&other).expect("a metadata service");
    configure(&stage, &format!("[identity]\nimds = \"{}\"\n", imds.url()));
    std::fs::remove_file(stage.path("/run/nodeagent/token")).expect("a reboot empties /run");
    let _agent = stage.run().expect("the agent starts");
    wait(&stage, "log-in as the other", |status| {
        status["node"]["instance_id"] == *other && status["health"] == "healthy"
    });
    assert_eq!(stage.read(&nonce), before);
    let own = stage.read(&format!("/var/lib/nodeagent/nonce/aws/{other}"));
    assert!(!own.is_empty() && own != before);
    let names = [format!("system:node:{other}")];
    until("certificate of its own", || {
        let cert = stage.read(&format!("{PUBLISHED}/current/cert.pem"));
        let leaf = nodeagent::duty::certs::leaf::Leaf::read(cert.as_bytes());
        leaf.is_ok_and(|leaf| leaf.common_names == names)
    });
}

//! Certificates and tokens are renewed in time, again and again, and nobody is disturbed.

use rig::stage::StageOptions;

use crate::play::*;

#[tokio::test]
async fn z05_certificates_are_renewed_over_and_over_and_served_without_a_restart() {
    let stage = stage(brief(20, 15)).await;
    date_back_little(&stage).await;
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    stage.start_kubelet().expect("the consumer starts");
    let mut before = serial(&stage);
    for _ in 0..3 {
        before = wait_renewed(&stage, &before);
        until("the new serial", || stage.kubelet.serial() == Some(serial(&stage)));
    }
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 0);
    assert_eq!(stage.kubelet.record().starts, 1);
    until("one generation", || generations(&stage, PUBLISHED).len() == 1);
    let archived = generations(&stage, "/var/lib/nodeagent/archive/kubelet-server");
    assert!(archived.len() <= 3, "{archived:?}");
}

#[tokio::test]
async fn a_renewal_that_would_end_sooner_is_refused() {
    let stage = stage(brief(60, 45)).await;
    date_back_little(&stage).await;
    let agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let before = serial(&stage);
    let lives = |life: &str| serde_json::json!({ "ttl": life, "max_ttl": life });
    change_entry(&stage, "pki/roles/kubelet-server", &lives("5s")).await;
    let text = told(&wait_problem(&stage, "validity-wrong"));
    assert!(text.contains("before the one in force") && text.contains("max_ttl"), "{text}");
    assert_eq!(serial(&stage), before, "hours are not given for minutes");
    change_entry(&stage, "pki/roles/kubelet-server", &lives("24h")).await;
    agent.reload().expect("it runs");
    wait_renewed(&stage, &before);
    wait_healthy(&stage);
}

#[tokio::test]
async fn every_renewal_has_a_key_of_its_own() {
    let (stage, _agent) = healthy(StageOptions::worker()).await;
    let key = || stage.read(&format!("{PUBLISHED}/current/key.pem"));
    let first = key();
    renew(&stage);
    assert!(first.starts_with("-----BEGIN PRIVATE KEY-----"));
    assert_ne!(first, key());
}

#[tokio::test]
async fn a_certificate_dated_back_by_more_than_its_life_is_not_issued_in_a_storm() {
    let stage = stage(brief(60, 20)).await;
    for role in ["kubelet-server", "kubelet-client"] {
        let change = serde_json::json!({ "not_before_duration": "10m" });
        change_entry(&stage, &format!("pki/roles/{role}"), &change).await;
    }
    let agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let before = issues(&stage);
    for _ in 0..5 {
        look_again(&stage, &agent);
    }
    assert!(issues(&stage) <= before + 1, "{} issues", issues(&stage));
}

#[tokio::test]
async fn the_token_is_renewed_before_its_lease_ends_and_nobody_logs_in_again() {
    let mut options = StageOptions::worker();
    options.setup.token_ttl = "4s".into();
    let (stage, _agent) = healthy(options).await;
    until("three renewals", || calls(&stage, "auth/token/renew-self") >= 3);
    assert_eq!(logins(&stage), 1);
    let refused = stage.model().server().requests();
    let refused = refused.iter().filter(|entry| entry.status == Some(403));
    assert_eq!(refused.count(), 0);
}

#[tokio::test]
async fn z25_a_steady_agent_says_nothing() {
    let mut options = StageOptions::worker();
    options.setup.token_ttl = "3s".into();
    let (stage, _agent) = healthy(options).await;
    let said = stage.log();
    until("three renewals", || calls(&stage, "auth/token/renew-self") >= 3);
    assert_eq!(stage.log(), said);
}

#[tokio::test]
async fn a_person_asks_for_a_new_certificate_and_gets_one() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let (before, after) = renew(&stage);
    assert_ne!(before, after);
    assert_eq!(issues(&stage), 2);
    // One that is asked for while the agent is down is got at its next start.
    assert_eq!(agent.stop(SOON), Ok(0));
    let before = ask_renewal(&stage);
    assert_eq!(serial(&stage), before);
    let _agent = stage.run().expect("the agent starts");
    wait_renewed(&stage, &before);
    assert_eq!(issues(&stage), 3);
}

#[tokio::test]
async fn the_budget_of_issues_holds_over_restarts_and_is_told() {
    let options = StageOptions::worker().with("[rotation]\nissues_per_hour = 2\n");
    let (stage, agent) = healthy(options).await;
    renew(&stage);
    assert_eq!(stage.problems(), [""; 0], "as long as none is needed it is no problem");
    assert_eq!(agent.stop(SOON), Ok(0));
    // A third is needed: both copies are gone.
    for path in [PUBLISHED, "/var/lib/nodeagent/archive/kubelet-server"] {
        std::fs::remove_dir_all(stage.path(path)).expect("it was there");
    }
    let _agent = stage.run().expect("the agent starts");
    let status = wait(&stage, "budget", |status| problem(status, "issue-budget").is_some());
    assert_eq!(status["health"], "failed", "{status:#}");
    assert_eq!(issues(&stage), 2);
    assert_eq!(stage.certificate(SERVER)["state"], "missing");
}

#[tokio::test]
async fn requests_that_vault_refuses_cost_nothing_of_the_budget() {
    let options = StageOptions::worker().with("[rotation]\nissues_per_hour = 2\n");
    let stage = stage(options).await;
    let fault = rig::server::Fault::status(500, "internal error");
    let step = rig::server::Step::on("/v1/pki/sign/kubelet-server", fault);
    stage.model().server().script(vec![step.times(3)]);
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    assert_eq!(issues(&stage), 4);
}

//! Vault is away, sealed, slow or comes and goes: what is on disk goes on being used, and nobody
//! has to do anything when it is back.

use std::time::Duration;

use rig::proxy::Fault;
use rig::stage::{Stage, StageOptions, Which};
use serde_json::Value;

use crate::play::*;

#[tokio::test]
async fn z01_vault_is_away_for_longer_than_certificates_live_and_all_is_well_when_it_is_back() {
    let stage = stage(brief(8, 6)).await;
    date_back_little(&stage).await;
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    stage.start_kubelet().expect("the consumer starts");
    stage.proxy.set(Fault::Refuse);
    let status = wait(&stage, "end of the certificates", |status| {
        let certificates = status["certificates"].as_array();
        certificates.is_some_and(|all| all.iter().all(|part| part["state"] == "expired"))
    });
    assert_eq!(status["health"], "failed");
    assert!(problem(&status, "vault-unreachable").is_some(), "{status:#}");
    assert_eq!(run_verb(&stage, &["await", "kubelet", "--timeout", "0"]).status.code(), Some(65));
    assert!(stage.kubelet.is_running(), "nobody stops what runs");
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 0);
    let ended = serial(&stage);
    stage.proxy.set(Fault::None);
    wait_renewed(&stage, &ended);
    wait_healthy(&stage);
    until("the new serial", || stage.kubelet.serial() == Some(serial(&stage)));
}

#[tokio::test]
async fn z25_an_outage_is_told_once_and_not_at_every_try() {
    let stage = stage(StageOptions::worker()).await;
    stage.proxy.set(Fault::Refuse);
    let _agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "vault-unreachable");
    until("the second try", || tries(&stage, "session") >= 2);
    let said = stage.log();
    assert!(said.contains("vault-unreachable"), "{said}");
    until("the fourth try", || tries(&stage, "session") >= 4);
    assert_eq!(stage.log(), said);
}

/// How often in a row a duty has failed.
fn tries(stage: &Stage, duty: &str) -> u64 {
    let records = stage.read("/var/lib/nodeagent/records.json");
    let records: Value = serde_json::from_str(&records).unwrap_or_default();
    records["duties"][duty]["failure"]["count"].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn a_token_that_ended_in_an_outage_is_replaced_by_a_log_in() {
    for which in [Which::Model, Which::Real] {
        let mut options = StageOptions::worker();
        options.setup.token_ttl = "4s".into();
        let Some(stage) = stage_on(which, options).await else {
            return;
        };
        let _agent = stage.run().expect("the agent starts");
        let status = wait_healthy(&stage);
        stage.proxy.set(Fault::Refuse);
        let ends = status["vault"]["expires"].as_str().map(str::to_owned);
        until("the token's end", || {
            let now = stage.clock.now().to_string();
            ends.as_deref().is_some_and(|ends| *ends < *now)
        });
        wait_problem(&stage, "vault-unreachable");
        // The verb would have the agent begin anew, with a token that it has yet to prove.
        let before = serial(&stage);
        stage.write("/run/nodeagent/requests/kubelet-server", b"").expect("a wish");
        let tried = tries(&stage, "session");
        until("two more", || tries(&stage, "session") >= tried + 2);
        assert_eq!(tries(&stage, "cert/kubelet-server"), 0, "a token that has ended is used");
        stage.proxy.set(Fault::None);
        wait_renewed(&stage, &before);
        wait_healthy(&stage);
    }
}

#[tokio::test]
async fn a_restart_without_vault_keeps_what_is_there_and_opens_the_gate() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    stage.proxy.set(Fault::Refuse);
    agent.kill().expect("it is killed");
    let published = tree(&stage, PUBLISHED);
    let agent = stage.run().expect("the agent starts");
    let status = wait(&stage, "problem", |status| problem(status, "vault-unreachable").is_some());
    assert_eq!(status["health"], "degraded");
    assert!(status["autonomy_s"].as_i64().is_some_and(|left| left > 11 * 3600));
    assert_eq!(run_verb(&stage, &["await", "kubelet", "--timeout", "0"]).status.code(), Some(0));
    assert_eq!(tree(&stage, PUBLISHED), published);
    stage.proxy.set(Fault::None);
    wait_healthy(&stage);
    assert_eq!(agent.stop(SOON), Ok(0));
    assert_eq!(tree(&stage, PUBLISHED), published, "no renewal for nothing");
}

#[tokio::test]
async fn a_reboot_without_vault_starts_with_the_certificates_on_disk() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    agent.kill().expect("it is killed");
    std::fs::remove_dir_all(stage.path("/run/nodeagent")).expect("a reboot empties /run");
    let at_once = b"[vault]\nsplay = \"1s\"\n";
    stage.write("/etc/nodeagent/config.d/60-splay.toml", at_once).expect("it is written");
    stage.proxy.set(Fault::Refuse);
    let _agent = stage.run().expect("the agent starts");
    let status = wait(&stage, "problem", |status| problem(status, "vault-unreachable").is_some());
    assert_eq!(status["health"], "degraded");
    assert_eq!(status["vault"]["session"], "none");
    assert_eq!(run_verb(&stage, &["await", "kubelet", "--timeout", "0"]).status.code(), Some(0));
}

#[tokio::test]
async fn a_sealed_vault_is_waited_for_and_told() {
    let stage = stage(StageOptions::worker()).await;
    stage.model().seal();
    let _agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "vault-sealed"));
    assert!(text.contains("vault operator unseal"), "{text}");
    stage.model().unseal();
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_real_vault_that_is_sealed_is_waited_for_and_keeps_the_session() {
    let mut options = StageOptions::worker();
    options.setup.token_ttl = "10s".into();
    let Some(stage) = stage_on(Which::Real, options).await else {
        return;
    };
    let rig::stage::Peer::Real(vault) = &stage.vault else {
        panic!("the real one was asked for");
    };
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    vault.seal().await.expect("it is sealed");
    wait_problem(&stage, "vault-sealed");
    vault.unseal().await.expect("it is unsealed");
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_vault_that_hangs_costs_no_more_than_the_deadline() {
    through(Fault::Hang, "vault-unreachable").await;
}

#[tokio::test]
async fn a_vault_that_answers_garbage_is_not_reachable() {
    through(Fault::Garbage, "vault-unreachable").await;
}

#[tokio::test]
async fn a_vault_whose_answers_are_cut_is_not_reachable() {
    // The handshake passes, the answer does not.
    through(Fault::Cut { after_bytes: 1500 }, "vault-unreachable").await;
}

/// The node boots while the way to Vault is broken, and is healthy once it is repaired.
async fn through(fault: Fault, code: &str) {
    let stage = stage(StageOptions::worker().with("[vault]\ntimeout = \"2s\"\n")).await;
    stage.proxy.set(fault);
    let _agent = stage.run().expect("the agent starts");
    let problem = wait_problem(&stage, code);
    assert!(told(&problem).contains("auth/aws/login"), "{problem:#}");
    gate_is_shut(&stage);
    stage.proxy.set(Fault::None);
    wait_healthy(&stage);
}

fn gate_is_shut(stage: &Stage) {
    let output = run_verb(stage, &["await", "kubelet", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(65), "{}", text_of(&output));
}

#[tokio::test]
async fn a_vault_that_comes_and_goes_is_used_while_it_is_there() {
    let stage = stage(StageOptions::worker()).await;
    let (up, down) = (Duration::from_millis(700), Duration::from_millis(200));
    stage.proxy.set(Fault::Flap { up, down });
    let _agent = stage.run().expect("the agent starts");
    wait(&stage, "certificates in spite of it", |status| status["autonomy_s"].is_i64());
    stage.proxy.set(Fault::None);
    // Certificates that came one by one are adopted one by one.
    wait(&stage, "health", |status| status["health"] == "healthy");
}

#[tokio::test]
async fn a_slow_vault_is_waited_for_and_delays_no_signal() {
    let stage = stage(StageOptions::worker()).await;
    stage.model().slow(Duration::from_secs(3600));
    let agent = stage.run().expect("the agent starts");
    assert!(stage.model().server().wait_for("/v1/auth/aws/login", 1, SOON));
    assert_eq!(agent.stop(SOON), Ok(0));
    stage.model().slow(Duration::from_millis(300));
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
}

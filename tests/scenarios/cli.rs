//! The verbs as a person and a unit use them: texts and exit codes.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rig::proxy::Fault;
use rig::stage::{Stage, StageOptions};
use serde_json::{Value, json};

use crate::play::*;

fn code(stage: &Stage, arguments: &[&str]) -> Option<i32> {
    run_verb(stage, arguments).status.code()
}

#[tokio::test]
async fn status_of_a_healthy_node_is_a_screen_and_a_document_and_exits_with_0() {
    let (stage, _agent) = healthy(StageOptions::worker()).await;
    let output = run_verb(&stage, &["status"]);
    let text = text_of(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in ["is healthy", &stage.instance, "autonomy  23 h", "kubelet-server  good"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let output = run_verb(&stage, &["status", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["schema"], 1);
    assert_eq!(document["certificates"], stage.status()["certificates"]);
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn n11_status_exits_with_1_where_something_needs_attention_and_2_where_one_is_missing() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    stage.proxy.set(Fault::Refuse);
    agent.reload().expect("it runs");
    wait_problem(&stage, "vault-unreachable");
    let output = run_verb(&stage, &["status"]);
    assert_eq!(output.status.code(), Some(1), "{}", text_of(&output));
    assert!(text_of(&output).contains("PROBLEM   vault-unreachable"), "{}", text_of(&output));
    for path in [PUBLISHED, "/var/lib/nodeagent/archive/kubelet-server"] {
        std::fs::remove_dir_all(stage.path(path)).expect("it was there");
    }
    agent.reload().expect("it runs");
    wait(&stage, "failure", |status| status["health"] == "failed");
    let output = run_verb(&stage, &["status"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of(&output).contains("a certificate is missing"), "{}", text_of(&output));
}

#[tokio::test]
async fn status_of_an_agent_that_died_is_told_with_its_age() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    agent.kill().expect("it is killed");
    age(&stage, 300);
    let output = run_verb(&stage, &["status"]);
    let text = text_of(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("PROBLEM   agent-silent") && text.contains("for 30"), "{text}");
    // A day later the certificates have ended too.
    age(&stage, 25 * 3600);
    assert_eq!(code(&stage, &["status"]), Some(2));
    stage.write("/run/nodeagent/status.json", b"{").expect("it is written");
    let output = run_verb(&stage, &["status"]);
    assert_eq!(output.status.code(), Some(2), "{}", text_of(&output));
    std::fs::remove_file(stage.path("/run/nodeagent/status.json")).expect("it is there");
    let output = run_verb(&stage, &["status"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of(&output).contains("systemctl status nodeagent"), "{}", text_of(&output));
}

/// Makes the last look so many seconds older.
fn age(stage: &Stage, seconds: i64) {
    let mut status = stage.status();
    let looked = stage.clock.now() - jiff::SignedDuration::from_secs(seconds);
    status["agent"]["looked"] = json!(looked.to_string());
    let written = stage.write("/run/nodeagent/status.json", status.to_string().as_bytes());
    written.expect("it is written");
}

#[tokio::test]
async fn status_works_for_an_ordinary_user_who_can_read_no_secret() {
    let (stage, _agent) = healthy(StageOptions::worker()).await;
    if !is_root() {
        return;
    }
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(stage.root(), open).expect("it is ours");
    // The place where it was built may be closed to others.
    let program = stage.path("nodeagent");
    std::fs::copy(env!("CARGO_BIN_EXE_nodeagent"), &program).expect("a copy");
    let nobody = |program: &std::path::Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).uid(65_534).gid(65_534).current_dir("/");
        command.output().expect("it runs")
    };
    let root = stage.root().display().to_string();
    let output = nobody(&program, &["--root", &root, "status"]);
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output));
    for secret in [
        "/run/nodeagent/token",
        "/var/lib/nodeagent/records.json",
        &*format!("/var/lib/nodeagent/nonce/aws/{}", stage.instance),
        &*format!("{PUBLISHED}/current/key.pem"),
        &*format!("{PUBLISHED}/current/pair.pem"),
        "/var/lib/nodeagent/archive/kubelet-server/00000001/key.pem",
    ] {
        let path = stage.path(secret).display().to_string();
        let output = nobody("cat".as_ref(), &[&path]);
        assert!(!output.status.success(), "{secret} can be read by everyone");
    }
}

#[tokio::test]
async fn await_ends_when_the_certificates_are_there_and_not_before() {
    let stage = stage(StageOptions::worker()).await;
    let output = run_verb(&stage, &["await", "kubelet", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(65));
    assert!(text_of(&output).contains("kubelet-server"), "{}", text_of(&output));
    let mut waiting = stage.command(&["await", "kubelet"]).spawn().expect("it runs");
    let _agent = stage.run().expect("the agent starts");
    until("end of the wait", || waiting.try_wait().is_ok_and(|ended| ended.is_some()));
    assert_eq!(waiting.wait().expect("it ended").code(), Some(0));
    assert!(stage.read(&format!("{PUBLISHED}/current/pair.pem")).len() > 100);
    let client = "/var/lib/nodeagent-certs/kubelet/kubelet-client/current/pair.pem";
    assert!(stage.read(client).len() > 100, "all of them, not the first");
}

#[tokio::test]
async fn await_of_a_consumer_that_does_not_exist_names_those_that_do() {
    let stage = stage(StageOptions::worker()).await;
    let output = run_verb(&stage, &["await", "kubelett"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text_of(&output).contains("name one of: kubelet"), "{}", text_of(&output));
}

#[tokio::test]
async fn check_version_help_and_usage_have_their_exit_codes() {
    let stage = stage(StageOptions::worker()).await;
    let output = run_verb(&stage, &["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output));
    assert!(text_of(&output).contains("2 certificates for 1 consumers"), "{}", text_of(&output));
    let output = run_verb(&stage, &["version"]);
    // Only a release knows its commit, and these tests build none.
    let version = format!("nodeagent {} (", env!("CARGO_PKG_VERSION"));
    assert!(text_of(&output).starts_with(&version), "{}", text_of(&output));
    assert_eq!(code(&stage, &["--help"]), Some(0));
    for wrong in [&["starte"][..], &[], &["await"], &["status", "--yaml"], &["await", "a", "b"]] {
        assert_eq!(code(&stage, wrong), Some(64), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_second_agent_is_refused_and_told_who_holds_the_lock() {
    let (stage, mut agent) = healthy(StageOptions::worker()).await;
    let output = run_verb(&stage, &["run"]);
    let text = text_of(&output);
    assert_eq!(output.status.code(), Some(75), "{text}");
    assert!(text.contains(&format!("held by process {}", agent.pid())), "{text}");
    assert!(agent.is_running());
    renew(&stage);
}

#[tokio::test]
async fn renew_of_a_certificate_that_does_not_exist_names_those_that_do() {
    let stage = stage(StageOptions::worker()).await;
    let output = run_verb(&stage, &["renew", "kubelet"]);
    assert_eq!(output.status.code(), Some(78));
    let text = text_of(&output);
    assert!(text.contains("name one of: kubelet-server, kubelet-client"), "{text}");
}

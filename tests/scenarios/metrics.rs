//! The metrics as a node has them, and what Prometheus' own promtool says of them and of the alerts
//! that are shipped.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nodeagent::status::{Status, metrics};
use rig::peer::process;
use rig::stage::{Stage, StageOptions};

use crate::play::*;

const RULES: &str = "packaging/alerts/nodeagent.rules.yaml";
const TESTS: &str = "tests/alerts/nodeagent.test.yaml";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The real promtool, or nothing, told, where it is not built.
pub(crate) fn promtool() -> Option<PathBuf> {
    process::find("promtool", "promtool").map_or_else(|why| skip(&why), Some)
}

/// What promtool says with these words, and whether it was content.
fn ask(promtool: &Path, words: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(promtool);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    stdin.write_all(input.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = child.wait_with_output().expect("promtool ends");
    (output.status.success(), text_of(&output))
}

/// What is wrong with a file of metrics: promtool ends well, and says nothing.
pub(crate) fn faults(promtool: &Path, metrics: &str) -> String {
    let (is_good, told) = ask(promtool, &["check", "metrics"], metrics);
    if is_good && told.trim().is_empty() { String::new() } else { format!("promtool: {told}") }
}

fn goldens() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(top().join("tests/golden/metrics")).expect("there are goldens");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| (path.clone(), fs::read_to_string(path).expect("a text"))).collect()
}

/// The metrics that lie there and those that the status beside them says, both of one look.
fn both(stage: &Stage) -> (String, String) {
    let mut found = None;
    until("metrics beside their status", || {
        let before = stage.read(nodeagent::status::PATH);
        let told = stage.read(metrics::PATH);
        let is_one = !told.is_empty() && before == stage.read(nodeagent::status::PATH);
        let status = serde_json::from_str::<Status>(&before).ok().filter(|_| is_one);
        found = status.map(|status| (told, metrics::text(&status)));
        found.as_ref().is_some_and(|(told, wanted)| told == wanted)
    });
    found.expect("it was found")
}

#[tokio::test]
async fn the_agent_publishes_metrics_beside_its_status_and_they_outlast_it() {
    let stage = stage(StageOptions::worker()).await;
    let agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let (well, _) = both(&stage);
    assert!(well.contains("nodeagent_health{state=\"healthy\"} 1\n"), "{well}");
    assert!(well.contains("\nnodeagent_session_logged_in 1\n"), "{well}");
    let good =
        "nodeagent_certificate_good{certificate=\"kubelet-server\",consumer=\"kubelet\"} 1\n";
    assert!(well.contains(good), "{well}");
    let cluster = "nodeagent_authority_not_after_timestamp_seconds{authority=\"cluster\"} ";
    assert!(well.contains(cluster), "{well}");
    for told in ["issued_timestamp_seconds", "not_after_timestamp_seconds", "recent_issues"] {
        let series = format!("\nnodeagent_certificate_{told}{{certificate=\"kubelet-client\",");
        assert!(well.contains(&series), "{series} {well}");
    }
    for duty in ["session", "cert/kubelet-server", "act/kubelet"] {
        let success = format!("_last_success_timestamp_seconds{{duty=\"{duty}\"}} 1");
        let failures = format!("nodeagent_duty_failures{{duty=\"{duty}\"}} 0\n");
        assert!(well.contains(&success) && well.contains(&failures), "{duty} {well}");
    }
    let data = fs::metadata(stage.path(metrics::PATH)).expect("it is there");
    assert_eq!(data.permissions().mode() & 0o7777, 0o644);

    stage.proxy.set(rig::proxy::Fault::Refuse);
    agent.reload().expect("it runs");
    ask_renewal(&stage);
    wait_problem(&stage, "vault-unreachable");
    let (away, _) = both(&stage);
    assert!(away.contains("nodeagent_problems{code=\"vault-unreachable\","), "{away}");
    assert!(away.contains("nodeagent_duty_failing_since_timestamp_seconds{duty="), "{away}");

    agent.kill().expect("it is killed");
    assert_eq!(both(&stage).0, stage.read(metrics::PATH));
    if let Some(promtool) = promtool() {
        assert_eq!((faults(&promtool, &well), faults(&promtool, &away)), Default::default());
    }
}

#[test]
fn promtool_finds_no_fault_with_the_metrics_of_any_status() {
    let Some(promtool) = promtool() else { return };
    let goldens = goldens();
    for (path, text) in &goldens {
        assert_eq!(faults(&promtool, text), "", "{}", path.display());
    }
    let (_, healthy) = goldens.iter().find(|(path, _)| path.ends_with("healthy.prom")).expect("it");
    for (from, to) in [
        ("nodeagent_session_logged_in", "nodeagent_session_logged_in_total"),
        ("_timestamp_seconds", "_timestamp_milliseconds"),
        ("state=\"failed\"} 0\n", "state=\"failed\"} 0\nnodeagent_health{state=\"failed\"} 1\n"),
        ("state=\"failed\"}", "state=\"fai\"led\"}"),
        ("# HELP nodeagent_health ", "# nodeagent_health "),
    ] {
        assert!(healthy.contains(from), "{from}");
        assert!(!faults(&promtool, &healthy.replace(from, to)).is_empty(), "{from} -> {to}");
    }
}

#[test]
fn promtool_takes_the_alerts_and_each_fires_when_it_should_and_else_never() {
    let Some(promtool) = promtool() else { return };
    let path = |file: &str| top().join(file).display().to_string();
    let (is_good, told) =
        ask(&promtool, &["check", "rules", "--lint=all", "--lint-fatal", &path(RULES)], "");
    assert!(is_good, "{told}");
    let (is_good, told) = ask(&promtool, &["test", "rules", &path(TESTS)], "");
    assert!(is_good, "{told}");
}

/// The tests of the alerts, but for the two days that take long, with one word of the rules
/// changed.
fn tested_with(promtool: &Path, from: &str, to: &str) -> (bool, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let read = |file: &str| fs::read_to_string(top().join(file)).expect("a text");
    let (rules, tests) = (read(RULES), read(TESTS));
    assert!(rules.contains(from), "the rules say {from}");
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("it is written");
        path.display().to_string()
    };
    write("nodeagent.rules.yaml", &rules.replacen(from, to, 1));
    let (head, rest) = tests.split_once("  - name: ").expect("a first test");
    let (_, others) = rest.split_once("  - name: ").expect("a second test");
    let head = head.replace("../../packaging/alerts/", "");
    let path = write("test.yaml", &format!("{head}  - name: {others}"));
    ask(promtool, &["test", "rules", &path], "")
}

#[test]
fn an_alert_that_never_fires_or_fires_too_soon_is_found() {
    let Some(promtool) = promtool() else { return };
    let (is_good, told) = tested_with(&promtool, "for: 5m", "for: 5m");
    assert!(is_good, "{told}");
    for (from, to) in [
        ("expr: nodeagent_certificate_good == 0", "expr: nodeagent_certificate_good == 2"),
        ("code=\"nonce-mismatch\"", "code=\"nonce-mismatched\""),
        ("> 60 + 2 *", "> 0 *"),
        ("0.25 *", "0.9 *"),
        ("{{ $value | humanizeDuration }} are left, less", "{{ $value }} are left, less"),
        ("and on (job, instance) up == 1", ""),
    ] {
        let (is_good, told) = tested_with(&promtool, from, to);
        assert!(!is_good && told.contains("FAILED"), "{from} -> {to}: {told}");
    }
}

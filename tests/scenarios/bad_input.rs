//! What people write wrongly and what is not there: a message with file and line or endpoint, what
//! was found and what to do, and the right exit code or a problem in `status`.

use std::path::Path;
use std::process::{Command, Output};

use rig::aws::imds::Lie;
use rig::pki::Ca;
use rig::stage::{Stage, StageOptions};

use crate::play::*;

const GOOD: &str = r#"[node]
role = "worker"
[vault]
address = "https://vault.example:8200"
ca = "/etc/nodeagent/ca.pem"
[pki.cluster]
mount = "pki"
ca = "/etc/nodeagent/ca.pem"
"#;

/// Runs `nodeagent check` on a configuration and the files of a site.
fn check(config: &[u8]) -> Output {
    let site = tempfile::tempdir().expect("a directory");
    let etc = site.path().join("etc/nodeagent");
    let write = |name: &str, bytes: &[u8]| std::fs::write(etc.join(name), bytes).expect("written");
    std::fs::create_dir_all(etc.join("config.d")).expect("a directory");
    let ca = Ca::new("a CA");
    write("ca.pem", ca.pem().as_bytes());
    write("leaf.pem", ca.issue(&["a.leaf"]).cert_pem.as_bytes());
    write("torn.pem", &ca.pem().as_bytes()[..200]);
    write("text.pem", b"no PEM at all\n");
    write("config.d/10-site.toml", config);
    verb(site.path(), "check")
}

fn verb(root: &Path, verb: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
    command.arg("--root").arg(root).arg(verb);
    command.output().expect("it runs")
}

fn refused(config: &str, parts: &[&str]) {
    let output = check(config.as_bytes());
    let text = text_of(&output);
    assert_eq!(output.status.code(), Some(78), "{config}\n{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}\nfor\n{config}");
    }
}

#[test]
fn the_configuration_that_is_broken_here_is_good() {
    let output = check(GOOD.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output));
}

#[test]
fn words_and_types_that_do_not_exist_are_told_with_file_and_line() {
    let site = "/etc/nodeagent/config.d/10-site.toml";
    let add = |text: &str| format!("{GOOD}{text}");
    for (config, line, part) in [
        (add("adress = 1\n"), 9, "unknown field `adress`"),
        (add("[vautl]\n"), 9, "unknown field `vautl`"),
        (add("[rotation]\nissues_per_hour = \"six\"\n"), 10, "invalid type: string \"six\""),
        (add("[rotation]\nissues_per_hour = -1\n"), 10, "invalid value"),
        (add("[vault\n"), 9, ""),
        (add("[rotation]\nsurvive_vault_outage = \"soon\"\n"), 10, "write one like 12h"),
        (GOOD.replace("worker", "boss"), 2, "unknown variant `boss`"),
        (GOOD.replace("https:", "http:"), 4, "http:// is for loopback only"),
        (add("[identity]\nprovider = \"acme\"\n"), 10, "acme"),
        (add("[systemd]\nbus = \"tcp:1.2.3.4\"\n"), 10, "neither `system` nor `unix:path=/"),
    ] {
        refused(&config, &[&format!("{site}:{line}:"), part]);
    }
}

#[test]
fn a_role_that_does_not_exist_is_told_once() {
    for config in [GOOD.replace("worker", "boss"), GOOD.replace("role = \"worker\"\n", "")] {
        let text = text_of(&check(config.as_bytes()));
        assert_eq!(text.matches("role: ").count(), 1, "{text}");
    }
    refused(&GOOD.replace("worker", "bare"), &["identity.role: is not given"]);
}

#[test]
fn files_that_are_missing_or_hold_something_else_are_told() {
    for (file, part) in [
        ("/etc/nodeagent/gone.pem", "No such file"),
        ("/etc/nodeagent/text.pem", "no certificate in it"),
        ("/etc/nodeagent/torn.pem", "is no PEM"),
        ("/etc/nodeagent/leaf.pem", "is no CA certificate"),
        ("/etc/nodeagent", "not a regular file"),
        ("etc/ca.pem", "is no absolute path"),
    ] {
        let bundle = GOOD.replace(
            "mount = \"pki\"\nca = \"/etc/nodeagent/ca.pem\"",
            &format!("mount = \"pki\"\nca = \"{file}\"",),
        );
        refused(&bundle, &["10-site.toml:8: pki.cluster.ca", file, part]);
        let vault = GOOD.replacen("/etc/nodeagent/ca.pem", file, 1);
        refused(&vault, &["10-site.toml:5: vault.ca", file, part]);
    }
}

#[test]
fn what_cannot_be_together_is_told() {
    let consumer = |text: &str| format!("{GOOD}[[consumer]]\nname = \"kubelet\"\n{text}\n");
    let cert = |text: &str| format!("{GOOD}[[certificate]]\nname = \"kubelet-server\"\n{text}\n");
    let twice = "[[certificate]]\nname = \"a\"\n";
    for (config, part) in [
        // Two certificates for one path: the name is the path.
        (format!("{GOOD}{twice}{twice}"), "[[certificate]] `a` stands twice in one file"),
        (cert("consumer = \"nobody\""), "`nobody` has no [[consumer]] of that name"),
        (cert("pki = \"mars\""), "`mars` has no [pki.mars]"),
        (cert("dns = [\"{{hostname}}\"]"), "`{{hostname}}` is no variable"),
        (cert("ttl = \"6h\""), "cannot survive an outage of"),
        (consumer("unit = \"kubelet\""), "does not end in .service"),
        (consumer("unit = \"\"\nact = \"restart\""), "needs the `unit`"),
        (consumer("probe = \"10250\""), "is no address:port"),
        (format!("{GOOD}[[consumer]]\nname = \"../up\"\n"), "is no name"),
        (GOOD.replace("address", "#"), "vault.address: is not given"),
        (GOOD.replacen("ca =", "#", 1), "vault.ca: is not given"),
        (format!("{GOOD}[node.x]\n"), ""),
    ] {
        refused(&config, &[part]);
    }
}

#[test]
fn all_errors_come_at_once() {
    let config = GOOD.replace("worker", "boss").replace("https:", "gopher:");
    let config = format!("{config}[clock]\nmax_skew = \"-1s\"\n");
    refused(&config, &["`boss`", "gopher://", "-1s"]);
}

#[test]
fn no_configuration_at_all_and_bytes_that_are_no_text_are_told() {
    let empty = tempfile::tempdir().expect("a directory");
    for name in ["check", "run"] {
        let output = verb(empty.path(), name);
        assert_eq!(output.status.code(), Some(78), "{name}");
        assert!(text_of(&output).contains("no *.toml in"), "{}", text_of(&output));
    }
    let left = std::fs::read_dir(empty.path()).expect("a directory").count();
    assert_eq!(left, 0, "an agent that cannot run leaves nothing behind");
    let output = check(b"[node]\nrole = \"\xff\"\n");
    assert_eq!(output.status.code(), Some(78));
    assert!(text_of(&output).contains("is not UTF-8"), "{}", text_of(&output));
}

#[tokio::test]
async fn an_authority_that_ends_before_a_certificate_would_is_refused_beforehand() {
    let mut options = StageOptions::worker();
    options.setup.ca_ttl = "12h".into();
    options.setup.leaf_ttl = "6h".into();
    options.setup.leaf_max_ttl = "6h".into();
    let stage = stage(options).await;
    let output = run_verb(&stage, &["check"]);
    assert_eq!(output.status.code(), Some(78));
    let text = text_of(&output);
    assert!(text.contains("cluster-ca.pem") && text.contains("successor"), "{text}");
}

#[tokio::test]
async fn a_metadata_service_that_is_away_is_told_and_waited_for() {
    let stage = stage(StageOptions::worker()).await;
    stage.imds.server().stop();
    let agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "imds-unreachable"));
    assert!(text.contains(&stage.imds.url()) && text.contains("hop limit"), "{text}");
    stage.imds.server().restart().expect("it is back");
    agent.reload().expect("it runs");
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_metadata_service_that_lies_is_not_believed() {
    let other = "i-00000000000000bad".to_owned();
    for (lie, code) in [
        (Lie::NotADocument, "imds-answer"),
        (Lie::Missing, "imds-answer"),
        (Lie::Tampered, "login-refused"),
        (Lie::ForeignSigner, "login-refused"),
    ] {
        let stage = stage(StageOptions::worker()).await;
        stage.imds.lie(lie.clone());
        let agent = stage.run().expect("the agent starts");
        let status = wait(&stage, "refusal", |status| status["problems"][0]["code"].is_string());
        let found = status["problems"][0]["code"].as_str().unwrap_or_default();
        assert!([code, "imds-answer"].contains(&found), "{lie:?}: {found}");
        assert_ne!(status["node"]["instance_id"], *other);
        stage.imds.lie(Lie::None);
        agent.reload().expect("it runs");
        wait_healthy(&stage);
    }
}

#[tokio::test]
async fn a_vault_with_another_authority_is_not_spoken_to() {
    let stage = stage(StageOptions::worker()).await;
    let stranger = Ca::new("another authority");
    stage.write("/etc/nodeagent/vault-ca.pem", stranger.pem().as_bytes()).expect("written");
    let _agent = stage.run().expect("the agent starts");
    let problem = wait_problem(&stage, "vault-unreachable");
    assert!(told(&problem).contains("certificate"), "{problem:#}");
    assert_eq!(logins(&stage), 0, "no secret is sent to a stranger");
}

#[tokio::test]
async fn an_auth_method_that_is_not_mounted_is_told_with_its_path() {
    let stage = stage(StageOptions::worker().with("[identity]\nmount = \"nope\"\n")).await;
    let _agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "login-refused"));
    assert!(text.contains("auth/nope"), "{text}");
}

#[tokio::test]
async fn a_group_that_does_not_exist_is_told_and_nothing_is_published() {
    let stage = stage(StageOptions::worker().with(&kubelet("group = \"nosuch\""))).await;
    let agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "config"));
    assert!(text.contains("there is no group \"nosuch\"") && text.contains("/etc/group"), "{text}");
    assert_eq!(issues(&stage), 0);
    reconfigure(&stage, &agent, &kubelet("group = \"root\""));
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_told_with_its_path() {
    let stage = stage(StageOptions::worker()).await;
    stage.write("/var/lib/nodeagent", b"a file").expect("it is written");
    let agent = stage.run().expect("the agent starts");
    assert_eq!(ended(agent), 75);
    assert!(stage.log().contains("/var/lib/nodeagent"), "{}", stage.log());
    assert_eq!(stage.read("/var/lib/nodeagent"), "a file");
}

#[tokio::test]
async fn an_agent_without_the_right_to_its_directories_says_which_right_it_needs() {
    let stage = stage(StageOptions::worker()).await;
    if !is_root() {
        return;
    }
    unprivileged(&stage);
}

fn unprivileged(stage: &Stage) {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(stage.root(), open).expect("it is ours");
    let program = stage.path("nodeagent");
    std::fs::copy(env!("CARGO_BIN_EXE_nodeagent"), &program).expect("a copy");
    let mut command = Command::new(program);
    command.arg("--root").arg(stage.root()).arg("run").uid(65_534).gid(65_534);
    let output = command.current_dir("/").output().expect("it runs");
    let text = text_of(&output);
    assert_eq!(output.status.code(), Some(69), "{text}");
    // The first directory that is missing, by the name that it has while it is made.
    assert!(text.contains("/.run.nodeagent~: Permission denied"), "{text}");
    assert!(text.contains("user 65534 needs the right"), "{text}");
}

fn ended(mut agent: rig::stage::Running) -> i32 {
    agent.wait(SOON).expect("it ends by itself")
}

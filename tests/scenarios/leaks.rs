//! No secret is where others can read it: not in arguments, environment, log, status or files for
//! everyone. The scanner is proved on secrets that are planted.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rig::stage::{Running, Stage, StageOptions};
use serde_json::Value;

use crate::play::*;

/// What must not be found, by what it is.
fn secrets(stage: &Stage) -> BTreeMap<&'static str, String> {
    let session: Value = serde_json::from_str(&stage.read("/run/nodeagent/token")).expect("JSON");
    let nonce = stage.read(&format!("/var/lib/nodeagent/nonce/aws/{}", stage.instance));
    let key = stage.read(&format!("{PUBLISHED}/current/key.pem"));
    let body = key.lines().nth(1).expect("the first line of the key").to_owned();
    let token = session["token"].as_str().expect("a token").to_owned();
    let all = BTreeMap::from([("token", token), ("nonce", nonce.trim().into()), ("key", body)]);
    assert!(all.values().all(|secret| secret.len() >= 20), "no secret is short");
    all
}

/// What everyone can read: arguments, environment, log, status, the answers of the verbs, and
/// every file that is open to others and lies below directories that are.
fn public(stage: &Stage, agent: &Running) -> BTreeMap<String, Vec<u8>> {
    let mut texts = BTreeMap::new();
    for name in ["cmdline", "environ", "comm"] {
        let path = format!("/proc/{}/{name}", agent.pid());
        texts.insert(path.clone(), std::fs::read(path).expect("it runs"));
    }
    texts.insert("the log".into(), stage.log().into_bytes());
    for verb in [&["status"][..], &["status", "--json"], &["check"]] {
        texts.insert(verb.join(" "), text_of(&run_verb(stage, verb)).into_bytes());
    }
    open_files(stage.root(), &mut texts);
    texts
}

/// Every file for everybody below a directory, with its content.
pub(crate) fn open_files(directory: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(data) = entry.metadata() else { continue };
        let mode = data.permissions().mode();
        if data.is_dir() && mode & 0o005 != 0 {
            open_files(&entry.path(), found);
        } else if data.is_file() && mode & 0o004 != 0 {
            let content = std::fs::read(entry.path()).unwrap_or_default();
            found.insert(entry.path().display().to_string(), content);
        }
    }
}

/// Where which secret was found.
pub(crate) fn leaks(
    secrets: &BTreeMap<&'static str, String>,
    texts: &BTreeMap<String, Vec<u8>>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (what, secret) in secrets {
        for (place, text) in texts {
            if text.windows(secret.len()).any(|part| part == secret.as_bytes()) {
                found.push(format!("the {what} is in {place}"));
            }
        }
    }
    found
}

#[tokio::test]
async fn z09_after_a_life_cycle_no_secret_is_where_others_can_read_it() {
    let stage = stage(StageOptions::worker()).await;
    let run = || {
        stage.run_with(|command| {
            command.env("NODEAGENT_LOG", "debug");
        })
    };
    let agent = run().expect("the agent starts");
    wait_healthy(&stage);
    stage.start_kubelet().expect("the consumer starts");
    let first = secrets(&stage);
    renew(&stage);
    // Trouble is what writes the longest texts.
    stage.proxy.set(rig::proxy::Fault::Refuse);
    agent.reload().expect("it runs");
    wait_problem(&stage, "vault-unreachable");
    stage.proxy.set(rig::proxy::Fault::None);
    agent.kill().expect("it is killed");
    let agent = run().expect("the agent starts");
    wait_healthy(&stage);
    renew(&stage);
    let texts = public(&stage, &agent);
    assert!(texts.len() > 10, "{:?}", texts.keys());
    for published in [nodeagent::status::PATH, nodeagent::status::metrics::PATH] {
        let path = stage.path(published).display().to_string();
        assert!(texts.get(&path).is_some_and(|text| !text.is_empty()), "{:?}", texts.keys());
    }
    assert_eq!(leaks(&first, &texts), [""; 0]);
    assert_eq!(leaks(&secrets(&stage), &texts), [""; 0]);
}

#[tokio::test]
async fn the_scanner_finds_secrets_that_are_planted() {
    let stage = stage(StageOptions::worker()).await;
    let planted = "a-planted-secret-of-thirty-bytes";
    let agent = stage.run_with(|command| {
        command.env("PLANTED", planted);
    });
    let agent = agent.expect("the agent starts");
    wait_healthy(&stage);
    let all = secrets(&stage);
    let text = format!("oops: {}", all["token"]);
    stage.write("/run/nodeagent/oops.txt", text.as_bytes()).expect("it is written");
    let found = leaks(&all, &public(&stage, &agent));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("the token is in ") && found[0].ends_with("oops.txt"));
    let planted = BTreeMap::from([("planted", planted.to_owned())]);
    let found = leaks(&planted, &public(&stage, &agent));
    assert!(found.iter().any(|leak| leak.ends_with("/environ")), "{found:?}");
}

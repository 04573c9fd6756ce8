//! No secret is where others can read it: not in arguments, environment, log, status or files for
//! everyone. The scanner is proved on secrets that are planted.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::sys::signal::Signal;
use rig::stage::{Running, Stage, StageOptions};

use crate::play::*;
use crate::scan::{Secrets, open_files};

/// What must not be found.
fn secrets(stage: &Stage) -> Secrets {
    let key = format!("{PUBLISHED}/current/key.pem");
    Secrets::of_node(|path| stage.read(path), &stage.instance, &[&key])
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
    assert_eq!(first.leaks(&texts), [""; 0]);
    assert_eq!(secrets(&stage).leaks(&texts), [""; 0]);
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
    let session = stage.read("/run/nodeagent/token");
    stage.write("/run/nodeagent/oops.txt", session.as_bytes()).expect("it is written");
    let found = secrets(&stage).leaks(&public(&stage, &agent));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("the token is in ") && found[0].ends_with("oops.txt"));
    let mut secrets = Secrets::default();
    secrets.add("planted", planted);
    let found = secrets.leaks(&public(&stage, &agent));
    assert!(found.iter().any(|leak| leak.ends_with("/environ")), "{found:?}");
}

/// What is begun by hand has the limit of its shell, and tokens in its memory all the same.
#[tokio::test]
async fn z09_a_verb_that_crashes_leaves_no_dump_where_dumps_are_allowed() {
    let stage = stage(StageOptions::worker()).await;
    let verb = stage.command(&["await", "kubelet"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -c $(ulimit -Hc) && exec \"$0\" \"$@\""]).arg(verb.get_program());
    let mut verb = shell.args(verb.get_args()).current_dir(stage.root()).spawn().expect("a shell");
    let limit = |pid: u32| {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
        let line = limits.lines().find(|line| line.starts_with("Max core file size"));
        line.expect("a limit").split_whitespace().skip(4).take(2).collect::<Vec<_>>().join(" ")
    };
    until("limit of 0", || limit(verb.id()) == "0 0");
    let pid = nix::unistd::Pid::from_raw(verb.id().cast_signed());
    nix::sys::signal::kill(pid, Signal::SIGABRT).expect("it runs");
    let status = verb.wait().expect("it ends");
    assert_eq!((status.signal(), status.core_dumped()), (Some(Signal::SIGABRT as i32), false));
    let files = std::fs::read_dir(stage.root()).expect("a directory").flatten();
    let names: Vec<_> = files.map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with("core")), "{names:?}");
}

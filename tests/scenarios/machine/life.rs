//! The agent ends, is upgraded, hangs, or loses its power: nothing of that reaches a consumer.

use rig::node::{AGENT, GATE, KUBELET, NodeOptions, PROGRAM};

use super::{SOON, Story, installed, serving};

/// A watchdog that a story can wait for. A process that is stopped takes no SIGABRT, and the time
/// until it is killed counts too.
const WATCHDOG: &str = "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\nRestartSec=100ms\n";

#[tokio::test]
async fn stopping_killing_and_upgrading_the_agent_stops_no_consumer() {
    let Some(story) = serving(NodeOptions::worker()).await else {
        return;
    };
    let serial = story.wait_serving();
    let run = story.kubelet_run().expect("the kubelet runs");
    let untouched = |after: &str| {
        assert_eq!(story.kubelet_run().expect("the kubelet runs"), run, "{after}");
        assert_eq!(story.machine.unit_state(KUBELET).expect("a state"), "active", "{after}");
        assert_eq!(story.machine.unit_state(GATE).expect("a state"), "active", "{after}");
        assert_eq!(story.served().expect("it serves"), serial, "{after}");
    };

    story.run(&["systemctl", "stop", AGENT]);
    untouched("a stop");
    assert_eq!(story.machine.unit_property(AGENT, "Result").expect("a word"), "success");
    // The gate refuses to be stopped, which is how the pattern ends, and says so.
    story.machine.exec(&["systemctl", "stop", "nodeagent*"]).expect("exec");
    untouched("a stop of all that is called nodeagent");
    story.run(&["systemctl", "start", AGENT]);
    story.wait_healthy();

    let pid = story.machine.main_pid(AGENT).expect("a pid");
    story.machine.kill(AGENT, "SIGKILL").expect("a signal");
    story.wait("systemd starts the agent again", || {
        let now = story.machine.main_pid(AGENT).unwrap_or_default();
        now.is_some() && now != pid
    });
    story.machine.wait_unit(AGENT, "active", SOON).expect("it is READY");
    untouched("a kill");

    let program = rig::node::static_binary().expect("the static binary");
    let program = std::fs::read(program).expect("its bytes");
    story.machine.write(PROGRAM, &program, 0o755).expect("another one is installed");
    story.run(&["systemctl", "restart", AGENT]);
    story.wait_healthy();
    untouched("an upgrade");
    story.run(&["systemctl", "reload", AGENT]);
    story.wait_healthy();
    untouched("a reload");
    assert_eq!(story.machine.unit_state(AGENT).expect("a state"), "active");
    let log = story.log();
    assert_eq!(log.matches("logged in").count(), 1, "every start took up the token: {log}");
}

#[tokio::test]
async fn an_agent_that_hangs_is_killed_by_the_watchdog_and_started_again() {
    let Some(mut story) = installed(NodeOptions::worker()).await else {
        return;
    };
    story.drop_in(AGENT, WATCHDOG);
    story.boot().expect("it boots");
    story.wait_serving();
    let run = story.kubelet_run().expect("the kubelet runs");
    let pid = story.machine.main_pid(AGENT).expect("a pid");
    story.machine.kill(AGENT, "SIGSTOP").expect("a signal");
    story.wait("systemd kills it and starts another", || {
        let now = story.machine.main_pid(AGENT).unwrap_or_default();
        now.is_some() && now != pid
    });
    story.machine.wait_unit(AGENT, "active", SOON).expect("it is READY");
    assert!(story.log().contains("Watchdog timeout"), "{}", story.log());
    assert_eq!(story.kubelet_run().expect("the kubelet runs"), run);
    // It lives for longer than the watchdog allows a silent one: its own pings reach systemd.
    let again = story.machine.main_pid(AGENT).expect("a pid");
    let since = story.instant(AGENT, "ActiveEnter");
    story.wait("three watchdog intervals have passed", || {
        let now = story.machine.unit_property(AGENT, "WatchdogTimestampMonotonic");
        now.is_ok_and(|now| now.parse::<u64>().is_ok_and(|now| now > since + 6_000_000))
    });
    assert_eq!(story.machine.main_pid(AGENT).expect("a pid"), again);
}

#[tokio::test]
async fn a_node_that_lost_its_power_keeps_its_identity_and_its_certificates() {
    let Some(mut story) = installed(NodeOptions::worker()).await else {
        return;
    };
    story.boot().expect("it boots");
    let published = story.machine.root().join("var/lib/nodeagent-certs/kubelet");
    story.wait("the first certificates are committed", || {
        ["kubelet-client", "kubelet-server"]
            .iter()
            .all(|name| published.join(name).join("current").exists())
    });
    story.machine.kill_power().expect("the power is gone");
    let nonce = nonce(&story);
    assert!(nonce.len() >= 22, "128 bits at least");

    // Its certificates are good, so that it would wait with its log-in for the rest of a fleet.
    story.configure("[vault]\nsplay = \"1s\"\n");
    story.boot().expect("it boots again");
    story.wait_serving();
    let status =
        story.wait_status("a new log-in", |status| status["vault"]["session"] == "logged-in");
    assert_eq!(status["problems"], serde_json::json!([]), "{}", story.log());
    assert_eq!(self::nonce(&story), nonce);
    for certificate in status["certificates"].as_array().expect("a list") {
        assert_eq!(certificate["generation"], 1, "nothing was issued twice: {certificate:#}");
    }
}

fn nonce(story: &Story) -> Vec<u8> {
    let path = format!("/var/lib/nodeagent/nonce/aws/{}", story.instance);
    story.machine.read(&path).expect("the nonce")
}

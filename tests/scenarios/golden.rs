//! The screens of `status` as a person sees them and the metrics of the same documents, compared
//! with the files of tests/golden. The documents are written by hand, so that a screen changes
//! only where its text changes; NODEAGENT_BLESS=1 writes the files anew.

use std::path::Path;

use jiff::Timestamp;
use nodeagent::status::{Status, metrics, text};
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().expect("an instant")
}

/// The screen, systemd's line and the metrics of one document.
fn screen_is(name: &str, document: Value) {
    let status: Status = serde_json::from_value(document).expect("a status");
    let screen = text::screen(&status, now());
    let line = text::line(&status);
    is_kept(&format!("{name}.txt"), &format!("{screen}\nSTATUS={line}\n"));
    let metrics = metrics::text(&status);
    for problem in &status.problems {
        assert!(!metrics.contains(&problem.text), "no text is a metric: {}", problem.text);
    }
    is_kept(&format!("metrics/{name}.prom"), &metrics);
}

fn is_kept(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name);
    if std::env::var("NODEAGENT_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, found).expect("the file is written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let place = path.display();
    assert!(kept == found, "{place} differs; NODEAGENT_BLESS=1 rewrites it. Now:\n{found}");
}

/// A worker on which all is well.
fn healthy() -> Value {
    json!({
        "schema": 1,
        "health": "healthy",
        "agent": {
            "version": "1.2.3", "commit": "0123abcd", "configuration": "5e884898",
            "started": "2026-11-20T08:00:00Z", "looked": "2026-11-21T11:59:58Z",
            "interval_s": 30,
        },
        "node": {
            "cluster": "prod", "role": "worker", "instance_id": "i-0a1b2c3d4e0000001",
            "clock_ahead_s": 0.2, "clock_synchronized": true,
        },
        "vault": {
            "address": "https://vault.example:8200", "session": "logged-in",
            "expires": "2026-11-21T12:48:00Z", "renew": "2026-11-21T12:27:00Z",
        },
        "autonomy_s": 68_400,
        "survive_s": 39_600,
        "authorities": [{ "name": "cluster", "not_after": "2036-11-18T00:00:00Z" }],
        "duties": [
            duty("session", "2026-11-21T11:48:00Z"),
            duty("cert/kubelet-server", "2026-11-21T07:00:00Z"),
            duty("cert/kubelet-client", "2026-11-21T07:00:00Z"),
            duty("act/kubelet", "2026-11-21T07:00:01Z"),
        ],
        "certificates": [
            certificate("kubelet-server", "2026-11-22T07:00:00Z", "2026-11-21T19:03:12Z"),
            certificate("kubelet-client", "2026-11-22T07:00:00Z", "2026-11-21T19:11:40Z"),
        ],
        "consumers": [{
            "name": "kubelet", "unit": "kubelet.service", "state": "current",
            "served": "3a:f1:7c:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00",
            "proved": "2026-11-21T07:00:00Z", "last_act": null, "last_act_at": null,
        }],
        "problems": [],
    })
}

fn certificate(name: &str, ends: &str, renew: &str) -> Value {
    json!({
        "name": name, "consumer": "kubelet", "state": "good",
        "serial": "3a:f1:7c:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00",
        "not_after": ends, "renew": renew, "waits_for": null, "generation": 4,
        "quarantined": null, "issued": "2026-11-21T07:00:00Z", "issues": 0,
    })
}

fn duty(name: &str, succeeded: &str) -> Value {
    json!({ "name": name, "last_success": succeeded, "failures": 0, "failing_since": null })
}

/// A duty that fails.
fn fails(status: &mut Value, index: usize, (count, since): (u32, &str)) {
    status["duties"][index]["failures"] = json!(count);
    status["duties"][index]["failing_since"] = json!(since);
}

#[test]
fn a_healthy_worker() {
    screen_is("healthy", healthy());
}

#[test]
fn a_node_that_waits_for_its_first_certificates() {
    let mut status = healthy();
    status["health"] = json!("failed");
    status["autonomy_s"] = Value::Null;
    status["node"]["instance_id"] = Value::Null;
    status["vault"] = json!({
        "address": "https://vault.example:8200", "session": "none", "expires": null,
        "renew": null,
    });
    for index in 0..2 {
        let part = &mut status["certificates"][index];
        for field in ["serial", "not_after", "renew", "generation", "issued"] {
            part[field] = Value::Null;
        }
        part["state"] = json!("missing");
        part["waits_for"] = json!("session");
    }
    for index in 0..4 {
        status["duties"][index]["last_success"] = Value::Null;
    }
    fails(&mut status, 0, (9, "2026-11-21T11:52:30Z"));
    status["consumers"][0]["state"] = json!("waiting");
    status["consumers"][0]["served"] = Value::Null;
    status["consumers"][0]["proved"] = Value::Null;
    status["problems"] = json!([{
        "code": "vault-sealed", "place": "session",
        "text": "logging in to vault: vault auth/aws/login: 503 Vault is sealed",
        "advice": "unseal it: vault operator unseal; nodes go on by themselves within a minute",
        "since": "2026-11-21T11:52:30Z",
    }]);
    screen_is("first-start-sealed", status);
}

#[test]
fn a_node_in_an_outage_of_vault() {
    let mut status = healthy();
    status["health"] = json!("degraded");
    status["autonomy_s"] = json!(3_720);
    status["vault"]["session"] = json!("refused");
    fails(&mut status, 0, (131, "2026-11-21T02:00:00Z"));
    status["vault"]["expires"] = json!("2026-11-21T09:10:00Z");
    status["certificates"][0]["not_after"] = json!("2026-11-21T13:02:00Z");
    status["certificates"][0]["renew"] = json!("2026-11-21T12:00:00Z");
    status["certificates"][1]["waits_for"] = json!("session");
    status["problems"] = json!([
        {
            "code": "vault-unreachable", "place": "session",
            "text": "logging in to vault: vault auth/aws/login: https://vault.example:8200: \
                     connection refused",
            "advice": null, "since": "2026-11-21T02:00:00Z",
        },
        {
            "code": "autonomy-short", "place": "cert/kubelet-server",
            "text": "1h 2m are left, less than the outage to be survived",
            "advice": "see why it cannot be renewed: the other problems, and max_ttl of the PKI \
                       role",
            "since": null,
        },
    ]);
    screen_is("outage", status);
}

#[test]
fn a_consumer_that_was_rolled_back() {
    let mut status = healthy();
    status["health"] = json!("degraded");
    status["certificates"][0]["quarantined"] = json!(5);
    status["certificates"][0]["generation"] = json!(6);
    status["consumers"][0]["state"] = json!("failing");
    fails(&mut status, 3, (1, "2026-11-21T11:58:55Z"));
    status["consumers"][0]["last_act"] = json!("rolled back");
    status["consumers"][0]["last_act_at"] = json!("2026-11-21T11:58:55Z");
    status["problems"] = json!([{
        "code": "rolled-back", "place": "act/kubelet",
        "text": "taking kubelet to its new certificates: restarting: kubelet.service: it did not \
                 come up (job failed); it runs with the former certificate again",
        "advice": "systemctl status kubelet.service; journalctl -u kubelet.service",
        "since": "2026-11-21T11:58:55Z",
    }]);
    screen_is("rolled-back", status);
}

#[test]
fn a_node_whose_certificates_ended_and_whose_clock_is_wrong() {
    let mut status = healthy();
    status["health"] = json!("failed");
    status["autonomy_s"] = json!(-7_200);
    status["node"]["clock_ahead_s"] = json!(3_600.4);
    status["certificates"][0]["state"] = json!("expired");
    status["certificates"][0]["not_after"] = json!("2026-11-21T10:00:00Z");
    status["certificates"][0]["waits_for"] = json!("the clock");
    status["certificates"][1]["state"] = json!("foreign");
    status["certificates"][1]["serial"] = Value::Null;
    status["consumers"][0]["state"] = json!("pending");
    status["consumers"][0]["served"] = json!("00:11:22");
    status["certificates"][1]["waits_for"] = json!("a person");
    status["problems"] = json!([
        {
            "code": "clock-skew", "place": "agent",
            "text": "the clock is 1h ahead of vault's; nothing is judged by it alone",
            "advice": "set the clock: timedatectl timesync-status; chronyc tracking",
            "since": "2026-11-21T11:59:20Z",
        },
        {
            "code": "foreign", "place": "cert/kubelet-client",
            "text": "/var/lib/nodeagent-certs/kubelet/kubelet-client/current is not our link; \
                     nodeagent did not write it and leaves it alone",
            "advice": "move it away; the certificate is published then", "since": null,
        },
    ]);
    screen_is("expired-and-clock", status);
}

#[test]
fn a_controller_whose_control_plane_is_not_whole() {
    let mut status = healthy();
    status["health"] = json!("degraded");
    status["node"]["role"] = json!("controller");
    status["agent"]["interval_s"] = json!(5);
    let ready = |name: &str| json!({ "name": name, "state": "ready", "why": null, "served": null });
    let silent = json!({
        "name": "kube-apiserver", "state": "silent", "why": "connection refused", "served": null,
    });
    let others = ["kube-controller-manager", "kube-scheduler"].map(ready);
    status["control_plane"] = json!({
        "style": "static", "automatic": true, "epoch": 3, "step": "await-apiserver",
        "why": "connection refused", "since": "2026-11-21T11:50:00Z",
        "holder": { "instance": "i-0a1b2c3d4e0000002", "since": "2026-11-21T11:51:00Z" },
        "components": [ready("etcd"), silent, others[0], others[1]],
        "foreign": [], "outdated": ["etcd-member.service"],
    });
    // The ends of two authorities are two problems of one code at one place.
    let ending = |file: &str| {
        json!({
            "code": "authority-ending", "place": "agent", "text": format!("{file} ends"),
            "advice": null, "since": null,
        })
    };
    status["problems"] = json!([
        ending("etcd-ca.pem"),
        ending("front-proxy-ca.pem"),
        {
            "code": "plane-waiting", "place": "control-plane",
            "text": "await-apiserver: connection refused",
            "advice": "the agent goes on by itself; `nodeagent bootstrap` shows each step",
            "since": "2026-11-21T11:50:00Z",
        },
    ]);
    screen_is("controller", status);
}

#[test]
fn an_agent_that_is_silent() {
    let mut status = healthy();
    status["health"] = json!("degraded");
    status["problems"] = json!([{
        "code": "agent-silent", "place": "agent",
        "text": "the agent has not looked for 5400 s; what follows is as old",
        "advice": "systemctl status nodeagent; is it running?",
        "since": "2026-11-21T10:30:00Z",
    }]);
    screen_is("silent", status);
}

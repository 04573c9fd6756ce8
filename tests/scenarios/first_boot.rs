//! From nothing to certificates on disk and a consumer that serves them.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

use rig::stage::{Stage, StageOptions, Which};
use rig::systemd::{Behaviour, Unit};

use crate::play::*;

#[tokio::test]
async fn a_fresh_node_proves_itself_and_gets_its_certificates() {
    fresh(Which::Model, StageOptions::worker()).await;
}

#[tokio::test]
async fn a_fresh_node_gets_its_certificates_from_a_real_vault() {
    fresh(Which::Real, StageOptions::worker()).await;
}

#[tokio::test]
async fn the_auth_method_may_be_mounted_anywhere() {
    let mut options = StageOptions::worker();
    options.setup.auth_mount = "aws-ec2".into();
    fresh(Which::Model, options).await;
}

async fn fresh(which: Which, options: StageOptions) {
    let Some(stage) = stage_on(which, options).await else {
        return;
    };
    let agent = stage.run().expect("the agent starts");
    let status = wait_healthy(&stage);
    assert_eq!(status["node"]["instance_id"], stage.instance);
    stage.start_kubelet().expect("the consumer starts");
    assert_eq!(Some(serial(&stage)), stage.kubelet.serial());
    assert_eq!(stage.certificate(SERVER)["serial"], serial(&stage));
    assert_eq!(agent.stop(SOON), Ok(0));
}

#[tokio::test]
async fn what_is_published_is_for_the_group_and_the_rest_for_the_agent_alone() {
    let (stage, _agent) = healthy(StageOptions::worker()).await;
    let link = std::fs::read_link(stage.path(&format!("{PUBLISHED}/current")));
    assert_eq!(link.expect("a link").display().to_string(), "00000001");
    for (path, mode) in [
        ("/var/lib/nodeagent", 0o700),
        ("/var/lib/nodeagent/records.json", 0o600),
        (&*format!("/var/lib/nodeagent/nonce/aws/{}", stage.instance), 0o600),
        ("/var/lib/nodeagent/archive/kubelet-server", 0o700),
        ("/var/lib/nodeagent-certs/kubelet", 0o750),
        (PUBLISHED, 0o750),
        (&*format!("{PUBLISHED}/00000001"), 0o750),
        (&*format!("{PUBLISHED}/00000001/key.pem"), 0o640),
        (&*format!("{PUBLISHED}/00000001/pair.pem"), 0o640),
        ("/run/nodeagent/token", 0o600),
        ("/run/nodeagent/status.json", 0o644),
    ] {
        let found = std::fs::symlink_metadata(stage.path(path));
        let found = found.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(found.mode() & 0o7777, mode, "{path}");
    }
}

#[tokio::test]
async fn a_controller_gets_the_certificates_of_three_authorities() {
    let mut options = StageOptions::worker().with(
        "[variables]\napi_server = \"api.rig.test\"\nservice_ip = \"10.96.0.1\"\n\
         [[consumer]]\nname = \"etcd-member\"\nact = \"nothing\"\n\
         [[consumer]]\nname = \"kube-apiserver\"\nact = \"nothing\"\n",
    );
    options.role = "controller";
    let stage = stage(options).await;
    let unit = Unit::inactive(Behaviour::Works);
    stage.systemd.add_unit("etcd-member.service", unit);
    let _agent = stage.run().expect("the agent starts");
    let status = wait_healthy(&stage);
    let certificates = status["certificates"].as_array().expect("a list");
    assert_eq!(certificates.len(), 11, "{status:#}");
    for (certificate, mount) in [
        ("etcd-member/etcd-server", "pki-etcd"),
        ("etcd-member/etcd-peer", "pki-etcd"),
        ("kube-apiserver/kube-apiserver", "pki"),
        ("kube-apiserver/apiserver-etcd-client", "pki-etcd"),
        ("kube-apiserver/front-proxy-client", "pki-front-proxy"),
        ("kube-scheduler/scheduler", "pki"),
        ("nodeagent/etcd-client", "pki-etcd"),
    ] {
        assert_eq!(published_roots(&stage, certificate), root(&stage, mount));
    }
    assert_ne!(root(&stage, "pki"), root(&stage, "pki-etcd"));
}

fn published_roots(stage: &Stage, certificate: &str) -> Vec<String> {
    let path = format!("/var/lib/nodeagent-certs/{certificate}/current/ca.pem");
    let all = authorities(&stage.read(&path));
    all.into_iter().map(|ca| ca.fingerprint).collect()
}

fn root(stage: &Stage, mount: &str) -> Vec<String> {
    let all = authorities(&stage.configured.roots[mount]);
    all.into_iter().map(|ca| ca.fingerprint).collect()
}

#[tokio::test]
async fn systemd_is_told_of_readiness_status_life_and_end() {
    let stage = stage(StageOptions::worker()).await;
    let path = stage.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    let agent = stage.run_with(|command| {
        command.env("NOTIFY_SOCKET", &path);
        // Half of it is the longest pause between two signs of life.
        command.env("WATCHDOG_USEC", "400000");
    });
    let agent = agent.expect("the agent starts");
    let mut told: Vec<String> = Vec::new();
    let mut hear = |wanted: &str| {
        while !told.iter().any(|message| message.starts_with(wanted)) {
            let mut bytes = [0; 4096];
            let length = socket.recv(&mut bytes);
            let length = length.unwrap_or_else(|error| panic!("no {wanted}: {error}: {told:?}"));
            told.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        let first = told.first().cloned();
        told.retain(|message| !message.starts_with(wanted));
        first
    };
    assert_eq!(hear("READY=1").as_deref(), Some("READY=1"));
    hear("STATUS=healthy; 23 h");
    for _ in 0..3 {
        hear("WATCHDOG=1");
    }
    agent.signal(nix::sys::signal::Signal::SIGTERM).expect("it runs");
    hear("STOPPING=1");
    assert_eq!(agent.stop(SOON), Ok(0));
}

#[tokio::test]
async fn a_nonce_that_another_agent_left_is_taken_over() {
    let options =
        StageOptions::worker().with("[identity]\nimport_nonce = \"/var/lib/other-agent/nonce\"\n");
    let stage = stage(options).await;
    let nonce = "5f4dcc3b-left-by-another-agent";
    let write = stage.write("/var/lib/other-agent/nonce", nonce.as_bytes());
    write.expect("it is written");
    let answer = crate::nonce::log_in_as(&stage, nonce).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let kept = format!("/var/lib/nodeagent/nonce/aws/{}", stage.instance);
    assert_eq!(stage.read(&kept).trim(), nonce);
}

//! Torn and foreign files in what is published, in the archive and among the agent's own: healed
//! or told, and what the agent did not write is never touched.

use std::os::unix::fs::{PermissionsExt, symlink};

use rig::proxy::Fault;
use rig::stage::{Running, Stage, StageOptions};

use crate::certificates::{pin, second_issuer};
use crate::play::*;

const ARCHIVE: &str = "/var/lib/nodeagent/archive/kubelet-server";

/// The agent looks and publishes the same certificate as another generation.
fn heals(stage: &Stage, agent: &Running, serial_before: &str) {
    agent.reload().expect("it runs");
    wait(stage, "repair", |_| {
        let told = stage.certificate(SERVER);
        told["generation"] == 2 && told["state"] == "good"
    });
    assert_eq!(serial(stage), serial_before);
    assert_eq!(issues(stage), 1, "the archive has it: Vault is not asked");
    until("one generation", || generations(stage, PUBLISHED) == ["00000002"]);
}

fn truncate(stage: &Stage, path: &str) {
    let text = stage.read(path);
    let half = &text.as_bytes()[..text.len() / 2];
    stage.write(path, half).expect("it is written");
}

#[tokio::test]
async fn a_torn_file_is_published_again_from_the_archive() {
    for name in ["cert.pem", "key.pem", "ca.pem", "pair.pem"] {
        let (stage, agent) = healthy(StageOptions::worker()).await;
        let before = serial(&stage);
        truncate(&stage, &format!("{PUBLISHED}/current/{name}"));
        heals(&stage, &agent, &before);
    }
}

/// Half of a bundle of two is a bundle.
#[tokio::test]
async fn a_bundle_that_has_lost_an_authority_is_published_again_from_the_archive() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let before = serial(&stage);
    let other = stage.read("/etc/nodeagent/etcd-ca.pem");
    stage.write(&format!("{PUBLISHED}/current/ca.pem"), other.as_bytes()).expect("it is written");
    heals(&stage, &agent, &before);
}

/// A node that has renewed for a second authority, and for whom a third is pinned while Vault is
/// away; with both serials.
async fn outgrown() -> (Stage, Running, [String; 2]) {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let first = serial(&stage);
    let (_, next) = second_issuer(&stage).await;
    let pinned = format!("{}{next}", stage.read("/etc/nodeagent/cluster-ca.pem"));
    pin(&stage, &pinned);
    agent.reload().expect("it runs");
    let second = wait_renewed(&stage, &first);
    wait_healthy(&stage);
    stage.proxy.set(Fault::Refuse);
    pin(&stage, &format!("{pinned}{}", stage.read("/etc/nodeagent/etcd-ca.pem")));
    look_again(&stage, &agent);
    (stage, agent, [first, second])
}

/// While Vault is away nothing newer is to be had: the archive's copy is from before an authority
/// was added, and trusts what it trusted.
#[tokio::test]
async fn what_is_lost_is_published_again_with_the_bundle_that_it_had() {
    let bundle = format!("{PUBLISHED}/current/ca.pem");
    let (stage, agent, [_, before]) = outgrown().await;
    let whole = stage.read(&bundle);
    assert_eq!(authorities(&whole).len(), 2, "what was pinned when it was issued");
    let end = "-----END CERTIFICATE-----\n";
    let first = whole.find(end).expect("a certificate") + end.len();
    for (generation, kept) in [(3, first), (4, 0)] {
        stage.write(&bundle, &whole.as_bytes()[..kept]).expect("it is written");
        agent.reload().expect("it runs");
        wait(&stage, "repair", |_| stage.certificate(SERVER)["generation"] == generation);
        assert_eq!((serial(&stage), stage.read(&bundle)), (before.clone(), whole.clone()));
    }
    look_again(&stage, &agent);
    assert_eq!(stage.certificate(SERVER)["generation"], 4, "what is whole is left alone");
    stage.proxy.set(Fault::None);
    wait_renewed(&stage, &before);
    assert_eq!(authorities(&stage.read(&bundle)).len(), 3);
}

/// A copy whose own bundle was cut reads as one from before an authority was added.
#[tokio::test]
async fn a_copy_with_a_shorter_bundle_than_it_was_issued_with_is_passed_over() {
    let (stage, agent, [first, _]) = outgrown().await;
    let kept = format!("{ARCHIVE}/00000002/ca.pem");
    assert_eq!(authorities(&stage.read(&kept)).len(), 2);
    stage.write(&kept, stage.configured.roots["pki"].as_bytes()).expect("it is written");
    truncate(&stage, &format!("{PUBLISHED}/current/key.pem"));
    agent.reload().expect("it runs");
    wait(&stage, "the older copy", |_| stage.certificate(SERVER)["generation"] == 3);
    assert_eq!(serial(&stage), first);
}

#[tokio::test]
async fn what_is_lost_is_not_published_again_once_its_authority_was_taken_out() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let other = stage.read("/etc/nodeagent/etcd-ca.pem");
    stage.proxy.set(Fault::Refuse);
    pin(&stage, &other);
    truncate(&stage, &format!("{PUBLISHED}/current/key.pem"));
    let torn = tree(&stage, PUBLISHED);
    for _ in 0..3 {
        look_again(&stage, &agent);
    }
    assert_eq!(stage.certificate(SERVER)["state"], "broken");
    assert_eq!(tree(&stage, PUBLISHED), torn);
}

#[tokio::test]
async fn a_missing_link_and_a_missing_file_are_published_again() {
    for name in ["current", "current/key.pem"] {
        let (stage, agent) = healthy(StageOptions::worker()).await;
        let before = serial(&stage);
        std::fs::remove_file(stage.path(&format!("{PUBLISHED}/{name}"))).expect("it was there");
        agent.reload().expect("it runs");
        wait(&stage, "repair", |_| {
            generations(&stage, PUBLISHED).len() == 1
                && stage.read(&format!("{PUBLISHED}/current/key.pem")).len() > 100
        });
        assert_eq!(serial(&stage), before);
        assert_eq!(issues(&stage), 1);
    }
}

#[tokio::test]
async fn a_key_that_others_could_read_is_published_again_with_the_right_mode() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let before = serial(&stage);
    let key = stage.path(&format!("{PUBLISHED}/current/key.pem"));
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&key, open).expect("it is ours");
    heals(&stage, &agent, &before);
    let mode = std::fs::metadata(&key).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[tokio::test]
async fn where_the_archive_is_torn_too_vault_is_asked() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let before = serial(&stage);
    truncate(&stage, &format!("{PUBLISHED}/current/key.pem"));
    truncate(&stage, &format!("{ARCHIVE}/00000001/key.pem"));
    agent.reload().expect("it runs");
    wait(&stage, "new certificate", |_| {
        let told = stage.certificate(SERVER);
        told["state"] == "good" && told["serial"] != *before
    });
    assert_eq!(issues(&stage), 2);
}

#[tokio::test]
async fn a_torn_archive_alone_disturbs_nothing() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let before = tree(&stage, PUBLISHED);
    truncate(&stage, &format!("{ARCHIVE}/00000001/key.pem"));
    look_again(&stage, &agent);
    assert_eq!(tree(&stage, PUBLISHED), before);
    assert_eq!(issues(&stage), 1);
    renew(&stage);
}

#[tokio::test]
async fn a_link_of_somebody_else_is_told_and_left() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    stage.write("/elsewhere/cert.pem", b"not ours").expect("it is written");
    let link = stage.path(&format!("{PUBLISHED}/current"));
    std::fs::remove_file(&link).expect("it was there");
    symlink(stage.path("/elsewhere"), &link).expect("a link");
    agent.reload().expect("it runs");
    let problem = wait_problem(&stage, "foreign");
    assert!(told(&problem).contains("current"), "{problem:#}");
    assert_eq!(std::fs::read_link(&link).expect("a link"), stage.path("/elsewhere"));
    assert_eq!(stage.read("/elsewhere/cert.pem"), "not ours");
    // As the advice says.
    std::fs::remove_file(&link).expect("it is there");
    agent.reload().expect("it runs");
    wait(&stage, "repair", |status| status["health"] == "healthy");
    assert_eq!(issues(&stage), 1);
}

#[tokio::test]
async fn a_file_in_place_of_a_directory_is_told_and_left() {
    let stage = stage(StageOptions::worker()).await;
    stage.write("/var/lib/nodeagent-certs/kubelet", b"in the way").expect("it is written");
    let agent = stage.run().expect("the agent starts");
    let problem = wait_problem(&stage, "foreign");
    assert!(told(&problem).contains("/var/lib/nodeagent-certs/kubelet"), "{problem:#}");
    assert_eq!(stage.read("/var/lib/nodeagent-certs/kubelet"), "in the way");
    assert_eq!(issues(&stage), 0);
    std::fs::remove_file(stage.path("/var/lib/nodeagent-certs/kubelet")).expect("it is there");
    agent.reload().expect("it runs");
    wait_healthy(&stage);
}

#[tokio::test]
async fn files_of_others_among_ours_stay_through_rotations_and_restarts() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    let places = [
        format!("{PUBLISHED}/README"),
        format!("{PUBLISHED}/00000001/backup.tar"),
        format!("{PUBLISHED}/backup/key.pem"),
        format!("{ARCHIVE}/README"),
        format!("{ARCHIVE}/00000001/note"),
        "/var/lib/nodeagent/mine.txt".into(),
        "/run/nodeagent/mine.txt".into(),
    ];
    for place in &places {
        stage.write(place, place.as_bytes()).expect("it is written");
    }
    for _ in 0..4 {
        renew(&stage);
    }
    agent.kill().expect("it is killed");
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let archived = |place: &str| place.contains("/archive/") && !place.ends_with("README");
    for place in &places {
        // A generation that leaves the archive is renamed; the stranger in it goes along.
        let found = match archived(place) {
            true => tree(&stage, ARCHIVE).into_values().any(|text| text == place.as_bytes()),
            false => stage.read(place) == *place,
        };
        assert!(found, "{place} is gone");
    }
}

#[tokio::test]
async fn records_that_are_torn_are_put_aside_and_the_agent_goes_on() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    assert_eq!(agent.stop(SOON), Ok(0));
    truncate(&stage, "/var/lib/nodeagent/records.json");
    let torn = stage.read("/var/lib/nodeagent/records.json");
    let _agent = stage.run().expect("the agent starts");
    until("new records", || stage.log().contains("/var/lib/nodeagent/records.json"));
    wait_healthy(&stage);
    assert_eq!(stage.read("/var/lib/nodeagent/records.json.unreadable"), torn);
    assert_eq!(issues(&stage), 1);
}

#[tokio::test]
async fn a_torn_nonce_is_told_and_never_replaced() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    agent.kill().expect("it is killed");
    let path = format!("/var/lib/nodeagent/nonce/aws/{}", stage.instance);
    let whole = stage.read(&path);
    truncate(&stage, &path);
    let torn = stage.read(&path);
    std::fs::remove_file(stage.path("/run/nodeagent/token")).expect("a reboot empties /run");
    let agent = stage.run().expect("the agent starts");
    let text = told(&wait_problem(&stage, "foreign"));
    assert!(text.contains("identity-accesslist") && text.contains(&path), "{text}");
    assert_eq!(stage.read(&path), torn);
    assert_eq!(logins(&stage), 1, "Vault is not asked with half a nonce");
    stage.write(&path, whole.as_bytes()).expect("it is written");
    agent.reload().expect("it runs");
    wait_healthy(&stage);
}

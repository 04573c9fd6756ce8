//! What a person sees where a launch cannot go on: the words of Ignition, which the console of the
//! instance shows, and that nothing half is left behind.

use rig::ignition::Stage;
use rig::launch::Instance;
use rig::launch::release::Release;
use serde_json::Value;

use super::{SOON, Story, opened, rendered, told, wait_up};

const PROGRAM: &str = "opt/bin/nodeagent";

/// A worker that is told of a release, and the fetch of what it is told has passed.
fn fetched(story: &Story, release: &Release) -> Instance {
    let worker = told(story.launch("worker-0", "worker"));
    let inputs = story.worker_inputs(release, worker.machine.host_ip());
    story.user_data(&worker, &rendered(&inputs));
    told(told(worker.start(Stage::Fetch)).pass(SOON));
    worker
}

/// What Ignition says when it cannot write the files; it ends by itself, which ends the boot in an
/// emergency shell, and leaves no program and no part of one.
fn refused(worker: &Instance) -> String {
    let said = told(told(worker.start(Stage::Files)).refuse(SOON));
    let bin = worker.machine.root().join(PROGRAM);
    let bin = bin.parent().expect("a directory");
    let left: Vec<_> = std::fs::read_dir(bin).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    said
}

fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "'{word}' in\n{said}");
    }
}

#[tokio::test]
async fn a_program_with_another_hash_is_not_installed() {
    let Some(story) = opened(1).await else { return };
    let release = told(story.publish());
    let worker = fetched(&story, &release);
    // Somebody has replaced the object since.
    let other = told(story.publish_as("binary", "artifacts/nodeagent", b"another program"));
    let said = refused(&worker);
    let words = format!(
        "hash verification failed (calculated {} but expected {})",
        other.sha512, release.sha512
    );
    assert_says(&said, &[&words, "/opt/bin/nodeagent", "Ignition failed"]);
}

/// The words that name the object, whatever keeps it from us.
const NAMED: &str = "error fetching object \"artifacts/nodeagent\" from bucket \"rig-artifacts\"";

#[tokio::test]
async fn a_program_that_is_missing_is_named() {
    let Some(story) = opened(1).await else { return };
    let release = told(story.publish());
    let worker = fetched(&story, &release);
    told(story.s3.remove("artifacts/nodeagent"));
    // A role that may not list a bucket is not told that an object is missing.
    let words = [NAMED, "StatusCode: 403", "AccessDenied", "Ignition failed"];
    assert_says(&refused(&worker), &words);
}

#[tokio::test]
async fn without_a_role_there_is_no_program() {
    let Some(story) = opened(1).await else { return };
    let release = told(story.publish());
    let worker = fetched(&story, &release);
    story.site.aws.change_profile(&worker.id, None);
    let words = ["from bucket \"rig-artifacts\"", "no EC2 IMDS role found", "Ignition failed"];
    assert_says(&refused(&worker), &words);
}

#[tokio::test]
async fn garbage_as_user_data_writes_nothing() {
    let Some(story) = opened(1).await else { return };
    let worker = told(story.launch("worker-0", "worker"));
    let before = told(worker.disk());
    let release = told(story.publish());
    let whole = rendered(&story.worker_inputs(&release, worker.machine.host_ip()));
    for (user_data, words) in [
        ("#cloud-config\nhostname: x\n", "config is not valid"),
        ("{ \"ignition\": { \"version\": \"2.3.0\" } }", "unsupported config version"),
        (&whole[..whole.len() / 2], "config is not valid"),
    ] {
        story.user_data(&worker, user_data);
        let said = told(told(worker.start(Stage::Fetch)).refuse(SOON));
        assert_says(&said, &[&format!("failed to fetch config: {words}"), "Ignition failed"]);
    }
    assert!(before == told(worker.disk()), "something was written");
}

#[tokio::test]
async fn a_metadata_service_that_is_away_for_a_minute_only_delays_a_launch() {
    let Some(story) = opened(1).await else { return };
    let release = told(story.publish());
    let mut worker = told(story.launch("worker-0", "worker"));
    let inputs = story.worker_inputs(&release, worker.machine.host_ip());
    story.user_data(&worker, &rendered(&inputs));
    worker.take_imds();
    let mut fetch = told(worker.start(Stage::Fetch));
    // It asks again after 0.2 s at first and every 5 s at last: the 17th time is after a minute.
    told(fetch.wait_says("PUT http://169.254.169.254/latest/api/token: attempt #17", SOON));
    assert_says(&fetch.log(), &["169.254.169.254:80: connect: connection refused"]);
    told(worker.bring_imds());
    told(fetch.pass(SOON));
    told(told(worker.start(Stage::Files)).pass(SOON));

    // The agent needs it too, and a person who is there early is told.
    worker.take_imds();
    told(worker.boot());
    let machine = &worker.machine;
    let away = |status: &Value| status["problems"][0]["code"] == "imds-unreachable";
    told(machine.wait_agent_status("imds-unreachable", SOON, away));
    told(worker.bring_imds());
    wait_up(&worker);
}

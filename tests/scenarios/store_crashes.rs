//! The agent is stopped and killed at any moment: what is published fits at each of them, and the
//! next start brings everything into order.

use nix::sys::signal::Signal;
use rig::consumer::{Consumer, Mode};
use rig::stage::{Running, Stage, StageOptions};

use crate::play::*;

/// Killings of each story.
const ROUNDS: usize = 8;

#[tokio::test]
async fn an_agent_killed_in_a_rotation_leaves_a_pair_that_fits() {
    ended_by(Signal::SIGKILL).await;
}

#[tokio::test]
async fn an_agent_stopped_in_a_rotation_leaves_a_pair_that_fits() {
    ended_by(Signal::SIGTERM).await;
}

async fn ended_by(signal: Signal) {
    let mut seed = seed();
    let options = StageOptions::worker().with("[rotation]\nissues_per_hour = 3600\n");
    let (stage, mut agent) = serving(options).await;
    for _ in 0..ROUNDS {
        ask_renewal(&stage);
        std::thread::sleep(std::time::Duration::from_millis(random(&mut seed, 250)));
        end(agent, signal);
        let between = serial(&stage);
        let witness = witness(&stage);
        assert_eq!(witness.serial(), Some(between), "what is on disk can be served");
        agent = stage.run().expect("the agent starts");
        wait_settled(&stage);
    }
    let mismatches = stage.kubelet.record().mismatches;
    println!("the running consumer met {mismatches} pairs that did not fit, and kept its own");
    assert!(issues(&stage) <= 1 + 2 * ROUNDS, "{} issues", issues(&stage));
}

fn end(mut agent: Running, signal: Signal) {
    agent.signal(signal).expect("it runs");
    let ended = agent.wait(SOON);
    if let Err(text) = ended {
        assert!(text.contains("signal"), "{text}");
    }
}

/// A consumer that reads what is there just now.
fn witness(stage: &Stage) -> Consumer {
    let path = stage.path(&format!("{PUBLISHED}/current"));
    Consumer::start(path, Mode::RereadNever).expect("a pair that fits is published")
}

/// Waits until nothing is asked for any more and the consumer has what is published.
fn wait_settled(stage: &Stage) {
    until("order", || {
        let requests = stage.path("/run/nodeagent/requests/kubelet-server");
        !requests.exists()
            && generations(stage, PUBLISHED).len() == 1
            && stage.kubelet.serial() == Some(serial(stage))
    });
    wait_healthy(stage);
}

#[tokio::test]
async fn a_superseded_generation_that_a_crash_left_is_unlinked_at_the_next_start() {
    let (stage, agent) = serving(StageOptions::worker()).await;
    renew(&stage);
    until("one generation", || generations(&stage, PUBLISHED) == ["00000002"]);
    agent.kill().expect("it is killed");
    // As after a kill between the swap and the unlink, which is what tells the consumers.
    let (from, to) = (stage.path(PUBLISHED), stage.path(&format!("{PUBLISHED}/00000001")));
    std::fs::create_dir(&to).expect("a directory");
    for name in ["cert.pem", "key.pem", "ca.pem", "pair.pem"] {
        std::fs::copy(from.join("00000002").join(name), to.join(name)).expect("a copy");
    }
    let before = serial(&stage);
    let _agent = stage.run().expect("the agent starts");
    until("order", || generations(&stage, PUBLISHED) == ["00000002"]);
    assert_eq!(serial(&stage), before);
}

#[tokio::test]
async fn what_a_crash_left_half_made_in_the_archive_is_cleared_at_the_next_start() {
    let (stage, agent) = serving(StageOptions::worker()).await;
    assert_eq!(agent.stop(SOON), Ok(0));
    let half = stage.path("/var/lib/nodeagent/archive/kubelet-server/.00000002.nodeagent~");
    std::fs::create_dir(&half).expect("a directory");
    std::fs::write(half.join("key.pem"), "half a key").expect("a file");
    let _agent = stage.run().expect("the agent starts");
    until("a clean archive", || !half.exists());
    wait_healthy(&stage);
}

#[tokio::test]
async fn stopping_the_agent_stops_no_consumer() {
    let (stage, agent) = serving(StageOptions::worker()).await;
    assert_eq!(agent.stop(SOON), Ok(0));
    assert!(stage.kubelet.is_running());
    let jobs = ["StopUnit", "RestartUnit", "TryRestartUnit", "ReloadUnit"];
    assert!(jobs.iter().all(|job| stage.systemd.count(job, KUBELET) == 0));
    let output = run_verb(&stage, &["await", "kubelet", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(0), "the gate needs no agent");
}

//! What follows a commit: a consumer that re-reads is left alone, one that does not is restarted
//! once, and the new serial is proved either way.

use rig::consumer::Mode;
use rig::stage::{Running, Stage, StageOptions};
use rig::systemd::{ActiveState, Behaviour};

use crate::play::*;

fn never_rereads() -> StageOptions {
    StageOptions { consumer: Mode::RereadNever, ..StageOptions::worker() }
}

/// Waits until the consumer is seen to serve what is on disk.
fn wait_proved(stage: &Stage) {
    wait(stage, "proof", |_| {
        let consumer = stage.consumer("kubelet");
        let served = consumer["served"].as_str();
        served.is_some_and(|served| served == serial(stage))
    });
    assert_eq!(stage.kubelet.serial(), Some(serial(stage)));
}

fn restarts(stage: &Stage) -> usize {
    stage.systemd.count("RestartUnit", KUBELET)
}

#[tokio::test]
async fn a_consumer_that_rereads_is_proved_and_not_restarted() {
    let (stage, _agent) = serving(StageOptions::worker()).await;
    renew(&stage);
    wait_proved(&stage);
    let consumer = stage.consumer("kubelet");
    assert!(consumer["proved"].is_string() && consumer["last_act"].is_null(), "{consumer:#}");
    assert_eq!(restarts(&stage), 0);
    assert_eq!(stage.kubelet.record().rereads, 1);
}

#[tokio::test]
async fn a_consumer_that_never_rereads_is_restarted_exactly_once() {
    let (stage, agent) = serving(never_rereads()).await;
    renew(&stage);
    wait_proved(&stage);
    assert_eq!(stage.consumer("kubelet")["last_act"], "restarted");
    look_again(&stage, &agent);
    look_again(&stage, &agent);
    assert_eq!(restarts(&stage), 1);
    assert_eq!(stage.kubelet.record().starts, 2);
}

#[tokio::test]
async fn act_restart_restarts_without_a_look() {
    let options = StageOptions::worker().with(&kubelet("act = \"restart\""));
    let (stage, _agent) = serving(options).await;
    renew(&stage);
    until("restart", || restarts(&stage) == 1);
    wait_proved(&stage);
    assert_eq!(stage.consumer("kubelet")["last_act"], "restarted");
}

#[tokio::test]
async fn act_reload_reloads_and_restarts_nothing() {
    let options = never_rereads().with(&kubelet("act = \"reload\""));
    let (stage, _agent) = serving(options).await;
    let reloading = stage.kubelet.clone();
    let unit = stage.kubelet.unit().with_reload(Behaviour::run(move || reloading.restart()));
    stage.systemd.add_unit(KUBELET, unit);
    renew(&stage);
    wait_proved(&stage);
    assert_eq!(stage.systemd.count("ReloadUnit", KUBELET), 1);
    assert_eq!(stage.consumer("kubelet")["last_act"], "reloaded");
    assert_eq!(restarts(&stage), 0);
}

#[tokio::test]
async fn act_nothing_asks_systemd_nothing() {
    let (stage, _agent) = serving(never_rereads().with(&kubelet("act = \"nothing\""))).await;
    stage.systemd.clear_calls();
    renew(&stage);
    wait(&stage, "adoption", |_| stage.consumer("kubelet")["state"] == "current");
    let calls = stage.systemd.calls();
    assert!(calls.iter().all(|call| !call.method.ends_with("Unit") || call.method == "LoadUnit"));
    assert_ne!(stage.kubelet.serial(), Some(serial(&stage)));
}

#[tokio::test]
async fn a_unit_that_is_down_is_not_started_and_its_own_start_reads_the_new_files() {
    let (stage, _agent) = healthy(never_rereads()).await;
    renew(&stage);
    wait(&stage, "adoption", |_| stage.consumer("kubelet")["state"] == "current");
    assert_eq!(restarts(&stage), 0);
    assert_eq!(stage.systemd.state(KUBELET), Some(ActiveState::Inactive));
    stage.start_kubelet().expect("the consumer starts");
    assert_eq!(stage.kubelet.serial(), Some(serial(&stage)));
}

#[tokio::test]
async fn a_client_certificate_alone_waits_for_the_poll_of_clients_from_1_36_on() {
    let (stage, agent) = serving(never_rereads()).await;
    renew_client(&stage);
    wait(&stage, "wait", |_| stage.consumer("kubelet")["state"] == "pending");
    look_again(&stage, &agent);
    assert_eq!(stage.consumer("kubelet")["state"], "pending");
    assert_eq!(restarts(&stage), 0);
}

#[tokio::test]
async fn before_1_36_a_client_certificate_restarts_its_consumer() {
    let options = StageOptions::worker().with("[node]\nkubernetes = \"1.35\"\n");
    let (stage, _agent) = serving(options).await;
    renew_client(&stage);
    wait(&stage, "restart", |_| stage.consumer("kubelet")["last_act"] == "restarted");
    assert_eq!(restarts(&stage), 1);
}

fn renew_client(stage: &Stage) {
    let before = stage.certificate("kubelet-client")["serial"].clone();
    let output = run_verb(stage, &["renew", "kubelet-client"]);
    assert!(output.status.success(), "{}", text_of(&output));
    wait(stage, "client certificate", |_| {
        let serial = stage.certificate("kubelet-client")["serial"].clone();
        serial.is_string() && serial != before
    });
}

#[tokio::test]
async fn an_agent_killed_at_any_moment_acts_at_most_once_for_a_generation() {
    let mut seed = seed();
    let options = never_rereads()
        .with(&kubelet("act = \"restart\""))
        .with("[rotation]\nissues_per_hour = 3600\n");
    let (stage, mut agent) = serving(options).await;
    for _ in 0..6 {
        agent = kill_in_rotation(&stage, agent, random(&mut seed, 300));
        wait_proved(&stage);
        until("one generation", || generations(&stage, PUBLISHED).len() == 1);
    }
    let generation = stage.certificate(SERVER)["generation"].as_u64().expect("a number");
    let rotations = usize::try_from(generation - 1).expect("a small number");
    assert!(restarts(&stage) <= rotations, "{} for {rotations}", restarts(&stage));
    assert!(restarts(&stage) >= 1);
}

#[tokio::test]
async fn an_agent_killed_while_a_restart_is_under_way_does_not_restart_again() {
    let (stage, agent) = serving(never_rereads().with(&kubelet("act = \"restart\""))).await;
    let consumer = stage.kubelet.clone();
    let slow = Behaviour::run(move || consumer.restart());
    let moment = std::time::Duration::from_millis(300);
    stage.systemd.behave(KUBELET, Behaviour::Slow(moment, Box::new(slow)));
    let (_, after) = renew(&stage);
    assert!(stage.systemd.wait_for("RestartUnit", KUBELET, 1, SOON));
    agent.kill().expect("it is killed");
    until("end of the job", || {
        stage.kubelet.serial().as_ref() == Some(&after)
            && stage.systemd.state(KUBELET) == Some(ActiveState::Active)
    });
    let agent = stage.run().expect("the agent starts");
    wait_proved(&stage);
    look_again(&stage, &agent);
    assert_eq!(restarts(&stage), 1);
}

/// Asks for a new certificate, kills the agent so much later and starts another.
fn kill_in_rotation(stage: &Stage, agent: Running, millis: u64) -> Running {
    ask_renewal(stage);
    std::thread::sleep(std::time::Duration::from_millis(millis));
    agent.kill().expect("it is killed");
    stage.run().expect("the agent starts")
}

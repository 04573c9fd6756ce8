//! A clock that is wrong by an hour: the agent holds, says why, and goes on when it is repaired.
//! It is Vault's clock that is moved here, which is the same to the agent.

use jiff::SignedDuration;
use rig::stage::{Stage, StageOptions};

use crate::play::*;

#[tokio::test]
async fn z26_a_fresh_node_whose_clock_is_an_hour_late_waits_and_says_so() {
    fresh_and_wrong(SignedDuration::from_hours(1)).await;
}

#[tokio::test]
async fn a_fresh_node_whose_clock_is_an_hour_early_waits_and_says_so() {
    fresh_and_wrong(SignedDuration::from_hours(-1)).await;
}

async fn fresh_and_wrong(vault_ahead: SignedDuration) {
    let stage = stage(StageOptions::worker()).await;
    stage.clock.advance(vault_ahead);
    let agent = stage.run().expect("the agent starts");
    held(&stage);
    assert_eq!(issues(&stage), 0);
    stage.clock.advance(-vault_ahead);
    agent.reload().expect("it runs");
    wait_healthy(&stage);
}

/// Waits until the agent holds for the clock's sake.
fn held(stage: &Stage) {
    let text = told(&wait_problem(stage, "clock-skew"));
    assert!(text.contains("ahead of vault's") && text.contains("timedatectl"), "{text}");
    wait(stage, "hold", |_| stage.certificate(SERVER)["waits_for"] == "the clock");
}

#[tokio::test]
async fn the_repair_of_the_clock_is_seen_within_a_minute_without_anybody_telling() {
    let stage = stage(StageOptions::worker()).await;
    stage.clock.advance(SignedDuration::from_mins(10));
    let _agent = stage.run().expect("the agent starts");
    held(&stage);
    stage.clock.advance(SignedDuration::from_mins(-10));
    wait_healthy(&stage);
}

#[tokio::test]
async fn n10_a_running_node_whose_clock_jumps_keeps_what_it_has_and_asks_for_nothing() {
    for hours in [1, -1] {
        let (stage, agent) = serving(StageOptions::worker()).await;
        let before = tree(&stage, PUBLISHED);
        stage.clock.advance(SignedDuration::from_hours(hours));
        agent.reload().expect("it runs");
        wait_problem(&stage, "clock-skew");
        let serial = ask_renewal(&stage);
        held(&stage);
        look_again(&stage, &agent);
        held(&stage);
        assert_eq!((issues(&stage), tree(&stage, PUBLISHED)), (1, before));
        assert_eq!(stage.status()["health"], "degraded");
        assert!(stage.kubelet.is_running());
        stage.clock.advance(SignedDuration::from_hours(-hours));
        agent.reload().expect("it runs");
        wait_renewed(&stage, &serial);
        wait(&stage, "health", |status| status["health"] == "healthy");
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_by_seconds_is_good_enough() {
    let stage = stage(StageOptions::worker()).await;
    stage.clock.advance(SignedDuration::from_secs(20));
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
}

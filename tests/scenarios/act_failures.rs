//! A consumer that does not come back: one generation back, told, and never another issue for it.
//! A systemd that is away is waited for.

use rig::consumer::Mode;
use rig::stage::{Running, Stage, StageOptions};
use rig::systemd::{ActiveState, Behaviour};

use crate::play::*;

/// The point at which the end of a first restart was told and is not noted yet.
const RESTARTED: &str = "1 after job-end restarting kubelet.service";

/// A consumer that is restarted after each commit.
fn restarted() -> StageOptions {
    let options = StageOptions { consumer: Mode::RereadNever, ..StageOptions::worker() };
    options.with(&kubelet("act = \"restart\""))
}

#[tokio::test]
async fn n04_a_consumer_that_fails_with_a_new_certificate_gets_the_old_one_back() {
    let (stage, agent) = serving(restarted()).await;
    let good = serial(&stage);
    start_only_with(&stage, &good);
    ask_renewal(&stage);
    let problem = wait_problem(&stage, "rolled-back");
    assert!(told(&problem).contains(KUBELET), "{problem:#}");
    assert_eq!(serial(&stage), good);
    assert_eq!(stage.kubelet.serial(), Some(good));
    let certificate = stage.certificate(SERVER);
    assert_eq!(certificate["quarantined"], 2, "{certificate:#}");
    assert_eq!(certificate["generation"], 3, "going back is a generation of its own");
    stays(&stage, &agent, 2);
}

/// No look changes anything any more: no issue, no restart, no other files.
fn stays(stage: &Stage, agent: &Running, issued: usize) {
    let restarts = stage.systemd.count("RestartUnit", KUBELET);
    let published = tree(stage, PUBLISHED);
    for _ in 0..3 {
        look_again(stage, agent);
    }
    assert_eq!(issues(stage), issued, "a failing restart never causes another issue");
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), restarts);
    assert_eq!(tree(stage, PUBLISHED), published);
}

#[tokio::test]
async fn n02_a_consumer_that_fails_with_every_certificate_costs_one_issue_and_two_restarts() {
    let (stage, agent) = serving(restarted()).await;
    let good = serial(&stage);
    stage.kubelet.set_mode(Mode::FailsToStart);
    ask_renewal(&stage);
    let problem = wait_problem(&stage, "rolled-back");
    assert!(told(&problem).contains("failed too"), "{problem:#}");
    assert_eq!(serial(&stage), good);
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 2);
    stays(&stage, &agent, 2);
}

#[tokio::test]
async fn a_consumer_that_serves_something_else_gets_the_old_one_back() {
    let (stage, _agent) = serving(restarted()).await;
    let good = serial(&stage);
    stage.kubelet.set_mode(Mode::ServesOther);
    ask_renewal(&stage);
    let problem = wait_problem(&stage, "rolled-back");
    assert!(told(&problem).contains("does not serve"), "{problem:#}");
    assert_eq!(serial(&stage), good);
}

#[tokio::test]
async fn without_a_former_certificate_the_new_one_stays_and_the_failure_is_told() {
    let stage = stage(restarted()).await;
    stage.systemd.set_state(KUBELET, ActiveState::Active);
    stage.systemd.behave(KUBELET, Behaviour::Fails);
    let agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "restart-failed");
    assert_eq!(stage.certificate(SERVER)["generation"], 1);
    assert_eq!(stage.certificate(SERVER)["state"], "good");
    stays(&stage, &agent, 1);
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 1);
    wait_problem(&stage, "restart-failed");
    // Once a person has brought it up, it is proved as any other.
    stage.start_kubelet().expect("the consumer starts");
    agent.reload().expect("it runs");
    wait_healthy(&stage);
    assert_eq!(stage.consumer("kubelet")["served"], serial(&stage));
}

#[tokio::test]
async fn a_consumer_that_goes_on_serving_something_else_is_restarted_once() {
    let (stage, agent) = serving(restarted()).await;
    // Nothing to go back to.
    let archive = stage.path("/var/lib/nodeagent/archive/kubelet-server");
    std::fs::remove_dir_all(archive).expect("it was there");
    stage.kubelet.set_mode(Mode::ServesOther);
    ask_renewal(&stage);
    wait_problem(&stage, "not-served");
    stays(&stage, &agent, 2);
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 1);
    wait_problem(&stage, "not-served");
}

#[tokio::test]
async fn a_way_back_that_a_kill_has_cut_is_gone_to_its_end() {
    let (stage, good) = killed_at(|_| "2 after job restarting kubelet.service".into()).await;
    let _agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "rolled-back");
    assert_eq!(stage.certificate(SERVER)["quarantined"], 2, "what it failed with is known");
    assert_eq!(stage.certificate(SERVER)["generation"], 3);
    assert_eq!((serial(&stage), stage.kubelet.serial()), (good.clone(), Some(good)));
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 2, "once for a generation");
}

#[tokio::test]
async fn the_way_back_leads_to_what_the_consumer_had_and_not_to_what_was_never_published() {
    let (stage, good) = killed_at(|stage| before_swap(stage, 1)).await;
    // Another wish, or what was kept would be published.
    ask_renewal(&stage);
    let _agent = stage.run().expect("the agent starts");
    let problem = wait_problem(&stage, "rolled-back");
    assert!(!told(&problem).contains("failed too"), "{problem:#}");
    assert_eq!(stage.certificate(SERVER)["quarantined"], 3);
    assert_eq!((serial(&stage), stage.kubelet.serial()), (good.clone(), Some(good)));
}

#[tokio::test]
async fn a_start_before_the_former_certificate_is_in_place_is_none_with_it() {
    let (stage, good) = killed_at(|stage| before_swap(stage, 2)).await;
    // As `Restart=` has systemd do: the consumer comes up after all, with what it failed with.
    stage.start_kubelet().expect("the consumer starts");
    assert_ne!(stage.kubelet.serial().as_ref(), Some(&good));
    let _agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "rolled-back");
    assert_eq!(stage.certificate(SERVER)["quarantined"], 2);
    assert_eq!((serial(&stage), stage.kubelet.serial()), (good.clone(), Some(good)));
}

#[tokio::test]
async fn a_way_back_on_which_the_consumer_failed_too_is_gone_once() {
    let (stage, good) = killed_at(|_| RESTARTED.into()).await;
    stage.systemd.behave(KUBELET, Behaviour::Fails);
    run_until(&stage, RESTARTED);
    let agent = stage.run().expect("the agent starts");
    let problem = wait_problem(&stage, "rolled-back");
    assert!(told(&problem).contains("failed too"), "{problem:#}");
    look_again(&stage, &agent);
    assert_eq!(
        (serial(&stage), stage.certificate(SERVER)["quarantined"].as_u64()),
        (good, Some(2))
    );
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 2, "once for a generation");
}

#[tokio::test]
async fn a_bus_that_goes_away_on_the_way_back_does_not_speak_against_the_former_certificate() {
    let (stage, good) = killed_at(|_| RESTARTED.into()).await;
    stage.systemd.behave(KUBELET, Behaviour::Hangs);
    let agent = stage.run().expect("the agent starts");
    until("the way back", || stage.systemd.count("RestartUnit", KUBELET) == 2);
    stage.systemd.stop();
    wait_problem(&stage, "systemd-unreachable");
    comes_up_again(&stage);
    stage.systemd.restart().expect("the bus is back");
    agent.reload().expect("it runs");
    let problem = wait_problem(&stage, "rolled-back");
    assert!(!told(&problem).contains("failed too"), "{problem:#}");
    assert_eq!((serial(&stage), stage.kubelet.serial()), (good.clone(), Some(good)));
}

#[tokio::test]
async fn a_consumer_that_is_started_over_and_over_gets_the_old_one_back() {
    let options = restarted().with("limit = \"2s\"\n");
    let (stage, good) = killed_with(options, |_| RESTARTED.into()).await;
    // As `Restart=always` has it: it ends, and waits for its next start.
    stage.systemd.set_state(KUBELET, ActiveState::Activating);
    comes_up_again(&stage);
    let agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "consumer-silent");
    assert_ne!(serial(&stage), good, "it is given its time");
    until("its time is over", || problem(&look_again(&stage, &agent), "rolled-back").is_some());
    assert_eq!((serial(&stage), stage.kubelet.serial()), (good.clone(), Some(good)));
}

#[tokio::test]
async fn a_consumer_that_an_act_took_down_is_started_with_what_was_issued_meanwhile() {
    let (stage, _) = killed_at(|_| RESTARTED.into()).await;
    comes_up_again(&stage);
    stage.systemd.stop();
    let bad = ask_renewal(&stage);
    let agent = stage.run().expect("the agent starts");
    wait_renewed(&stage, &bad);
    stage.systemd.restart().expect("the bus is back");
    look_again(&stage, &agent);
    until("a start with the newest", || stage.kubelet.serial() == Some(serial(&stage)));
    wait_healthy(&stage);
    assert_eq!(stage.systemd.state(KUBELET), Some(ActiveState::Active));
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 2, "once for a generation");
}

#[tokio::test]
async fn a_consumer_that_its_restart_left_down_is_started_when_what_it_needs_is_there() {
    let (stage, agent) = serving(restarted()).await;
    stage.systemd.behave(KUBELET, Behaviour::LacksAnother);
    let before = ask_renewal(&stage);
    let text = told(&wait_problem(&stage, "dependency-failed"));
    assert!(text.contains(KUBELET), "{text}");
    stage.kubelet.stop();
    assert_eq!(stage.systemd.state(KUBELET), Some(ActiveState::Inactive));
    look_again(&stage, &agent);
    wait_problem(&stage, "dependency-failed");
    comes_up_again(&stage);
    agent.reload().expect("it runs");
    until("its start", || stage.kubelet.serial() == Some(serial(&stage)));
    wait_healthy(&stage);
    assert_eq!(stage.systemd.state(KUBELET), Some(ActiveState::Active));
    assert_ne!(serial(&stage), before);
    assert!(stage.certificate(SERVER)["quarantined"].is_null());
}

#[tokio::test]
async fn a_consumer_that_failed_before_its_act_does_not_speak_against_the_certificate() {
    let (stage, good) = killed_at(|_| "1 before job restarting kubelet.service".into()).await;
    comes_up_again(&stage);
    stage.kubelet.stop();
    stage.systemd.set_state(KUBELET, ActiveState::Failed);
    let _agent = stage.run().expect("the agent starts");
    until("its act", || stage.kubelet.serial() == Some(serial(&stage)));
    wait_healthy(&stage);
    assert_ne!(serial(&stage), good);
    assert!(stage.certificate(SERVER)["quarantined"].is_null());
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 1);
}

/// The consumer comes up with whatever is published from now on.
fn comes_up_again(stage: &Stage) {
    let consumer = stage.kubelet.clone();
    stage.systemd.behave(KUBELET, Behaviour::run(move || consumer.restart()));
}

/// The point before a generation is put in force, the first or a later one of a run.
fn before_swap(stage: &Stage, nth: u32) -> String {
    let link = stage.path(&format!("{PUBLISHED}/.current.nodeagent~"));
    format!("{nth} before symlink {}", link.display())
}

/// A stage on which a consumer does not come up with another certificate than it has, and the agent
/// was killed at a point of the rotation; gives the serial of what it has.
async fn killed_at(point: impl Fn(&Stage) -> String) -> (Stage, String) {
    killed_with(restarted(), point).await
}

async fn killed_with(options: StageOptions, point: impl Fn(&Stage) -> String) -> (Stage, String) {
    let (stage, agent) = serving(options).await;
    let good = serial(&stage);
    start_only_with(&stage, &good);
    assert_eq!(agent.stop(SOON), Ok(0));
    ask_renewal(&stage);
    run_until(&stage, &point(&stage));
    (stage, good)
}

/// Runs an agent that is killed at a point.
fn run_until(stage: &Stage, point: &str) {
    let agent = stage.run_with(|command| {
        command.env(nodeagent::failpoint::KILL, point);
    });
    let ended = agent.expect("the agent starts").wait(SOON);
    assert!(ended.as_ref().is_err_and(|text| text.contains("SIGKILL")), "{point}: {ended:?}");
}

#[tokio::test]
async fn an_act_is_known_though_a_certificate_that_it_was_for_cannot_be_read() {
    let (stage, agent) = serving(restarted()).await;
    assert_eq!(agent.stop(SOON), Ok(0));
    for name in [SERVER, "kubelet-client"] {
        let told = run_verb(&stage, &["renew", name]);
        assert!(told.status.success(), "{}", text_of(&told));
    }
    run_until(&stage, "1 after job restarting kubelet.service");
    until("restart", || stage.kubelet.serial() == Some(serial(&stage)));
    // Nobody tells from this what is published.
    let link = stage.path(&format!("{PUBLISHED}/current"));
    let target = std::fs::read_link(&link).expect("a link");
    std::fs::remove_file(&link).expect("it is removed");
    std::fs::write(&link, "a stranger").expect("a file");
    let agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "foreign");
    look_again(&stage, &agent);
    std::fs::remove_file(&link).expect("it is removed");
    std::os::unix::fs::symlink(&target, &link).expect("a link");
    assert!(agent.reload().is_ok());
    wait_healthy(&stage);
    wait(&stage, "act", |_| stage.consumer("kubelet")["state"] == "current");
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 1, "once for a generation");
}

#[tokio::test]
async fn nobody_goes_back_to_a_certificate_that_has_expired() {
    let options = brief(6, 2).with(&kubelet("act = \"restart\"\nlimit = \"60s\""));
    let (stage, agent) = serving(options).await;
    let long = "[[certificate]]\nname = \"kubelet-server\"\nttl = \"24h\"\n";
    reconfigure(&stage, &agent, long);
    // The job fails when the former certificate has ended.
    let life = std::time::Duration::from_secs(8);
    let late = Behaviour::Slow(life, Box::new(Behaviour::Fails));
    stage.systemd.behave(KUBELET, late);
    let (_, after) = renew(&stage);
    wait_problem(&stage, "restart-failed");
    assert_eq!(serial(&stage), after, "the new one stays");
    assert!(stage.certificate(SERVER)["quarantined"].is_null());
}

#[tokio::test]
async fn a_systemd_that_does_not_answer_is_left_after_seconds() {
    let (stage, agent) = serving(restarted()).await;
    let path = stage.path("mute");
    let mute = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let bus = format!("[systemd]\nbus = \"unix:path={}\"\n", path.display());
    reconfigure(&stage, &agent, &bus);
    let (_, after) = renew(&stage);
    let text = told(&wait_problem(&stage, "systemd-unreachable"));
    assert!(text.contains("no answer within"), "{text}");
    drop(mute);
    reconfigure(&stage, &agent, "");
    wait(&stage, "act", |_| stage.consumer("kubelet")["served"] == *after);
    assert_eq!(issues(&stage), 2, "no issue storm");
}

#[tokio::test]
async fn a_job_that_hangs_is_left_after_its_limit() {
    let (stage, agent) = serving(restarted().with("limit = \"2s\"\n")).await;
    stage.systemd.behave(KUBELET, Behaviour::Hangs);
    ask_renewal(&stage);
    let problem = wait_problem(&stage, "rolled-back");
    assert!(told(&problem).contains("within 2 s"), "{problem:#}");
    assert_eq!(issues(&stage), 2);
    assert_eq!(agent.stop(SOON), Ok(0));
}

#[tokio::test]
async fn a_unit_that_does_not_exist_is_told_by_name() {
    let (stage, agent) = healthy(StageOptions::worker()).await;
    stage.systemd.remove_unit(KUBELET);
    let (_, after) = renew(&stage);
    let text = told(&wait_problem(&stage, "unit-missing"));
    assert!(text.contains(KUBELET), "{text}");
    look_again(&stage, &agent);
    assert_eq!(serial(&stage), after);
    assert_eq!(issues(&stage), 2);
}

#[tokio::test]
async fn a_systemd_that_is_away_is_waited_for() {
    let (stage, agent) = serving(restarted()).await;
    stage.systemd.stop();
    let (_, after) = renew(&stage);
    let text = told(&wait_problem(&stage, "systemd-unreachable"));
    assert!(text.contains("D-Bus"), "{text}");
    look_again(&stage, &agent);
    assert_eq!(issues(&stage), 2, "no issue storm");
    assert_eq!(serial(&stage), after, "nothing is taken back for it");
    stage.systemd.restart().expect("the manager is back");
    wait(&stage, "act", |_| stage.consumer("kubelet")["served"] == *after);
    assert_eq!(stage.systemd.count("RestartUnit", KUBELET), 1);
    assert_eq!(stage.problems(), [""; 0]);
}

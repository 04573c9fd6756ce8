//! Against the rig's model of systemd, over the same kind of socket as systemd's own.

use rig::clock::ModelClock;
use rig::systemd::{ActiveState, Behaviour, LoadState, Unit};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// A manager with one unit, and a client of it.
struct Host {
    _dir: tempfile::TempDir,
    model: rig::systemd::Systemd,
    systemd: Systemd,
}

impl Host {
    fn with(unit: Unit) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let start = "2026-07-01T00:00:00Z".parse().unwrap();
        let model = rig::systemd::Systemd::start(dir.path().join("bus"), ModelClock::manual(start))
            .unwrap();
        model.add_unit("kubelet.service", unit);
        let systemd = Systemd::new(model.address());
        Host { _dir: dir, model, systemd }
    }

    fn methods(&self) -> Vec<String> {
        self.model.calls().into_iter().map(|call| call.method).collect()
    }
}

fn refused(result: Result<()>, code: Code, text: &str) {
    let error = result.expect_err(text);
    assert_eq!(error.code(), code, "{error:#}");
    assert!(format!("{error:#}").contains(text), "{error:#}");
    assert!(error.advice().is_some(), "{error:#}");
}

#[tokio::test]
async fn a_state_says_whether_it_is_there_and_whether_it_runs() {
    let host = Host::with(Unit::active(Behaviour::Works));
    let state = host.systemd.state("kubelet.service").await.unwrap();
    assert_eq!((state.load, state.active), (Load::Loaded, Active::Active));
    let entered = state.entered.map(|at| at.to_string());
    assert_eq!(entered.as_deref(), Some("2026-07-01T00:00:00Z"));
    assert_eq!(state.invocation.map(|id| id.len()), Some(32));

    let missing = host.systemd.state("kubelt.service").await.unwrap();
    assert_eq!((missing.load, missing.active), (Load::NotFound, Active::Inactive));
    assert_eq!((missing.entered, missing.invocation), (None, None));

    let masked = Unit::inactive(Behaviour::Works).with_load(LoadState::Masked);
    host.model.add_unit("masked.service", masked);
    let state = host.systemd.state("masked.service").await.unwrap();
    assert_eq!(state.load, Load::Unusable("masked".into()));
    for (set, expected) in [
        (ActiveState::Activating, Active::Activating),
        (ActiveState::Deactivating, Active::Deactivating),
        (ActiveState::Failed, Active::Failed),
        (ActiveState::Reloading, Active::Reloading),
    ] {
        host.model.set_state("kubelet.service", set);
        let state = host.systemd.state("kubelet.service").await.unwrap();
        assert_eq!(state.active, expected);
    }
}

/// Jobs that end at once, again and again: their end is never missed.
#[tokio::test]
async fn a_restart_is_awaited_however_quick_or_slow_it_is() {
    let host = Host::with(Unit::active(Behaviour::Works));
    let before = host.systemd.state("kubelet.service").await.unwrap().invocation;
    for _ in 0..20 {
        host.systemd.restart("kubelet.service", LIMIT).await.unwrap();
    }
    let slow = Behaviour::Slow(Duration::from_millis(50), Box::new(Behaviour::Works));
    host.model.behave("kubelet.service", slow);
    host.systemd.restart("kubelet.service", LIMIT).await.unwrap();
    assert_eq!(host.model.count("RestartUnit", "kubelet.service"), 21);
    assert_ne!(host.systemd.state("kubelet.service").await.unwrap().invocation, before);
    let methods = host.methods();
    let subscribed = methods.iter().position(|method| method == "Subscribe");
    let restarted = methods.iter().position(|method| method == "RestartUnit");
    assert!(subscribed.is_some() && subscribed < restarted, "{methods:?}");
    assert!(
        host.model
            .calls()
            .iter()
            .all(|call| { call.method != "RestartUnit" || call.argument == "replace" })
    );
}

#[tokio::test]
async fn start_and_reload_are_their_own_calls() {
    let unit = Unit::inactive(Behaviour::Works).with_reload(Behaviour::Works);
    let host = Host::with(unit);
    host.systemd.start("kubelet.service", LIMIT).await.unwrap();
    assert_eq!(host.model.state("kubelet.service"), Some(ActiveState::Active));
    host.systemd.reload("kubelet.service", LIMIT).await.unwrap();
    for method in ["StartUnit", "ReloadUnit"] {
        assert_eq!(host.model.count(method, "kubelet.service"), 1, "{method}");
    }
    assert_eq!(host.model.count("RestartUnit", "kubelet.service"), 0);
    host.model.add_unit("plain.service", Unit::active(Behaviour::Works));
    let result = host.systemd.reload("plain.service", LIMIT).await;
    refused(result, Code::SystemdRefused, "reloading: plain.service");
}

#[tokio::test]
async fn a_unit_that_does_not_come_up_is_told() {
    let host = Host::with(Unit::active(Behaviour::Fails));
    let result = host.systemd.restart("kubelet.service", LIMIT).await;
    refused(result, Code::RestartFailed, "restarting: kubelet.service: it did not come up");
    host.model.behave("kubelet.service", Behaviour::Hangs);
    let result = host.systemd.restart("kubelet.service", Duration::from_millis(100)).await;
    refused(result, Code::RestartFailed, "the job has not ended");
    let result = host.systemd.restart("kubelt.service", LIMIT).await;
    refused(result, Code::UnitMissing, "kubelt.service");
}

/// Another job that ends meanwhile is not taken for ours.
#[tokio::test]
async fn only_the_end_of_the_own_job_counts() {
    let host = Host::with(Unit::active(Behaviour::Hangs));
    host.model.add_unit("other.service", Unit::active(Behaviour::Works));
    let model = std::sync::Arc::new(host.model);
    let (watcher, systemd) = (model.clone(), host.systemd.clone());
    let meanwhile = std::thread::spawn(move || {
        assert!(watcher.wait_for("RestartUnit", "kubelet.service", 1, LIMIT));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(systemd.restart("other.service", LIMIT))
    });
    let result = host.systemd.restart("kubelet.service", Duration::from_millis(500)).await;
    refused(result, Code::RestartFailed, "the job has not ended");
    meanwhile.join().unwrap().unwrap();
}

#[test]
fn every_end_of_a_job_is_understood() {
    assert!(judge("done").is_ok());
    for (result, code) in [
        ("failed", Code::RestartFailed),
        ("timeout", Code::RestartFailed),
        ("dependency", Code::DependencyFailed),
        ("canceled", Code::SystemdRefused),
        ("skipped", Code::SystemdRefused),
        ("frozen", Code::SystemdRefused),
    ] {
        let error = judge(result).expect_err(result);
        assert_eq!(error.code(), code, "{result}");
        assert!(format!("{error:#}").contains(result), "{error:#}");
    }
}

#[tokio::test]
async fn a_manager_that_is_away_is_told_and_found_again() {
    let host = Host::with(Unit::active(Behaviour::Works));
    host.model.stop();
    let result = host.systemd.restart("kubelet.service", LIMIT).await;
    refused(result, Code::SystemdUnreachable, "unix:path=");
    let result = host.systemd.state("kubelet.service").await.map(drop);
    refused(result, Code::SystemdUnreachable, "asking systemd: kubelet.service");
    host.model.restart().unwrap();
    host.systemd.restart("kubelet.service", LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_manager_that_goes_away_in_the_middle_of_a_job_is_told() {
    let host = Host::with(Unit::active(Behaviour::Hangs));
    let model = std::sync::Arc::new(host.model);
    let watcher = model.clone();
    let stopper = std::thread::spawn(move || {
        let called = watcher.wait_for("RestartUnit", "kubelet.service", 1, LIMIT);
        watcher.stop();
        called
    });
    let result = host.systemd.restart("kubelet.service", LIMIT).await;
    refused(result, Code::SystemdUnreachable, "D-Bus unix:path=");
    assert!(stopper.join().unwrap());
}

#[tokio::test]
async fn an_address_that_is_none_is_told() {
    let result = Systemd::new("unix:paht=/run").state("a.service").await.map(drop);
    refused(result, Code::SystemdUnreachable, "unix:paht=/run");
}

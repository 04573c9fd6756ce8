//! The model through proxies like the agent's.

mod contract;

use zbus::Connection;
use zbus::connection::Builder;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::proxy::CacheProperties;
use zbus::wire::OwnedObjectPath;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);
const KUBELET: &str = "kubelet.service";

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn try_restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reload_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1"
)]
trait Unit1 {
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn sub_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn active_enter_timestamp(&self) -> zbus::Result<u64>;
    #[zbus(property, name = "InvocationID")]
    fn invocation_id(&self) -> zbus::Result<Vec<u8>>;
}

struct Bench {
    systemd: Systemd,
    clock: ModelClock,
    connection: Connection,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = ModelClock::manual("2026-11-21T12:00:00Z".parse().expect("a timestamp"));
        let systemd = Systemd::start(directory.path().join("private"), clock.clone());
        let systemd = systemd.expect("a socket");
        let connection = connect(&systemd).await.expect("a connection");
        let manager = ManagerProxy::new(&connection).await.expect("a proxy");
        manager.subscribe().await.expect("subscribed");
        Self { systemd, clock, connection, _directory: directory }
    }

    async fn manager(&self) -> ManagerProxy<'static> {
        ManagerProxy::new(&self.connection).await.expect("a proxy")
    }

    async fn unit(&self, name: &str) -> Unit1Proxy<'static> {
        let path = self.manager().await.load_unit(name).await.expect("a path");
        let builder = Unit1Proxy::builder(&self.connection).path(path);
        builder.cache_properties(CacheProperties::No).build().await.expect("a proxy")
    }

    /// Restarts the kubelet and returns how the job ended and the unit's state then.
    async fn restart(&self) -> (String, ActiveState) {
        let manager = self.manager().await;
        let mut removed = manager.receive_job_removed().await.expect("a stream");
        let job = manager.restart_unit(KUBELET, "replace").await.expect("a job");
        let result = ended(&mut removed, &job).await;
        (result, self.systemd.state(KUBELET).expect("it was added"))
    }
}

async fn connect(systemd: &Systemd) -> zbus::Result<Connection> {
    Builder::address(systemd.address().as_str()).p2p().build().await
}

async fn ended(removed: &mut JobRemovedStream, job: &OwnedObjectPath) -> String {
    loop {
        let signal = tokio::time::timeout(LIMIT, removed.next()).await.expect("it ends");
        let args = signal.expect("the stream goes on");
        let args = args.args().expect("its arguments");
        if args.job == *job {
            assert_eq!(args.unit, KUBELET);
            return args.result.clone();
        }
    }
}

fn refusal(error: zbus::Error) -> (String, String) {
    match error {
        zbus::Error::MethodError(name, text, _) => (name.to_string(), text.unwrap_or_default()),
        zbus::Error::FDO(error) => {
            let text = zbus::DBusError::description(&*error).unwrap_or_default().to_owned();
            (zbus::DBusError::name(&*error).to_string(), text)
        }
        other => panic!("not systemd's error: {other:?}"),
    }
}

#[tokio::test]
async fn a_restart_is_answered_awaited_and_changes_times_and_invocation() {
    let bench = Bench::new().await;
    bench.systemd.add_unit(KUBELET, Unit::active(Behaviour::Works));
    let unit = bench.unit(KUBELET).await;
    let before = unit.invocation_id().await.expect("an id");
    assert_eq!(unit.active_enter_timestamp().await.expect("a time"), bench.clock.micros());
    bench.clock.advance(jiff::SignedDuration::from_secs(60));
    assert_eq!(bench.restart().await, ("done".into(), ActiveState::Active));
    assert_eq!(unit.active_enter_timestamp().await.expect("a time"), bench.clock.micros());
    assert_ne!(unit.invocation_id().await.expect("an id"), before);
    assert_eq!(unit.sub_state().await.expect("a state"), "running");
    assert_eq!(bench.systemd.count("RestartUnit", KUBELET), 1);
    assert!(bench.systemd.wait_for("Subscribe", "", 1, LIMIT));
    let get = bench.systemd.calls().into_iter().next_back().expect("a call");
    assert_eq!((get.method.as_str(), get.argument.as_str()), ("Get", "SubState"));
}

#[tokio::test]
async fn a_restart_does_what_the_unit_was_told() {
    let bench = Bench::new().await;
    bench.systemd.add_unit(KUBELET, Unit::active(Behaviour::Fails));
    assert_eq!(bench.restart().await, ("failed".into(), ActiveState::Failed));
    bench.systemd.behave(KUBELET, Behaviour::EndsAtOnce);
    assert_eq!(bench.restart().await, ("done".into(), ActiveState::Inactive));
    let slow = Behaviour::Slow(Duration::from_millis(1), Box::new(Behaviour::Works));
    bench.systemd.behave(KUBELET, slow);
    assert_eq!(bench.restart().await, ("done".into(), ActiveState::Active));
    bench.systemd.behave(KUBELET, Behaviour::run(|| Err("no certificate".into())));
    assert_eq!(bench.restart().await, ("failed".into(), ActiveState::Failed));
    bench.systemd.behave(KUBELET, Behaviour::run(|| Ok(())));
    assert_eq!(bench.restart().await, ("done".into(), ActiveState::Active));
}

#[tokio::test]
async fn a_job_that_hangs_is_joined_by_its_like_and_displaced_by_another() {
    let bench = Bench::new().await;
    bench.systemd.add_unit(KUBELET, Unit::active(Behaviour::Hangs));
    let manager = bench.manager().await;
    let mut removed = manager.receive_job_removed().await.expect("a stream");
    let hanging = manager.restart_unit(KUBELET, "replace").await.expect("a job");
    assert_eq!(manager.restart_unit(KUBELET, "replace").await.expect("a job"), hanging);
    let refused = manager.stop_unit(KUBELET, "fail").await.expect_err("destructive");
    assert_eq!(refusal(refused).0, "org.freedesktop.systemd1.TransactionIsDestructive");
    let stop = manager.stop_unit(KUBELET, "replace").await.expect("a job");
    assert_eq!(ended(&mut removed, &hanging).await, "canceled");
    assert_eq!(ended(&mut removed, &stop).await, "done");
    assert_eq!(bench.systemd.state(KUBELET), Some(ActiveState::Inactive));
}

#[tokio::test]
async fn units_that_do_not_exist_are_told_as_systemd_tells_them() {
    let bench = Bench::new().await;
    let manager = bench.manager().await;
    let missing = bench.unit("nobody@1.service").await;
    assert_eq!(missing.load_state().await.expect("a state"), "not-found");
    assert_eq!(missing.active_state().await.expect("a state"), "inactive");
    let no_such = |text: &str| ("org.freedesktop.systemd1.NoSuchUnit".to_owned(), text.to_owned());
    let error = manager.get_unit("x.service").await.expect_err("missing");
    assert_eq!(refusal(error), no_such("Unit x.service not loaded."));
    let error = manager.restart_unit("x.service", "replace").await.expect_err("missing");
    assert_eq!(refusal(error), no_such("Unit x.service not found."));
    let error = manager.restart_unit("no suffix", "replace").await.expect_err("no name");
    assert_eq!(refusal(error).1, "Unit name no suffix is not valid.");
    let masked = Unit::inactive(Behaviour::Works).with_load(LoadState::Masked);
    bench.systemd.add_unit(KUBELET, masked);
    let error = manager.start_unit(KUBELET, "replace").await.expect_err("masked");
    assert_eq!(refusal(error).0, "org.freedesktop.systemd1.UnitMasked");
}

#[tokio::test]
async fn only_what_can_reload_and_only_what_runs_is_tried() {
    let bench = Bench::new().await;
    let manager = bench.manager().await;
    bench.systemd.add_unit(KUBELET, Unit::active(Behaviour::Fails));
    let error = manager.reload_unit(KUBELET, "replace").await.expect_err("it cannot");
    assert_eq!(refusal(error).0, "org.freedesktop.systemd1.JobTypeNotApplicable");
    let mut removed = manager.receive_job_removed().await.expect("a stream");
    let able = Unit::inactive(Behaviour::Fails).with_reload(Behaviour::Works);
    bench.systemd.add_unit(KUBELET, able);
    let job = manager.try_restart_unit(KUBELET, "replace").await.expect("a job");
    assert_eq!(ended(&mut removed, &job).await, "done");
    assert_eq!(bench.systemd.state(KUBELET), Some(ActiveState::Inactive));
    let job = manager.reload_unit(KUBELET, "replace").await.expect("a job");
    assert_eq!(ended(&mut removed, &job).await, "invalid");
    bench.systemd.set_state(KUBELET, ActiveState::Active);
    let job = manager.reload_unit(KUBELET, "replace").await.expect("a job");
    assert_eq!(ended(&mut removed, &job).await, "done");
}

#[tokio::test]
async fn a_manager_that_is_away_refuses_and_comes_back_with_its_units() {
    let bench = Bench::new().await;
    bench.systemd.add_unit(KUBELET, Unit::active(Behaviour::Hangs));
    bench.manager().await.restart_unit(KUBELET, "replace").await.expect("a job");
    bench.systemd.stop();
    connect(&bench.systemd).await.expect_err("nobody there");
    bench.manager().await.get_unit(KUBELET).await.expect_err("cut");
    bench.systemd.restart().expect("the same socket");
    let connection = connect(&bench.systemd).await.expect("back");
    let manager = ManagerProxy::new(&connection).await.expect("a proxy");
    manager.get_unit(KUBELET).await.expect("still there");
}

#[test]
fn paths_are_escaped_as_systemd_escapes_them() {
    let path = "/org/freedesktop/systemd1/unit/_31_2da_40b_2eservice";
    assert_eq!(unit_path("1-a@b.service"), path);
    assert_eq!(unit::unit_name(path).as_deref(), Some("1-a@b.service"));
    assert_eq!(unit::unit_name("/org/freedesktop/systemd1"), None);
}

//! The same calls to the model and to the systemd of a machine, over its system bus: whatever
//! differs, the model is wrong.

use std::collections::HashMap;

use zbus::wire::OwnedVariant;

use crate::machine::{Flavour, Machine, MachineOptions};

use super::*;

const SLEEPS: &str = "[Service]\nExecStart=/bin/sleep infinity\n";
const RELOADS: &str = "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/true\n";
const RELOAD_FAILS: &str = "[Service]\nExecStart=/bin/sleep infinity\nExecReload=/bin/false\n";
const FAILS: &str = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/false\n";
const ENDS: &str = "[Service]\nType=oneshot\nExecStart=/bin/true\n";
const HANGS: &str = "[Service]\nType=notify\nExecStart=/bin/sleep infinity\n";
const BAD: &str = "[Service]\nType=notify\n";
const ONCE: &str = "[Service]\nType=oneshot\nExecStart=/bin/mkdir /run/once\n";
const NEEDS: &str = "[Unit]\nRequires=once.service\nAfter=once.service\n\
                     [Service]\nExecStart=/bin/sleep infinity\n";

/// The units as the machine has them.
const FILES: [(&str, &str); 9] = [
    ("sleeps.service", SLEEPS),
    ("reloads.service", RELOADS),
    ("reload-fails.service", RELOAD_FAILS),
    ("fails.service", FAILS),
    ("ends.service", ENDS),
    ("hangs.service", HANGS),
    ("bad.service", BAD),
    ("once.service", ONCE),
    ("needs.service", NEEDS),
];

/// And as the model has them.
fn units() -> Vec<(&'static str, Unit)> {
    let works = || Unit::inactive(Behaviour::Works);
    vec![
        ("sleeps.service", works()),
        ("reloads.service", works().with_reload(Behaviour::Works)),
        ("reload-fails.service", works().with_reload(Behaviour::Fails)),
        ("fails.service", Unit::inactive(Behaviour::Fails)),
        ("ends.service", Unit::inactive(Behaviour::EndsAtOnce)),
        ("hangs.service", Unit::inactive(Behaviour::Hangs)),
        ("bad.service", works().with_load(LoadState::BadSetting)),
        ("masked.service", works().with_load(LoadState::Masked)),
        // What it needs comes up once: systemd starts it in the first line of the script.
        ("needs.service", Unit::active(Behaviour::LacksAnother)),
    ]
}

/// What a client does, one line each: a method with a unit and a mode.
const SCRIPT: &str = "
    Subscribe
    Subscribe
    StartUnit needs.service replace
    state needs.service
    RestartUnit needs.service replace
    state needs.service
    RestartUnit needs.service replace
    state needs.service
    state sleeps.service
    RestartUnit sleeps.service replace
    state sleeps.service
    RestartUnit sleeps.service replace
    StartUnit sleeps.service replace
    ReloadUnit sleeps.service replace
    ReloadOrRestartUnit sleeps.service replace
    StopUnit sleeps.service fail
    state sleeps.service
    StopUnit sleeps.service replace
    TryRestartUnit sleeps.service replace
    state sleeps.service
    ReloadUnit reloads.service replace
    ReloadOrRestartUnit reloads.service replace
    ReloadUnit reloads.service replace
    state reloads.service
    ReloadUnit reloads.service replace
    state reloads.service
    RestartUnit reloads.service replace
    state reloads.service
    StartUnit reload-fails.service replace
    ReloadUnit reload-fails.service replace
    state reload-fails.service
    RestartUnit fails.service replace
    state fails.service
    RestartUnit fails.service replace
    state fails.service
    state fails.service
    TryRestartUnit fails.service replace
    RestartUnit ends.service replace
    state ends.service
    RestartUnit bad.service replace
    state bad.service
    RestartUnit masked.service replace
    state masked.service
    RestartUnit missing.service replace
    ReloadUnit missing.service replace
    StopUnit missing.service replace
    state missing.service
    RestartUnit nothing replace
    RestartUnit template@.service replace
    RestartUnit sleeps.service never
    GetUnit missing.service
    GetUnit nothing
    LoadUnit nothing
    LoadUnit sleeps.service
    Reticulate sleeps.service replace
";

/// A client that writes down what it sees.
struct Client {
    connection: Connection,
    manager: zbus::Proxy<'static>,
    removed: JobRemovedStream,
    /// The invocation of each unit when its state was last asked for.
    invocations: HashMap<String, Vec<u8>>,
}

impl Client {
    async fn new(connection: Connection) -> Self {
        let typed = ManagerProxy::new(&connection).await.expect("a proxy");
        let removed = typed.receive_job_removed().await.expect("a stream");
        let manager = typed.inner().clone();
        Self { manager, removed, connection, invocations: HashMap::new() }
    }

    async fn run(&mut self) -> Vec<String> {
        let mut seen = Vec::new();
        for line in SCRIPT.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            let outcome = match words[..] {
                ["state", unit] => self.state(unit).await,
                [method, unit, mode] => self.job(method, unit, mode).await,
                [method, unit] => {
                    let path = self.manager.call::<_, _, OwnedObjectPath>(method, &unit).await;
                    path.map_or_else(told, |path| path.to_string())
                }
                [method] => {
                    let done = self.manager.call::<_, _, ()>(method, &()).await;
                    done.map_or_else(told, |()| "done".into())
                }
                _ => panic!("a line of the script: {line}"),
            };
            seen.push(format!("{line}: {outcome}"));
        }
        seen.extend(self.displace().await);
        for _ in 0..2 {
            let done = self.manager.call::<_, _, ()>("Unsubscribe", &()).await;
            seen.push(done.map_or_else(told, |()| "done".into()));
        }
        seen
    }

    async fn job(&mut self, method: &str, unit: &str, mode: &str) -> String {
        match self.manager.call::<_, _, OwnedObjectPath>(method, &(unit, mode)).await {
            Ok(job) => self.end(&job).await,
            Err(error) => told(error),
        }
    }

    async fn end(&mut self, job: &OwnedObjectPath) -> String {
        loop {
            let signal = tokio::time::timeout(LIMIT, self.removed.next()).await;
            let signal = signal.expect("it ends").expect("the stream goes on");
            let args = signal.args().expect("its arguments");
            if args.job == *job {
                assert!(job.as_str().ends_with(&format!("/{}", args.id)), "{job} is {}", args.id);
                return format!("{} for {}", args.result, args.unit);
            }
        }
    }

    /// What the agent reads of a unit, numbers only by whether there are any.
    async fn state(&mut self, unit: &str) -> String {
        let all = self.all(unit, "org.freedesktop.systemd1.Unit").await;
        let text = |name: &str| String::try_from(all[name].clone()).expect("a text");
        let number = |name: &str| u64::try_from(all[name].clone()).expect("a number") > 0;
        let id = Vec::<u8>::try_from(all["InvocationID"].clone()).expect("bytes");
        let before = self.invocations.insert(unit.to_owned(), id.clone());
        let another = before.is_none_or(|before| before != id);
        let service = self.all(unit, "org.freedesktop.systemd1.Service").await;
        let pid = u32::try_from(service["MainPID"].clone()).expect("a number") > 0;
        format!(
            "{} {} {} {} entered {} {} invocation {} {another} reload {:?} pid {pid} job {:?}",
            text("Id"),
            text("LoadState"),
            text("ActiveState"),
            text("SubState"),
            number("ActiveEnterTimestamp"),
            number("ActiveEnterTimestampMonotonic"),
            id.len(),
            all["CanReload"],
            all["Job"],
        )
    }

    async fn all(&self, unit: &str, interface: &str) -> HashMap<String, OwnedVariant> {
        let path = unit_path(unit);
        let properties = "org.freedesktop.DBus.Properties";
        let proxy =
            zbus::Proxy::new(&self.connection, "org.freedesktop.systemd1", path, properties).await;
        let all = proxy.expect("a proxy").call("GetAll", &interface).await;
        all.expect("properties")
    }

    /// A job that hangs, met by its like and by others.
    async fn displace(&mut self) -> Vec<String> {
        const UNIT: &str = "hangs.service";
        let manager = self.manager.clone();
        let call = async |method: &str, mode: &str| {
            manager.call::<_, _, OwnedObjectPath>(method, &(UNIT, mode)).await
        };
        let first = call("RestartUnit", "replace").await.expect("a job");
        let deadline = Instant::now() + LIMIT;
        while !self.state(UNIT).await.contains("activating start") {
            assert!(Instant::now() < deadline, "it never began");
        }
        let again = call("RestartUnit", "replace").await.expect("a job");
        let refused = call("StopUnit", "fail").await.map_or_else(told, |path| path.to_string());
        let stop = call("StopUnit", "replace").await.expect("a job");
        let canceled = self.end(&first).await;
        let stopped = self.end(&stop).await;
        // Which half of the restart is queued by then is a matter of time, and so is whether its
        // second start has begun when the stop comes.
        let refused = refused.split(" (").next().unwrap_or_default().to_owned();
        self.invocations.remove(UNIT);
        let joined = format!("joined: {}", first == again);
        vec![joined, refused, canceled, stopped, self.state(UNIT).await]
    }
}

fn told(error: zbus::Error) -> String {
    let (name, text) = refusal(error);
    format!("{name}: {text}")
}

fn machine() -> Machine {
    let options = MachineOptions::new("contract", Flavour::Base);
    let mut machine = Machine::prepare(options).expect("a machine can be made");
    let units = machine.root().join("etc/systemd/system");
    // A unit that nothing refers to is forgotten as soon as it is down; a kubelet's is not.
    let wants = units.join("shutdown.target.wants");
    std::fs::create_dir_all(&wants).expect("a directory");
    for (name, file) in FILES {
        std::fs::write(units.join(name), file).expect("a unit file");
        std::os::unix::fs::symlink(format!("../{name}"), wants.join(name)).expect("a link");
    }
    std::os::unix::fs::symlink("/dev/null", units.join("masked.service")).expect("a link");
    machine.boot().expect("it boots");
    machine
}

/// The machine's systemd over its bus, seen from here.
async fn real(machine: &Machine) -> Vec<String> {
    machine.settled(LIMIT).expect("the bus is up");
    let init = machine.init().expect("it runs");
    let address = format!("unix:path=/proc/{init}/root/run/dbus/system_bus_socket");
    let connection = Builder::address(address.as_str()).build().await.expect("the bus");
    Client::new(connection).await.run().await
}

async fn model() -> Vec<String> {
    let bench = Bench::new().await;
    for (name, unit) in units() {
        bench.systemd.add_unit(name, unit);
    }
    let connection = connect(&bench.systemd).await.expect("a connection of its own");
    Client::new(connection).await.run().await
}

#[tokio::test]
async fn the_model_does_what_systemd_does() {
    let model = model().await;
    assert!(model.len() > 40);
    if !Machine::available() {
        return;
    }
    let real = real(&machine()).await;
    let differs = |(model, real): &(&String, &String)| model != real;
    let differences: Vec<_> = model.iter().zip(&real).filter(differs).collect();
    assert!(differences.is_empty(), "(model, systemd): {differences:#?}");
    assert_eq!(model.len(), real.len());
}

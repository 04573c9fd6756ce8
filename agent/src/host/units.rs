//! systemd's units over D-Bus: what state they are in, and restart, reload or start with the job
//! awaited. A connection lasts for one question: the handshake on the local socket costs about a
//! millisecond, and nothing wakes an idle agent, is remade after a loss, or misses a restart of
//! the bus. Every wait has a deadline.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::proxy::CacheProperties;
use zbus::wire::OwnedObjectPath;

use crate::error::{Code, Error, Result};
use crate::failpoint::{self, Kind};

/// Reading a state is answered from systemd's memory; longer than this means that it hangs.
const ANSWER: Duration = Duration::from_secs(5);

/// Units as systemd manages them.
#[async_trait]
pub trait Units: Send + Sync {
    /// What systemd says of a unit; one that does not exist is an answer, not an error.
    async fn state(&self, unit: &str) -> Result<UnitState>;

    /// Restarts a unit, or starts it, and waits until it is up again or `limit` has passed.
    async fn restart(&self, unit: &str, limit: Duration) -> Result<()>;

    /// Has a unit reload its configuration and waits for it.
    async fn reload(&self, unit: &str, limit: Duration) -> Result<()>;

    /// Starts a unit and waits until it is up.
    async fn start(&self, unit: &str, limit: Duration) -> Result<()>;
}

/// What systemd says of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// Whether there is a usable unit file.
    pub load: Load,
    /// Whether it runs.
    pub active: Active,
    /// When it last became active by the wall clock, if ever since boot.
    pub entered: Option<Timestamp>,
    /// What systemd has called its last start, or the one that it is at; none where there was none.
    pub invocation: Option<String>,
}

/// Whether systemd found a usable unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// It did.
    Loaded,
    /// There is none.
    NotFound,
    /// It cannot be used: `masked`, `bad-setting`, `error`.
    Unusable(String),
}

/// `ActiveState` of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// Up.
    Active,
    /// On its way up.
    Activating,
    /// Down, and not because it failed.
    Inactive,
    /// Down because it failed.
    Failed,
    /// On its way down.
    Deactivating,
    /// Up, and reading its configuration again.
    Reloading,
}

/// The real systemd.
#[derive(Clone, Debug)]
pub struct Systemd {
    address: String,
}

impl Systemd {
    /// Over the system bus (`system`), or straight to a socket (`unix:path=…`), which is how the
    /// tests' model is reached. systemd's own `/run/systemd/private` cannot be: its answers carry
    /// a sender that is no unique name, and zbus 6.2 ends the connection on the first.
    pub fn new(address: impl Into<String>) -> Systemd {
        Systemd { address: address.into() }
    }

    async fn connect(&self) -> Result<Connection> {
        let builder = match self.address.as_str() {
            "system" => Builder::system(),
            address => Builder::address(address).p2p(),
        };
        let connecting = builder.method_timeout(ANSWER).build();
        self.within(ANSWER, connecting).await
    }

    async fn manager(&self) -> Result<(Connection, ManagerProxy<'static>)> {
        let connection = self.connect().await?;
        let proxy =
            ManagerProxy::builder(&connection).cache_properties(CacheProperties::No).build();
        let manager = self.within(ANSWER, proxy).await?;
        Ok((connection, manager))
    }

    /// One exchange with systemd, with its deadline and in the words of this crate.
    async fn within<T, F>(&self, limit: Duration, exchange: F) -> Result<T>
    where
        F: Future<Output = zbus::Result<T>> + Send,
    {
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.refused(&error)),
            Err(_) => {
                let text = format!("no answer within {} s", limit.as_secs());
                Err(self.unreachable(text))
            }
        }
    }

    fn refused(&self, error: &zbus::Error) -> Error {
        match name_of(error) {
            Some(name) if is_missing(&name) => Error::new(Code::UnitMissing, "no such unit"),
            Some(name) => Error::new(Code::SystemdRefused, words(error, &name)),
            None => self.unreachable(error.to_string()),
        }
    }

    fn unreachable(&self, text: String) -> Error {
        Error::new(Code::SystemdUnreachable, text)
            .at(format!("D-Bus {}", self.address))
            .advise("see whether systemd answers: busctl status org.freedesktop.systemd1")
    }

    /// The signal is subscribed to before the job is asked for: a quick job would end unseen.
    async fn job(&self, unit: &str, verb: Verb, limit: Duration) -> Result<()> {
        let (_connection, manager) = self.manager().await?;
        let mut removed = self.within(ANSWER, manager.receive_job_removed()).await?;
        self.within(ANSWER, manager.subscribe()).await?;
        failpoint::before(Kind::Job, format_args!("{} {unit}", verb.gerund()));
        let job = match verb {
            Verb::Restart => self.within(ANSWER, manager.restart_unit(unit, "replace")).await,
            Verb::Reload => self.within(ANSWER, manager.reload_unit(unit, "replace")).await,
            Verb::Start => self.within(ANSWER, manager.start_unit(unit, "replace")).await,
        }?;
        failpoint::after(Kind::Job, format_args!("{} {unit}", verb.gerund()));
        let ended = async {
            while let Some(signal) = removed.next().await {
                let args = signal.args()?;
                if args.job == *job {
                    return Ok(args.result.to_owned());
                }
            }
            Err(zbus::Error::InvalidReply)
        };
        failpoint::before(Kind::JobEnd, format_args!("{} {unit}", verb.gerund()));
        let ended = tokio::time::timeout(limit, ended).await;
        failpoint::after(Kind::JobEnd, format_args!("{} {unit}", verb.gerund()));
        match ended {
            Ok(Ok(result)) => judge(&result),
            Ok(Err(_)) => Err(self.unreachable("the connection ended before the job did".into())),
            Err(_) => {
                let text = format!("the job has not ended within {} s", limit.as_secs());
                Err(Error::new(Code::RestartFailed, text))
            }
        }
    }

    async fn run(&self, unit: &str, verb: Verb, limit: Duration) -> Result<()> {
        self.job(unit, verb, limit)
            .await
            .map_err(|error| advised(error, unit).at(unit).during(verb.gerund()))
    }

    async fn look(&self, name: &str) -> Result<UnitState> {
        let (connection, manager) = self.manager().await?;
        let path = self.within(ANSWER, manager.load_unit(name)).await?;
        let proxy = UnitProxy::builder(&connection)
            .path(path)
            .cache_properties(CacheProperties::No)
            .build();
        let unit = self.within(ANSWER, proxy).await?;
        let load = self.within(ANSWER, unit.load_state()).await?;
        let active = self.within(ANSWER, unit.active_state()).await?;
        let entered = self.within(ANSWER, unit.active_enter_timestamp()).await?;
        let invocation = self.within(ANSWER, unit.invocation_id()).await?;
        Ok(UnitState {
            load: load_of(load),
            active: active_of(&active)?,
            entered: instant(entered),
            invocation: id_of(invocation),
        })
    }
}

#[async_trait]
impl Units for Systemd {
    async fn state(&self, unit: &str) -> Result<UnitState> {
        failpoint::before(Kind::State, format_args!("{unit}"));
        let state = self.look(unit).await;
        failpoint::after(Kind::State, format_args!("{unit}"));
        state.map_err(|error| advised(error, unit).at(unit).during("asking systemd"))
    }

    async fn restart(&self, unit: &str, limit: Duration) -> Result<()> {
        self.run(unit, Verb::Restart, limit).await
    }

    async fn reload(&self, unit: &str, limit: Duration) -> Result<()> {
        self.run(unit, Verb::Reload, limit).await
    }

    async fn start(&self, unit: &str, limit: Duration) -> Result<()> {
        self.run(unit, Verb::Start, limit).await
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Restart,
    Reload,
    Start,
}

impl Verb {
    fn gerund(self) -> &'static str {
        match self {
            Verb::Restart => "restarting",
            Verb::Reload => "reloading",
            Verb::Start => "starting",
        }
    }
}

/// The end of a job in systemd's word, and in ours where it did not do what was asked. Only what
/// the unit itself did speaks against it; the rest is systemd's or another person's doing.
fn judge(result: &str) -> Result<()> {
    let (code, text) = match result {
        "done" => return Ok(()),
        "failed" => (Code::RestartFailed, "it did not come up"),
        "timeout" => (Code::RestartFailed, "it did not come up in the time its unit allows"),
        "dependency" => (Code::DependencyFailed, "something that it needs did not come up"),
        "canceled" => (Code::SystemdRefused, "another job took the place of ours"),
        "skipped" => (Code::SystemdRefused, "the job does not fit the state of the unit"),
        _ => (Code::SystemdRefused, "systemd ended it in a way that is not known"),
    };
    Err(Error::new(code, format!("{text} (job {result})")))
}

fn advised(error: Error, unit: &str) -> Error {
    match error.code() {
        Code::UnitMissing => error
            .advise(format!("see `systemctl status {unit}`, then correct `unit` of the consumer")),
        Code::RestartFailed | Code::DependencyFailed | Code::SystemdRefused => {
            error.advise(format!("see why: systemctl status {unit}; journalctl -u {unit} -n 50"))
        }
        _ => error,
    }
}

/// The name of an error that systemd (or the bus) answered; `None` where nothing did.
fn name_of(error: &zbus::Error) -> Option<String> {
    match error {
        zbus::Error::MethodError(name, ..) => Some(name.to_string()),
        zbus::Error::FDO(error) => {
            let name = zbus::DBusError::name(error.as_ref()).to_string();
            (!is_of_the_bus(&name)).then_some(name)
        }
        _ => None,
    }
}

fn is_missing(name: &str) -> bool {
    name == "org.freedesktop.systemd1.NoSuchUnit"
}

/// Errors that the bus answers in systemd's place, because systemd does not.
fn is_of_the_bus(name: &str) -> bool {
    let Some(last) = name.strip_prefix("org.freedesktop.DBus.Error.") else {
        return false;
    };
    matches!(
        last,
        "ServiceUnknown"
            | "NameHasNoOwner"
            | "NoReply"
            | "Timeout"
            | "TimedOut"
            | "Disconnected"
            | "NoServer"
            | "ZBus"
    )
}

fn words(error: &zbus::Error, name: &str) -> String {
    match error {
        zbus::Error::MethodError(_, Some(text), _) => format!("{text} ({name})"),
        zbus::Error::FDO(error) => error.to_string(),
        _ => name.to_owned(),
    }
}

fn load_of(state: String) -> Load {
    match state.as_str() {
        "loaded" | "merged" => Load::Loaded,
        "not-found" => Load::NotFound,
        _ => Load::Unusable(state),
    }
}

/// `maintenance` is up; `refreshing` is up too, since systemd 257.
fn active_of(state: &str) -> Result<Active> {
    Ok(match state {
        "active" | "maintenance" | "refreshing" => Active::Active,
        "activating" => Active::Activating,
        "inactive" => Active::Inactive,
        "failed" => Active::Failed,
        "deactivating" => Active::Deactivating,
        "reloading" => Active::Reloading,
        other => {
            let text = format!("unknown active state {other:?}");
            return Err(Error::new(Code::SystemdUnreachable, text));
        }
    })
}

/// An id of 128 bits in systemd's own words; a unit that was never started has none.
fn id_of(bytes: Vec<u8>) -> Option<String> {
    let id = u128::from_be_bytes(bytes.try_into().ok()?);
    Some(format!("{id:032x}"))
}

/// Microseconds since 1970, where 0 is never.
fn instant(micros: u64) -> Option<Timestamp> {
    let micros = i64::try_from(micros).ok().filter(|micros| *micros > 0)?;
    Timestamp::from_microsecond(micros).ok()
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn reload_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: zbus::wire::ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1"
)]
trait Unit {
    #[zbus(property)]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn active_enter_timestamp(&self) -> zbus::Result<u64>;
    #[zbus(property, name = "InvocationID")]
    fn invocation_id(&self) -> zbus::Result<Vec<u8>>;
}

#[cfg(test)]
mod tests;

//! The bus side: connections, calls and signals. Calls are dispatched by hand, because a real
//! systemd answers for every unit's path, also of units it has never loaded.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use zbus::connection::Builder;
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::message::{Header, Type};
use zbus::wire::ObjectPath;
use zbus::{Connection, Guid, Message, MessageStream};

use super::job::{Kind, Refusal, queue};
use super::unit::{invalid_name, is_unit_name, properties, unit_name, unit_path};
use super::{Shared, job};
use crate::clock::lock;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// A client that does not read for so long misses a signal.
const SIGNAL_LIMIT: Duration = Duration::from_secs(1);
/// D-Bus' handshake on a local socket.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A connection, and whether it asked for signals.
pub(super) struct Client {
    connection: Connection,
    subscribed: bool,
}

/// Accepts connections until it is stopped; all end with it.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    listener: UnixListener,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(converse(Arc::clone(shared), stream));
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
    let left: Vec<Client> = lock(&shared.clients).drain(..).collect();
    for client in left {
        client.connection.close().await.ok();
    }
    let mut units = lock(&shared.units);
    units.values_mut().for_each(|entry| entry.job = None);
}

async fn converse(shared: Arc<Shared>, stream: UnixStream) {
    let Ok(stream) = stream.into_std() else {
        return;
    };
    let guid = Guid::generate();
    let building = Builder::unix_stream(stream).server(guid).p2p().build_message_stream();
    let Ok(Ok(mut messages)) = tokio::time::timeout(HANDSHAKE_LIMIT, building).await else {
        return;
    };
    let connection = Connection::from(&messages);
    let client = Client { connection: connection.clone(), subscribed: false };
    lock(&shared.clients).push(client);
    while let Some(Ok(message)) = next(&mut messages).await {
        if message.message_type() == Type::MethodCall {
            // A client that left in the middle is not the model's concern.
            answer(&shared, &connection, &message).await.ok();
        }
    }
    lock(&shared.clients).retain(|client| !client.is(&connection));
}

impl Client {
    /// Each connection was given a server's id of its own.
    fn is(&self, connection: &Connection) -> bool {
        self.connection.server_guid() == connection.server_guid()
    }
}

async fn next(messages: &mut MessageStream) -> Option<zbus::Result<Message>> {
    messages.next().await
}

async fn answer(
    shared: &Arc<Shared>,
    connection: &Connection,
    message: &Message,
) -> zbus::Result<()> {
    let header = message.header();
    let path = header.path().map_or("", |path| path.as_str());
    let interface = header.interface().map_or("", |interface| interface.as_str());
    let member = header.member().map_or("", |member| member.as_str());
    match (path, interface, member) {
        (_, "org.freedesktop.DBus.Peer", "Ping") => connection.reply(&header, &()).await,
        (_, PROPERTIES, "Get" | "GetAll") => property(shared, connection, message).await,
        (MANAGER_PATH, MANAGER | "", "Subscribe" | "Unsubscribe") => {
            shared.record(member, "", "");
            match subscribe(shared, connection, member) {
                Ok(()) => connection.reply(&header, &()).await,
                Err(refusal) => refuse(connection, &header, refusal).await,
            }
        }
        (MANAGER_PATH, MANAGER | "", "GetUnit" | "LoadUnit") => {
            let Ok(name) = message.body().deserialize::<String>() else {
                return refuse(connection, &header, invalid_arguments()).await;
            };
            shared.record(member, &name, "");
            match find(shared, member, &name) {
                Ok(path) => connection.reply(&header, &object(path)).await,
                Err(refusal) => refuse(connection, &header, refusal).await,
            }
        }
        (MANAGER_PATH, MANAGER | "", _) if Kind::of(member).is_some() => {
            start_job(shared, connection, message).await
        }
        _ => {
            let text = format!("Unknown method {member} or interface {interface}.");
            let name = "org.freedesktop.DBus.Error.UnknownMethod";
            refuse(connection, &header, (name, text)).await
        }
    }
}

/// `Subscribe` and `Unsubscribe`, each an error where nothing changes.
fn subscribe(shared: &Shared, connection: &Connection, member: &str) -> Result<(), Refusal> {
    let wanted = member == "Subscribe";
    let mut clients = lock(&shared.clients);
    match clients.iter_mut().find(|client| client.is(connection)) {
        Some(client) if client.subscribed != wanted => client.subscribed = wanted,
        _ if wanted => {
            let text = "Client is already subscribed.".to_owned();
            return Err(("org.freedesktop.systemd1.AlreadySubscribed", text));
        }
        _ => {
            let text = "Client is not subscribed.".to_owned();
            return Err(("org.freedesktop.systemd1.NotSubscribed", text));
        }
    }
    Ok(())
}

fn find(shared: &Shared, member: &str, name: &str) -> Result<String, Refusal> {
    if member == "GetUnit" && !lock(&shared.units).contains_key(name) {
        let text = format!("Unit {name} not loaded.");
        return Err(("org.freedesktop.systemd1.NoSuchUnit", text));
    }
    if !is_unit_name(name) {
        return Err(("org.freedesktop.DBus.Error.InvalidArgs", invalid_name(name)));
    }
    Ok(unit_path(name))
}

/// Queues the job and answers with its path; it begins only then, so `JobRemoved` comes after.
async fn start_job(
    shared: &Arc<Shared>,
    connection: &Connection,
    message: &Message,
) -> zbus::Result<()> {
    let header = message.header();
    let member = header.member().map_or("", |member| member.as_str());
    let body = message.body();
    let (Ok((name, mode)), Some(kind)) = (body.deserialize::<(String, String)>(), Kind::of(member))
    else {
        return refuse(connection, &header, invalid_arguments()).await;
    };
    shared.record(member, &name, &mode);
    match queue(shared, &name, kind, &mode).await {
        Ok(queued) => {
            let path = job::path(queued.id);
            if queued.begin.is_some() {
                let body = (queued.id, object(path.clone()), name.as_str());
                signal(shared, "JobNew", &body).await;
            }
            let replied = connection.reply(&header, &object(path)).await;
            if let Some(begin) = queued.begin {
                begin.send(()).ok();
            }
            replied
        }
        Err(refusal) => refuse(connection, &header, refusal).await,
    }
}

async fn property(shared: &Shared, connection: &Connection, message: &Message) -> zbus::Result<()> {
    let header = message.header();
    let member = header.member().map_or("", |member| member.as_str());
    let body = message.body();
    let arguments = match member {
        "Get" => body.deserialize::<(String, String)>(),
        _ => body.deserialize::<String>().map(|interface| (interface, String::new())),
    };
    let Ok((interface, name)) = arguments else {
        return refuse(connection, &header, invalid_arguments()).await;
    };
    let Some(unit) = header.path().and_then(|path| unit_name(path.as_str())) else {
        let error = ("org.freedesktop.DBus.Error.UnknownObject", "Unknown object.".to_owned());
        return refuse(connection, &header, error).await;
    };
    shared.record(member, &unit, &name);
    let values = properties(&unit, lock(&shared.units).get(&unit), &interface);
    let Some(mut values) = values else {
        let text = format!("Unknown interface {interface}.");
        let name = "org.freedesktop.DBus.Error.UnknownInterface";
        return refuse(connection, &header, (name, text)).await;
    };
    if member == "GetAll" {
        return connection.reply(&header, &values).await;
    }
    match values.remove(name.as_str()) {
        Some(value) => connection.reply(&header, &value).await,
        None => {
            let text = format!("Unknown property {name}.");
            let name = "org.freedesktop.DBus.Error.UnknownProperty";
            refuse(connection, &header, (name, text)).await
        }
    }
}

/// Tells those who subscribed how a job ended.
pub(super) async fn job_removed(shared: &Shared, id: u32, unit: &str, result: &str) {
    signal(shared, "JobRemoved", &(id, object(job::path(id)), unit, result)).await;
}

async fn signal<B>(shared: &Shared, name: &str, body: &B)
where
    B: serde::Serialize + zbus::wire::DynamicType + Sync,
{
    let subscribed: Vec<Connection> = lock(&shared.clients)
        .iter()
        .filter(|client| client.subscribed)
        .map(|client| client.connection.clone())
        .collect();
    for connection in subscribed {
        let sending = connection.emit_signal(None::<&str>, MANAGER_PATH, MANAGER, name, body);
        // A client that left, or does not read, misses it.
        drop(tokio::time::timeout(SIGNAL_LIMIT, sending).await);
    }
}

async fn refuse(
    connection: &Connection,
    header: &Header<'_>,
    (name, text): Refusal,
) -> zbus::Result<()> {
    connection.reply_error(header, name, &text).await
}

fn invalid_arguments() -> Refusal {
    ("org.freedesktop.DBus.Error.InvalidArgs", "Invalid arguments.".to_owned())
}

fn object(path: String) -> ObjectPath<'static> {
    ObjectPath::try_from(path).expect("escaped paths are paths")
}

//! One small HTTP/1.1 server under every model: handler in, request log and scripted faults out.
//! It runs on a thread and a runtime of its own, so that a test on a current-thread runtime, a
//! blocking test and a child process may all talk to it; or, where it is asked very often by one
//! client, as a task of that client's runtime, which spares two changes of thread for each answer.
//! `stop` takes the peer away (listener closed, connections cut, port kept reserved) and `restart`
//! brings it back at the same address.

mod connection;
mod message;
mod script;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::clock::{ModelClock, lock};
pub(crate) use connection::GARBAGE;
pub use message::{Answer, Handler, Request, Response, handler};
pub use script::{Fault, Step};

/// Bodies above this are answered 413; Vault's own default is 32 MiB, a tenth does for tests.
pub const BODY_LIMIT_BYTES: usize = 4 << 20;
/// The log keeps this many requests, the oldest go first.
const LOG_LIMIT: usize = 200_000;
/// How long `stop` lets blocking work of a handler go on.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

/// Where a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a thread and a runtime of its own: whoever calls may block.
    Thread,
    /// In the runtime in which it is started. What `stop` cuts is cut once the runtime has gone
    /// round, and whoever waits for an answer must not block the thread.
    Here,
}

/// What a server is started with.
pub struct ServerOptions {
    /// Where to listen; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Serve TLS, where given; plain HTTP then gets Go's answer to that mistake.
    pub tls: Option<rustls::ServerConfig>,
    /// The model behind the server.
    pub handler: Handler,
    /// For the `Date` header and the log.
    pub clock: ModelClock,
    /// On a thread of its own, or in the caller's runtime.
    pub place: Place,
}

impl ServerOptions {
    /// Plain HTTP on a free port of 127.0.0.1.
    #[must_use]
    pub fn new(handler: Handler, clock: ModelClock) -> Self {
        let bind = (Ipv4Addr::LOCALHOST, 0).into();
        Self { bind, tls: None, handler, clock, place: Place::Thread }
    }

    /// The same at another address.
    #[must_use]
    pub fn bind(mut self, bind: SocketAddr) -> Self {
        self.bind = bind;
        self
    }

    /// The same at another place.
    #[must_use]
    pub fn place(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// The same with TLS.
    #[must_use]
    pub fn tls(mut self, config: rustls::ServerConfig) -> Self {
        self.tls = Some(config);
        self
    }
}

impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions")
            .field("bind", &self.bind)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// One request in the log; never its body, its query or a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The method.
    pub method: http::Method,
    /// The path, without the query.
    pub path: String,
    /// The status that was answered; `None` while, or because, it was not.
    pub status: Option<u16>,
    /// When it arrived, by the model's clock.
    pub at: Timestamp,
    number: u64,
}

#[derive(Default)]
struct Log {
    entries: VecDeque<LogEntry>,
    next: u64,
}

struct Shared {
    handler: Handler,
    clock: ModelClock,
    log: Mutex<Log>,
    arrived: Condvar,
    script: Mutex<script::Script>,
    acceptor: Option<TlsAcceptor>,
}

impl Shared {
    fn note_arrival(&self, method: &http::Method, path: &str) -> u64 {
        let mut log = lock(&self.log);
        let number = log.next;
        log.next += 1;
        let (method, path) = (method.clone(), path.to_owned());
        log.entries.push_back(LogEntry {
            method,
            path,
            status: None,
            at: self.clock.now(),
            number,
        });
        if log.entries.len() > LOG_LIMIT {
            log.entries.pop_front();
        }
        self.arrived.notify_all();
        number
    }

    fn note_status(&self, number: u64, status: u16) {
        let mut log = lock(&self.log);
        let entry = log.entries.iter_mut().rev().find(|entry| entry.number == number);
        if let Some(entry) = entry {
            entry.status = Some(status);
        }
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    /// None where it runs in the caller's runtime.
    thread: Option<JoinHandle<()>>,
}

/// A running server; dropping it stops it.
pub struct Server {
    shared: Arc<Shared>,
    addr: SocketAddr,
    /// Bound and never listening: keeps the port ours while the server is stopped.
    _reservation: TcpSocket,
    place: Place,
    running: Mutex<Option<Running>>,
}

impl Server {
    /// Binds and serves. The thread is in the caller's network namespace.
    pub fn start(options: ServerOptions) -> io::Result<Self> {
        let server = Self::prepare(options)?;
        server.restart()?;
        Ok(server)
    }

    /// Takes the address and refuses there until [`Self::restart`].
    pub fn prepare(options: ServerOptions) -> io::Result<Self> {
        let reservation = bound(options.bind)?;
        let addr = reservation.local_addr()?;
        let shared = Arc::new(Shared {
            handler: options.handler,
            clock: options.clock,
            log: Mutex::default(),
            arrived: Condvar::new(),
            script: Mutex::default(),
            acceptor: options.tls.map(|config| TlsAcceptor::from(Arc::new(config))),
        });
        let (place, running) = (options.place, Mutex::default());
        Ok(Self { shared, addr, _reservation: reservation, place, running })
    }

    /// `http://` or `https://`, the address and the port, no trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.shared.acceptor.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// Where it listens, or listened.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Replaces the script: each request takes the first step that matches it.
    pub fn script(&self, steps: Vec<Step>) {
        *lock(&self.shared.script) = script::Script::new(steps);
    }

    /// Every request since the start or [`Self::clear_log`], oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<LogEntry> {
        lock(&self.shared.log).entries.iter().cloned().collect()
    }

    /// The same, and forgets them.
    pub fn take_requests(&self) -> Vec<LogEntry> {
        lock(&self.shared.log).entries.drain(..).collect()
    }

    /// How many logged requests have a path that starts so.
    #[must_use]
    pub fn count(&self, path_prefix: &str) -> usize {
        count(&lock(&self.shared.log), path_prefix)
    }

    /// Waits, blocking the caller's thread, until [`Self::count`] is at least `wanted`; false
    /// where the deadline came first.
    #[must_use]
    pub fn wait_for(&self, path_prefix: &str, wanted: usize, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut log = lock(&self.shared.log);
        while count(&log, path_prefix) < wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.arrived.wait_timeout(log, left);
            log = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        true
    }

    /// Forgets the requests so far.
    pub fn clear_log(&self) {
        lock(&self.shared.log).entries.clear();
    }

    /// Takes the peer away: connections are cut, new ones refused. Nothing where it is stopped.
    pub fn stop(&self) {
        if let Some(running) = lock(&self.running).take() {
            running.stop.send(()).ok();
            if let Some(thread) = running.thread {
                thread.join().expect("the server's thread ends without a panic");
            }
        }
    }

    /// Brings a stopped peer back at the same address; nothing where it runs.
    pub fn restart(&self) -> io::Result<()> {
        let mut running = lock(&self.running);
        if running.is_none() {
            let shared = Arc::clone(&self.shared);
            *running = Some(match self.place {
                Place::Thread => spawn(shared, self.addr)?,
                Place::Here => join(shared, self.addr)?,
            });
        }
        Ok(())
    }

    /// Whether it listens.
    #[must_use]
    pub fn is_running(&self) -> bool {
        lock(&self.running).is_some()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.url())
    }
}

fn count(log: &Log, path_prefix: &str) -> usize {
    log.entries.iter().filter(|entry| entry.path.starts_with(path_prefix)).count()
}

/// A bound socket; `SO_REUSEPORT` lets the listener and the reservation hold the same port.
pub(crate) fn bound(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

/// Runs the accept loop on a thread of its own, and returns once it listens.
fn spawn(shared: Arc<Shared>, addr: SocketAddr) -> io::Result<Running> {
    let (stop, stopped) = oneshot::channel();
    let (listening, ready) = mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("rig {addr}")).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                return listening.send(Err(error)).expect("the starter waits for this");
            }
        };
        runtime.block_on(async {
            match listener(addr) {
                Ok(listener) => {
                    listening.send(Ok(())).expect("the starter waits for this");
                    accept(listener, &shared, stopped).await;
                }
                Err(error) => listening.send(Err(error)).expect("the starter waits for this"),
            }
        });
        runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    })?;
    ready.recv().map_err(io::Error::other)??;
    Ok(Running { stop, thread: Some(thread) })
}

/// Runs the accept loop as a task of the caller's runtime; it listens once this returns.
fn join(shared: Arc<Shared>, addr: SocketAddr) -> io::Result<Running> {
    let (stop, stopped) = oneshot::channel();
    let listener = listener(addr)?;
    let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    runtime.spawn(async move { accept(listener, &shared, stopped).await });
    Ok(Running { stop, thread: None })
}

fn listener(addr: SocketAddr) -> io::Result<TcpListener> {
    bound(addr)?.listen(1024)
}

async fn accept(listener: TcpListener, shared: &Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection::serve(Arc::clone(shared), stream, peer));
                }
                // Out of descriptors, most likely: others may end meanwhile.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

#[cfg(test)]
mod tests;

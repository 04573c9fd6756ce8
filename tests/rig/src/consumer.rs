//! A consumer of published certificates: a TLS server that loads `cert.pem` and `key.pem` from a
//! directory as Kubernetes' components do, by two paths, and keeps what it has until it is
//! restarted or notices. What it notices and how it fails are data; every mismatched pair and
//! every missing file that it meets is recorded.

mod pair;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Duration;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::clock::{ModelClock, lock};
use crate::pki::{Ca, Leaf};
use crate::server::{Request, Response, Server, ServerOptions, handler};
use crate::systemd::{Behaviour, Unit};
use pair::{LoadError, Pair};

/// How often a consumer that watches looks at its files: a tenth of the bound that is tested.
const WATCH_INTERVAL: Duration = Duration::from_millis(10);

/// How a consumer treats its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It serves what it read at its start: kubelets before 1.36.
    #[default]
    RereadNever,
    /// It reads again once a file that it has read was unlinked: what a watch on the inode behind
    /// the path tells kubelets from 1.36. A pair that does not fit leaves the last one served.
    RereadOnDelete,
    /// It does not start.
    FailsToStart,
    /// It starts so much later.
    Slow(Duration),
    /// It starts, and serves a certificate of its own making.
    ServesOther,
}

/// What a consumer met so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Calls of [`Consumer::restart`], whether it then started or not.
    pub restarts: usize,
    /// Starts that succeeded.
    pub starts: usize,
    /// Pairs read again while running, and served since.
    pub rereads: usize,
    /// Pairs whose key was not the certificate's.
    pub mismatches: usize,
    /// Files that were not there.
    pub missing: usize,
    /// Files that were there and could not be used.
    pub unreadable: usize,
}

/// A consumer; clones are the same one, and the last to go stops it.
#[derive(Clone, Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    server: Server,
    served: Arc<Served>,
    mode: Mutex<Mode>,
    record: Mutex<Record>,
    /// The files of the pair that is served, for the watch.
    pair: Mutex<Option<Pair>>,
}

/// What the TLS handshakes are answered with.
#[derive(Debug, Default)]
struct Served {
    key: RwLock<Option<Arc<CertifiedKey>>>,
    handshakes: AtomicUsize,
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        self.key.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Consumer {
    /// A consumer of the files in a directory (the published `current`), not started yet, on a
    /// free port of loopback that is its own from now on.
    pub fn new(directory: impl AsRef<Path>, mode: Mode) -> io::Result<Self> {
        let served = Arc::new(Served::default());
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Served>::clone(&served);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        let answer = handler(|_: Request| async { Response::text(200, "ok") });
        let options = ServerOptions::new(answer, ModelClock::real()).tls(tls);
        let shared = Shared {
            directory: directory.as_ref().to_owned(),
            server: Server::prepare(options)?,
            served,
            mode: Mutex::new(mode),
            record: Mutex::default(),
            pair: Mutex::default(),
        };
        let consumer = Self { shared: Arc::new(shared) };
        watch(Arc::downgrade(&consumer.shared))?;
        Ok(consumer)
    }

    /// A consumer that has started.
    pub fn start(directory: impl AsRef<Path>, mode: Mode) -> io::Result<Self> {
        let consumer = Self::new(directory, mode)?;
        consumer.shared.start().map_err(io::Error::other)?;
        Ok(consumer)
    }

    /// Where it serves TLS, or will.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.shared.server.addr()
    }

    /// Changes how it treats its files, from the next start or look on.
    pub fn set_mode(&self, mode: Mode) {
        *lock(&self.shared.mode) = mode;
    }

    /// Stops it where it runs and starts it anew. It blocks as long as that takes; the error says
    /// why it did not start, and it is then down.
    pub fn restart(&self) -> Result<(), String> {
        lock(&self.shared.record).restarts += 1;
        self.stop();
        self.shared.start()
    }

    /// Stops it: connections are cut, new ones refused.
    pub fn stop(&self) {
        self.shared.server.stop();
    }

    /// Whether it serves.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.shared.server.is_running()
    }

    /// What it met so far.
    #[must_use]
    pub fn record(&self) -> Record {
        lock(&self.shared.record).clone()
    }

    /// The serial number that it serves, as Vault writes them (`0a:1b:…`).
    #[must_use]
    pub fn serial(&self) -> Option<String> {
        if !self.is_running() {
            return None;
        }
        let key = self.shared.served.key.read();
        let key = key.unwrap_or_else(std::sync::PoisonError::into_inner).clone()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(key.cert.first()?).ok()?;
        Some(crate::pki::serial_text(parsed.raw_serial()))
    }

    /// How many TLS handshakes began with it: probes and clients alike.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        self.shared.served.handshakes.load(Ordering::Relaxed)
    }

    /// A unit of the systemd model whose jobs restart and stop this consumer. It is active where
    /// the consumer runs.
    #[must_use]
    pub fn unit(&self) -> Unit {
        let (restarting, stopping) = (self.clone(), self.clone());
        let on_restart = Behaviour::run(move || restarting.restart());
        let mut unit = match self.is_running() {
            true => Unit::active(on_restart),
            false => Unit::inactive(on_restart),
        };
        unit.on_stop = Behaviour::run(move || {
            stopping.stop();
            Ok(())
        });
        unit
    }
}

impl Shared {
    fn start(&self) -> Result<(), String> {
        let mode = lock(&self.mode).clone();
        match mode {
            Mode::FailsToStart => return Err("it was told to fail".into()),
            Mode::Slow(by) => rest(by),
            Mode::RereadNever | Mode::RereadOnDelete | Mode::ServesOther => {}
        }
        self.load()?;
        if mode == Mode::ServesOther {
            self.serve(other());
        }
        self.server.restart().map_err(|error| error.to_string())?;
        lock(&self.record).starts += 1;
        Ok(())
    }

    /// Reads the pair and serves it, or records why not.
    fn load(&self) -> Result<(), String> {
        let loaded = Pair::load(&self.directory);
        let mut record = lock(&self.record);
        match loaded {
            Ok(pair) => {
                self.serve(Arc::clone(&pair.key));
                *lock(&self.pair) = Some(pair);
                return Ok(());
            }
            Err(LoadError::Missing(_)) => record.missing += 1,
            Err(LoadError::Mismatch(_)) => record.mismatches += 1,
            Err(LoadError::Unreadable(_)) => record.unreadable += 1,
        }
        drop(record);
        Err(loaded.err().map_or_else(String::new, |error| error.to_string()))
    }

    fn serve(&self, key: Arc<CertifiedKey>) {
        let served = self.served.key.write();
        *served.unwrap_or_else(std::sync::PoisonError::into_inner) = Some(key);
    }

    /// One look of the watch.
    fn look(&self) {
        let watching = *lock(&self.mode) == Mode::RereadOnDelete && self.server.is_running();
        let unlinked = || lock(&self.pair).as_ref().is_some_and(Pair::is_unlinked);
        if watching && unlinked() && self.load().is_ok() {
            lock(&self.record).rereads += 1;
        }
    }
}

/// Looks at the files until the consumer is gone.
fn watch(shared: Weak<Shared>) -> io::Result<()> {
    std::thread::Builder::new().name("rig consumer".into()).spawn(move || {
        while let Some(shared) = shared.upgrade() {
            shared.look();
            drop(shared);
            rest(WATCH_INTERVAL);
        }
    })?;
    Ok(())
}

/// Stops a thread that is the consumer's own.
#[allow(clippy::disallowed_methods, reason = "no other work is on this thread")]
fn rest(length: Duration) {
    std::thread::sleep(length);
}

/// A pair that nobody issued.
fn other() -> Arc<CertifiedKey> {
    let Leaf { cert_pem, key_pem } = Ca::new("other").issue(&["127.0.0.1", "localhost"]);
    let key = pair::certified(cert_pem.as_bytes(), key_pem.as_bytes());
    Arc::new(key.expect("a fresh pair fits"))
}

#[cfg(test)]
mod tests;

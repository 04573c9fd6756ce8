//! A program that uses the certificates: a TLS server on loopback that holds a pair as read by
//! two paths, as Kubernetes' components do. It is a small one of the test's own, because it has to
//! look at its files at instants of the simulated time, not every ten milliseconds of the real.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::clock::lock;

/// What a consumer does about new files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// It reads again once a file that it holds was unlinked: Kubernetes from 1.36.
    Rereads,
    /// It serves what it read at its start: older ones.
    Holds,
}

/// How its next starts end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It is up at once.
    Well,
    /// It is up after half a minute.
    Late,
    /// It exits.
    Fails,
    /// It is never ready, and systemd's job ends at its limit.
    Hangs,
}

/// A consumer; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub(super) addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    dir: PathBuf,
    habit: Habit,
    start: Start,
    held: Option<Held>,
    mismatches: Vec<String>,
}

#[derive(Debug)]
struct Held {
    key: Arc<CertifiedKey>,
    serial: String,
    files: [File; 2],
}

impl ResolvesServerCert for Consumer {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        lock(&self.state).held.as_ref().map(|held| held.key.clone())
    }
}

impl Consumer {
    /// A consumer of the files in `dir`, down, on a port of its own. It answers as long as the
    /// runtime lives in which this was called.
    pub(super) async fn new(dir: &Path, habit: Habit) -> io::Result<Consumer> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let state = State {
            dir: dir.to_owned(),
            habit,
            start: Start::Well,
            held: None,
            mismatches: Vec::new(),
        };
        let addr = listener.local_addr()?;
        let consumer = Consumer { addr, state: Arc::new(Mutex::new(state)) };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(consumer.clone()));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serving = consumer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.serve(&acceptor, stream).await;
            }
        });
        Ok(consumer)
    }

    /// One connection after the other: there is one client. What a peer of a consumer that is
    /// down sees is a connection that ends at once.
    async fn serve(&self, acceptor: &TlsAcceptor, stream: TcpStream) {
        self.look();
        if self.is_running() {
            acceptor.accept(stream).await.ok();
        }
    }

    pub(super) fn set_start(&self, start: Start) {
        lock(&self.state).start = start;
    }

    pub(super) fn start_mode(&self) -> Start {
        lock(&self.state).start
    }

    pub(super) fn is_running(&self) -> bool {
        lock(&self.state).held.is_some()
    }

    /// The serial that it serves, as Vault writes it.
    pub(super) fn serial(&self) -> Option<String> {
        lock(&self.state).held.as_ref().map(|held| held.serial.clone())
    }

    /// Pairs that did not fit when it read them.
    pub(super) fn mismatches(&self) -> Vec<String> {
        lock(&self.state).mismatches.clone()
    }

    pub(super) fn stop(&self) {
        lock(&self.state).held = None;
    }

    /// Reads its files and serves; the error says why it does not.
    pub(super) fn start(&self) -> Result<(), String> {
        let mut state = lock(&self.state);
        state.held = None;
        if matches!(state.start, Start::Fails | Start::Hangs) {
            return Err("it exited with 1".into());
        }
        let held = state.read()?;
        state.held = Some(held);
        Ok(())
    }

    /// Reads its files again where it is asked to; what does not fit leaves the last pair served.
    pub(super) fn reload(&self) {
        let mut state = lock(&self.state);
        if state.held.is_some()
            && let Ok(held) = state.read()
        {
            state.held = Some(held);
        }
    }

    /// What a watch on the inode behind the path tells.
    pub(super) fn look(&self) {
        let unlinked = |file: &File| file.metadata().is_ok_and(|found| found.nlink() == 0);
        let told = {
            let state = lock(&self.state);
            let held = state.held.as_ref();
            state.habit == Habit::Rereads
                && held.is_some_and(|held| held.files.iter().any(unlinked))
        };
        if told {
            self.reload();
        }
    }
}

impl State {
    fn read(&mut self) -> Result<Held, String> {
        let (cert_file, cert) = read(&self.dir.join("cert.pem"))?;
        let (key_file, key) = read(&self.dir.join("key.pem"))?;
        let key = pair(&cert, &key).inspect_err(|text| {
            if text.contains("InconsistentKeys") {
                self.mismatches.push(text.clone());
            }
        })?;
        let serial = serial(&key)?;
        Ok(Held { key: Arc::new(key), serial, files: [cert_file, key_file] })
    }
}

/// A certificate and its key; the error says whether they do not fit or cannot be read.
pub(super) fn pair(cert: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("cert.pem: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("key.pem: {error}"))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| format!("{error:?}"))
}

fn serial(key: &CertifiedKey) -> Result<String, String> {
    let leaf = key.cert.first().ok_or("cert.pem: no certificate")?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).map_err(|e| e.to_string())?;
    Ok(rig::pki::serial_text(leaf.raw_serial()))
}

fn read(path: &Path) -> Result<(File, Vec<u8>), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok((file, bytes))
}

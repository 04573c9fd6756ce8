//! A peer that is a plain process of this machine: where its program is, its log, its life. It is
//! ended by its own process id.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::pki::Leaf;

/// A peer takes seconds to start; a busy machine gets much more.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Pause between two looks at a peer that is starting.
const POLL: Duration = Duration::from_millis(20);
/// For one look: a peer that has a port and nothing behind it yet may hang.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Where the program of a peer is, or what to do to have it. `NODEAGENT_<PEER>` names the
/// directory with its programs; else it is the newest that `tests/peers/build` has made, without
/// asking that script: it would build for minutes.
pub fn find(peer: &str, program: &str) -> Result<PathBuf, String> {
    let name = format!("NODEAGENT_{}", peer.to_uppercase().replace('-', "_"));
    if let Some(directory) = std::env::var_os(&name) {
        let path = PathBuf::from(directory).join(program);
        let missing = || format!("{name}: there is no program at {}", path.display());
        return if path.is_file() { Ok(path) } else { Err(missing()) };
    }
    newest_built(peer, program).ok_or_else(|| {
        format!("there is no real {program}: build it with tests/peers/build {peer} (needs Go)")
    })
}

/// The program in the cache of `tests/peers/build`.
pub(super) fn newest_built(peer: &str, program: &str) -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = var("NODEAGENT_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|path| path.join("nodeagent")))
        .or_else(|| var("HOME").map(|path| path.join(".cache/nodeagent")))?;
    let entries = std::fs::read_dir(cache.join("peers")).ok()?;
    let prefix = format!("{peer}-");
    let built = entries.flatten().filter(|entry| {
        entry.file_name().to_string_lossy().starts_with(&prefix)
            && entry.path().join(program).is_file()
    });
    let age = |entry: &std::fs::DirEntry| entry.metadata().and_then(|data| data.modified()).ok();
    built.max_by_key(age).map(|entry| entry.path().join(program))
}

/// A port that was free a moment ago. Somebody else may take it first, so whoever starts a server
/// on it tries again with another.
pub(super) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.map(|address: SocketAddr| address.port()).map_err(|error| error.to_string())
}

/// A running program; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Process {
    /// Starts a program, with nothing of our environment. Its log is `<name>.log` in the
    /// directory; one that is there is added to.
    pub(super) fn start(
        program: &Path,
        arguments: &[String],
        directory: &Path,
        name: &str,
    ) -> Result<Process, String> {
        let failed = |error: io::Error| format!("starting {}: {error}", program.display());
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("HOME", directory)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(failed)?;
        Ok(Process { child, log, name: name.to_owned() })
    }

    /// Waits until an address answers 200.
    pub(super) async fn ready(
        &mut self,
        url: &str,
        client: &reqwest::Client,
    ) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let answer = client.get(url).timeout(LOOK_LIMIT).send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                let (name, log) = (&self.name, self.log());
                return Err(format!("{name} does not answer at {url}, its log says: {log}"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far; the end of it, where that is much.
    #[must_use]
    pub fn log(&self) -> String {
        const LAST: usize = 8 << 10;
        let text = std::fs::read(&self.log).unwrap_or_default();
        let start = text.len().saturating_sub(LAST);
        String::from_utf8_lossy(&text[start..]).into_owned()
    }

    /// Ends it as a lost power supply would.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Makes it stand still: it holds its connections and answers nothing.
    pub fn freeze(&self) -> Result<(), String> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<(), String> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), signal).map_err(|error| format!("{}: {error}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client that trusts one root, and is somebody where a certificate is given.
pub(super) fn client(ca_pem: &str, leaf: Option<&Leaf>) -> Result<reqwest::Client, String> {
    crate::pki::install_crypto();
    let failed = |error: reqwest::Error| format!("no client: {error:?}");
    let root = reqwest::Certificate::from_pem(ca_pem.as_bytes()).map_err(failed)?;
    let builder =
        reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).tls_certs_only([root]);
    let builder = match leaf {
        None => builder,
        Some(leaf) => {
            let pem = format!("{}\n{}", leaf.cert_pem, leaf.key_pem);
            builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).map_err(failed)?)
        }
    };
    builder.build().map_err(failed)
}

/// Writes a certificate and its key as `<name>.pem` and `<name>.key`.
pub(super) fn keep(directory: &Path, name: &str, leaf: &Leaf) -> Result<(), String> {
    for (end, text) in [("pem", &leaf.cert_pem), ("key", &leaf.key_pem)] {
        let path = directory.join(format!("{name}.{end}"));
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

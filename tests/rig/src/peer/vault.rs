//! The real Vault: the `vault` program that `tests/peers/build vault` makes, on storage in memory
//! and a free port, with TLS, initialised and unsealed. It is ended by its own process id.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::newest_built;
use crate::pki::Ca;
use crate::setup::{Admin, Secret, VaultHandle};

/// A Vault takes 50 ms from exec to listening; a busy machine gets much more.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks at a server that is starting.
const POLL: Duration = Duration::from_millis(10);
/// Somebody else may take the free port first; a new one is tried this often.
const PORT_TRIES: usize = 5;

/// A running server; dropping it kills it.
#[derive(Debug)]
pub struct RealVault {
    child: Child,
    handle: VaultHandle,
    unseal_key: Secret,
    directory: tempfile::TempDir,
    program: PathBuf,
}

/// Where the `vault` program is, or what to do to have one.
pub fn program() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("NODEAGENT_VAULT") {
        let path = PathBuf::from(path);
        let path = if path.is_dir() { path.join("vault") } else { path };
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("NODEAGENT_VAULT: there is no program at {}", path.display()))
        };
    }
    if let Some(path) = newest_built("vault", "vault") {
        return Ok(path);
    }
    Err("there is no real Vault: build it with tests/peers/build vault (needs Go, about 3 minutes)"
        .into())
}

impl RealVault {
    /// Starts, initialises and unseals a server on loopback.
    pub async fn start() -> Result<RealVault, String> {
        RealVault::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same on an address that a machine of the rig reaches.
    pub async fn start_at(bind: IpAddr) -> Result<RealVault, String> {
        let mut vault = RealVault::start_empty(bind).await?;
        let anyone = vault.handle.client(None);
        let shares = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let keys = anyone.must_write("sys/init", &shares).await?.json;
        let text = |value: &Value| Secret::new(value.as_str().unwrap_or(""));
        vault.unseal_key = text(&keys["keys"][0]);
        vault.handle.root_token = text(&keys["root_token"]);
        vault.unseal().await?;
        Ok(vault)
    }

    /// Starts a server on empty storage, on loopback.
    pub async fn start_uninitialized() -> Result<RealVault, String> {
        RealVault::start_empty(Ipv4Addr::LOCALHOST.into()).await
    }

    async fn start_empty(bind: IpAddr) -> Result<RealVault, String> {
        let program = program()?;
        let mut last = String::new();
        for _ in 0..PORT_TRIES {
            match try_start(&program, bind).await {
                Ok(vault) => return Ok(vault),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What setup and tests talk to it with.
    #[must_use]
    pub fn handle(&self) -> VaultHandle {
        self.handle.clone()
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.handle.address
    }

    /// The root of the certificate that it serves.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.handle.ca_pem
    }

    /// The root token.
    #[must_use]
    pub fn root_token(&self) -> &Secret {
        &self.handle.root_token
    }

    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The program that runs.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What the server has logged so far.
    pub fn log(&self) -> io::Result<String> {
        std::fs::read_to_string(self.directory.path().join("vault.log"))
    }

    /// Seals it.
    pub async fn seal(&self) -> Result<(), String> {
        self.handle.admin().must_write("sys/seal", &json!({})).await.map(drop)
    }

    /// Unseals it.
    pub async fn unseal(&self) -> Result<(), String> {
        let body = json!({ "key": self.unseal_key.expose() });
        let status = self.handle.client(None).must_write("sys/unseal", &body).await?;
        if status.json["sealed"] == json!(false) { Ok(()) } else { Err("still sealed".into()) }
    }

    /// The version that the server tells.
    pub async fn version(&self) -> Result<String, String> {
        let status = self.handle.client(None).read("sys/seal-status").await?;
        Ok(status.json["version"].as_str().unwrap_or("unknown").to_owned())
    }
}

impl Drop for RealVault {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn try_start(program: &Path, bind: IpAddr) -> Result<RealVault, String> {
    let failed = |error: io::Error| format!("starting {}: {error}", program.display());
    let directory = tempfile::tempdir().map_err(failed)?;
    let address = free_address(bind).map_err(failed)?;
    let ca = Ca::new("rig of vault");
    let leaf = ca.issue(&["127.0.0.1", "localhost", &bind.to_string()]);
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("cert.pem"), &leaf.cert_pem).map_err(failed)?;
    std::fs::write(path("key.pem"), &leaf.key_pem).map_err(failed)?;
    std::fs::write(path("vault.hcl"), config(directory.path(), address)).map_err(failed)?;
    let log = std::fs::File::create(path("vault.log")).map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    let child = Command::new(program)
        .arg("server")
        .arg("-config")
        .arg(path("vault.hcl"))
        .env_clear()
        .env("HOME", directory.path())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(failed)?;
    let handle = VaultHandle {
        address: format!("https://{address}"),
        ca_pem: ca.pem().to_owned(),
        root_token: Secret::new(""),
    };
    let client = handle.client(None);
    let program = program.to_owned();
    let mut vault = RealVault { child, handle, unseal_key: Secret::new(""), directory, program };
    vault.await_listening(&client).await?;
    Ok(vault)
}

impl RealVault {
    async fn await_listening(&mut self, client: &Admin) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if client.read("sys/seal-status").await.is_ok_and(|reply| reply.status == 200) {
                return Ok(());
            }
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > deadline {
                let log = self.log().unwrap_or_default();
                return Err(format!("vault did not start listening, its log says: {log}"));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A port whose successor is free too: Vault binds both, the second for its cluster.
fn free_address(bind: IpAddr) -> io::Result<SocketAddr> {
    let mut last = io::Error::other("no port was tried");
    for _ in 0..100 {
        let first = TcpListener::bind((bind, 0))?;
        let address = first.local_addr()?;
        match address.port().checked_add(1).map(|next| TcpListener::bind((bind, next))) {
            Some(Ok(_)) => return Ok(address),
            Some(Err(error)) => last = error,
            None => {}
        }
    }
    Err(last)
}

fn config(directory: &Path, address: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "storage \"inmem\" {{}}\n\
         listener \"tcp\" {{\n\
         \x20 address = \"{address}\"\n\
         \x20 tls_cert_file = \"{directory}/cert.pem\"\n\
         \x20 tls_key_file = \"{directory}/key.pem\"\n\
         }}\n\
         api_addr = \"https://{address}\"\n\
         disable_mlock = true\n"
    )
}

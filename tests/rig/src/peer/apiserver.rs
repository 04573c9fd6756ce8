//! The real kube-apiserver as a plain process on loopback, in front of a real etcd: for what the
//! API answers. No controller runs beside it, so nothing is done about what is asked of it.

use std::path::{Path, PathBuf};

use super::etcd::RealEtcd;
use super::process::{self, Process, client, free_port};
use crate::pki::{Ca, Leaf};

/// A port may be taken between choosing and binding it; new ones are tried this often.
const PORT_TRIES: usize = 5;

/// A running API server; dropping it kills it.
#[derive(Debug)]
pub struct RealApiserver {
    process: Process,
    address: String,
    ca: Ca,
    admin: Leaf,
    _directory: tempfile::TempDir,
}

/// Where the `kube-apiserver` program is, or what to do to have one.
pub fn program() -> Result<PathBuf, String> {
    process::find("kube", "kube-apiserver")
}

impl RealApiserver {
    /// Starts a server on this etcd and waits until it is ready.
    pub async fn start(etcd: &RealEtcd) -> Result<RealApiserver, String> {
        let program = program()?;
        let mut last = String::new();
        for _ in 0..PORT_TRIES {
            match try_start(&program, etcd).await {
                Ok(server) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The root of what it serves, and of its clients' certificates.
    #[must_use]
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// A super-user's certificate.
    #[must_use]
    pub fn admin(&self) -> &Leaf {
        &self.admin
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

async fn try_start(program: &Path, etcd: &RealEtcd) -> Result<RealApiserver, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let ca = Ca::new("rig of kubernetes");
    let admin = ca.issue_client("rig", Some("system:masters"));
    let port = free_port()?;
    let path = directory.path();
    process::keep(path, "server", &ca.issue(&["127.0.0.1", "localhost"]))?;
    process::keep(path, "etcd-client", etcd.client())?;
    // Of a certificate too, the server takes the public key that tokens are verified with.
    process::keep(path, "service-account", &ca.issue(&["service-account"]))?;
    for (name, pem) in [("ca.pem", ca.pem()), ("etcd-ca.pem", etcd.ca().pem())] {
        std::fs::write(path.join(name), pem).map_err(|error| format!("{name}: {error}"))?;
    }
    let arguments = arguments(port, etcd.endpoint());
    let mut process = Process::start(program, &arguments, path, "kube-apiserver")?;
    let address = format!("https://127.0.0.1:{port}");
    let client = client(ca.pem(), Some(&admin))?;
    process.ready(&format!("{address}/readyz"), &client).await?;
    Ok(RealApiserver { process, address, ca, admin, _directory: directory })
}

/// Relative to the directory that it starts in.
fn arguments(port: u16, etcd: &str) -> Vec<String> {
    [
        &format!("--secure-port={port}"),
        &format!("--etcd-servers={etcd}"),
        "--bind-address=127.0.0.1",
        // Of a network that is nobody's: nothing is to find this server by itself.
        "--advertise-address=192.0.2.1",
        "--endpoint-reconciler-type=none",
        "--etcd-cafile=etcd-ca.pem",
        "--etcd-certfile=etcd-client.pem",
        "--etcd-keyfile=etcd-client.key",
        "--client-ca-file=ca.pem",
        "--tls-cert-file=server.pem",
        "--tls-private-key-file=server.key",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-key-file=service-account.pem",
        "--service-account-signing-key-file=service-account.key",
        "--service-cluster-ip-range=10.96.0.0/16",
    ]
    .map(|argument: &str| argument.to_owned())
    .to_vec()
}

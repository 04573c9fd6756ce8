//! The real etcd: members on loopback with TLS and client authentication everywhere, their data in
//! a directory that goes with them. One is enough for most; of three, killing two shows what a
//! lost majority looks like.

use std::path::{Path, PathBuf};

use super::process::{self, Process, client, free_port};
use crate::pki::{Ca, Leaf};

/// A port may be taken between choosing and binding it; new ones are tried this often.
const PORT_TRIES: usize = 5;

/// What the members are started with.
#[derive(Clone, Copy, Debug)]
pub struct RealEtcdOptions {
    /// How many.
    pub members: usize,
    /// Bytes of the database at which it takes no more writes; etcd's own default is 2 GiB.
    pub quota: Option<u64>,
}

impl Default for RealEtcdOptions {
    fn default() -> Self {
        Self { members: 1, quota: None }
    }
}

/// A running etcd; dropping it kills its members.
#[derive(Debug)]
pub struct RealEtcd {
    members: Vec<Member>,
    ca: Ca,
    client: Leaf,
    directory: tempfile::TempDir,
    program: PathBuf,
}

#[derive(Debug)]
struct Member {
    name: String,
    endpoint: String,
    arguments: Vec<String>,
    process: Option<Process>,
}

/// Where the `etcd` program is, or what to do to have one.
pub fn program() -> Result<PathBuf, String> {
    process::find("etcd", "etcd")
}

impl RealEtcd {
    /// One member.
    pub async fn start() -> Result<RealEtcd, String> {
        RealEtcd::start_with(RealEtcdOptions::default()).await
    }

    /// The same, as told.
    pub async fn start_with(options: RealEtcdOptions) -> Result<RealEtcd, String> {
        let program = program()?;
        let mut last = String::new();
        for _ in 0..PORT_TRIES {
            match try_start(&program, options).await {
                Ok(etcd) => return Ok(etcd),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// `https://127.0.0.1:PORT` of the first member.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.endpoint_of(0)
    }

    /// The same of any member.
    #[must_use]
    pub fn endpoint_of(&self, member: usize) -> &str {
        &self.members[member].endpoint
    }

    /// The root of what the members serve, and of their clients' certificates.
    #[must_use]
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// A client's certificate that the members take.
    #[must_use]
    pub fn client(&self) -> &Leaf {
        &self.client
    }

    /// The process of a member.
    ///
    /// # Panics
    ///
    /// If it was killed.
    #[must_use]
    pub fn process(&self, member: usize) -> &Process {
        self.members[member].process.as_ref().expect("a member that runs")
    }

    /// Ends a member at once; its data stay.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process = None;
    }

    /// Starts a member that was killed, and waits until it is healthy; without a majority of
    /// others it would not be.
    pub async fn restart(&mut self, member: usize) -> Result<(), String> {
        self.launch(member)?;
        self.ready(member).await
    }

    fn launch(&mut self, member: usize) -> Result<(), String> {
        let directory = self.directory.path();
        let member = &mut self.members[member];
        let process = Process::start(&self.program, &member.arguments, directory, &member.name)?;
        member.process = Some(process);
        Ok(())
    }

    async fn ready(&mut self, member: usize) -> Result<(), String> {
        let client = client(self.ca.pem(), Some(&self.client))?;
        let member = &mut self.members[member];
        let url = format!("{}/health", member.endpoint);
        let process = member.process.as_mut().ok_or("a member that was not started")?;
        process.ready(&url, &client).await
    }
}

async fn try_start(program: &Path, options: RealEtcdOptions) -> Result<RealEtcd, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let ca = Ca::new("rig of etcd");
    let client = ca.issue_client("rig", None);
    process::keep(directory.path(), "server", &ca.issue(&["127.0.0.1", "localhost"]))?;
    process::keep(directory.path(), "client", &client)?;
    std::fs::write(directory.path().join("ca.pem"), ca.pem()).map_err(|e| e.to_string())?;
    let members = members(options)?;
    let program = program.to_owned();
    let mut etcd = RealEtcd { members, ca, client, directory, program };
    for member in 0..options.members {
        etcd.launch(member)?;
    }
    for member in 0..options.members {
        etcd.ready(member).await?;
    }
    Ok(etcd)
}

fn members(options: RealEtcdOptions) -> Result<Vec<Member>, String> {
    let mut places = Vec::new();
    for index in 0..options.members {
        let url = |port: u16| format!("https://127.0.0.1:{port}");
        places.push((format!("etcd-{index}"), url(free_port()?), url(free_port()?)));
    }
    let cluster: Vec<String> =
        places.iter().map(|(name, _, peer)| format!("{name}={peer}")).collect();
    let cluster = cluster.join(",");
    let member = |(name, endpoint, peer): (String, String, String)| {
        let mut arguments = arguments(&name, &endpoint, &peer);
        arguments.push(format!("--initial-cluster={cluster}"));
        arguments.extend(options.quota.map(|bytes| format!("--quota-backend-bytes={bytes}")));
        Member { name, endpoint, arguments, process: None }
    };
    Ok(places.into_iter().map(member).collect())
}

/// Relative to the directory that all of them start in.
fn arguments(name: &str, endpoint: &str, peer: &str) -> Vec<String> {
    [
        &format!("--name={name}"),
        &format!("--data-dir={name}.data"),
        &format!("--listen-client-urls={endpoint}"),
        &format!("--advertise-client-urls={endpoint}"),
        &format!("--listen-peer-urls={peer}"),
        &format!("--initial-advertise-peer-urls={peer}"),
        "--cert-file=server.pem",
        "--key-file=server.key",
        "--trusted-ca-file=ca.pem",
        "--client-cert-auth",
        "--peer-cert-file=server.pem",
        "--peer-key-file=server.key",
        "--peer-trusted-ca-file=ca.pem",
        "--peer-client-cert-auth",
        // The directory is gone with the test: what must survive is a killed process only.
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    .map(|argument: &str| argument.to_owned())
    .to_vec()
}

//! Two nodes before one real Vault: the stage's, where the agent runs, and one of Vault Agent's.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rig::aws::LaunchSpec;
use rig::aws::imds::Imds;
use rig::peer::vault;
use rig::proxy::Proxy;
use rig::setup::SetupOptions;
use rig::stage::{Running, Stage, StageOptions, Which};
use serde_json::json;
use tempfile::TempDir;

use super::audit::Audit;
use crate::first_cert::{CONFIG, replace_node};

/// Where the agent publishes it; all files of a generation appear with `current`.
pub(crate) const PUBLISHED: &str =
    "/var/lib/nodeagent-certs/kubelet/kubelet-client/current/pair.pem";

/// The log-in role and the policy of Vault Agent: those of a worker, but for `pki/issue`, which is
/// how `pkiCert` asks.
const ROLE: &str = "vault-agent";

/// What is asked of Vault Agent.
pub(crate) struct Wish {
    /// The life of the certificate.
    pub(crate) ttl: String,
    /// What it runs after each change of the file.
    pub(crate) command: &'static str,
    /// Whether its configuration has the client nonce, or leaves it to make one up.
    pub(crate) nonce: Nonce,
}

/// Where the client nonce of Vault Agent comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nonce {
    /// Its configuration, where somebody has to bring it to.
    Configured,
    /// Its memory, as where the configuration says nothing.
    MadeUp,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish { ttl: "24h".into(), command: "exit 0", nonce: Nonce::Configured }
    }
}

/// A node with Vault Agent.
pub(crate) struct Node {
    directory: TempDir,
    imds: Imds,
    /// Its instance.
    pub(crate) instance: String,
    nonce: String,
}

/// Both.
pub(crate) struct Pair {
    /// The agent's node, and Vault.
    pub(crate) stage: Stage,
    /// The program `vault`.
    pub(crate) vault: PathBuf,
    /// Vault Agent's node.
    pub(crate) node: Node,
    /// What lies between Vault Agent and Vault.
    pub(crate) proxy: Proxy,
    /// What Vault was asked, once that is written down.
    pub(crate) audit: Audit,
}

impl Pair {
    /// Sets the stage, and a second node beside it.
    pub(crate) async fn set(program: PathBuf, setup: SetupOptions) -> Result<Pair, String> {
        let options = StageOptions { vault: Which::Real, setup, ..StageOptions::worker() };
        let stage = Stage::set(program, options.with(CONFIG)).await?;
        let handle = stage.vault.handle();
        let address = handle.address.trim_start_matches("https://").parse();
        let address = address.map_err(|error| format!("{}: {error}", handle.address))?;
        let proxy = Proxy::start(address).map_err(|error| error.to_string())?;
        allow(&stage).await?;
        let node = Node::launch(&stage)?;
        let audit = Audit::new(stage.path("/audit.log"));
        Ok(Pair { stage, vault: vault::program()?, node, proxy, audit })
    }

    /// Puts a fresh node into the place of each.
    pub(crate) fn replace(&mut self, config: &str, wish: Wish) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        replace_node(&mut self.stage).map_err(text)?;
        self.stage
            .write("/etc/nodeagent/config.d/20-more.toml", config.as_bytes())
            .map_err(text)?;
        self.node = Node::launch(&self.stage)?;
        self.wish(wish)
    }

    /// Writes the configuration of Vault Agent, for its next start.
    pub(crate) fn wish(&self, wish: Wish) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let directory = self.node.directory.path();
        let ca = directory.join("ca.pem");
        std::fs::write(&ca, &self.stage.vault.handle().ca_pem).map_err(text)?;
        let nonce = match wish.nonce {
            Nonce::Configured => format!("nonce = \"{}\"", self.node.nonce),
            Nonce::MadeUp => String::new(),
        };
        let (instance, Wish { ttl, command, .. }) = (&self.node.instance, wish);
        let name = format!("\"common_name=system:node:{instance}\" \"ttl={ttl}\"");
        let config = format!(
            "vault {{\n  address = \"https://{}\"\n  ca_cert = \"{}\"\n}}\n\
             auto_auth {{\n  method \"aws\" {{\n    mount_path = \"auth/aws\"\n    config = {{\n\
             type = \"ec2\"\nrole = \"{ROLE}\"\n{nonce}\n}}\n  }}\n\
             sink \"file\" {{\n    config = {{\n path = \"{}\"\n }}\n  }}\n}}\n\
             template {{\n  contents = <<EOT\n\
             {{{{- with pkiCert \"pki/issue/kubelet-client\" {name} -}}}}\n\
             {{{{ .Cert }}}}{{{{ .Key }}}}{{{{ .CA }}}}\n{{{{- end -}}}}\nEOT\n  \
             destination = \"{}\"\n  perms = \"0640\"\n  exec {{\n    \
             command = [\"/bin/sh\", \"-c\", \"echo run >> {}; {command}\"]\n    \
             timeout = \"30s\"\n  }}\n}}\n",
            self.proxy.addr(),
            ca.display(),
            directory.join("token").display(),
            self.their_file().display(),
            directory.join("commands").display(),
        );
        std::fs::write(directory.join("agent.hcl"), config).map_err(text)
    }

    /// Where the agent's pair is.
    pub(crate) fn our_file(&self) -> PathBuf {
        self.stage.path(PUBLISHED)
    }

    /// Where Vault Agent's is: one file, which it renames into place.
    pub(crate) fn their_file(&self) -> PathBuf {
        self.node.directory.path().join("pair.pem")
    }

    /// How often Vault Agent has run its command.
    pub(crate) fn their_commands(&self) -> usize {
        let path = self.node.directory.path().join("commands");
        std::fs::read_to_string(path).unwrap_or_default().lines().count()
    }

    /// Starts the agent.
    pub(crate) fn run_ours(&self) -> Result<Running, String> {
        self.stage.run().map_err(|error| error.to_string())
    }

    /// Starts Vault Agent.
    pub(crate) fn run_theirs(&self) -> Result<Running, String> {
        let text = |error: std::io::Error| error.to_string();
        let directory = self.node.directory.path();
        let log = File::options().create(true).append(true).open(directory.join("agent.log"));
        let log = log.map_err(text)?;
        let mut command = Command::new(&self.vault);
        command
            .arg("agent")
            .arg(format!("-config={}", directory.join("agent.hcl").display()))
            .env_clear()
            .env("HOME", directory)
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.node.imds.url())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(text)?)
            .stderr(log);
        command.spawn().map(Running::from).map_err(text)
    }

    /// What Vault Agent has logged.
    pub(crate) fn their_log(&self) -> String {
        let path = self.node.directory.path().join("agent.log");
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Starts both and waits for a certificate of each.
    pub(crate) async fn run_both(&self) -> Result<(Running, Running), String> {
        let agents = (self.run_ours()?, self.run_theirs()?);
        let begun = Instant::now();
        while !(self.our_file().exists() && self.their_file().exists()) {
            if begun.elapsed() > super::LIMIT {
                let (ours, theirs) = (self.stage.log(), self.their_log());
                return Err(format!("no certificates:\n{ours}\nvault agent:\n{theirs}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(agents)
    }
}

impl Node {
    fn launch(stage: &Stage) -> Result<Node, String> {
        let text = |error: std::io::Error| error.to_string();
        let instance = stage.aws.launch(LaunchSpec::profile("worker"));
        let imds = stage.aws.imds(&instance).map_err(text)?;
        let directory = tempfile::Builder::new().prefix("vault-agent").tempdir().map_err(text)?;
        let nonce = format!("{:032x}", rand::random::<u128>());
        Ok(Node { directory, imds, instance, nonce })
    }
}

/// Lets nodes with Vault Agent do what the agent's may do, by `issue` in the place of `sign`.
async fn allow(stage: &Stage) -> Result<(), String> {
    let admin = stage.admin();
    let policy = "path \"pki/issue/kubelet-client\" { capabilities = [\"create\", \"update\"] }";
    admin.must_write(&format!("sys/policies/acl/{ROLE}"), &json!({ "policy": policy })).await?;
    let worker = admin.read("auth/aws/role/worker").await?.json["data"].clone();
    let mut role = json!({ "auth_type": "ec2", "token_policies": [ROLE] });
    for field in [
        "bound_account_id",
        "bound_region",
        "bound_iam_instance_profile_arn",
        "token_bound_cidrs",
        "token_ttl",
        "token_max_ttl",
    ] {
        role[field] = worker[field].clone();
    }
    admin.must_write(&format!("auth/aws/role/{ROLE}"), &role).await.map(drop)
}

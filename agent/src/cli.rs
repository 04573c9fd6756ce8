//! The verbs. Their doc comments are `--help`.

mod bootstrap;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::agent::{self, Ending, Signals};
use crate::attest;
use crate::config::{self, Config};
use crate::duty::certs;
use crate::error::{Code, Error, Result};
use crate::gate;
use crate::host::clock::{Clock, SystemClock};
use crate::host::files::Root;
use crate::host::lock::{self, Lock};
use crate::host::notify::Notifier;
use crate::host::units::Systemd;
use crate::node::{Node, SessionCell};
use crate::status::{self, Health, text};
use crate::version;
use crate::wire::http::Limits;
use crate::wire::vault::{Vault, VaultOptions};

/// Identity, certificates and control plane of a Kubernetes node, from Vault.
#[derive(Debug, Parser)]
#[command(name = "nodeagent", disable_version_flag = true)]
pub struct Cli {
    /// Take every path below this directory.
    #[arg(long, global = true, default_value = "/", value_name = "DIRECTORY")]
    pub root: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the agent in the foreground, as systemd does.
    Run,
    /// Show how the node is. Exits with 0 if healthy, 1 if degraded, 2 if failed.
    Status {
        /// Print the whole document as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Wait until all certificates of a consumer are good, as its gate does.
    Await {
        /// The consumer's name, as in the configuration.
        consumer: String,
        /// Give up after this many seconds; without it there is no end.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Ask the running agent for a new certificate now, as after a revocation.
    Renew {
        /// The certificate's name, as `status` shows it.
        certificate: String,
    },
    /// Raise the control plane of this controller, or what of it is missing.
    Bootstrap {
        /// Only print what would be done, and why.
        #[arg(long, conflicts_with = "recover")]
        plan: bool,
        /// Rely on nothing that former runs did: after a loss.
        #[arg(long)]
        recover: bool,
    },
    /// Print every file and manifest that follows from the configuration; keys are left out.
    Render,
    /// Check the configuration and print every error in it.
    Check,
    /// Print the version and the commit that it was built from.
    Version,
}

/// Held by the one agent of a node.
const LOCK: &str = "/run/nodeagent/lock";

/// What a verb ends with: text for standard output, and the exit code.
#[derive(Debug)]
pub struct Outcome {
    /// What to print.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

impl Outcome {
    fn good(text: impl Into<String>) -> Outcome {
        Outcome { text: text.into(), code: 0 }
    }
}

/// Runs a verb.
pub async fn run(cli: &Cli) -> Result<Outcome> {
    let root = Root::new(&cli.root);
    let clock = Arc::new(SystemClock::new(&cli.root));
    match &cli.verb {
        Verb::Run => serve(&root, clock).await,
        Verb::Status { json } => show(&root, &*clock, *json),
        Verb::Await { consumer, timeout } => {
            let timeout = timeout.map(Duration::from_secs);
            gate::pass(&root, &*clock, consumer, timeout).await?;
            Ok(Outcome::good(""))
        }
        Verb::Renew { certificate } => {
            renew(&root, &config::load(&root, clock.now())?, certificate)
        }
        Verb::Check => {
            let config = config::load(&root, clock.now())?;
            if !config.warnings.is_empty() {
                return Err(config::as_error(config.warnings));
            }
            Ok(Outcome::good(format!(
                "the configuration is good: {} certificates for {} consumers\n",
                config.certificates.len(),
                config.consumers.len()
            )))
        }
        Verb::Bootstrap { plan, recover } => {
            let node = build(&root, &clock)?;
            let wanted = match (plan, recover) {
                (true, _) => bootstrap::Wanted::Plan,
                (false, true) => bootstrap::Wanted::Recovery,
                (false, false) => bootstrap::Wanted::Raise,
            };
            bootstrap::run(&node, wanted).await.map(Outcome::good)
        }
        Verb::Render => bootstrap::render(&build(&root, &clock)?).map(Outcome::good),
        Verb::Version => Ok(Outcome::good(version::line(version::commit()))),
    }
}

/// Runs the agent until it is stopped; on SIGHUP with the configuration read again. One that is
/// bad then leaves the old one in force.
async fn serve(root: &Root, clock: Arc<SystemClock>) -> Result<Outcome> {
    let notifier = Notifier::from_environment();
    let mut signals = Signals::new()?;
    let mut node = Arc::new(build(root, &clock)?);
    agent::make_directories(root)?;
    let _held = Lock::acquire(&root.path(LOCK.as_ref()))?;
    tracing::info!(role = ?node.config.role, vault = %node.config.vault.address, "started");
    while agent::run(node.clone(), &notifier, &mut signals).await? == Ending::Reload {
        match build(root, &clock) {
            Ok(fresh) => node = Arc::new(fresh),
            Err(error) => tracing::warn!("the old configuration stays: {error:#}"),
        }
    }
    Ok(Outcome::good(""))
}

/// Builds the node: reads the configuration, connects nothing.
fn build(root: &Root, clock: &Arc<SystemClock>) -> Result<Node> {
    let config = config::load(root, clock.now())?;
    let limits = Limits { total: config.vault.timeout, ..Limits::default() };
    let stamp = clock.clone();
    let vault = Vault::new(VaultOptions {
        address: config.vault.address.clone(),
        ca_pem: config.vault.ca.clone(),
        namespace: config.vault.namespace.clone(),
        limits,
        stamp: Arc::new(move || (stamp.now(), stamp.monotonic())),
    })?;
    let attestor = attest::attestor(attest::Options {
        provider: config.identity.provider,
        root: root.clone(),
        mount: config.identity.mount.clone(),
        role: config.identity.role.clone(),
        imds: config.identity.imds.clone(),
        import_nonce: config.identity.import_nonce.clone(),
    })?;
    let units = Arc::new(Systemd::new(config.systemd_bus.clone()));
    let clock: Arc<dyn Clock> = clock.clone();
    let seed = crate::backoff::hash(&format!("{}{:?}", clock.now(), std::process::id()));
    let session = SessionCell::default();
    Ok(Node { config, root: root.clone(), clock, units, vault, attestor, session, seed })
}

/// Leaves the request and wakes the agent. One that is not running finds it at its start.
fn renew(root: &Root, config: &Config, name: &str) -> Result<Outcome> {
    if !config.certificates.iter().any(|spec| spec.name == name) {
        let known: Vec<_> = config.certificates.iter().map(|spec| spec.name.as_str()).collect();
        return Err(Error::new(Code::Config, format!("`{name}` is no certificate of this node"))
            .advise(format!("name one of: {}", known.join(", "))));
    }
    certs::request_renewal(root, name)?;
    let text = match lock::wake_holder(&root.path(LOCK.as_ref())) {
        true => "the agent was told; `nodeagent status` shows the new certificate in a moment\n",
        false => "the request is left for the agent; it looks every 30 s, or at its start\n",
    };
    Ok(Outcome::good(text))
}

fn show(root: &Root, clock: &dyn Clock, json: bool) -> Result<Outcome> {
    let status = status::load(root, clock.now())?;
    let code = match status.health {
        Health::Healthy => 0,
        Health::Degraded => 1,
        Health::Failed => 2,
    };
    let text = match json {
        true => {
            serde_json::to_string_pretty(&status)
                .map_err(|error| Error::new(Code::Bug, error.to_string()))?
                + "\n"
        }
        false => text::screen(&status, clock.now()),
    };
    Ok(Outcome { text, code })
}

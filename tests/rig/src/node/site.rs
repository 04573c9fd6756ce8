//! What a site has around its nodes: AWS (the model), the real Vault with the shipped data, and a
//! proxy before it, so that it can be taken away.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use crate::aws::Aws;
use crate::aws::imds::Imds;
use crate::clock::ModelClock;
use crate::machine::Machine;
use crate::peer::vault::RealVault;
use crate::proxy::Proxy;
use crate::setup::{self, Configured, SetupOptions};

/// The PKI mounts by the names that the agent's configuration has for them.
const AUTHORITIES: [(&str, &str); 3] =
    [("cluster", "pki"), ("etcd", "pki-etcd"), ("front-proxy", "pki-front-proxy")];

/// A site; its fields drop in this order.
#[derive(Debug)]
pub struct Site {
    /// What lies between the agents and Vault.
    pub proxy: Proxy,
    /// Vault.
    pub vault: RealVault,
    /// AWS.
    pub aws: Aws,
    /// The authorities that Vault signs with.
    pub configured: Configured,
    mount: String,
}

impl Site {
    /// Starts everything at an address of the host that the machines reach.
    pub(crate) async fn start(host: Ipv4Addr, options: SetupOptions) -> Result<Site, String> {
        let aws = Aws::start(ModelClock::real()).map_err(text)?;
        let vault = RealVault::start_at(host.into()).await?;
        let setup = SetupOptions {
            ec2_url: aws.ec2_url(),
            aws_signing_cert_pem: aws.signing_certificate_pem(),
            ..options
        };
        let configured = setup::configure(&vault.handle(), &setup).await?;
        let target = vault.address().trim_start_matches("https://");
        let target: SocketAddr = target.parse().map_err(|error| format!("{target}: {error}"))?;
        let proxy = Proxy::start_at((host, 0).into(), target).map_err(text)?;
        Ok(Site { proxy, vault, aws, configured, mount: setup.auth_mount })
    }

    /// What the site tells each node: what it is, where Vault is, what it trusts.
    pub(crate) fn configure(
        &self,
        machine: &Machine,
        role: &str,
        imds: &Imds,
    ) -> Result<(), String> {
        write(machine, "/etc/nodeagent/vault-ca.pem", self.vault.ca_pem())?;
        let mut config = format!(
            "[node]\nrole = \"{role}\"\ncluster = \"rig\"\nkubernetes = \"1.36\"\n\
             [vault]\naddress = \"https://{}\"\nca = \"/etc/nodeagent/vault-ca.pem\"\n\
             [identity]\nmount = \"{}\"\nimds = \"{}\"\n",
            self.proxy.addr(),
            self.mount,
            imds.url(),
        );
        for (name, mount) in AUTHORITIES {
            let path = format!("/etc/nodeagent/{name}-ca.pem");
            write(machine, &path, &self.configured.roots[mount])?;
            config.push_str(&format!("[pki.{name}]\nmount = \"{mount}\"\nca = \"{path}\"\n"));
        }
        write(machine, "/etc/nodeagent/config.d/10-rig.toml", &config)
    }
}

/// Writes a file that everybody may read.
pub(crate) fn write(machine: &Machine, path: &str, content: &str) -> Result<(), String> {
    let written = machine.write(path, content.as_bytes(), 0o644);
    written.map_err(|error| error.to_string())
}

fn text(error: io::Error) -> String {
    error.to_string()
}

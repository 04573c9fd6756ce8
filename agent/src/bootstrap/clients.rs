//! The clients of a run: etcd with the agent's own certificate, the API with none or with the
//! super-user's. They are made when they are needed, of what is published then.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;

use crate::config::plane::{self, Component, Member};
use crate::config::{CertSpec, Config};
use crate::duty::certs;
use crate::duty::certs::publish::{self, Published};
use crate::error::{Code, Context, Error, Result};
use crate::node::Node;
use crate::render;
use crate::wire::etcd::{Etcd, EtcdHealth, EtcdOptions};
use crate::wire::http::{ClientIdentity, Limits};
use crate::wire::kube::{Kube, KubeOptions};

/// Where the member of etcd of this node answers.
pub const ETCD: &str = "127.0.0.1:2379";

/// The agent's certificate for etcd.
pub const ETCD_CLIENT: &str = "etcd-client";

/// A list of objects has to fit into this.
const BODY: usize = 16 << 20;

/// Where a component of this node answers.
pub fn local(component: Component) -> String {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(component)).to_string()
}

/// The port of a component; a temporary controller leaves it to its successor.
pub fn port(component: Component) -> u16 {
    render::health_port(component, None)
}

/// etcd's member on this node.
pub fn etcd(node: &Node, limit: Duration) -> Result<Etcd> {
    etcd_at(node, format!("https://{ETCD}"), limit)
}

/// The members of etcd that do not answer at all, be it only that they are not well.
pub async fn silent_members<'a>(node: &Node, etcd: &'a plane::Etcd) -> Vec<&'a Member> {
    let asked = etcd.members.iter().map(|member| health(node, member));
    let answers = join_all(asked).await;
    let answers = etcd.members.iter().zip(answers);
    answers.filter(|(_, health)| health.is_err()).map(|(member, _)| member).collect()
}

/// Whether a member of etcd is well.
pub async fn etcd_is_healthy(node: &Node, member: &Member) -> bool {
    health(node, member).await.is_ok_and(|health| health.healthy)
}

async fn health(node: &Node, member: &Member) -> Result<EtcdHealth> {
    etcd_at(node, member.client_url(), super::facts::LOOK)?.health().await
}

fn etcd_at(node: &Node, endpoint: String, limit: Duration) -> Result<Etcd> {
    Etcd::new(EtcdOptions {
        endpoint,
        ca_pem: bundle(node, "etcd")?,
        client: Some(published(node, ETCD_CLIENT)?),
        limits: limits(limit),
    })
}

/// The API at an address, as nobody: for its health.
pub fn anonymous(node: &Node, address: &str, limit: Duration) -> Result<Kube> {
    kube(node, address, None, limit)
}

/// The API at an address, as somebody.
pub fn kube(
    node: &Node,
    address: &str,
    client: Option<ClientIdentity>,
    limit: Duration,
) -> Result<Kube> {
    Kube::new(KubeOptions {
        address: format!("https://{address}"),
        ca_pem: bundle(node, "cluster")?,
        client,
        limits: limits(limit),
    })
}

fn limits(total: Duration) -> Limits {
    Limits { connect: total.min(Duration::from_secs(5)), total, body: BODY }
}

fn bundle(node: &Node, authority: &str) -> Result<Vec<u8>> {
    let known = node.config.authorities.get(authority);
    let known = known.ok_or_else(|| {
        Error::new(Code::Config, format!("there is no [pki.{authority}]"))
            .advise("give its mount and ca")
    })?;
    node.root.read(&known.ca, certs::leaf::BUNDLE_LIMIT)
}

/// The certificates that a control plane cannot begin without: a pod whose keys are not there yet
/// is tried again by the kubelet after minutes.
pub fn needed(config: &Config) -> impl Iterator<Item = &CertSpec> {
    let consumers = Component::ALL.map(Component::name);
    config
        .certificates
        .iter()
        .filter(move |spec| consumers.contains(&spec.consumer.as_str()) || spec.name == ETCD_CLIENT)
}

/// The pair of a certificate that is published on this node.
fn published(node: &Node, name: &str) -> Result<ClientIdentity> {
    let missing = |text: String| Error::new(Code::CertificateBad, text).at(name);
    let spec = node.config.certificates.iter().find(|spec| spec.name == name);
    let spec = spec.ok_or_else(|| missing("it is not in the configuration".into()))?;
    match publish::inspect(&node.root, &certs::target(node, spec)?)? {
        Published::Sound { material, .. } => {
            Ok(ClientIdentity { cert_pem: material.cert, key_pem: material.key })
        }
        Published::Absent => Err(missing("there is none yet".into())),
        Published::Broken { reason } => Err(missing(reason)),
        Published::Foreign { what } => Err(missing(format!("{what} is in the way"))),
    }
}

/// A file of the node as text, or nothing where it is not there.
pub(crate) fn text(node: &Node, path: &Path, limit: usize) -> Result<Option<String>> {
    let Some(bytes) = node.root.read_optional(path, limit)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| Error::new(Code::Disk, "not UTF-8")).at(path.display())
}

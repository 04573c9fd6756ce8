//! What a node's programs are told: the kubelet, etcd and the control plane, as files and as
//! objects, from the configuration and the node's identity.
//!
//! Pure: nothing here reads or writes, so that a golden file holds all there is and `nodeagent
//! render` prints what would be written. Files name published certificates by their paths and
//! never hold them: client-go re-reads a path, what is embedded stays as it was.

mod assets;
mod etcd;
mod flags;
mod kubelet;
mod plane;
mod pods;
mod proxy;
mod secrets;
mod tables;
mod yaml;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::attest::Identity;
use crate::config::names::Values;
use crate::config::plane::{Cluster, Component, ControlPlane, Style};
use crate::config::{CertSpec, Config};
use crate::error::{Code, Error, Result};
use crate::secret::Secret;

pub use assets::builtin_assets;
pub use etcd::etcd;
pub use kubelet::kubelet;
pub use plane::plane;
pub use pods::{daemon_sets, manifests};
pub use proxy::kube_proxy;
pub use secrets::shared;
pub use tables::{health_port, temporary_argument};
pub use yaml::{MARK, document, is_ours};

/// Where all of it lies, but for the static pods.
pub const DIRECTORY: &str = "/etc/kubernetes/nodeagent";

/// Where the kubelet looks for static pods unless it is told otherwise.
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// The label by which pods of the control plane say which component they are.
pub const COMPONENT_LABEL: &str = "nodeagent/component";

/// The label by which they say where they are from: `static`, `temporary` or `daemon-set`.
pub const PLACE_LABEL: &str = "nodeagent/place";

/// The label of the nodes that the control plane's DaemonSets run on.
///
/// It is not `node-role.kubernetes.io/control-plane`, which a kubelet may not give to itself. So
/// any node may take this one, and gains nothing by it: these pods hold no secret, they mount
/// what their own node has.
pub const CONTROLLER_LABEL: &str = "nodeagent/controller";

/// Where certificates are published, by consumer and certificate.
const PUBLISHED: &str = "/var/lib/nodeagent-certs";

/// Where every API server of ours listens.
const API_PORT: u16 = 6443;

/// What everything is rendered from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What was told.
    pub config: &'a Config,
    /// Who the node is.
    pub identity: &'a Identity,
    /// The authorities, as they are pinned now.
    pub bundles: &'a Bundles,
    /// The text of `control_plane.audit_policy`, which the caller reads, where it is given.
    pub audit_policy: Option<&'a str>,
}

/// The pinned authorities (PEM), which become the stable copies below `trust/`.
#[derive(Clone, Debug, Default)]
pub struct Bundles {
    /// Who signs for the API server, its clients and the kubelets.
    pub cluster: String,
    /// Who signs for etcd and its clients.
    pub etcd: String,
    /// Who signs for the API server as a proxy.
    pub front_proxy: String,
}

/// A file to be, with its absolute path. `nodeagent render` also has relative ones: objects,
/// which lie in the API and in no file.
#[derive(Clone, Debug)]
pub struct File {
    /// Where.
    pub path: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// What is in it.
    pub content: Content,
}

/// What is in a file.
#[derive(Clone)]
pub enum Content {
    /// Anybody may see it.
    Open(String),
    /// Only who needs it.
    Secret(Secret),
}

/// What etcd is told of its cluster: it may only form one where there has never been one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Nobody has ever been a member.
    Forming,
    /// This member has its data, or gets them from the others.
    Formed,
}

/// Where pods of the control plane come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// From files, for good.
    Static,
    /// From files, until their successors in DaemonSets are proved. They serve health on other
    /// ports and are called `<component>-temporary`, so that both can live side by side.
    Temporary,
}

/// A static pod.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What it runs.
    pub component: Component,
    /// Its file in the directory that the kubelet watches.
    pub file: File,
}

/// What all controllers share, newest first: the first key signs or encrypts, all of them verify
/// or decrypt.
#[derive(Clone, Debug)]
pub struct SharedSecrets {
    /// The keys of service account tokens.
    pub service_account: Vec<SigningKey>,
    /// The keys of encryption at rest.
    pub encryption: Vec<EncryptionKey>,
}

/// A key that signs the tokens of service accounts.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// Its name among the keys.
    pub id: String,
    /// The key (PEM).
    pub private_pem: Secret,
    /// Its public half (PEM).
    pub public_pem: String,
}

/// A key of encryption at rest.
#[derive(Clone, Debug)]
pub struct EncryptionKey {
    /// Its name, which is stored with what it encrypts.
    pub name: String,
    /// 32 bytes in base64.
    pub secret: Secret,
}

/// All of it, as `nodeagent render` prints it. Files that hold secrets are there with a note in
/// the secret's place.
pub fn everything(input: &Input<'_>) -> Result<Vec<File>> {
    let mut files = kubelet(input)?;
    if input.config.etcd.is_some() {
        files.extend(etcd(input, Membership::Forming)?);
    }
    let Some(control_plane) = &input.config.control_plane else {
        return Ok(files);
    };
    files.extend(plane(input)?);
    files.extend(secrets::notes(control_plane));
    let place = match control_plane.style {
        Style::Static => Place::Static,
        Style::SelfHosted => Place::Temporary,
    };
    files.extend(manifests(input, place)?.into_iter().map(|manifest| manifest.file));
    let mut objects = builtin_assets(input)?;
    if control_plane.style == Style::SelfHosted {
        objects.extend(daemon_sets(input)?);
    }
    for object in &objects {
        let text = |pointer| object.pointer(pointer).and_then(|value| value.as_str());
        let kind = text("/kind").unwrap_or_default().to_lowercase();
        let name = text("/metadata/name").unwrap_or_default();
        let path = format!("objects/{kind}/{}.yaml", name.replace(':', "-"));
        files.push(File::open(path, document(object)?));
    }
    files.push(proxy::asset(input)?);
    Ok(files)
}

/// Files as a person reads them, one after the other with path and permissions.
pub fn screen(files: &[File]) -> String {
    let mut text = String::new();
    for file in files {
        let (path, mode) = (file.path.display(), file.mode);
        let content = match &file.content {
            Content::Open(content) => content.trim_end(),
            Content::Secret(_) => "(a secret)",
        };
        text.push_str(&format!("### {path} (mode {mode:04o})\n{content}\n\n"));
    }
    text
}

impl Content {
    /// The text itself, for who writes the file.
    pub fn text(&self) -> &str {
        match self {
            Content::Open(text) => text,
            Content::Secret(secret) => secret.expose(),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Open(text) => write!(f, "Open({} bytes)", text.len()),
            Content::Secret(_) => f.write_str("Secret(..)"),
        }
    }
}

impl File {
    /// A file that anybody may read.
    fn open(path: impl Into<PathBuf>, text: String) -> File {
        File { path: path.into(), mode: 0o644, content: Content::Open(text) }
    }

    /// A file in the plane directory that anybody may read.
    fn ours(name: &str, text: String) -> File {
        File::open(format!("{DIRECTORY}/{name}"), text)
    }

    /// A file in the plane directory that only root may read.
    fn secret(name: &str, text: Secret) -> File {
        let path = PathBuf::from(format!("{DIRECTORY}/{name}"));
        File { path, mode: 0o600, content: Content::Secret(text) }
    }
}

impl<'a> Input<'a> {
    fn cluster(&self) -> Result<&'a Cluster> {
        self.config.cluster_plan.as_ref().ok_or_else(|| missing("[cluster]"))
    }

    fn control_plane(&self) -> Result<&'a ControlPlane> {
        self.config.control_plane.as_ref().ok_or_else(|| missing("[control_plane]"))
    }

    /// The node's address, which peers and clients reach it by.
    fn address(&self) -> Result<IpAddr> {
        self.identity.private_ip.ok_or_else(|| {
            Error::new(Code::Config, "this node's identity has no private_ip")
                .advise("a node of a cluster needs an address in the private network")
        })
    }

    /// A certificate of the catalogue, by its name.
    fn certificate(&self, consumer: &str, name: &str) -> Result<&'a CertSpec> {
        let found = self.config.certificates.iter().find(|spec| spec.name == name);
        found.filter(|spec| spec.consumer == consumer).ok_or_else(|| {
            let text = format!("{consumer} has no certificate `{name}`");
            let advice = format!("keep the catalogue's [[certificate]] `{name}` of {consumer}");
            Error::new(Code::Config, text).advise(advice)
        })
    }

    /// The path of a published file: `cert.pem`, `key.pem` or `ca.pem`.
    fn published(&self, consumer: &str, name: &str, file: &str) -> Result<String> {
        self.certificate(consumer, name)?;
        Ok(format!("{PUBLISHED}/{consumer}/{name}/current/{file}"))
    }

    /// The common name that a certificate has on this node.
    fn common_name(&self, consumer: &str, name: &str) -> Result<String> {
        let values = Values {
            identity: self.identity,
            cluster: &self.config.cluster,
            variables: &self.config.variables,
        };
        self.certificate(consumer, name)?.common_name.fill(&values)
    }
}

fn missing(table: &str) -> Error {
    Error::new(Code::Config, format!("there is no {table} to render from"))
        .advise(format!("give {table} in a drop-in of /etc/nodeagent/config.d"))
}

/// The path of something in the plane directory.
fn in_directory(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

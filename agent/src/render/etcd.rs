//! etcd's own configuration file. A file and no flags: the unit stays the same on every node.

use serde_json::json;

use super::{DIRECTORY, File, Input, Membership, document, missing};
use crate::config::plane::Etcd;
use crate::error::{Code, Error, Result};

/// Where etcd tells its health and its metrics: on loopback without TLS, because a scraper on the
/// node has no certificate of etcd's authority. It tells no keys and no values.
const METRICS: &str = "http://127.0.0.1:2381";

/// `etcd.yaml`, for the member of this node.
pub fn etcd(input: &Input<'_>, membership: Membership) -> Result<Vec<File>> {
    let etcd = input.config.etcd.as_ref().ok_or_else(|| missing("[etcd]"))?;
    let address = input.address()?;
    let member = etcd.member_at(address).ok_or_else(|| not_a_member(etcd, address))?;
    let all: Vec<String> =
        etcd.members.iter().map(|each| format!("{}={}", each.name, each.peer_url())).collect();
    let value = json!({
        "name": member.name,
        "data-dir": etcd.data_dir,
        // The API server of this node and the agent come by loopback: no other member is asked.
        "listen-client-urls": format!("https://127.0.0.1:2379,{}", member.client_url()),
        "advertise-client-urls": member.client_url(),
        "listen-peer-urls": member.peer_url(),
        "initial-advertise-peer-urls": member.peer_url(),
        "listen-metrics-urls": METRICS,
        "initial-cluster": all.join(","),
        // Members of two clusters that were given the same addresses refuse each other by it.
        "initial-cluster-token": input.config.cluster,
        "initial-cluster-state": match membership {
            Membership::Forming => "new",
            Membership::Formed => "existing",
        },
        "client-transport-security": transport(input, "etcd-server")?,
        "peer-transport-security": transport(input, "etcd-peer")?,
        "tls-min-version": "TLS1.2",
        // On by default as a flag and off in a file: the agent speaks JSON to etcd.
        "enable-grpc-gateway": true,
        "strict-reconfig-check": true,
        // To the journal, by way of standard error.
        "logger": "zap",
        "log-outputs": ["stderr"],
    });
    Ok(vec![File::ours("etcd.yaml", document(&value)?)])
}

/// Certificates are re-read at every handshake; the authorities only at the start, so those are
/// the copy whose time of change tells whether a restart is due.
fn transport(input: &Input<'_>, certificate: &str) -> Result<serde_json::Value> {
    Ok(json!({
        "cert-file": input.published("etcd-member", certificate, "cert.pem")?,
        "key-file": input.published("etcd-member", certificate, "key.pem")?,
        "client-cert-auth": true,
        "trusted-ca-file": format!("{DIRECTORY}/trust/etcd.pem"),
    }))
}

fn not_a_member(etcd: &Etcd, address: std::net::IpAddr) -> Error {
    let members: Vec<String> =
        etcd.members.iter().map(|each| format!("{} at {}", each.name, each.address)).collect();
    let text = format!("{address}, this node's address, is of no member of etcd");
    Error::new(Code::Config, text).advise(format!(
        "[etcd] has {}; correct the member of this node, or make the node a worker",
        members.join(", ")
    ))
}

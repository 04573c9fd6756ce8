//! What a site gives the user-data module.

use rig::pki::Ca;
use serde_json::{Value, json};

use crate::play::random;

/// The least that a role needs.
pub(super) fn with_the_least(role: &str, kind: &str) -> Value {
    let mut inputs = json!({
        "role": role,
        "release": release(kind),
        "vault": { "address": "https://vault.example:8200", "ca_pem": Ca::new("vault").pem() },
        "pki": authorities(1),
        "cluster": {
            "name": "prod", "api_server": "https://api.example:6443",
            "kubernetes_version": "1.36.3",
        },
    });
    if role == "controller" {
        inputs["etcd_members"] = json!({ "controller-1": "10.0.0.11" });
    }
    inputs
}

/// Every value that there is: more than a large site would give.
pub(super) fn with_every_value(role: &str, kind: &str) -> Value {
    let mut inputs = with_the_least(role, kind);
    let extension = |name: &str| {
        let url = format!("s3://artifacts.example/{name}-v1.36.3-x86-64.raw");
        json!({ "url": url, "sha512": hash(name) })
    };
    inputs["extra_sysexts"] = json!({
        "cni": extension("cni"), "etcd": extension("etcd"), "kubernetes": extension("kubernetes"),
    });
    inputs["vault"] = json!({
        "address": "https://vault.prod.example:8200", "ca_pem": bundle("vault", 2),
        "mount": "clouds/aws", "role": "prod-node", "namespace": "platform",
    });
    inputs["pki"] = authorities(2);
    inputs["cluster"] = json!({
        "name": "prod", "api_server": "https://api.prod.example:6443",
        "pod_cidr": "172.16.0.0/13", "service_cidr": "172.24.0.0/16",
        "dns_domain": "prod.local", "kubernetes_version": "1.36.3",
    });
    inputs["labels"] = json!({
        "example.com/rack": "7", "example.com/team": "platform",
        "node.kubernetes.io/pool": "general",
    });
    inputs["taints"] = json!(["example.com/gpu=yes:NoSchedule", "example.com/new:NoExecute"]);
    inputs["extra_config"] = json!("[rotation]\nsurvive_vault_outage = \"8h\"\n");
    if role == "controller" {
        let member = |n: u8| (format!("controller-{n}"), Value::from(format!("10.0.{n}.11")));
        inputs["etcd_members"] = (1..=5).map(member).collect::<serde_json::Map<_, _>>().into();
        inputs["control_plane"] = json!({
            "style": "self-hosted", "automatic": false, "secrets_mount": "prod/kv",
            "secrets_path": "shared/plane", "image": "images.example/{component}:v1.36.3",
        });
    }
    inputs
}

fn release(kind: &str) -> Value {
    let file = match kind {
        "sysext" => "nodeagent-0.1.0-x86-64.raw",
        _ => "nodeagent-0.1.0-x86-64",
    };
    json!({
        "kind": kind, "sha512": hash(kind),
        "url": format!("s3://artifacts.example/artifacts/nodeagent/{file}"),
    })
}

fn authorities(each: usize) -> Value {
    let mounts = [("cluster", "pki"), ("etcd", "pki-etcd"), ("front-proxy", "pki-front-proxy")];
    let authorities = mounts.map(|(name, mount)| {
        (name.to_owned(), json!({ "mount": mount, "ca_pem": bundle(name, each) }))
    });
    authorities.into_iter().collect::<serde_json::Map<_, _>>().into()
}

/// So many authorities in one PEM, as while one takes the other's place.
fn bundle(name: &str, authorities: usize) -> String {
    (0..authorities).map(|n| Ca::new(&format!("{name} authority {n}")).pem().to_owned()).collect()
}

/// The same values with authorities of RSA, 4096 bits: 2 KB each, that do not pack. Nobody looks
/// into them before the agent does.
pub(super) fn with_large_authorities(role: &str, kind: &str) -> Value {
    let pem = |name: &str| {
        let lines: String =
            (0..30).map(|line| noise(&format!("{name} {line}"), 64) + "\n").collect();
        json!(format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"))
    };
    let mut inputs = with_every_value(role, kind);
    inputs["vault"]["ca_pem"] = pem("vault");
    for name in ["cluster", "etcd", "front-proxy"] {
        inputs["pki"][name]["ca_pem"] = pem(name);
    }
    inputs
}

/// Base64 that does not pack.
pub(super) fn noise(of: &str, length: usize) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut seed = seed(of);
    let mut digit = || DIGITS[random(&mut seed, DIGITS.len() as u64) as usize];
    (0..length).map(|_| char::from(digit())).collect()
}

fn hash(of: &str) -> String {
    let mut seed = seed(of);
    (0..128).map(|_| format!("{:x}", random(&mut seed, 16))).collect()
}

/// Far from that of any other text: what follows from two neighbours overlaps, and would pack.
/// FNV-1a.
fn seed(of: &str) -> u64 {
    let mix = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    of.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

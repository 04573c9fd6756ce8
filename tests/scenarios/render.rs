//! What nodes are told, compared with the files of tests/golden/render, and shown to the real
//! programs: each flag is one that they know, and they start with all of it.

mod programs;

use std::path::Path;

use jiff::Timestamp;
use nodeagent::attest::Identity;
use nodeagent::config::{Config, load};
use nodeagent::host::files::Root;
use nodeagent::render::{
    Bundles, Content, EncryptionKey, File, Input, Membership, Place, SharedSecrets, SigningKey,
};
use nodeagent::{render, secret::Secret};

/// What is the same on all nodes.
const COMMON: &str = r#"
[vault]
address = "https://vault.example:8200"
ca = "/etc/nodeagent/ca.pem"
[cluster]
api_server = "https://api.example:6443"
[pki.cluster]
mount = "pki"
ca = "/etc/nodeagent/ca.pem"
"#;

/// What controllers have beside that.
const CONTROLLER: &str = r#"
[node]
role = "controller"
cluster = "prod"
kubernetes = "1.36"
[pki.etcd]
mount = "pki-etcd"
ca = "/etc/nodeagent/ca.pem"
[pki.front-proxy]
mount = "pki-front-proxy"
ca = "/etc/nodeagent/ca.pem"
[control_plane]
image = "registry.k8s.io/{component}:v1.36.3"
"#;

const ONE_MEMBER: &str = "[etcd.members]\ncontroller-1 = \"10.0.0.11\"\n";

/// A node that was told something.
pub(super) struct Told {
    config: Config,
    identity: Identity,
    pub(super) bundles: Bundles,
    audit_policy: Option<String>,
}

impl Told {
    fn new(drop_in: &str) -> Told {
        let directory = tempfile::tempdir().expect("a directory");
        let etc = directory.path().join("etc/nodeagent");
        std::fs::create_dir_all(etc.join("config.d")).expect("a directory");
        std::fs::write(etc.join("ca.pem"), rig::pki::Ca::new("a CA").pem()).expect("a file");
        std::fs::write(etc.join("config.d/10.toml"), format!("{COMMON}{drop_in}")).expect("a file");
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("an instant");
        let config = load(&Root::new(directory.path()), now);
        let config = config.unwrap_or_else(|error| panic!("{error:#}"));
        let bundle = |of| format!("-----BEGIN CERTIFICATE-----\n{of}\n-----END CERTIFICATE-----\n");
        let bundles = Bundles {
            cluster: bundle("cluster"),
            etcd: bundle("etcd"),
            front_proxy: bundle("front-proxy"),
        };
        Told { config, identity: identity(), bundles, audit_policy: None }
    }

    pub(super) fn controller(more: &str) -> Told {
        Told::new(&format!("{CONTROLLER}{more}{ONE_MEMBER}"))
    }

    fn worker() -> Told {
        Told::new("[node]\nrole = \"worker\"\ncluster = \"prod\"\n")
    }

    pub(super) fn input(&self) -> Input<'_> {
        Input {
            config: &self.config,
            identity: &self.identity,
            bundles: &self.bundles,
            audit_policy: self.audit_policy.as_deref(),
        }
    }

    fn everything(&self) -> Vec<File> {
        render::everything(&self.input()).unwrap_or_else(|error| panic!("{error:#}"))
    }
}

fn identity() -> Identity {
    Identity {
        instance_id: "i-0a1b2c3d4e0000001".into(),
        private_ip: Some("10.0.0.11".parse().expect("an address")),
        region: "eu-central-1".into(),
        availability_zone: "eu-central-1a".into(),
        account_id: "123456789012".into(),
        image_id: "ami-0a1b2c3d4e5f60718".into(),
        instance_type: "m7g.large".into(),
    }
}

fn golden(name: &str, told: &Told) {
    let found = render::screen(&told.everything());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/render");
    let path = folder.join(name);
    if std::env::var("NODEAGENT_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &found).expect("the file is written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(found.lines()).find(|(kept, found)| kept != found);
    assert!(
        kept == found,
        "{} differs, first in {differs:?}; NODEAGENT_BLESS=1 rewrites it",
        path.display()
    );
}

#[test]
fn a_controller_alone_in_static_style() {
    golden("static-1.txt", &Told::controller(""));
}

#[test]
fn a_controller_of_three_with_all_that_can_be_told() {
    let drop_in = r#"
style = "static"
admission = ["NodeRestriction", "AlwaysPullImages"]
audit_policy = "/etc/nodeagent/audit.yaml"
[control_plane.flags.kube-apiserver]
event-ttl = "2h"
shutdown-watch-termination-grace-period = "5s"
[control_plane.without_flags]
kube-scheduler = ["profiling"]
[control_plane.feature_gates]
InPlacePodVerticalScaling = false
[kubelet]
taints = []
[kubelet.labels]
"example.com/rack" = "7"
[kubelet.config]
maxPods = 50
cgroupDriver = "cgroupfs"
[etcd]
data_dir = "/data/etcd"
[etcd.members]
controller-1 = "10.0.0.11"
controller-2 = "10.0.0.12"
controller-3 = "10.0.0.13"
"#;
    let mut told = Told::new(&format!("{CONTROLLER}{drop_in}"));
    told.audit_policy = Some("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n".into());
    golden("static-3.txt", &told);
}

#[test]
fn a_controller_in_self_hosted_style() {
    golden("self-hosted-1.txt", &Told::controller("style = \"self-hosted\"\n"));
}

#[test]
fn a_worker() {
    golden("worker.txt", &Told::worker());
}

/// The secrets of a cluster, with the keys given.
pub(super) fn secrets(private_pem: &str, public_pem: &str) -> SharedSecrets {
    let key = |name: &str, byte: &str| EncryptionKey {
        name: name.into(),
        // 32 bytes in base64, whose last letter has two bits that have to be zero.
        secret: Secret::new(format!("{}g=", byte.repeat(42))),
    };
    SharedSecrets {
        service_account: vec![SigningKey {
            id: "one".into(),
            private_pem: Secret::new(private_pem.into()),
            public_pem: public_pem.into(),
        }],
        encryption: vec![key("key-2", "A"), key("key-1", "B")],
    }
}

#[test]
fn shared_secrets_are_root_s_alone_and_are_not_told() {
    let shared = secrets("PRIVATE", "PUBLIC");
    let files = render::shared(&shared).expect("they are good");
    let named = |name: &str| files.iter().find(|file| file.path.ends_with(name)).expect("it is");
    let keys = named("encryption.yaml");
    assert_eq!(
        (keys.mode, named("signing.key").mode, named("verify.pem").mode),
        (0o600, 0o600, 0o644)
    );
    let (newest, oldest) = (keys.content.text().find("key-2"), keys.content.text().find("key-1"));
    assert!(newest < oldest, "the first key encrypts");
    assert!(keys.content.text().trim_end().ends_with("identity: {}"), "what was clear is read");
    let shown = format!("{files:?}{}", render::screen(&files));
    for secret in ["PRIVATE", "AAAA", "BBBB"] {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
    let text = serde_saphyr::from_str::<serde_json::Value>(keys.content.text());
    let value = text.expect("it is YAML");
    assert_eq!(value["resources"][0]["providers"][0]["secretbox"]["keys"][0]["name"], "key-2");
}

#[test]
fn shared_secrets_that_no_api_server_would_start_with_go_no_further() {
    let refused = |change: fn(&mut SharedSecrets)| {
        let mut shared = secrets("PRIVATE", "PUBLIC");
        shared.encryption.truncate(1);
        change(&mut shared);
        let error = render::shared(&shared).expect_err("it is refused");
        format!("{error:#}")
    };
    assert!(refused(|it| it.encryption.clear()).contains("encrypts"));
    assert!(refused(|it| it.service_account.clear()).contains("signs"));
    let short = refused(|it| it.encryption[0].secret = Secret::new("c2hvcnQ=".into()));
    assert!(short.contains("32 bytes") && !short.contains("c2hvcnQ"), "{short}");
    let name = refused(|it| it.encryption[0].name = "a\"\nkind: x".into());
    assert!(name.contains("plain name") && !name.contains('"'), "{name}");
}

#[test]
fn an_address_that_no_member_has_is_told_with_the_members() {
    let mut told = Told::controller("");
    told.identity.private_ip = Some("10.0.0.99".parse().expect("an address"));
    let error = render::etcd(&told.input(), Membership::Formed).expect_err("no member");
    assert!(format!("{error:#}").contains("10.0.0.99"), "{error:#}");
    assert!(error.advice().is_some_and(|text| text.contains("controller-1 at 10.0.0.11")));
    told.identity.private_ip = None;
    let error = render::kubelet(&told.input()).expect_err("no address");
    assert!(format!("{error:#}").contains("no private_ip"), "{error:#}");
}

#[test]
fn a_flag_that_is_not_rendered_cannot_be_left_out() {
    let drop_in = "[control_plane.without_flags]\nkube-scheduler = [\"kube-api-qps\"]\n";
    let error = render::manifests(&Told::controller(drop_in).input(), Place::Static);
    let error = error.expect_err("it is no flag of ours");
    assert!(format!("{error:#}").contains("--kube-api-qps"), "{error:#}");
}

#[test]
fn no_component_sees_the_keys_of_another() {
    let told = Told::controller("");
    for manifest in render::manifests(&told.input(), Place::Static).expect("they are rendered") {
        let Content::Open(text) = &manifest.file.content else { panic!("a manifest is no secret") };
        let own = format!("/var/lib/nodeagent-certs/{}", manifest.component);
        for line in text.lines().filter(|line| line.contains("/var/lib/nodeagent-certs")) {
            assert!(line.contains(&own), "{}: {line}", manifest.component);
        }
        let encryption =
            text.contains("encryption.yaml") || text.contains("path: /etc/kubernetes/nodeagent\n");
        let apiserver = manifest.component.name() == "kube-apiserver";
        assert_eq!(encryption, apiserver, "{}", manifest.component);
        assert!(render::is_ours(text), "the mark comes first");
        assert!(!text.contains("cluster-signing"), "no key of an authority is on a node");
    }
}

//! The configuration as it is written: TOML tables, unknown keys refused. Every option stands
//! here once with its documentation and default; units/config.d/00-defaults.toml and
//! docs/configuration.md are generated from these tables, and the defaults in force are the very
//! texts that they show.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One option, for the generated texts.
#[derive(Debug)]
pub struct OptionDoc {
    /// The table it stands in, as in TOML: `vault`, `pki.NAME`, `certificate` (an array).
    pub table: &'static str,
    /// Its key.
    pub key: &'static str,
    /// The default as TOML text; empty where there is none.
    pub default: &'static str,
    /// What it says, a sentence a line.
    pub doc: &'static [&'static str],
}

macro_rules! tables {
    ($($(#[doc = $table_doc:literal])+ $table:ident = $path:literal {
        $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:literal;)*
    })+) => {
        $($(#[doc = $table_doc])+
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $table { $($(#[doc = $doc])+ pub $key: Option<$type>,)* })+

        /// Every option there is, in the order of the tables.
        pub const OPTIONS: &[OptionDoc] = &[$($(OptionDoc {
            table: $path, key: stringify!($key), default: $default, doc: &[$($doc),+],
        },)*)+];

        /// Every table with what it is for.
        pub const TABLES: &[(&str, &[&str])] = &[$(($path, &[$($table_doc),+])),+];
    };
}

tables! {
    /// What this node is.
    NodeTable = "node" {
        /// `worker`, `controller`, or `bare`: which built-in catalogue of certificates it has.
        /// `bare` has none.
        role: String = "";
        /// The cluster's name: `{{cluster}}` in templates.
        cluster: String = "\"kubernetes\"";
        /// The version of Kubernetes on this node, like `1.36`.
        /// From 1.36 on client certificates are re-read without a restart; where the version is
        /// not told, the consumer of a client certificate is restarted.
        kubernetes: String = "";
    }
    /// Where Vault is.
    VaultTable = "vault" {
        /// Its URL. Plain `http` is taken only for a loopback address.
        address: String = "";
        /// The file with the certificate authority of its TLS certificate (PEM). It is pinned:
        /// the system's own authorities are not trusted.
        ca: String = "";
        /// The namespace, for Vault Enterprise.
        namespace: String = "";
        /// The longest one call may take. Vault waits up to 90 s for AWS before it answers.
        timeout: String = "\"95s\"";
        /// Within this a worker that boots with good certificates logs in, at an instant of its
        /// own: a fleet that boots together does not log in together. One whose certificates are
        /// due or missing, and a controller, log in at once. `1s` is as good as none.
        splay: String = "\"20m\"";
    }
    /// How this node proves who it is.
    IdentityTable = "identity" {
        /// The cloud whose proof is used: `aws`.
        provider: String = "\"aws\"";
        /// Where the auth method is mounted in Vault: `aws`, or `aws-ec2` in older set-ups.
        mount: String = "\"aws\"";
        /// The role to log in with. The node's role where it is not given.
        role: String = "";
        /// A file with the client nonce that another agent left on this node, taken over at the
        /// first start. Vault knows one nonce an instance: without it the log-in is refused.
        import_nonce: String = "";
        /// The instance metadata service.
        imds: String = "\"http://169.254.169.254\"";
    }
    /// When certificates are renewed.
    RotationTable = "rotation" {
        /// For how long Vault may be away, at any moment, without a certificate ending.
        /// The renewal point is worked out from it: 11 h of a 24 h certificate mean a renewal
        /// every 12 h and an hour to spare.
        survive_vault_outage: String = "\"11h\"";
        /// How many certificates one entry may have issued in an hour. It survives a reboot.
        issues_per_hour: u32 = "6";
    }
    /// How the local clock is judged.
    ClockTable = "clock" {
        /// How far it may be from Vault's before nothing is judged by it alone any more.
        /// Vault dates certificates back by 30 s, so a clock later by more cannot use them.
        max_skew: String = "\"30s\"";
    }
    /// How systemd is reached.
    SystemdTable = "systemd" {
        /// `system` for the system bus. A `unix:path=` address is spoken to without a bus, which
        /// the model of systemd in the tests is; systemd's own private socket is not for this.
        bus: String = "\"system\"";
    }
    /// A certificate authority: `[pki.cluster]`, `[pki.etcd]`, `[pki.front-proxy]` are the ones
    /// of the catalogue.
    PkiTable = "pki.NAME" {
        /// The PKI mount in Vault.
        mount: String = "";
        /// The file with the pinned authorities (PEM, one or more). Put a new one beside the old
        /// one before the issuer in Vault is changed.
        ca: String = "";
    }
    /// A certificate of this site. With the name of one of the catalogue it changes that one.
    CertificateTable = "certificate" {
        /// Its name.
        name: String = "";
        /// The consumer it belongs to.
        consumer: String = "";
        /// The authority: the NAME of a `[pki.NAME]`.
        pki: String = "";
        /// The PKI role.
        role: String = "";
        /// The common name, a template like all names here: `system:node:{{instance_id}}`.
        common_name: String = "";
        /// The organisations that the PKI role puts into the subject.
        organizations: Vec<String> = "[]";
        /// DNS names.
        dns: Vec<String> = "[]";
        /// IP addresses.
        ips: Vec<String> = "[]";
        /// URIs.
        uris: Vec<String> = "[]";
        /// `server`, `client` or `both`.
        usage: String = "";
        /// The life to ask for.
        ttl: String = "\"24h\"";
    }
    /// A program that uses certificates. With the name of one of the catalogue it changes that.
    ConsumerTable = "consumer" {
        /// Its name: the name of its directory and of its gate.
        name: String = "";
        /// Its systemd unit. A static pod has none.
        unit: String = "";
        /// The group that may read its files, by name or number.
        group: String = "\"root\"";
        /// Where it serves its certificate, `address:port`.
        probe: String = "";
        /// What follows a commit: `nothing`, `reload`, `restart`, or `probe`, which restarts only
        /// where the old certificate is still served.
        act: String = "\"probe\"";
        /// The longest a restart or reload may take.
        limit: String = "\"90s\"";
    }
    /// The cluster around the node. With this table the agent also writes what the kubelet and, on
    /// a controller, etcd and the control plane start with. Without it the agent keeps certificates
    /// and nothing else, and the three tables below are refused.
    ClusterTable = "cluster" {
        /// Where clients and workers reach the API: an `https` URL without a path. Its host becomes
        /// `{{api_server}}` in templates, so that the API server's certificate covers it.
        api_server: String = "";
        /// The range that pods get addresses from, a /24 for each node. The default is the one that
        /// most network plugins come with.
        pod_cidr: String = "\"10.244.0.0/16\"";
        /// The range that services get addresses from. Its first address is the API's own and
        /// becomes `{{service_ip}}`, its tenth is DNS.
        service_cidr: String = "\"10.96.0.0/16\"";
        /// The DNS domain of services: `{{dns_domain}}` in templates. Programs exist that know no
        /// other than the default.
        dns_domain: String = "\"cluster.local\"";
    }
    /// What the kubelet is told beyond what follows from the rest.
    KubeletTable = "kubelet" {
        /// Labels that the node registers with, `"example.com/rack" = "7"`. Of Kubernetes' own
        /// labels NodeRestriction lets a kubelet set only those of `node.kubernetes.io` and
        /// `kubelet.kubernetes.io`, and the host's name, architecture, system, type, region, zone.
        labels: BTreeMap<String, String> = "{}";
        /// Taints that the node registers with, `key=value:Effect` or `key:Effect`. The default is
        /// a controller's, so that only the control plane runs there; a worker has none.
        taints: Vec<String> = "[\"node-role.kubernetes.io/control-plane:NoSchedule\"]";
        /// Laid over the KubeletConfiguration, key by key: `[kubelet.config.evictionHard]`.
        config: toml::Table = "{}";
    }
    /// The etcd cluster. Needed on a controller with `[cluster]`, refused elsewhere.
    EtcdTable = "etcd" {
        /// All members and their addresses, `controller-1 = "10.0.0.11"`: one, three or five. The
        /// list is the same on all controllers.
        members: BTreeMap<String, String> = "{}";
        /// Where this node's member keeps its data. The default is etcd's place on Flatcar; another
        /// one has to be named in `ReadWritePaths=` of a drop-in of `etcd-member.service`.
        data_dir: String = "\"/var/lib/etcd\"";
    }
    /// How the control plane is run. Needed on a controller with `[cluster]`, refused elsewhere.
    ControlPlaneTable = "control_plane" {
        /// `static`, in static pods on each controller; or `self-hosted`, in DaemonSets that
        /// temporary static pods raise. After a reboot static pods come back by themselves.
        style: String = "\"static\"";
        /// Whether the agent raises and recovers the control plane by itself. Where it is false,
        /// only `nodeagent bootstrap` does.
        automatic: bool = "true";
        /// The image of a component, `{component}` being its name:
        /// `registry.k8s.io/{component}:v1.36.3`. No default, because it says which version runs.
        image: String = "";
        /// The KV v2 mount in Vault with what all controllers share.
        secrets_mount: String = "\"kv-control-plane\"";
        /// Where below that mount. The cluster's name where it is not given.
        secrets_path: String = "";
        /// A directory of manifests that the API is given once it is up.
        assets: String = "";
        /// The directory that the kubelet takes static pods from. The default is kubeadm's too; one
        /// outside of `/etc/kubernetes` has to be named in `ReadWritePaths=` of a drop-in of
        /// `nodeagent.service`.
        manifests: String = "\"/etc/kubernetes/manifests\"";
        /// Flags laid over the rendered ones, without dashes:
        /// `[control_plane.flags.kube-apiserver]`, `event-ttl = "2h"`.
        flags: BTreeMap<String, BTreeMap<String, String>> = "{}";
        /// Rendered flags to leave out: `kube-scheduler = ["profiling"]`.
        without_flags: BTreeMap<String, Vec<String>> = "{}";
        /// Feature gates of all components and of a controller's kubelet. A worker's are written
        /// into `[kubelet.config.featureGates]`.
        feature_gates: BTreeMap<String, bool> = "{}";
        /// Admission plugins beside those that are on by default. NodeRestriction may not be left
        /// out: without it a node that was broken into could take on another's labels and pods.
        admission: Vec<String> = "[\"NodeRestriction\"]";
        /// An audit policy that takes the place of the built-in one.
        audit_policy: String = "";
        /// The lease of the lock that lets one controller act at a time: a holder that died keeps
        /// the others waiting this long. 15 s outlast a leader election of etcd several times.
        lock_lease: String = "\"15s\"";
        /// For how long the local API may be away before the agent steps in. 20 s are more than a
        /// restart of a healthy API server takes.
        dead_after: String = "\"20s\"";
    }
}

/// The whole of it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// `[node]`
    pub node: NodeTable,
    /// `[vault]`
    pub vault: VaultTable,
    /// `[identity]`
    pub identity: IdentityTable,
    /// `[rotation]`
    pub rotation: RotationTable,
    /// `[clock]`
    pub clock: ClockTable,
    /// `[systemd]`
    pub systemd: SystemdTable,
    /// `[variables]`: texts for templates.
    pub variables: BTreeMap<String, String>,
    /// `[pki.NAME]`
    pub pki: BTreeMap<String, PkiTable>,
    /// `[[certificate]]`
    pub certificate: Vec<CertificateTable>,
    /// `[[consumer]]`
    pub consumer: Vec<ConsumerTable>,
    /// `[cluster]`
    pub cluster: Option<ClusterTable>,
    /// `[kubelet]`
    pub kubelet: Option<KubeletTable>,
    /// `[etcd]`
    pub etcd: Option<EtcdTable>,
    /// `[control_plane]`
    pub control_plane: Option<ControlPlaneTable>,
}

/// The default of an option, as TOML text; empty where there is none.
pub fn default_of(table: &str, key: &str) -> &'static str {
    OPTIONS
        .iter()
        .find(|option| option.table == table && option.key == key)
        .map_or("", |option| option.default)
}

//! One row a fault of the tables about the cluster, and what a good configuration becomes.

use std::time::Duration;

use super::super::tests::{Site, faults};
use crate::config::plane::{Component, Style};
use crate::config::{Act, Config};

const HEAD: &str = r#"[node]
role = "controller"
cluster = "prod"
[vault]
address = "https://vault.example:8200"
ca = "/etc/nodeagent/ca.pem"
[pki.cluster]
mount = "pki"
ca = "/etc/nodeagent/ca.pem"
[pki.etcd]
mount = "pki-etcd"
ca = "/etc/nodeagent/ca.pem"
[pki.front-proxy]
mount = "pki-front-proxy"
ca = "/etc/nodeagent/ca.pem"
"#;

/// Lines 16 to 22.
const PLANE: &str = r#"[cluster]
api_server = "https://api.example:6443"
[etcd]
members = { c1 = "10.0.0.1", c2 = "10.0.0.2", c3 = "10.0.0.3" }
[control_plane]
image = "registry.example/{component}:v1.36.3"
"#;

fn good() -> String {
    format!("{HEAD}{PLANE}")
}

fn loaded(config: &str) -> Config {
    Site::new(config).load().unwrap_or_else(|error| panic!("{error:#}\nfor\n{config}"))
}

fn texts(config: &Config, name: &str) -> (Vec<String>, Vec<String>) {
    let spec = config.certificates.iter().find(|spec| spec.name == name).unwrap();
    let known = |templates: &[crate::config::Template]| {
        let known = templates.iter().filter_map(|t| t.known(&config.cluster, &config.variables));
        known.collect()
    };
    (known(&spec.dns), known(&spec.ips))
}

#[test]
fn six_lines_make_a_controller_and_the_rest_has_defaults() {
    let config = loaded(&good());
    let cluster = config.cluster_plan.as_ref().unwrap();
    assert_eq!(cluster.api_host, "api.example");
    assert_eq!(cluster.pod_cidr.to_string(), "10.244.0.0/16");
    assert_eq!(config.etcd.as_ref().unwrap().members.len(), 3);
    assert_eq!(config.etcd.as_ref().unwrap().data_dir.to_str(), Some("/var/lib/etcd"));
    let plane = config.control_plane.as_ref().unwrap();
    assert_eq!((plane.style, plane.automatic), (Style::Static, true));
    assert_eq!(plane.secrets_mount, "kv-control-plane");
    assert_eq!(plane.secrets_path, "prod");
    assert_eq!(plane.admission, ["NodeRestriction"]);
    assert_eq!(plane.lock_lease, Duration::from_secs(15));
    assert_eq!(plane.dead_after, Duration::from_secs(20));
    let taints: Vec<_> = config.kubelet.taints.iter().map(ToString::to_string).collect();
    assert_eq!(taints, ["node-role.kubernetes.io/control-plane=:NoSchedule"]);
    let (dns, ips) = texts(&config, "kube-apiserver");
    assert!(dns.contains(&"api.example".into()), "{dns:?}");
    assert!(dns.contains(&"kubernetes.default.svc.cluster.local".into()), "{dns:?}");
    assert_eq!(ips, ["127.0.0.1", "10.96.0.1"]);
}

#[test]
fn what_is_said_is_taken() {
    let config = loaded(&format!(
        "{}{}",
        good().replace("[etcd]", "pod_cidr = \"10.9.0.0/25\"\n[etcd]"),
        r#"
style = "self-hosted"
automatic = false
secrets_path = "deep/prod"
assets = "/etc/nodeagent/assets"
admission = ["NodeRestriction", "PodSecurity"]
feature_gates = { SomeGate = true }
[control_plane.flags.kube-apiserver]
event-ttl = "2h"
[control_plane.flags.kube-controller-manager]
node-cidr-mask-size = "26"
[control_plane.without_flags]
kube-scheduler = ["profiling"]
[kubelet]
labels = { "example.com/rack" = "7" }
taints = []
[kubelet.config]
maxPods = 50
evictionHard = { "memory.available" = "5%" }
"#
    ));
    let plane = config.control_plane.as_ref().unwrap();
    assert_eq!((plane.style, plane.automatic), (Style::SelfHosted, false));
    assert_eq!(plane.secrets_path, "deep/prod");
    assert_eq!(plane.flags[&Component::Apiserver]["event-ttl"], "2h");
    assert_eq!(plane.without_flags[&Component::Scheduler], ["profiling"]);
    assert!(plane.feature_gates["SomeGate"]);
    assert!(config.kubelet.taints.is_empty());
    let overlay = serde_json::json!({
        "maxPods": 50, "evictionHard": { "memory.available": "5%" },
    });
    assert_eq!(serde_json::Value::Object(config.kubelet.config), overlay);
}

#[test]
fn an_api_that_is_reached_by_an_address_is_an_address_in_its_certificate() {
    let config = loaded(&good().replace("api.example", "10.0.0.9"));
    let (dns, ips) = texts(&config, "kube-apiserver");
    assert!(!dns.contains(&"10.0.0.9".into()), "{dns:?}");
    assert!(ips.contains(&"10.0.0.9".into()), "{ips:?}");
    let config = loaded(&good().replace("api.example", "[fd00:0::9]"));
    assert!(texts(&config, "kube-apiserver").1.contains(&"fd00::9".into()));
}

#[test]
fn without_a_cluster_certificates_are_all_there_is() {
    let variables = "[variables]\napi_server = \"api.example\"\nservice_ip = \"10.96.0.1\"\n";
    let config = loaded(&format!("{HEAD}{variables}"));
    assert!(config.cluster_plan.is_none() && config.control_plane.is_none());
    let client = config.certificates.iter().find(|spec| spec.name == "etcd-client").unwrap();
    assert_eq!((client.consumer.as_str(), client.common_name.text()), ("nodeagent", "nodeagent"));
    for component in ["kube-controller-manager", "kube-scheduler"] {
        assert_eq!(config.consumer(component).unwrap().act, Act::Nothing);
        assert_eq!(loaded(&good()).consumer(component).unwrap().act, Act::Probe);
    }
    assert!(faults(HEAD).contains("`{{api_server}}` is no variable"));
}

#[test]
fn a_worker_has_a_kubelet_and_no_control_plane() {
    let worker = good().replace("\"controller\"", "\"worker\"");
    let text = faults(&worker);
    assert!(text.contains("10.toml:18: etcd: is for controllers and this is a worker"), "{text}");
    assert!(text.contains("10.toml:20: control_plane: is for controllers"), "{text}");
    let cluster = "[cluster]\napi_server = \"https://api.example\"\n";
    let config = loaded(&format!("{HEAD}{cluster}").replace("\"controller\"", "\"worker\""));
    assert_eq!(config.cluster_plan.unwrap().api_server, "https://api.example");
    assert!(config.kubelet.taints.is_empty() && config.etcd.is_none());
    let bare = format!("{HEAD}{cluster}[identity]\nrole = \"x\"\n");
    let text = faults(&bare.replace("\"controller\"", "\"bare\""));
    assert!(text.contains("10.toml:16: cluster: a bare node has no kubelet"), "{text}");
}

#[test]
fn tables_without_a_cluster_are_told() {
    let text = faults(&good().replace("[cluster]\napi_server = \"https://api.example:6443\"", ""));
    for key in ["etcd", "control_plane"] {
        assert!(text.contains(&format!("{key}: has no effect without [cluster]")), "{text}");
    }
}

/// A fault for each change of the good configuration: the text that is replaced, what with, and
/// what is told.
fn told(rows: &[(&str, &str, &str)]) {
    for (from, to, expected) in rows {
        let config = good().replace(from, to);
        assert_ne!(config, good(), "{from} is not there");
        let text = faults(&config);
        assert!(text.contains(expected), "expected {expected:?} in:\n{text}\nfor:\n{config}");
    }
}

#[test]
fn faults_of_the_cluster_name_line_finding_and_remedy() {
    let api = "api_server = \"https://api.example:6443\"";
    let with = |more: &str| format!("{api}\n{more}");
    told(&[
        (api, "", "10.toml:16: cluster.api_server: is not given; write the URL"),
        ("https://api", "http://api", "10.toml:17: cluster.api_server: `http://api"),
        (":6443", ":6443/api", "has a path"),
        ("api.example", "10.96.0.7", "10.96.0.7 is inside 10.96.0.0/16, which the services"),
        ("api.example", "10.244.0.7", "is inside 10.244.0.0/16, which the pods"),
        (
            api,
            &with("service_cidr = \"10.244.0.0/20\""),
            "10.toml:18: cluster.service_cidr: 10.244.0.0/20 overlaps the pods' 10.244.0.0/16",
        ),
        (
            api,
            &with("pod_cidr = \"10.0.0.0/8\""),
            "10.toml:16: cluster.service_cidr: 10.96.0.0/16 overlaps the pods' 10.0.0.0/8",
        ),
        (api, &with("service_cidr = \"10.96.1.0/16\""), "names an address inside its range"),
        (api, &with("service_cidr = \"10.0.0.0/30\""), "take /12 to /28"),
        (api, &with("pod_cidr = \"10.9.0.0/25\""), "10.toml:18: cluster.pod_cidr: 10.9.0.0/25"),
        (api, &with("pod_cidr = \"pods\""), "10.toml:18: cluster.pod_cidr: `pods` is no range"),
        (api, &with("dns_domain = \"a b\""), "`a b` is no DNS name"),
        (
            "[cluster]",
            "[variables]\napi_server = \"other.example\"\n[cluster]",
            "10.toml:19: cluster.api_server: the API's address, `api.example`, is covered by no",
        ),
        (
            "[cluster]",
            "[variables]\nservice_ip = \"10.96.0.2\"\n[cluster]",
            "cluster.service_cidr: the API's own service, `10.96.0.1`, is covered by no",
        ),
        (
            "[cluster]",
            "[[certificate]]\nname = \"kube-apiserver\"\ndns = [\"api.example\"]\n[cluster]",
            "put it into dns of [[certificate]] kube-apiserver",
        ),
        (
            "api.example:6443\"",
            "10.0.0.9:6443\"\n[[certificate]]\nname = \"kube-apiserver\"\ndns = [\"10.0.0.9\"]",
            "`10.0.0.9`, is covered by no certificate",
        ),
    ]);
}

#[test]
fn faults_of_the_kubelet_name_line_finding_and_remedy() {
    let kubelet = |text: &str| format!("[kubelet]\n{text}\n[etcd]");
    told(&[
        (
            "[etcd]",
            &kubelet("labels = { \"node-role.kubernetes.io/control-plane\" = \"\" }"),
            "10.toml:19: kubelet.labels.node-role.kubernetes.io/control-plane: NodeRestriction",
        ),
        ("[etcd]", &kubelet("labels = { a = \"b c\" }"), "`b c` is no value"),
        ("[etcd]", &kubelet("taints = [\"a\"]"), "10.toml:19: kubelet.taints: `a` is no taint"),
        ("[etcd]", &kubelet("taints = [\"a:No\"]"), "`No` is no effect"),
        (
            "[etcd]",
            &kubelet("taints = [\"a=b:NoExecute\", \"a:NoExecute\"]"),
            "has the key and effect of another",
        ),
        (
            "[etcd]",
            &kubelet("config.authentication.anonymous.enabled = true"),
            "10.toml:19: kubelet.config.authentication.anonymous.enabled: ",
        ),
        ("[etcd]", &kubelet("config.x = [nan]"), "`NaN` is no number that JSON has"),
    ]);
}

#[test]
fn faults_of_etcd_name_line_finding_and_remedy() {
    let members = "members = { c1 = \"10.0.0.1\", c2 = \"10.0.0.2\", c3 = \"10.0.0.3\" }";
    told(&[
        (members, "", "10.toml:18: etcd.members: is not given; list all controllers"),
        (", c3 = \"10.0.0.3\"", "", "10.toml:19: etcd.members: has 2 members"),
        ("10.0.0.3", "10.0.0.1", "10.toml:19: etcd.members.c3: 10.0.0.1 is the address of `c1`"),
        ("10.0.0.3", "10.96.0.3", "etcd.members.c3: 10.96.0.3 is inside 10.96.0.0/16"),
        ("10.0.0.3", "c3.example", "`c3.example` is no address that the other controllers"),
        ("10.0.0.3", "127.0.0.1", "`127.0.0.1` is no address that the other controllers"),
        ("c3 =", "C_3 =", "etcd.members.C_3: `C_3` is no name"),
        (members, &format!("{members}\ndata_dir = \"etcd\""), "`etcd` is no absolute path"),
    ]);
}

#[test]
fn faults_of_the_control_plane_name_line_finding_and_remedy() {
    let image = "image = \"registry.example/{component}:v1.36.3\"";
    let with = |more: &str| format!("{image}\n{more}");
    told(&[
        (image, "", "10.toml:20: control_plane.image: is not given"),
        ("{component}", "kube", "10.toml:21: control_plane.image: `registry.example/kube:v1.36.3`"),
        (":v1.36.3", ":v{version}", "does not say with {component} alone"),
        (image, &with("style = \"stable\""), "10.toml:22: control_plane.style: unknown variant"),
        (image, &with("lock_lease = \"4s\""), "control_plane.lock_lease: 4s is not in 5s to 5m"),
        (image, &with("lock_lease = \"6m\""), "is not in 5s to 5m"),
        (image, &with("lock_lease = \"a while\""), "`a while` is no duration above zero"),
        (image, &with("dead_after = \"0s\""), "control_plane.dead_after: `0s` is no duration"),
        (image, &with("assets = \"assets\""), "control_plane.assets: `assets` is no absolute path"),
        (image, &with("manifests = \"/a/../b\""), "control_plane.manifests: `/a/../b` is no"),
        (image, &with("audit_policy = \"x\""), "control_plane.audit_policy: `x` is no absolute"),
        (image, &with("secrets_mount = \"/kv\""), "`/kv` is no path in Vault"),
        (image, &with("secrets_path = \"\""), "`` is no path in Vault"),
        (image, &with("admission = [\"PodSecurity\"]"), "leaves NodeRestriction out"),
        (image, &with("admission = [\"NodeRestriction\", \"a,b\"]"), "`a,b` is no admission"),
        (image, &with("feature_gates = { \"A=b\" = true }"), "`A=b` is no feature gate"),
        (
            image,
            &with("flags.kubelet.v = \"2\""),
            "10.toml:22: control_plane.flags.kubelet: `kubelet` is no component of the control",
        ),
        (
            image,
            &with("flags.kube-apiserver.evnt-ttl = \"2h\""),
            "control_plane.flags.kube-apiserver.evnt-ttl: kube-apiserver of Kubernetes 1.36 knows \
             no flag `evnt-ttl`; did you mean `event-ttl`?",
        ),
        (
            image,
            &with("flags.kube-apiserver.anonymous-auth = \"true\""),
            "10.toml:22: control_plane.flags.kube-apiserver.anonymous-auth: `anonymous-auth` is",
        ),
        (
            image,
            &with("without_flags.kube-apiserver = [\"authorization-mode\"]"),
            "`authorization-mode` may not be left out",
        ),
        (
            image,
            &with("without_flags.kube-scheduler = [\"frob\"]"),
            "10.toml:22: control_plane.without_flags.kube-scheduler: kube-scheduler of",
        ),
        (
            image,
            &with("flags.kube-scheduler.v = \"2\"\nwithout_flags.kube-scheduler = [\"v\"]"),
            "10.toml:23: control_plane.without_flags.kube-scheduler: `v` has a value in",
        ),
    ]);
}

#[test]
fn all_faults_of_all_tables_come_at_once() {
    let config = good()
        .replace("https:", "http:")
        .replace("10.0.0.3", "10.0.0.1")
        .replace("{component}", "kube")
        + "style = \"stable\"\nlock_lease = \"1s\"\nadmission = []\n[kubelet]\ntaints = [\"a\"]\n";
    let text = faults(&config.replace("http://vault", "https://vault"));
    assert_eq!(text.lines().count(), 7, "{text}");
}

#[test]
fn flags_merge_key_by_key_over_the_layers() {
    let site = Site::new(&format!(
        "{}[control_plane.flags.kube-apiserver]\nevent-ttl = \"2h\"\nv = \"2\"\n",
        good()
    ));
    let more = "[control_plane.flags.kube-apiserver]\nv = \"4\"\n\
        [control_plane.flags.kube-scheduler]\nv = \"5\"\n";
    site.add("20.toml", more);
    let flags = site.load().unwrap().control_plane.unwrap().flags;
    assert_eq!(flags[&Component::Apiserver]["event-ttl"], "2h");
    assert_eq!(flags[&Component::Apiserver]["v"], "4");
    assert_eq!(flags[&Component::Scheduler]["v"], "5");
    site.add("30.toml", "[control_plane.flags.kube-scheduler]\nx = \"1\"\n");
    let text = format!("{:#}", site.load().unwrap_err());
    assert!(text.contains("30.toml:2: control_plane.flags.kube-scheduler.x: "), "{text}");
}

#[test]
fn the_gate_goes_by_its_certificates_whatever_the_cluster_is() {
    let broken = good().replace("https://api.example:6443", "nonsense").replace("10.0.0.3", "x");
    let site = Site::new(&broken);
    assert!(site.load().is_err());
    let gated = site.gated().unwrap();
    assert!(gated.certificates.iter().any(|spec| spec.name == "kube-apiserver"));
    assert!(gated.consumers.iter().any(|consumer| consumer.name == "nodeagent"));
}

//! What people write wrongly about a cluster and its control plane: `nodeagent check` refuses it
//! with file, line, what was found and what to do, and touches nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use rig::pki::Ca;

use crate::play::*;

const SITE: &str = "/etc/nodeagent/config.d/10-site.toml";

const GOOD: &str = r#"[node]
role = "controller"
cluster = "prod"
[vault]
address = "https://vault.example:8200"
ca = "/etc/nodeagent/ca.pem"
[pki]
cluster = { mount = "pki", ca = "/etc/nodeagent/ca.pem" }
etcd = { mount = "pki-etcd", ca = "/etc/nodeagent/ca.pem" }
front-proxy = { mount = "pki-front-proxy", ca = "/etc/nodeagent/ca.pem" }
[cluster]
api_server = "https://api.example:6443"
[etcd.members]
c1 = "10.0.0.1"
c2 = "10.0.0.2"
c3 = "10.0.0.3"
[control_plane]
image = "registry.example/{component}:v1.36.3"
"#;

/// Runs `nodeagent check` on a site; gives its answer and the files that are there afterwards.
fn check(config: &str) -> (Output, BTreeSet<String>) {
    let site = tempfile::tempdir().expect("a directory");
    let etc = site.path().join("etc/nodeagent");
    std::fs::create_dir_all(etc.join("config.d")).expect("a directory");
    std::fs::write(etc.join("ca.pem"), Ca::new("a CA").pem()).expect("written");
    std::fs::write(etc.join("config.d/10-site.toml"), config).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
    command.arg("--root").arg(site.path()).arg("check");
    let output = command.output().expect("it runs");
    (output, files(site.path(), site.path()))
}

fn files(top: &Path, directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files(top, &path),
            false => BTreeSet::from([path.strip_prefix(top).expect("below").display().to_string()]),
        })
        .collect()
}

fn refused(config: &str, parts: &[&str]) {
    let (output, left) = check(config);
    let text = text_of(&output);
    assert_eq!(output.status.code(), Some(78), "{config}\n{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}\nfor\n{config}");
    }
    assert_eq!(left.len(), 2, "something was touched: {left:?}");
}

#[test]
fn the_control_plane_that_is_broken_here_is_good() {
    let (output, left) = check(GOOD);
    assert_eq!(output.status.code(), Some(0), "{}", text_of(&output));
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn ranges_and_addresses_that_meet_are_told() {
    let cluster = |more: &str| GOOD.replace("[etcd.members]", &format!("{more}\n[etcd.members]"));
    for (config, line, part) in [
        (cluster("service_cidr = \"10.244.128.0/17\""), 13, "overlaps the pods' 10.244.0.0/16"),
        (cluster("pod_cidr = \"10.96.0.0/12\""), 11, "overlaps the pods' 10.96.0.0/12"),
        (GOOD.replace("10.0.0.2", "10.96.0.2"), 15, "is inside 10.96.0.0/16"),
        (GOOD.replace("10.0.0.2", "10.244.0.2"), 15, "is inside 10.244.0.0/16"),
        (GOOD.replace("api.example", "10.96.0.1"), 12, "is inside 10.96.0.0/16"),
    ] {
        refused(&config, &[&format!("{SITE}:{line}: "), part]);
    }
}

#[test]
fn an_api_address_that_no_certificate_covers_is_told() {
    let own = "[[certificate]]\nname = \"kube-apiserver\"\n";
    for (add, line) in [
        ("[variables]\napi_server = \"old.example\"\n".to_string(), 12),
        (format!("{own}dns = [\"kubernetes.default.svc.cluster.local\"]\n"), 12),
    ] {
        let config = format!("{GOOD}{add}");
        refused(
            &config,
            &[&format!("{SITE}:{line}: cluster.api_server: "), "`api.example`", "dns"],
        );
    }
    // Pods reach the API by the first address of the services.
    let config = format!("{GOOD}{own}ips = [\"127.0.0.1\"]\n");
    refused(&config, &["cluster.service_cidr: ", "`10.96.0.1`", "put it into ips"]);
    for (from, part) in [("https://api", "http://api"), (":6443", ":6443/k8s")] {
        refused(&GOOD.replacen(from, part, 1), &[&format!("{SITE}:12: cluster.api_server: ")]);
    }
}

#[test]
fn an_api_address_that_is_an_address_is_covered() {
    for host in ["10.0.0.100", "[fd00::100]"] {
        let (output, _) = check(&GOOD.replace("api.example", host));
        assert_eq!(output.status.code(), Some(0), "{}", text_of(&output));
    }
}

#[test]
fn overrides_that_are_unknown_or_undo_a_guarantee_are_told() {
    let api = |line: &str| format!("{GOOD}[control_plane.flags.kube-apiserver]\n{line}\n");
    let manager =
        |line: &str| format!("{GOOD}[control_plane.flags.kube-controller-manager]\n{line}");
    let here = format!("{SITE}:20: control_plane.flags.kube-");
    for (config, part) in [
        (api("evnt-ttl = \"2h\""), "did you mean `event-ttl`?"),
        (api("insecure-port = \"8080\""), "knows no flag `insecure-port`"),
        (api("anonymous-auth = \"true\""), "opens the health checks and nothing else"),
        (api("authorization-mode = \"AlwaysAllow\""), "it has to hold Node and RBAC"),
        (api("token-auth-file = \"/x\""), "static tokens never end"),
        (manager("cluster-signing-key-file = \"/ca.key\""), "no authority's key is on a node"),
        (manager("leader-elect = \"false\""), "two controllers would act at the same time"),
    ] {
        refused(&config, &[&here, part]);
    }
    let more = |text: &str| format!("{GOOD}{text}\n");
    for (config, part) in [
        (more("flags.etcd.v = \"2\""), "`etcd` is no component of the control plane"),
        (more("without_flags.kube-apiserver = [\"authorization-mode\"]"), "may not be left out"),
        (more("flags.kube-scheduler = { v = 2 }"), "invalid type: integer"),
        (more("admission = []"), "leaves NodeRestriction out"),
        (more("lock_lease = \"1h\""), "is not in 5s to 5m"),
        (more("style = \"selfhosted\""), "unknown variant `selfhosted`"),
        (more("assets = \"assets\""), "is no absolute path"),
    ] {
        refused(&config, &[&format!("{SITE}:19: "), part]);
    }
    let both = "flags.kube-scheduler.v = \"2\"\nwithout_flags.kube-scheduler = [\"v\"]";
    refused(&more(both), &[&format!("{SITE}:20: "), "`v` has a value in"]);
}

#[test]
fn members_and_labels_that_cannot_be_are_told() {
    refused(&GOOD.replace("c3 = \"10.0.0.3\"\n", ""), &[&format!("{SITE}:13: "), "one, three or"]);
    refused(&GOOD.replace("10.0.0.3", "10.0.0.1"), &["is the address of `c1` too"]);
    refused(&GOOD.replace("c3", "c.3"), &[&format!("{SITE}:16: ")]);
    for label in ["node-role.kubernetes.io/control-plane", "node-restriction.kubernetes.io/a"] {
        let config = format!("{GOOD}[kubelet.labels]\n\"{label}\" = \"x\"\n");
        refused(&config, &[&format!("{SITE}:20: "), "NodeRestriction lets no kubelet set", label]);
    }
    let taints = format!("{GOOD}[kubelet]\ntaints = [\"a=b:Sometimes\"]\n");
    refused(&taints, &[&format!("{SITE}:20: kubelet.taints: "), "`Sometimes` is no effect"]);
}

#[test]
fn a_worker_with_a_control_plane_is_told() {
    let worker = GOOD.replace("\"controller\"", "\"worker\"");
    refused(&worker, &["control_plane: is for controllers and this is a worker", "etcd: is for"]);
    let api = "[cluster]\napi_server = \"https://api.example:6443\"\n";
    refused(&GOOD.replace(api, ""), &["control_plane: has no effect without [cluster]"]);
}

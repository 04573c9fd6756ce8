//! One row a fault: what is written, and what the person reads.

use super::*;
use crate::config::{Act, Config, load, load_gated};

const GOOD: &str = r#"
[node]
role = "worker"
kubernetes = "1.36"
[vault]
address = "https://vault.example:8200"
ca = "/etc/nodeagent/ca.pem"
[pki.cluster]
mount = "pki"
ca = "/etc/nodeagent/ca.pem"
"#;

pub(super) struct Site(tempfile::TempDir);

impl Site {
    pub(super) fn new(config: &str) -> Site {
        let directory = tempfile::tempdir().unwrap();
        let etc = directory.path().join("etc/nodeagent");
        std::fs::create_dir_all(etc.join("config.d")).unwrap();
        std::fs::write(etc.join("ca.pem"), rig::pki::Ca::new("a CA").pem()).unwrap();
        std::fs::write(etc.join("config.d/10.toml"), config).unwrap();
        Site(directory)
    }

    pub(super) fn load(&self) -> crate::error::Result<Config> {
        load(&Root::new(self.0.path()), "2026-11-21T12:00:00Z".parse().unwrap())
    }

    pub(super) fn gated(&self) -> crate::error::Result<Gated> {
        load_gated(&Root::new(self.0.path()), "2026-11-21T12:00:00Z".parse().unwrap())
    }

    /// One more drop-in.
    pub(super) fn add(&self, name: &str, config: &str) {
        std::fs::write(self.0.path().join("etc/nodeagent/config.d").join(name), config).unwrap();
    }
}

pub(super) fn faults(config: &str) -> String {
    match Site::new(config).load() {
        Ok(config) => config.warnings.join("\n"),
        Err(error) => {
            assert_eq!(error.kind().exit_code(), 78);
            format!("{error:#}")
        }
    }
}

#[test]
fn a_worker_needs_ten_lines_and_gets_the_catalogue() {
    let config = Site::new(GOOD).load().unwrap();
    let names: Vec<_> = config.certificates.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["kubelet-server", "kubelet-client"]);
    assert_eq!(config.survive, Duration::from_secs(11 * 3600));
    assert_eq!(config.identity.role, "worker");
    assert!(config.clients_reload());
    let kubelet = config.consumer("kubelet").unwrap();
    assert_eq!(kubelet.act, Act::Probe);
    assert_eq!(kubelet.limit, Duration::from_secs(90));
}

#[test]
fn every_fault_names_its_line_what_was_found_and_what_to_do() {
    let change = |from: &str, to: &str| GOOD.replace(from, to);
    let add = |more: &str| format!("{GOOD}{more}");
    for (config, expected) in [
        (change("role = \"worker\"", "role = \"boss\""), "10.toml:3: node.role: unknown variant"),
        (change("role = \"worker\"", ""), "node.role: is not given"),
        (change("\"1.36\"", "\"new\""), "10.toml:4: node.kubernetes: `new` is no version"),
        (
            change("https://", "http://"),
            "10.toml:6: vault.address: `http://vault.example:8200` is no",
        ),
        (change("ca = \"/etc/nodeagent/ca.pem\"\n[pki", "[pki"), "vault.ca: is not given"),
        (change("/etc/nodeagent/ca.pem", "ca.pem"), "10.toml:7: vault.ca: `ca.pem` is no absolute"),
        (change("/etc/nodeagent/ca.pem", "/nowhere.pem"), "put the CA's PEM there"),
        (
            change("/etc/nodeagent/ca.pem", "/etc/nodeagent/config.d/10.toml"),
            "there is no certificate in it",
        ),
        (change("[pki.cluster]", "[pki.other]"), "has no [pki.cluster]; give its mount and ca"),
        (change("mount = \"pki\"", ""), "pki.cluster.mount: is not given"),
        (add("[rotation]\nsurvive_vault_outage = \"23h\"\n"), "cannot survive an outage of 23h"),
        (add("[rotation]\nsurvive_vault_outage = \"soon\"\n"), "`soon` is no duration above zero"),
        (add("[rotation]\nissues_per_hour = 0\n"), "0 is not in 2 to 3600"),
        (add("[systemd]\nbus = \"dbus\"\n"), "10.toml:12: systemd.bus: `dbus` is neither"),
        (add("[[consumer]]\nname = \"Etcd\"\n"), "`Etcd` is no name"),
        (
            add("[[consumer]]\nname = \"kubelet\"\nunit = \"kubelet\"\n"),
            "10.toml:13: consumer.kubelet.unit: `kubelet` does not end in .service",
        ),
        (
            add("[[consumer]]\nname = \"x\"\nunit = \"kubelet.service\"\n"),
            "10.toml:13: consumer.x.unit: is the unit of `kubelet` too",
        ),
        (
            add("[[consumer]]\nname = \"x\"\nact = \"restart\"\n"),
            "consumer.x.act: needs the `unit`",
        ),
        (
            add("[[consumer]]\nname = \"kubelet\"\nprobe = \"10250\"\n"),
            "`10250` is no address:port",
        ),
        (
            add("[[certificate]]\nname = \"kubelet-server\"\nconsumer = \"kublet\"\n"),
            "certificate.kubelet-server.consumer: `kublet` has no [[consumer]]",
        ),
        (
            add("[[certificate]]\nname = \"kubelet-server\"\ndns = [\"{{host}}\"]\n"),
            "certificate.kubelet-server.dns: `{{host}}` is no variable",
        ),
        (
            add("[[certificate]]\nname = \"kubelet-server\"\nttl = \"19000000h\"\n"),
            "before a certificate of",
        ),
    ] {
        let text = faults(&config);
        assert!(text.contains(expected), "expected {expected:?} in:\n{text}\nfor:\n{config}");
    }
}

#[test]
fn all_faults_come_at_once() {
    let config = GOOD.replace("\"1.36\"", "\"new\"").replace("mount = \"pki\"", "");
    assert_eq!(faults(&config).lines().count(), 2, "{}", faults(&config));
}

#[test]
fn plain_http_is_for_loopback() {
    let local = GOOD.replace("https://vault.example:8200", "http://127.0.0.1:8200");
    assert_eq!(faults(&local), "");
}

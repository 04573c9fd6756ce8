//! etcd and the control plane of a controller: who the members are, and that no override keeps a
//! component from starting or undoes what is guaranteed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::file::{ControlPlaneTable, default_of};
use super::super::plane::{Cluster, Component, ControlPlane, Etcd, Member, Style};
use super::super::plane::{flags, guarantees};
use super::{Checker, list_of, text_of};

/// The shortest and the longest lease of the cluster's lock: below, a slow disk loses it; above,
/// nobody wants to wait for a controller that died.
const LEASES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(300);

type Flags = BTreeMap<Component, BTreeMap<String, String>>;

impl Checker<'_> {
    pub(super) fn etcd(&mut self, cluster: Option<&Cluster>) -> Option<Etcd> {
        let file = &self.layers.file;
        let table = file.etcd.as_ref();
        let members = table.and_then(|table| table.members.clone()).unwrap_or_default();
        let data_dir = table.and_then(|table| table.data_dir.clone());
        let data_dir = data_dir.unwrap_or_else(|| text_of("etcd", "data_dir"));
        let data_dir = self.absolute("etcd.data_dir", &data_dir);
        if members.is_empty() {
            let text = "is not given; list all controllers, like controller-1 = \"10.0.0.11\"";
            self.fault("etcd.members", text);
            return None;
        }
        if members.len().is_multiple_of(2) {
            let text = format!(
                "has {} members, and one more than half of them is needed: an even number \
                 survives no more failures than one less; take one, three or five",
                members.len()
            );
            self.fault("etcd.members", text);
        }
        let members = self.members(&members, cluster);
        Some(Etcd { members, data_dir: data_dir? })
    }

    fn members(
        &mut self,
        texts: &BTreeMap<String, String>,
        cluster: Option<&Cluster>,
    ) -> Vec<Member> {
        let mut members: Vec<Member> = Vec::new();
        for (name, text) in texts {
            let key = format!("etcd.members.{name}");
            if !is_name(name) {
                let text = format!("`{name}` is no name; take a-z, 0-9 and -, at most 63");
                self.fault(&key, text);
            }
            let address = text.parse::<IpAddr>().ok();
            let reachable = |address: &IpAddr| {
                !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
            };
            let Some(address) = address.filter(reachable) else {
                let text = format!(
                    "`{text}` is no address that the other controllers reach it at; write it like \
                     10.0.0.11"
                );
                self.fault(&key, text);
                continue;
            };
            if let Some(same) = members.iter().find(|member| member.address == address) {
                let text = format!("{address} is the address of `{}` too; correct one", same.name);
                self.fault(&key, text);
            }
            if let Some(cluster) = cluster {
                let ranges = [("pods", cluster.pod_cidr), ("services", cluster.service_cidr)];
                self.outside(&key, Some(address), &ranges);
            }
            members.push(Member { name: name.clone(), address });
        }
        members
    }

    pub(super) fn control_plane(&mut self) -> Option<ControlPlane> {
        let none = ControlPlaneTable::default();
        let table = self.layers.file.control_plane.as_ref().unwrap_or(&none);
        // Each is checked before one of them ends this: all faults come at once.
        let style = self.text("style", &table.style);
        let style = self.word::<Style>("control_plane.style", &style);
        let image = self.image(table.image.as_deref());
        let (secrets_mount, secrets_path) = self.secrets(table);
        let manifests = self.text("manifests", &table.manifests);
        let manifests = self.absolute("control_plane.manifests", &manifests);
        let assets = self.optional("control_plane.assets", &table.assets);
        let audit_policy = self.optional("control_plane.audit_policy", &table.audit_policy);
        let flags = self.flags(table);
        let without_flags = self.without_flags(table, &flags);
        let feature_gates = self.feature_gates(table);
        let admission = self.admission(table);
        let lock_lease = self.lock_lease(&table.lock_lease);
        let dead_after = self.duration("control_plane", "dead_after", &table.dead_after);
        Some(ControlPlane {
            style: style?,
            automatic: table
                .automatic
                .unwrap_or(default_of("control_plane", "automatic") == "true"),
            image: image?,
            secrets_mount,
            secrets_path,
            assets,
            manifests: manifests?,
            flags,
            without_flags,
            feature_gates,
            admission,
            audit_policy,
            lock_lease: lock_lease?,
            dead_after: dead_after?,
        })
    }

    /// The mount of what all controllers share, and where below it.
    fn secrets(&mut self, table: &ControlPlaneTable) -> (String, String) {
        let mount = self.text("secrets_mount", &table.secrets_mount);
        let path = table.secrets_path.clone().unwrap_or_else(|| self.cluster_name());
        self.secret_path("control_plane.secrets_mount", &mount);
        self.secret_path("control_plane.secrets_path", &path);
        (mount, path)
    }

    fn text(&self, key: &str, value: &Option<String>) -> String {
        value.clone().unwrap_or_else(|| text_of("control_plane", key))
    }

    fn image(&mut self, image: Option<&str>) -> Option<String> {
        let example = "registry.k8s.io/{component}:v1.36.3";
        let Some(image) = image else {
            let text = format!("is not given; write where components come from, like {example}");
            self.fault("control_plane.image", text);
            return None;
        };
        let rest = image.replace("{component}", "");
        if rest == image || rest.contains(['{', '}', ' ']) {
            let text = format!(
                "`{image}` does not say with {{component}} alone which image is which \
                 component's; write it like {example}"
            );
            self.fault("control_plane.image", text);
            return None;
        }
        Some(image.to_string())
    }

    fn secret_path(&mut self, key: &str, path: &str) {
        let part = |part: &str| {
            !part.is_empty()
                && !part.contains(|c: char| !c.is_ascii_graphic() || "?#%*+".contains(c))
        };
        if !path.split('/').all(part) {
            let text = format!("`{path}` is no path in Vault; write it like prod or prod/plane");
            self.fault(key, text);
        }
    }

    fn absolute(&mut self, key: &str, path: &str) -> Option<PathBuf> {
        let plain = |path: &Path| path.components().all(|part| part.as_os_str() != "..");
        let path = Path::new(path);
        if path.is_absolute() && plain(path) {
            return Some(path.to_path_buf());
        }
        self.fault(key, format!("`{}` is no absolute path", path.display()));
        None
    }

    fn optional(&mut self, key: &str, path: &Option<String>) -> Option<PathBuf> {
        self.absolute(key, path.as_deref()?)
    }

    fn component(&mut self, table: &str, name: &str) -> Option<Component> {
        let found = Component::ALL.into_iter().find(|component| component.name() == name);
        if found.is_none() {
            let known = Component::ALL.map(Component::name).join(", ");
            let text = format!("`{name}` is no component of the control plane; there are {known}");
            self.fault(&format!("control_plane.{table}.{name}"), text);
        }
        found
    }

    fn flags(&mut self, table: &ControlPlaneTable) -> Flags {
        let mut checked = Flags::new();
        for (name, overrides) in table.flags.iter().flatten() {
            let Some(component) = self.component("flags", name) else {
                continue;
            };
            for (flag, value) in overrides {
                let fault = flags::name_fault(component, flag)
                    .or_else(|| guarantees::override_fault(component, flag, value));
                if let Some(fault) = fault {
                    self.fault(&format!("control_plane.flags.{name}.{flag}"), fault);
                }
            }
            checked.insert(component, overrides.clone());
        }
        checked
    }

    fn without_flags(
        &mut self,
        table: &ControlPlaneTable,
        overrides: &Flags,
    ) -> BTreeMap<Component, Vec<String>> {
        let mut checked = BTreeMap::new();
        for (name, omitted) in table.without_flags.iter().flatten() {
            let Some(component) = self.component("without_flags", name) else {
                continue;
            };
            let overridden = overrides.get(&component);
            for flag in omitted {
                let both = overridden.is_some_and(|overrides| overrides.contains_key(flag));
                let both = both.then(|| {
                    format!("`{flag}` has a value in control_plane.flags.{name} too; keep one")
                });
                let fault = flags::name_fault(component, flag)
                    .or_else(|| guarantees::omission_fault(component, flag))
                    .or(both);
                if let Some(fault) = fault {
                    self.fault(&format!("control_plane.without_flags.{name}"), fault);
                }
            }
            checked.insert(component, omitted.clone());
        }
        checked
    }

    fn feature_gates(&mut self, table: &ControlPlaneTable) -> BTreeMap<String, bool> {
        let gates = table.feature_gates.clone().unwrap_or_default();
        for name in gates.keys() {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
                let text = format!("`{name}` is no feature gate; take letters and digits");
                self.fault(&format!("control_plane.feature_gates.{name}"), text);
            }
        }
        gates
    }

    fn admission(&mut self, table: &ControlPlaneTable) -> Vec<String> {
        let plugins = table.admission.clone();
        let plugins = plugins.unwrap_or_else(|| list_of("control_plane", "admission"));
        if !plugins.iter().any(|plugin| plugin == NODE_RESTRICTION) {
            let text = "leaves NodeRestriction out: a node could take on another's labels and \
                pods; add it to the list";
            self.fault("control_plane.admission", text);
        }
        for name in &plugins {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
                let text = format!("`{name}` is no admission plugin; take letters and digits");
                self.fault("control_plane.admission", text);
            }
        }
        plugins
    }

    fn lock_lease(&mut self, value: &Option<String>) -> Option<Duration> {
        let lease = self.duration("control_plane", "lock_lease", value)?;
        if LEASES.contains(&lease) {
            return Some(lease);
        }
        let text = format!(
            "{} is not in 5s to 5m: below, a slow disk loses the lock; above, a controller that \
             died keeps the others waiting too long",
            super::words(lease)
        );
        self.fault("control_plane.lock_lease", text);
        None
    }
}

/// The plugin that holds a kubelet to its own node.
const NODE_RESTRICTION: &str = "NodeRestriction";

/// A member's name is one word in etcd's list of members.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= 63 && name.chars().all(fits) && !name.starts_with('-')
}

//! The cluster and the kubelet: ranges, the API's address, and what NodeRestriction lets a node
//! say of itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::super::file::{ClusterTable, File, KubeletTable};
use super::super::plane::endpoint::{Endpoint, is_dns_name};
use super::super::plane::{Cidr, Cluster, Component, ControlPlane, Etcd, Kubelet, Taint};
use super::super::plane::{guarantees, labels};
use super::super::{CertSpec, Role};
use super::{Checker, list_of, text_of};

/// Everything of the configuration that is about the cluster.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) cluster: Option<Cluster>,
    pub(super) kubelet: Kubelet,
    pub(super) etcd: Option<Etcd>,
    pub(super) control_plane: Option<ControlPlane>,
}

/// The prefixes that a range of services may have: kube-apiserver takes no larger one than /12,
/// and DNS has its tenth address.
const SERVICE_PREFIXES: std::ops::RangeInclusive<u8> = 12..=28;

/// The prefixes that a range of pods may have, of which each node gets a /24.
const POD_PREFIXES: std::ops::RangeInclusive<u8> = 8..=24;

/// The variables of templates: the operator's, and what follows from `[cluster]`. What is wrong
/// with `[cluster]` is told where that is checked; until then the names are known all the same.
pub(super) fn variables(file: &File) -> BTreeMap<String, String> {
    let mut variables = file.variables.clone();
    let mut derive = |name: &str, value: Option<String>| {
        variables.entry(name.to_string()).or_insert(value.unwrap_or_default());
    };
    let table = file.cluster.as_ref();
    let domain = table.and_then(|table| table.dns_domain.clone());
    derive("dns_domain", Some(domain.unwrap_or_else(|| text_of("cluster", "dns_domain"))));
    if let Some(table) = table {
        let endpoint = table.api_server.as_deref().and_then(|url| Endpoint::parse(url).ok());
        derive("api_server", endpoint.map(|endpoint| endpoint.host));
        let services = table.service_cidr.clone();
        let services = services.unwrap_or_else(|| text_of("cluster", "service_cidr"));
        let first = Cidr::parse(&services).ok().map(|range| range.nth(1).to_string());
        derive("service_ip", first);
    }
    variables
}

/// Where the member of etcd keeps its data, whatever else is wrong with the configuration.
pub(super) fn etcd_data(file: &File) -> Option<PathBuf> {
    let table = file.etcd.as_ref()?;
    let directory = table.data_dir.clone().unwrap_or_else(|| text_of("etcd", "data_dir"));
    Some(directory.into())
}

impl Checker<'_> {
    pub(super) fn plan(&mut self, role: Option<Role>, certificates: &[CertSpec]) -> Plan {
        let file = &self.layers.file;
        let Some(table) = &file.cluster else {
            self.nothing_without_a_cluster();
            return Plan::default();
        };
        let cluster = self.cluster(table);
        let kubelet = self.kubelet(role, file.kubelet.as_ref());
        if role == Some(Role::Bare) {
            let text = "a bare node has no kubelet; take it out, or make node.role worker";
            self.fault("cluster", text);
        }
        if role != Some(Role::Controller) {
            self.no_control_plane(role);
            return Plan { cluster, kubelet, ..Plan::default() };
        }
        if let Some(cluster) = &cluster {
            self.coverage(cluster, certificates);
        }
        let etcd = self.etcd(cluster.as_ref());
        let control_plane = self.control_plane();
        Plan { cluster, kubelet, etcd, control_plane }
    }

    /// A table that would be without effect was written by mistake.
    fn nothing_without_a_cluster(&mut self) {
        for key in self.planes().into_iter().chain(self.given("kubelet")) {
            self.fault(key, "has no effect without [cluster]; give that its api_server");
        }
    }

    fn no_control_plane(&mut self, role: Option<Role>) {
        let Some(role) = role else {
            return;
        };
        for key in self.planes() {
            let text = format!(
                "is for controllers and this is a {}; take it out of this role's user-data, or \
                 make node.role controller",
                format!("{role:?}").to_lowercase()
            );
            self.fault(key, text);
        }
    }

    fn planes(&self) -> Vec<&'static str> {
        let both = self.given("etcd").into_iter().chain(self.given("control_plane"));
        both.collect()
    }

    fn given(&self, table: &'static str) -> Option<&'static str> {
        let file = &self.layers.file;
        let given = match table {
            "kubelet" => file.kubelet.is_some(),
            "etcd" => file.etcd.is_some(),
            _ => file.control_plane.is_some(),
        };
        given.then_some(table)
    }

    fn cluster(&mut self, table: &ClusterTable) -> Option<Cluster> {
        let pods = self.range("pod_cidr", &table.pod_cidr);
        let services = self.range("service_cidr", &table.service_cidr);
        let endpoint = self.endpoint(table);
        if let (Some(pods), Some(services)) = (pods, services) {
            self.ranges(pods, services, endpoint.as_ref());
        }
        let dns_domain = table.dns_domain.clone();
        let dns_domain = dns_domain.unwrap_or_else(|| text_of("cluster", "dns_domain"));
        if !is_dns_name(&dns_domain) {
            let text = format!("`{dns_domain}` is no DNS name; write one like cluster.local");
            self.fault("cluster.dns_domain", text);
        }
        let Endpoint { url, host } = endpoint?;
        Some(Cluster {
            api_server: url,
            api_host: host,
            pod_cidr: pods?,
            service_cidr: services?,
            dns_domain,
        })
    }

    fn endpoint(&mut self, table: &ClusterTable) -> Option<Endpoint> {
        let Some(text) = &table.api_server else {
            let text = "is not given; write the URL of the API, like https://api.example:6443";
            self.fault("cluster.api_server", text);
            return None;
        };
        Endpoint::parse(text).map_err(|fault| self.fault("cluster.api_server", fault)).ok()
    }

    fn range(&mut self, key: &str, value: &Option<String>) -> Option<Cidr> {
        let text = value.clone().unwrap_or_else(|| text_of("cluster", key));
        Cidr::parse(&text).map_err(|fault| self.fault(&format!("cluster.{key}"), fault)).ok()
    }

    fn ranges(&mut self, pods: Cidr, services: Cidr, endpoint: Option<&Endpoint>) {
        if pods.overlaps(services) {
            let text = format!(
                "{services} overlaps the pods' {pods}: an address would be a pod's and a \
                 service's; take ranges that are apart, like 10.244.0.0/16 and 10.96.0.0/16"
            );
            self.fault("cluster.service_cidr", text);
        }
        if !SERVICE_PREFIXES.contains(&services.prefix) {
            let text = format!(
                "{services} does not fit: kube-apiserver takes /12 at most, and DNS has the tenth \
                 address; take /12 to /28"
            );
            self.fault("cluster.service_cidr", text);
        }
        let manager =
            self.layers.file.control_plane.as_ref().and_then(|table| table.flags.as_ref());
        let manager = manager.and_then(|flags| flags.get(Component::ControllerManager.name()));
        let own_mask = manager.is_some_and(|flags| flags.contains_key("node-cidr-mask-size"));
        if !own_mask && !POD_PREFIXES.contains(&pods.prefix) {
            let text = format!(
                "{pods} does not fit: every node gets a /24 of it, and kube-controller-manager \
                 keeps 65536 of them at most; take /8 to /24, or set its node-cidr-mask-size"
            );
            self.fault("cluster.pod_cidr", text);
        }
        if let Some(endpoint) = endpoint {
            let address = endpoint.host.parse().ok();
            self.outside("cluster.api_server", address, &[("pods", pods), ("services", services)]);
        }
    }

    /// An address of a machine may not be one that the cluster gives away.
    pub(super) fn outside(&mut self, key: &str, address: Option<IpAddr>, ranges: &[(&str, Cidr)]) {
        let Some(address) = address else {
            return;
        };
        for (of, range) in ranges.iter().filter(|(_, range)| range.contains(address)) {
            let text = format!(
                "{address} is inside {range}, which the {of} get their addresses from; correct \
                 the address or the range"
            );
            self.fault(key, text);
        }
    }

    /// Whether the API server's certificate covers what clients reach it by.
    fn coverage(&mut self, cluster: &Cluster, certificates: &[CertSpec]) {
        let Some(spec) = certificates.iter().find(|spec| spec.name == "kube-apiserver") else {
            return;
        };
        let name = self.cluster_name();
        let known = |templates: &[super::super::Template]| -> Vec<String> {
            let known = templates.iter().filter_map(|t| t.known(&name, &self.variables));
            known.map(|text| text.to_ascii_lowercase()).collect()
        };
        let (dns, ips) = (known(&spec.dns), known(&spec.ips));
        let service = format!("kubernetes.default.svc.{}", cluster.dns_domain);
        let first = cluster.service_cidr.nth(1).to_string();
        for (key, wanted, who) in [
            ("api_server", cluster.api_host.clone(), "the API's address"),
            ("service_cidr", first, "the API's own service"),
            ("dns_domain", service.to_ascii_lowercase(), "the API's name for pods"),
        ] {
            // A client that goes by an address looks at the addresses only, not at the names.
            let (list, covered) = match wanted.parse::<IpAddr>() {
                Ok(address) => ("ips", ips.iter().any(|ip| ip.parse() == Ok(address))),
                Err(_) => ("dns", dns.contains(&wanted)),
            };
            if covered {
                continue;
            }
            let text = format!(
                "{who}, `{wanted}`, is covered by no certificate: kube-apiserver has {}; put it \
                 into {list} of [[certificate]] kube-apiserver, or correct [variables]",
                [dns.as_slice(), ips.as_slice()].concat().join(", ")
            );
            self.fault(&format!("cluster.{key}"), text);
        }
    }

    fn kubelet(&mut self, role: Option<Role>, table: Option<&KubeletTable>) -> Kubelet {
        let labels = table.and_then(|table| table.labels.clone()).unwrap_or_default();
        for (key, value) in &labels {
            if let Some(fault) = labels::label_fault(key, value) {
                self.fault(&format!("kubelet.labels.{key}"), fault);
            }
        }
        let taints = match (table.and_then(|table| table.taints.clone()), role) {
            (Some(taints), _) => taints,
            (None, Some(Role::Controller)) => list_of("kubelet", "taints"),
            (None, _) => Vec::new(),
        };
        let taints = self.taints(&taints);
        let config = table.and_then(|table| table.config.clone()).unwrap_or_default();
        let config = self.overlay("kubelet.config", config);
        for (key, fault) in guarantees::kubelet_faults(&config) {
            self.fault(&format!("kubelet.config.{key}"), fault);
        }
        Kubelet { labels, taints, config }
    }

    fn taints(&mut self, texts: &[String]) -> Vec<Taint> {
        let mut taints: Vec<Taint> = Vec::new();
        for text in texts {
            match labels::taint(text) {
                Ok(taint) => {
                    let same =
                        |known: &Taint| known.key == taint.key && known.effect == taint.effect;
                    if taints.iter().any(same) {
                        let text = format!("`{text}` has the key and effect of another; keep one");
                        self.fault("kubelet.taints", text);
                    }
                    taints.push(taint);
                }
                Err(fault) => self.fault("kubelet.taints", fault),
            }
        }
        taints
    }

    /// TOML as JSON, which has no number without an end. A date is a text by now.
    fn overlay(&mut self, key: &str, table: toml::Table) -> Map<String, Value> {
        let entries = table.into_iter().filter_map(|(name, value)| {
            let value = self.json(&format!("{key}.{name}"), value)?;
            Some((name, value))
        });
        entries.collect()
    }

    fn json(&mut self, key: &str, value: toml::Value) -> Option<Value> {
        match value {
            toml::Value::String(text) => Some(Value::String(text)),
            toml::Value::Integer(number) => Some(number.into()),
            toml::Value::Boolean(truth) => Some(truth.into()),
            toml::Value::Float(number) if number.is_finite() => Some(number.into()),
            toml::Value::Table(table) => Some(Value::Object(self.overlay(key, table))),
            toml::Value::Array(list) => {
                Some(list.into_iter().filter_map(|value| self.json(key, value)).collect())
            }
            toml::Value::Datetime(date) => Some(Value::String(date.to_string())),
            toml::Value::Float(number) => {
                self.fault(key, format!("`{number}` is no number that JSON has; write another"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! From the merged tables to a [`Config`]: every rule is checked and every fault reported, each
//! with the place where it was said, what was found and what to do.

mod control_plane;
mod entries;
mod plane;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;

use super::bundle;
use super::file::{PkiTable, default_of};
use super::layers::Layers;
use super::{Authority, CertSpec, Config, Gated, IdentityConfig, LARGEST_SHARE, Role, VaultConfig};
use crate::error::plain;
use crate::host::files::Root;

/// A bundle larger than this is none.
const BUNDLE_LIMIT: usize = 1 << 20;

/// Checks the merged tables; the error has a line for each fault.
pub fn check(root: &Root, layers: &Layers, now: Timestamp) -> Result<Config, Vec<String>> {
    let mut checker = Checker::new(root, layers, now);
    let config = checker.config();
    match (config, checker.faults) {
        (Some(config), faults) if faults.is_empty() => Ok(config),
        (_, faults) => Err(faults),
    }
}

/// The consumers and their certificates, for the gate: what a consumer waits for has to be known
/// even where a bundle cannot be read or Vault's address is wrong.
pub fn gated(root: &Root, layers: &Layers, now: Timestamp) -> Result<Gated, Vec<String>> {
    let mut checker = Checker::new(root, layers, now);
    let consumers = checker.consumers();
    let tables = &layers.file.certificate;
    let certificates = tables.iter().filter_map(|table| checker.certificate(table)).collect();
    match checker.faults.is_empty() {
        true => Ok(Gated {
            consumers,
            certificates,
            has_cluster: layers.file.cluster.is_some(),
            etcd_data: plane::etcd_data(&layers.file),
        }),
        false => Err(checker.faults),
    }
}

struct Checker<'a> {
    root: &'a Root,
    layers: &'a Layers,
    now: Timestamp,
    /// Of templates: the operator's and those that follow from the rest.
    variables: BTreeMap<String, String>,
    faults: Vec<String>,
    /// What time makes impossible one day: no reason not to start.
    warnings: Vec<String>,
}

impl<'a> Checker<'a> {
    fn new(root: &'a Root, layers: &'a Layers, now: Timestamp) -> Checker<'a> {
        let variables = plane::variables(&layers.file);
        Checker { root, layers, now, variables, faults: Vec::new(), warnings: Vec::new() }
    }

    fn config(&mut self) -> Option<Config> {
        let file = &self.layers.file;
        let role = self.required("node", "role", &file.node.role);
        let role = role.and_then(|text| self.word::<Role>("node.role", &text));
        let survive =
            self.duration("rotation", "survive_vault_outage", &file.rotation.survive_vault_outage);
        let vault = self.vault();
        let identity = self.identity(role);
        let kubernetes = self.kubernetes();
        let max_clock_skew = self.duration("clock", "max_skew", &file.clock.max_skew);
        let systemd_bus = self.bus();
        let issues_per_hour = self.issues_per_hour();
        let authorities = self.authorities();
        let consumers = self.consumers();
        let certificates = self.certificates(&authorities, &consumers);
        if let Some(survive) = survive {
            self.autonomy(survive, &certificates, &authorities);
        }
        let plan = self.plan(role, &certificates);
        Some(Config {
            role: role?,
            cluster: self.cluster_name(),
            kubernetes,
            variables: std::mem::take(&mut self.variables),
            vault: vault?,
            identity: identity?,
            survive: survive?,
            issues_per_hour,
            max_clock_skew: max_clock_skew?,
            systemd_bus: systemd_bus?,
            authorities,
            certificates,
            consumers,
            cluster_plan: plan.cluster,
            kubelet: plan.kubelet,
            etcd: plan.etcd,
            control_plane: plan.control_plane,
            digest: self.layers.digest.clone(),
            warnings: std::mem::take(&mut self.warnings),
        })
    }

    fn fault(&mut self, key: &str, text: impl std::fmt::Display) {
        self.faults.push(plain(&format!("{}: {text}", self.layers.place(key))));
    }

    fn cluster_name(&self) -> String {
        self.layers.file.node.cluster.clone().unwrap_or_else(|| text_of("node", "cluster"))
    }

    fn required(&mut self, table: &str, key: &str, value: &Option<String>) -> Option<String> {
        match value.as_deref().map(str::trim) {
            Some("") | None => {
                let key = format!("{table}.{key}");
                self.fault(&key, "is not given; say it in /etc/nodeagent/config.d");
                None
            }
            Some(value) => Some(value.to_string()),
        }
    }

    /// One word out of an enum's, in the enum's own spelling.
    fn word<T: DeserializeOwned>(&mut self, key: &str, text: &str) -> Option<T> {
        match toml::Value::String(text.to_string()).try_into::<T>() {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(key, error.message());
                None
            }
        }
    }

    fn duration(&mut self, table: &str, key: &str, value: &Option<String>) -> Option<Duration> {
        let path = format!("{table}.{key}");
        let text = value.clone().unwrap_or_else(|| text_of(table, key));
        self.duration_at(&path, &text)
    }

    fn duration_at(&mut self, path: &str, text: &str) -> Option<Duration> {
        let parsed = text.parse::<SignedDuration>().ok();
        match parsed.and_then(|parsed| Duration::try_from(parsed).ok()) {
            Some(duration) if !duration.is_zero() => Some(duration),
            _ => {
                self.fault(path, format!("`{text}` is no duration above zero; write one like 12h"));
                None
            }
        }
    }

    fn vault(&mut self) -> Option<VaultConfig> {
        let table = &self.layers.file.vault;
        let timeout = self.duration("vault", "timeout", &table.timeout);
        let splay = self.duration("vault", "splay", &table.splay);
        let address = self.required("vault", "address", &table.address)?;
        let address = address.trim_end_matches('/').to_string();
        let pinned = match address.split_once("://") {
            Some(("https", host)) if !host.is_empty() => true,
            Some(("http", host)) if is_loopback(host) => false,
            _ => {
                self.fault(
                    "vault.address",
                    format!("`{address}` is no https:// URL; http:// is for loopback only"),
                );
                return None;
            }
        };
        let ca = match (&table.ca, pinned) {
            (None, true) => {
                self.fault(
                    "vault.ca",
                    "is not given; name the file with the CA that signed \
                    Vault's TLS certificate",
                );
                return None;
            }
            (None, false) => None,
            (Some(path), _) => Some(self.bundle("vault.ca", path)?.0),
        };
        let namespace = table.namespace.clone().filter(|namespace| !namespace.is_empty());
        Some(VaultConfig { address, ca, namespace, timeout: timeout?, splay: splay? })
    }

    fn identity(&mut self, role: Option<Role>) -> Option<IdentityConfig> {
        let table = &self.layers.file.identity;
        let provider = table.provider.clone().unwrap_or_else(|| text_of("identity", "provider"));
        let provider = self.word("identity.provider", &provider);
        let mount = table.mount.clone().unwrap_or_else(|| text_of("identity", "mount"));
        if mount.is_empty() || mount.starts_with('/') || mount.ends_with('/') {
            self.fault("identity.mount", format!("`{mount}` is no mount path; write it like aws"));
        }
        let login = match (&table.role, role) {
            (Some(login), _) => Some(login.clone()),
            (None, Some(Role::Worker)) => Some("worker".into()),
            (None, Some(Role::Controller)) => Some("controller".into()),
            (None, Some(Role::Bare)) => self.required("identity", "role", &table.role),
            // What is wrong with the node's role is told there, and once.
            (None, None) => None,
        };
        let imds = table.imds.clone().unwrap_or_else(|| text_of("identity", "imds"));
        if !imds.starts_with("http://") {
            self.fault("identity.imds", format!("`{imds}` is no http:// URL"));
        }
        let import_nonce = table.import_nonce.clone().map(PathBuf::from);
        if let Some(path) = import_nonce.as_ref().filter(|path| !path.is_absolute()) {
            self.fault(
                "identity.import_nonce",
                format!("`{}` is no absolute path", path.display()),
            );
        }
        Some(IdentityConfig { provider: provider?, mount, role: login?, import_nonce, imds })
    }

    fn kubernetes(&mut self) -> Option<(u16, u16)> {
        let text = self.layers.file.node.kubernetes.as_deref()?.trim_start_matches('v');
        let mut numbers = text.split('.').map(|number| number.parse::<u16>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) => Some((major, minor)),
            _ => {
                self.fault(
                    "node.kubernetes",
                    format!("`{text}` is no version; write it like 1.36"),
                );
                None
            }
        }
    }

    fn bus(&mut self) -> Option<String> {
        let bus = self.layers.file.systemd.bus.clone();
        let bus = bus.unwrap_or_else(|| text_of("systemd", "bus"));
        if bus == "system" || bus.starts_with("unix:path=/") {
            return Some(bus);
        }
        self.fault("systemd.bus", format!("`{bus}` is neither `system` nor `unix:path=/…`"));
        None
    }

    fn issues_per_hour(&mut self) -> u32 {
        let default = default_of("rotation", "issues_per_hour").parse().unwrap_or(6);
        let budget = self.layers.file.rotation.issues_per_hour.unwrap_or(default);
        if !(2..=3600).contains(&budget) {
            self.fault(
                "rotation.issues_per_hour",
                format!("{budget} is not in 2 to 3600; a repair needs a second try"),
            );
        }
        budget
    }

    fn authorities(&mut self) -> BTreeMap<String, Authority> {
        let mut known = BTreeMap::new();
        for (name, table) in &self.layers.file.pki {
            if let Some(authority) = self.authority(name, table) {
                known.insert(name.clone(), authority);
            }
        }
        known
    }

    fn authority(&mut self, name: &str, table: &PkiTable) -> Option<Authority> {
        let section = format!("pki.{name}");
        self.check_name(&section, name);
        let mount = self.required(&section, "mount", &table.mount);
        let ca = self.required(&section, "ca", &table.ca);
        let (_, end) = self.bundle(&format!("{section}.ca"), ca.as_ref()?)?;
        let (mount, ca) = (mount?, PathBuf::from(ca?));
        Some(Authority { name: name.to_string(), mount, ca, end })
    }

    /// Reads a bundle; gives its bytes and the latest end of its authorities.
    fn bundle(&mut self, key: &str, path: &str) -> Option<(Vec<u8>, Timestamp)> {
        if !Path::new(path).is_absolute() {
            self.fault(key, format!("`{path}` is no absolute path"));
            return None;
        }
        let bytes = match self.root.read(Path::new(path), BUNDLE_LIMIT) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.fault(key, format!("{error:#}; put the CA's PEM there"));
                return None;
            }
        };
        match bundle::last_end(&bytes) {
            Ok(end) => Some((bytes, end)),
            Err(text) => {
                self.fault(key, format!("{path}: {text}"));
                None
            }
        }
    }

    /// What TTL and the authority's end make impossible.
    fn autonomy(
        &mut self,
        survive: Duration,
        specs: &[CertSpec],
        authorities: &BTreeMap<String, Authority>,
    ) {
        for spec in specs {
            let key = format!("certificate.{}.ttl", spec.name);
            if survive.as_secs_f64() > spec.ttl.as_secs_f64() * LARGEST_SHARE {
                let text = format!(
                    "a life of {} cannot survive an outage of {}: at least an eighth of it is \
                     needed to renew; raise ttl (and the PKI role's max_ttl) or lower \
                     rotation.survive_vault_outage",
                    words(spec.ttl),
                    words(survive)
                );
                self.fault(&key, text);
            }
            let Some(authority) = authorities.get(&spec.authority) else {
                continue;
            };
            let left = self.now.duration_until(authority.end);
            let needed = SignedDuration::try_from(spec.ttl).unwrap_or(SignedDuration::MAX);
            if left < needed {
                let text = format!(
                    "the last authority in {} ends {}, before a certificate of {} would; put \
                     its successor into the bundle and into Vault first",
                    authority.ca.display(),
                    authority.end,
                    words(spec.ttl)
                );
                let place = self.layers.place(&format!("pki.{}.ca", authority.name));
                let warning = format!("{place}: {text}");
                // Certificates of one authority are all told of once.
                if !self.warnings.contains(&warning) {
                    self.warnings.push(warning);
                }
            }
        }
    }
}

/// The default of an option as text, without TOML's quotes.
fn text_of(table: &str, key: &str) -> String {
    let table = table.split('.').next().unwrap_or(table);
    default_of(table, key).trim_matches('"').to_string()
}

/// The default of an option that is a list of texts.
fn list_of(table: &str, key: &str) -> Vec<String> {
    let text = format!("list = {}", default_of(table, key));
    let table = text.parse::<toml::Table>().ok();
    let list = table.and_then(|mut table| table.remove("list"));
    list.and_then(|list| list.try_into().ok()).unwrap_or_default()
}

fn is_loopback(host: &str) -> bool {
    let host = host.split(['/', ':']).next().unwrap_or_default();
    let address = host.parse::<std::net::Ipv4Addr>();
    address.is_ok_and(|address| address.is_loopback()) || host == "localhost"
}

fn words(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(|_| "for ever".into(), |d| format!("{d:#}"))
}

#[cfg(test)]
mod tests;

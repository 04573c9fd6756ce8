//! The entries: consumers and certificates, each by itself and against each other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::file::{CertificateTable, ConsumerTable};
use super::super::{Act, Authority, CertSpec, ConsumerSpec, Template, Usage};
use super::{Checker, text_of};

impl Checker<'_> {
    pub(super) fn consumers(&mut self) -> Vec<ConsumerSpec> {
        let tables = &self.layers.file.consumer;
        let consumers: Vec<_> = tables.iter().filter_map(|table| self.consumer(table)).collect();
        for (index, later) in consumers.iter().enumerate() {
            let same = |earlier: &&ConsumerSpec| later.unit.is_some() && earlier.unit == later.unit;
            if let Some(earlier) = consumers[..index].iter().find(same) {
                let text =
                    format!("is the unit of `{}` too; one consumer for a unit", earlier.name);
                self.fault(&format!("consumer.{}.unit", later.name), text);
            }
        }
        consumers
    }

    fn consumer(&mut self, table: &ConsumerTable) -> Option<ConsumerSpec> {
        let name = table.name.clone()?;
        let section = format!("consumer.{name}");
        self.check_name(&section, &name);
        let act = table.act.clone().unwrap_or_else(|| text_of("consumer", "act"));
        let act = self.word::<Act>(&format!("{section}.act"), &act);
        let unit = table.unit.clone().filter(|unit| !unit.is_empty());
        if let Some(unit) = unit.as_deref().filter(|unit| !unit.ends_with(".service")) {
            self.fault(&format!("{section}.unit"), format!("`{unit}` does not end in .service"));
        }
        if matches!(act, Some(Act::Reload | Act::Restart)) && unit.is_none() {
            let text = "needs the `unit` that is to be reloaded or restarted";
            self.fault(&format!("{section}.act"), text);
        }
        let probe = table.probe.as_deref().and_then(|text| match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let text = format!("`{text}` is no address:port; write it like 127.0.0.1:10250");
                self.fault(&format!("{section}.probe"), text);
                None
            }
        });
        let limit = table.limit.clone().unwrap_or_else(|| text_of("consumer", "limit"));
        let limit = self.duration_at(&format!("{section}.limit"), &limit);
        let group = table.group.clone().unwrap_or_else(|| text_of("consumer", "group"));
        Some(ConsumerSpec { name, unit, group, probe, act: act?, limit: limit? })
    }

    pub(super) fn certificates(
        &mut self,
        authorities: &BTreeMap<String, Authority>,
        consumers: &[ConsumerSpec],
    ) -> Vec<CertSpec> {
        let mut specs = Vec::new();
        for table in &self.layers.file.certificate {
            let Some(spec) = self.certificate(table) else {
                continue;
            };
            let section = format!("certificate.{}", spec.name);
            // One that is named but was refused has a fault of its own.
            if !authorities.contains_key(&spec.authority)
                && !self.layers.file.pki.contains_key(&spec.authority)
            {
                let text = format!("`{0}` has no [pki.{0}]; give its mount and ca", spec.authority);
                self.fault(&format!("{section}.pki"), text);
            }
            match consumers.iter().find(|consumer| consumer.name == spec.consumer) {
                None => {
                    let text = format!("`{}` has no [[consumer]] of that name", spec.consumer);
                    self.fault(&format!("{section}.consumer"), text);
                }
                Some(consumer)
                    if consumer.act == Act::Probe
                        && spec.usage.serves()
                        && consumer.probe.is_none() =>
                {
                    let text = "act `probe` on a served certificate needs the address in `probe`";
                    self.fault(&format!("consumer.{}.act", consumer.name), text);
                }
                Some(_) => {}
            }
            specs.push(spec);
        }
        specs
    }

    pub(super) fn certificate(&mut self, table: &CertificateTable) -> Option<CertSpec> {
        let name = table.name.clone()?;
        let section = format!("certificate.{name}");
        self.check_name(&section, &name);
        let consumer = self.required(&section, "consumer", &table.consumer);
        let authority = self.required(&section, "pki", &table.pki);
        let role = self.required(&section, "role", &table.role);
        let common_name = self.required(&section, "common_name", &table.common_name);
        let common_name =
            common_name.and_then(|text| self.template(&section, "common_name", &text));
        let usage = self.required(&section, "usage", &table.usage);
        let usage = usage.and_then(|text| self.word::<Usage>(&format!("{section}.usage"), &text));
        let ttl = table.ttl.clone().unwrap_or_else(|| text_of("certificate", "ttl"));
        let ttl = self.duration_at(&format!("{section}.ttl"), &ttl);
        let organizations = self.templates(&section, "organizations", &table.organizations);
        let dns = self.templates(&section, "dns", &table.dns);
        let ips = self.templates(&section, "ips", &table.ips);
        let (dns, ips) = self.api_by_address(dns, ips);
        let uris = self.templates(&section, "uris", &table.uris);
        Some(CertSpec {
            name,
            consumer: consumer?,
            authority: authority?,
            role: role?,
            common_name: common_name?,
            organizations,
            dns,
            ips,
            uris,
            usage: usage?,
            ttl: ttl?,
        })
    }

    fn template(&mut self, section: &str, key: &str, text: &str) -> Option<Template> {
        match Template::parse(text, &self.variables) {
            Ok(template) => Some(template),
            Err(fault) => {
                self.fault(&format!("{section}.{key}"), fault);
                None
            }
        }
    }

    fn templates(
        &mut self,
        section: &str,
        key: &str,
        texts: &Option<Vec<String>>,
    ) -> Vec<Template> {
        let texts = texts.as_deref().unwrap_or_default();
        texts.iter().filter_map(|text| self.template(section, key, text)).collect()
    }

    /// An API that is reached by an address is an address in its certificate, not a name.
    fn api_by_address(
        &self,
        dns: Vec<Template>,
        mut ips: Vec<Template>,
    ) -> (Vec<Template>, Vec<Template>) {
        let host = self.variables.get("api_server");
        if host.is_none_or(|host| host.parse::<IpAddr>().is_err()) {
            return (dns, ips);
        }
        let (addresses, dns): (Vec<_>, Vec<_>) =
            dns.into_iter().partition(|template| template.variable() == Some("api_server"));
        for address in addresses {
            if !ips.contains(&address) {
                ips.push(address);
            }
        }
        (dns, ips)
    }

    /// Names become directories and unit instances.
    pub(super) fn check_name(&mut self, section: &str, name: &str) {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(fits) || name.starts_with('-') {
            let text = format!("`{name}` is no name; take a-z, 0-9 and -, at most 63");
            self.fault(&format!("{section}.name"), text);
        }
    }
}

//! Which names a role lets a certificate carry, and Vault's words for one that it does not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::answer::Refusal;
use super::super::field::Form;
use super::csr::Csr;

/// The names that the certificate will have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) common_name: String,
    pub(super) dns: Vec<String>,
    pub(super) emails: Vec<String>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) uris: Vec<String>,
}

const NEEDS_CN: &str = "the common_name field is required, or must be provided in a CSR with \
    \"use_csr_common_name\" set to true, unless \"require_cn\" is set to false";

/// Collects the names out of request and CSR as the role says, and refuses what it does not allow.
pub(super) fn collect(
    role: &Form,
    form: &Form,
    csr: &Csr,
    aliases: &BTreeMap<String, String>,
) -> Result<Names, Refusal> {
    let from_csr = role.flag("use_csr_common_name") && !csr.common_name.is_empty();
    let common_name = if from_csr { &csr.common_name } else { form.text("common_name") };
    if common_name.is_empty() && role.flag("require_cn") {
        return Err(Refusal::bad(NEEDS_CN));
    }
    let mut names = Names { common_name: common_name.to_owned(), ..Names::default() };
    if role.flag("use_csr_sans") {
        names.dns.clone_from(&csr.dns);
        names.emails.clone_from(&csr.emails);
        names.ips.clone_from(&csr.ips);
        names.uris.clone_from(&csr.uris);
    } else {
        for name in form.list("alt_names") {
            // What is no name of a host is dropped without a word.
            if name.contains('@') {
                names.emails.push(name);
            } else if is_hostname(name.trim_start_matches("*.")) {
                names.dns.push(name);
            }
        }
        names.uris = form.list("uri_sans");
        names.ips = addresses(form)?;
    }
    let domains = domains(role, aliases);
    check_names(role, &domains, &names)?;
    check_others(role, form, &names)?;
    if !form.flag("exclude_cn_from_sans") && is_hostname(common_name) {
        names.dns.push(common_name.to_owned());
    }
    names.dns.sort();
    names.dns.dedup();
    Ok(names)
}

fn addresses(form: &Form) -> Result<Vec<IpAddr>, Refusal> {
    let parse = |text: String| {
        text.parse()
            .map_err(|_| Refusal::bad(format!("the value {text:?} is not a valid IP address")))
    };
    form.list("ip_sans").into_iter().map(parse).collect()
}

fn check_names(role: &Form, domains: &[String], names: &Names) -> Result<(), Refusal> {
    let validated = role.list("cn_validations") != ["disabled"];
    let name = &names.common_name;
    if validated && !name.is_empty() && !allowed(role, domains, name) {
        return Err(Refusal::bad(format!("common name {name} not allowed by this role")));
    }
    if let Some(name) = names.dns.iter().find(|name| !allowed(role, domains, name)) {
        let text = format!("subject alternate name {name} not allowed by this role");
        return Err(Refusal::bad(text));
    }
    if let Some(name) = names.emails.iter().find(|name| !allowed(role, domains, name)) {
        return Err(Refusal::bad(format!("email address {name} not allowed by this role")));
    }
    Ok(())
}

fn check_others(role: &Form, form: &Form, names: &Names) -> Result<(), Refusal> {
    let in_csr = role.flag("use_csr_sans");
    if !names.ips.is_empty() && !role.flag("allow_ip_sans") {
        let what = if in_csr {
            "some via CSR".to_owned()
        } else {
            format!("[{}]", form.list("ip_sans").join(" "))
        };
        return Err(Refusal::bad(format!(
            "IP Subject Alternative Names are not allowed in this role, but was provided {what}"
        )));
    }
    let patterns = role.list("allowed_uri_sans");
    let allowed = |uri: &String| patterns.iter().any(|pattern| glob(pattern, uri));
    if !names.uris.is_empty() && !names.uris.iter().all(allowed) {
        let how = if in_csr { "CSR" } else { "the API" };
        return Err(Refusal::bad(format!(
            "URI Subject Alternative Names are not allowed in this role, \
             but were provided via {how}"
        )));
    }
    Ok(())
}

/// The role's domains with the caller's own names filled in; a domain whose template the caller
/// cannot fill is none.
fn domains(role: &Form, aliases: &BTreeMap<String, String>) -> Vec<String> {
    let domains = role.list("allowed_domains");
    if !role.flag("allowed_domains_template") {
        return domains;
    }
    domains.iter().filter_map(|domain| fill(domain, aliases)).collect()
}

fn fill(template: &str, aliases: &BTreeMap<String, String>) -> Option<String> {
    let Some((before, rest)) = template.split_once("{{") else {
        return Some(template.to_owned());
    };
    let (inner, after) = rest.split_once("}}")?;
    let accessor = inner.trim().strip_prefix("identity.entity.aliases.")?.strip_suffix(".name")?;
    let name = aliases.get(accessor)?;
    fill(after, aliases).map(|after| format!("{before}{name}{after}"))
}

fn allowed(role: &Form, domains: &[String], name: &str) -> bool {
    if role.flag("enforce_hostnames") && !is_hostname(name.trim_start_matches("*.")) {
        return false;
    }
    if name.starts_with("*.") && !role.flag("allow_wildcard_certificates") {
        return false;
    }
    if role.flag("allow_any_name") {
        return true;
    }
    let name = name.to_lowercase();
    if role.flag("allow_localhost") && matches!(name.as_str(), "localhost" | "localdomain") {
        return true;
    }
    domains.iter().map(|domain| domain.to_lowercase()).any(|domain| {
        (role.flag("allow_bare_domains") && name == domain)
            || (role.flag("allow_subdomains") && name.ends_with(&format!(".{domain}")))
            || (role.flag("allow_glob_domains") && domain.contains('*') && glob(&domain, &name))
    })
}

/// A pattern whose stars stand for any text.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            let Some(rest) = text.strip_prefix(before) else {
                return false;
            };
            let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts.into_iter().any(|at| glob(after, &rest[at..]))
        }
    }
}

fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        let good = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(good)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_gives_each_caller_its_own_name_only() {
        let aliases = BTreeMap::from([("acc".to_owned(), "i-a".to_owned())]);
        let template = "system:node:{{identity.entity.aliases.acc.name}}";
        assert_eq!(fill(template, &aliases).as_deref(), Some("system:node:i-a"));
        assert_eq!(fill(template, &BTreeMap::new()), None);
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(glob("etcd-*.local", "etcd-0.local") && !glob("etcd-*.local", "etcd-0.remote"));
        assert!(is_hostname("i-0a.local") && !is_hostname("system:node:i-0a"));
    }
}

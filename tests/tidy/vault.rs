//! Rules for Vault's side: what the agent asks for by the name of a PKI role is there and may be
//! asked for, nothing more may, no role lets a node choose its name, and every value that a file
//! leaves open is explained.

use std::collections::BTreeSet;

use nodeagent::bootstrap::super_user;
use nodeagent::config::{Role, catalog};
use serde_json::Value;

use crate::source::{Finding, Source};

const DATA: &str = "packaging/vault/";
/// The roles whose nodes log in to Vault, and what their files are called.
const ROLES: [(Role, &str); 2] = [(Role::Worker, "worker"), (Role::Controller, "controller")];

/// The names below `packaging/vault` of the PKI roles that nodes of a role have certificates of.
fn wanted(role: Role) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, text) in catalog::layers(role) {
        let table: toml::Table = text.parse().expect("the catalogue is TOML");
        for entry in table["certificate"].as_array().expect("a list of certificates") {
            let field = |name: &str| entry[name].as_str().expect("a name").to_owned();
            found.insert(format!("{}/roles/{}", mount(&field("pki")), field("role")));
        }
    }
    if role == Role::Controller {
        found.insert(format!("{}/roles/{}", mount("cluster"), super_user::ROLE));
    }
    found
}

fn mount(authority: &str) -> String {
    if authority == "cluster" { "pki".into() } else { format!("pki-{authority}") }
}

fn finding(path: &str, advice: String) -> Finding {
    Finding { place: format!("{DATA}{path}:1"), rule: "vault", advice }
}

/// Where data and catalogue do not agree.
pub(crate) fn catalogue(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let text = |path: &str| {
        let full = format!("{DATA}{path}");
        sources.iter().find(|source| source.path == full).map(|source| source.text.as_str())
    };
    let mut known = BTreeSet::new();
    for (role, name) in ROLES {
        let wanted = wanted(role);
        let path = format!("sys/policies/acl/{name}.hcl");
        let allowed = allowed(text(&path).unwrap_or_default());
        for missing in wanted.difference(&allowed) {
            findings.push(finding(&path, format!("a {name} is not allowed to sign at {missing}")));
        }
        for surplus in allowed.difference(&wanted) {
            findings.push(finding(&path, format!("no {name} has a certificate of {surplus}")));
        }
        let path = format!("auth/aws/role/{name}.json");
        let login = text(&path).unwrap_or_default();
        for bound in [format!(":instance-profile/${{cluster}}-{name}\""), "${account_id}".into()] {
            if !login.contains(&bound) {
                findings.push(finding(&path, format!("is not bound to {bound}")));
            }
        }
        known.extend(wanted);
    }
    let there: BTreeSet<String> = roles(sources).map(|source| stem(source).to_owned()).collect();
    for missing in known.difference(&there) {
        findings.push(finding(&format!("{missing}.json"), "the catalogue names this role".into()));
    }
    for surplus in there.difference(&known) {
        let advice = "no certificate of the catalogue is of this role; take it out";
        findings.push(finding(&format!("{surplus}.json"), advice.into()));
    }
    let mounts: BTreeSet<&str> = known.iter().filter_map(|role| role.split('/').next()).collect();
    for mount in mounts {
        for path in [
            format!("sys/mounts/{mount}.json"),
            format!("{mount}/root/generate/internal.json"),
            format!("{mount}/config/auto-tidy.json"),
            format!("sys/quotas/rate-limit/{mount}.json"),
        ] {
            if text(&path).is_none() {
                findings.push(finding(&path, format!("the mount {mount} needs this file")));
            }
        }
    }
    findings
}

/// The PKI roles that a policy lets sign.
fn allowed(policy: &str) -> BTreeSet<String> {
    let paths = policy.lines().filter_map(|line| line.strip_prefix("path \"${prefix}"));
    let paths = paths.filter_map(|rest| rest.split('"').next());
    paths.filter(|path| path.contains("/sign/")).map(|path| path.replace("sign", "roles")).collect()
}

fn roles(sources: &[Source]) -> impl Iterator<Item = &Source> {
    let is_role = |source: &&Source| {
        source.path.starts_with(DATA) && source.path.split('/').nth(3) == Some("roles")
    };
    sources.iter().filter(is_role)
}

fn stem(source: &Source) -> &str {
    source.path.trim_start_matches(DATA).trim_end_matches(".json")
}

/// What each PKI role has to say, and what none may.
const SAYS: [(&str, bool); 6] = [
    ("use_csr_common_name", false),
    ("use_csr_sans", false),
    ("allow_localhost", false),
    ("allow_wildcard_certificates", false),
    ("enforce_hostnames", false),
    ("allow_bare_domains", true),
];
const SILENT: [&str; 8] = [
    "allow_any_name",
    "allow_glob_domains",
    "allow_subdomains",
    "cn_validations",
    "allowed_uri_sans",
    "allowed_other_sans",
    "ext_key_usage",
    "not_after",
];

/// PKI roles that would let a node be more than itself.
pub(crate) fn names(sources: &[Source]) -> Vec<Finding> {
    roles(sources).flat_map(role).collect()
}

fn role(source: &Source) -> Vec<Finding> {
    let refuse = |advice: String| source.finding(0, "vault", advice);
    let Ok(role) = serde_json::from_str::<Value>(&source.text) else {
        return vec![refuse("is no JSON".into())];
    };
    let mut findings = Vec::new();
    for (field, value) in SAYS {
        if role[field] != value {
            findings.push(refuse(format!("{field} has to be {value}")));
        }
    }
    for field in SILENT.into_iter().filter(|field| !role[field].is_null()) {
        findings.push(refuse(format!("{field} lets a node choose its name or its life")));
    }
    let template = source.text.contains("{{identity.entity.aliases.${auth_accessor}.name}}");
    if role["allowed_domains_template"] != template {
        findings.push(refuse(format!("allowed_domains_template has to be {template}")));
    }
    if !role["max_ttl"].is_string() {
        findings.push(refuse("max_ttl is not given".into()));
    }
    let masters = source.text.contains("system:masters");
    let of_ten_minutes = stem(source).ends_with(super_user::ROLE) && role["max_ttl"] == "10m";
    if masters && !of_ten_minutes {
        findings.push(refuse("only the bootstrap's super-user is of system:masters".into()));
    }
    findings
}

/// Values that a file leaves open and docs/vault.md does not explain.
pub(crate) fn values(sources: &[Source], page: &Source) -> Vec<Finding> {
    let rows: Vec<&str> = page.text.lines().filter(|line| line.starts_with("| `")).collect();
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with(DATA)) {
        for (at, _) in source.text.match_indices("${").filter(|_| !source.path.ends_with(".md")) {
            let name = source.text[at + 2..].split('}').next().unwrap_or_default();
            let cell = format!("`{name}`");
            if !rows.iter().any(|row| row.split('|').nth(1).is_some_and(|c| c.contains(&cell))) {
                let advice = format!("docs/vault.md does not say what {name} is");
                findings.push(source.finding(at, "vault", advice));
            }
        }
    }
    findings
}

/// Values that Terraform prints for Vault and no file takes.
pub(crate) fn outputs(sources: &[Source], outputs: &Source) -> Vec<Finding> {
    let Some(at) = outputs.text.find("output \"vault_values\"") else {
        return vec![outputs.finding(0, "vault", "docs/vault.md reads the output vault_values")];
    };
    let block = &outputs.text[at..];
    let block = &block[..block.find("\n}").unwrap_or(block.len())];
    let values = block.lines().skip_while(|line| !line.contains("value = {")).skip(1);
    let names = values.filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim());
    let taken = |name: &str| {
        let value = format!("${{{name}}}");
        let mut data = sources.iter().filter(|source| source.path.starts_with(DATA));
        data.any(|source| source.text.contains(&value))
    };
    let advice = |name| format!("vault_values has {name}, which no file of {DATA} takes");
    let surplus = names.filter(|name| !taken(name));
    surplus.map(|name| outputs.finding(at, "vault", advice(name))).collect()
}

#[test]
fn what_does_not_agree_is_found() {
    let policy = "path \"${prefix}pki/sign/kubelet-client\" {}\n# pki/sign/x\n";
    assert_eq!(allowed(policy), BTreeSet::from(["pki/roles/kubelet-client".to_owned()]));
    // Nothing is there: of each role two bounds, its policy's lines, the files of each, and those
    // of three mounts.
    let wanted: Vec<usize> = ROLES.map(|(role, _)| wanted(role).len()).to_vec();
    assert_eq!(wanted, [2, 12]);
    assert_eq!(catalogue(&[]).len(), 2 * 2 + 2 + 12 + 12 + 3 * 4);
    let surplus = Source::new("packaging/vault/pki/roles/x.json", "{}");
    assert_eq!(catalogue(&[surplus]).len(), 2 * 2 + 2 + 12 + 12 + 3 * 4 + 1);
}

#[test]
fn a_role_that_is_too_wide_is_found() {
    let good = r#"{"use_csr_common_name": false, "use_csr_sans": false, "allow_localhost": false,
        "allow_wildcard_certificates": false, "enforce_hostnames": false,
        "allow_bare_domains": true, "allowed_domains_template": false, "max_ttl": "1h"}"#;
    let check = |old: &str, new: &str| {
        let text = good.replace(old, new);
        names(&[Source::new("packaging/vault/pki/roles/x.json", &text)]).len()
    };
    assert_eq!(check("", ""), 0);
    assert_eq!(check("\"use_csr_sans\": false", "\"use_csr_sans\": true"), 1);
    assert_eq!(check("\"max_ttl\": \"1h\"", "\"cn_validations\": [\"disabled\"]"), 2);
    let masters = "\"organization\": [\"system:masters\"], \"max_ttl\"";
    assert_eq!(check("\"max_ttl\"", masters), 1);
    let page = Source::new("docs/vault.md", "| `a`, `b` | are |\n");
    let data = [Source::new("packaging/vault/x.json", "${a}${b}${c}")];
    assert_eq!(values(&data, &page).len(), 1);
    let printed = "output \"vault_values\" {\n  value = {\n    a = 1\n    d = 2\n  }\n}\n";
    assert_eq!(outputs(&data, &Source::new("outputs.tf", printed)).len(), 1);
    assert_eq!(outputs(&data, &Source::new("outputs.tf", "")).len(), 1);
}

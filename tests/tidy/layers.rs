//! Who may import whom: docs/architecture.md has the table with its reasons, this is its test.
//! A path counts wherever it stands in code that is shipped, in a `use` or in the middle.

use crate::source::{Finding, Source};

/// The modules of each layer, from the bottom.
const LAYERS: [&[&str]; 6] = [
    &["error", "secret", "backoff", "version", "failpoint"],
    &["wire", "host"],
    &["node", "attest", "config"],
    &["duty", "bootstrap", "render"],
    &["agent", "status", "gate"],
    &["main", "cli", "logging"],
];

/// What is allowed across within one layer, beside the verbs, which see everything.
const ACROSS: &[(&str, &str)] = &[
    // The backoff depends on how an error is handled.
    ("backoff", "error"),
    // A point at which a test cuts the power is an error to who passes it.
    ("failpoint", "error"),
    // Which read of a failing disk fails is spread as the waits are.
    ("failpoint", "backoff"),
    // A node is made of what it was told and of who proves it.
    ("node", "attest"),
    ("node", "config"),
    // The configuration names a provider, and fills templates from an identity.
    ("config", "attest"),
    // What a bootstrap raises and the files that the duty writes and compares are rendered.
    ("bootstrap", "render"),
    ("duty", "render"),
    // The duty that watches the control plane runs the bootstrap; the duty of the files shares its
    // facts. A bootstrap uses what is published, and no other duty (below).
    ("duty", "bootstrap"),
    ("bootstrap", "duty"),
    // The loop publishes the status; nothing of the status knows the loop.
    ("agent", "status"),
];

/// The paths in a file that its layer does not allow.
pub(crate) fn findings(source: &Source) -> Vec<Finding> {
    let from = module(&source.path);
    let mut findings = Vec::new();
    for (at, to) in paths(&source.shipped, &from) {
        if let Err(why) = judge(&from, &to) {
            let advice = format!("{} must not use {}: {why}", from.join("::"), to.join("::"));
            findings.push(source.finding(at, "layers", advice));
        }
    }
    findings
}

/// The module that a file is.
fn module(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("agent/src/").trim_end_matches(".rs");
    inside.split('/').filter(|part| *part != "lib").map(String::from).collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn judge(from: &[String], to: &[String]) -> Result<(), String> {
    let (Some(here), Some(there)) = (from.first(), to.first()) else {
        return Ok(());
    };
    if here == there {
        return within(from, to);
    }
    let Some(below) = layer(there) else {
        return Ok(()); // An item of the crate's root, or `crate` in a macro.
    };
    let Some(above) = layer(here) else {
        return Err(format!("`{here}` is in no layer; give it one in tests/tidy/layers.rs"));
    };
    let second = to.get(1).map(String::as_str).unwrap_or_default();
    match here.as_str() {
        "main" | "cli" => Ok(()),
        "config" if there == "host" && second != "files" => {
            Err("the configuration reads files and asks nobody else".into())
        }
        "render" if !["config", "attest", "secret", "error"].contains(&there.as_str()) => {
            Err("rendering is pure: what it needs of the machine or of others is its input".into())
        }
        "bootstrap" if there == "duty" && second != "certs" => {
            Err("a bootstrap uses certificates; the duties use it".into())
        }
        "status" if there == "wire" => Err("the status is made of facts, not of answers".into()),
        "status" if there == "host" && second != "files" => {
            Err("the status is one file; everything in it comes from facts and records".into())
        }
        "wire" | "host" if below == above => Err("the edges do not know each other".into()),
        _ if below < above || ACROSS.contains(&(here.as_str(), there.as_str())) => Ok(()),
        _ => Err(format!("layer {above} sees the layers below it only, not layer {below}")),
    }
}

/// Within one top module most is free; the edges and the duties are not.
fn within(from: &[String], to: &[String]) -> Result<(), String> {
    let (Some(here), Some(there)) = (from.get(1), to.get(1)) else {
        return Ok(());
    };
    let is_item = there.starts_with(char::is_uppercase);
    if here == there || is_item {
        return Ok(());
    }
    match from[0].as_str() {
        "wire" if there != "http" => {
            Err("one service knows nothing of another; http is shared".into())
        }
        "host" => Err("one part of the machine knows nothing of another".into()),
        "duty" => match (here.as_str(), there.as_str()) {
            ("session", "certs" | "act") | ("certs", "session" | "act") | ("act", "session") => {
                Err("duties meet in facts and records; only act uses certs".into())
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Every path that begins with `crate` or `super`, from the crate's root, with where it stands.
fn paths(code: &str, from: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for at in Source::words(code, "crate::") {
        expand(&code[at + "crate::".len()..], Vec::new(), &mut |path| found.push((at, path)));
    }
    for at in Source::words(code, "super::") {
        if code[..at].ends_with("super::") || code[..at].ends_with("in ") {
            continue;
        }
        let mut rest = &code[at..];
        let mut base = from.to_vec();
        while let Some(shorter) = rest.strip_prefix("super::") {
            rest = shorter;
            base.pop();
        }
        expand(rest, base, &mut |path| found.push((at, path)));
    }
    found
}

/// Follows a path to its end, and into each branch of a `{…}`.
fn expand(text: &str, mut path: Vec<String>, emit: &mut dyn FnMut(Vec<String>)) {
    let mut rest = text;
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            for branch in branches(group) {
                expand(branch.trim(), path.clone(), emit);
            }
            return;
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end > 0 && &rest[..end] != "self" {
            path.push(rest[..end].to_string());
        }
        match rest[end..].strip_prefix("::") {
            Some(next) => rest = next,
            None => return emit(path),
        }
    }
}

/// The parts of a group that commas separate, up to its closing brace.
fn branches(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|branch| !branch.trim().is_empty());
    found
}

#[test]
fn an_import_against_the_table_is_found() {
    for (path, code, wrong) in [
        ("wire/vault.rs", "use crate::config::Config;", 1),
        ("wire/vault.rs", "use super::imds::Imds;", 1),
        ("wire/vault.rs", "use super::http::Http;", 0),
        ("wire/vault/sort.rs", "use super::super::http::place;", 0),
        ("wire/vault/sort.rs", "use super::super::super::host::files::Root;", 1),
        ("host/lock.rs", "use super::clock::Clock;", 1),
        ("host/clock.rs", "use super::Pending;", 0),
        ("config/check.rs", "use crate::host::{files::Root, clock::Clock};", 1),
        ("duty/act.rs", "use super::certs;", 0),
        ("duty/certs.rs", "fn f() { super::act::due() }", 1),
        ("duty/certs/leaf.rs", "use crate::duty::session::{self, renew_at};", 2),
        ("duty/certs.rs", "use crate::{agent, wire::vault::Vault};", 1),
        ("status.rs", "let x = crate::wire::tls::served();", 1),
        ("agent.rs", "use crate::status::{self, Status};", 0),
        ("status.rs", "use crate::agent;", 1),
        ("node.rs", "use crate::config::Config; use crate::attest::Attestor;", 0),
        ("render.rs", "use crate::config::Config; use crate::secret::Secret;", 0),
        ("render/pods.rs", "use crate::host::files::Root;", 1),
        ("render.rs", "use crate::node::Node; use crate::bootstrap::Step;", 2),
        ("bootstrap.rs", "use crate::render::Input;", 0),
        ("backoff.rs", "use crate::error::Kind; // use crate::agent;", 0),
        ("error.rs", "use crate::backoff;", 1),
        ("fresh.rs", "use crate::error::Kind;", 1),
        ("config.rs", "#[cfg(test)] mod t { use crate::agent::run; }", 0),
    ] {
        let source = Source::new(&format!("agent/src/{path}"), code);
        assert_eq!(findings(&source).len(), wrong, "{path}: {code}: {:?}", findings(&source));
    }
}

//! Rules for every text of the tree, whatever its language: nothing of one machine, no names of
//! package registries, no second TLS stack.

use crate::source::{Finding, Source};

/// Directories of somebody's machine. Written in two parts, so that this file does not hold them.
const MACHINE: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Where packages come from is each machine's own setting.
const REGISTRIES: &[&str] = &[
    concat!("index.crat", "es.io"),
    concat!("static.crat", "es.io"),
    concat!("proxy.golang", ".org"),
    concat!("sum.golang", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("files.pythonho", "sted.org"),
    concat!("deb.debi", "an.org"),
    concat!("artifact", "ory"),
];

/// Packages of a second TLS stack, or of one that needs a C library.
const FORBIDDEN: &[&str] =
    &["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "aws-lc-fips-sys"];

/// What is wrong with one text.
pub(crate) fn everywhere(source: &Source) -> Vec<Finding> {
    // What the tools of a language write is theirs.
    if source.path.ends_with("Cargo.lock") || source.path.ends_with("go.sum") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for word in MACHINE {
        for at in absolute(&source.text, word) {
            let advice = format!("{word} is of one machine; take it from the environment");
            findings.push(source.finding(at, "machine", advice));
        }
    }
    for word in REGISTRIES {
        for (at, _) in source.text.match_indices(word) {
            let advice = format!("{word} is a registry; that is the setting of a machine");
            findings.push(source.finding(at, "registry", advice));
        }
    }
    findings
}

/// Where a path begins; `pki/root/generate` is none.
fn absolute<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> {
    let inside = |c: char| c.is_alphanumeric() || "}._-*".contains(c);
    text.match_indices(word).map(|(at, _)| at).filter(move |at| !text[..*at].ends_with(inside))
}

/// Packages in Cargo.lock that must not be there.
pub(crate) fn packages(lock: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in FORBIDDEN {
        let line = format!("name = \"{name}\"\n");
        for (at, _) in lock.text.match_indices(&line) {
            let advice = format!("{name}: one TLS stack, rustls on ring; cargo tree -i {name}");
            findings.push(lock.finding(at, "packages", advice));
        }
    }
    findings
}

/// The rig must stay a peer of the agent, not a part: it never imports it.
pub(crate) fn rig(source: &Source) -> Vec<Finding> {
    let text = if source.path.ends_with(".rs") { &source.code } else { &source.text };
    let words = ["nodeagent::", "nodeagent.workspace", "nodeagent ="];
    let places = words.into_iter().flat_map(|word| Source::words(text, word));
    let advice = "the rig never imports nodeagent: what both believe would go untested";
    places.map(|at| source.finding(at, "rig", advice)).collect()
}

#[test]
fn what_is_of_one_machine_is_found() {
    for (text, rule) in [
        (format!("cd {}x", MACHINE[0]), "machine"),
        (format!("url = {}", REGISTRIES[0]), "registry"),
    ] {
        let found = everywhere(&Source::new("tests/run", &text));
        assert_eq!(found.iter().map(|f| f.rule).collect::<Vec<_>>(), [rule], "{text}");
    }
    let path_of_vault = Source::new("x", &format!("POST /v1/pki{}generate", MACHINE[1]));
    assert_eq!(everywhere(&path_of_vault), []);
    let lock = Source::new("Cargo.lock", "[[package]]\nname = \"openssl\"\n");
    assert_eq!(packages(&lock).len(), 1);
    let import = Source::new("tests/rig/src/x.rs", "use nodeagent::config;");
    assert_eq!(rig(&import).len(), 1);
}

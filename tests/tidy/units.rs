//! Rules for units: no shell, a gate for every consumer that has a unit, and nothing that would
//! let the agent's end be a consumer's.

use nodeagent::config::{Role, catalog};
use nodeagent::error::Kind;

use crate::source::{Finding, Source};

/// What a line with a shell in it would have.
const SHELL: &[&str] = &["/sh ", "/bash ", "/env ", " -c ", "|", ";", "&&", "$(", "`", ">", "<"];

/// What is wrong with one unit.
pub(crate) fn unit(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut at = 0;
    for line in source.text.lines() {
        let start = at;
        at += line.len() + 1;
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        if key.starts_with("Exec") {
            let program = value.trim_start_matches(['-', '@', ':', '+', '!']);
            let found = program.starts_with('/') || source.text.contains("\nExecSearchPath=/");
            if !found || SHELL.iter().any(|part| value.contains(part)) {
                let advice = "an absolute program or one of ExecSearchPath=, and no shell";
                findings.push(source.finding(start, "exec", advice));
            }
        }
        let binds = ["Requires", "BindsTo", "Requisite", "PartOf", "Upholds"].contains(&key);
        if binds && value.split_whitespace().any(|unit| unit == "nodeagent.service") {
            let advice = "the agent's end would be this unit's; want it, or wait at the gate";
            findings.push(source.finding(start, "bound", advice));
        }
    }
    if !source.text.starts_with('#') {
        findings.push(source.finding(0, "head", "begin with a comment: what it is, and why"));
    }
    findings
}

/// Calls, signals and properties of D-Bus that a page does not name.
pub(crate) fn untold(bus: &Source, page: &Source) -> Vec<Finding> {
    let first = bus.text.find("#[zbus::proxy(").expect("the interfaces of systemd");
    let mut findings = Vec::new();
    for (at, _) in bus.text[first..].match_indices("    fn ") {
        let name = bus.text[first + at + 7..].split('(').next().unwrap_or_default();
        let camel: String = name
            .split('_')
            .map(|word| match word {
                "id" => "ID".to_owned(),
                word => word[..1].to_uppercase() + &word[1..],
            })
            .collect();
        if !page.text.contains(&format!("`{camel}`")) {
            let advice = format!("{camel} is called on D-Bus, and {} does not say so", page.path);
            findings.push(bus.finding(first + at, "dbus", advice));
        }
    }
    findings
}

/// The units of the catalogue's consumers, each with its consumer.
pub(crate) fn consumers() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (_, text) in catalog::layers(Role::Controller) {
        let table: toml::Table = text.parse().expect("the catalogue is TOML");
        let consumers = table["consumer"].as_array().expect("a list of consumers");
        for consumer in consumers {
            let name = consumer["name"].as_str().expect("a name");
            if let Some(unit) = consumer.get("unit").and_then(|unit| unit.as_str()) {
                found.push((unit.to_string(), name.to_string()));
            }
        }
    }
    found
}

/// A consumer without its drop-in, and a drop-in without its consumer.
pub(crate) fn drop_ins(sources: &[Source], consumers: &[(String, String)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let path = |unit: &str| format!("units/system/{unit}.d/10-nodeagent.conf");
    for (unit, consumer) in consumers {
        let path = path(unit);
        let gates = |source: &&Source| {
            let gate = "nodeagent-gate@%N.service";
            let line = |key: &str| source.text.lines().any(|line| line == format!("{key}={gate}"));
            source.path == path && line("Requires") && line("After")
        };
        if unit.trim_end_matches(".service") != consumer || !sources.iter().any(|s| gates(&s)) {
            let advice = format!(
                "{unit} of consumer {consumer} needs Requires= and After=nodeagent-gate@%N.service"
            );
            findings.push(Finding { place: format!("{path}:1"), rule: "gate", advice });
        }
    }
    for source in sources {
        let known = consumers.iter().any(|(unit, _)| source.path == path(unit));
        if source.path.ends_with("/10-nodeagent.conf") && !known {
            let advice = "the catalogue has no consumer with this unit; take the drop-in out";
            findings.push(source.finding(0, "gate", advice));
        }
    }
    findings
}

/// The exit codes that another start does not cure, as the unit has to list them.
pub(crate) fn hopeless() -> String {
    let codes = [Kind::Usage, Kind::Config].map(Kind::exit_code);
    format!("RestartPreventExitStatus={} {}", codes[0], codes[1])
}

#[test]
fn a_shell_and_a_bond_are_found() {
    for (text, rule) in [
        ("# x\n[Service]\nExecStart=/bin/sh -c 'true'\n", "exec"),
        ("# x\n[Service]\nExecStart=nodeagent run\n", "exec"),
        ("# x\n[Unit]\nRequires=nodeagent.service\n", "bound"),
        ("[Unit]\nWants=nodeagent.service\n", "head"),
    ] {
        let found = unit(&Source::new("units/system/x.service", text));
        assert_eq!(found.iter().map(|f| f.rule).collect::<Vec<_>>(), [rule], "{text}");
    }
    let consumers = [("a.service".to_string(), "a".to_string())];
    let path = "units/system/a.service.d/10-nodeagent.conf";
    let good = "Requires=nodeagent-gate@%N.service\nAfter=nodeagent-gate@%N.service\n";
    assert_eq!(drop_ins(&[], &consumers).len(), 1);
    assert_eq!(drop_ins(&[Source::new(path, "Requires=x\n")], &consumers).len(), 1);
    assert_eq!(drop_ins(&[Source::new(path, good)], &consumers), []);
    assert_eq!(drop_ins(&[Source::new(path, good)], &[]).len(), 1);
}

#[test]
fn a_call_that_no_page_names_is_found() {
    let bus =
        "#[zbus::proxy(x)]\ntrait X {\n    fn load_unit(&self);\n    fn invocation_id(&self);\n}\n";
    let found = |page: &str| {
        untold(&Source::new("x.rs", bus), &Source::new("docs/security.md", page)).len()
    };
    assert_eq!(found("`LoadUnit`, `InvocationID`"), 0);
    assert_eq!(found("`LoadUnit`"), 1);
    assert_eq!(found(""), 2);
}

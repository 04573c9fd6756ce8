//! The rules of the house, as tests: docs/architecture.md has them with their reasons. A finding
//! is `file:line: rule: what to do`. Each rule is also shown something that it has to refuse.
//!
//! `NODEAGENT_BLESS=1` writes the generated files anew instead of comparing them.

mod absences;
mod docs;
mod fuzz;
mod layers;
mod metrics;
mod promises;
mod source;
mod style;
mod texts;
mod units;
mod vault;

use source::{Finding, one, rust, tree};

fn refuse(findings: Vec<Finding>) {
    let lines: Vec<_> = findings
        .iter()
        .map(|found| format!("{}: {}: {}", found.place, found.rule, found.advice))
        .collect();
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn modules_import_only_what_their_layer_allows() {
    refuse(rust(&tree(), "agent/src/").flat_map(layers::findings).collect());
}

#[test]
fn rust_follows_the_rules_of_the_hand() {
    refuse(rust(&tree(), "").flat_map(style::everywhere).collect());
}

#[test]
fn the_agent_does_some_things_in_one_place_only() {
    refuse(rust(&tree(), "agent/src/").flat_map(style::agent).collect());
}

#[test]
fn no_text_is_of_one_machine() {
    refuse(tree().iter().flat_map(texts::everywhere).collect());
}

#[test]
fn there_is_one_tls_stack() {
    refuse(texts::packages(one(&tree(), "Cargo.lock")));
}

#[test]
fn the_rig_does_not_know_the_agent() {
    let sources = tree();
    let manifest = one(&sources, "tests/rig/Cargo.toml");
    let files = rust(&sources, "tests/rig/").chain([manifest]);
    refuse(files.flat_map(texts::rig).collect());
}

#[test]
fn z22_units_have_no_shell_and_are_not_bound_to_the_agent() {
    let sources = tree();
    let places = ["units/system/", "ignition/units/"];
    let here = |path: &str| places.iter().any(|place| path.starts_with(place));
    let units = sources.iter().filter(|source| here(&source.path));
    refuse(units.flat_map(units::unit).collect());
}

#[test]
fn every_consumer_with_a_unit_waits_at_its_gate() {
    refuse(units::drop_ins(&tree(), &units::consumers()));
}

#[test]
fn the_unit_knows_the_exit_codes_that_another_start_does_not_cure() {
    let sources = tree();
    let unit = one(&sources, "units/system/nodeagent.service");
    let wanted = units::hopeless();
    assert!(unit.text.lines().any(|line| line == wanted), "{}: want {wanted}", unit.path);
}

#[test]
fn every_fuzz_target_is_run_on_what_is_shipped() {
    refuse(fuzz::findings(&tree(), &fuzz::corpora()));
}

#[test]
fn every_call_to_systemd_is_told() {
    let sources = tree();
    let bus = one(&sources, "agent/src/host/units.rs");
    refuse(units::untold(bus, one(&sources, "docs/security.md")));
}

#[test]
fn what_is_generated_equals_the_code() {
    refuse(docs::outdated());
}

#[test]
fn every_problem_has_its_entry() {
    refuse(docs::entries(one(&tree(), "docs/operating.md")));
}

#[test]
fn every_step_of_a_bootstrap_is_explained() {
    refuse(docs::steps(one(&tree(), "docs/control-plane.md")));
}

#[test]
fn every_metric_is_listed() {
    refuse(metrics::listed(one(&tree(), "docs/metrics.md")));
}

#[test]
fn every_alert_is_explained_and_tried() {
    let sources = tree();
    let rules = one(&sources, "packaging/alerts/nodeagent.rules.yaml");
    refuse(metrics::judged(rules, one(&sources, "docs/operating.md")));
    refuse(metrics::explained(rules, one(&sources, "docs/metrics.md")));
    refuse(metrics::tried(rules, one(&sources, "tests/alerts/nodeagent.test.yaml")));
}

#[test]
fn vault_lets_nodes_ask_for_what_the_catalogue_names() {
    refuse(vault::catalogue(&tree()));
}

#[test]
fn z07_no_role_of_vault_lets_a_node_choose_its_name() {
    refuse(vault::names(&tree()));
}

#[test]
fn every_value_of_vaults_data_is_explained() {
    let sources = tree();
    refuse(vault::values(&sources, one(&sources, "docs/vault.md")));
    refuse(vault::outputs(&sources, one(&sources, "packaging/terraform/aws/outputs.tf")));
}

#[test]
fn every_link_leads_somewhere() {
    let sources = tree();
    let pages = sources.iter().filter(|source| source.path.ends_with(".md"));
    refuse(pages.flat_map(docs::links).collect());
}

#[test]
fn z01_nothing_of_ours_reboots_a_machine() {
    refuse(absences::reboots(&tree()));
}

#[test]
fn z11_the_list_of_etcds_members_is_never_changed() {
    refuse(absences::members(&tree()));
}

#[test]
fn z17_no_group_replaces_a_controller_and_no_balancer_ends_a_node() {
    refuse(absences::groups(&tree()));
}

#[test]
fn z18_what_a_node_fetches_has_a_hash() {
    refuse(absences::fetches(&tree()));
}

#[test]
fn z23_nothing_works_around_terraform() {
    refuse(absences::workarounds(&tree()));
}

#[test]
fn every_promise_names_the_tests_that_show_it() {
    refuse(promises::findings(&tree()));
}

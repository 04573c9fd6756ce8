//! What is asked of the HCL as text: every input typed and described, every rule refused once by a
//! test, nothing that works around Terraform.

use std::collections::BTreeMap;
use std::path::Path;

use super::hcl::{Block, blocks};

/// What has no place here, and what to do instead.
const NEVER: [(&str, &str); 9] = [
    ("provisioner \"", "Ignition places files and the agent does the rest"),
    ("local-exec", "Terraform runs no programs"),
    ("remote-exec", "Terraform runs no programs"),
    ("\"null_resource\"", "it only carries provisioners"),
    ("\"terraform_data\"", "it only carries provisioners"),
    ("\"time_sleep\"", "whoever needs something waits for it"),
    ("\"aws_iam_user", "instances have roles"),
    ("\"aws_iam_access_key\"", "instances have roles, and state has no secrets"),
    ("\"tls_private_key\"", "keys are made where they are used, and state has no secrets"),
];

/// What is missing or too much below a directory, one line each.
pub(super) fn findings(directory: &Path) -> Vec<String> {
    let blocks = blocks(directory, ".tf");
    assert!(blocks.len() > 50, "only {} blocks are read", blocks.len());
    let mut found = Vec::new();
    for block in &blocks {
        let name = format!("{}: {}", block.place, block.reference());
        for argument in wanted(block) {
            if !block.has(argument) {
                found.push(format!("{name} has no {argument}"));
            }
        }
        let head = format!("{} \"{}\"", block.kind, block.labels.join("\" \""));
        for (word, instead) in NEVER {
            if head.contains(word) || block.body.contains(word) {
                found.push(format!("{name} says {word}: {instead}"));
            }
        }
        if block.kind == "provider" && !block.module.contains("examples") {
            found.push(format!("{name}: a module that has a provider cannot be given another"));
        }
    }
    found
}

fn wanted(block: &Block) -> &'static [&'static str] {
    let kind = block.labels.first().map_or("", String::as_str);
    match (block.kind.as_str(), kind) {
        ("variable", _) => &["description", "type"],
        ("output", _) => &["description"],
        ("resource", "aws_security_group") => &["description"],
        ("resource", kind) if kind.starts_with("aws_vpc_security_group_") => &["description"],
        _ => &[],
    }
}

/// The rules that fewer tests than there are see refused: a rule without a test is a claim.
pub(super) fn untested(directory: &Path) -> (usize, Vec<String>) {
    let mut rules: BTreeMap<(String, String), usize> = BTreeMap::new();
    for block in blocks(directory, ".tf").iter().filter(|block| block.rules() > 0) {
        *rules.entry((block.module.clone(), block.reference())).or_default() += block.rules();
    }
    let mut refused: BTreeMap<(String, String), usize> = BTreeMap::new();
    for run in blocks(directory, ".tftest.hcl").iter().filter(|block| block.kind == "run") {
        let module = run.module.trim_end_matches("tests").trim_end_matches('/');
        for target in expected(&run.body) {
            *refused.entry((module.to_owned(), target)).or_default() += 1;
        }
    }
    let fewer = |((module, target), rules): (&(String, String), &usize)| {
        let tests = refused.get(&(module.clone(), target.clone())).copied().unwrap_or(0);
        (tests < *rules).then(|| format!("{module}: {target} has {rules} rules, {tests} refused"))
    };
    (rules.values().sum(), rules.iter().filter_map(fewer).collect())
}

/// What a run says that will fail.
fn expected(body: &str) -> Vec<String> {
    let Some((_, list)) = body.split_once("expect_failures") else {
        return Vec::new();
    };
    let list = list.split_once('[').map_or("", |(_, list)| list);
    let list = list.split(']').next().unwrap_or_default();
    let names = list.split([',', '\n']).map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

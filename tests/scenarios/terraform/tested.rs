//! `terraform test`, read: how each run ended, and what it planned.

use std::collections::BTreeSet;

use rig::terraform::{Terraform, files_below};
use serde_json::Value;

use super::hcl::blocks;

/// What one run planned.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) run: String,
    pub(super) resources: Vec<Resource>,
    /// The whole of it.
    pub(super) text: String,
}

/// A resource as it would be.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) address: String,
    pub(super) kind: String,
    pub(super) after: Value,
}

/// How the runs of a module ended.
#[derive(Debug, Default)]
pub(super) struct Tested {
    pub(super) passed: usize,
    /// What was said of those that failed.
    pub(super) failed: Vec<String>,
    pub(super) plans: Vec<Plan>,
}

/// Runs the tests of all modules: a file at a time, and the files beside each other.
pub(super) fn tested(terraform: &Terraform) -> Result<Tested, String> {
    let files = test_files(terraform)?;
    let mut modules: Vec<_> = files.iter().map(|(module, _)| module).collect();
    modules.dedup();
    for module in modules {
        terraform.succeed(module, &["get", "-no-color"])?;
    }
    let reports = std::thread::scope(|scope| {
        let start = |(module, file): &(String, String)| {
            let (module, file) = (module.clone(), file.clone());
            scope.spawn(move || run_file(terraform, &module, &file))
        };
        let running: Vec<_> = files.iter().map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().map_err(|_| "a test panicked".to_owned()).flatten()
        };
        running.into_iter().map(join).collect::<Vec<Result<Tested, String>>>()
    });
    let mut all = Tested::default();
    for report in reports {
        let report = report?;
        all.passed += report.passed;
        all.failed.extend(report.failed);
        all.plans.extend(report.plans);
    }
    // What is refused is planned in part: its rest would look as if it were missing.
    let refused = refused(terraform);
    all.plans.retain(|plan| !refused.contains(&plan.run));
    Ok(all)
}

/// The runs that have to fail, by their names in reports.
fn refused(terraform: &Terraform) -> BTreeSet<String> {
    let runs = blocks(terraform.path(), ".tftest.hcl");
    let refused = runs.iter().filter(|block| block.body.contains("expect_failures"));
    refused.map(|block| format!("{} {}", block.place, block.labels.join(" "))).collect()
}

/// The files of tests, as the module that has them and the path in it.
pub(super) fn test_files(terraform: &Terraform) -> Result<Vec<(String, String)>, String> {
    let root = terraform.path();
    let found = files_below(root)?.into_iter().filter_map(|path| {
        let path = path.strip_prefix(root).ok()?.to_string_lossy().into_owned();
        let (module, name) = path.split_once("/tests/")?;
        // Those of a folder of their own are run on their own.
        let here = name.ends_with(".tftest.hcl") && !name.contains('/');
        here.then(|| (module.to_owned(), format!("tests/{name}")))
    });
    Ok(found.collect())
}

/// The report of one file.
pub(super) fn run_file(terraform: &Terraform, module: &str, file: &str) -> Result<Tested, String> {
    let filter = format!("-filter={file}");
    let output = terraform.run(module, &["test", "-json", "-verbose", &filter])?;
    let mut report = Tested::default();
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let run = line["@testrun"].as_str().unwrap_or("(file)");
        let name = format!("{module}/{file} {run}");
        match line["type"].as_str() {
            Some("test_summary") => {
                report.passed += line["test_summary"]["passed"].as_u64().unwrap_or(0) as usize;
            }
            Some("test_plan") => report.plans.push(plan(name, &line["test_plan"])),
            Some("diagnostic") if line["diagnostic"]["severity"] == "error" => {
                report.failed.push(format!("{name}: {}", diagnostic(&line["diagnostic"])));
            }
            _ => {}
        }
    }
    if !output.status.success() && report.failed.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        report.failed.push(format!("{module}/{file}: {} {said}", output.status));
    }
    Ok(report)
}

fn diagnostic(found: &Value) -> String {
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    let at = &found["range"];
    let file = at["filename"].as_str().unwrap_or_default();
    format!("{file}:{} {} {}", at["start"]["line"], text("summary"), text("detail"))
}

fn plan(run: String, plan: &Value) -> Plan {
    let changes = plan["resource_changes"].as_array().into_iter().flatten();
    let resources = changes.map(|change| Resource {
        address: change["address"].as_str().unwrap_or_default().to_owned(),
        kind: change["type"].as_str().unwrap_or_default().to_owned(),
        after: change["change"]["after"].clone(),
    });
    let resources = resources.collect();
    let outputs = &plan["output_changes"];
    let changes = &plan["resource_changes"];
    Plan { run, resources, text: format!("{changes}\n{outputs}") }
}

//! What packaging/terraform ships, with the real Terraform: it is formatted, fits the schema of the
//! AWS provider, and its own tests pass; and no plan of those tests, whatever its shape, is open,
//! without encryption or with a secret. Each look is seen to find what is planted for it.

mod hcl;
mod rules;
mod scans;
mod tested;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use rig::peer::process::find;
use rig::terraform::{Terraform, files_below, shipped};

use crate::play::{skip, text_of};
use scans::SCANS;
use tested::{Tested, run_file, tested};

/// Shared by the tests that look at it: it is most of the time of this part.
static TESTED: LazyLock<Result<Tested, String>> = LazyLock::new(|| tested(&copy()?));

fn copy() -> Result<Terraform, String> {
    Terraform::copy()?.with_aws()
}

/// A copy to plant faults in; none where there is no Terraform.
fn fresh() -> Option<Terraform> {
    copy().map_or_else(|reason| skip(&reason), Some)
}

fn modules_own_tests() -> Option<&'static Tested> {
    // What is missing is told by the copy; what then goes wrong is a failure.
    fresh()?;
    Some(TESTED.as_ref().expect("the modules' tests are run"))
}

/// The directories that hold a configuration.
fn modules(terraform: &Terraform) -> BTreeSet<String> {
    let files = files_below(terraform.path()).expect("the files are read");
    let modules = files.iter().filter(|path| path.extension().is_some_and(|it| it == "tf"));
    let below = |path: &Path| path.strip_prefix(terraform.path()).map(Path::to_path_buf);
    let modules = modules.filter_map(|path| below(path.parent()?).ok());
    modules.map(|path| path.display().to_string()).collect()
}

#[test]
fn everything_is_formatted() {
    let Some(terraform) = fresh() else {
        return;
    };
    let look = || terraform.succeed("", &["fmt", "-check", "-recursive", "-diff", "-no-color"]);
    look().expect("it is formatted: terraform fmt -recursive packaging/terraform");
    terraform.plant("aws/main.tf", &[("locals {", "locals  {")]).expect("planted");
    assert!(look().expect_err("it is not").contains("aws/main.tf"));
}

#[test]
fn each_module_and_example_fits_the_providers_schema() {
    let Some(terraform) = fresh() else {
        return;
    };
    let modules = modules(&terraform);
    assert!(modules.len() >= 4, "only {modules:?}");
    let validate = |place: &str| {
        terraform.succeed(place, &["get", "-no-color"])?;
        terraform.succeed(place, &["validate", "-no-color"])
    };
    for module in &modules {
        validate(module).unwrap_or_else(|said| panic!("{module}: {said}"));
    }
    // What the schema knows: arguments, those that have to be, blocks, types, and what can be read.
    let odd = "resource \"aws_ebs_volume\" \"odd\" {\n  size = 1\n  sise = 1\n}\n\
               resource \"aws_ebs_volumes\" \"odd\" {}\n\
               resource \"aws_lb\" \"odd\" {\n  health {}\n}\n\
               output \"odd\" {\n  value = aws_ebs_volume.etcd[\"a\"].sizes\n}\n";
    std::fs::write(terraform.path().join("aws/odd.tf"), odd).expect("planted");
    let said = validate("aws").expect_err("it does not fit");
    for wanted in [
        "\"availability_zone\" is required",
        "An argument named \"sise\" is not expected",
        "does not support resource type \"aws_ebs_volumes\"",
        "Blocks of type \"health\" are not expected",
        "no argument, nested block, or exported attribute named \"sizes\"",
    ] {
        assert!(words(&said).contains(&words(wanted)), "no {wanted:?} in {said}");
    }
}

/// Terraform breaks its lines where it likes.
fn words(text: &str) -> String {
    text.split(['\n', '│', ' ']).collect()
}

#[test]
fn the_modules_own_tests_pass() {
    let Some(tested) = modules_own_tests() else {
        return;
    };
    assert!(tested.failed.is_empty(), "{}", tested.failed.join("\n"));
    assert!(tested.passed > 50, "only {} runs passed", tested.passed);
    println!("terraform: {} runs passed, {} plans", tested.passed, tested.plans.len());
}

#[test]
fn no_plan_is_open_or_has_a_secret() {
    let Some(tested) = modules_own_tests() else {
        return;
    };
    let planned = tested.plans.iter().map(|plan| plan.resources.len()).sum::<usize>();
    assert!(planned > 500, "only {planned} resources in {} plans", tested.plans.len());
    let found: Vec<_> =
        SCANS.iter().flat_map(|scan| tested.plans.iter().flat_map(scan.1)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    println!("terraform: {planned} resources planned");
}

#[test]
fn an_apply_touches_no_controller_and_a_replaced_one_keeps_its_volume() {
    let Some(terraform) = fresh() else {
        return;
    };
    // What is to be kept is guarded, and a test has to clear away what it applied.
    terraform
        .plant("aws/controllers.tf", &[("    prevent_destroy = true\n", "")])
        .expect("guarded");
    let folder = "-test-directory=tests/replaced";
    terraform.succeed("aws", &["get", "-no-color", folder]).expect("modules are found");
    let site = "-var-file=tests/site.auto.tfvars";
    let test = ["test", "-json", "-verbose", site, folder];
    let said = terraform.succeed("aws", &test).expect("its tests pass");
    assert!(said.contains("Success! ") && !said.contains("Success! 0 passed"), "{said}");
    assert!(said.contains("\"test_state\""), "no state is told: {said}");
    let found = scans::secrets_in(&said);
    assert!(found.is_empty(), "the state has what looks like a secret: {found:?}");
}

/// Faults in the HCL, as a tired person would make them.
const FAULTS: [(&str, &str, &str); 5] = [
    ("controllers", "http_tokens                 = \"required\"", "http_tokens = \"optional\""),
    ("workers", "http_put_response_hop_limit = 1", "http_put_response_hop_limit = 2"),
    ("controllers", "encrypted         = true", "encrypted = false"),
    ("workers", "encrypted             = true", "encrypted = false"),
    ("storage", "block_public_policy     = true", "block_public_policy = false"),
];

/// And what has no place among it at all.
const ODD: &str = r#"
resource "aws_vpc_security_group_ingress_rule" "odd" {
  security_group_id = aws_security_group.this["workers"].id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_s3_bucket" "odd" {
  bucket = "odd"
  tags   = { key = "AKIA0000000000000000" }
}
"#;

/// With a secret in the user-data.
const ODD_RUN: &str = r##"
run "odd" {
  command = plan

  variables {
    worker_pools = { plain = { instance_type = "m6i.large", min = 1, max = 3 } }
    extra_config = { worker = "# \"s.0000" }
  }
}
"##;

#[test]
fn the_scans_find_what_is_planted() {
    let Some(terraform) = fresh() else {
        return;
    };
    for (file, from, to) in FAULTS {
        terraform.plant(&format!("aws/{file}.tf"), &[(from, to)]).expect("planted");
    }
    let write = |place: &str, text: &str| {
        std::fs::write(terraform.path().join(place), text).expect("planted");
    };
    write("aws/odd.tf", ODD);
    let shapes = terraform.path().join("aws/tests/shapes.tftest.hcl");
    let shapes = std::fs::read_to_string(shapes).expect("it is there");
    let (head, _) = shapes.split_once("\nrun ").expect("it has runs");
    write("aws/tests/odd.tftest.hcl", &format!("{head}\n{ODD_RUN}"));
    terraform.succeed("aws", &["get", "-no-color"]).expect("modules are found");
    let tested = run_file(&terraform, "aws", "tests/odd.tftest.hcl").expect("it runs");
    assert!(tested.failed.is_empty(), "{}", tested.failed.join("\n"));
    let [plan] = tested.plans.as_slice() else { panic!("{} plans", tested.plans.len()) };
    let found: Vec<_> = SCANS.iter().flat_map(|scan| scan.1(plan)).collect();
    for wanted in [
        "aws_vpc_security_group_ingress_rule.odd is open",
        "aws_instance.controller[\"controller-0\"] does not require IMDSv2",
        "aws_launch_template.worker[\"plain\"] does not require IMDSv2",
        "aws_ebs_volume.etcd[\"controller-0\"] is not encrypted",
        "aws_launch_template.worker[\"plain\"] is not encrypted",
        "bucket without aws_s3_bucket_server_side_encryption_configuration",
        "aws_s3_bucket_public_access_block.this[0] leaves the bucket open",
        "bucket without aws_s3_bucket_versioning",
        "\"AKIA\" looks like a secret",
        "\"\\\"s.\" looks like a secret",
    ] {
        assert!(found.iter().any(|line| line.contains(wanted)), "no {wanted:?} in {found:#?}");
    }
}

#[test]
fn inputs_and_rules_are_described_and_nothing_works_around_terraform() {
    let found = rules::findings(&shipped());
    assert!(found.is_empty(), "{}", found.join("\n"));
    let Some(terraform) = fresh() else {
        return;
    };
    let odd = "variable \"odd\" {}\n\noutput \"odd\" {\n  value = 1\n}\n\n\
               resource \"aws_iam_user\" \"odd\" {\n  name = \"odd\"\n}\n\n\
               resource \"aws_eip\" \"odd\" {\n  provisioner \"local-exec\" {\n    \
               command = \"sleep 60\"\n  }\n}\n";
    std::fs::write(terraform.path().join("aws/odd.tf"), odd).expect("planted");
    let found = rules::findings(terraform.path());
    for wanted in [
        "aws/odd.tf: var.odd has no description",
        "aws/odd.tf: var.odd has no type",
        "aws/odd.tf: output.odd has no description",
        "aws/odd.tf: aws_iam_user.odd says \"aws_iam_user: ",
        "aws/odd.tf: aws_eip.odd says provisioner \": ",
        "aws/odd.tf: aws_eip.odd says local-exec: ",
    ] {
        assert!(found.iter().any(|line| line.contains(wanted)), "no {wanted:?} in {found:#?}");
    }
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn every_rule_is_refused_once() {
    let (rules, untested) = rules::untested(&shipped());
    assert!(untested.is_empty(), "{}", untested.join("\n"));
    assert!(rules > 60, "only {rules} rules are read");
    println!("terraform: {rules} rules");
    let Some(terraform) = fresh() else {
        return;
    };
    let odd = "variable \"odd\" {\n  validation {\n    condition = true\n  }\n}\n";
    std::fs::write(terraform.path().join("aws/odd.tf"), odd).expect("planted");
    let (_, untested) = rules::untested(terraform.path());
    assert_eq!(untested, ["aws: var.odd has 1 rules, 0 refused"]);
}

/// checkov's answer over a directory, as JSON.
fn checkov(program: &Path, directory: &Path) -> serde_json::Value {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(program);
    command.arg("--directory").arg(directory).args(["--framework", "terraform"]);
    command.args(["--skip-download", "--compact", "--output", "json"]);
    // Nothing of it leaves the machine, and nothing of us changes what it looks for.
    command.env_clear().env("HOME", home.path()).env("PATH", "/usr/bin:/bin");
    let output = command.current_dir(home.path()).output().expect("checkov runs");
    let answer = serde_json::from_slice(&output.stdout);
    answer.unwrap_or_else(|error| panic!("{error}: {}", text_of(&output)))
}

#[test]
fn checkov_finds_nothing_or_is_told_why_not() {
    let program = match find("checkov", "checkov") {
        Ok(program) => program,
        Err(reason) => return skip(&reason).unwrap_or_default(),
    };
    let Some(terraform) = fresh() else {
        return;
    };
    let answer = checkov(&program, terraform.path());
    let failed = answer["results"]["failed_checks"].as_array().expect("a list of failed checks");
    let name = |check: &serde_json::Value| {
        format!("{} {} {}", check["check_id"], check["resource"], check["check_name"])
    };
    assert!(failed.is_empty(), "{}", failed.iter().map(name).collect::<Vec<_>>().join("\n"));
    let passed = answer["summary"]["passed"].as_u64().unwrap_or(0);
    assert!(passed > 50, "only {passed} checks passed");
    let skipped = answer["results"]["skipped_checks"].as_array().expect("a list of skipped ones");
    for check in skipped {
        let reason = check["check_result"]["suppress_comment"].as_str().unwrap_or_default();
        assert!(reason.split(' ').count() > 3, "{}: skipped for {reason:?}", name(check));
    }
    println!("terraform: checkov {passed} passed, {} skipped with a reason", skipped.len());
    terraform.plant("aws/controllers.tf", &[("encrypted         = true", "")]).expect("planted");
    let answer = checkov(&program, terraform.path());
    let failed = answer["results"]["failed_checks"].as_array().expect("a list of failed checks");
    assert!(failed.iter().any(|check| check["check_id"] == "CKV_AWS_3"), "{failed:#?}");
}

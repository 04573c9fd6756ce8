//! What Ignition places on a node: the committed files are what the real Butane makes, the
//! user-data that the real Terraform renders of them is read by the real Ignition, and what it
//! places is a configuration that the agent takes. NODEAGENT_BLESS=1 writes the files anew.

mod placed;
mod site;
mod volume;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use rig::peer::process::find;
use rig::pki::Ca;
use serde_json::{Value, json};

use crate::play::{skip, text_of};
use placed::Placed;

/// The parts of a node, each `ignition/NAME.bu` and `NAME.ign` of the Terraform module.
const PARTS: [&str; 5] = ["base", "binary", "sysext", "controller", "worker"];
const MODULE: &str = "packaging/terraform/aws/modules/user-data";
/// What EC2 takes.
const MOST: usize = 16384;

const ROLES: [&str; 2] = ["controller", "worker"];
const KINDS: [&str; 2] = ["binary", "sysext"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The program of a peer; where it is not built, the test is skipped.
fn peer(peer: &str, program: &str) -> Option<PathBuf> {
    find(peer, program).map_or_else(|reason| skip(&reason), Some)
}

fn blessing() -> bool {
    std::env::var("NODEAGENT_BLESS").is_ok_and(|value| value == "1")
}

fn is_kept(place: &str, found: &str) {
    let path = repository().join(place);
    if blessing() {
        std::fs::write(&path, found).expect("the file is written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == found, "{place} differs; NODEAGENT_BLESS=1 rewrites it. Now:\n{found}");
}

/// Butane's answer to a source, with the files of a directory.
fn translate(butane: &Path, source: &str, files: &Path) -> Output {
    let input = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(input.path(), source).expect("it is written");
    let input = std::fs::File::open(input.path()).expect("it is there");
    let mut command = Command::new(butane);
    command.arg(files).stdin(Stdio::from(input)).output().expect("butane runs")
}

/// Has Butane translate every part, and compares. Once: what the other tests render is made of
/// these files, so where they are written anew it is before anything is rendered.
fn translate_all(butane: &Path) {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().expect("one that failed fails all");
    if *done {
        return;
    }
    for part in PARTS {
        let source = repository().join(format!("ignition/{part}.bu"));
        let source = std::fs::read_to_string(source).expect("it is there");
        let output = translate(butane, &source, &repository());
        assert!(output.status.success(), "ignition/{part}.bu: {}", text_of(&output));
        let found = String::from_utf8(output.stdout).expect("Ignition is text");
        is_kept(&format!("{MODULE}/{part}.ign"), &found);
    }
    *done = true;
}

#[test]
fn the_committed_ignition_is_what_butane_makes_of_the_sources() {
    if let Some(butane) = peer("butane", "butane") {
        translate_all(&butane);
    }
}

#[test]
fn what_butane_warns_of_or_does_not_find_is_an_error() {
    let Some(butane) = peer("butane", "butane") else {
        return;
    };
    let head = "variant: flatcar\nversion: 1.1.0\n";
    for (wrong, says) in [
        ("storage:\n  files:\n    - path: /x\n      modes: 1\n", "modes"),
        ("storage:\n  files:\n    - path: /x\n      mode: 644\n", "mode"),
        ("systemd:\n  units:\n    - name: x.service\n      contents_local: gone\n", "gone"),
    ] {
        let output = translate(&butane, &format!("{head}{wrong}"), &repository());
        let said = text_of(&output);
        assert!(!output.status.success() && said.contains(says), "{wrong}{said}");
    }
}

#[test]
fn ignition_finds_nothing_wrong_with_the_committed_files() {
    let validate = peer("ignition", "ignition-validate");
    let (Some(validate), Some(butane)) = (validate, peer("butane", "butane")) else {
        return;
    };
    translate_all(&butane);
    for part in PARTS {
        let path = repository().join(format!("{MODULE}/{part}.ign"));
        let output = Command::new(&validate).arg(path).output().expect("it runs");
        let said = text_of(&output);
        assert!(output.status.success() && said.is_empty(), "{part}.ign: {said}");
    }
}

/// The user-data that Terraform renders, as Ignition understands it.
fn placed(inputs: &Value) -> Option<Placed> {
    translate_all(&peer("butane", "butane")?);
    peer("terraform", "terraform")?;
    let ignition = peer("ignition", "ignition")?;
    let rendered = rig::terraform::render_user_data(inputs);
    let rendered = rendered.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(rendered.bytes, rendered.text.len(), "the module counts right");
    Some(Placed::read(&ignition, &rendered.text))
}

#[test]
fn the_agent_takes_what_is_placed_on_every_kind_of_node() {
    for (role, kind) in ROLES.iter().flat_map(|role| KINDS.map(|kind| (role, kind))) {
        let Some(placed) = placed(&site::with_every_value(role, kind)) else {
            return;
        };
        let root = placed.unpack();
        let output = check(root.path());
        assert!(output.status.success(), "{role} {kind}: {}", text_of(&output));
        is_kept(&format!("tests/golden/ignition/{role}-{kind}.txt"), &placed.told());
    }
}

#[test]
fn the_agent_takes_what_is_placed_with_the_least_that_can_be_given() {
    for (role, kind) in ROLES.iter().flat_map(|role| KINDS.map(|kind| (role, kind))) {
        let Some(placed) = placed(&site::with_the_least(role, kind)) else {
            return;
        };
        let output = check(placed.unpack().path());
        assert!(output.status.success(), "{role} {kind}: {}", text_of(&output));
    }
}

fn check(root: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeagent"));
    command.arg("--root").arg(root).arg("check").output().expect("it runs")
}

#[test]
fn what_a_person_is_told_to_write_without_terraform_is_taken() {
    let (Some(butane), Some(ignition)) = (peer("butane", "butane"), peer("ignition", "ignition"))
    else {
        return;
    };
    translate_all(&butane);
    let told = std::fs::read_to_string(repository().join("docs/ignition.md")).expect("a page");
    let source = told.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let source = source.expect("an example").replace("HASH", &"0".repeat(128));
    let files = tempfile::tempdir().expect("a directory");
    for part in PARTS.map(|part| format!("{part}.ign")) {
        let from = repository().join(MODULE).join(&part);
        std::fs::copy(from, files.path().join(part)).expect("a copy");
    }
    for name in ["vault.pem", "cluster.pem"] {
        std::fs::write(files.path().join(name), Ca::new(name).pem()).expect("it is written");
    }
    let output = translate(&butane, &source, files.path());
    assert!(output.status.success(), "{}", text_of(&output));
    let user_data = String::from_utf8(output.stdout).expect("Ignition is text");
    let output = check(Placed::read(&ignition, &user_data).unpack().path());
    assert!(output.status.success(), "{}", text_of(&output));
}

#[test]
fn texts_of_a_site_reach_the_agent_as_they_were_written() {
    let odd = "a \"b\" \\c\\ ${d} %{e} <f>&'g' é ☃ \u{1f600}\t# = +%20";
    let mut inputs = site::with_every_value("controller", "sysext");
    inputs["vault"]["namespace"] = json!(odd);
    inputs["vault"]["role"] = json!(odd);
    inputs["extra_config"] = json!(format!("# {odd}\n[variables]\nodd = '''{odd}'''\n"));
    let Some(placed) = placed(&inputs) else {
        return;
    };
    let table = |path: &str| -> toml::Table {
        let text = placed.text(path);
        text.parse().unwrap_or_else(|error| panic!("{path}: {error}\n{text}"))
    };
    let site = table("/etc/nodeagent/config.d/50-site.toml");
    assert_eq!(site["vault"]["namespace"].as_str(), Some(odd));
    assert_eq!(site["identity"]["role"].as_str(), Some(odd));
    let extra = table("/etc/nodeagent/config.d/60-extra.toml");
    assert_eq!(extra["variables"]["odd"].as_str(), Some(odd));
    let ca = placed.text("/etc/nodeagent/ca/vault.pem");
    assert_eq!(Some(ca.as_str()), inputs["vault"]["ca_pem"].as_str());
}

#[test]
fn units_are_placed_as_they_are_shipped_but_for_their_comments() {
    let Some(placed) = placed(&site::with_the_least("controller", "binary")) else {
        return;
    };
    let places = ["units/system", "ignition/units"].map(|place| repository().join(place));
    let found = placed.unit_files();
    assert!(found.len() >= 8, "{found:?}");
    for (name, text) in found {
        let shipped =
            places.iter().find_map(|place| std::fs::read_to_string(place.join(&name)).ok());
        let shipped = shipped.unwrap_or_else(|| panic!("{name} is not among the shipped units"));
        let lines = shipped.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(lines.collect::<Vec<_>>(), text.lines().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn the_user_data_of_a_large_site_fits() {
    for (role, kind) in ROLES.iter().flat_map(|role| KINDS.map(|kind| (role, kind))) {
        let Some(placed) = placed(&site::with_large_authorities(role, kind)) else {
            return;
        };
        println!("FIGURE user_data_bytes_{role}_{kind}={}", placed.bytes);
        assert!(placed.bytes <= MOST, "{role} {kind}: {} bytes", placed.bytes);
    }
}

#[test]
fn what_ec2_would_not_take_is_refused_with_what_to_change() {
    if peer("terraform", "terraform").is_none() {
        return;
    }
    let mut inputs = site::with_every_value("worker", "sysext");
    inputs["extra_config"] = json!(format!("# {}\n", site::noise("a site", 20_000)));
    let refused = rig::terraform::render_user_data(&inputs);
    // Terraform breaks its lines where it likes.
    let words = |text: &str| text.split(['\n', '│', ' ']).collect::<Vec<_>>().join("");
    let said = words(&refused.map(|rendered| rendered.bytes).expect_err("it is too large"));
    for part in ["EC2 takes 16384", "role worker has", "shorten extra_config"] {
        assert!(said.contains(&words(part)), "no {part:?} in {said}");
    }
}

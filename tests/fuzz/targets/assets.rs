//! The manifests of a directory, cut into documents: what cannot be understood becomes a fault with
//! its file and line and hides nothing else, an object is there once, and its name leads nowhere.
//!
//! An input is a file, or several: a line `== a.yaml` begins one.

#![no_main]

use std::cell::LazyCell;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use nodeagent::bootstrap::assets::{Set, read};
use nodeagent_fuzz::{Stage, assert_line, sections};

const DIRECTORY: &str = "/etc/kubernetes/assets";

thread_local! {
    static STAGE: LazyCell<Stage> = LazyCell::new(|| Stage::new(&[DIRECTORY]));
}

fuzz_target!(|bytes: &[u8]| STAGE.with(|stage| assets(stage, bytes)));

fn assets(stage: &Stage, bytes: &[u8]) {
    stage.empty(DIRECTORY);
    let mut files: Vec<(String, &[u8])> = Vec::new();
    for (head, text) in sections(bytes, "m.yaml") {
        let end = if head.ends_with("json") { "json" } else { "yaml" };
        let name = head.chars().find(char::is_ascii_lowercase).unwrap_or('m');
        let name = format!("{name}.{end}");
        stage.write(&format!("{DIRECTORY}/{name}"), text);
        files.retain(|(known, _)| *known != name);
        files.push((name, text));
    }
    let set = all(stage);
    for fault in &set.faults {
        assert_line("where a fault is", &fault.source, 200);
        assert_line("a fault", &fault.reason, 700);
        let known = files.iter().find(|(name, _)| fault.source.starts_with(name.as_str()));
        let (_, text) = known.unwrap_or_else(|| panic!("of which file: {fault:?}"));
        let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
        let line = fault.source.split("(line ").nth(1).and_then(|rest| rest.split(')').next());
        let line = line.map(|line| line.parse::<usize>().expect("a number"));
        assert!(line.is_none_or(|line| (1..=lines).contains(&line)), "{fault:?} of {lines}");
    }
    for (index, asset) in set.objects.iter().enumerate() {
        assert!(!asset.name.contains(['/', '%']) && !asset.name.is_empty(), "{:?}", asset.name);
        assert!(set.objects[..index].iter().all(|other| other.key() != asset.key()));
    }
    let again = all(stage);
    assert_eq!(again.digest, set.digest);
    hides_nothing(stage, &files, &set);
}

fn all(stage: &Stage) -> Set {
    read(&stage.root, Some(Path::new(DIRECTORY)), Vec::new())
}

/// A document that is torn, behind everything else of a file, is one more fault.
fn hides_nothing(stage: &Stage, files: &[(String, &[u8])], before: &Set) {
    let Some((name, text)) = files.iter().find(|(name, text)| {
        name.ends_with(".yaml")
            // A line that is ended for it may be part of the text before it.
            && std::str::from_utf8(text)
                .is_ok_and(|text| text.ends_with('\n') && !text.trim().is_empty())
    }) else {
        return;
    };
    let torn = [text, b"---\n{".as_slice()].concat();
    stage.write(&format!("{DIRECTORY}/{name}"), &torn);
    let after = all(stage);
    let objects = |set: &Set| -> Vec<_> {
        set.objects.iter().map(|asset| (asset.key(), asset.object.clone())).collect()
    };
    assert_eq!(objects(&after), objects(before), "a torn document hides objects");
    assert_ne!(after.digest, before.digest, "it is another set: there is something to tell");
    assert_eq!(after.faults.len(), before.faults.len() + 1, "{:?}", after.faults);
}

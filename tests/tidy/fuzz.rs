//! Rules for the fuzz targets, which are a workspace of their own: each is built and has a corpus
//! to begin from, and what is fuzzed is what is shipped, down to the versions of what it depends
//! on.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Finding, Source, one};

const MANIFEST: &str = "tests/fuzz/Cargo.toml";
const LOCK: &str = "tests/fuzz/Cargo.lock";
const MOST_INPUTS: usize = 60;

/// What libFuzzer brings, and nothing of the agent has.
const OWN: &[&str] = &["arbitrary", "jobserver", "libfuzzer-sys", "nodeagent-fuzz"];

/// Targets that are not built or have nothing to begin from, and dependencies of other versions.
pub(crate) fn findings(sources: &[Source], corpora: &BTreeMap<String, usize>) -> Vec<Finding> {
    let manifest = one(sources, MANIFEST);
    let refuse = |advice: String| manifest.finding(0, "fuzz", advice);
    let mut findings = Vec::new();
    let targets =
        sources.iter().filter_map(|source| source.path.strip_prefix("tests/fuzz/targets/"));
    for target in targets.filter_map(|file| file.strip_suffix(".rs")) {
        if !manifest.text.contains(&format!("path = \"targets/{target}.rs\"")) {
            findings.push(refuse(format!("{target} is no [[bin]]: it is not built")));
        }
        let inputs = corpora.get(target).copied().unwrap_or(0);
        if inputs == 0 || inputs > MOST_INPUTS {
            let advice = format!("{target} has {inputs} inputs in its corpus: 1 to {MOST_INPUTS}");
            findings.push(refuse(advice));
        }
    }
    let shipped = packages(one(sources, "Cargo.lock"));
    for (name, version) in packages(one(sources, LOCK)) {
        if !OWN.contains(&name) && !shipped.contains(&(name, version)) {
            let advice =
                format!("{name} {version} is not the agent's: take Cargo.lock's in {LOCK}");
            findings.push(refuse(advice));
        }
    }
    findings
}

/// Name and version of each package of a lock file.
fn packages(lock: &Source) -> BTreeSet<(&str, &str)> {
    let field = |block: &'_ str, key: &str| -> Option<(usize, usize)> {
        let begin = block.find(&format!("{key} = \""))? + key.len() + 4;
        Some((begin, begin + block[begin..].find('"')?))
    };
    let blocks = lock.text.split("[[package]]").skip(1);
    blocks
        .filter_map(|block| {
            let (name, version) = (field(block, "name")?, field(block, "version")?);
            Some((&block[name.0..name.1], &block[version.0..version.1]))
        })
        .collect()
}

/// How many inputs the corpus of each target has: a file each, or a line of one in base64.
pub(crate) fn corpora() -> BTreeMap<String, usize> {
    let names = |path: &std::path::Path| {
        let entries = std::fs::read_dir(path).expect("a readable directory");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let corpora = names(&crate::source::top().join("tests/fuzz/corpus"));
    let name = |path: &std::path::Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let inputs = |path: &std::path::Path| match path.extension() {
        Some(kind) if kind == "base64" => {
            std::fs::read_to_string(path).expect("a readable file").lines().count()
        }
        _ => 1,
    };
    let sum = |path: &std::path::Path| names(path).iter().map(|path| inputs(path)).sum();
    corpora.iter().filter_map(|path| Some((name(path)?, sum(path)))).collect()
}

#[test]
fn a_target_that_is_not_run_is_found() {
    let lock = |version| format!("[[package]]\nname = \"serde\"\nversion = \"{version}\"\n");
    let tree = |manifest: &str, version| {
        vec![
            Source::new(MANIFEST, manifest),
            Source::new("tests/fuzz/targets/a.rs", "//! x\n"),
            Source::new("Cargo.lock", &lock("1.0.1")),
            Source::new(LOCK, &lock(version)),
        ]
    };
    let (built, some) = ("path = \"targets/a.rs\"", BTreeMap::from([("a".to_owned(), 3)]));
    assert_eq!(findings(&tree(built, "1.0.1"), &some), []);
    assert_eq!(findings(&tree("", "1.0.1"), &some).len(), 1);
    assert_eq!(findings(&tree(built, "1.0.2"), &some).len(), 1);
    assert_eq!(findings(&tree(built, "1.0.1"), &BTreeMap::new()).len(), 1);
    let many = BTreeMap::from([("a".to_owned(), MOST_INPUTS + 1)]);
    assert_eq!(findings(&tree(built, "1.0.1"), &many).len(), 1);
}

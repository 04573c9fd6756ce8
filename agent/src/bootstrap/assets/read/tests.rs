//! Manifests as people write them, broken ones above all.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

fn set(files: &[(&str, &str)]) -> Set {
    let dir = TempDir::new().expect("a directory");
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).expect("a file");
    }
    read(&Root::new(dir.path()), Some(Path::new("/")), Vec::new())
}

fn names(set: &Set) -> Vec<&str> {
    set.objects.iter().map(|asset| asset.name.as_str()).collect()
}

fn fault(text: &str) -> String {
    let set = set(&[("a.yaml", text)]);
    assert_eq!(set.faults.len(), 1, "{text:?}: {:?}", set.faults);
    format!("{}: {}", set.faults[0].source, set.faults[0].reason)
}

fn map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n")
}

#[test]
fn documents_are_counted_and_placed() {
    let text = format!("# head\n---\n{}---\n# nothing\n---\n\n{}...\n", map("one"), map("two"));
    let set = set(&[
        ("b.yaml", &text),
        ("a.json", r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"ns"}}"#),
    ]);
    assert_eq!(set.faults, []);
    let sources: Vec<_> = set.objects.iter().map(|asset| asset.source.as_str()).collect();
    let wanted =
        ["a.json document 1 (line 1)", "b.yaml document 1 (line 3)", "b.yaml document 2 (line 11)"];
    assert_eq!(sources, wanted);
}

#[test]
fn a_broken_document_hides_no_other() {
    let text = format!("{}---\nkind: [\n---\n{}---\n- 1\n---\n{}", map("a"), map("b"), map("c"));
    let set = set(&[("x.yaml", &text), ("y.yml", &map("d"))]);
    assert_eq!(names(&set), ["a", "b", "c", "d"]);
    let sources: Vec<_> = set.faults.iter().map(|fault| fault.source.as_str()).collect();
    assert_eq!(sources, ["x.yaml document 2 (line 6)", "x.yaml document 4 (line 13)"]);
    let reason = &set.faults[0].reason;
    assert!(reason.starts_with("is no YAML: line "), "{reason}");
}

#[test]
fn the_line_of_an_error_is_that_of_the_file() {
    let text = format!("{}---\na: b\nkind: \"x\n  : y: [\n", map("a"));
    let told = fault(&text);
    assert!(told.starts_with("a.yaml document 2 (line 6): is no YAML: line "), "{told}");
    let line = told.rsplit("YAML: line ").next().and_then(|rest| rest.split(':').next());
    let line: usize = line.and_then(|line| line.parse().ok()).expect("a line");
    assert!((7..=9).contains(&line), "{told}");
}

#[test]
fn what_is_wrong_is_said() {
    for (text, wanted) in [
        ("kind: Pod\nmetadata: {name: x}\n", "has no apiVersion"),
        ("apiVersion: v1\nmetadata: {name: x}\n", "has no kind"),
        ("apiVersion: v1\nkind: Pod\n", "has no metadata"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "metadata: has no name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 12}\n", "its name is a number, not a text"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a/b}\n", "holds a `/` or `%`"),
        (
            "apiVersion: v1\nkind: \"P\\td\"\nmetadata: {name: a}\n",
            "`P\\td` holds control characters",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: ..}\n", "its name is `..`"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: a/../b}\n", "its namespace"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: x}\n", "has a generateName"),
        ("just words\n", "is a text, not an object"),
        ("a: 1\na: 2\n", "is no YAML: line 2"),
        ("a: &a [*b]\n", "is no YAML: line 1"),
        ("\n \n", "a.yaml: is empty"),
        ("a: 1\n...\nb: 2\n", "is no YAML"),
        (
            "apiVersion: v1\nkind: ConfigMap\n\
             metadata: {name: nodeagent-assets, namespace: kube-system}\n",
            "keeps its inventory",
        ),
    ] {
        let told = fault(text);
        assert!(told.contains(wanted), "{text:?}: {told}");
    }
}

#[test]
fn an_object_that_comes_twice_is_told_with_both_places() {
    let named = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\n";
    let set = set(&[("a.yaml", &map("a")), ("b.yaml", named)]);
    assert_eq!(names(&set), ["a"]);
    assert_eq!(set.faults[0].source, "b.yaml document 1 (line 1)");
    assert!(
        set.faults[0].reason.contains("ConfigMap a is in a.yaml document 1 (line 1)"),
        "{:?}",
        set.faults
    );
}

#[test]
fn lists_are_their_items() {
    let text = "apiVersion: v1\nkind: List\nitems:\n\
        - {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n\
        - apiVersion: v1\n\x20 kind: SecretList\n\x20 items:\n\
        \x20 - metadata: {name: b}\n\x20 - 3\n";
    let set = set(&[("l.yaml", text)]);
    assert_eq!(names(&set), ["a", "b"]);
    assert_eq!(set.objects[1].kind, "Secret");
    assert_eq!(set.objects[1].object["kind"], "Secret");
    assert_eq!(set.objects[1].source, "l.yaml document 1 (line 1), item 2, item 1");
    assert_eq!(set.faults[0].source, "l.yaml document 1 (line 1), item 2, item 2");
    let mut deep = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}".to_owned();
    for _ in 0..4 {
        deep = format!("{{apiVersion: v1, kind: List, items: [{deep}]}}");
    }
    assert!(fault(&deep).contains("lists nest deeper"));
}

#[test]
fn a_manifest_means_what_it_means_to_kubectl() {
    let text = format!(
        "{}data:\n  mode: 0644\n  text: '0644'\n  on: yes\n  time: 12:30:45\n\
        \x20 date: 2001-01-01\n  hex: 0x1f\n  none: ~\n  block: |\n    ----\n\
        \x20   --- not a mark\n     ---\n  merged: &a {{x: 1}}\n\
        \x20 again: {{<<: *a, y: 2}}\n",
        map("a")
    );
    // `--- not a mark` is indented; a mark begins its line.
    let set = set(&[("a.yaml", &text)]);
    assert_eq!(set.faults, []);
    let wanted = json!({
        "mode": 420, "text": "0644", "on": true, "time": "12:30:45", "date": "2001-01-01",
        "hex": 31, "none": null, "block": "----\n--- not a mark\n ---\n",
        "merged": { "x": 1 }, "again": { "x": 1, "y": 2 },
    });
    assert_eq!(set.objects[0].object["data"], wanted);
}

#[test]
fn files_of_other_systems_are_read() {
    let crlf = format!("\u{feff}---\r\n{}", map("a").replace('\n', "\r\n"));
    let more = format!("{crlf}---\r\n{}", map("b").replace('\n', "\r\n"));
    let set = set(&[("a.yaml", &more)]);
    assert_eq!((names(&set), set.faults.len()), (vec!["a", "b"], 0));
}

#[test]
fn json_is_read_up_to_its_error() {
    let one = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"NAME"}}"#;
    let text = format!("{}\n{}\n{{oops", one.replace("NAME", "a"), one.replace("NAME", "b"));
    let set = set(&[("a.json", &text)]);
    assert_eq!(names(&set), ["a", "b"]);
    assert_eq!(set.faults[0].source, "a.json document 3 (line 3)");
    assert!(set.faults[0].reason.starts_with("is no JSON"), "{:?}", set.faults);
}

#[test]
fn what_is_the_servers_is_left_out() {
    let text = "apiVersion: v1\nkind: ConfigMap\n\
        metadata: {name: a, uid: u, resourceVersion: '1', creationTimestamp: null, \
        labels: {x: z}}\n";
    let set = set(&[("a.yaml", text)]);
    assert_eq!(set.objects[0].object["metadata"], json!({ "name": "a", "labels": { "x": "z" } }));
}

#[test]
fn a_directory_that_is_missing_is_not_an_empty_one() {
    let dir = TempDir::new().expect("a directory");
    let root = Root::new(dir.path());
    let builtin = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "a" } });
    let set = read(&root, Some(Path::new("/etc/assets")), vec![builtin.clone()]);
    assert_eq!((names(&set), set.faults.len()), (vec!["a"], 1));
    assert!(set.faults[0].reason.contains("no such directory"), "{:?}", set.faults);
    let set = read(&root, None, vec![builtin]);
    assert_eq!((names(&set), set.faults.len()), (vec!["a"], 0));
}

#[test]
fn other_files_are_left_alone_and_broken_ones_are_named() {
    let dir = TempDir::new().expect("a directory");
    for name in ["README.md", ".hidden.yaml", "a.yaml.orig"] {
        std::fs::write(dir.path().join(name), "kind: [").expect("a file");
    }
    std::fs::create_dir(dir.path().join("sub.yaml")).expect("a directory");
    std::fs::write(dir.path().join("latin.yaml"), b"a: \xe4\n").expect("a file");
    std::fs::write(dir.path().join("large.yaml"), "#".repeat(FILE_LIMIT + 1)).expect("a file");
    std::os::unix::fs::symlink("gone", dir.path().join("link.yaml")).expect("a link");
    let set = read(&Root::new(dir.path()), Some(Path::new("/")), Vec::new());
    let sources: Vec<_> = set.faults.iter().map(|fault| fault.source.as_str()).collect();
    assert_eq!(sources, ["large.yaml", "latin.yaml", "link.yaml"]);
}

#[test]
fn bombs_do_not_go_off() {
    let mut laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let above = format!("*a{}", level - 1);
        laughs += &format!("a{level}: &a{level} [{}]\n", [above.as_str(); 10].join(","));
    }
    assert!(fault(&laughs).contains("is no YAML"));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 50].join(","));
    assert!(fault(&long).contains("is no YAML"));
    let deep = format!("a: {}{}\n", "[".repeat(5000), "]".repeat(5000));
    assert!(fault(&deep).contains("is no YAML"));
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("a.json"), "[".repeat(100_000)).expect("a file");
    assert_eq!(read(&Root::new(dir.path()), Some(Path::new("/")), Vec::new()).faults.len(), 1);
}

#[test]
fn the_digest_is_of_the_content() {
    let one = set(&[("a.yaml", &format!("{}---\n{}", map("a"), map("b")))]);
    let other = "{kind: ConfigMap, metadata: {name: a}, apiVersion: v1}";
    let two = set(&[("b.yaml", &map("b")), ("c.yaml", other)]);
    assert_eq!(one.digest, two.digest);
    let three = set(&[("b.yaml", &map("b")), ("c.yaml", &map("c"))]);
    assert_ne!(one.digest, three.digest);
    assert_eq!(one.digest.len(), 64);
    let value =
        |data: Value| {
            set(&[("a.json", &json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": data,
    }).to_string())]).digest
        };
    assert_ne!(value(json!({ "a": "1" })), value(json!({ "a": 1 })));
    assert_ne!(value(json!({ "a": ["b", "c"] })), value(json!({ "a": ["b,c"] })));
}

#[test]
fn more_objects_than_an_inventory_names_are_told() {
    let text: String = (0..=OBJECTS).map(|at| format!("---\n{}", map(&format!("n{at}")))).collect();
    let set = set(&[("a.yaml", &text)]);
    assert_eq!((set.objects.len(), set.faults.len()), (OBJECTS, 1));
}

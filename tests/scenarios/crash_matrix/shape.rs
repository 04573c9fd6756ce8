//! The end of a story, made comparable: what differs from one run to the next by its nature (keys,
//! serials, instants, the number of a generation) is replaced by what has to hold of it.

use std::collections::BTreeMap;

use nodeagent::duty::certs::leaf::Leaf;
use rig::stage::Stage;
use serde_json::Value;

use super::disk::{Content, Disk};
use crate::play::*;

/// Each name with what is there, comparable.
pub(super) type Shape = BTreeMap<String, String>;

/// Ends the names of files in the making.
const MAKING: &str = ".nodeagent~";

const RECORDS: &str = "/var/lib/nodeagent/records.json";

/// What is on the disk of a node.
pub(super) fn shape(stage: &Stage, disk: &Disk) -> Shape {
    let words = words(stage);
    let mut shape = Shape::new();
    for (path, entry) in disk.0.iter().filter(|(path, _)| !path.ends_with(MAKING)) {
        let content = match &entry.content {
            Content::Directory => "a directory".to_owned(),
            Content::Link(target) => format!("a link to {}", plain(target, &words)),
            Content::File(bytes) => file(disk, path, &String::from_utf8_lossy(bytes), &words),
        };
        let text = format!("{:o} {}:{} {content}", entry.mode, entry.uid, entry.gid);
        let name = plain(path, &words);
        // Generations of one certificate are alike.
        match shape.get(&name) {
            Some(other) if *other != text => drop(shape.insert(format!("{name} (another)"), text)),
            _ => drop(shape.insert(name, text)),
        }
    }
    shape
}

/// Where two shapes differ.
pub(super) fn differences(one: &Shape, other: &Shape) -> Vec<String> {
    let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
    let differing = names.filter(|name| one.get(*name) != other.get(*name));
    let told = |name: &String| format!("{name}: {:?}, not {:?}", one.get(name), other.get(name));
    differing.map(told).collect()
}

/// How many certificates of the server were counted for the budget.
pub(super) fn counted(disk: &Disk) -> usize {
    let records = json(disk, RECORDS);
    records["certificates"][SERVER]["issues"].as_array().map_or(0, Vec::len)
}

/// The number of the generation of the server certificate that is published; 0 where none is.
pub(super) fn newest(disk: &Disk) -> usize {
    match disk.0.get(&format!("{PUBLISHED}/current")).map(|entry| &entry.content) {
        Some(Content::Link(target)) => target.parse().expect("a number"),
        _ => 0,
    }
}

/// How many generations of the server certificate are in the archive.
pub(super) fn archived(disk: &Disk) -> usize {
    let archive = format!("/var/lib/nodeagent/archive/{SERVER}/");
    let names = disk.0.keys().filter_map(|path| path.strip_prefix(&archive));
    names.filter(|name| !name.contains('/')).count()
}

/// Names of files in the making that nothing will clear. What was to replace a file may lie beside
/// it: the next write of the file removes it.
pub(super) fn leftovers(disk: &Disk) -> Vec<&String> {
    let names = disk.0.keys().filter(|path| path.ends_with(MAKING));
    names.filter(|path| !disk.0.contains_key(&made(path))).collect()
}

/// The name that a file in the making is to have.
fn made(path: &str) -> String {
    path.trim_end_matches(MAKING).replacen("/.", "/", 1)
}

/// What stands for the names of an instance.
pub(super) fn words(stage: &Stage) -> Vec<(String, &'static str)> {
    let Some(instance) = stage.aws.instance(&stage.instance) else { return Vec::new() };
    let address = instance.private_ip.to_string();
    vec![
        (stage.instance.clone(), "INSTANCE"),
        (address.replace('.', "-"), "ADDRESS"),
        (address, "ADDRESS"),
    ]
}

/// A text without the names of the instance and the numbers of generations.
pub(super) fn plain(text: &str, words: &[(String, &'static str)]) -> String {
    let mut text = text.to_owned();
    for (word, name) in words {
        text = text.replace(word, name);
    }
    let generation = |name: &str| name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_digit());
    let names = text.split('/').map(|name| if generation(name) { "GENERATION" } else { name });
    names.collect::<Vec<_>>().join("/")
}

fn json(disk: &Disk, path: &str) -> Value {
    let Some(Content::File(bytes)) = disk.0.get(path).map(|entry| &entry.content) else {
        return Value::Null;
    };
    serde_json::from_slice(bytes).expect("the agent's own JSON")
}

fn file(disk: &Disk, path: &str, text: &str, words: &[(String, &'static str)]) -> String {
    let (directory, name) = path.rsplit_once('/').expect("a path");
    let beside = |name: &str| match disk.0.get(&format!("{directory}/{name}")) {
        Some(entry) => match &entry.content {
            Content::File(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        },
        None => String::new(),
    };
    match name {
        "cert.pem" => match Leaf::read(text.as_bytes()) {
            Ok(leaf) => {
                plain(&format!("{:?} {:?} {:?}", leaf.common_names, leaf.dns, leaf.ips), words)
            }
            Err(error) => format!("no certificate: {error:#}"),
        },
        "key.pem" => {
            let fits = fits(&beside("cert.pem"), text);
            fits.map_or_else(|error| error, |()| "a key that fits".into())
        }
        "pair.pem" => {
            let whole = format!("{}{}", beside("cert.pem"), beside("key.pem"));
            if text == whole { "the pair".into() } else { "no pair".into() }
        }
        "records.json" => records(disk),
        "journal" => journal(text),
        "token" | "status.json" | "metrics.prom" => "of this moment".into(),
        _ if directory.starts_with("/var/lib/nodeagent/nonce") => {
            format!("a nonce of {} letters", text.len())
        }
        _ => plain(text, words),
    }
}

/// Whether a certificate and a key are a pair.
pub(super) fn fits(cert_pem: &str, key_pem: &str) -> Result<(), String> {
    let leaf = rig::pki::Leaf { cert_pem: cert_pem.into(), key_pem: key_pem.into() };
    rig::pki::server_config(&leaf).map(|_| ())
}

/// Which duties fail, what is under way, and whether each consumer is known to have what is
/// published for it.
fn records(disk: &Disk) -> String {
    let records = json(disk, RECORDS);
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let mut told = Vec::new();
    for (duty, record) in object(&records["duties"]) {
        if !record["failure"].is_null() {
            told.push(format!("{duty} fails: {}", record["failure"]["code"]));
        }
    }
    for (name, consumer) in object(&records["consumers"]) {
        if !consumer["act"].is_null() {
            told.push(format!("an act of {name} is under way"));
        }
        for (certificate, applied) in object(&consumer["applied"]) {
            let link = format!("/var/lib/nodeagent-certs/{name}/{certificate}/current");
            let published = match disk.0.get(&link).map(|entry| &entry.content) {
                Some(Content::Link(target)) => target.parse().unwrap_or(0),
                _ => 0_u64,
            };
            let has = if applied.as_u64() == Some(published) { "has" } else { "lacks" };
            told.push(format!("{name} {has} {certificate}"));
        }
    }
    told.join(", ")
}

/// The events of a journal, in their order.
fn journal(text: &str) -> String {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
    let told = lines.map(|line| format!("{} {}", line["epoch"], line["event"]));
    told.collect::<Vec<_>>().join(", ")
}

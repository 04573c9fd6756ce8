//! What a plan must not say, whatever shape it has. Each scan gives its findings, one line each.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::tested::{Plan, Resource};

/// A scan and the name of what it looks for.
pub(super) type Scan = (&'static str, fn(&Plan) -> Vec<String>);

pub(super) const SCANS: [Scan; 5] = [
    ("open to the world", open),
    ("IMDSv2 with one hop", metadata),
    ("encryption", unencrypted),
    ("public buckets", public),
    ("secrets", secrets),
];

/// Everywhere, in both families.
const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// What may say so, and why.
const MAY: [(&str, &str, &str); 2] = [
    ("aws_route", "", "a default route leads out through a gateway that lets nothing in"),
    (
        "aws_vpc_security_group_egress_rule",
        "https-",
        "registries of images and AWS tell no ranges; egress_cidrs narrows it",
    ),
];

fn open(plan: &Plan) -> Vec<String> {
    let says = |resource: &&Resource| {
        let text = resource.after.to_string();
        EVERYWHERE.iter().any(|range| text.contains(&format!("\"{range}\"")))
    };
    let may = |resource: &&Resource| {
        MAY.iter().any(|(kind, prefix, _)| {
            resource.kind == *kind
                && key(&resource.address).starts_with(prefix)
                && only_out(resource)
        })
    };
    plan.resources.iter().filter(says).filter(|it| !may(it)).map(line("is open")).collect()
}

/// A way out is one port, or no rule of a security group at all.
fn only_out(resource: &Resource) -> bool {
    let (from, to) = (&resource.after["from_port"], &resource.after["to_port"]);
    resource.kind == "aws_route" || (*from == 443 && *to == 443)
}

fn key(address: &str) -> &str {
    address.split_once("[\"").map_or("", |(_, key)| key)
}

fn metadata(plan: &Plan) -> Vec<String> {
    let launched =
        |it: &&Resource| matches!(it.kind.as_str(), "aws_instance" | "aws_launch_template");
    let wrong = |it: &&Resource| {
        let options = &it.after["metadata_options"][0];
        options["http_tokens"] != "required" || options["http_put_response_hop_limit"] != 1
    };
    let found = plan.resources.iter().filter(launched).filter(wrong);
    found.map(line("does not require IMDSv2 with one hop")).collect()
}

fn unencrypted(plan: &Plan) -> Vec<String> {
    let wrong = |it: &&Resource| match it.kind.as_str() {
        "aws_ebs_volume" => !yes(&it.after["encrypted"]),
        "aws_instance" => !yes(&it.after["root_block_device"][0]["encrypted"]),
        "aws_launch_template" => {
            let disks = it.after["block_device_mappings"].as_array();
            let plain = |disk: &Value| !yes(&disk["ebs"][0]["encrypted"]);
            disks.is_none_or(|disks| disks.is_empty() || disks.iter().any(plain))
        }
        _ => false,
    };
    let found = plan.resources.iter().filter(wrong).map(line("is not encrypted"));
    found.chain(lacking(plan, "aws_s3_bucket_server_side_encryption_configuration")).collect()
}

/// A launch template has its booleans as text.
fn yes(value: &Value) -> bool {
    *value == true || *value == "true"
}

/// A bucket that is made is versioned, and closed in each of the four ways.
fn public(plan: &Plan) -> Vec<String> {
    const WAYS: [&str; 4] = [
        "block_public_acls",
        "block_public_policy",
        "ignore_public_acls",
        "restrict_public_buckets",
    ];
    let wrong = |it: &&Resource| match it.kind.as_str() {
        "aws_s3_bucket_public_access_block" => WAYS.iter().any(|way| !yes(&it.after[way])),
        "aws_s3_bucket_versioning" => {
            it.after["versioning_configuration"][0]["status"] != "Enabled"
        }
        _ => false,
    };
    let found = plan.resources.iter().filter(wrong).map(line("leaves the bucket open"));
    let closed = lacking(plan, "aws_s3_bucket_public_access_block");
    found.chain(closed).chain(lacking(plan, "aws_s3_bucket_versioning")).collect()
}

/// Whether there are fewer of a kind than buckets.
fn lacking(plan: &Plan, kind: &str) -> Option<String> {
    let count = |kind: &str| plan.resources.iter().filter(|it| it.kind == kind).count();
    (count(kind) < count("aws_s3_bucket")).then(|| format!("{}: a bucket without {kind}", plan.run))
}

/// How secrets begin: keys, tokens of Vault, keys of AWS and of Kubernetes' tokens.
const SECRETS: [&str; 8] =
    ["PRIVATE KEY", "hvs.", "hvb.", "\"s.", "AKIA", "ASIA", "client-key-data", "\"password\":\""];

fn secrets(plan: &Plan) -> Vec<String> {
    let mut texts = BTreeSet::from([plan.text.clone()]);
    for resource in &plan.resources {
        for argument in ["user_data_base64", "user_data"] {
            if let Some(text) = resource.after[argument].as_str() {
                texts.extend(unpacked(text));
            }
        }
    }
    let found = texts.iter().flat_map(|text| secrets_in(text));
    found.map(|word| format!("{}: {word:?} looks like a secret", plan.run)).collect()
}

/// The beginnings of secrets that a text has.
pub(super) fn secrets_in(text: &str) -> Vec<&'static str> {
    SECRETS.into_iter().filter(|word| text.contains(*word)).collect()
}

/// User-data, and what it has inside. What cannot be unpacked cannot be looked at: that is a
/// finding too, so it fails here.
fn unpacked(user_data: &str) -> Vec<String> {
    let outer = BASE64_STANDARD.decode(user_data).expect("user-data is base64");
    let outer = String::from_utf8(outer).expect("user-data is text");
    let config: Value = serde_json::from_str(&outer).expect("user-data is JSON");
    let source = config["ignition"]["config"]["replace"]["source"].as_str().expect("it points on");
    let packed = source.strip_prefix("data:;base64,").expect("to what it has itself");
    let packed = BASE64_STANDARD.decode(packed).expect("it is base64");
    let mut gzip = Command::new("gzip");
    let gzip = gzip.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut gzip = gzip.spawn().expect("gzip runs");
    let mut input = gzip.stdin.take().expect("it is piped");
    // It fits into a pipe, so nobody has to read meanwhile.
    input.write_all(&packed).expect("it is taken");
    drop(input);
    let output = gzip.wait_with_output().expect("gzip ends");
    assert!(output.status.success(), "what user-data has inside is not gzip'd");
    let inner = String::from_utf8(output.stdout).expect("it is text");
    // Texts of the site are in data URLs, where these are written otherwise.
    vec![outer, inner.replace("%20", " ").replace("%22", "\"")]
}

fn line(what: &'static str) -> impl Fn(&Resource) -> String {
    move |resource| format!("{} {what}", resource.address)
}

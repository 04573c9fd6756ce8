//! The configuration: drop-ins of up to three directories, laid over each other and checked.
//! Nothing that a person writes there ends the agent; each fault is one line that names the file
//! and the line; what is accepted is accepted again, lets the gate work, and can be rendered.
//!
//! An input is a drop-in, or several: a line `== etc 10` begins `/etc/nodeagent/config.d/10.toml`.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use nodeagent::attest::Identity;
use nodeagent::config::layers::DIRECTORIES;
use nodeagent::config::names::Values;
use nodeagent::config::{Config, check, layers, load_gated};
use nodeagent::render::{self, Bundles, Input};
use nodeagent_fuzz::{Stage, assert_line, now, sections};

const CA: &[u8] = include_bytes!("../certificates/ca.pem");

thread_local! {
    static STAGE: LazyCell<Stage> = LazyCell::new(|| {
        let stage = Stage::new(&DIRECTORIES);
        stage.write("/etc/nodeagent/ca.pem", CA);
        stage
    });
}

fuzz_target!(|bytes: &[u8]| STAGE.with(|stage| configuration(stage, bytes)));

fn configuration(stage: &Stage, bytes: &[u8]) {
    DIRECTORIES.iter().for_each(|directory| stage.empty(directory));
    let mut files = Vec::new();
    for (head, text) in sections(bytes, "etc 50") {
        let (directory, name) = head.split_once(' ').unwrap_or((&head, "0"));
        let directory = DIRECTORIES.iter().find(|d| d[1..].starts_with(directory));
        let name: String = name.chars().filter(char::is_ascii_digit).take(2).collect();
        let path = format!("{}/0{name}.toml", directory.unwrap_or(&DIRECTORIES[1]));
        stage.write(&path, text);
        files.retain(|(known, _)| *known != path);
        files.push((path, text));
    }
    let read = layers::read(&stage.root);
    let checked = read.and_then(|layers| check::check(&stage.root, &layers, now()));
    match checked {
        Err(faults) => faults.iter().for_each(|fault| judge(fault, &files)),
        Ok(config) => accepted(stage, &config),
    }
}

/// One line, with a file that there is and a line that it has. Only what nobody said has no place.
fn judge(fault: &str, files: &[(String, &[u8])]) {
    // What was said is quoted whole.
    assert_line("a fault", fault, 16 << 10);
    if fault.starts_with("built-in catalogue of ") {
        // Of an entry that no file changes; what is told is which table of a file it wants.
        return;
    }
    let known = files.iter().find_map(|(path, text)| Some((fault.strip_prefix(path)?, text)));
    let Some((rest, text)) = known else {
        assert!(fault.contains(": is not given"), "a fault without a place: {fault}");
        return;
    };
    let number = rest.strip_prefix(':').and_then(|rest| rest.split(':').next());
    let number = number.and_then(|number| number.parse::<usize>().ok());
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    let utf8 = rest.ends_with("is not UTF-8; write the file in UTF-8");
    assert!(utf8 || number.is_some_and(|n| (1..=lines).contains(&n)), "a fault's line: {fault}");
}

fn accepted(stage: &Stage, config: &Config) {
    let again = layers::read(&stage.root).expect("it was read");
    let again = check::check(&stage.root, &again, now()).expect("it was accepted");
    assert_eq!(format!("{again:?}"), format!("{config:?}"));
    assert_eq!(again.digest, config.digest);
    let gated = load_gated(&stage.root, now()).expect("the gate goes by no more than this");
    assert_eq!(gated.consumers.len(), config.consumers.len());
    for warning in &config.warnings {
        assert_line("a warning", warning, 16 << 10);
    }
    for spec in &config.certificates {
        assert!(config.consumer(&spec.consumer).is_some(), "nobody uses {}", spec.name);
        assert!(config.authorities.contains_key(&spec.authority), "nobody signs {}", spec.name);
        assert!(spec.ttl > config.survive, "{} does not last", spec.name);
    }
    rendered(config);
}

/// What is accepted can be filled in and written for every node that has all facts.
fn rendered(config: &Config) {
    let identity = Identity {
        instance_id: "i-0abc".into(),
        private_ip: Some([10, 0, 0, 1].into()),
        region: "eu-central-1".into(),
        availability_zone: "eu-central-1a".into(),
        account_id: "123456789012".into(),
        image_id: "ami-0abc".into(),
        instance_type: "m7g.large".into(),
    };
    let variables = &config.variables;
    let values = Values { identity: &identity, cluster: &config.cluster, variables };
    for spec in &config.certificates {
        let names = [&spec.dns, &spec.ips, &spec.uris, &spec.organizations].into_iter().flatten();
        for template in names.chain([&spec.common_name]) {
            template.fill(&values).ok();
        }
    }
    let pem = String::from_utf8_lossy(CA).into_owned();
    let bundles = Bundles { cluster: pem.clone(), etcd: pem.clone(), front_proxy: pem };
    let audit_policy = Some("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n");
    let input = Input { config, identity: &identity, bundles: &bundles, audit_policy };
    if let Ok(files) = render::everything(&input) {
        render::screen(&files);
    }
}

//! The published status: whatever lies in the file is refused or shown, as a screen without control
//! characters, as one line, as metrics that Prometheus reads, and as a document that is read again
//! as it was.

#![no_main]

use std::cell::LazyCell;
use std::collections::BTreeSet;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use nodeagent::status::{self, PATH, Status, metrics, text};
use nodeagent_fuzz::{Stage, assert_error, now};

thread_local! {
    static STAGE: LazyCell<Stage> = LazyCell::new(|| Stage::new(&["/run/nodeagent"]));
}

fuzz_target!(|bytes: &[u8]| STAGE.with(|stage| status_json(stage, bytes)));

fn status_json(stage: &Stage, bytes: &[u8]) {
    stage.write(PATH, bytes);
    let status = match status::load(&stage.root, now()) {
        Ok(status) => status,
        Err(error) => return assert_error(&error, 500),
    };
    for at in [Timestamp::MIN, now(), Timestamp::MAX] {
        let screen = text::screen(&status, at);
        let plain = |letter: char| letter == '\n' || !letter.is_control();
        assert!(screen.ends_with('\n') && screen.chars().all(plain), "{screen:?}");
    }
    let line = text::line(&status);
    let words = ["healthy", "degraded", "failed"];
    assert!(words.iter().any(|word| line.starts_with(word)), "{line:?}");
    prometheus(&metrics::text(&status));
    again(status);
}

/// Each line is a comment or one sample, and no sample is there twice: the collector would refuse
/// the whole file.
fn prometheus(text: &str) {
    let mut told = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with("# HELP nodeagent_") || line.starts_with("# TYPE nodeagent_") {
            continue;
        }
        let name = line.find(['{', ' ']).expect("a name");
        assert!(line.starts_with("nodeagent_"), "{line:?}");
        let value = match line[name..].strip_prefix('{') {
            None => &line[name..],
            Some(rest) => labels(rest).unwrap_or_else(|| panic!("labels of {line:?}")),
        };
        let number = value.strip_prefix(' ').expect("a space before the number");
        assert!(number.parse::<f64>().is_ok(), "{line:?}");
        let series = &line[..line.len() - value.len()];
        assert!(told.insert(series), "{series:?} stands twice");
    }
    assert!(text.is_empty() || text.ends_with('\n'));
}

/// What follows `name="value",…}`; in a value only `\\`, `\"` and `\n` are escapes.
fn labels(mut rest: &str) -> Option<&str> {
    loop {
        let (name, after) = rest.split_once("=\"")?;
        if !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            return None;
        }
        let mut escaped = false;
        let end = after.char_indices().find_map(|(at, letter)| {
            let ends = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends.then_some(at)
        })?;
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return rest.strip_prefix('}'),
        }
    }
}

fn again(mut status: Status) {
    // The digits of a fraction are serde_json's own business.
    status.node.clock_ahead_s = None;
    let written = serde_json::to_string(&status).expect("a document");
    let read: Status = serde_json::from_str(&written).expect("it was written");
    assert_eq!(serde_json::to_string(&read).expect("a document"), written);
}

//! One file into its documents, each parsed apart, so that a broken one hides no other. A line
//! that begins with `---` ends a document wherever it stands (YAML forbids it inside texts too),
//! which is why the text can be cut before it is parsed.

use serde_json::{Deserializer, Value};
use serde_saphyr::options::AliasLimits;
use serde_saphyr::{Options, budget, options};

use crate::error::said;

/// A document of a file, or why it is none.
#[derive(Debug)]
pub(super) struct Document {
    /// Its number in the file, from 1; documents without content do not count.
    pub(super) number: usize,
    /// The line where its content begins, from 1.
    pub(super) line: usize,
    /// The content, or what is wrong with it.
    pub(super) content: Result<Value, String>,
}

/// The documents of a file; the end of its name says what they are written in.
pub(super) fn documents(name: &str, text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if name.ends_with(".json") { json(text) } else { yaml(text) }
}

/// JSON cannot be cut without parsing it: what follows an error is not read.
fn json(text: &str) -> Vec<Document> {
    let mut found = Vec::new();
    let mut stream = Deserializer::from_str(text).into_iter::<Value>();
    loop {
        let rest = &text[stream.byte_offset()..];
        let begin = text.len() - rest.trim_start().len();
        let line = text[..begin].matches('\n').count() + 1;
        let Some(value) = stream.next() else {
            return found;
        };
        let failed = value.is_err();
        let content = value.map_err(|error| format!("is no JSON: {}", said(&error)));
        found.push(Document { number: found.len() + 1, line, content });
        if failed {
            return found;
        }
    }
}

fn yaml(text: &str) -> Vec<Document> {
    let mut found = Vec::new();
    for Piece { before, text } in pieces(text) {
        let Some(skipped) = text.lines().position(has_content) else {
            continue;
        };
        let content = parse(text).map_err(|error| reason(&error, before));
        found.push(Document { number: found.len() + 1, line: before + skipped + 1, content });
    }
    found
}

/// A part of a file that one document has for itself.
struct Piece<'a> {
    /// How many lines stand before it.
    before: usize,
    text: &'a str,
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let (mut start, mut before, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line, "---") && at > start {
            found.push(Piece { before, text: &text[start..at] });
            (start, before) = (at, number);
        }
        at += line.len();
    }
    found.push(Piece { before, text: &text[start..] });
    found
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Comments, directives and the marks between documents hold nothing.
fn has_content(line: &str) -> bool {
    let rest = if is_marker(line, "---") { &line[3..] } else { line };
    let rest = rest.trim();
    !(rest.is_empty() || rest.starts_with('#') || line.starts_with('%') || is_marker(line, "..."))
}

fn parse(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, kubectl())
}

/// The YAML of kubectl, with bounds: an object of Kubernetes is at most 1.5 MiB and is written
/// without aliases nearly always, so that ten times that much stops every bomb.
fn kubectl() -> Options {
    options! {
        budget: budget! {
            max_documents: 1,
            max_nodes: 500_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: 16 << 20,
            max_total_scalar_bytes: 16 << 20,
            max_merge_keys: 1_000,
        },
        alias_limits: limits(),
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

fn limits() -> AliasLimits {
    serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 }
}

/// The line is that of the file, not that of the piece.
fn reason(error: &serde_saphyr::Error, before: usize) -> String {
    let plain = error.without_snippet().to_string();
    let plain = said(&plain.lines().next().unwrap_or_default());
    let Some(place) = error.location() else {
        return format!("is no YAML: {plain}");
    };
    let line = usize::try_from(place.line()).unwrap_or(0) + before;
    format!("is no YAML: line {line}: {plain}")
}

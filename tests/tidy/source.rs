//! Files as the rules see them: text, and for Rust the code alone, with comments, strings and
//! tests blanked out, so that a rule never trips over a sentence or over a test.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What a rule found.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    /// `path:line`
    pub place: String,
    /// The rule's name.
    pub rule: &'static str,
    /// What to do.
    pub advice: String,
}

/// A file of the tree.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its path from the top of the tree, with `/`.
    pub path: String,
    /// What it holds.
    pub text: String,
    /// The same for Rust without comments and strings; as long, byte for byte.
    pub code: String,
    /// `code` without what is only there for tests.
    pub shipped: String,
    /// How many lines are only there for tests, where it is not all of them.
    pub test_lines: usize,
}

impl Source {
    /// A file with this text.
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = if path.ends_with(".rs") { blank(text) } else { String::new() };
        let (mut shipped, mut test_lines) = (code.clone(), 0);
        for range in tests(&code) {
            test_lines += code[range.clone()].matches('\n').count() + 1;
            shipped = erase(&shipped, range);
        }
        let source = Source { path: path.into(), text: text.into(), code, shipped, test_lines };
        if path.ends_with("/tests.rs") || path.contains("/tests/") {
            return source.for_tests();
        }
        source
    }

    /// The same as a file that is only there for tests.
    fn for_tests(mut self) -> Source {
        self.shipped = erase(&self.code, 0..self.code.len());
        self.test_lines = 0;
        self
    }

    /// The files of modules that this one declares for tests only.
    fn test_modules(&self) -> Vec<String> {
        let directory = match self.path.rsplit_once('/') {
            Some((directory, "lib.rs" | "main.rs")) => directory,
            _ => self.path.trim_end_matches(".rs"),
        };
        let declared = tests(&self.code).into_iter().filter_map(|range| {
            let words: Vec<_> = self.code[range].split_whitespace().collect();
            let at = words.iter().position(|word| *word == "mod")?;
            words.get(at + 1)?.strip_suffix(';').map(|name| format!("{directory}/{name}.rs"))
        });
        declared.collect()
    }

    /// A finding at a byte of this file.
    pub(crate) fn finding(
        &self,
        at: usize,
        rule: &'static str,
        advice: impl Into<String>,
    ) -> Finding {
        let place = format!("{}:{}", self.path, line_of(&self.text, at));
        Finding { place, rule, advice: advice.into() }
    }

    /// Every place in `text` where `needle` stands as a word of its own.
    pub(crate) fn words(text: &str, needle: &str) -> Vec<usize> {
        let joins =
            |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        let bytes = text.as_bytes();
        let starts_word = joins(needle.as_bytes().first());
        let ends_word = joins(needle.as_bytes().last());
        let whole = |at: &usize| {
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            let after = bytes.get(at + needle.len());
            !(starts_word && joins(before) || ends_word && joins(after))
        };
        text.match_indices(needle).map(|(at, _)| at).filter(whole).collect()
    }
}

/// The top of the tree.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files of the tree that are text, but for what is built and what belongs to git.
pub(crate) fn tree() -> Vec<Source> {
    let mut sources = Vec::new();
    walk(&top(), "", &mut sources);
    assert!(sources.len() > 50, "the tree is not where the test looks for it");
    let tests: Vec<_> = sources.iter().flat_map(Source::test_modules).collect();
    let mark = |source: Source| match tests.contains(&source.path) {
        true => source.for_tests(),
        false => source,
    };
    sources.into_iter().map(mark).collect()
}

fn walk(directory: &Path, prefix: &str, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(directory).expect("a readable directory");
    let mut entries: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        let inside = format!("{prefix}{name}");
        if path.is_symlink() || name == "target" || name == ".git" {
            continue;
        }
        if path.is_dir() {
            walk(&path, &format!("{inside}/"), sources);
        } else if let Ok(text) = fs::read_to_string(&path) {
            sources.push(Source::new(&inside, &text));
        }
    }
}

/// The Rust files below a prefix.
pub(crate) fn rust<'a>(sources: &'a [Source], prefix: &'a str) -> impl Iterator<Item = &'a Source> {
    let of =
        move |source: &&Source| source.path.starts_with(prefix) && source.path.ends_with(".rs");
    sources.iter().filter(of)
}

/// One file, by its path.
pub(crate) fn one<'a>(sources: &'a [Source], path: &str) -> &'a Source {
    let found = sources.iter().find(|source| source.path == path);
    found.unwrap_or_else(|| panic!("{path} is not there"))
}

/// The number of the line that a byte is in.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// Blanks comments, strings and characters; lines stay where they are.
fn blank(text: &str) -> String {
    let mut code = text.to_string();
    let mut at = 0;
    while at < text.len() {
        let end = skip(text, at);
        if end > at {
            code = erase(&code, at..end);
            at = end;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    code
}

/// The end of the comment, string or character that begins here; `at` itself where none does.
fn skip(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let until = |end: Option<usize>| end.map_or(text.len(), |end| at + end);
    let word_before = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    match rest.as_bytes() {
        [b'/', b'/', ..] => until(rest.find('\n')),
        [b'/', b'*', ..] => until(rest.find("*/").map(|end| end + 2)),
        [b'"', ..] => at + quoted(rest, '"'),
        [b'r', b'"' | b'#', ..] if !word_before || text[..at].ends_with('b') => raw(text, at),
        [b'\'', b'\\', ..] => at + quoted(rest, '\''),
        [b'\'', ..] => {
            let mut chars = rest.char_indices().skip(2);
            chars.next().filter(|(_, c)| *c == '\'').map_or(at, |(end, _)| at + end + 1)
        }
        _ => at,
    }
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw(text: &str, at: usize) -> usize {
    let hashes = text[at + 1..].bytes().take_while(|byte| *byte == b'#').count();
    let open = at + 1 + hashes;
    if !text[open..].starts_with('"') {
        return at;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let end = text[open + 1..].find(&close);
    end.map_or(text.len(), |end| open + 1 + end + close.len())
}

/// Every item behind `#[cfg(test)]`.
fn tests(code: &str) -> Vec<Range<usize>> {
    let item = |(at, marker): (usize, &str)| {
        let after = at + marker.len();
        let opening = code[after..].find(['{', ';']).map_or(code.len(), |open| after + open);
        let end = match code[opening..].starts_with('{') {
            true => closing(code, opening),
            false => opening,
        };
        at..(end + 1).min(code.len())
    };
    code.match_indices("#[cfg(test)]").map(item).collect()
}

/// Where the brace that opens here closes.
pub(crate) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn erase(code: &str, range: Range<usize>) -> String {
    let blanked = code[range.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' });
    let blanked: String = blanked.collect();
    format!("{}{blanked}{}", &code[..range.start], &code[range.end..])
}

#[test]
fn comments_strings_and_tests_are_no_code() {
    let text = r##"
let a = "unwrap() \" {"; // unwrap()
let b = r#"unwrap() " {"#; let c = '"'; let d: &'static str = b"{"; /* unwrap() */
let e = '\''; fn after() {}
#[cfg(test)]
mod tests { fn inner() { x.unwrap() } }
fn last() {}
"##;
    let source = Source::new("agent/src/x.rs", text);
    assert_eq!(source.code.len(), text.len());
    assert_eq!(source.code.matches("unwrap").count(), 1);
    assert_eq!(source.shipped.matches("unwrap").count(), 0);
    for word in ["fn after", "fn last", "&'static str"] {
        assert!(source.shipped.contains(word), "{word}: {}", source.shipped);
    }
    assert!(Source::new("agent/src/x/tests.rs", text).shipped.trim().is_empty());
}

#[test]
fn words_are_whole() {
    assert_eq!(Source::words("a.unwrap() b.unwrap_or()", ".unwrap()"), [1]);
    assert_eq!(Source::words("println!() eprintln!()", "println!"), [0]);
}

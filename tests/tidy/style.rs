//! The rules of the hand for Rust files, and the absences: what must stand in one place only.

use crate::source::{Finding, Source, closing, line_of};

/// Longer than this a function is several.
const FUNCTION: usize = 70;

/// Longer than this, without its tests, a file is several.
const FILE: usize = 450;

/// Wider than this does not fit beside another.
const COLUMNS: usize = 100;

/// More than this many parameters are a type: four, and the context before them.
const PARAMETERS: usize = 5;

/// Words that only some files may say: the words, the files, what to do instead.
const ONLY: &[(&[&str], &[&str], &str)] = &[
    (
        &["SystemTime::now", "Timestamp::now", "Instant::now", "Zoned::now", "clock_gettime"],
        &["host/clock.rs"],
        "take `now` as an argument, or ask node.clock: tests and the simulation set the clock",
    ),
    (
        &["tokio::time::sleep", "thread::sleep"],
        &["host/clock.rs", "agent.rs"],
        "wait with node.clock.sleep, so that a clock of the tests can end it",
    ),
    (
        &[
            "fs::write",
            "fs::rename",
            "fs::remove_file",
            "fs::remove_dir",
            "fs::remove_dir_all",
            "fs::create_dir",
            "fs::create_dir_all",
            "fs::set_permissions",
            "fs::hard_link",
            "fs::copy",
            "File::create",
            "File::create_new",
            "OpenOptions",
            "unlinkat",
            "renameat",
            "mkdirat",
            "symlinkat",
            "openat",
        ],
        // The lock's file stays open for as long as it is held, and holds nothing. What a point
        // logs is for tests, and no release has it.
        &["host/files.rs", "host/files/", "host/lock.rs", "failpoint/armed.rs"],
        "write through host::files::Root: one place fsyncs, renames and refuses foreign files",
    ),
    (
        &["reqwest::Client", "ClientBuilder", "hyper::client", "Client::builder"],
        &["wire/http.rs"],
        "use wire::http::Http: every call has a deadline and a limit of bytes",
    ),
    (
        &["tokio::spawn", "task::spawn", "JoinSet", "thread::spawn", "spawn_blocking"],
        &["agent.rs"],
        "only the loop starts tasks, with a deadline and at most one per duty",
    ),
    (
        &["process::exit", "process::abort"],
        &[],
        "return an Error; main turns its kind into the exit code",
    ),
    (
        &["process::Command", "Command::new"],
        &[],
        "the agent starts no programs: use D-Bus, files or a library",
    ),
    (&["println!", "print!", "eprintln!", "eprint!"], &[], "return text for main to write, or log"),
    (&[".unwrap()"], &[], "use ?, or expect(\"the reason why it cannot fail\")"),
];

/// Words that no Rust file may say, not even a test.
const NEVER: &[(&str, &str)] = &[
    ("#[ignore", "make it run, or let it say why it cannot and fail under CI"),
    ("todo!", "do it, or return an error that says what is missing"),
    ("unimplemented!", "do it, or return an error that says what is missing"),
    ("dbg!", "take it out"),
];

/// What is wrong with one Rust file, whoever it belongs to.
pub(crate) fn everywhere(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !source.text.starts_with("//!") {
        let advice = "begin with a `//!` paragraph: what this is, and why";
        findings.push(source.finding(0, "head", advice));
    }
    for (word, advice) in NEVER {
        let places = Source::words(&source.code, word).into_iter();
        findings.extend(places.map(|at| source.finding(at, "never", format!("{word}: {advice}"))));
    }
    findings.extend(wide(source));
    findings.extend(long_file(source));
    findings.extend(functions(source).into_iter().filter_map(|found| found.judge(source)));
    findings.extend(bare_allows(source));
    findings
}

/// What is wrong with one file of the agent.
pub(crate) fn agent(source: &Source) -> Vec<Finding> {
    let inside = source.path.trim_start_matches("agent/src/");
    let mut findings = Vec::new();
    for (words, files, advice) in ONLY {
        if files
            .iter()
            .any(|file| inside == *file || file.ends_with('/') && inside.starts_with(file))
        {
            continue;
        }
        for word in *words {
            for at in Source::words(&source.shipped, word) {
                findings.push(source.finding(at, "only", format!("{word}: {advice}")));
            }
        }
    }
    findings.extend(loud(source, inside));
    findings.extend(waiting(source, inside));
    findings.extend(flags(source));
    findings
}

/// Below the flows nothing logs above debug: the flow logs once per change of state.
fn loud(source: &Source, inside: &str) -> Vec<Finding> {
    let flows = ["agent.rs", "agent/outcome.rs", "cli.rs", "main.rs", "gate.rs", "logging.rs"];
    if flows.contains(&inside) {
        return Vec::new();
    }
    let words = ["info!", "warn!", "error!"].into_iter();
    let places = words.flat_map(|word| Source::words(&source.shipped, word));
    let advice = "return it; agent.rs logs changes of state, one line each";
    places.map(|at| source.finding(at, "loud", advice)).collect()
}

/// What decides is pure: not async, so it cannot wait.
fn waiting(source: &Source, inside: &str) -> Vec<Finding> {
    let pure = ["status.rs", "backoff.rs", "error.rs", "duty/records.rs"];
    let within = ["status/", "config"].iter().any(|place| inside.starts_with(place));
    let whole = within || pure.contains(&inside);
    let places = Source::words(&source.shipped, "async").into_iter();
    let decides = |at: &usize| {
        let after = source.shipped[*at..].trim_start_matches("async").trim_start();
        ["fn due(", "fn decide(", "fn collect(", "fn plan("].iter().any(|f| after.starts_with(f))
    };
    let advice = "this is pure: take what it needs as arguments, and let an effect wait";
    places.filter(|at| whole || decides(at)).map(|at| source.finding(at, "pure", advice)).collect()
}

/// A bool at a call says nothing.
fn flags(source: &Source) -> Vec<Finding> {
    let advice = "no bool parameters: two functions, or an enum that says what is meant";
    let flagged = |found: &Function| {
        let parameters = &source.shipped[found.parameters.0..found.parameters.1];
        parameters.contains(": bool") && found.name != "log_success" && found.name != "show"
    };
    let found = functions(source).into_iter().filter(|found| !found.is_blank(source));
    found.filter(flagged).map(|found| source.finding(found.at, "flags", advice)).collect()
}

fn wide(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS {
            let place = format!("{}:{}", source.path, number + 1);
            let advice = format!("{columns} columns; break it before {COLUMNS}");
            findings.push(Finding { place, rule: "columns", advice });
        }
    }
    findings
}

fn long_file(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count() - source.test_lines;
    let advice = format!("{lines} lines without tests; {FILE} are enough for one story");
    (lines > FILE).then(|| source.finding(0, "file", advice))
}

/// A function as it stands in a file.
#[derive(Debug)]
struct Function {
    name: String,
    at: usize,
    parameters: (usize, usize),
    end: usize,
}

impl Function {
    fn judge(&self, source: &Source) -> Option<Finding> {
        let lines = line_of(&source.code, self.end) - line_of(&source.code, self.at) + 1;
        if lines > FUNCTION {
            let advice = format!("`{}` has {lines} lines; {FUNCTION} are several", self.name);
            return Some(source.finding(self.at, "function", advice));
        }
        let count = self.count(source);
        let advice = format!("`{}` takes {count} parameters; make a type of them", self.name);
        (count > PARAMETERS).then(|| source.finding(self.at, "parameters", advice))
    }

    /// The parameters, without `self`.
    fn count(&self, source: &Source) -> usize {
        let (mut depth, mut count, mut fresh) = (0_i32, 0, true);
        for c in source.code[self.parameters.0..self.parameters.1].chars() {
            match c {
                '(' | '[' | '<' | '{' => depth += 1,
                ')' | ']' | '>' | '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                ':' if depth == 0 && fresh => {
                    count += 1;
                    fresh = false;
                }
                _ => {}
            }
        }
        count
    }

    fn is_blank(&self, source: &Source) -> bool {
        source.shipped[self.at..self.parameters.1].trim().is_empty()
    }
}

/// Every function with a body.
fn functions(source: &Source) -> Vec<Function> {
    let code = &source.code;
    Source::words(code, "fn").into_iter().filter_map(|at| function(code, at)).collect()
}

fn function(code: &str, at: usize) -> Option<Function> {
    let rest = code[at..].strip_prefix("fn ")?;
    let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    let name = rest[..length].to_string();
    if name.is_empty() {
        return None;
    }
    let (mut depth, mut opened, mut closed) = (0, None, None);
    for (offset, c) in code[at..].char_indices() {
        let here = at + offset;
        match c {
            '(' | '[' => {
                depth += 1;
                opened = opened.or((c == '(').then_some(here + 1));
            }
            ')' | ']' => {
                depth -= 1;
                closed = closed.or((depth == 0 && c == ')').then_some(here));
            }
            ';' if depth == 0 => return None,
            '{' if depth == 0 => {
                let parameters = (opened?, closed?);
                return Some(Function { name, at, parameters, end: closing(code, here) });
            }
            _ => {}
        }
    }
    None
}

/// A lint that is switched off says why.
fn bare_allows(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for word in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
        for (at, _) in source.code.match_indices(word) {
            let end = source.code[at..].find(']').map_or(source.code.len(), |end| at + end);
            if Source::words(&source.code[at..end], "reason").is_empty() {
                let advice = "say why: #[allow(…, reason = \"…\")]";
                findings.push(source.finding(at, "allow", advice));
            }
        }
    }
    findings
}

#[test]
fn what_the_rules_forbid_is_found() {
    let long = format!("//! x\nfn f() {{\n{}}}\n", "    a();\n".repeat(70));
    let tall = format!("//! x\n{}", "const A: u8 = 1;\n".repeat(460));
    for (text, rule) in [
        ("fn f() {}", "head"),
        ("//! x\n#[test]\n#[ignore]\nfn f() {}", "never"),
        ("//! x\nfn f() { todo!() }", "never"),
        (long.as_str(), "function"),
        (tall.as_str(), "file"),
        ("//! x\nfn f(a: A, b: B<C, D>, c: C, d: D, e: E, g: G) {}", "parameters"),
        ("//! x\n#[allow(dead_code)]\nfn f() {}", "allow"),
        (&format!("//! {}", "x".repeat(100)), "columns"),
    ] {
        let found = everywhere(&Source::new("tests/rig/src/x.rs", text));
        assert_eq!(found.iter().map(|f| f.rule).collect::<Vec<_>>(), [rule], "{text}: {found:?}");
    }
    let tests = format!(
        "//! x\nfn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
        "const A: u8 = 1;\n".repeat(460)
    );
    assert_eq!(everywhere(&Source::new("agent/src/x.rs", &tests)), []);
}

#[test]
fn what_belongs_in_one_place_is_found_elsewhere() {
    for (path, text, rule) in [
        ("duty/act.rs", "let now = Timestamp::now();", "only"),
        ("duty/act.rs", "std::fs::write(path, text)?;", "only"),
        ("duty/act.rs", "reqwest::Client::new();", "only"),
        ("duty/act.rs", "tokio::spawn(async {});", "only"),
        ("duty/act.rs", "x.unwrap();", "only"),
        ("main.rs", "println!();", "only"),
        ("main.rs", "std::process::exit(1);", "only"),
        ("duty/act.rs", "tracing::warn!();", "loud"),
        ("duty/act.rs", "pub async fn due(config: &Config) {}", "pure"),
        ("status.rs", "async fn any() {}", "pure"),
        ("duty/act.rs", "fn f(hard: bool) {}", "flags"),
    ] {
        let found = agent(&Source::new(&format!("agent/src/{path}"), text));
        assert_eq!(found.iter().map(|f| f.rule).collect::<Vec<_>>(), [rule], "{text}: {found:?}");
    }
    for (path, text) in [
        ("host/clock.rs", "Timestamp::now();"),
        ("host/files/place.rs", "rustix::fs::openat();"),
        ("duty/act.rs", "x.unwrap_or(1); // println!()"),
        ("duty/act.rs", "#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }"),
        ("duty/act.rs", "pub async fn perform() {}"),
    ] {
        let found = agent(&Source::new(&format!("agent/src/{path}"), text));
        assert_eq!(found, [], "{path}: {text}");
    }
}

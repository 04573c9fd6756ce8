//! Rules for docs/promises.md: a row for every hazard and every feature, tests that exist, every
//! numbered test in its row; and README.md promises only what a row shows.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Finding, Source, one, rust};

const PAGE: &str = "docs/promises.md";
/// How many rows there are of each letter: hazards, and features.
const ROWS: [(char, usize); 2] = [('z', 26), ('n', 19)];
/// How a row begins.
const ROW: &str = "| <a id=\"";
/// What a row says where no test shows it.
const OPEN: [&str; 2] = ["**not yet**", "**not met**"];
/// Where README.md promises.
const PROMISES: &str = "\n## What it promises\n";
const LINK: &str = "](docs/promises.md#";

/// A row of the page.
struct Row<'a> {
    at: usize,
    id: &'a str,
    cells: Vec<&'a str>,
}

impl Row<'_> {
    fn is_open(&self) -> bool {
        OPEN.iter().any(|word| self.shown().starts_with(word))
    }

    /// The cell of the tests.
    fn shown(&self) -> &str {
        self.cells.get(2).copied().unwrap_or_default()
    }

    /// The tests that it names.
    fn tests(&self) -> Vec<&str> {
        let quoted = self.shown().split('`').skip(1).step_by(2);
        quoted.filter(|word| word.contains('_') && is_name(word)).collect()
    }
}

fn is_name(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn rows(page: &Source) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut at = 0;
    for line in page.text.split_inclusive('\n') {
        if let Some(id) = line.strip_prefix(ROW).and_then(|rest| rest.split('"').next()) {
            let cells = line.trim().trim_matches('|').split(" | ").map(str::trim).collect();
            rows.push(Row { at, id, cells });
        }
        at += line.len();
    }
    rows
}

/// The ids that there have to be, in their order.
fn wanted() -> Vec<String> {
    let ids = |(letter, count): (char, usize)| {
        (1..=count).map(move |number| format!("{letter}{number:02}"))
    };
    ROWS.into_iter().flat_map(ids).collect()
}

/// Every function of the Rust files, with a file that has it.
fn functions(sources: &[Source]) -> BTreeMap<&str, &Source> {
    let mut found = BTreeMap::new();
    for source in rust(sources, "") {
        for at in Source::words(&source.code, "fn") {
            let name = source.code[at + 2..].trim_start();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.insert(&name[..end], source);
        }
    }
    found
}

/// The number that a test carries.
fn number(name: &str) -> Option<&str> {
    let (id, _) = name.split_once('_')?;
    let letter = id.chars().next()?;
    let digits = id.len() == 3 && id[1..].bytes().all(|byte| byte.is_ascii_digit());
    (digits && ROWS.iter().any(|(known, _)| *known == letter)).then_some(id)
}

/// What is wrong with the page, the tests and the README.
pub(crate) fn findings(sources: &[Source]) -> Vec<Finding> {
    let page = one(sources, PAGE);
    let rows = rows(page);
    let functions = functions(sources);
    let mut findings = table(page, &rows);
    let parts = parts(one(sources, "tests/run"));
    for row in &rows {
        findings.extend(judge(page, row, &functions, &parts));
    }
    for (name, source) in &functions {
        let Some(id) = number(name) else { continue };
        if !rows.iter().any(|row| row.id == id && row.tests().contains(name)) {
            let advice = format!("{name} is not in the row {id} of {PAGE}");
            findings.push(source.finding(0, "promises", advice));
        }
    }
    findings.extend(readme(one(sources, "README.md"), &rows));
    findings.extend(named(one(sources, "docs/security.md"), &functions));
    findings
}

/// Rows that are missing, twice, or not in their order.
fn table(page: &Source, rows: &[Row<'_>]) -> Vec<Finding> {
    let ids: Vec<&str> = rows.iter().map(|row| row.id).collect();
    match ids == wanted() {
        true => Vec::new(),
        false => {
            let wanted = wanted();
            let missing: Vec<_> = wanted.iter().filter(|id| !ids.contains(&id.as_str())).collect();
            let advice = format!("one row each for z01 to z26 and n01 to n19: {missing:?} lack");
            vec![page.finding(0, "promises", advice)]
        }
    }
}

/// The part of `tests/run` that runs the tests of a file.
fn part_of(path: &str) -> &'static str {
    const PLACES: [(&str, &str); 16] = [
        ("tests/tidy/", "tidy"),
        ("tests/contract/", "contract"),
        ("tests/scenarios/simulation", "simulation"),
        ("tests/scenarios/terraform", "terraform"),
        ("tests/scenarios/ignition", "terraform"),
        ("tests/scenarios/launch", "launch"),
        ("tests/scenarios/machine", "machine"),
        ("tests/scenarios/kubernetes", "kubernetes"),
        ("tests/scenarios/wire", "kubernetes"),
        ("tests/scenarios/render", "kubernetes"),
        ("tests/scenarios/assets", "kubernetes"),
        ("tests/scenarios/", "scenarios"),
        ("tests/rig/src/machine", "machine"),
        ("tests/rig/src/peer/kube", "machine"),
        ("tests/rig/src/systemd/tests/contract", "machine"),
        ("tests/rig/src/controllers", "kubernetes"),
    ];
    let place = PLACES.iter().find(|(place, _)| path.starts_with(place));
    place.map_or("unit", |(_, part)| part)
}

/// The parts of `tests/run`.
fn parts(run: &Source) -> BTreeSet<&str> {
    let line = run.text.lines().find_map(|line| line.strip_prefix("ALL=("));
    line.map(|line| line.trim_end_matches(')').split(' ').collect()).unwrap_or_default()
}

/// One row: its label, its tests, its command.
fn judge(
    page: &Source,
    row: &Row<'_>,
    functions: &BTreeMap<&str, &Source>,
    parts: &BTreeSet<&str>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut refuse = |advice: String| findings.push(page.finding(row.at, "promises", advice));
    let label = row.id.to_uppercase().replacen('0', "", usize::from(&row.id[1..2] == "0"));
    if row.cells.len() != 4 || !row.cells[0].ends_with(&format!("</a>{label}")) {
        refuse(format!("{}: wants `</a>{label} | what | shown by | run by |`", row.id));
        return findings;
    }
    let tests = row.tests();
    for test in tests.iter().filter(|test| !functions.contains_key(**test)) {
        refuse(format!("{}: there is no test {test}", row.id));
    }
    let own = tests.iter().any(|test| number(test) == Some(row.id));
    if own == row.is_open() {
        let advice = "either a test that carries the number, or `**not yet**` or `**not met**`";
        refuse(format!("{}: {advice}", row.id));
    }
    let named: Vec<&str> = row.cells[3].split('`').skip(1).step_by(2).collect();
    let known = |command: &&str| match command.strip_prefix("tests/run ") {
        Some(words) => words.split(' ').all(|part| parts.contains(part)),
        None => command.starts_with("cargo test ") || command.starts_with("tests/bench "),
    };
    if !named.iter().all(known) {
        refuse(format!("{}: the last cell has commands of tests", row.id));
    }
    let places = tests.iter().filter_map(|test| functions.get(*test));
    let wanted: BTreeSet<&str> = places.map(|source| part_of(&source.path)).collect();
    let told = named.iter().filter_map(|command| command.strip_prefix("tests/run "));
    let told: BTreeSet<&str> = told.flat_map(|words| words.split(' ')).collect();
    if told != wanted {
        refuse(format!("{}: the last cell runs {told:?}, its tests are in {wanted:?}", row.id));
    }
    findings
}

/// Names of tests on another page, say of what an intruder cannot, that no test has.
fn named(page: &Source, functions: &BTreeMap<&str, &Source>) -> Vec<Finding> {
    let quoted = page.text.split('`').skip(1).step_by(2);
    let tests = quoted.filter(|word| is_name(word) && word.matches('_').count() > 2);
    tests
        .filter(|test| !functions.contains_key(test))
        .map(|test| page.finding(0, "promises", format!("there is no test {test}")))
        .collect()
}

/// Promises without a row that shows them.
fn readme(readme: &Source, rows: &[Row<'_>]) -> Vec<Finding> {
    let Some(begin) = readme.text.find(PROMISES) else { return Vec::new() };
    let mut findings = Vec::new();
    let section = &readme.text[begin + PROMISES.len()..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    for promise in section.split("\n* ").skip(1) {
        let promise = promise.split("\n\n").next().unwrap_or_default();
        let ids: Vec<&str> =
            promise.split(LINK).skip(1).filter_map(|rest| rest.split(')').next()).collect();
        let shown = |id: &&str| rows.iter().any(|row| row.id == *id && !row.is_open());
        if ids.is_empty() || !ids.iter().all(shown) {
            let at = begin + readme.text[begin..].find(promise).unwrap_or_default();
            let advice = "a promise links to rows of docs/promises.md that tests show";
            findings.push(readme.finding(at, "promises", advice));
        }
    }
    findings
}

/// A page on which all is well, with one promise in the README and its test.
#[cfg(test)]
fn good() -> Vec<Source> {
    let row = |id: &String| {
        let label = format!("{}{}", id[..1].to_uppercase(), id[1..].trim_start_matches('0'));
        let rest = match id.as_str() {
            "z01" => "`z01_it_holds`, `as_does_this` | `tests/run unit`",
            _ => "**not yet** | ",
        };
        format!("{ROW}{id}\"></a>{label} | it | {rest} |\n")
    };
    let page: String = wanted().iter().map(row).collect();
    let tests = "//! x\n#[test]\nfn z01_it_holds() {}\nfn as_does_this() {}\n\
                 fn and_as_does_this_too() {}\n";
    vec![
        Source::new(PAGE, &page),
        Source::new("tests/run", "ALL=(tidy unit)\n"),
        Source::new("agent/src/x.rs", tests),
        Source::new("docs/security.md", "It cannot (`as_does_this`, `and_as_does_this_too`).\n"),
        Source::new("README.md", &format!("# x\n{PROMISES}\n* It ([Z1{LINK}z01)).\n")),
    ]
}

#[test]
fn a_promise_without_a_test_is_found() {
    assert_eq!(findings(&good()), []);
    for (path, from, to, count) in [
        (PAGE, "<a id=\"n19\"", "<a id=\"n18\"", 2),
        (PAGE, "`as_does_this`", "`as_does_that`", 1),
        (PAGE, "`z01_it_holds`, ", "", 2),
        (PAGE, "tests/run unit", "tests/run units", 2),
        (PAGE, "tests/run unit", "tests/run tidy", 1),
        (PAGE, "| it | **not yet**", "| it | it will do", 1),
        (PAGE, "`z01_it_holds`", "**not yet**: `z01_it_holds`", 2),
        ("agent/src/x.rs", "as_does_this", "z26_too", 2),
        ("docs/security.md", "this_too", "that_too", 1),
        ("README.md", "#z01", "#z02", 1),
        ("README.md", "([Z1](docs/promises.md#z01))", "", 1),
    ] {
        let change = |source: &Source| match source.path == path {
            true => Source::new(path, &source.text.replacen(from, to, 1)),
            false => Source::new(&source.path, &source.text),
        };
        let changed: Vec<Source> = good().iter().map(change).collect();
        assert_eq!(findings(&changed).len(), count, "{path}: {to}: {:?}", findings(&changed));
    }
}

//! Rules for documents: what is generated equals the code, every problem has its entry and every
//! step its row, and every link leads somewhere.

use std::fs;

use nodeagent::bootstrap::step::Step;
use nodeagent::config::print;
use nodeagent::error::Code;

use crate::source::{Finding, Source, top};

/// The parts of an entry in docs/operating.md.
const PARTS: [&str; 3] = ["Means:", "By itself:", "Do:"];

/// What is generated, and where it lies.
fn generated() -> [(&'static str, String); 2] {
    [
        ("units/config.d/00-defaults.toml", print::default_file()),
        ("docs/configuration.md", print::reference()),
    ]
}

/// Files that differ from what the code generates; written anew where `NODEAGENT_BLESS` is set.
pub(crate) fn outdated() -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, wanted) in generated() {
        let file = top().join(path);
        if fs::read_to_string(&file).unwrap_or_default() == wanted {
            continue;
        }
        if std::env::var_os("NODEAGENT_BLESS").is_some() {
            fs::write(&file, wanted).expect("a writable tree");
            continue;
        }
        let advice = "differs from the code: NODEAGENT_BLESS=1 cargo test -p nodeagent --test tidy";
        findings.push(Finding {
            place: format!("{path}:1"),
            rule: "generated",
            advice: advice.into(),
        });
    }
    findings
}

/// Problems without an entry, entries without a problem, entries without a part.
pub(crate) fn entries(operating: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut known = Vec::new();
    let sections = operating.text.split("\n### ").skip(1);
    for section in sections {
        let slug = section.lines().next().unwrap_or_default().trim();
        let at = operating.text.find(&format!("\n### {slug}\n")).map_or(0, |at| at + 1);
        if !Code::ALL.iter().any(|code| code.slug() == slug) {
            let advice = format!("`{slug}` is no code of error.rs; take the entry out");
            findings.push(operating.finding(at, "operating", advice));
        }
        let body = section.split("\n## ").next().unwrap_or_default();
        for part in PARTS.iter().filter(|part| !body.contains(&format!("\n{part} "))) {
            let advice = format!("`{slug}` lacks a paragraph that begins with `{part}`");
            findings.push(operating.finding(at, "operating", advice));
        }
        known.push(slug);
    }
    for code in Code::ALL.iter().filter(|code| !known.contains(&code.slug())) {
        let advice = format!("`### {}` is missing: every problem is explained", code.slug());
        findings.push(operating.finding(0, "operating", advice));
    }
    findings
}

/// Steps without a row in the table of them, or with another limit there.
pub(crate) fn steps(page: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for step in Step::ALL {
        let (begin, end) = (format!("| `{step}` |"), format!("| {} s |", step.limit().as_secs()));
        let row = page.text.lines().find(|line| line.starts_with(&begin));
        if !row.is_some_and(|row| row.ends_with(&end)) {
            let advice = format!("the table of the steps wants a row `{begin} … {end}`");
            findings.push(page.finding(0, "steps", advice));
        }
    }
    findings
}

/// Links of a document to files that are not there.
pub(crate) fn links(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, _) in source.text.match_indices("](") {
        let rest = &source.text[at + 2..];
        let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
        if target.is_empty() || target.contains("://") {
            continue;
        }
        let beside = top().join(&source.path);
        let beside = beside.parent().expect("a file lies in a directory");
        if !beside.join(target).exists() {
            let advice = format!("{target} is not there");
            findings.push(source.finding(at, "links", advice));
        }
    }
    findings
}

#[test]
fn a_missing_entry_part_or_link_is_found() {
    let all: String = Code::ALL
        .iter()
        .map(|code| format!("\n### {}\n\nMeans: a.\n\nBy itself: b.\n\nDo: c.\n", code.slug()))
        .collect();
    assert_eq!(entries(&Source::new("docs/operating.md", &all)), []);
    let less = all.replace("### bug\n", "### no-bug\n");
    assert_eq!(entries(&Source::new("docs/operating.md", &less)).len(), 2);
    let partless = all.replacen("Do:", "Done:", 1);
    assert_eq!(entries(&Source::new("docs/operating.md", &partless)).len(), 1);
    assert_eq!(links(&Source::new("docs/x.md", "[a](nowhere.md) [b](x.md#y)")).len(), 2);
    assert_eq!(links(&Source::new("docs/x.md", "[c](../Cargo.toml)")), []);
}

#[test]
fn a_missing_step_or_another_limit_is_found() {
    let row = |step: &Step| format!("| `{step}` | a | b | {} s |\n", step.limit().as_secs());
    let all: String = Step::ALL.iter().map(row).collect();
    assert_eq!(steps(&Source::new("docs/control-plane.md", &all)), []);
    let less = all.replacen(" s |", " min |", 1).replace("`apply-assets`", "`apply`");
    assert_eq!(steps(&Source::new("docs/control-plane.md", &less)).len(), 2);
}

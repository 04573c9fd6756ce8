//! Rules for the metrics and the alerts over them: docs/metrics.md has a row for each and for no
//! other, an alert asks for what there is, says what to do, and is tried.

use std::collections::BTreeSet;

use nodeagent::status::metrics::METRICS;
use serde_json::Value;

use crate::source::{Finding, Source};

/// What every alert over metrics of a node knows of it.
const OF_A_NODE: [&str; 2] = ["instance", "job"];

/// One alert, as packaging/alerts has it.
#[derive(Debug)]
struct Alert {
    name: String,
    expression: String,
    severity: String,
    wait: String,
    texts: String,
    entry: String,
}

/// The alerts of a file of rules.
fn alerts(rules: &Source) -> Vec<Alert> {
    let file: Value = serde_saphyr::from_str(&rules.text).expect("the rules are YAML");
    let groups = file["groups"].as_array().expect("there are groups").iter();
    let all = groups.flat_map(|group| group["rules"].as_array().expect("a group has rules"));
    let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    let alert = |rule: &Value| {
        let told = &rule["annotations"];
        let (summary, description) = (text(&told["summary"]), text(&told["description"]));
        Alert {
            name: text(&rule["alert"]),
            expression: text(&rule["expr"]),
            severity: text(&rule["labels"]["severity"]),
            wait: text(&rule["for"]),
            texts: format!("{summary}\n{description}"),
            entry: text(&told["runbook"]),
        }
    };
    all.map(alert).collect()
}

/// Metrics without their row, rows without a metric, rows that say something else.
pub(crate) fn listed(page: &Source) -> Vec<Finding> {
    let wanted: BTreeSet<_> = METRICS.iter().map(|metric| metric.row()).collect();
    let rows = || page.text.lines().filter(|line| line.starts_with("| `nodeagent_"));
    let found: BTreeSet<_> = rows().map(String::from).collect();
    let mut findings = Vec::new();
    for row in wanted.difference(&found) {
        findings.push(page.finding(0, "metrics", format!("the table wants the row {row}")));
    }
    for row in found.difference(&wanted) {
        let at = page.text.find(row.as_str()).unwrap_or_default();
        let advice = format!("no metric is told of so; take it out: {row}");
        findings.push(page.finding(at, "metrics", advice));
    }
    findings
}

/// Alerts without their row, and rows without an alert.
pub(crate) fn explained(rules: &Source, page: &Source) -> Vec<Finding> {
    let all = alerts(rules);
    let mut findings = Vec::new();
    for alert in &all {
        let begin = format!("| `{}` | {} | {} | ", alert.name, alert.severity, alert.wait);
        let entry = alert.entry.rsplit_once('#').map_or("", |(_, entry)| entry);
        let end = format!(" | [{entry}](operating.md#{entry}) |");
        let fits = |row: &&str| row.starts_with(&begin) && row.ends_with(&end);
        if page.text.lines().filter(fits).count() != 1 {
            let advice = format!("the table of the alerts wants one row `{begin}…{end}`");
            findings.push(page.finding(0, "alerts", advice));
        }
    }
    for row in page.text.lines().filter(|row| row.starts_with("| `Nodeagent")) {
        let name = row.split('`').nth(1).unwrap_or_default();
        if !all.iter().any(|alert| alert.name == name) {
            let advice = format!("there is no alert `{name}`");
            findings.push(page.finding(0, "alerts", advice));
        }
    }
    findings
}

/// Alerts that ask for what there is not, say nothing, or lead nowhere.
pub(crate) fn judged(rules: &Source, operating: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for alert in alerts(rules) {
        let at = rules.text.find(&format!("alert: {}\n", alert.name)).unwrap_or_default();
        let mut say = |advice: String| {
            let advice = format!("{}: {advice}", alert.name);
            findings.push(rules.finding(at, "alerts", advice));
        };
        if !["warning", "critical"].contains(&alert.severity.as_str()) || alert.wait.is_empty() {
            say("say `severity: warning` or `critical`, and `for`".into());
        }
        if alert.texts.lines().any(str::is_empty) || alert.texts.lines().count() < 2 {
            say("say a summary and a description, with what to do".into());
        }
        if !leads_somewhere(&alert.entry, operating) {
            say(format!("`{}` is no entry of docs/operating.md", alert.entry));
        }
        let asked: Vec<_> = words(&alert.expression, "nodeagent_").collect();
        let known = || METRICS.iter().filter(|metric| asked.contains(&metric.name));
        for name in &asked {
            if !METRICS.iter().any(|metric| metric.name == *name) {
                say(format!("there is no metric `{name}`"));
            }
        }
        let labels: Vec<_> = known().flat_map(|metric| metric.labels).copied().collect();
        for label in words(&alert.texts, "$labels.") {
            let label = label.trim_start_matches("$labels.");
            if !labels.contains(&label) && !OF_A_NODE.contains(&label) {
                say(format!("its metrics have no label `{label}`"));
            }
        }
    }
    findings
}

/// Alerts that no test has seen fire.
pub(crate) fn tried(rules: &Source, tests: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for alert in alerts(rules) {
        let (name, severity) = (&alert.name, &alert.severity);
        let sample = format!("labels: '{{alertname=\"{name}\", severity=\"{severity}\"}}'");
        if !tests.text.contains(&sample) {
            let advice = format!("nothing makes `{name}` fire: want a sample with {sample}");
            findings.push(tests.finding(0, "alerts", advice));
        }
    }
    findings
}

fn leads_somewhere(entry: &str, operating: &Source) -> bool {
    let Some(anchor) = entry.strip_prefix("docs/operating.md#") else { return false };
    let heads = operating.text.lines().filter(|line| line.starts_with('#'));
    heads.into_iter().any(|line| line.trim_start_matches('#').trim().to_lowercase() == anchor)
}

/// The words of a text that begin so.
fn words<'a>(text: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(begin).map(move |(at, _)| {
        let rest = &text[at + begin.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &text[at..at + begin.len() + end.unwrap_or(rest.len())]
    })
}

#[test]
fn a_metric_that_is_not_listed_or_listed_wrongly_is_found() {
    let all: String = METRICS.iter().map(|metric| metric.row() + "\n").collect();
    assert_eq!(listed(&Source::new("docs/metrics.md", &all)), []);
    let (_, less) = all.split_once('\n').expect("there are rows");
    assert_eq!(listed(&Source::new("docs/metrics.md", less)).len(), 1);
    let more = format!("{all}| `nodeagent_none` | | 1 | a | `b` |\n");
    assert_eq!(listed(&Source::new("docs/metrics.md", &more)).len(), 1);
    let other = all.replacen(" seconds |", " minutes |", 1);
    assert_eq!(listed(&Source::new("docs/metrics.md", &other)).len(), 2);
}

#[test]
fn an_alert_that_asks_for_nothing_or_leads_nowhere_is_found() {
    let operating = Source::new("docs/operating.md", "## Problems\n\n### disk\n");
    let rules = |from: &str, to: &str| {
        let good = "groups:\n- name: a\n  rules:\n  - alert: NodeagentDisk\n    expr: \
             nodeagent_problems{code=\"disk\"} > 0\n    for: 5m\n    \
             labels: { severity: warning }\n    annotations:\n      summary: \
             \"{{ $labels.instance }} {{ $labels.place }}\"\n      \
             description: look\n      runbook: docs/operating.md#disk\n";
        assert!(from.is_empty() || good.contains(from), "{from}");
        Source::new("packaging/alerts/x.rules.yaml", &good.replacen(from, to, 1))
    };
    assert_eq!(judged(&rules("", ""), &operating), []);
    for (from, to) in [
        ("nodeagent_problems{", "nodeagent_problem{"),
        ("$labels.place", "$labels.duty"),
        ("#disk", "#disc"),
        ("severity: warning", "severity: mild"),
        ("    for: 5m\n", ""),
        ("description: look", "description: ''"),
    ] {
        let found = judged(&rules(from, to), &operating);
        assert!(!found.is_empty(), "{from} -> {to}");
    }
    let row = "| `NodeagentDisk` | warning | 5m | a | [disk](operating.md#disk) |\n";
    let page = |text: &str| Source::new("docs/metrics.md", text);
    assert_eq!(explained(&rules("", ""), &page(row)), []);
    assert_eq!(explained(&rules("for: 5m", "for: 6m"), &page(row)).len(), 1);
    let more = format!("{row}{}", row.replace("Disk", "Disc"));
    assert_eq!(explained(&rules("", ""), &page(&more)).len(), 1);
    let sample = "labels: '{alertname=\"NodeagentDisk\", severity=\"warning\"}'";
    assert_eq!(tried(&rules("", ""), &page(sample)), []);
    assert_eq!(tried(&rules("", ""), &page("")).len(), 1);
}

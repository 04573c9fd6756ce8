//! The status as metrics, for the textfile collector of Prometheus' node_exporter; pure.
//!
//! A file needs no socket, no port and no TLS of ours, and tells of a dead agent too: the instant
//! of its last look stands still. What there is stands in one list, [`METRICS`], which
//! docs/metrics.md repeats (checked). Labels hold names of the configuration and words of the
//! code, never a text: so their number is bounded, and nothing that was answered gets out.

mod list;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::Status;
pub use list::METRICS;

/// Where the metrics are published.
pub const PATH: &str = "/run/nodeagent/metrics.prom";

/// One metric. All are gauges: what happened is told by when it last did.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, with its unit.
    pub name: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it is; one line.
    pub help: &'static str,
    /// The field of `status --json` that it is made of.
    pub field: &'static str,
    /// Its samples; none where the status does not tell.
    read: fn(&Status) -> Vec<Sample>,
}

/// One value, with a value for each label.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    labels: Vec<String>,
    value: f64,
}

impl Metric {
    /// Its unit, which is the end of its name.
    pub fn unit(&self) -> &'static str {
        match self.name {
            name if name.ends_with("_timestamp_seconds") => "seconds since 1970",
            name if name.ends_with("_seconds") => "seconds",
            name if name.ends_with("_info") => "1",
            _ => self.plain_unit(),
        }
    }

    fn plain_unit(&self) -> &'static str {
        if self.help.ends_with("1 or 0.") { "1 or 0" } else { "a number" }
    }

    /// Its row in docs/metrics.md.
    pub fn row(&self) -> String {
        let labels: Vec<_> = self.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, unit, help, field) = (self.name, self.unit(), self.help, self.field);
        format!("| `{name}` | {} | {unit} | {help} | `{field}` |", labels.join(", "))
            .replace("|  |", "| |")
    }
}

/// The whole file, in Prometheus' text format.
pub fn text(status: &Status) -> String {
    let mut text = String::new();
    for metric in METRICS {
        family(&mut text, metric, status);
    }
    text
}

/// One metric with its samples. The second of two with the same labels is dropped: it would make
/// the collector refuse the whole file.
fn family(text: &mut String, metric: &Metric, status: &Status) {
    let samples = (metric.read)(status);
    if samples.is_empty() {
        return;
    }
    let name = metric.name;
    write_to(text, format_args!("# HELP {name} {}\n# TYPE {name} gauge\n", metric.help));
    let mut told = BTreeSet::new();
    for sample in &samples {
        let labels = labels(metric, sample);
        if told.insert(labels.clone()) {
            write_to(text, format_args!("{name}{labels} {}\n", number(sample.value)));
        }
    }
}

/// `{name="value",…}`, or nothing.
fn labels(metric: &Metric, sample: &Sample) -> String {
    let pairs = metric.labels.iter().zip(&sample.labels);
    let pairs: Vec<_> =
        pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".into(),
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        _ => value.to_string(),
    }
}

/// Seconds since 1970, as Prometheus' own `time()`.
fn instant(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

fn write_to(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(change: fn(&mut Value)) -> Status {
        let mut document = json!({
            "schema": 1,
            "health": "healthy",
            "agent": {
                "version": "1", "started": "2026-11-21T11:00:00Z",
                "looked": "2026-11-21T12:00:00.250Z", "interval_s": 30,
            },
            "node": { "cluster": "prod", "role": "worker" },
            "vault": { "address": "https://vault", "session": "none" },
            "autonomy_s": i64::MAX, "certificates": [], "consumers": [], "problems": [],
        });
        change(&mut document);
        serde_json::from_value(document).expect("a status")
    }

    fn lines_of(name: &str, status: &Status) -> Vec<String> {
        let text = text(status);
        let own = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        own.map(String::from).collect()
    }

    #[test]
    fn names_follow_the_conventions_and_stand_once() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            let name = metric.name;
            assert!(names.insert(name), "{name} stands twice");
            let words = name.strip_prefix("nodeagent_").expect(name);
            assert!(words.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            // All are gauges, and seconds are the only unit that there is.
            for not in ["_total", "_count", "_ms", "_minutes", "_hours", "_bytes"] {
                assert!(!name.ends_with(not), "{name}");
            }
            let is_instant = metric.help.starts_with("When ") || metric.help.starts_with("Since ");
            assert_eq!(is_instant, name.ends_with("_timestamp_seconds"), "{name}");
            let is_length =
                metric.help.starts_with("How far") || metric.help.starts_with("For how");
            assert!(!is_length || name.ends_with("_seconds"), "{name}");
            assert!(
                metric.help.ends_with('.') && !metric.help.contains(['\n', '|', '\\']),
                "{name}"
            );
        }
    }

    #[test]
    fn values_are_written_as_prometheus_reads_them() {
        let well = status(|_| {});
        let look = ["nodeagent_last_look_timestamp_seconds 1795262400.25"];
        assert_eq!(lines_of("nodeagent_last_look_timestamp_seconds", &well), look);
        assert_eq!(
            lines_of("nodeagent_autonomy_seconds", &well),
            ["nodeagent_autonomy_seconds +Inf"]
        );
        let missing = status(|document| document["autonomy_s"] = Value::Null);
        assert_eq!(lines_of("nodeagent_autonomy_seconds", &missing), [""; 0]);
        assert!(!text(&missing).contains("nodeagent_autonomy_seconds "), "no head without a value");
    }

    #[test]
    fn labels_cannot_break_out_of_their_quotes() {
        let odd = status(|document| document["node"]["cluster"] = json!("a\"} 1\nx\\"));
        let wanted = r#"nodeagent_node_info{cluster="a\"} 1\nx\\",role="worker",instance_id=""} 1"#;
        assert_eq!(lines_of("nodeagent_node_info", &odd), [wanted]);
    }

    #[test]
    fn what_stands_twice_is_told_once() {
        let twice = status(|document| {
            let problem = json!({ "code": "disk", "place": "agent", "text": "", "advice": null });
            document["problems"] = json!([problem, problem]);
            let duty = json!({ "name": "session", "last_success": null, "failures": 1 });
            document["duties"] = json!([duty, duty]);
        });
        let problems = [r#"nodeagent_problems{code="disk",place="agent"} 2"#];
        assert_eq!(lines_of("nodeagent_problems", &twice), problems);
        assert_eq!(lines_of("nodeagent_duty_failures", &twice).len(), 1);
    }

    #[test]
    fn what_is_served_is_judged_by_what_is_on_disk() {
        let of = |change: fn(&mut Value)| {
            let status = status(change);
            lines_of("nodeagent_consumer_serves_published", &status).join("")
        };
        let (yes, no) = (r#"{consumer="k"} 1"#, r#"{consumer="k"} 0"#);
        assert!(of(|document| serve(document, "pending", "0a")).ends_with(yes));
        assert!(of(|document| serve(document, "failing", "0b")).ends_with(no));
        assert_eq!(of(|document| serve(document, "current", "0b")), "");
        assert_eq!(of(|document| document["consumers"] = json!([])), "");
    }

    fn serve(document: &mut Value, state: &str, served: &str) {
        document["certificates"] = json!([{
            "name": "k-server", "consumer": "k", "state": "good", "serial": "0a",
        }]);
        document["consumers"] = json!([{ "name": "k", "state": state, "served": served }]);
    }
}

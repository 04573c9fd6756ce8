//! What `kubectl get` prints, made of the API's own answers: no kubectl is needed for it.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// `kubectl get nodes`.
pub(super) fn nodes(nodes: &[Value], now: Timestamp) -> String {
    let rows = nodes.iter().map(|node| {
        let status = if is_true(node, "Ready") { "Ready" } else { "NotReady" };
        let version = &node["status"]["nodeInfo"]["kubeletVersion"];
        vec![name(node), status.into(), age(node, now), plain(version)]
    });
    table(&["NAME", "STATUS", "AGE", "VERSION"], rows.collect())
}

/// `kubectl get pods`.
pub(super) fn pods(pods: &[Value], now: Timestamp) -> String {
    let rows = pods.iter().map(|pod| {
        let containers = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        let ready = containers.iter().filter(|container| container["ready"] == true).count();
        let restarts: u64 =
            containers.iter().filter_map(|container| container["restartCount"].as_u64()).sum();
        let ready = format!("{ready}/{}", containers.len());
        vec![name(pod), ready, plain(&pod["status"]["phase"]), restarts.to_string(), age(pod, now)]
    });
    table(&["NAME", "READY", "STATUS", "RESTARTS", "AGE"], rows.collect())
}

/// Whether an object has a condition.
pub(super) fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().any(|part| part["type"] == condition && part["status"] == "True")
}

fn name(object: &Value) -> String {
    plain(&object["metadata"]["name"])
}

fn plain(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// In the largest unit that there is one of.
fn age(object: &Value, now: Timestamp) -> String {
    let made = object["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
    let Ok(made) = made.parse::<Timestamp>() else { return "-".into() };
    let seconds = now.duration_since(made).max(SignedDuration::ZERO).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let lines = all.iter().map(|row| {
        let cells = row.iter().enumerate().map(|(at, cell)| format!("{cell:0$}", width(at)));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_are_shown_as_kubectl_does() {
        let now = Timestamp::from_second(1_800_000_000).expect("an instant");
        let made = now.checked_sub(SignedDuration::from_mins(5)).expect("an instant");
        let node = json!({
            "metadata": {"name": "i-1", "creationTimestamp": made.to_string()},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0"},
            },
        });
        let shown = nodes(&[node], now);
        assert_eq!(shown, "NAME   STATUS   AGE   VERSION\ni-1    Ready    5m    v1.36.0");
    }

    #[test]
    fn a_pod_without_containers_yet_is_shown_all_the_same() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"phase": "Pending"}});
        let shown = pods(&[pod], Timestamp::UNIX_EPOCH);
        assert!(shown.ends_with("p      0/0     Pending   0          -"), "{shown}");
    }
}

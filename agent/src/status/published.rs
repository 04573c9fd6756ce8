//! Where the status lies: written whole at every look, read by people and by programs.

use std::path::Path;

use jiff::Timestamp;

use super::{Health, PATH, Status, metrics, problem};
use crate::error::{Code, Error, Result, said};
use crate::host::files::Root;

/// Publishes the status and its metrics: readable by everyone.
pub fn store(root: &Root, status: &Status) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(status)
        .map_err(|error| Error::new(Code::Bug, error.to_string()).at(PATH))?;
    root.write_volatile(Path::new(PATH), &bytes, 0o644)?;
    root.write_volatile(Path::new(metrics::PATH), metrics::text(status).as_bytes(), 0o644)
}

/// Reads the published status and judges it by its age: an agent that has not looked for twice
/// its interval is silent, and certificates may have ended since.
pub fn load(root: &Root, now: Timestamp) -> Result<Status> {
    let silent = |text: String| {
        Error::new(Code::AgentSilent, text).advise("systemctl status nodeagent; is it running?")
    };
    let bytes = root.read_optional(Path::new(PATH), 4 << 20)?;
    let bytes = bytes.ok_or_else(|| silent(format!("{PATH} is not there")))?;
    let mut status: Status = serde_json::from_slice(&bytes)
        .map_err(|error| silent(format!("{PATH} cannot be read: {}", said(&error))))?;
    let age = now.duration_since(status.agent.looked).as_secs();
    if age.unsigned_abs() > status.agent.interval_s.saturating_mul(2) {
        let text = format!("the agent has not looked for {age} s; what follows is as old");
        status.problems.insert(0, problem("agent", &silent(text), Some(status.agent.looked)));
        status.health = status.health.max(Health::Degraded);
        status.autonomy_s = status.autonomy_s.map(|left| left.saturating_sub(age));
        if status.autonomy_s.is_some_and(|left| left <= 0) {
            status.health = Health::Failed;
        }
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_of(document: &str) -> Result<Status> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir_all(dir.path().join("run/nodeagent")).expect("its directory");
        std::fs::write(dir.path().join("run/nodeagent/status.json"), document).expect("written");
        load(&Root::new(dir.path()), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_interval_without_end_makes_no_agent_silent() {
        let document = r#"{
            "schema": 1, "health": "healthy", "node": { "cluster": "", "role": "" },
            "agent": {
                "version": "1", "started": "2026-11-29T12:00:00Z",
                "looked": "2026-11-29T12:00:00Z", "interval_s": 18446744073709551615
            },
            "vault": { "address": "", "session": "none" }, "autonomy_s": null,
            "certificates": [], "consumers": [], "problems": []
        }"#;
        assert!(load_of(document).expect("a status").problems.is_empty());
    }

    #[test]
    fn what_is_no_status_is_told_in_one_short_line() {
        let error = load_of(r#"{"health": "\u001b[2J"}"#).expect_err("no status");
        assert!(!format!("{error:#}").contains(char::is_control), "{error:#}");
        let code = r#"{"problems": [{"code": "no-such-code", "place": "", "text": ""}]}"#;
        let error = format!("{:#}", load_of(code).expect_err("no status"));
        assert!(error.contains("unknown variant `no-such-code`"), "{error}");
        assert!(error.chars().count() < 400, "{error}");
    }
}

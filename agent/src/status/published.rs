//! Where the status lies: written whole at every look, read by people and by programs.

use std::path::Path;

use jiff::Timestamp;

use super::{Health, PATH, Status, metrics, problem};
use crate::error::{Code, Error, Result};
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
        .map_err(|error| silent(format!("{PATH} cannot be read: {error}")))?;
    let age = now.duration_since(status.agent.looked).as_secs();
    if age.unsigned_abs() > 2 * status.agent.interval_s {
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

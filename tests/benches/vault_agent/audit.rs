//! What Vault was asked, by whom: its audit log, which counts requests and refusals.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde_json::{Value, json};

use rig::setup::Admin;

/// The requests of one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Log-ins that Vault took.
    pub(crate) logins: usize,
    /// Log-ins that it refused.
    pub(crate) refused: usize,
    /// Certificates signed or issued.
    pub(crate) issues: usize,
    /// Everything else with a token.
    pub(crate) others: usize,
}

/// The audit log.
pub(crate) struct Audit {
    path: PathBuf,
}

impl Audit {
    /// A log that is not written yet.
    pub(crate) fn new(path: PathBuf) -> Audit {
        Audit { path }
    }

    /// Has Vault write it from now on; what is timed is timed without.
    pub(crate) async fn begin(&self, admin: &Admin) -> Result<(), String> {
        let options = json!({ "file_path": self.path });
        let body = json!({ "type": "file", "options": options });
        admin.must_write("sys/audit/file", &body).await.map(drop)
    }

    /// Where it ends now.
    pub(crate) fn mark(&self) -> Result<u64, String> {
        std::fs::metadata(&self.path).map(|m| m.len()).map_err(|error| error.to_string())
    }

    /// What was asked since, by the agent and by Vault Agent.
    pub(crate) fn since(&self, mark: u64) -> Result<(Requests, Requests), String> {
        let text = |error: std::io::Error| format!("{}: {error}", self.path.display());
        let mut file = std::fs::File::open(&self.path).map_err(text)?;
        file.seek(SeekFrom::Start(mark)).map_err(text)?;
        let mut lines = String::new();
        file.read_to_string(&mut lines).map_err(text)?;
        let (mut ours, mut theirs) = (Requests::default(), Requests::default());
        for line in lines.lines() {
            // The last line may be half written.
            let entry: Value = serde_json::from_str(line).unwrap_or_default();
            if entry["type"] != "response" {
                continue;
            }
            match whose(&entry) {
                Some(Whose::Ours) => ours.count(&entry),
                Some(Whose::Theirs) => theirs.count(&entry),
                None => {}
            }
        }
        Ok((ours, theirs))
    }
}

enum Whose {
    Ours,
    Theirs,
}

/// Who asked. A refused log-in has no policies: the agent proves itself by `pkcs7`, Vault Agent by
/// `identity` and `signature`.
fn whose(entry: &Value) -> Option<Whose> {
    let sent = |name: &str| entry["request"]["data"].get(name).is_some();
    let policies = entry["auth"]["policies"].as_array();
    let has = |name: &str| policies.is_some_and(|all| all.iter().any(|policy| policy == name));
    if sent("pkcs7") || has("worker") {
        Some(Whose::Ours)
    } else if sent("identity") || has("vault-agent") {
        Some(Whose::Theirs)
    } else {
        None
    }
}

impl Requests {
    fn count(&mut self, entry: &Value) {
        let path = entry["request"]["path"].as_str().unwrap_or_default();
        let refused = entry["error"].is_string() || entry["response"]["data"]["error"].is_string();
        let counter = match path {
            "auth/aws/login" if refused => &mut self.refused,
            "auth/aws/login" => &mut self.logins,
            _ if path.starts_with("pki/") && !refused => &mut self.issues,
            _ => &mut self.others,
        };
        *counter += 1;
    }
}

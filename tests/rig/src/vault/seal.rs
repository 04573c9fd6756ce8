//! Initialisation, unsealing and the status pages, which answer in every state of the server and
//! want no token.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Call, Operation, Refusal};
use super::field::{Field, Form, Kind, field};
use super::{VERSION, ids};

/// Whether the server can work, and what it takes to make it.
#[derive(Debug)]
pub(super) struct Seal {
    pub(super) initialized: bool,
    pub(super) sealed: bool,
    shares: Vec<Vec<u8>>,
    threshold: usize,
    given: Vec<Vec<u8>>,
    attempt: String,
    cluster_id: String,
    cluster_name: String,
}

impl Default for Seal {
    fn default() -> Seal {
        Seal {
            initialized: false,
            sealed: true,
            shares: Vec::new(),
            threshold: 0,
            given: Vec::new(),
            attempt: String::new(),
            cluster_id: ids::uuid(),
            cluster_name: format!("vault-cluster-{}", ids::hex::<4>()),
        }
    }
}

const INIT: &[Field] = &[
    field("secret_shares", Kind::Number),
    field("secret_threshold", Kind::Number),
    field("recovery_shares", Kind::Number),
    field("recovery_threshold", Kind::Number),
    field("pgp_keys", Kind::List),
    field("root_token_pgp_key", Kind::Text),
];
const UNSEAL: &[Field] =
    &[field("key", Kind::Text), field("reset", Kind::Flag), field("migrate", Kind::Flag)];

/// Vault's shares are 33 bytes, its barrier key 32; one share alone is the key itself.
const SHARE_BYTES: usize = 33;

impl Seal {
    /// Answers a page of this module, or nothing where the path is not one of them.
    pub(super) fn page(&mut self, call: &Call, now: Timestamp) -> Option<Answer> {
        let write = call.operation() == Some(Operation::Write);
        match call.path.as_str() {
            "sys/health" => Some(self.health(&call.query, now)),
            "sys/seal-status" => Some(Answer::json(200, &self.status())),
            "sys/leader" => Some(Answer::json(200, &leader())),
            "sys/unseal" if write => Some(self.unseal(call).unwrap_or_else(refused)),
            "sys/init" if !write => {
                Some(Answer::json(200, &json!({ "initialized": self.initialized })))
            }
            _ => None,
        }
    }

    /// Initialises; the caller adds the root token to the keys.
    pub(super) fn init(&mut self, body: &Map<String, Value>) -> Result<Value, Refusal> {
        let (form, _) = Form::parse(INIT, body)?;
        if self.initialized {
            return Err(Refusal::bad("Vault is already initialized"));
        }
        if form.given("recovery_shares") || form.given("recovery_threshold") {
            return Err(Refusal::bad(
                "parameters recovery_shares,recovery_threshold not applicable to seal type shamir",
            ));
        }
        let (shares, threshold) = (form.number("secret_shares"), form.number("secret_threshold"));
        let wrong = match (shares, threshold) {
            (..=0, _) => Some("shares must be at least one"),
            (2.., ..=1) => Some("threshold must be greater than one for multiple shares"),
            (_, ..=0) => Some("threshold must be at least one"),
            _ if threshold > shares => Some("threshold cannot be larger than shares"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Err(Refusal::bad(format!("invalid seal configuration: {wrong}")));
        }
        self.threshold = usize::try_from(threshold).unwrap_or(1);
        self.shares = (0..shares).map(|_| ids::random::<SHARE_BYTES>()).collect();
        if shares == 1 {
            self.shares.iter_mut().for_each(|share| share.truncate(SHARE_BYTES - 1));
        }
        self.initialized = true;
        let hex: Vec<String> = self.shares.iter().map(|share| to_hex(share)).collect();
        let encoded: Vec<String> = self.shares.iter().map(|share| to_base64(share)).collect();
        Ok(json!({ "keys": hex, "keys_base64": encoded }))
    }

    pub(super) fn seal(&mut self) {
        self.sealed = true;
        self.given.clear();
    }

    /// Unseals with the keys that the model made itself.
    pub(super) fn unseal_now(&mut self) {
        self.sealed = !self.initialized;
    }

    fn unseal(&mut self, call: &Call) -> Result<Answer, Refusal> {
        let (form, _) = Form::parse(UNSEAL, &call.form()?)?;
        if !self.initialized {
            return Err(Refusal::bad("Vault is not initialized"));
        }
        if form.flag("reset") {
            self.given.clear();
            return Ok(Answer::json(200, &self.status()));
        }
        if form.text("key").is_empty() {
            return Err(Refusal::bad(
                "'key' must be specified in request body as JSON, or 'reset' set to true",
            ));
        }
        let share = from_text(form.text("key"))?;
        if !self.sealed {
            return Ok(Answer::json(200, &self.status()));
        }
        if share.len() < 16 {
            return Err(Refusal::bad("invalid key: key is shorter than minimum 16 bytes"));
        }
        if self.given.is_empty() {
            self.attempt = ids::uuid();
        }
        if !self.given.contains(&share) {
            self.given.push(share);
        }
        if self.given.len() >= self.threshold {
            let given = std::mem::take(&mut self.given);
            if !given.iter().all(|share| self.shares.contains(share)) {
                return Err(Refusal::bad(
                    "unable to retrieve stored keys: invalid key: failed to decrypt keys from \
                     storage: error decrypting seal wrapped value\n\
                     error decrypting using seal shamir: cipher: message authentication failed",
                ));
            }
            self.sealed = false;
        }
        Ok(Answer::json(200, &self.status()))
    }

    fn status(&self) -> Value {
        let mut status = json!({
            "type": "shamir",
            "initialized": self.initialized,
            "sealed": self.sealed,
            "t": self.threshold,
            "n": self.shares.len(),
            "progress": self.given.len(),
            "nonce": if self.given.is_empty() { "" } else { self.attempt.as_str() },
            "version": VERSION,
            "build_date": "",
            "migration": false,
            "recovery_seal": false,
            "storage_type": "inmem",
        });
        if !self.sealed {
            status["cluster_name"] = json!(self.cluster_name);
            status["cluster_id"] = json!(self.cluster_id);
        }
        status
    }

    fn health(&self, query: &str, now: Timestamp) -> Answer {
        let (name, usual) = match (self.initialized, self.sealed) {
            (false, _) => ("uninitcode", 501),
            (true, true) => ("sealedcode", 503),
            (true, false) => ("activecode", 200),
        };
        let wanted = query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then(|| value.parse::<u16>().ok()).flatten()
        });
        let mut body = json!({
            "initialized": self.initialized,
            "sealed": self.sealed,
            "standby": self.sealed,
            "performance_standby": false,
            "replication_performance_mode": if self.sealed { "unknown" } else { "disabled" },
            "replication_dr_mode": if self.sealed { "unknown" } else { "disabled" },
            "server_time_utc": now.as_second(),
            "version": VERSION,
            "enterprise": false,
            "echo_duration_ms": 0,
            "clock_skew_ms": 0,
            "replication_primary_canary_age_ms": 0,
        });
        if !self.sealed {
            body["cluster_name"] = json!(self.cluster_name);
            body["cluster_id"] = json!(self.cluster_id);
        }
        Answer::json(wanted.unwrap_or(usual), &body)
    }
}

fn leader() -> Value {
    json!({
        "ha_enabled": false,
        "is_self": false,
        "active_time": "0001-01-01T00:00:00Z",
        "leader_address": "",
        "leader_cluster_address": "",
        "performance_standby": false,
        "performance_standby_last_remote_wal": 0,
    })
}

fn refused(refusal: Refusal) -> Answer {
    refusal.into_answer()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn to_base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn from_text(text: &str) -> Result<Vec<u8>, Refusal> {
    use base64::Engine as _;
    let pair = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let hex: Option<Vec<u8>> = (0..text.len()).step_by(2).map(pair).collect();
    hex.or_else(|| base64::engine::general_purpose::STANDARD.decode(text).ok())
        .ok_or_else(|| Refusal::bad("'key' must be a valid hex or base64 string"))
}

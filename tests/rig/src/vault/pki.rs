//! The `pki` secrets engine of the model. It really signs: certificates verify against the root
//! that the model made, under the model's clock, and a role that does not allow a name refuses it
//! in Vault's words.

mod ca;
mod csr;
mod names;
mod read;
mod role;
mod sign;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::answer::{Operation, Refusal, Reply};
use super::fault::Lie;
use super::field::{Field, Form, Kind, field, with_default};
use ca::Authority;

/// One mount.
#[derive(Debug, Default)]
pub(super) struct Pki {
    issuers: BTreeMap<String, Authority>,
    /// Issuers in the order in which they were made.
    order: Vec<String>,
    default: String,
    roles: BTreeMap<String, Form>,
    issued: BTreeMap<String, Issued>,
    urls: Option<Form>,
    tidy: Option<Form>,
}

/// A certificate that the mount remembers.
#[derive(Debug, Clone)]
struct Issued {
    pem: String,
    revoked: Option<Timestamp>,
}

/// One call below the mount.
pub(super) struct Request<'a> {
    pub(super) operation: Operation,
    pub(super) path: &'a str,
    pub(super) body: &'a Map<String, Value>,
    pub(super) now: Timestamp,
    /// Default and maximum lease of the mount, in seconds.
    pub(super) mount_ttl: (i64, i64),
    /// The caller's alias names by mount accessor, for templated roles.
    pub(super) aliases: &'a BTreeMap<String, String>,
    /// How the answer is falsified, if it is.
    pub(super) lie: Option<Lie>,
}

/// Paths that need no token.
pub(super) fn is_public(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or("");
    match first {
        "ca" | "ca_chain" | "cert" | "crl" => path != "cert" && path != "certs",
        "issuer" => path.ends_with("/pem") || path.ends_with("/der") || path.ends_with("/json"),
        _ => path == "issuers" || path == "issuers/",
    }
}

const URLS: &[Field] = &[
    field("issuing_certificates", Kind::List),
    field("crl_distribution_points", Kind::List),
    field("ocsp_servers", Kind::List),
];
/// Kept and shown; the model forgets nothing by itself.
const TIDY: &[Field] = &[
    field("enabled", Kind::Flag),
    with_default("interval_duration", Kind::Seconds, "12h"),
    field("tidy_cert_store", Kind::Flag),
    field("tidy_revoked_certs", Kind::Flag),
    with_default("safety_buffer", Kind::Seconds, "72h"),
];
const DEFAULT_ISSUER: &[Field] =
    &[field("default", Kind::Text), field("default_follows_latest_issuer", Kind::Flag)];
const REVOKE: &[Field] = &[field("serial_number", Kind::Text)];

impl Pki {
    pub(super) fn handle(&mut self, request: &Request<'_>) -> Result<Reply, Refusal> {
        let segments: Vec<&str> = request.path.split('/').collect();
        let write = request.operation == Operation::Write;
        match segments.as_slice() {
            ["root", "generate", kind] | ["issuers", "generate", "root", kind] if write => {
                self.generate_root(kind, request)
            }
            ["config", "urls"] => self.urls(request),
            ["config", "auto-tidy"] => self.auto_tidy(request),
            ["config", "issuers"] => self.default_issuer(request),
            ["roles", name] if !name.is_empty() => self.role(name, request),
            ["roles" | "roles/"] | ["roles", ""] if request.operation == Operation::List => {
                Ok(Reply::Keys(self.roles.keys().cloned().collect()))
            }
            ["sign", role] if write => self.sign("default", role, request),
            ["issuer", issuer, "sign", role] if write => self.sign(issuer, role, request),
            ["issuer", issuer] => self.issuer(issuer, request),
            ["revoke"] if write => self.revoke(request),
            ["sign" | "revoke", ..] => Err(Refusal::unsupported_operation()),
            _ if matches!(request.operation, Operation::Read | Operation::List) => {
                self.read(request)
            }
            _ => Err(Refusal::unsupported_path()),
        }
    }

    fn urls(&mut self, request: &Request<'_>) -> Result<Reply, Refusal> {
        if request.operation == Operation::Write {
            let (form, warnings) = Form::parse(URLS, request.body)?;
            let shown = Value::Object(form.shown());
            self.urls = Some(form);
            return Ok(Reply::Data(shown, warnings));
        }
        let shown = self.urls.as_ref().map(Form::shown).unwrap_or_default();
        Ok(Reply::data(Value::Object(shown)))
    }

    fn auto_tidy(&mut self, request: &Request<'_>) -> Result<Reply, Refusal> {
        let mut warnings = Vec::new();
        if request.operation == Operation::Write {
            let (form, told) = Form::parse(TIDY, request.body)?;
            self.tidy = Some(form);
            warnings = told;
        }
        let shown = self.tidy.as_ref().map(Form::shown).unwrap_or_default();
        Ok(Reply::Data(Value::Object(shown), warnings))
    }

    fn default_issuer(&mut self, request: &Request<'_>) -> Result<Reply, Refusal> {
        let mut warnings = Vec::new();
        if request.operation == Operation::Write {
            let (form, told) = Form::parse(DEFAULT_ISSUER, request.body)?;
            let id = self.find(form.text("default"))?.id.clone();
            self.default = id;
            warnings = told;
        }
        let data = json!({ "default": self.default, "default_follows_latest_issuer": false });
        Ok(Reply::Data(data, warnings))
    }

    fn revoke(&mut self, request: &Request<'_>) -> Result<Reply, Refusal> {
        let (form, warnings) = Form::parse(REVOKE, request.body)?;
        let serial = form.text("serial_number").replace('-', ":").to_lowercase();
        if serial.is_empty() {
            return Err(Refusal::bad(
                "The serial number or certificate to revoke must be provided.",
            ));
        }
        let entry = self
            .issued
            .get_mut(&serial)
            .ok_or_else(|| Refusal::bad(format!("certificate with serial {serial} not found.")))?;
        let at = *entry.revoked.get_or_insert(request.now);
        let data = json!({
            "revocation_time": at.as_second(),
            "revocation_time_rfc3339": at.to_string(),
            "state": "revoked",
        });
        Ok(Reply::Data(data, warnings))
    }

    /// The issuer of that id or name; `default` is the one that is configured.
    fn find(&self, reference: &str) -> Result<&Authority, Refusal> {
        let id = if reference == "default" { &self.default } else { reference };
        let named = || self.issuers.values().find(|issuer| issuer.name == reference);
        self.issuers.get(id).or_else(named).ok_or_else(|| {
            Refusal::fault(500, format!("unable to find PKI issuer for reference: {reference}"))
        })
    }
}

//! The `aws` auth method of the model, `ec2` logins only: configuration, roles, the access list
//! with its trust on first use, and the say that it has at renewals. What EC2 knows is asked for
//! by the caller (`Ask`), so that this stays a state machine without sockets.

mod access_list;
mod document;
pub(super) mod ec2;
mod login;
mod role;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::answer::{Operation, Refusal, Reply};
use super::field::{Field, Form, Kind, field, with_default};
use super::lease::Terms;
use super::token::Ec2Login;
use access_list::Entry;
use ec2::{Ec2Question, Ec2Result};

/// One mount of the method.
#[derive(Debug, Default)]
pub(super) struct Aws {
    client: Option<Form>,
    identity: Option<Form>,
    certificates: BTreeMap<String, Signer>,
    roles: BTreeMap<String, Form>,
    list: BTreeMap<String, Entry>,
}

/// A certificate that documents may be signed with.
#[derive(Debug, Clone)]
struct Signer {
    kind: String,
    pem: String,
    der: Vec<u8>,
}

/// What a call to this mount comes to.
#[derive(Debug)]
pub(super) enum Outcome {
    Reply(Reply),
    /// The instance has to be looked up first; nothing was changed yet.
    Ask(Ec2Question),
    Login(Box<Grant>),
}

/// An accepted login, out of which the core makes a token.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) alias: String,
    pub(super) policies: Vec<String>,
    pub(super) meta: BTreeMap<String, String>,
    pub(super) terms: Terms,
    pub(super) num_uses: i64,
    pub(super) batch: bool,
    pub(super) bound_cidrs: Vec<String>,
    pub(super) login: Ec2Login,
    pub(super) warnings: Vec<String>,
}

/// One call below the mount.
pub(super) struct Request<'a> {
    pub(super) operation: Operation,
    pub(super) path: &'a str,
    pub(super) body: &'a Map<String, Value>,
    pub(super) from: std::net::IpAddr,
    pub(super) now: Timestamp,
    /// What EC2 said, on the second time round.
    pub(super) evidence: Option<&'a Ec2Result>,
    /// Default and maximum lease of the mount, in seconds.
    pub(super) mount_ttl: (i64, i64),
}

const CLIENT: &[Field] = &[
    field("access_key", Kind::Text),
    field("secret_key", Kind::Text),
    field("endpoint", Kind::Text),
    field("iam_endpoint", Kind::Text),
    field("sts_endpoint", Kind::Text),
    field("sts_region", Kind::Text),
    field("iam_server_id_header_value", Kind::Text),
    with_default("max_retries", Kind::Number, "-1"),
];

const IDENTITY: &[Field] = &[
    with_default("iam_alias", Kind::Text, "role_id"),
    with_default("ec2_alias", Kind::Text, "role_id"),
    with_default("iam_metadata", Kind::List, "default"),
    with_default("ec2_metadata", Kind::List, "default"),
];

const CERTIFICATE: &[Field] =
    &[field("aws_public_cert", Kind::Text), with_default("type", Kind::Text, "pkcs7")];

impl Aws {
    pub(super) fn handle(&mut self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        if request.path == "login" {
            return match request.operation {
                Operation::Write => self.login(request),
                _ => Err(Refusal::unsupported_operation()),
            };
        }
        self.configure(request).map(Outcome::Reply)
    }

    fn configure(&mut self, request: &Request<'_>) -> Result<Reply, Refusal> {
        let segments: Vec<&str> = request.path.split('/').collect();
        match segments.as_slice() {
            ["config", "client"] => stored(&mut self.client, CLIENT, request, &["secret_key"]),
            ["config", "identity"] => stored(&mut self.identity, IDENTITY, request, &[]),
            ["config", "certificate", name] => self.certificate(name, request),
            ["config", "certificates"] if request.operation == Operation::List => {
                Ok(Reply::Keys(self.certificates.keys().cloned().collect()))
            }
            ["role", name] if !name.is_empty() => self.role(name, request),
            ["roles" | "role"] | ["roles" | "role", ""] if request.operation == Operation::List => {
                Ok(Reply::Keys(self.roles.keys().cloned().collect()))
            }
            ["identity-accesslist" | "identity-whitelist", rest @ ..] => {
                self.access_list(rest, request)
            }
            _ => Err(Refusal::unsupported_path()),
        }
    }

    fn certificate(&mut self, name: &str, request: &Request<'_>) -> Result<Reply, Refusal> {
        match request.operation {
            Operation::Read => Ok(self.certificates.get(name).map_or(Reply::Absent, |signer| {
                Reply::data(json!({ "aws_public_cert": signer.pem, "type": signer.kind }))
            })),
            Operation::Delete => {
                self.certificates.remove(name);
                Ok(Reply::NoContent)
            }
            Operation::Write => {
                let (form, warnings) = Form::parse(CERTIFICATE, request.body)?;
                let signer = document::signer(form.text("type"), form.text("aws_public_cert"))?;
                self.certificates.insert(name.to_owned(), signer);
                Ok(Reply::written(warnings))
            }
            Operation::List => Err(Refusal::unsupported_operation()),
        }
    }

    fn setting(&self, name: &str) -> &str {
        self.client.as_ref().map_or("", |client| client.text(name))
    }

    fn question(&self, document: &Ec2Login) -> Ec2Question {
        Ec2Question {
            endpoint: self.setting("endpoint").to_owned(),
            sts_endpoint: self.setting("sts_endpoint").to_owned(),
            instance_id: document.instance_id.clone(),
            region: document.region.clone(),
            account_id: document.account_id.clone(),
        }
    }
}

/// Reads, writes or deletes one stored set of fields.
fn stored(
    slot: &mut Option<Form>,
    fields: &[Field],
    request: &Request<'_>,
    hidden: &[&str],
) -> Result<Reply, Refusal> {
    match request.operation {
        Operation::Read => Ok(slot.as_ref().map_or(Reply::Absent, |form| {
            let mut shown = form.shown();
            for name in hidden {
                shown.remove(*name);
            }
            Reply::data(Value::Object(shown))
        })),
        Operation::Write => {
            let (form, warnings) = Form::parse(fields, request.body)?;
            match slot {
                Some(stored) => stored.update(&form),
                None => *slot = Some(form),
            }
            Ok(Reply::written(warnings))
        }
        Operation::Delete => {
            *slot = None;
            Ok(Reply::NoContent)
        }
        Operation::List => Err(Refusal::unsupported_operation()),
    }
}

//! The roles of a mount: every field that a shipped role uses, with Vault's defaults.

use serde_json::Value;

use super::super::answer::{Operation, Refusal, Reply};
use super::super::field::{Field, Form, Kind, field, with_default};
use super::{Pki, Request};

const ROLE: &[Field] = &[
    with_default("issuer_ref", Kind::Text, "default"),
    field("ttl", Kind::Seconds),
    field("max_ttl", Kind::Seconds),
    with_default("not_before_duration", Kind::Seconds, "30s"),
    with_default("allow_localhost", Kind::Flag, "true"),
    field("allowed_domains", Kind::List),
    field("allowed_domains_template", Kind::Flag),
    field("allow_bare_domains", Kind::Flag),
    field("allow_subdomains", Kind::Flag),
    field("allow_glob_domains", Kind::Flag),
    with_default("allow_wildcard_certificates", Kind::Flag, "true"),
    field("allow_any_name", Kind::Flag),
    with_default("enforce_hostnames", Kind::Flag, "true"),
    with_default("allow_ip_sans", Kind::Flag, "true"),
    field("allowed_uri_sans", Kind::List),
    field("allowed_other_sans", Kind::List),
    with_default("server_flag", Kind::Flag, "true"),
    with_default("client_flag", Kind::Flag, "true"),
    field("code_signing_flag", Kind::Flag),
    field("email_protection_flag", Kind::Flag),
    with_default("key_type", Kind::Text, "rsa"),
    field("key_bits", Kind::Number),
    field("signature_bits", Kind::Number),
    with_default("key_usage", Kind::List, "DigitalSignature,KeyAgreement,KeyEncipherment"),
    field("ext_key_usage", Kind::List),
    with_default("use_csr_common_name", Kind::Flag, "true"),
    with_default("use_csr_sans", Kind::Flag, "true"),
    field("organization", Kind::List),
    field("ou", Kind::List),
    field("country", Kind::List),
    field("generate_lease", Kind::Flag),
    field("no_store", Kind::Flag),
    with_default("require_cn", Kind::Flag, "true"),
    with_default("cn_validations", Kind::List, "email,hostname"),
    field("not_after", Kind::Text),
    field("basic_constraints_valid_for_non_ca", Kind::Flag),
];

impl Pki {
    pub(super) fn role(&mut self, name: &str, request: &Request<'_>) -> Result<Reply, Refusal> {
        match request.operation {
            Operation::Read => Ok(self
                .roles
                .get(name)
                .map_or(Reply::Absent, |role| Reply::data(Value::Object(role.shown())))),
            Operation::Delete => {
                self.roles.remove(name);
                Ok(Reply::NoContent)
            }
            Operation::Write => {
                let (form, warnings) = Form::parse(ROLE, request.body)?;
                let (ttl, max) = (form.number("ttl"), form.number("max_ttl"));
                if max > 0 && ttl > max {
                    let text = "\"ttl\" value must be less than \"max_ttl\" value";
                    return Err(Refusal::bad(text));
                }
                if !matches!(form.text("key_type"), "rsa" | "ec" | "ed25519" | "any") {
                    let kind = form.text("key_type");
                    return Err(Refusal::bad(format!("unknown key type {kind}")));
                }
                let shown = Value::Object(form.shown());
                self.roles.insert(name.to_owned(), form);
                Ok(Reply::Data(shown, warnings))
            }
            Operation::List => Err(Refusal::unsupported_operation()),
        }
    }
}

//! The authorities of a mount: made with a key of their own that never leaves the model.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use serde_json::{Map, Value, json};
use x509_parser::time::ASN1Time;

use super::super::answer::{Operation, Refusal, Reply};
use super::super::field::{Field, Form, Kind, field, with_default};
use super::super::ids;
use super::super::lease::after;
use super::{Pki, Request};

/// An issuer with its key.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) pem: String,
    pub(super) der: Vec<u8>,
    pub(super) params: CertificateParams,
    pub(super) key: KeyPair,
    pub(super) not_after: Timestamp,
    pub(super) leaf_not_after: String,
}

const ROOT: &[Field] = &[
    field("common_name", Kind::Text),
    field("issuer_name", Kind::Text),
    field("key_name", Kind::Text),
    with_default("key_type", Kind::Text, "rsa"),
    field("key_bits", Kind::Number),
    field("ttl", Kind::Seconds),
    with_default("not_before_duration", Kind::Seconds, "30s"),
    with_default("format", Kind::Text, "pem"),
    with_default("max_path_length", Kind::Number, "-1"),
    field("organization", Kind::List),
    field("ou", Kind::List),
];

const ISSUER: &[Field] = &[
    field("issuer_name", Kind::Text),
    with_default("leaf_not_after_behavior", Kind::Text, "err"),
    field("usage", Kind::Text),
];

const NO_URLS: &str = "This mount hasn't configured any authority information access (AIA) \
    fields; this may make it harder for systems to find missing certificates in the chain or to \
    validate revocation status of certificates. Consider updating /config/urls or the newly \
    generated issuer with this information.";

/// rcgen takes its times as x509-parser gives them.
pub(super) fn instant(at: Timestamp) -> Result<ASN1Time, Refusal> {
    ASN1Time::from_timestamp(at.as_second())
        .map_err(|_| Refusal::fault(500, "a time outside of what a certificate can say"))
}

/// A serial number as certificates hold it and as Vault prints it.
pub(super) fn serial() -> (SerialNumber, String) {
    let mut raw = ids::random::<20>();
    // Positive, and without a leading zero byte, so that both forms have twenty bytes.
    raw[0] = (raw[0] & 0x3f) | 0x40;
    let text: Vec<String> = raw.iter().map(|byte| format!("{byte:02x}")).collect();
    (SerialNumber::from_slice(&raw), text.join(":"))
}

/// PEM as Vault's JSON holds it: no newline at the end.
pub(super) fn trimmed(pem: &str) -> String {
    pem.replace("\r\n", "\n").trim_end().to_owned()
}

impl Pki {
    pub(super) fn generate_root(
        &mut self,
        kind: &str,
        request: &Request<'_>,
    ) -> Result<Reply, Refusal> {
        if kind != "internal" {
            return Err(Refusal::bad("the model makes internal roots only"));
        }
        let (form, mut warnings) = Form::parse(ROOT, request.body)?;
        if form.text("common_name").is_empty() {
            return Err(Refusal::bad(
                "the common_name field is required, or must be provided in a CSR with \
                 \"use_csr_common_name\" set to true, unless \"require_cn\" is set to false",
            ));
        }
        let (default_ttl, max_ttl) = request.mount_ttl;
        let mut ttl = form.number("ttl");
        if ttl == 0 {
            ttl = default_ttl;
        }
        if ttl > max_ttl {
            warnings.push("TTL is longer than permitted maxTTL, so maxTTL is being used".into());
            ttl = max_ttl;
        }
        let (authority, serial) = make(&form, request.now, ttl)?;
        let data = json!({
            "certificate": authority.pem,
            "expiration": authority.not_after.as_second(),
            "issuer_id": authority.id,
            "issuer_name": authority.name,
            "issuing_ca": authority.pem,
            "key_id": ids::uuid(),
            "key_name": form.text("key_name"),
            "serial_number": serial.clone(),
        });
        if self.urls.is_none() {
            warnings.push(NO_URLS.into());
        }
        let pem = authority.pem.clone();
        if self.issuers.is_empty() {
            self.default.clone_from(&authority.id);
        }
        let issuer = authority.id.clone();
        self.order.push(issuer.clone());
        self.issuers.insert(issuer.clone(), authority);
        self.issued.insert(serial, super::Issued { pem, revoked: None });
        Ok(Reply::Data(data, warnings))
    }

    pub(super) fn issuer(
        &mut self,
        reference: &str,
        request: &Request<'_>,
    ) -> Result<Reply, Refusal> {
        let id = self.find(reference)?.id.clone();
        match request.operation {
            Operation::Read => {}
            Operation::Write => {
                let (form, _) = Form::parse(ISSUER, request.body)?;
                if let Some(issuer) = self.issuers.get_mut(&id) {
                    issuer.leaf_not_after = form.text("leaf_not_after_behavior").to_owned();
                    issuer.name = form.text("issuer_name").to_owned();
                }
            }
            Operation::Delete => {
                self.issuers.remove(&id);
                self.order.retain(|other| *other != id);
                return Ok(Reply::NoContent);
            }
            Operation::List => return Err(Refusal::unsupported_operation()),
        }
        let issuer = &self.issuers[&id];
        Ok(Reply::data(json!({
            "ca_chain": [format!("{}\n", issuer.pem)],
            "certificate": format!("{}\n", issuer.pem),
            "issuer_id": issuer.id,
            "issuer_name": issuer.name,
            "leaf_not_after_behavior": issuer.leaf_not_after,
            "revoked": false,
        })))
    }

    /// `LIST issuers`.
    pub(super) fn issuers(&self) -> Reply {
        if self.order.is_empty() {
            return Reply::Keys(Vec::new());
        }
        let info: Map<String, Value> = self
            .issuers
            .values()
            .map(|issuer| {
                let is_default = issuer.id == self.default;
                let shown = json!({ "issuer_name": issuer.name, "is_default": is_default });
                (issuer.id.clone(), shown)
            })
            .collect();
        Reply::data(json!({ "keys": self.order, "key_info": info }))
    }
}

fn make(form: &Form, now: Timestamp, ttl: i64) -> Result<(Authority, String), Refusal> {
    let failed = |error: rcgen::Error| Refusal::fault(500, error.to_string());
    let not_after = after(now, ttl);
    let (number, serial) = serial();
    let mut params = CertificateParams::default();
    params.not_before = instant(after(now, -form.number("not_before_duration")))?.to_datetime();
    params.not_after = instant(not_after)?.to_datetime();
    params.serial_number = Some(number);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    for organization in form.list("organization") {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, form.text("common_name"));
    let key = key(form)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let authority = Authority {
        id: ids::uuid(),
        name: form.text("issuer_name").to_owned(),
        pem: trimmed(&certificate.pem()),
        der: certificate.der().to_vec(),
        params,
        key,
        not_after,
        leaf_not_after: "err".into(),
    };
    Ok((authority, serial))
}

fn key(form: &Form) -> Result<KeyPair, Refusal> {
    let failed = |error: rcgen::Error| Refusal::fault(500, error.to_string());
    match (form.text("key_type"), form.number("key_bits")) {
        ("ec", 0 | 256) => KeyPair::generate().map_err(failed),
        ("ec", 384) => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).map_err(failed),
        ("ed25519", _) => KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(failed),
        (kind, bits) => {
            Err(Refusal::bad(format!("the model has no {bits}-bit {kind} roots: say key_type=ec")))
        }
    }
}

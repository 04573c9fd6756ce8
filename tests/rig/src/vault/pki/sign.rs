//! Signing: a CSR, the request's parameters and a role become a certificate, or a refusal.

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyUsagePurpose,
    SanType,
};
use serde_json::json;

use super::super::answer::{Refusal, Reply};
use super::super::fault::Lie;
use super::super::field::{Field, Form, Kind, field, with_default};
use super::super::lease::after;
use super::ca::{Authority, instant, serial, trimmed};
use super::csr::Csr;
use super::names::{self, Names};
use super::{Issued, Pki, Request};

const SIGN: &[Field] = &[
    field("csr", Kind::Text),
    field("common_name", Kind::Text),
    field("alt_names", Kind::List),
    field("ip_sans", Kind::List),
    field("uri_sans", Kind::List),
    field("other_sans", Kind::List),
    field("ttl", Kind::Seconds),
    field("not_after", Kind::Text),
    with_default("format", Kind::Text, "pem"),
    field("exclude_cn_from_sans", Kind::Flag),
    field("remove_roots_from_chain", Kind::Flag),
    field("serial_number", Kind::Text),
    field("user_ids", Kind::List),
];

impl Pki {
    pub(super) fn sign(
        &mut self,
        reference: &str,
        name: &str,
        request: &Request<'_>,
    ) -> Result<Reply, Refusal> {
        let role =
            self.roles.get(name).ok_or_else(|| Refusal::bad(format!("unknown role: {name}")))?;
        let (form, mut warnings) = Form::parse(SIGN, request.body)?;
        let reference = if reference == "default" { role.text("issuer_ref") } else { reference };
        if self.issuers.is_empty() {
            let text = "could not fetch the CA certificate (was one set?): \
                        no default issuer currently configured";
            return Err(Refusal::fault(500, text));
        }
        let issuer = self.find(reference)?;
        let csr = Csr::read(form.text("csr"))?;
        csr.check_key(role)?;
        let mut names = names::collect(role, &form, &csr, request.aliases)?;
        warnings.extend(ignored(role, &form));
        let mut not_after = not_after(role, &form, request, &mut warnings)?;
        if not_after > issuer.not_after {
            if issuer.leaf_not_after != "truncate" {
                return Err(beyond(not_after, issuer.not_after));
            }
            not_after = issuer.not_after;
        }
        let mut not_before = after(request.now, -role.number("not_before_duration"));
        if request.lie == Some(Lie::Expired) {
            not_after = after(request.now, -60);
            not_before = after(request.now, -3_600);
        }
        if request.lie == Some(Lie::WrongName) {
            names = wrong(&names);
        }
        let mut params = params(role, &names, [not_before, not_after])?;
        if request.lie == Some(Lie::NoUsage) {
            params.extended_key_usages.clear();
        }
        let (number, serial) = serial();
        params.serial_number = Some(number);
        let pem = signed(&params, &csr, issuer, request.lie)?;
        let mut data = json!({
            "certificate": pem,
            "expiration": not_after.as_second(),
            "issuing_ca": issuer.pem,
            "serial_number": serial,
        });
        if !form.flag("remove_roots_from_chain") {
            data["ca_chain"] = json!([issuer.pem]);
        }
        if !role.flag("no_store") {
            self.issued.insert(serial, Issued { pem, revoked: None });
        }
        Ok(Reply::Data(data, warnings))
    }
}

fn signed(
    params: &CertificateParams,
    csr: &Csr,
    issuer: &Authority,
    lie: Option<Lie>,
) -> Result<String, Refusal> {
    let failed = |error: rcgen::Error| Refusal::fault(500, error.to_string());
    let stranger = || rcgen::KeyPair::generate().map_err(failed);
    let certificate = match lie {
        Some(Lie::OtherIssuer) => {
            let mut other = issuer.params.clone();
            other.distinguished_name.push(DnType::OrganizationName, "another authority");
            params.signed_by(&csr.key, &Issuer::from_params(&other, &stranger()?))
        }
        Some(Lie::OtherKey) => {
            params.signed_by(&stranger()?, &Issuer::from_params(&issuer.params, &issuer.key))
        }
        _ => params.signed_by(&csr.key, &Issuer::from_params(&issuer.params, &issuer.key)),
    };
    Ok(trimmed(&certificate.map_err(failed)?.pem()))
}

fn wrong(names: &Names) -> Names {
    Names {
        common_name: format!("not-{}", names.common_name),
        dns: vec!["somebody.else.example".into()],
        ..Names::default()
    }
}

/// Vault's warnings about parameters that the role makes it take from the CSR instead.
fn ignored(role: &Form, form: &Form) -> Vec<String> {
    let mut warnings = Vec::new();
    if role.flag("use_csr_common_name") && form.given("common_name") {
        warnings.push(
            "the common_name field was provided but the role is set with \
             \"use_csr_common_name\" set to true"
                .into(),
        );
    }
    if role.flag("use_csr_sans") && form.given("alt_names") {
        warnings.push(
            "the alt_names field was provided but the role is set with \
             \"use_csr_sans\" set to true"
                .into(),
        );
    }
    warnings
}

fn not_after(
    role: &Form,
    form: &Form,
    request: &Request<'_>,
    warnings: &mut Vec<String>,
) -> Result<Timestamp, Refusal> {
    let exact = form.text("not_after");
    let mut ttl = form.number("ttl");
    if !exact.is_empty() {
        if ttl > 0 {
            return Err(Refusal::bad(
                "Either ttl or not_after should be provided. \
                 Both should not be provided in the same request.",
            ));
        }
        return exact.parse().map_err(|_| {
            Refusal::bad(format!("failed to parse not_after: {exact:?} is not RFC 3339"))
        });
    }
    let (default_ttl, mount_max) = request.mount_ttl;
    let max = match role.number("max_ttl") {
        0 => mount_max,
        max => max.min(mount_max),
    };
    if ttl == 0 {
        ttl = role.number("ttl");
    }
    if ttl == 0 {
        ttl = default_ttl.min(max);
    }
    if ttl > max {
        let warning = format!(
            "TTL {:?} is longer than permitted maxTTL {:?}, so maxTTL is being used",
            go_duration(ttl),
            go_duration(max)
        );
        // Vault says it twice: once for the request and once for the certificate.
        warnings.extend([warning.clone(), warning]);
        ttl = max;
    }
    Ok(after(request.now, ttl))
}

/// A duration as Go prints it: `72h0m0s`.
fn go_duration(seconds: i64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}

fn beyond(leaf: Timestamp, authority: Timestamp) -> Refusal {
    let shown = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%S%.fZ").to_string();
    Refusal::bad(format!(
        "cannot satisfy request, as TTL would result in notAfter of {} \
         that is beyond the expiration of the CA certificate at {}",
        shown(leaf),
        shown(authority)
    ))
}

fn params(
    role: &Form,
    names: &Names,
    [not_before, not_after]: [Timestamp; 2],
) -> Result<CertificateParams, Refusal> {
    let mut params = CertificateParams::default();
    params.not_before = instant(not_before)?.to_datetime();
    params.not_after = instant(not_after)?.to_datetime();
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name = DistinguishedName::new();
    for (part, field) in [
        (DnType::CountryName, "country"),
        (DnType::OrganizationName, "organization"),
        (DnType::OrganizationalUnitName, "ou"),
    ] {
        for value in role.list(field) {
            params.distinguished_name.push(part.clone(), value);
        }
    }
    if !names.common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, names.common_name.as_str());
    }
    params.subject_alt_names = sans(names)?;
    params.key_usages = role.list("key_usage").iter().filter_map(|name| usage(name)).collect();
    for (flag, purpose) in [
        ("server_flag", ExtendedKeyUsagePurpose::ServerAuth),
        ("client_flag", ExtendedKeyUsagePurpose::ClientAuth),
        ("code_signing_flag", ExtendedKeyUsagePurpose::CodeSigning),
        ("email_protection_flag", ExtendedKeyUsagePurpose::EmailProtection),
    ] {
        if role.flag(flag) {
            params.extended_key_usages.push(purpose);
        }
    }
    Ok(params)
}

fn sans(names: &Names) -> Result<Vec<SanType>, Refusal> {
    let text = |name: &String| {
        name.as_str().try_into().map_err(|_| Refusal::bad(format!("name {name} is not ASCII")))
    };
    let mut sans = Vec::new();
    for name in &names.dns {
        sans.push(SanType::DnsName(text(name)?));
    }
    for name in &names.emails {
        sans.push(SanType::Rfc822Name(text(name)?));
    }
    for name in &names.uris {
        sans.push(SanType::URI(text(name)?));
    }
    sans.extend(names.ips.iter().copied().map(SanType::IpAddress));
    Ok(sans)
}

fn usage(name: &str) -> Option<KeyUsagePurpose> {
    match name.strip_prefix("KeyUsage").unwrap_or(name) {
        "DigitalSignature" => Some(KeyUsagePurpose::DigitalSignature),
        "ContentCommitment" => Some(KeyUsagePurpose::ContentCommitment),
        "KeyEncipherment" => Some(KeyUsagePurpose::KeyEncipherment),
        "DataEncipherment" => Some(KeyUsagePurpose::DataEncipherment),
        "KeyAgreement" => Some(KeyUsagePurpose::KeyAgreement),
        _ => None,
    }
}

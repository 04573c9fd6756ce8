//! `sign`: whose names count, what a role refuses, and how long a certificate lives.

use jiff::{SignedDuration, Timestamp};
use rcgen::KeyPair;
use rig::setup::Reply;
use serde_json::{Value, json};

use crate::bench::{Ctx, Outcome, has, is, merge, ok, same, status};
use crate::csr::{request, request_with, said};

/// A mount with the role `r`: any name for P-256 keys, with more fields.
async fn mount(ctx: &Ctx, more: Value) -> Result<String, String> {
    let pki = ctx.pki().await?;
    let mut role = json!({
        "allow_any_name": true, "enforce_hostnames": false, "key_type": "ec", "key_bits": 256,
        "ttl": "24h", "max_ttl": "72h",
    });
    merge(&mut role, more);
    ctx.setup(&format!("{pki}/roles/r"), role).await?;
    Ok(pki)
}

async fn sign(ctx: &Ctx, pki: &str, body: Value) -> Result<Reply, String> {
    ctx.root().write(&format!("{pki}/sign/r"), body).await
}

fn life(reply: &Reply, wanted: i64) -> Outcome {
    ok(reply)?;
    let said = said(reply)?;
    let life = said.not_after - said.not_before - 30;
    if (life - wanted).abs() <= 2 { Ok(()) } else { Err(format!("life {life}, wanted {wanted}")) }
}

pub(crate) async fn has_the_fields(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    let reply = sign(ctx, &pki, json!({ "csr": request("a.test", &[]) })).await?;
    let said = said(&reply)?;
    same("expiration", reply.data("expiration"), json!(said.not_after))?;
    same("chain", reply.data("ca_chain"), json!([reply.data("issuing_ca")]))?;
    let pem = reply.data("certificate").as_str().unwrap_or("");
    if pem.ends_with('\n') || !pem.ends_with("-----END CERTIFICATE-----") {
        return Err("PEM in JSON has no newline at its end".into());
    }
    life(&reply, 24 * 3_600)
}

pub(crate) async fn names_come_from_the_csr(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    let csr = request("csr.test", &["alt.csr.test", "10.0.0.1"]);
    let body = json!({
        "csr": csr, "common_name": "asked.test", "alt_names": "b.test", "ip_sans": "10.0.0.2",
    });
    let reply = sign(ctx, &pki, body).await?;
    let said = said(&reply)?;
    same("common name", &json!(said.common_name), json!("csr.test"))?;
    same("names", &json!(said.names), json!(["10.0.0.1", "alt.csr.test", "csr.test"]))
}

const FROM_REQUEST: [&str; 2] = ["use_csr_common_name", "use_csr_sans"];

fn from_request(more: Value) -> Value {
    let mut role = json!({ FROM_REQUEST[0]: false, FROM_REQUEST[1]: false });
    merge(&mut role, more);
    role
}

pub(crate) async fn names_come_from_the_request(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, from_request(json!({}))).await?;
    let csr = request("csr.test", &["alt.csr.test", "10.0.0.1"]);
    let body = json!({
        "csr": csr, "common_name": "asked.test", "alt_names": "b.test,a.test",
        "ip_sans": "10.0.0.2,::1",
    });
    let said = said(&sign(ctx, &pki, body).await?)?;
    same("common name", &json!(said.common_name), json!("asked.test"))?;
    let names = json!(["10.0.0.2", "::1", "a.test", "asked.test", "b.test"]);
    same("names", &json!(said.names), names)
}

pub(crate) async fn own_name_only(ctx: &Ctx) -> Outcome {
    let domains = json!({ "allow_any_name": false, "allow_bare_domains": true,
        "allowed_domains": ["system:node:i-a", "i-a"], "allow_localhost": false });
    let pki = mount(ctx, from_request(domains)).await?;
    let csr = request("x", &[]);
    let ask = |name: &str| json!({ "csr": csr, "common_name": name });
    ok(&sign(ctx, &pki, ask("system:node:i-a")).await?)?;
    for name in ["system:node:i-b", "system:masters", "localhost", "x.i-a"] {
        let text = format!("common name {name} not allowed by this role");
        is(&sign(ctx, &pki, ask(name)).await?, 400, &text)?;
    }
    Ok(())
}

pub(crate) async fn foreign_san(ctx: &Ctx) -> Outcome {
    let domains = json!({ "allow_any_name": false, "allow_bare_domains": true,
        "allowed_domains": ["i-a"] });
    let pki = mount(ctx, from_request(domains)).await?;
    let body = json!({ "csr": request("x", &[]), "common_name": "i-a", "alt_names": "i-b" });
    let text = "subject alternate name i-b not allowed by this role";
    is(&sign(ctx, &pki, body).await?, 400, text)
}

pub(crate) async fn organization_of_the_csr_is_dropped(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({ "organization": ["system:nodes"] })).await?;
    let said = said(&sign(ctx, &pki, json!({ "csr": request("a.test", &[]) })).await?)?;
    same("organizations", &json!(said.organizations), json!(["system:nodes"]))
}

pub(crate) async fn colon_needs_hostnames_off(ctx: &Ctx) -> Outcome {
    let domains = json!({ "allow_any_name": false, "allow_bare_domains": true,
        "allowed_domains": ["system:node:i-a"], "enforce_hostnames": true });
    let pki = mount(ctx, domains).await?;
    let reply = sign(ctx, &pki, json!({ "csr": request("system:node:i-a", &[]) })).await?;
    is(&reply, 400, "common name system:node:i-a not allowed by this role")
}

pub(crate) async fn ttl_is_cut_with_a_warning(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    let body = json!({ "csr": request("a.test", &[]), "ttl": "500h" });
    let reply = sign(ctx, &pki, body).await?;
    if reply.json["warnings"].as_array().is_none_or(Vec::is_empty) {
        return Err("no warning".into());
    }
    life(&reply, 72 * 3_600)
}

fn in_hours(now: Timestamp, hours: i64) -> String {
    let at = now + SignedDuration::from_hours(hours);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) async fn not_after_is_not_cut(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    for (hours, wanted) in [(500, 500 * 3_600), (-2, -2 * 3_600)] {
        let not_after = in_hours(ctx.now(), hours);
        let body = json!({ "csr": request("a.test", &[]), "not_after": not_after });
        life(&sign(ctx, &pki, body).await?, wanted)?;
    }
    Ok(())
}

pub(crate) async fn not_after_and_ttl(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    let not_after = in_hours(ctx.now(), 2);
    let body = json!({ "csr": request("a.test", &[]), "not_after": not_after, "ttl": "1h" });
    has(&sign(ctx, &pki, body).await?, 400, "ttl")
}

/// A root that ends in half an hour.
async fn short_lived(ctx: &Ctx) -> Result<String, String> {
    let pki = ctx.mount("pki");
    ctx.setup(&format!("sys/mounts/{pki}"), json!({ "type": "pki" })).await?;
    let root = json!({ "common_name": "root", "key_type": "ec", "ttl": "30m" });
    ctx.setup(&format!("{pki}/root/generate/internal"), root).await?;
    let role = json!({ "allow_any_name": true, "key_type": "ec", "ttl": "24h" });
    ctx.setup(&format!("{pki}/roles/r"), role).await?;
    Ok(pki)
}

pub(crate) async fn beyond_the_authority(ctx: &Ctx) -> Outcome {
    let pki = short_lived(ctx).await?;
    let csr = request("a.test", &[]);
    let reply = sign(ctx, &pki, json!({ "csr": csr })).await?;
    has(&reply, 400, "cannot satisfy request, as TTL would result in notAfter of")?;
    has(&reply, 400, "that is beyond the expiration of the CA certificate at")?;
    life(&sign(ctx, &pki, json!({ "csr": csr, "ttl": "20m" })).await?, 1_200)
}

pub(crate) async fn truncated_at_the_authority(ctx: &Ctx) -> Outcome {
    let pki = short_lived(ctx).await?;
    let truncate = json!({ "leaf_not_after_behavior": "truncate" });
    ctx.setup(&format!("{pki}/issuer/default"), truncate).await?;
    life(&sign(ctx, &pki, json!({ "csr": request("a.test", &[]) })).await?, 1_800)
}

pub(crate) async fn odd_ttls(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    let csr = request("a.test", &[]);
    let ask = |ttl: &str| json!({ "csr": csr, "ttl": ttl });
    life(&sign(ctx, &pki, ask("1d")).await?, 86_400)?;
    life(&sign(ctx, &pki, ask("0")).await?, 86_400)?;
    life(&sign(ctx, &pki, ask("90m")).await?, 5_400)?;
    life(&sign(ctx, &pki, ask("7200")).await?, 7_200)?;
    let quiet = ctx.root().quiet();
    for ttl in ["-1h", "1 day"] {
        status(&quiet.write(&format!("{pki}/sign/r"), ask(ttl)).await?, 400)?;
    }
    Ok(())
}

const NO_IPS: &str = "IP Subject Alternative Names are not allowed in this role, but was provided ";

pub(crate) async fn ip_not_allowed(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({ "allow_ip_sans": false })).await?;
    let reply = sign(ctx, &pki, json!({ "csr": request("a.test", &["10.0.0.1"]) })).await?;
    is(&reply, 400, &format!("{NO_IPS}some via CSR"))?;
    let role = json!({ "allow_any_name": true, "key_type": "ec", "allow_ip_sans": false,
        "use_csr_sans": false });
    ctx.setup(&format!("{pki}/roles/r"), role).await?;
    let body = json!({ "csr": request("a.test", &[]), "ip_sans": "10.0.0.1" });
    is(&sign(ctx, &pki, body).await?, 400, &format!("{NO_IPS}[10.0.0.1]"))
}

pub(crate) async fn uri_not_allowed(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    let reply = sign(ctx, &pki, json!({ "csr": request("a.test", &["spiffe://x/y"]) })).await?;
    has(&reply, 400, "URI Subject Alternative Names")
}

pub(crate) async fn uri_allowed(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({ "allowed_uri_sans": ["spiffe://x/*"] })).await?;
    let reply = sign(ctx, &pki, json!({ "csr": request("a.test", &["spiffe://x/y"]) })).await?;
    same("names", &json!(said(&reply)?.names), json!(["a.test", "spiffe://x/y"]))
}

pub(crate) async fn invalid_ip(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, from_request(json!({}))).await?;
    let body = json!({ "csr": request("x", &[]), "common_name": "a.test", "ip_sans": "10.0.0" });
    has(&sign(ctx, &pki, body).await?, 400, "is not a valid IP address")
}

pub(crate) async fn wrong_key_type(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({ "key_type": "rsa", "key_bits": 2048 })).await?;
    let reply = sign(ctx, &pki, json!({ "csr": request("a.test", &[]) })).await?;
    is(&reply, 400, "role requires keys of type rsa")
}

pub(crate) async fn larger_curve_passes(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).map_err(|e| e.to_string())?;
    ok(&sign(ctx, &pki, json!({ "csr": request_with(&key, "a.test", &[]) })).await?)
}

pub(crate) async fn csr_is_empty(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    is(&sign(ctx, &pki, json!({ "common_name": "a.test" })).await?, 400, "\"csr\" is empty")
}

pub(crate) async fn csr_is_nonsense(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    is(&sign(ctx, &pki, json!({ "csr": "nonsense" })).await?, 400, "csr contains no data")
}

pub(crate) async fn csr_signature_is_wrong(ctx: &Ctx) -> Outcome {
    use base64::Engine as _;
    let pki = mount(ctx, json!({})).await?;
    let mut raw = crate::csr::der(&request("a.test", &[]))?;
    let last = raw.len() - 1;
    raw[last] ^= 1;
    let text = base64::engine::general_purpose::STANDARD.encode(raw);
    let pem =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n");
    has(&sign(ctx, &pki, json!({ "csr": pem })).await?, 400, "request signature invalid")
}

pub(crate) async fn no_common_name(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    let reply = sign(ctx, &pki, json!({ "csr": request("", &["a.test"]) })).await?;
    has(&reply, 400, "the common_name field is required")
}

pub(crate) async fn unknown_role(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let body = json!({ "csr": request("a.test", &[]) });
    is(&sign(ctx, &pki, body).await?, 400, "unknown role: r")
}

pub(crate) async fn no_issuer_yet(ctx: &Ctx) -> Outcome {
    let pki = ctx.mount("pki");
    ctx.setup(&format!("sys/mounts/{pki}"), json!({ "type": "pki" })).await?;
    let role = json!({ "allow_any_name": true, "key_type": "ec" });
    ctx.setup(&format!("{pki}/roles/r"), role).await?;
    status(&sign(ctx, &pki, json!({ "csr": request("a.test", &[]) })).await?, 500)
}

pub(crate) async fn root_can_be_left_out(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    let body = json!({ "csr": request("a.test", &[]), "remove_roots_from_chain": true });
    let reply = sign(ctx, &pki, body).await?;
    ok(&reply)?;
    let left = reply.data("ca_chain").as_array().map_or(0, Vec::len);
    if left == 0 { Ok(()) } else { Err(format!("{left} certificates in the chain")) }
}

pub(crate) async fn usages_follow_the_role(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    for (server, client) in [(true, false), (false, true), (true, true)] {
        let role = json!({ "allow_any_name": true, "key_type": "ec",
            "server_flag": server, "client_flag": client });
        ctx.setup(&format!("{pki}/roles/r"), role).await?;
        let said = said(&sign(ctx, &pki, json!({ "csr": request("a.test", &[]) })).await?)?;
        same("usages", &json!([said.server, said.client]), json!([server, client]))?;
    }
    Ok(())
}

pub(crate) async fn unchecked_names_are_any_names(ctx: &Ctx) -> Outcome {
    let domains = json!({ "allow_any_name": false, "allowed_domains": ["a.test"],
        "cn_validations": ["disabled"] });
    let pki = mount(ctx, domains).await?;
    ok(&sign(ctx, &pki, json!({ "csr": request("system:masters", &[]) })).await?)
}

pub(crate) async fn named_issuer_signs(ctx: &Ctx) -> Outcome {
    let pki = mount(ctx, json!({})).await?;
    let second = json!({ "common_name": "second", "key_type": "ec", "issuer_name": "second",
        "ttl": "87600h" });
    ctx.setup(&format!("{pki}/root/generate/internal"), second).await?;
    let csr = request("a.test", &[]);
    let usual = sign(ctx, &pki, json!({ "csr": csr })).await?;
    let path = format!("{pki}/issuer/second/sign/r");
    let named = ctx.root().write(&path, json!({ "csr": csr })).await?;
    said(&named)?;
    if named.data("issuing_ca") == usual.data("issuing_ca") {
        return Err("both were signed by the same issuer".into());
    }
    Ok(())
}

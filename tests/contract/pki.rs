//! What a PKI mount hands out, and how its issuers and certificates change.

use rig::setup::Reply;
use serde_json::{Value, json};

use crate::bench::{Ctx, Outcome, has, is, ok, same, status};
use crate::csr::{request, said};

async fn signed(ctx: &Ctx, pki: &str, more: Value) -> Result<Reply, String> {
    let mut role = json!({ "allow_any_name": true, "key_type": "ec", "ttl": "1h" });
    crate::bench::merge(&mut role, more);
    ctx.setup(&format!("{pki}/roles/r"), role).await?;
    let body = json!({ "csr": request("a.test", &[]) });
    let reply = ctx.root().write(&format!("{pki}/sign/r"), body).await?;
    ok(&reply)?;
    Ok(reply)
}

fn one_certificate(reply: &Reply) -> Outcome {
    ok(reply)?;
    let count = reply.text.matches("BEGIN CERTIFICATE").count();
    if count == 1 { Ok(()) } else { Err(format!("{count} certificates")) }
}

pub(crate) async fn raw_authority(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let anyone = ctx.anyone();
    one_certificate(&anyone.read(&format!("{pki}/ca/pem")).await?)?;
    let der = anyone.quiet().call("GET", &format!("{pki}/ca"), None).await?;
    ok(&der)?;
    one_certificate(&anyone.read(&format!("{pki}/issuer/default/pem")).await?)
}

pub(crate) async fn raw_chain(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let chain = ctx.anyone().read(&format!("{pki}/ca_chain")).await?;
    one_certificate(&chain)?;
    let raw = ctx.anyone().read(&format!("{pki}/ca/pem")).await?;
    same("chain", &json!(chain.text.trim()), json!(raw.text.trim()))
}

pub(crate) async fn json_chain(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let reply = ctx.anyone().read(&format!("{pki}/cert/ca_chain")).await?;
    let raw = ctx.anyone().read(&format!("{pki}/ca/pem")).await?;
    let text = reply.data("certificate").as_str().unwrap_or("").trim().to_owned();
    same("certificate", &json!(text), json!(raw.text.trim()))?;
    ok(&ctx.anyone().read(&format!("{pki}/cert/ca")).await?)
}

pub(crate) async fn issuer_by_name(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let by_json = ctx.anyone().read(&format!("{pki}/issuer/default/json")).await?;
    ok(&by_json)?;
    status(&ctx.anyone().read(&format!("{pki}/issuer/nobody/pem")).await?, 500)
}

pub(crate) async fn nothing_to_serve_yet(ctx: &Ctx) -> Outcome {
    let pki = ctx.mount("pki");
    ctx.setup(&format!("sys/mounts/{pki}"), json!({ "type": "pki" })).await?;
    status(&ctx.anyone().read(&format!("{pki}/ca/pem")).await?, 204)?;
    status(&ctx.anyone().read(&format!("{pki}/ca_chain")).await?, 204)?;
    status(&ctx.anyone().read(&format!("{pki}/cert/ca")).await?, 400)
}

pub(crate) async fn new_issuer_changes_nothing_until_default(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let before = ctx.anyone().read(&format!("{pki}/ca/pem")).await?.text;
    let second = json!({ "common_name": "second", "key_type": "ec", "ttl": "87600h" });
    let made = ctx.root().write(&format!("{pki}/root/generate/internal"), second).await?;
    ok(&made)?;
    let still = ctx.anyone().read(&format!("{pki}/ca/pem")).await?.text;
    same("authority before the switch", &json!(still), json!(before))?;
    let id = made.data("issuer_id").clone();
    let switch = json!({ "default": id });
    ok(&ctx.root().write(&format!("{pki}/config/issuers"), switch).await?)?;
    let after = ctx.anyone().read(&format!("{pki}/ca/pem")).await?.text;
    if after == before {
        return Err("the authority did not change".into());
    }
    let reply = signed(ctx, &pki, json!({})).await?;
    said(&reply)?;
    same("issuer", reply.data("issuing_ca"), json!(after.trim()))
}

fn serial(reply: &Reply) -> String {
    reply.data("serial_number").as_str().unwrap_or("").to_owned()
}

pub(crate) async fn certificate_by_serial(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let reply = signed(ctx, &pki, json!({})).await?;
    let path = format!("{pki}/cert/{}", serial(&reply));
    let shown = ctx.anyone().read(&path).await?;
    let text = |value: &Value| json!(value.as_str().unwrap_or("").trim());
    same("certificate", &text(shown.data("certificate")), text(reply.data("certificate")))?;
    same("revocation_time", shown.data("revocation_time"), json!(0))?;
    ok(&ctx.anyone().read(&path.replace(':', "-")).await?)
}

pub(crate) async fn unknown_serial(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    is(&ctx.anyone().read(&format!("{pki}/cert/01:02:03")).await?, 404, "")
}

pub(crate) async fn revoke_twice(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let reply = signed(ctx, &pki, json!({})).await?;
    let body = json!({ "serial_number": serial(&reply) });
    let first = ctx.root().write(&format!("{pki}/revoke"), body.clone()).await?;
    same("state", first.data("state"), json!("revoked"))?;
    let again = ctx.root().write(&format!("{pki}/revoke"), body).await?;
    same("time", again.data("revocation_time"), first.data("revocation_time").clone())
}

pub(crate) async fn revoke_unknown(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let body = json!({ "serial_number": "01:02:03" });
    has(&ctx.root().write(&format!("{pki}/revoke"), body).await?, 400, "not found")
}

pub(crate) async fn no_store_keeps_nothing(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let reply = signed(ctx, &pki, json!({ "no_store": true })).await?;
    is(&ctx.anyone().read(&format!("{pki}/cert/{}", serial(&reply))).await?, 404, "")
}

pub(crate) async fn issuers_are_public(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let reply = ctx.anyone().list(&format!("{pki}/issuers")).await?;
    ok(&reply)?;
    let count = reply.data("keys").as_array().map_or(0, Vec::len);
    if count == 1 { Ok(()) } else { Err(format!("{count} issuers")) }
}

pub(crate) async fn role_reads_back(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let quiet = ctx.root().quiet();
    let path = format!("{pki}/roles/r");
    is(&quiet.read(&path).await?, 404, "")?;
    let role = json!({ "allowed_domains": "a.test,b.test", "ttl": "1h", "key_type": "ec" });
    ctx.setup(&path, role).await?;
    let shown = quiet.read(&path).await?;
    same("allowed_domains", shown.data("allowed_domains"), json!(["a.test", "b.test"]))?;
    same("ttl", shown.data("ttl"), json!(3_600))?;
    same("use_csr_sans", shown.data("use_csr_sans"), json!(true))?;
    same("roles", quiet.list(&format!("{pki}/roles")).await?.data("keys"), json!(["r"]))
}

pub(crate) async fn sign_needs_a_token(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let body = json!({ "csr": request("a.test", &[]) });
    is(&ctx.anyone().write(&format!("{pki}/sign/r"), body).await?, 403, "permission denied")
}

pub(crate) async fn get_on_sign(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    has(&ctx.root().read(&format!("{pki}/sign/r")).await?, 405, "unsupported operation")
}

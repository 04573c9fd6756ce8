//! Tokens: what they tell of themselves, how they end, how they are renewed.

use serde_json::{Value, json};

use crate::bench::{Caller, Ctx, Outcome, has, is, ok, same, status};

const INVALID: &str = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n";
const REFUSED: &str = "1 error occurred:\n\t* permission denied\n\n";

/// A token made by root, off the record.
async fn made(ctx: &Ctx, more: Value) -> Result<Caller, String> {
    let mut body = json!({ "policies": ["default"], "ttl": "90s" });
    crate::bench::merge(&mut body, more);
    let reply = ctx.root().quiet().write("auth/token/create", body).await?;
    ok(&reply)?;
    Ok(ctx.root().with(reply.auth("client_token").as_str().unwrap_or("")))
}

fn lease(reply: &rig::setup::Reply, least: i64, most: i64) -> Outcome {
    ok(reply)?;
    let got = reply.auth("lease_duration").as_i64().unwrap_or(-1);
    if (least..=most).contains(&got) {
        return Ok(());
    }
    Err(format!("lease of {got} s, wanted {least} to {most}"))
}

async fn renew(caller: &Caller, body: Value) -> Result<rig::setup::Reply, String> {
    caller.write("auth/token/renew-self", body).await
}

pub(crate) async fn lookup_self_of_a_node(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let node = auth.token(&id, "node").await?;
    let reply = node.read("auth/token/lookup-self").await?;
    ok(&reply)?;
    same("creation_ttl", reply.data("creation_ttl"), json!(3_600))?;
    same("renewable", reply.data("renewable"), json!(true))?;
    same("type", reply.data("type"), json!("service"))?;
    same("path", reply.data("path"), json!(auth.path("login")))?;
    same("orphan", reply.data("orphan"), json!(true))?;
    same("entity", &json!(reply.data("entity_id").as_str().map(str::len)), json!(36))
}

pub(crate) async fn lookup_self_of_root(ctx: &Ctx) -> Outcome {
    let reply = ctx.root().read("auth/token/lookup-self").await?;
    same("expire_time", reply.data("expire_time"), json!(null))?;
    same("ttl", reply.data("ttl"), json!(0))?;
    same("policies", reply.data("policies"), json!(["root"]))
}

pub(crate) async fn invalid_token(ctx: &Ctx) -> Outcome {
    let stranger = ctx.root().with("hvs.nobody");
    is(&stranger.read("auth/token/lookup-self").await?, 403, INVALID)?;
    is(&renew(&stranger, json!({})).await?, 403, INVALID)?;
    is(&stranger.write("pki/sign/kubelet-client", json!({})).await?, 403, INVALID)
}

pub(crate) async fn no_token(ctx: &Ctx) -> Outcome {
    is(&ctx.anyone().read("auth/token/lookup-self").await?, 403, "permission denied")?;
    let sign = ctx.anyone().write("pki/sign/kubelet-client", json!({})).await?;
    is(&sign, 403, "permission denied")
}

pub(crate) async fn bearer_header_works(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let reply = auth.login(&auth.launch(), json!({ "nonce": "n" })).await?;
    let token = reply.auth("client_token").as_str().unwrap_or("").to_owned();
    let url = format!("{}/v1/auth/token/lookup-self", ctx.address());
    let http = ctx.http()?;
    let answer = http.get(url).bearer_auth(token).send().await.map_err(|e| e.to_string())?;
    if answer.status().as_u16() == 200 { Ok(()) } else { Err(answer.status().to_string()) }
}

pub(crate) async fn policy_refuses(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({})).await?;
    is(&token.write("pki/sign/kubelet-client", json!({})).await?, 403, REFUSED)?;
    is(&token.read("sys/mounts").await?, 403, REFUSED)?;
    is(&token.read("no/such/path").await?, 403, REFUSED)
}

pub(crate) async fn revoked_by_itself(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({})).await?;
    status(&token.write("auth/token/revoke-self", json!({})).await?, 204)?;
    is(&token.read("auth/token/lookup-self").await?, 403, INVALID)
}

pub(crate) async fn revoked_with_its_parent(ctx: &Ctx) -> Outcome {
    let path = "sys/policies/acl/makes-children";
    let policy = "path \"auth/token/create\" { capabilities = [\"create\", \"update\"] }";
    ctx.setup(path, json!({ "policy": policy })).await?;
    let parent = made(ctx, json!({ "policies": ["default", "makes-children"] })).await?;
    let child = parent.write("auth/token/create", json!({ "ttl": "60s" })).await?;
    ok(&child)?;
    let child = ctx.root().with(child.auth("client_token").as_str().unwrap_or(""));
    ok(&child.read("auth/token/lookup-self").await?)?;
    status(&parent.write("auth/token/revoke-self", json!({})).await?, 204)?;
    is(&child.read("auth/token/lookup-self").await?, 403, INVALID)
}

pub(crate) async fn expired(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({ "ttl": "1s" })).await?;
    ctx.pass(1.6).await;
    is(&token.read("auth/token/lookup-self").await?, 403, INVALID)
}

pub(crate) async fn uses_run_out(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({ "num_uses": 2 })).await?;
    let first = token.read("auth/token/lookup-self").await?;
    same("uses left", first.data("num_uses"), json!(1))?;
    let last = token.read("auth/token/lookup-self").await?;
    same("uses left", last.data("num_uses"), json!(-1))?;
    is(&token.read("auth/token/lookup-self").await?, 403, INVALID)
}

pub(crate) async fn renewal_is_not_additive(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({})).await?;
    lease(&renew(&token, json!({ "increment": "10s" })).await?, 10, 10)?;
    let shown = token.read("auth/token/lookup-self").await?;
    if shown.data("ttl").as_i64().is_none_or(|ttl| ttl > 10) {
        return Err(format!("still {} s left", shown.data("ttl")));
    }
    lease(&renew(&token, json!({})).await?, 10, 10)
}

pub(crate) async fn renewal_above_the_maximum_is_cut(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({ "explicit_max_ttl": "90s" })).await?;
    let reply = renew(&token.quiet(), json!({ "increment": "1h" })).await?;
    lease(&reply, 60, 90)?;
    let warning = reply.json["warnings"][0].as_str().unwrap_or("");
    let cut = "TTL of \"1h\" exceeded the effective max_ttl of \"";
    if warning.starts_with(cut) { Ok(()) } else { Err(format!("warning {warning:?}")) }
}

pub(crate) async fn bad_increment(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({})).await?;
    has(&renew(&token, json!({ "increment": "soon" })).await?, 400, "Field validation failed")
}

pub(crate) async fn not_renewable(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({ "renewable": false })).await?;
    is(&renew(&token, json!({})).await?, 400, "lease is not renewable")
}

pub(crate) async fn batch_is_not_renewed_or_revoked(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({ "type": "batch" })).await?;
    has(&renew(&token, json!({})).await?, 400, "batch tokens cannot be renewed")?;
    let revoke = token.write("auth/token/revoke-self", json!({})).await?;
    has(&revoke, 400, "batch tokens cannot be revoked")
}

pub(crate) async fn period_ignores_the_increment(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({ "period": "60s" })).await?;
    let shown = token.read("auth/token/lookup-self").await?;
    same("period", shown.data("period"), json!(60))?;
    lease(&renew(&token, json!({ "increment": "10s" })).await?, 60, 60)
}

pub(crate) async fn period_ends_at_the_explicit_maximum(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({ "period": "60s", "explicit_max_ttl": "61s" })).await?;
    ctx.pass(2.2).await;
    let reply = renew(&token.quiet(), json!({})).await?;
    lease(&reply, 30, 59)?;
    let warning = reply.json["warnings"][0].as_str().unwrap_or("");
    if warning.contains("capped accordingly") { Ok(()) } else { Err(format!("{warning:?}")) }
}

pub(crate) async fn accessor_looks_up(ctx: &Ctx) -> Outcome {
    let reply = ctx.root().write("auth/token/create", json!({ "ttl": "60s" })).await?;
    let accessor = reply.auth("accessor").clone();
    let body = json!({ "accessor": accessor });
    let shown = ctx.root().write("auth/token/lookup-accessor", body.clone()).await?;
    same("id", shown.data("id"), json!(""))?;
    status(&ctx.root().write("auth/token/revoke-accessor", body.clone()).await?, 204)?;
    has(&ctx.root().write("auth/token/lookup-accessor", body).await?, 400, "invalid accessor")
}

pub(crate) async fn put_and_post_are_alike(ctx: &Ctx) -> Outcome {
    let token = made(ctx, json!({})).await?;
    for method in ["PUT", "POST"] {
        let reply = token.call(method, "auth/token/renew-self", Some("{}".into())).await?;
        lease(&reply, 90, 90)?;
    }
    lease(&token.call("POST", "auth/token/renew-self", None).await?, 90, 90)
}

pub(crate) async fn unknown_path_and_operation(ctx: &Ctx) -> Outcome {
    let root = ctx.root();
    has(&root.read("auth/token/nonsense").await?, 404, "")?;
    has(&root.delete("auth/token/renew-self").await?, 405, "unsupported operation")
}

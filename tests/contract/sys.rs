//! The server itself: health, status, mounts, policies.

use serde_json::json;

use crate::bench::{Ctx, Outcome, has, is, ok, same, status};

pub(crate) async fn health_active(ctx: &Ctx) -> Outcome {
    let reply = ctx.anyone().read("sys/health").await?;
    ok(&reply)?;
    let told = reply.json["server_time_utc"].as_i64().unwrap_or(0);
    let skew = told - ctx.now().as_second();
    if skew.abs() > 2 { Err(format!("server time is {skew} s off")) } else { Ok(()) }
}

pub(crate) async fn health_can_be_recoded(ctx: &Ctx) -> Outcome {
    status(&ctx.anyone().read("sys/health?activecode=218").await?, 218)?;
    ok(&ctx.anyone().read("sys/health?sealedcode=299").await?)?;
    status(&ctx.root().quiet().anyone().call("HEAD", "sys/health", None).await?, 200)
}

pub(crate) async fn seal_status_active(ctx: &Ctx) -> Outcome {
    let reply = ctx.anyone().read("sys/seal-status").await?;
    same("sealed", &reply.json["sealed"], json!(false))?;
    same("type", &reply.json["type"], json!("shamir"))?;
    same("t", &reply.json["t"], json!(1))
}

pub(crate) async fn leader_without_ha(ctx: &Ctx) -> Outcome {
    let reply = ctx.anyone().read("sys/leader").await?;
    same("ha_enabled", &reply.json["ha_enabled"], json!(false))
}

pub(crate) async fn init_is_told(ctx: &Ctx) -> Outcome {
    same("init", &ctx.anyone().read("sys/init").await?.json, json!({ "initialized": true }))
}

pub(crate) async fn mount_twice(ctx: &Ctx) -> Outcome {
    let path = format!("sys/mounts/{}", ctx.mount("pki"));
    status(&ctx.root().write(&path, json!({ "type": "pki" })).await?, 204)?;
    has(&ctx.root().write(&path, json!({ "type": "pki" })).await?, 400, "path is already in use")
}

pub(crate) async fn mount_of_an_unknown_kind(ctx: &Ctx) -> Outcome {
    let path = format!("sys/mounts/{}", ctx.mount("x"));
    let reply = ctx.root().write(&path, json!({ "type": "nonsense" })).await?;
    has(&reply, 400, "plugin not found in the catalog")
}

pub(crate) async fn tune_shows(ctx: &Ctx) -> Outcome {
    let pki = ctx.pki().await?;
    let path = format!("sys/mounts/{pki}/tune");
    status(&ctx.root().write(&path, json!({ "max_lease_ttl": "100h" })).await?, 204)?;
    let shown = ctx.root().quiet().read(&path).await?;
    same("max_lease_ttl", shown.data("max_lease_ttl"), json!(360_000))
}

pub(crate) async fn auth_mount_free(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let name = auth.path("").trim_start_matches("auth/").trim_end_matches('/').to_owned();
    let shown = ctx.root().quiet().read(&format!("sys/auth/{name}")).await?;
    same("type", shown.data("type"), json!("aws"))?;
    let twice = ctx.root().write(&format!("sys/auth/{name}"), json!({ "type": "aws" })).await?;
    has(&twice, 400, "path is already in use")?;
    status(&ctx.root().delete(&format!("sys/auth/{name}")).await?, 204)?;
    let reply = auth.send(json!({ "role": "node" })).await?;
    is(&reply, 403, "permission denied")
}

pub(crate) async fn unknown_route(ctx: &Ctx) -> Outcome {
    let reply = ctx.root().read("nowhere/to/go").await?;
    has(&reply, 404, "no handler for route")
}

pub(crate) async fn policy_reads_back(ctx: &Ctx) -> Outcome {
    let path = "sys/policies/acl/contract-reads-back";
    let policy = "path \"a/*\" { capabilities = [\"read\"] }";
    status(&ctx.root().write(path, json!({ "policy": policy })).await?, 204)?;
    same("policy", ctx.root().read(path).await?.data("policy"), json!(policy))?;
    status(&ctx.root().delete(path).await?, 204)?;
    is(&ctx.root().read(path).await?, 404, "")
}

pub(crate) async fn policy_must_parse(ctx: &Ctx) -> Outcome {
    let quiet = ctx.root().quiet();
    for policy in ["path \"a\" { capabilities = [\"fly\"] }", "path \"a\" {"] {
        let reply = quiet.write("sys/policies/acl/x", json!({ "policy": policy })).await?;
        has(&reply, 400, "failed to parse policy")?;
    }
    Ok(())
}

pub(crate) async fn plain_http_on_tls(ctx: &Ctx) -> Outcome {
    let url = format!("{}/v1/sys/health", ctx.address().replace("https:", "http:"));
    let answer = ctx.http()?.get(url).send().await.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if status == 400 && text.contains("Client sent an HTTP request to an HTTPS server.") {
        return Ok(());
    }
    Err(format!("{status} {text}"))
}

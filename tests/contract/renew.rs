//! Renewing the token of an EC2 login: the login method has its say each time.

use rig::aws::Ec2Fault;
use serde_json::json;

use crate::bench::{Auth, Caller, Ctx, Outcome, has, ok, status};

const RENEW: &str = "auth/token/renew-self";

async fn logged_in(auth: &Auth<'_>) -> Result<(String, Caller), String> {
    let id = auth.launch();
    let node = auth.token(&id, "node").await?;
    Ok((id, node))
}

fn lease(reply: &rig::setup::Reply, least: i64, most: i64) -> Outcome {
    ok(reply)?;
    let got = reply.auth("lease_duration").as_i64().unwrap_or(-1);
    let fits = (least..=most).contains(&got);
    if fits { Ok(()) } else { Err(format!("lease of {got} s, wanted {least} to {most}")) }
}

/// The renewal is refused so, and the token stays valid.
async fn refused(node: &Caller, code: u16, part: &str) -> Outcome {
    let reply = node.write(RENEW, json!({})).await?;
    has(&reply, code, part)?;
    has(&reply, code, "1 error occurred:\n\t* failed to renew entry: ")?;
    ok(&node.read("auth/token/lookup-self").await?)
}

pub(crate) async fn by_the_node(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let (_, node) = logged_in(&auth).await?;
    lease(&node.write(RENEW, json!({})).await?, 3_600, 3_600)?;
    lease(&node.write(RENEW, json!({ "increment": "600s" })).await?, 600, 600)?;
    lease(&node.write(RENEW, json!({})).await?, 3_600, 3_600)
}

pub(crate) async fn shrinks_to_the_maximum(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("node", json!({ "token_ttl": "3s", "token_max_ttl": "5s" })).await?;
    let (_, node) = logged_in(&auth).await?;
    let (mut last, quiet) = (3, node.quiet());
    for _ in 0..10 {
        let reply = quiet.write(RENEW, json!({})).await?;
        if reply.status == 403 {
            return has(&reply, 403, "invalid token");
        }
        // Vault counts in whole seconds, so a lease may outlive its maximum by a part of one.
        if reply.status == 500 {
            return has(&reply, 500, "past the max TTL, cannot renew");
        }
        lease(&reply, 1, last)?;
        last = reply.auth("lease_duration").as_i64().unwrap_or(0);
        ctx.pass(1.2).await;
    }
    Err(format!("still a lease of {last} s after twice the maximum"))
}

pub(crate) async fn instance_stopped(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let (id, node) = logged_in(&auth).await?;
    auth.aws.stop(&id);
    refused(&node, 500, "instance is not in 'running' state").await
}

pub(crate) async fn entry_deleted(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let (id, node) = logged_in(&auth).await?;
    let entry = auth.path(&format!("identity-accesslist/{id}"));
    status(&ctx.root().delete(&entry).await?, 204)?;
    refused(&node, 500, &id).await
}

pub(crate) async fn role_deleted(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let (_, node) = logged_in(&auth).await?;
    status(&ctx.root().delete(&auth.path("role/node")).await?, 204)?;
    refused(&node, 500, "role").await
}

pub(crate) async fn ec2_denied(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let (_, node) = logged_in(&auth).await?;
    auth.aws.set_ec2_fault(Ec2Fault::Deny);
    refused(&node, 500, "failed to verify instance ID").await
}

pub(crate) async fn ec2_throttled(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let (_, node) = logged_in(&auth).await?;
    auth.aws.set_ec2_fault(Ec2Fault::Throttle);
    let reply = node.write(RENEW, json!({})).await?;
    has(&reply, 502, "RequestLimitExceeded")?;
    ok(&node.read("auth/token/lookup-self").await?)
}

pub(crate) async fn follows_the_role_of_the_first_login(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("first", json!({ "token_ttl": "40s", "token_max_ttl": "50s" })).await?;
    let id = auth.launch();
    auth.token(&id, "first").await?;
    let node = auth.token(&id, "node").await?;
    lease(&node.write(RENEW, json!({})).await?, 40, 40)
}

pub(crate) async fn follows_a_changed_role(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let (_, node) = logged_in(&auth).await?;
    auth.role("node", json!({ "token_ttl": "30m" })).await?;
    lease(&node.write(RENEW, json!({})).await?, 1_800, 1_800)
}

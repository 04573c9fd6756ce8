//! Rate quotas: what 429 looks like.

use serde_json::{Value, json};

use crate::bench::{Caller, Ctx, Outcome, has, ok, status};

/// A server of its own with a quota on one mount, since whether it shows headers is a setting of
/// the server.
async fn limited(caller: &Caller, more: Value) -> Outcome {
    let root = caller.quiet();
    let mount = json!({ "type": "kv", "options": { "version": "2" } });
    status(&root.write("sys/mounts/limited", mount).await?, 204)?;
    let mut body = json!({ "path": "limited/", "rate": 2, "interval": "60s" });
    crate::bench::merge(&mut body, more);
    status(&root.write("sys/quotas/rate-limit/case", body).await?, 204)
}

async fn show_headers(caller: &Caller) -> Outcome {
    let body = json!({ "enable_rate_limit_response_headers": true });
    status(&caller.quiet().write("sys/quotas/config", body).await?, 204)
}

async fn third(caller: &Caller) -> Result<rig::setup::Reply, String> {
    for _ in 0..2 {
        status(&caller.quiet().read("limited/data/x").await?, 404)?;
    }
    caller.read("limited/data/x").await
}

const TEXT: &str = "request path \"limited/data/x\": rate limit quota exceeded";

pub(crate) async fn refuses_without_a_hint(ctx: &Ctx) -> Outcome {
    let (_own, caller) = ctx.own(rig::vault::Readiness::Unsealed).await?;
    limited(&caller, json!({})).await?;
    let reply = third(&caller).await?;
    has(&reply, 429, TEXT)?;
    if reply.headers.contains_key("retry-after") {
        return Err("there is a Retry-After".into());
    }
    ok(&caller.quiet().read("auth/token/lookup-self").await?)
}

pub(crate) async fn tells_when_headers_are_on(ctx: &Ctx) -> Outcome {
    let (_own, caller) = ctx.own(rig::vault::Readiness::Unsealed).await?;
    limited(&caller, json!({})).await?;
    show_headers(&caller).await?;
    let first = caller.quiet().read("limited/data/x").await?;
    let header = |reply: &rig::setup::Reply, name: &str| {
        reply.headers.get(name).and_then(|text| text.parse::<i64>().ok())
    };
    let shown = [header(&first, "x-ratelimit-limit"), header(&first, "x-ratelimit-remaining")];
    if shown != [Some(2), Some(1)] {
        return Err(format!("limit and remaining are {shown:?}"));
    }
    caller.quiet().read("limited/data/x").await?;
    let reply = caller.read("limited/data/x").await?;
    has(&reply, 429, TEXT)?;
    match header(&reply, "retry-after") {
        Some(1..=60) => Ok(()),
        other => Err(format!("Retry-After is {other:?}")),
    }
}

pub(crate) async fn blocks_for_the_interval(ctx: &Ctx) -> Outcome {
    let (_own, caller) = ctx.own(rig::vault::Readiness::Unsealed).await?;
    limited(&caller, json!({ "block_interval": "10s" })).await?;
    show_headers(&caller).await?;
    third(&caller).await?;
    let blocked = caller.read("limited/data/x").await?;
    has(&blocked, 429, TEXT)?;
    let wait = blocked.headers.get("retry-after").map_or("", String::as_str).parse::<i64>();
    if !matches!(wait, Ok(8..=10)) || blocked.headers.contains_key("x-ratelimit-limit") {
        return Err(format!("headers of a blocked client: {:?}", blocked.headers));
    }
    Ok(())
}

pub(crate) async fn lease_count_is_for_enterprises(ctx: &Ctx) -> Outcome {
    let body = json!({ "max_leases": 10, "path": "" });
    let reply = ctx.root().write("sys/quotas/lease-count/x", body).await?;
    has(&reply, 404, "enterprise-only feature")
}

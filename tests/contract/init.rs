//! A server's first hours: initialising, unsealing, and what the rest answers meanwhile.

use rig::vault::Readiness;
use serde_json::{Value, json};

use crate::bench::{Caller, Ctx, Outcome, has, is, ok, same, status};

async fn init(caller: &Caller, shares: u32, threshold: u32) -> Result<Value, String> {
    let body = json!({ "secret_shares": shares, "secret_threshold": threshold });
    let reply = caller.write("sys/init", body).await?;
    ok(&reply)?;
    Ok(reply.json)
}

async fn unseal(caller: &Caller, key: &str) -> Result<rig::setup::Reply, String> {
    caller.write("sys/unseal", json!({ "key": key })).await
}

fn key(keys: &Value, number: usize) -> String {
    keys["keys"][number].as_str().unwrap_or("").to_owned()
}

pub(crate) async fn empty_server(ctx: &Ctx) -> Outcome {
    let (_own, caller) = ctx.own(Readiness::Uninitialized).await?;
    let caller = caller.anyone();
    same("init", &caller.read("sys/init").await?.json, json!({ "initialized": false }))?;
    status(&caller.read("sys/health").await?, 501)?;
    let seal = caller.read("sys/seal-status").await?;
    same("sealed", &seal.json["sealed"], json!(true))?;
    same("n", &seal.json["n"], json!(0))?;
    for path in ["pki/ca/pem", "auth/token/lookup-self", "nowhere"] {
        is(&caller.read(path).await?, 503, "Vault is sealed")?;
    }
    is(&caller.write("auth/aws/login", json!({})).await?, 503, "Vault is sealed")?;
    ok(&caller.read("sys/leader").await?)
}

pub(crate) async fn wrong_shares(ctx: &Ctx) -> Outcome {
    let (_own, caller) = ctx.own(Readiness::Uninitialized).await?;
    for (shares, threshold, why) in [
        (0, 0, "shares must be at least one"),
        (1, 2, "threshold cannot be larger than shares"),
        (3, 1, "threshold must be greater than one for multiple shares"),
    ] {
        let body = json!({ "secret_shares": shares, "secret_threshold": threshold });
        let reply = caller.write("sys/init", body).await?;
        has(&reply, 400, &format!("invalid seal configuration: {why}"))?;
    }
    Ok(())
}

pub(crate) async fn recovery_keys_do_not_apply(ctx: &Ctx) -> Outcome {
    let (_own, caller) = ctx.own(Readiness::Uninitialized).await?;
    let body = json!({ "recovery_shares": 1, "recovery_threshold": 1 });
    has(&caller.write("sys/init", body).await?, 400, "not applicable to seal type shamir")
}

pub(crate) async fn second_time(ctx: &Ctx) -> Outcome {
    let body = json!({ "secret_shares": 1, "secret_threshold": 1 });
    is(&ctx.anyone().write("sys/init", body).await?, 400, "Vault is already initialized")
}

pub(crate) async fn unseal_errors(ctx: &Ctx) -> Outcome {
    let (_own, caller) = ctx.own(Readiness::Uninitialized).await?;
    let early = unseal(&caller, &"ab".repeat(33)).await?;
    is(&early, 400, "Vault is not initialized")?;
    init(&caller, 3, 2).await?;
    let text = "'key' must be a valid hex or base64 string";
    is(&unseal(&caller, "not a key!").await?, 400, text)?;
    let short = unseal(&caller, "abcd").await?;
    is(&short, 400, "invalid key: key is shorter than minimum 16 bytes")
}

pub(crate) async fn wrong_share_shows_at_the_last(ctx: &Ctx) -> Outcome {
    let (_own, caller) = ctx.own(Readiness::Uninitialized).await?;
    let keys = init(&caller, 3, 2).await?;
    // Another share's last byte stays: it is the share's place, and two of one place are refused.
    let share = key(&keys, 2);
    let changed = if share.starts_with('0') { "1" } else { "0" };
    let wrong = unseal(&caller, &format!("{changed}{}", &share[1..])).await?;
    same("progress", &wrong.json["progress"], json!(1))?;
    let last = unseal(&caller, &key(&keys, 0)).await?;
    has(&last, 400, "invalid key")?;
    let seal = caller.read("sys/seal-status").await?;
    same("progress", &seal.json["progress"], json!(0))
}

pub(crate) async fn same_share_twice(ctx: &Ctx) -> Outcome {
    let (_own, caller) = ctx.own(Readiness::Uninitialized).await?;
    let keys = init(&caller, 3, 2).await?;
    for _ in 0..2 {
        let reply = unseal(&caller, &key(&keys, 0)).await?;
        same("progress", &reply.json["progress"], json!(1))?;
    }
    let done = unseal(&caller, &key(&keys, 1)).await?;
    same("sealed", &done.json["sealed"], json!(false))?;
    let again = unseal(&caller, &key(&keys, 2)).await?;
    same("sealed", &again.json["sealed"], json!(false))
}

pub(crate) async fn sealed_server(ctx: &Ctx) -> Outcome {
    let (_own, root) = ctx.own(Readiness::Unsealed).await?;
    status(&root.write("sys/seal", json!({})).await?, 204)?;
    let anyone = root.anyone();
    status(&anyone.read("sys/health").await?, 503)?;
    status(&anyone.read("sys/health?sealedcode=299").await?, 299)?;
    let seal = anyone.read("sys/seal-status").await?;
    same("sealed", &seal.json["sealed"], json!(true))?;
    is(&root.read("auth/token/lookup-self").await?, 503, "Vault is sealed")?;
    is(&root.write("pki/sign/x", json!({})).await?, 503, "Vault is sealed")?;
    ok(&anyone.read("sys/leader").await?)
}

pub(crate) async fn tokens_survive_a_seal(ctx: &Ctx) -> Outcome {
    let (_own, caller) = ctx.own(Readiness::Uninitialized).await?;
    let keys = init(&caller, 1, 1).await?;
    ok(&unseal(&caller, &key(&keys, 0)).await?)?;
    let root = caller.with(keys["root_token"].as_str().unwrap_or(""));
    let made = root.quiet().write("auth/token/create", json!({ "ttl": "1h" })).await?;
    let token = caller.with(made.auth("client_token").as_str().unwrap_or(""));
    status(&root.write("sys/seal", json!({})).await?, 204)?;
    ok(&unseal(&caller, &key(&keys, 0)).await?)?;
    ok(&token.read("auth/token/lookup-self").await?)
}

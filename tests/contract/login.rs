//! The `ec2` login: nonces, trust on first use, pending times, and what a login gives.

use serde_json::json;

use crate::bench::{Auth, Ctx, Outcome, has, is, ok, same, status};

const EARLY: &str = "2026-11-01T00:00:00Z";
const LATE: &str = "2026-11-02T00:00:00Z";

pub(crate) async fn first_without_nonce_is_given_one(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let first = auth.login(&id, json!({})).await?;
    ok(&first)?;
    let nonce = first.auth("metadata")["nonce"].clone();
    let again = auth.login(&id, json!({ "nonce": nonce })).await?;
    ok(&again)?;
    same("the nonce of a second login", &again.auth("metadata")["nonce"], json!(null))
}

pub(crate) async fn same_nonce_again_is_not_echoed(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    for _ in 0..2 {
        let reply = auth.login(&id, json!({ "nonce": "mine" })).await?;
        ok(&reply)?;
        same("nonce", &reply.auth("metadata")["nonce"], json!(null))?;
        same("auth_type", &reply.auth("metadata")["auth_type"], json!("ec2"))?;
        same("role", &reply.auth("metadata")["role"], json!("node"))?;
        same("role_tag_max_ttl", &reply.auth("metadata")["role_tag_max_ttl"], json!("0s"))?;
    }
    Ok(())
}

pub(crate) async fn missing_nonce_later_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    ok(&auth.login(&id, json!({ "nonce": "mine" })).await?)?;
    is(&auth.login(&id, json!({})).await?, 400, "client nonce mismatch")
}

pub(crate) async fn wrong_nonce_later_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    ok(&auth.login(&id, json!({ "nonce": "mine" })).await?)?;
    is(&auth.login(&id, json!({ "nonce": "yours" })).await?, 400, "client nonce mismatch")?;
    ok(&auth.login(&id, json!({ "nonce": "mine" })).await?)
}

pub(crate) async fn empty_nonce_on_an_entry_changes_nothing(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    ok(&auth.login(&id, json!({ "nonce": "mine" })).await?)?;
    is(&auth.login(&id, json!({ "nonce": "" })).await?, 400, "reauthentication is disabled")?;
    ok(&auth.login(&id, json!({ "nonce": "mine" })).await?)
}

pub(crate) async fn empty_nonce_first_ends_reauthentication(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    ok(&auth.login(&id, json!({ "nonce": "" })).await?)?;
    for nonce in ["", "any"] {
        let again = auth.login(&id, json!({ "nonce": nonce })).await?;
        is(&again, 400, "reauthentication is disabled")?;
    }
    Ok(())
}

async fn login_at(
    auth: &Auth<'_>,
    id: &str,
    at: &str,
    nonce: &str,
) -> Result<rig::setup::Reply, String> {
    let document = auth.document_at(id, at);
    auth.login_with(&document, "node", json!({ "nonce": nonce })).await
}

pub(crate) async fn older_pending_time_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    ok(&login_at(&auth, &id, EARLY, "mine").await?)?;
    ok(&login_at(&auth, &id, LATE, "mine").await?)?;
    let text = "instance meta-data is older than the one used for previous login";
    is(&login_at(&auth, &id, EARLY, "mine").await?, 400, text)
}

pub(crate) async fn wrong_nonce_with_newer_pending_time_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    ok(&login_at(&auth, &id, EARLY, "mine").await?)?;
    is(&login_at(&auth, &id, LATE, "yours").await?, 400, "client nonce mismatch")
}

const MIGRATED: &str = "client nonce mismatch and instance meta-data incorrect";

pub(crate) async fn migration_with_newer_pending_time_keeps_the_old_nonce(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("node", json!({ "allow_instance_migration": true })).await?;
    let id = auth.launch();
    ok(&login_at(&auth, &id, EARLY, "old").await?)?;
    ok(&login_at(&auth, &id, LATE, "new").await?)?;
    is(&login_at(&auth, &id, LATE, "new").await?, 400, MIGRATED)?;
    ok(&login_at(&auth, &id, LATE, "old").await?)
}

pub(crate) async fn migration_with_the_same_pending_time_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("node", json!({ "allow_instance_migration": true })).await?;
    let id = auth.launch();
    ok(&auth.login(&id, json!({ "nonce": "old" })).await?)?;
    is(&auth.login(&id, json!({ "nonce": "new" })).await?, 400, MIGRATED)?;
    is(&auth.login(&id, json!({})).await?, 400, MIGRATED)
}

pub(crate) async fn reserved_nonce_bricks_the_entry(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let reserved = json!({ "nonce": "reauthentication-disabled-nonce" });
    ok(&auth.login(&id, reserved.clone()).await?)?;
    is(&auth.login(&id, reserved).await?, 400, "reauthentication is disabled")
}

pub(crate) async fn long_nonce_makes_no_entry(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let long = auth.login(&id, json!({ "nonce": "n".repeat(129) })).await?;
    is(&long, 400, "client nonce exceeding the limit of 128 characters")?;
    ok(&auth.login(&id, json!({ "nonce": "n".repeat(128) })).await?)
}

pub(crate) async fn disallowed_reauthentication_is_cleared_by_deleting_the_entry(
    ctx: &Ctx,
) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("once", json!({ "disallow_reauthentication": true })).await?;
    let id = auth.launch();
    let nonce = json!({ "nonce": "mine" });
    ok(&auth.login_with(&auth.document(&id), "once", nonce.clone()).await?)?;
    is(&auth.login(&id, nonce.clone()).await?, 400, "reauthentication is disabled")?;
    let entry = auth.path(&format!("identity-accesslist/{id}"));
    status(&ctx.root().delete(&entry).await?, 204)?;
    ok(&auth.login(&id, nonce).await?)
}

pub(crate) async fn disallow_and_migration_exclude_each_other(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let both = json!({ "disallow_reauthentication": true, "allow_instance_migration": true });
    let reply = ctx.root().write(&auth.path("role/both"), crate::bench::role(both)).await?;
    has(&reply, 400, "cannot specify both")
}

/// Vault does not serialise first logins: on a busy server two of them may both be answered 200.
/// Only one nonce is kept, so a winner may still find itself locked out at its next login.
pub(crate) async fn of_eight_first_logins_one_nonce_stays(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let (caller, path) = (ctx.root().quiet().anyone(), auth.path("login"));
    let pkcs7 = auth.pkcs7(&auth.document(&id));
    let body = |nonce: usize| json!({ "role": "node", "pkcs7": pkcs7, "nonce": nonce.to_string() });
    let mut logins = tokio::task::JoinSet::new();
    for nonce in 0..8 {
        let (caller, path, body) = (caller.quiet(), path.clone(), body(nonce));
        logins.spawn_local(async move { caller.write(&path, body).await });
    }
    let mut won = 0;
    while let Some(reply) = logins.join_next().await {
        let reply = reply.map_err(|error| error.to_string())??;
        match (reply.status, reply.error()) {
            (200, _) => won += 1,
            (400, "client nonce mismatch") => {}
            _ => return Err(reply.text),
        }
    }
    let mut stays = 0;
    for nonce in 0..8 {
        let reply = caller.write(&path, body(nonce)).await?;
        stays += usize::from(reply.status == 200);
    }
    if won >= 1 && stays == 1 { Ok(()) } else { Err(format!("{won} won, {stays} stay")) }
}

pub(crate) async fn unparsable_pending_time_poisons_the_entry(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let document = format!(
        "{{\"instanceId\":\"{id}\",\"imageId\":\"ami-1\",\"accountId\":\"{}\",\
         \"region\":\"us-east-1\",\"pendingTime\":\"yesterday\"}}",
        rig::aws::ACCOUNT
    );
    let nonce = json!({ "nonce": "mine" });
    ok(&auth.login_with(&document, "node", nonce.clone()).await?)?;
    has(&auth.login_with(&document, "node", nonce.clone()).await?, 400, "parsing time")?;
    has(&auth.login(&id, nonce).await?, 400, "parsing time")
}

pub(crate) async fn nonce_is_shared_by_all_roles(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("other", json!({})).await?;
    let id = auth.launch();
    ok(&auth.login(&id, json!({ "nonce": "mine" })).await?)?;
    let document = auth.document(&id);
    ok(&auth.login_with(&document, "other", json!({ "nonce": "mine" })).await?)?;
    let wrong = auth.login_with(&document, "other", json!({ "nonce": "yours" })).await?;
    is(&wrong, 400, "client nonce mismatch")
}

pub(crate) async fn role_defaults_to_the_image(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let body = json!({ "pkcs7": auth.pkcs7(&auth.document(&id)), "nonce": "mine" });
    let image = auth.instance(&id).spec.image_id;
    let text = format!("entry for role {image:?} not found");
    is(&auth.send(body.clone()).await?, 400, &text)?;
    auth.role(&image, json!({})).await?;
    ok(&auth.send(body).await?)
}

pub(crate) async fn unknown_fields_are_a_warning(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let reply = auth.login(&id, json!({ "nonce": "mine", "zeal": 1, "colour": "red" })).await?;
    ok(&reply)?;
    let text = "Endpoint ignored these unrecognized parameters: [colour zeal]";
    same("warnings", &reply.json["warnings"], json!([text]))
}

pub(crate) async fn metadata_follows_the_configuration(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let fields = json!(["account_id", "instance_id", "region", "ami_id"]);
    let body = json!({ "ec2_alias": "instance_id", "ec2_metadata": fields });
    ctx.setup(&auth.path("config/identity"), body).await?;
    let id = auth.launch();
    let reply = auth.login(&id, json!({ "nonce": "mine" })).await?;
    let metadata = reply.auth("metadata");
    same("instance_id", &metadata["instance_id"], json!(id))?;
    same("auth_type", &metadata["auth_type"], json!(null))?;
    same("region", &metadata["region"], json!(auth.instance(&id).spec.region))
}

pub(crate) async fn one_entity_per_instance(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    ctx.setup(&auth.path("config/identity"), json!({ "ec2_alias": "instance_id" })).await?;
    let (one, two) = (auth.launch(), auth.launch());
    let nonce = json!({ "nonce": "mine" });
    let first = auth.login(&one, nonce.clone()).await?;
    let again = auth.login(&one, nonce.clone()).await?;
    let other = auth.login(&two, nonce).await?;
    same("entity", again.auth("entity_id"), first.auth("entity_id").clone())?;
    if other.auth("entity_id") == first.auth("entity_id") {
        return Err("two instances share an entity".into());
    }
    Ok(())
}

pub(crate) async fn access_list_shows_its_entries(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let root = ctx.root();
    is(&root.list(&auth.path("identity-accesslist")).await?, 404, "")?;
    ok(&auth.login(&id, json!({ "nonce": "mine" })).await?)?;
    let list = root.list(&auth.path("identity-accesslist")).await?;
    same("keys", list.data("keys"), json!([id]))?;
    let entry = root.read(&auth.path(&format!("identity-accesslist/{id}"))).await?;
    same("role", entry.data("role"), json!("node"))?;
    same("client_nonce", entry.data("client_nonce"), json!("mine"))?;
    ok(&root.read(&auth.path(&format!("identity-whitelist/{id}"))).await?)?;
    status(&root.delete(&auth.path(&format!("identity-whitelist/{id}"))).await?, 204)?;
    is(&root.read(&auth.path(&format!("identity-accesslist/{id}"))).await?, 404, "")
}

pub(crate) async fn policies_and_lease_come_from_the_role(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let more = json!({ "token_policies": ["b", "a"], "token_ttl": "90m", "token_num_uses": 7 });
    auth.role("node", more).await?;
    let reply = auth.login(&auth.launch(), json!({ "nonce": "mine" })).await?;
    same("policies", reply.auth("policies"), json!(["a", "b", "default"]))?;
    same("lease_duration", reply.auth("lease_duration"), json!(5_400))?;
    same("num_uses", reply.auth("num_uses"), json!(7))
}

pub(crate) async fn batch_role_gives_a_batch_token(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("node", json!({ "token_type": "batch" })).await?;
    let reply = auth.login(&auth.launch(), json!({ "nonce": "mine" })).await?;
    same("token_type", reply.auth("token_type"), json!("batch"))?;
    same("renewable", reply.auth("renewable"), json!(false))
}

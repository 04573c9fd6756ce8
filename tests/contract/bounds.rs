//! Who a role lets in, and what it looks like when AWS does not say who it is.

use rig::aws::{Ec2Fault, LaunchSpec};
use serde_json::{Value, json};

use crate::bench::{Auth, Ctx, Outcome, has, is, ok, role};

async fn refused(auth: &Auth<'_>, more: Value, status: u16, text: &str) -> Outcome {
    auth.role("node", more).await?;
    let id = auth.launch();
    is(&auth.login(&id, json!({ "nonce": "n" })).await?, status, text)
}

pub(crate) async fn role_is_missing(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let document = auth.document(&auth.launch());
    let reply = auth.login_with(&document, "x", json!({ "nonce": "n" })).await?;
    is(&reply, 400, "entry for role \"x\" not found")
}

pub(crate) async fn role_of_another_type(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let body = json!({
        "auth_type": "iam", "bound_iam_principal_arn": ["arn:aws:iam::123456789012:role/x"],
        "resolve_aws_unique_ids": false,
    });
    ctx.setup(&auth.path("role/x"), body).await?;
    let document = auth.document(&auth.launch());
    let reply = auth.login_with(&document, "x", json!({ "nonce": "n" })).await?;
    is(&reply, 400, "auth method ec2 not allowed for role x")
}

pub(crate) async fn image_differs(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let image = LaunchSpec::default().image_id;
    let text =
        format!("Error validating instance: AMI ID {image:?} does not belong to role \"node\"");
    refused(&auth, json!({ "bound_ami_id": ["ami-other"] }), 400, &text).await
}

pub(crate) async fn image_of_the_document_does_not_count(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let image = LaunchSpec::default().image_id;
    auth.role("node", json!({ "bound_ami_id": [image] })).await?;
    let id = auth.launch();
    let document = auth.document(&id).replace(&image, "ami-told");
    ok(&auth.login_with(&document, "node", json!({ "nonce": "n" })).await?)
}

pub(crate) async fn account_differs(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let text =
        "Error validating instance: account ID \"123456789012\" does not belong to role \"node\"";
    refused(&auth, json!({ "bound_account_id": ["999999999999"] }), 400, text).await
}

pub(crate) async fn instance_id_differs(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("node", json!({ "bound_ec2_instance_id": ["i-00000000000000000"] })).await?;
    let id = auth.launch();
    let reply = auth.login(&id, json!({ "nonce": "n" })).await?;
    let text = format!(
        "Error validating instance: instance ID {id:?} does not belong to the role \"node\""
    );
    is(&reply, 400, &text)
}

pub(crate) async fn subnet_differs(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let subnet = LaunchSpec::default().subnet_id;
    let text = format!(
        "Error validating instance: subnet ID {subnet:?} \
         does not satisfy the constraint on role \"node\""
    );
    refused(&auth, json!({ "bound_subnet_id": ["subnet-other"] }), 400, &text).await
}

pub(crate) async fn vpc_differs(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let vpc = LaunchSpec::default().vpc_id;
    let text = format!(
        "Error validating instance: VPC ID {vpc:?} does not satisfy the constraint on role \"node\""
    );
    refused(&auth, json!({ "bound_vpc_id": ["vpc-other"] }), 400, &text).await
}

pub(crate) async fn region_differs(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("node", json!({ "bound_region": ["mars-east-1"] })).await?;
    let reply = auth.login(&auth.launch(), json!({ "nonce": "n" })).await?;
    has(&reply, 400, "does not satisfy the constraint on role \"node\"")
}

const PROFILE: &str = "bound_iam_instance_profile_arn";

fn arn(name: &str) -> String {
    format!("arn:aws:iam::{}:instance-profile/rig-{name}", rig::aws::ACCOUNT)
}

pub(crate) async fn profile_differs(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("node", json!({ PROFILE: [arn("controller")] })).await?;
    let reply = auth.login(&auth.launch(), json!({ "nonce": "n" })).await?;
    let worker = arn("worker");
    let text = format!(
        "Error validating instance: IAM instance profile ARN {worker:?} \
         does not satisfy the constraint role \"node\""
    );
    is(&reply, 400, &text)
}

pub(crate) async fn profile_is_missing(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("node", json!({ PROFILE: [arn("controller")] })).await?;
    let id = auth.launch();
    auth.aws.change_profile(&id, None);
    let reply = auth.login(&id, json!({ "nonce": "n" })).await?;
    has(&reply, 500, "IAM instance profile in the instance description is nil")
}

pub(crate) async fn profile_prefix_matches(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.role("node", json!({ PROFILE: [arn("wor*")] })).await?;
    ok(&auth.login(&auth.launch(), json!({ "nonce": "n" })).await?)
}

pub(crate) async fn address_is_out_of_range(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    refused(&auth, json!({ "token_bound_cidrs": ["10.9.8.0/24"] }), 403, "permission denied").await
}

const STOPPED: &str = "failed to verify instance ID: instance is not in 'running' state";

pub(crate) async fn instance_is_stopped(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    auth.aws.stop(&id);
    is(&auth.login(&id, json!({ "nonce": "n" })).await?, 400, STOPPED)?;
    auth.aws.start_instance(&id);
    ok(&auth.login(&id, json!({ "nonce": "n" })).await?)
}

pub(crate) async fn instance_is_terminated(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    auth.aws.terminate(&id);
    is(&auth.login(&id, json!({ "nonce": "n" })).await?, 400, STOPPED)
}

pub(crate) async fn instance_is_unknown(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let document = auth.document(&id).replace(&id, "i-0ffffffffffffffff");
    let reply = auth.login_with(&document, "node", json!({ "nonce": "n" })).await?;
    has(&reply, 400, "InvalidInstanceID.NotFound")?;
    has(&reply, 400, "status code: 400")
}

pub(crate) async fn account_is_not_vaults(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let spec = LaunchSpec { account: "999999999999".into(), ..LaunchSpec::default() };
    let id = auth.aws.launch(spec);
    let reply = auth.login(&id, json!({ "nonce": "n" })).await?;
    has(&reply, 400, "unable to fetch client for account ID \"999999999999\"")
}

pub(crate) async fn ec2_throttles(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.aws.set_ec2_fault(Ec2Fault::Throttle);
    let reply = auth.login(&auth.launch(), json!({ "nonce": "n" })).await?;
    has(&reply, 400, "RequestLimitExceeded")
}

pub(crate) async fn ec2_denies(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    auth.aws.set_ec2_fault(Ec2Fault::Deny);
    let reply = auth.login(&auth.launch(), json!({ "nonce": "n" })).await?;
    has(&reply, 400, "failed to verify instance ID")
}

pub(crate) async fn ec2_is_gone(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    auth.aws.ec2().stop();
    let body = json!({ "role": "node", "pkcs7": auth.pkcs7(&auth.document(&id)), "nonce": "n" });
    let quiet = ctx.root().quiet().anyone();
    has(&quiet.write(&auth.path("login"), body).await?, 400, "failed to verify instance ID")
}

pub(crate) async fn role_needs_a_bound(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let reply = ctx.root().write(&auth.path("role/x"), json!({ "auth_type": "ec2" })).await?;
    has(&reply, 400, "at least one bound parameter should be specified on the role")
}

pub(crate) async fn role_ttl_above_its_maximum(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let body = role(json!({ "token_ttl": "2h", "token_max_ttl": "1h" }));
    has(&ctx.root().write(&auth.path("role/x"), body).await?, 400, "token_ttl")
}

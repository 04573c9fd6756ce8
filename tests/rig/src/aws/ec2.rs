//! The query APIs that Vault's `aws` method calls, in the XML that its SDK reads: EC2
//! DescribeInstances, STS GetCallerIdentity (Vault compares its own account with the document's
//! before it trusts it) and IAM GetInstanceProfile (how a profile becomes a role's ARN).
//! Signatures of the requests are not checked: the credentials are Vault's, not the node's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::aws_time;
use super::{ACCOUNT, Ec2Fault, Instance, World};
use crate::clock::lock;
use crate::server::{Handler, Request, Response, handler as async_handler};

/// The parameters of a call.
type Parameters = BTreeMap<String, String>;

pub(super) fn handler(world: Arc<World>) -> Handler {
    async_handler(move |request| answer(Arc::clone(&world), request))
}

async fn answer(world: Arc<World>, request: Request) -> Response {
    let parameters = parameters(&request);
    let action = parameters.get("Action").map_or("", String::as_str);
    if action == "GetCallerIdentity" {
        return caller_identity();
    }
    let fault = *lock(&world.fault);
    match fault {
        Ec2Fault::None => {}
        Ec2Fault::Throttle => {
            return error(503, "RequestLimitExceeded", "Request limit exceeded.");
        }
        Ec2Fault::Deny => {
            let text = "You are not authorized to perform this operation.";
            return error(403, "UnauthorizedOperation", text);
        }
        Ec2Fault::Internal => return error(500, "InternalError", "An internal error has occurred"),
        Ec2Fault::Hang => std::future::pending().await,
    }
    match action {
        "DescribeInstances" => describe_instances(&world, &parameters),
        "GetInstanceProfile" => instance_profile(&world, &parameters),
        _ => error(400, "InvalidAction", &format!("The action {action} is not valid")),
    }
}

/// The form in the body, or the query where there is no body.
fn parameters(request: &Request) -> Parameters {
    let body = String::from_utf8_lossy(&request.body);
    let form = if body.is_empty() { request.query.as_str() } else { &body };
    match reqwest::Url::parse(&format!("http://form/?{form}")) {
        Ok(url) => url.query_pairs().into_owned().collect(),
        Err(_) => Parameters::new(),
    }
}

fn describe_instances(world: &World, parameters: &Parameters) -> Response {
    let ids: Vec<&String> = parameters
        .iter()
        .filter(|(name, _)| name.starts_with("InstanceId."))
        .map(|(_, id)| id)
        .collect();
    let instances = lock(&world.instances);
    if let Some(id) = ids.iter().find(|id| !instances.contains_key(**id)) {
        let text = format!("The instance ID '{id}' does not exist");
        return error(400, "InvalidInstanceID.NotFound", &text);
    }
    let wanted =
        instances.values().filter(|instance| ids.is_empty() || ids.contains(&&instance.id));
    let reservations: String = wanted.map(reservation).collect();
    xml(
        200,
        format!(
            "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>rig</requestId><reservationSet>{reservations}</reservationSet>\
         </DescribeInstancesResponse>"
        ),
    )
}

fn reservation(instance: &Instance) -> String {
    let spec = &instance.spec;
    let (code, state) = instance.state.wire();
    let profile = instance.profile_arn().map_or_else(String::new, |arn| {
        let id = profile_id(&arn);
        format!("<iamInstanceProfile>{}{}</iamInstanceProfile>", el("arn", &arn), el("id", &id))
    });
    let tags: String = spec
        .tags
        .iter()
        .map(|(key, value)| format!("<item>{}{}</item>", el("key", key), el("value", value)))
        .collect();
    let fields = [
        el("instanceId", &instance.id),
        el("imageId", &spec.image_id),
        format!("<instanceState><code>{code}</code><name>{state}</name></instanceState>"),
        el("privateDnsName", &instance.private_dns()),
        el("instanceType", &spec.instance_type),
        el("launchTime", &aws_time(instance.pending_time)),
        format!("<placement>{}</placement>", el("availabilityZone", &spec.availability_zone)),
        el("subnetId", &spec.subnet_id),
        el("vpcId", &spec.vpc_id),
        el("privateIpAddress", &instance.private_ip.to_string()),
        profile,
        format!("<tagSet>{tags}</tagSet>"),
    ];
    format!(
        "<item><reservationId>r-1</reservationId>{}<instancesSet><item>{}</item></instancesSet>\
         </item>",
        el("ownerId", &spec.account),
        fields.concat()
    )
}

fn instance_profile(world: &World, parameters: &Parameters) -> Response {
    let name = parameters.get("InstanceProfileName").map_or("", String::as_str);
    let instances = lock(&world.instances);
    let holder =
        instances.values().find(|instance| instance.spec.instance_profile.as_deref() == Some(name));
    let arns = holder.and_then(|instance| instance.profile_arn().zip(instance.role_arn()));
    let Some((profile_arn, role_arn)) = arns else {
        let text = format!("Instance Profile {name} cannot be found.");
        return iam_error(404, "NoSuchEntity", &text);
    };
    let role = [
        el("Path", "/"),
        el("RoleName", name),
        el("RoleId", "AROARIG"),
        el("Arn", &role_arn),
        el("CreateDate", "2026-01-01T00:00:00Z"),
    ];
    let profile = [
        el("InstanceProfileName", name),
        el("InstanceProfileId", &profile_id(&profile_arn)),
        el("Path", "/"),
        el("Arn", &profile_arn),
        el("CreateDate", "2026-01-01T00:00:00Z"),
        format!("<Roles><member>{}</member></Roles>", role.concat()),
    ];
    xml(
        200,
        format!(
            "<GetInstanceProfileResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">\
         <GetInstanceProfileResult><InstanceProfile>{}</InstanceProfile>\
         </GetInstanceProfileResult><ResponseMetadata><RequestId>rig</RequestId>\
         </ResponseMetadata></GetInstanceProfileResponse>",
            profile.concat()
        ),
    )
}

fn caller_identity() -> Response {
    xml(
        200,
        format!(
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <GetCallerIdentityResult><Arn>arn:aws:iam::{ACCOUNT}:user/vault</Arn>\
         <UserId>AIDARIG</UserId><Account>{ACCOUNT}</Account></GetCallerIdentityResult>\
         <ResponseMetadata><RequestId>rig</RequestId></ResponseMetadata>\
         </GetCallerIdentityResponse>"
        ),
    )
}

/// AWS' profile ids look like `AIPA…`; one that follows from the ARN is enough.
pub(super) fn profile_id(arn: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, arn.as_bytes());
    let hex: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02X}")).collect();
    format!("AIPA{hex}")
}

/// EC2's form of an error.
fn error(status: u16, code: &str, message: &str) -> Response {
    xml(
        status,
        format!(
            "<Response><Errors><Error>{}{}</Error></Errors><RequestID>rig</RequestID></Response>",
            el("Code", code),
            el("Message", message)
        ),
    )
}

/// IAM's and STS' form of an error.
fn iam_error(status: u16, code: &str, message: &str) -> Response {
    xml(
        status,
        format!(
            "<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><Error>\
         <Type>Sender</Type>{}{}</Error><RequestId>rig</RequestId></ErrorResponse>",
            el("Code", code),
            el("Message", message)
        ),
    )
}

fn xml(status: u16, body: String) -> Response {
    Response::typed(status, "text/xml;charset=UTF-8", body)
}

/// One element with its text escaped.
fn el(name: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<{name}>{text}</{name}>")
}

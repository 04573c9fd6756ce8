//! Roles of the `aws` method: what they may say, and whether an instance satisfies one.

use serde_json::{Value, json};

use super::super::answer::{Operation, Refusal, Reply};
use super::super::field::{Field, Form, Kind, field, with_default};
use super::super::ids;
use super::super::lease::Terms;
use super::document::Document;
use super::ec2::Instance;
use super::{Aws, Request};

const ROLE: &[Field] = &[
    with_default("auth_type", Kind::Text, "iam"),
    field("bound_ami_id", Kind::List),
    field("bound_account_id", Kind::List),
    field("bound_iam_principal_arn", Kind::List),
    field("bound_region", Kind::List),
    field("bound_iam_role_arn", Kind::List),
    field("bound_iam_instance_profile_arn", Kind::List),
    field("bound_ec2_instance_id", Kind::List),
    field("bound_vpc_id", Kind::List),
    field("bound_subnet_id", Kind::List),
    field("inferred_entity_type", Kind::Text),
    field("inferred_aws_region", Kind::Text),
    with_default("resolve_aws_unique_ids", Kind::Flag, "true"),
    field("role_tag", Kind::Text),
    field("allow_instance_migration", Kind::Flag),
    field("disallow_reauthentication", Kind::Flag),
    field("token_ttl", Kind::Seconds),
    field("token_max_ttl", Kind::Seconds),
    field("token_period", Kind::Seconds),
    field("token_explicit_max_ttl", Kind::Seconds),
    field("token_policies", Kind::List),
    field("token_num_uses", Kind::Number),
    field("token_no_default_policy", Kind::Flag),
    field("token_bound_cidrs", Kind::List),
    with_default("token_type", Kind::Text, "default"),
    field("ttl", Kind::Seconds),
    field("max_ttl", Kind::Seconds),
    field("period", Kind::Seconds),
    field("policies", Kind::List),
];

/// The names that older configurations use, and what they mean today.
const OLD_NAMES: [(&str, &str); 4] = [
    ("ttl", "token_ttl"),
    ("max_ttl", "token_max_ttl"),
    ("period", "token_period"),
    ("policies", "token_policies"),
];

const BOUNDS: [&str; 8] = [
    "bound_ami_id",
    "bound_account_id",
    "bound_region",
    "bound_iam_role_arn",
    "bound_iam_instance_profile_arn",
    "bound_ec2_instance_id",
    "bound_vpc_id",
    "bound_subnet_id",
];

impl Aws {
    pub(super) fn role(&mut self, name: &str, request: &Request<'_>) -> Result<Reply, Refusal> {
        match request.operation {
            Operation::Read => Ok(self
                .roles
                .get(name)
                .map_or(Reply::Absent, |role| Reply::data(Value::Object(role.shown())))),
            Operation::Delete => {
                self.roles.remove(name);
                Ok(Reply::NoContent)
            }
            Operation::Write => self.write_role(name, request),
            Operation::List => Err(Refusal::unsupported_operation()),
        }
    }

    fn write_role(&mut self, name: &str, request: &Request<'_>) -> Result<Reply, Refusal> {
        let (mut form, warnings) = Form::parse(ROLE, request.body)?;
        for (old, new) in OLD_NAMES {
            if form.given(old) && !form.given(new) {
                let value = form.shown().get(old).cloned().unwrap_or(Value::Null);
                form.set(new, value);
            }
        }
        let mut role = match self.roles.get(name) {
            Some(stored) => {
                let mut role = stored.clone();
                role.update(&form);
                role
            }
            None => form,
        };
        let auth_type = role.text("auth_type").to_owned();
        if !matches!(auth_type.as_str(), "ec2" | "iam") {
            return Err(Refusal::bad(format!("unrecognized auth_type: {auth_type:?}")));
        }
        let bound = BOUNDS.iter().any(|bound| !role.list(bound).is_empty());
        if !bound && role.list("bound_iam_principal_arn").is_empty() {
            let text = "at least one bound parameter should be specified on the role";
            return Err(Refusal::bad(text));
        }
        if role.flag("disallow_reauthentication") && role.flag("allow_instance_migration") {
            let text = "cannot specify both disallow_reauthentication=true and \
                        allow_instance_migration=true";
            return Err(Refusal::bad(text));
        }
        let (ttl, max) = (role.number("token_ttl"), role.number("token_max_ttl"));
        if max > 0 && ttl > max {
            return Err(Refusal::bad("'token_ttl' cannot be greater than 'token_max_ttl'"));
        }
        if role.text("role_id").is_empty() {
            role.set("role_id", json!(ids::uuid()));
        }
        self.roles.insert(name.to_owned(), role);
        Ok(Reply::written(warnings))
    }
}

/// The lease that a role allows under the limits of its mount.
pub(super) fn terms(role: &Form, mount_ttl: (i64, i64)) -> Terms {
    Terms {
        ttl: role.number("token_ttl"),
        max_ttl: role.number("token_max_ttl"),
        period: role.number("token_period"),
        explicit_max_ttl: role.number("token_explicit_max_ttl"),
        mount_default: mount_ttl.0,
        mount_max: mount_ttl.1,
    }
}

/// The policies of a token under a role: sorted, with `default` unless the role forbids it.
pub(super) fn policies(role: &Form) -> Vec<String> {
    let mut names = role.list("token_policies");
    if !role.flag("token_no_default_policy") {
        names.push("default".into());
    }
    names.sort();
    names.dedup();
    names
}

/// Whether an instance satisfies the bounds of a role.
pub(super) fn admit(
    role: &Form,
    name: &str,
    document: &Document,
    instance: &Instance,
) -> Result<(), Refusal> {
    let outside = |bound: &str, value: &str| {
        let values = role.list(bound);
        !values.is_empty() && !values.iter().any(|allowed| allowed == value)
    };
    let refuse = |text: String| Err(Refusal::bad(format!("Error validating instance: {text}")));
    let (id, account) = (&document.instance_id, &document.account_id);
    if outside("bound_ec2_instance_id", id) {
        return refuse(format!("instance ID {id:?} does not belong to the role {name:?}"));
    }
    if outside("bound_account_id", account) {
        return refuse(format!("account ID {account:?} does not belong to role {name:?}"));
    }
    let image = &instance.image_id;
    if outside("bound_ami_id", image) {
        return refuse(format!("AMI ID {image:?} does not belong to role {name:?}"));
    }
    for (bound, title, value) in [
        ("bound_subnet_id", "subnet ID", &instance.subnet_id),
        ("bound_vpc_id", "VPC ID", &instance.vpc_id),
    ] {
        if outside(bound, value) {
            if value.is_empty() {
                let text = format!("{title} in the instance description is nil");
                return Err(Refusal::new(500, text));
            }
            return refuse(format!(
                "{title} {value:?} does not satisfy the constraint on role {name:?}"
            ));
        }
    }
    admit_profile(role, name, &instance.profile_arn)
}

fn admit_profile(role: &Form, name: &str, arn: &str) -> Result<(), Refusal> {
    let allowed = role.list("bound_iam_instance_profile_arn");
    if allowed.is_empty() {
        return Ok(());
    }
    if arn.is_empty() {
        let text = "IAM instance profile in the instance description is nil";
        return Err(Refusal::new(500, text));
    }
    let fits = |bound: &String| match bound.strip_suffix('*') {
        Some(prefix) => arn.starts_with(prefix),
        None => arn == bound,
    };
    if allowed.iter().any(fits) {
        return Ok(());
    }
    let text = format!(
        "Error validating instance: IAM instance profile ARN {arn:?} \
         does not satisfy the constraint role {name:?}"
    );
    Err(Refusal::bad(text))
}

//! The shipped data of packaging/vault as a whole: every write is kept as it was written, and what
//! it promises holds: a node has its own name only, Vault tells a controller from a worker and one
//! cluster from another, and nobody asks without end.

use rig::aws::LaunchSpec;
use rig::aws::document::{Signer, identity_document};
use rig::setup::shipped::{self, Write, shipped};
use rig::setup::{Reply, SetupOptions, VaultHandle, configure};
use rig::vault::Readiness;
use serde_json::{Value, json};

use crate::agent::{caller, login};
use crate::bench::{Caller, Ctx, Outcome, has, is, ok, same, status};
use crate::csr::request;

fn options(ctx: &Ctx) -> SetupOptions {
    let aws = ctx.shipped_aws();
    SetupOptions::new(aws.ec2_url(), aws.signing_certificate_pem())
}

pub(crate) async fn every_write_is_kept(ctx: &Ctx) -> Outcome {
    let options = options(ctx);
    let writes = shipped::auth(&options)?.into_iter().chain(shipped(&options, ctx.accessor())?);
    let root = ctx.root().quiet();
    for write in writes {
        kept(&root, &write).await.map_err(|error| format!("{}: {error}", write.file))?;
    }
    Ok(())
}

/// What is read back has every value of the file.
async fn kept(root: &Caller, write: &Write) -> Outcome {
    if let Some(mount) = write.authority_of() {
        let name = write.body["issuer_name"].as_str().ok_or("no issuer_name")?;
        let issuer = root.read(&format!("{mount}/issuer/{name}/json")).await?;
        return same("issuer_name", issuer.data("issuer_name"), json!(name));
    }
    let read = root.read(&write.path).await?;
    ok(&read)?;
    same_fields("", &write.body, &read.json["data"])
}

fn same_fields(path: &str, wanted: &Value, got: &Value) -> Outcome {
    if let Value::Object(fields) = wanted {
        for (name, wanted) in fields {
            same_fields(&format!("{path}/{name}"), wanted, &got[name])?;
        }
        return Ok(());
    }
    same(path, &plain(got), plain(wanted))
}

/// Durations in seconds and lists without order, as Vault shows them; its addresses are lists.
fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) if text.contains(',') => {
            plain(&json!(text.split(',').collect::<Vec<_>>()))
        }
        Value::String(text) => seconds(text).map_or_else(|| json!(text.trim()), |s| json!(s)),
        Value::Array(items) => {
            let mut items: Vec<String> = items.iter().map(|item| plain(item).to_string()).collect();
            items.sort();
            json!(items)
        }
        Value::Number(number) => json!(number.as_f64().map(|number| number as i64)),
        other => other.clone(),
    }
}

fn seconds(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = [("s", 1), ("m", 60), ("h", 3_600)].into_iter().find(|(name, _)| *name == unit)?;
    Some(number.parse::<i64>().ok()? * unit.1)
}

async fn refused_names(node: &Caller, path: &str, asked: &[(&str, &str)]) -> Outcome {
    for (name, others) in asked {
        let body = json!({ "csr": request("x", &[]), "common_name": name, "alt_names": others });
        has(&node.write(path, body).await?, 400, "not allowed by this role")
            .map_err(|error| format!("{path}, {name}, {others}: {error}"))?;
    }
    Ok(())
}

const OTHER: &str = "i-0ffffffffffffffff";
const OTHER_NODE: &str = "system:node:i-0ffffffffffffffff";

pub(crate) async fn z07_no_name_but_its_own(ctx: &Ctx) -> Outcome {
    let (id, _, reply) = login(ctx, "worker", "worker").await?;
    let node = caller(ctx, &reply)?;
    let own = format!("system:node:{id}");
    let names = [OTHER_NODE, OTHER, "system:masters", "localhost", "kube-apiserver"];
    for path in ["pki/sign/kubelet-client", "pki/sign/kubelet-server"] {
        let mut asked = names.map(|name| (name, "")).to_vec();
        asked.extend([OTHER, "api.rig.test", "*.rig.test"].map(|san| (&*own, san)));
        refused_names(&node, path, &asked).await?;
    }
    // Names in the CSR are no way around: only those of the request are looked at. A SAN that is
    // no name of a host is dropped.
    let body = json!({
        "csr": request(OTHER_NODE, &[OTHER]), "common_name": own, "alt_names": OTHER_NODE,
    });
    let signed = crate::csr::said(&node.write("pki/sign/kubelet-client", body).await?)?;
    same("common name", &json!(signed.common_name), json!(own))?;
    // The request's own subject asks for `system:masters`, as all requests of these cases do.
    same("organisations", &json!(signed.organizations), json!(["system:nodes"]))?;
    same("names", &json!(signed.names), json!([]))?;
    let uri = json!({
        "csr": request(&own, &[]), "common_name": own, "uri_sans": "spiffe://example/other",
    });
    has(&node.write("pki/sign/kubelet-server", uri).await?, 400, "not allowed in this role")?;
    // What asks no role for the names, or makes the key too, is not for nodes.
    let body = json!({ "csr": request(OTHER_NODE, &[OTHER]), "common_name": own });
    for path in [
        "pki/sign-verbatim",
        "pki/sign-verbatim/kubelet-client",
        "pki/issue/kubelet-client",
        "pki/root/sign-intermediate",
        "pki/roles/kubelet-client",
    ] {
        status(&node.write(path, body.clone()).await?, 403)
            .map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

pub(crate) async fn a_controller_is_no_other_controller(ctx: &Ctx) -> Outcome {
    let (id, _, reply) = login(ctx, "controller", "controller").await?;
    let node = caller(ctx, &reply)?;
    for path in ["pki-etcd/sign/etcd-server", "pki-etcd/sign/etcd-peer"] {
        refused_names(&node, path, &[(OTHER, ""), (&id, OTHER), ("nodeagent", "")]).await?;
    }
    let asked = [("kube-apiserver", OTHER), ("kube-apiserver", "example.com")];
    refused_names(&node, "pki/sign/kube-apiserver", &asked).await
}

/// Logs an instance in at a server that `configure` has set up.
async fn log_in(ctx: &Ctx, vault: &Caller, spec: LaunchSpec, role: &str) -> Result<Reply, String> {
    let aws = ctx.shipped_aws();
    let instance = aws.instance(&aws.launch(spec)).ok_or("the instance is gone")?;
    let pkcs7 = Signer::shared().rsa2048(identity_document(&instance).as_bytes(), ctx.now());
    let body = json!({ "role": role, "pkcs7": pkcs7, "nonce": "0123456789abcdef" });
    vault.anyone().write("auth/aws/login", body).await
}

fn profile(name: &str) -> LaunchSpec {
    LaunchSpec { instance_profile: Some(name.into()), ..LaunchSpec::default() }
}

pub(crate) async fn a_role_wants_its_profile(ctx: &Ctx) -> Outcome {
    let vault = ctx.root();
    for (name, role) in [
        ("rig-worker", "controller"),
        ("rig-controller", "worker"),
        ("other-worker", "worker"),
        ("other-controller", "controller"),
        ("rig-worker-2", "worker"),
    ] {
        let reply = log_in(ctx, &vault, profile(name), role).await?;
        has(&reply, 400, &format!("does not satisfy the constraint role {role:?}"))?;
    }
    let none = LaunchSpec { instance_profile: None, ..LaunchSpec::default() };
    let reply = log_in(ctx, &vault, none, "worker").await?;
    has(&reply, 500, "IAM instance profile in the instance description is nil")
}

pub(crate) async fn a_role_wants_its_region(ctx: &Ctx) -> Outcome {
    let spec = LaunchSpec { region: "eu-west-1".into(), ..LaunchSpec::default() };
    let reply = log_in(ctx, &ctx.root(), spec, "worker").await?;
    has(&reply, 400, "does not satisfy the constraint on role \"worker\"")
}

/// A server of the case's own with the shipped data.
async fn configured(
    ctx: &Ctx,
    options: &SetupOptions,
) -> Result<(crate::bench::Own, Caller, VaultHandle), String> {
    let (own, caller) = ctx.own(Readiness::Unsealed).await?;
    let handle = own.handle();
    configure(&handle, options).await?;
    Ok((own, caller, handle))
}

pub(crate) async fn tokens_are_bound_to_the_nodes_addresses(ctx: &Ctx) -> Outcome {
    let elsewhere = SetupOptions { node_cidrs: "10.9.8.0/24".into(), ..options(ctx) };
    let (_own, vault, _) = configured(ctx, &elsewhere).await?;
    let worker = || LaunchSpec::profile("worker");
    is(&log_in(ctx, &vault, worker(), "worker").await?, 403, "permission denied")?;
    let anywhere = SetupOptions { node_cidrs: String::new(), ..options(ctx) };
    let (_own, vault, _) = configured(ctx, &anywhere).await?;
    ok(&log_in(ctx, &vault, worker(), "worker").await?)
}

pub(crate) async fn log_ins_have_a_quota(ctx: &Ctx) -> Outcome {
    let (_own, vault, _) = configured(ctx, &options(ctx)).await?;
    let quiet = vault.quiet().anyone();
    let limit = vault.quiet().read("sys/quotas/rate-limit/aws-login").await?;
    let limit = limit.data("rate").as_f64().unwrap_or(0.0) as usize;
    // A minute may end within these; then there are that many more.
    for _ in 0..2 * limit {
        let reply = quiet.write("auth/aws/login", json!({ "role": "worker" })).await?;
        if reply.status != 429 {
            continue;
        }
        has(&reply, 429, "request path \"auth/aws/login\": rate limit quota exceeded")?;
        let wait = reply.headers.get("retry-after").and_then(|text| text.parse().ok());
        if !matches!(wait, Some(1..=60)) {
            return Err(format!("Retry-After is {wait:?}"));
        }
        // One node's storm is nobody else's: other paths go on.
        return status(&vault.quiet().read("sys/seal-status").await?, 200);
    }
    Err(format!("{} log-ins were all answered", 2 * limit))
}

pub(crate) async fn two_clusters_in_one_vault_are_apart(ctx: &Ctx) -> Outcome {
    let first = options(ctx);
    let second = SetupOptions { prefix: "b-".into(), cluster: "b".into(), ..first.clone() };
    let (_own, vault, handle) = configured(ctx, &first).await?;
    let roots = configure(&handle, &second).await?.roots;
    let names: Vec<&String> = roots.keys().collect();
    same("mounts", &json!(names), json!(["b-pki", "b-pki-etcd", "b-pki-front-proxy"]))?;
    for (name, role) in [("rig-worker", "b-worker"), ("b-controller", "controller")] {
        let reply = log_in(ctx, &vault, profile(name), role).await?;
        has(&reply, 400, &format!("does not satisfy the constraint role {role:?}"))?;
    }
    let reply = log_in(ctx, &vault, profile("b-controller"), "b-controller").await?;
    let node = vault.with(reply.auth("client_token").as_str().unwrap_or(""));
    let body = json!({ "csr": request("x", &[]), "common_name": "nodeagent-bootstrap" });
    ok(&node.write("b-pki/sign/bootstrap-admin", body.clone()).await?)?;
    status(&node.write("pki/sign/bootstrap-admin", body).await?, 403)?;
    status(&node.read("b-kv-control-plane/data/b").await?, 404)?;
    status(&node.read("kv-control-plane/data/rig").await?, 403)
}

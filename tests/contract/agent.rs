//! Every call that the agent makes, on the shipped configuration: log in as what the instance is,
//! look up, renew, and have each certificate of its role signed with the names it asks for.

use rig::aws::LaunchSpec;
use rig::aws::document::{Signer, identity_document};
use rig::setup::Reply;
use serde_json::{Value, json};

use crate::bench::{Caller, Ctx, Outcome, has, is, ok, same};
use crate::csr::{request, said};

const REFUSED: &str = "1 error occurred:\n\t* permission denied\n\n";

/// One certificate of the agent's catalogue: names and addresses, and the role's part of it.
struct Wanted<'a> {
    path: &'a str,
    common_name: String,
    names: Vec<String>,
    organization: Option<&'a str>,
    server: bool,
    client: bool,
    /// The life that comes of asking for a day, in seconds.
    life: i64,
}

fn wanted<'a>(path: &'a str, common_name: &str, names: &[&str]) -> Wanted<'a> {
    Wanted {
        path,
        common_name: common_name.into(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        organization: None,
        server: false,
        client: false,
        life: 86_400,
    }
}

impl<'a> Wanted<'a> {
    fn server(self) -> Wanted<'a> {
        Wanted { server: true, ..self }
    }

    fn client(self) -> Wanted<'a> {
        Wanted { client: true, ..self }
    }

    fn of(self, organization: &'a str) -> Wanted<'a> {
        Wanted { organization: Some(organization), ..self }
    }
}

fn worker<'a>(id: &str, ip: &str) -> Vec<Wanted<'a>> {
    let node = format!("system:node:{id}");
    vec![
        wanted("pki/sign/kubelet-client", &node, &[]).client().of("system:nodes"),
        wanted("pki/sign/kubelet-server", &node, &[id, ip, "127.0.0.1"])
            .server()
            .of("system:nodes"),
    ]
}

fn controller<'a>(id: &str, ip: &str) -> Vec<Wanted<'a>> {
    let api = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        id,
        "api.rig.test",
        "127.0.0.1",
        ip,
        "10.3.0.1",
    ];
    let etcd = [id, ip, "127.0.0.1", "localhost"];
    let mut all = worker(id, ip);
    all.extend([
        wanted("pki/sign/kube-apiserver", "kube-apiserver", &api).server(),
        wanted("pki/sign/apiserver-kubelet-client", "kube-apiserver-kubelet-client", &[]).client(),
        Wanted { life: 600, ..super_user() },
        wanted("pki/sign/controller-manager", "system:kube-controller-manager", &["127.0.0.1"])
            .server()
            .client(),
        wanted("pki/sign/scheduler", "system:kube-scheduler", &["127.0.0.1"]).server().client(),
        wanted("pki-etcd/sign/etcd-server", id, &etcd).server().client(),
        wanted("pki-etcd/sign/etcd-peer", id, &etcd).server().client(),
        wanted("pki-etcd/sign/apiserver-etcd-client", "kube-apiserver-etcd-client", &[]).client(),
        wanted("pki-etcd/sign/etcd-client", "nodeagent", &[]).client(),
        wanted("pki-front-proxy/sign/front-proxy-client", "front-proxy-client", &[]).client(),
    ]);
    all
}

/// What raises a control plane; the role gives it ten minutes, whatever is asked for.
fn super_user<'a>() -> Wanted<'a> {
    wanted("pki/sign/bootstrap-admin", "nodeagent-bootstrap", &[]).client().of("system:masters")
}

pub(crate) async fn login(
    ctx: &Ctx,
    profile: &str,
    role: &str,
) -> Result<(String, String, Reply), String> {
    let aws = ctx.shipped_aws();
    let id = aws.launch(LaunchSpec::profile(profile));
    let instance = aws.instance(&id).ok_or("the instance is gone")?;
    let pkcs7 = Signer::shared().rsa2048(identity_document(&instance).as_bytes(), ctx.now());
    let body = json!({ "role": role, "pkcs7": pkcs7, "nonce": "0123456789abcdef" });
    let reply = ctx.anyone().write("auth/aws/login", body).await?;
    Ok((id, instance.private_ip.to_string(), reply))
}

pub(crate) fn caller(ctx: &Ctx, login: &Reply) -> Result<Caller, String> {
    ok(login)?;
    Ok(ctx.root().with(login.auth("client_token").as_str().unwrap_or("")))
}

fn ask(wanted: &Wanted<'_>) -> Value {
    let names: Vec<&str> = wanted.names.iter().map(String::as_str).collect();
    let (ips, dns): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| name.parse::<std::net::IpAddr>().is_ok());
    json!({
        "csr": request(&wanted.common_name, &names),
        "common_name": wanted.common_name,
        "alt_names": dns.join(","),
        "ip_sans": ips.join(","),
        "ttl": "24h",
        "exclude_cn_from_sans": true,
    })
}

async fn all_signed(node: &Caller, all: &[Wanted<'_>]) -> Outcome {
    for wanted in all {
        let reply = node.write(wanted.path, ask(wanted)).await?;
        ok(&reply).map_err(|error| format!("{}: {error}", wanted.path))?;
        let said = said(&reply)?;
        let mut names = wanted.names.clone();
        names.sort();
        let what = |part: &str| format!("{} of {}", part, wanted.path);
        same(&what("names"), &json!(said.names), json!(names))?;
        same(&what("common name"), &json!(said.common_name), json!(wanted.common_name))?;
        let organization: Vec<&str> = wanted.organization.into_iter().collect();
        same(&what("organization"), &json!(said.organizations), json!(organization))?;
        let usages = json!([said.server, said.client]);
        same(&what("usages"), &usages, json!([wanted.server, wanted.client]))?;
        let life = said.not_after - said.not_before;
        // Vault dates certificates back by 30 s.
        if (life - wanted.life - 30).abs() > 2 {
            return Err(format!("{} lives {life} s", wanted.path));
        }
    }
    Ok(())
}

pub(crate) async fn worker_gets_its_certificates(ctx: &Ctx) -> Outcome {
    let (id, ip, reply) = login(ctx, "worker", "worker").await?;
    let node = caller(ctx, &reply)?;
    ok(&node.read("auth/token/lookup-self").await?)?;
    all_signed(&node, &worker(&id, &ip)).await?;
    ok(&node.write("auth/token/renew-self", json!({})).await?)
}

pub(crate) async fn controller_gets_its_certificates(ctx: &Ctx) -> Outcome {
    let (id, ip, reply) = login(ctx, "controller", "controller").await?;
    let node = caller(ctx, &reply)?;
    all_signed(&node, &controller(&id, &ip)).await
}

pub(crate) async fn worker_is_no_controller(ctx: &Ctx) -> Outcome {
    let (id, ip, reply) = login(ctx, "worker", "worker").await?;
    let node = caller(ctx, &reply)?;
    for wanted in controller(&id, &ip).iter().skip(2) {
        is(&node.write(wanted.path, ask(wanted)).await?, 403, REFUSED)?;
    }
    Ok(())
}

pub(crate) async fn worker_role_wants_its_profile(ctx: &Ctx) -> Outcome {
    let (_, _, reply) = login(ctx, "worker", "controller").await?;
    has(&reply, 400, "does not satisfy the constraint role \"controller\"")
}

pub(crate) async fn etcd_and_front_proxy_have_their_own_roots(ctx: &Ctx) -> Outcome {
    let roots = ctx.roots();
    let names: Vec<&String> = roots.keys().collect();
    same("mounts", &json!(names), json!(["pki", "pki-etcd", "pki-front-proxy"]))?;
    for (mount, pem) in roots {
        let chain = ctx.anyone().read(&format!("{mount}/ca_chain")).await?;
        same(mount, &json!(chain.text.trim()), json!(pem.trim()))?;
    }
    if roots["pki"] == roots["pki-etcd"] { Err("one root for two".into()) } else { Ok(()) }
}

pub(crate) async fn shipped_lease(ctx: &Ctx) -> Outcome {
    let (_, _, reply) = login(ctx, "worker", "worker").await?;
    same("lease", reply.auth("lease_duration"), json!(3_600))?;
    same("policies", reply.auth("policies"), json!(["default", "worker"]))?;
    same("renewable", reply.auth("renewable"), json!(true))
}

pub(crate) async fn masters_cannot_be_asked_for(ctx: &Ctx) -> Outcome {
    let (_, _, reply) = login(ctx, "controller", "controller").await?;
    let node = caller(ctx, &reply)?;
    let mut wanted = wanted("pki/sign/kubelet-client", "system:masters", &[]);
    let text = "common name system:masters not allowed by this role";
    is(&node.write(wanted.path, ask(&wanted)).await?, 400, text)?;
    wanted.common_name = "system:node:i-0ffffffffffffffff".into();
    has(&node.write(wanted.path, ask(&wanted)).await?, 400, "not allowed by this role")
}

pub(crate) async fn super_user_has_one_name(ctx: &Ctx) -> Outcome {
    let (_, _, reply) = login(ctx, "controller", "controller").await?;
    let node = caller(ctx, &reply)?;
    let wanted = Wanted { common_name: "kubernetes-admin".into(), ..super_user() };
    let text = "common name kubernetes-admin not allowed by this role";
    is(&node.write(wanted.path, ask(&wanted)).await?, 400, text)
}

pub(crate) async fn shared_secrets_are_written_once(ctx: &Ctx) -> Outcome {
    let (_, _, reply) = login(ctx, "controller", "controller").await?;
    let first = caller(ctx, &reply)?;
    let path = "kv-control-plane/data/rig";
    is(&first.read(path).await?, 404, "")?;
    ok(&first.write(path, json!({ "options": { "cas": 0 }, "data": { "key": "1" } })).await?)?;
    let (_, _, reply) = login(ctx, "controller", "controller").await?;
    let second = caller(ctx, &reply)?;
    for cas in [0, 1] {
        let body = json!({ "options": { "cas": cas }, "data": { "key": "2" } });
        is(&second.write(path, body).await?, 403, REFUSED)?;
    }
    is(&second.delete(path).await?, 403, REFUSED)?;
    is(&second.write("kv-control-plane/data/other", json!({ "data": {} })).await?, 403, REFUSED)?;
    let kept = second.read(path).await?;
    same("what is shared", &kept.data("data")["key"], json!("1"))?;
    let (_, _, reply) = login(ctx, "worker", "worker").await?;
    let worker = caller(ctx, &reply)?;
    is(&worker.read(path).await?, 403, REFUSED)
}

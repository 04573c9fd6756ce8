//! What the programs of the control plane read beside their flags: kubeconfigs, the policies of
//! the API server, and the stable copies of the authorities.

use serde_json::{Value, json};

use super::{API_PORT, File, Input, MARK, document, in_directory};
use crate::config::plane::Component;
use crate::error::{Code, Error, Result};

/// The first version with `v1` of the authentication configuration.
const AUTHENTICATION_V1: (u16, u16) = (1, 34);

/// What may be asked without saying who one is: health, for probes and load balancers.
const ANONYMOUS: [&str; 3] = ["/livez", "/readyz", "/healthz"];

/// `controller-manager.conf`, `scheduler.conf`, `audit-policy.yaml`, `authentication.yaml` and
/// `trust/*.pem`.
pub fn plane(input: &Input<'_>) -> Result<Vec<File>> {
    input.control_plane()?;
    let server = format!("https://127.0.0.1:{API_PORT}");
    let manager = (Component::ControllerManager.name(), "controller-manager");
    let scheduler = (Component::Scheduler.name(), "scheduler");
    let mut files = vec![
        kubeconfig(input, "controller-manager.conf", &server, manager)?,
        kubeconfig(input, "scheduler.conf", &server, scheduler)?,
        File::ours("audit-policy.yaml", audit(input)?),
        File::ours("authentication.yaml", document(&authentication(input))?),
    ];
    let bundles = input.bundles;
    for (name, bundle) in [
        ("cluster", &bundles.cluster),
        ("etcd", &bundles.etcd),
        ("front-proxy", &bundles.front_proxy),
    ] {
        if !bundle.contains("-----BEGIN CERTIFICATE-----") {
            let text = format!("the bundle of [pki.{name}] holds no certificate");
            return Err(Error::new(Code::CertificateBad, text)
                .advise(format!("put the authority's PEM where [pki.{name}] ca says")));
        }
        files.push(File::ours(&format!("trust/{name}.pem"), bundle.clone()));
    }
    Ok(files)
}

/// A kubeconfig that names the published files of a certificate, given with its consumer.
pub(super) fn kubeconfig(
    input: &Input<'_>,
    file: &str,
    server: &str,
    (consumer, certificate): (&str, &str),
) -> Result<File> {
    let published = |name| input.published(consumer, certificate, name);
    let cluster = &input.config.cluster;
    let value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": cluster,
            "cluster": { "server": server, "certificate-authority": published("ca.pem")? },
        }],
        "users": [{
            "name": consumer,
            "user": {
                "client-certificate": published("cert.pem")?,
                "client-key": published("key.pem")?,
            },
        }],
        "contexts": [{
            "name": "nodeagent",
            "context": { "cluster": cluster, "user": consumer },
        }],
        "current-context": "nodeagent",
    });
    Ok(File::ours(file, document(&value)?))
}

fn authentication(input: &Input<'_>) -> Value {
    let stable = input.config.kubernetes.is_some_and(|version| version >= AUTHENTICATION_V1);
    let version = if stable { "v1" } else { "v1beta1" };
    let conditions: Vec<_> = ANONYMOUS.iter().map(|path| json!({ "path": path })).collect();
    json!({
        "apiVersion": format!("apiserver.config.k8s.io/{version}"),
        "kind": "AuthenticationConfiguration",
        "anonymous": { "enabled": true, "conditions": conditions },
    })
}

/// The operator's own policy as it was written, or ours: who did what to what, and never what was
/// in it, because a secret in a log is one no longer.
fn audit(input: &Input<'_>) -> Result<String> {
    if let Some(text) = input.audit_policy {
        return Ok(format!("{MARK}\n{}\n", text.trim_end()));
    }
    if let Some(path) = &input.config.control_plane.as_ref().and_then(|it| it.audit_policy.clone())
    {
        let error = Error::new(Code::Config, "the audit policy was not read");
        return Err(error.at(path.display()));
    }
    document(&json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        // The answer's stage says all that the request's arrival would.
        "omitStages": ["RequestReceived"],
        "omitManagedFields": true,
        "rules": [
            // Health and discovery: asked all the time, and they tell nothing.
            {
                "level": "None",
                "nonResourceURLs": [
                    "/healthz*", "/livez*", "/readyz*", "/version", "/openapi/*", "/api*",
                    "/metrics",
                ],
            },
            // The heartbeats of nodes and of elections, every few seconds each.
            {
                "level": "None",
                "users": ["system:kube-controller-manager", "system:kube-scheduler"],
                "resources": [{ "group": "coordination.k8s.io", "resources": ["leases"] }],
            },
            {
                "level": "None",
                "userGroups": ["system:nodes"],
                "resources": [
                    { "group": "coordination.k8s.io", "resources": ["leases"] },
                    { "group": "", "resources": ["nodes/status", "pods/status"] },
                ],
            },
            // Events are kept in the API themselves.
            {
                "level": "None",
                "resources": [
                    { "group": "", "resources": ["events"] },
                    { "group": "events.k8s.io", "resources": ["events"] },
                ],
            },
            // What components read and watch is their work; what they change is told below.
            {
                "level": "None",
                "users": [
                    "system:kube-controller-manager", "system:kube-scheduler",
                    "system:kube-proxy", "system:apiserver",
                ],
                "verbs": ["get", "list", "watch"],
            },
            { "level": "Metadata" },
        ],
    }))
}

/// The path of a stable copy of an authority.
pub(super) fn trust(name: &str) -> String {
    in_directory(&format!("trust/{name}.pem"))
}

//! kube-proxy, for clusters whose network plugin does not take its place. The agent does not apply
//! it: `nodeagent render` prints it for the directory of assets, with the cluster's own ranges.

use serde_json::{Value, json};

use super::yaml::plain;
use super::{File, Input};
use crate::error::Result;

const NAME: &str = "kube-proxy";
const NAMESPACE: &str = "kube-system";
/// Where its configuration is mounted.
const CONFIGURED: &str = "/etc/kube-proxy";
/// Where a pod finds its own account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The objects of kube-proxy, in the order in which they need each other.
pub fn kube_proxy(input: &Input<'_>) -> Result<Vec<Value>> {
    Ok(vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata() }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "nodeagent:kube-proxy" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "system:node-proxier",
            },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }],
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(),
            "data": {
                "config.yaml": plain(&configuration(input)?)?,
                "kubeconfig.yaml": plain(&kubeconfig(input)?)?,
            },
        }),
        daemon_set(input)?,
    ])
}

/// The same as one file of assets, for a person to keep.
pub(super) fn asset(input: &Input<'_>) -> Result<File> {
    let documents: Result<Vec<String>> = kube_proxy(input)?.iter().map(plain).collect();
    let text = "# Applied where it is put into the directory of control_plane.assets; leave it \
                out where a\n# network plugin takes the place of kube-proxy.\n";
    Ok(File::open("assets/kube-proxy.yaml", format!("{text}{}", documents?.join("---\n"))))
}

fn metadata() -> Value {
    json!({ "name": NAME, "namespace": NAMESPACE, "labels": { "app": NAME } })
}

fn configuration(input: &Input<'_>) -> Result<Value> {
    Ok(json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": format!("{CONFIGURED}/kubeconfig.yaml") },
        // What does not come from pods is masqueraded, so that answers find their way back.
        "clusterCIDR": input.cluster()?.pod_cidr.to_string(),
        "mode": "iptables",
        "metricsBindAddress": "127.0.0.1:10249",
    }))
}

/// It cannot reach the API by the service that it is itself to make, so it goes by the address
/// that all nodes go by.
fn kubeconfig(input: &Input<'_>) -> Result<Value> {
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "cluster",
            "cluster": {
                "server": input.cluster()?.api_server,
                "certificate-authority": format!("{ACCOUNT}/ca.crt"),
            },
        }],
        "users": [{ "name": NAME, "user": { "tokenFile": format!("{ACCOUNT}/token") } }],
        "contexts": [{ "name": "nodeagent", "context": { "cluster": "cluster", "user": NAME } }],
        "current-context": "nodeagent",
    }))
}

fn daemon_set(input: &Input<'_>) -> Result<Value> {
    let container = json!({
        "name": NAME,
        "image": input.control_plane()?.image.replace("{component}", NAME),
        "imagePullPolicy": "IfNotPresent",
        "command": [
            NAME,
            format!("--config={CONFIGURED}/config.yaml"),
            "--hostname-override=$(NODE_NAME)",
        ],
        "env": [{
            "name": "NODE_NAME",
            "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } },
        }],
        "resources": { "requests": { "cpu": "50m", "memory": "64Mi" } },
        // It writes the kernel's tables and settings.
        "securityContext": { "privileged": true },
        "volumeMounts": [
            { "name": "configuration", "mountPath": CONFIGURED, "readOnly": true },
            { "name": "modules", "mountPath": "/lib/modules", "readOnly": true },
            { "name": "xtables-lock", "mountPath": "/run/xtables.lock" },
        ],
    });
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(),
        "spec": {
            "selector": { "matchLabels": { "app": NAME } },
            "template": {
                "metadata": { "labels": { "app": NAME } },
                "spec": {
                    "containers": [container],
                    "hostNetwork": true,
                    "nodeSelector": { "kubernetes.io/os": "linux" },
                    "priorityClassName": "system-node-critical",
                    "serviceAccountName": NAME,
                    "tolerations": [{ "operator": "Exists" }],
                    "volumes": [
                        { "name": "configuration", "configMap": { "name": NAME } },
                        {
                            "name": "modules",
                            "hostPath": { "path": "/lib/modules", "type": "DirectoryOrCreate" },
                        },
                        {
                            "name": "xtables-lock",
                            "hostPath": { "path": "/run/xtables.lock", "type": "FileOrCreate" },
                        },
                    ],
                },
            },
        },
    }))
}

//! The objects that the agent's own arrangement needs in every cluster.

use serde_json::{Value, json};

use super::Input;
use crate::error::Result;

/// Objects to apply before anything of the site.
///
/// The API server's certificate for kubelets is no super-user here, so a kubelet has to be told
/// that `logs`, `exec` and metrics may come from it: the role is Kubernetes' own.
pub fn builtin_assets(input: &Input<'_>) -> Result<Vec<Value>> {
    let user = input.common_name("kube-apiserver", "apiserver-kubelet-client")?;
    Ok(vec![json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": "nodeagent:apiserver-kubelet-client" },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:kubelet-api-admin",
        },
        "subjects": [{
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "User",
            "name": user,
        }],
    })])
}

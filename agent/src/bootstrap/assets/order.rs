//! What is applied before what: a fixed table, so that the same set always goes the same way and
//! an object finds there what it needs. It is about speed and quiet only: an object that comes
//! too early is taken by a later pass.

use super::{Asset, group};

/// Kinds by the step they belong to. Unlisted kinds are custom resources or rare: just before
/// the hooks.
const STEPS: &[&[&str]] = &[
    // Everything else may live in one.
    &["Namespace"],
    // Quotas bind only what comes after them.
    &["ResourceQuota", "LimitRange"],
    // The API needs a moment to serve a new kind, which the rest of the pass gives it.
    &["CustomResourceDefinition"],
    // Named by pods, which are refused without it.
    &["PriorityClass", "RuntimeClass", "StorageClass", "IngressClass"],
    // Who the workloads are: pods are refused without their account.
    &["ServiceAccount"],
    // What a role grants, before who has it: a binding to a missing role grants nothing.
    &["ClusterRole", "Role"],
    &["ClusterRoleBinding", "RoleBinding"],
    // What pods mount: they wait with a back-off for what is missing.
    &["ConfigMap", "Secret"],
    &["PersistentVolume", "PersistentVolumeClaim"],
    // Pods learn of services when they start.
    &["Service", "Endpoints", "EndpointSlice"],
    // A pod that runs before its policy is open to all.
    &["NetworkPolicy"],
    // The network, the proxy and DNS are DaemonSets mostly, and others need them.
    &["DaemonSet"],
    &["Deployment", "StatefulSet", "ReplicaSet", "ReplicationController", "Pod"],
    &["Job", "CronJob"],
    &["HorizontalPodAutoscaler", "PodDisruptionBudget", "Ingress"],
];

/// What the API asks on every call: put up before its server runs it would refuse the rest.
const HOOKS: &[&str] = &[
    "APIService",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Sorts into the order of the table; what it does not tell apart stays in its order.
pub(super) fn sort(objects: &mut [Asset]) {
    objects.sort_by_key(|asset| step(&asset.api_version, &asset.kind));
}

/// A custom resource may be called like a kind of Kubernetes (`Service` of Knative): the groups
/// of Kubernetes have no dot or end with its domain.
fn step(api_version: &str, kind: &str) -> usize {
    let group = group(api_version);
    let own = !group.contains('.') || group.ends_with(".k8s.io");
    let custom = STEPS.len();
    if own && HOOKS.contains(&kind) {
        return custom + 1;
    }
    let listed = STEPS.iter().position(|kinds| kinds.contains(&kind));
    listed.filter(|_| own).unwrap_or(custom)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn asset(api_version: &str, kind: &str) -> Asset {
        Asset {
            source: String::new(),
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: None,
            name: "x".into(),
            object: Value::Null,
        }
    }

    #[test]
    fn what_is_needed_comes_first_and_what_hinders_last() {
        let wanted = [
            ("v1", "Namespace"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            ("scheduling.k8s.io/v1", "PriorityClass"),
            ("v1", "ServiceAccount"),
            ("rbac.authorization.k8s.io/v1", "ClusterRole"),
            ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
            ("v1", "ConfigMap"),
            ("v1", "Service"),
            ("networking.k8s.io/v1", "NetworkPolicy"),
            ("apps/v1", "DaemonSet"),
            ("apps/v1", "Deployment"),
            ("batch/v1", "Job"),
            ("serving.knative.dev/v1", "Service"),
            ("crd.projectcalico.org/v1", "IPPool"),
            ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
        ];
        let mut objects: Vec<_> = wanted.iter().rev().map(|(v, k)| asset(v, k)).collect();
        sort(&mut objects);
        // The two custom resources are not told apart: they stay as they came, reversed.
        let mut wanted = wanted;
        wanted.swap(12, 13);
        let found: Vec<_> =
            objects.iter().map(|a| (a.api_version.as_str(), a.kind.as_str())).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn objects_of_one_step_keep_the_order_of_their_source() {
        let mut objects = [asset("v1", "Secret"), asset("v1", "ConfigMap"), asset("v1", "Secret")];
        objects[0].name = "first".into();
        let before = objects.clone();
        sort(&mut objects);
        assert_eq!(objects, before);
    }
}

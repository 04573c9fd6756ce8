//! What no override may undo: who gets in, what is encrypted, who signs, and where the agent and
//! its probes look. Each row says why, so that the person who is refused reads the reason.

use serde_json::Value;

use super::Component;
use super::Component::{Apiserver, ControllerManager, Scheduler};

/// A flag, the values that keep its guarantee, and what is guaranteed.
struct Guard {
    components: &'static [Component],
    flag: &'static str,
    keeps: fn(&str) -> bool,
    why: &'static str,
}

const API: &[Component] = &[Apiserver];
const MANAGER: &[Component] = &[ControllerManager];
const CLIENTS: &[Component] = &[ControllerManager, Scheduler];
const ALL: &[Component] = &Component::ALL;

const fn guard(
    components: &'static [Component],
    flag: &'static str,
    keeps: fn(&str) -> bool,
    why: &'static str,
) -> Guard {
    Guard { components, flag, keeps, why }
}

const AUTHENTICATION: &str = "who may come without a certificate stands in the agent's own \
    authentication.yaml, which opens the health checks and nothing else; take it out";
const ADMISSION: &str = "NodeRestriction has to stay on; list plugins in control_plane.admission";

const SERVED: &str = "by its serial the agent proves what is served after a rotation; change the \
    [[certificate]] instead";

const GUARDS: &[Guard] = &[
    guard(API, "anonymous-auth", never, AUTHENTICATION),
    guard(API, "authentication-config", never, AUTHENTICATION),
    guard(
        API,
        "authorization-mode",
        node_and_rbac,
        "it has to hold Node and RBAC and not AlwaysAllow: without them every node and pod may do \
         everything",
    ),
    guard(
        API,
        "authorization-config",
        never,
        "it takes the place of authorization-mode, which has to hold Node and RBAC; take it out",
    ),
    guard(
        API,
        "token-auth-file",
        never,
        "static tokens never end and are not rotated; have Vault sign a client certificate",
    ),
    guard(
        API,
        "service-account-lookup",
        is_true,
        "tokens of accounts that were deleted would go on working; take it out",
    ),
    guard(
        API,
        "encryption-provider-config",
        never,
        "all controllers have to encrypt with the same keys, which the agent keeps; take it out",
    ),
    guard(API, "enable-admission-plugins", never, ADMISSION),
    guard(API, "admission-control", never, ADMISSION),
    guard(API, "disable-admission-plugins", no_node_restriction, ADMISSION),
    guard(
        API,
        "etcd-servers",
        all_https,
        "etcd takes TLS with client certificates only; write https:// URLs",
    ),
    guard(
        ALL,
        "secure-port",
        never,
        "kubeconfigs and health checks go by 6443, 10257 and 10259; take it out",
    ),
    guard(ALL, "tls-cert-file", never, SERVED),
    guard(ALL, "tls-private-key-file", never, SERVED),
    guard(
        ALL,
        "tls-min-version",
        modern_tls,
        "TLS below 1.2 is broken; write VersionTLS12 or VersionTLS13",
    ),
    guard(
        ALL,
        "tls-cipher-suites",
        strong_suites,
        "suites with RC4 or 3DES or without forward secrecy are broken; take them out",
    ),
    guard(
        ALL,
        "feature-gates",
        never,
        "all components have to agree on them; write them into control_plane.feature_gates",
    ),
    guard(
        &[Apiserver, ControllerManager],
        "service-cluster-ip-range",
        never,
        "certificates go by it too; write it into cluster.service_cidr",
    ),
    guard(MANAGER, "cluster-cidr", never, "write it into cluster.pod_cidr"),
    guard(
        MANAGER,
        "use-service-account-credentials",
        is_true,
        "every controller would have the rights of all of them; take it out",
    ),
    guard(
        CLIENTS,
        "leader-elect",
        is_true,
        "two controllers would act at the same time; take it out",
    ),
    guard(
        CLIENTS,
        "authorization-always-allow-paths",
        named_paths,
        "everybody could ask for everything; name the paths, like /healthz,/readyz,/livez",
    ),
    guard(
        CLIENTS,
        "master",
        never,
        "an address without a kubeconfig has no certificate to go with it; take it out",
    ),
    guard(ALL, "help", never, "the component would print it and end; take it out"),
    guard(ALL, "version", never, "the component would print it and end; take it out"),
    guard(
        &[Scheduler],
        "write-config-to",
        never,
        "the component would write it and end; take it out",
    ),
];

/// Flags that are rendered and may not be left out, with what would happen.
const KEPT: &[(Component, &str, &str)] = &[
    (Apiserver, "authorization-mode", "everybody would be allowed everything"),
    (Apiserver, "authentication-config", "anonymous requests would be taken everywhere"),
    (Apiserver, "client-ca-file", "no client certificate would be taken"),
    (Apiserver, "enable-admission-plugins", "NodeRestriction would be off"),
    (Apiserver, "encryption-provider-config", "secrets would lie in etcd in clear"),
    (Apiserver, "etcd-cafile", "a foreign etcd would be believed"),
    (Apiserver, "etcd-certfile", "etcd takes no one without a certificate"),
    (Apiserver, "etcd-keyfile", "etcd takes no one without a certificate"),
    (Apiserver, "etcd-servers", "there would be no store"),
    (Apiserver, "kubelet-certificate-authority", "a foreign kubelet would be believed"),
    (Apiserver, "service-account-issuer", "it does not start without"),
    (Apiserver, "service-account-key-file", "each controller would verify with a key of its own"),
    (Apiserver, "service-account-signing-key-file", "it does not start without"),
    (Apiserver, "service-cluster-ip-range", "certificates go by the range"),
    (Apiserver, "tls-cert-file", "it would sign a certificate for itself"),
    (Apiserver, "tls-private-key-file", "it would sign a certificate for itself"),
    (ControllerManager, "kubeconfig", "it would find no API"),
    (ControllerManager, "root-ca-file", "pods could not verify the API"),
    (ControllerManager, "service-account-private-key-file", "pods would get no tokens"),
    (
        ControllerManager,
        "use-service-account-credentials",
        "every controller would have the rights of all of them",
    ),
    (ControllerManager, "tls-cert-file", "its health could not be told from another program's"),
    (ControllerManager, "tls-private-key-file", "the certificate is of no use without"),
    (Scheduler, "kubeconfig", "it would find no API"),
    (Scheduler, "tls-cert-file", "its health could not be told from another program's"),
    (Scheduler, "tls-private-key-file", "the certificate is of no use without"),
];

/// Why a flag may not have a value, and what to do.
pub fn override_fault(component: Component, flag: &str, value: &str) -> Option<String> {
    if flag.starts_with("cluster-signing-") && flag.ends_with("-file") {
        return Some(refusal(flag, "no authority's key is on a node: Vault signs; take it out"));
    }
    let rows = GUARDS.iter().filter(|row| row.flag == flag && row.components.contains(&component));
    rows.filter(|row| !(row.keeps)(value)).map(|row| refusal(flag, row.why)).next()
}

/// Why a rendered flag may not be left out.
pub fn omission_fault(component: Component, flag: &str) -> Option<String> {
    let row = KEPT.iter().find(|(of, name, _)| *of == component && *name == flag);
    row.map(|(_, _, why)| format!("`{flag}` may not be left out: {why}; take it off the list"))
}

fn refusal(flag: &str, why: &str) -> String {
    format!("`{flag}` is not free: {why}")
}

fn never(_: &str) -> bool {
    false
}

fn is_true(value: &str) -> bool {
    value == "true"
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

fn node_and_rbac(value: &str) -> bool {
    let has = |mode| words(value).any(|word| word == mode);
    has("Node") && has("RBAC") && !has("AlwaysAllow")
}

fn no_node_restriction(value: &str) -> bool {
    !words(value).any(|word| word == "NodeRestriction")
}

fn all_https(value: &str) -> bool {
    words(value).all(|url| url.starts_with("https://"))
}

fn modern_tls(value: &str) -> bool {
    matches!(value, "VersionTLS12" | "VersionTLS13")
}

fn strong_suites(value: &str) -> bool {
    words(value).all(|suite| {
        !suite.contains("RC4") && !suite.contains("3DES") && !suite.starts_with("TLS_RSA_")
    })
}

/// A path is taken with all below it where it ends in `*`.
fn named_paths(value: &str) -> bool {
    words(value).all(|path| path.len() > 1 && path.starts_with('/') && path != "/*")
}

/// What is guaranteed of the kubelet's configuration: where, the values that keep it, and why.
type KubeletGuard = (&'static [&'static str], fn(&Value) -> bool, &'static str);

const KUBELET: &[KubeletGuard] = &[
    (&["apiVersion"], nothing, "the agent writes it; take it out"),
    (&["kind"], nothing, "the agent writes it; take it out"),
    (
        &["staticPodPath"],
        nothing,
        "the agent puts manifests there; write it into control_plane.manifests",
    ),
    (
        &["authentication", "anonymous", "enabled"],
        |value| value == false,
        "whoever reaches the node could run commands in its pods; take it out",
    ),
    (
        &["authorization", "mode"],
        |value| value == "Webhook",
        "the API has to decide who may reach into pods; take it out",
    ),
    (&["readOnlyPort"], |value| value == 0, "it would answer everybody without TLS; take it out"),
    (
        &["rotateCertificates"],
        |value| value == false,
        "the agent rotates them, and no signer answers the kubelet's requests; take it out",
    ),
    (
        &["serverTLSBootstrap"],
        |value| value == false,
        "the agent issues them, and no signer answers the kubelet's requests; take it out",
    ),
];

fn nothing(_: &Value) -> bool {
    false
}

/// What an overlay of the kubelet's configuration would undo: the key, and why it may not.
pub fn kubelet_faults(overlay: &serde_json::Map<String, Value>) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    for (path, keeps, why) in KUBELET {
        let (first, rest) = (path[0], &path[1..]);
        let value = overlay.get(first);
        let value = rest.iter().fold(value, |value, key| value.and_then(|value| value.get(key)));
        if value.is_some_and(|value| !keeps(value)) {
            let key = path.join(".");
            let fault = refusal(&key, why);
            faults.push((key, fault));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::flags::known_flags;
    use super::*;

    #[test]
    fn every_row_names_a_flag_that_there_is() {
        for row in GUARDS {
            for component in row.components {
                assert!(known_flags(*component).contains(&row.flag), "{component} {}", row.flag);
            }
        }
        for (component, flag, _) in KEPT {
            assert!(known_flags(*component).contains(flag), "{component} {flag}");
        }
    }

    #[test]
    fn values_that_keep_a_guarantee_are_taken() {
        for (component, flag, value) in [
            (Apiserver, "authorization-mode", "Node,RBAC,Webhook"),
            (Apiserver, "disable-admission-plugins", "PodSecurity"),
            (Apiserver, "etcd-servers", "https://a:2379,https://b:2379"),
            (Apiserver, "tls-min-version", "VersionTLS13"),
            (Apiserver, "tls-cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            (Apiserver, "profiling", "true"),
            (ControllerManager, "leader-elect", "true"),
            (ControllerManager, "cluster-signing-duration", "1h"),
            (Scheduler, "authorization-always-allow-paths", "/healthz,/metrics"),
        ] {
            assert_eq!(override_fault(component, flag, value), None, "{flag}={value}");
        }
    }

    #[test]
    fn z19_values_that_would_undo_one_are_refused_with_the_reason() {
        for (component, flag, value, why) in [
            (Apiserver, "anonymous-auth", "true", "opens the health checks and nothing else"),
            (Apiserver, "authentication-config", "/x.yaml", "authentication.yaml"),
            (Apiserver, "authorization-mode", "RBAC", "it has to hold Node and RBAC"),
            (Apiserver, "authorization-mode", "Node,RBAC,AlwaysAllow", "not AlwaysAllow"),
            (Apiserver, "token-auth-file", "/x", "static tokens never end"),
            (Apiserver, "disable-admission-plugins", "A, NodeRestriction", "has to stay on"),
            (Apiserver, "etcd-servers", "https://a:2379,http://b:2379", "takes TLS"),
            (Apiserver, "tls-min-version", "VersionTLS10", "below 1.2"),
            (Apiserver, "tls-cipher-suites", "TLS_RSA_WITH_AES_128_CBC_SHA", "forward secrecy"),
            (Apiserver, "secure-port", "443", "6443"),
            (Scheduler, "tls-cert-file", "/x.pem", "the agent proves what is served"),
            (ControllerManager, "cluster-signing-key-file", "/ca.key", "Vault signs"),
            (ControllerManager, "cluster-signing-kubelet-client-key-file", "/k", "Vault signs"),
            (ControllerManager, "leader-elect", "false", "at the same time"),
            (Scheduler, "leader-elect", "0", "at the same time"),
            (Scheduler, "authorization-always-allow-paths", "/*", "everybody"),
        ] {
            let found = override_fault(component, flag, value).unwrap_or_default();
            assert!(found.contains(why), "{flag}={value}: {found}");
        }
        assert!(omission_fault(Apiserver, "authorization-mode").is_some());
        assert_eq!(omission_fault(Apiserver, "profiling"), None);
    }

    #[test]
    fn an_overlay_of_the_kubelet_keeps_its_doors_shut() {
        let faults = |overlay: Value| kubelet_faults(overlay.as_object().unwrap());
        let harmless = serde_json::json!({
            "maxPods": 50, "readOnlyPort": 0,
            "authentication": { "anonymous": { "enabled": false } },
        });
        assert_eq!(faults(harmless), []);
        for (overlay, key) in [
            (serde_json::json!({ "kind": "Pod" }), "kind"),
            (serde_json::json!({ "readOnlyPort": 10255 }), "readOnlyPort"),
            (
                serde_json::json!({ "authorization": { "mode": "AlwaysAllow" } }),
                "authorization.mode",
            ),
            (
                serde_json::json!({ "authentication": { "anonymous": { "enabled": true } } }),
                "authentication.anonymous.enabled",
            ),
        ] {
            let found = faults(overlay);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, key);
        }
    }
}

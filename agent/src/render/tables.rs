//! The flags of each component: name, value, reason. What is not here has a default that is right.

use super::flags::Flag;
use super::plane::trust;
use super::{API_PORT, Input, Place, in_directory};
use crate::config::plane::{Component, Style};
use crate::error::{Code, Error, Result};

/// The node CIDR mask that the controller-manager has by default.
const NODE_MASK: u8 = 24;

/// The variable in which a DaemonSet's pod finds the address of its node.
pub(super) const NODE_IP: &str = "NODE_IP";

type Row = (&'static str, String, &'static str);

/// The flags of a component, in the order of the command line. Without a place it is the one of a
/// DaemonSet.
pub(super) fn table(
    input: &Input<'_>,
    component: Component,
    place: Option<Place>,
) -> Result<Vec<Flag>> {
    let rows = match component {
        Component::Apiserver => apiserver(input, place)?,
        Component::ControllerManager => controller_manager(input, place)?,
        Component::Scheduler => scheduler(input, place)?,
    };
    Ok(rows.into_iter().map(|(name, value, why)| Flag { name, value, why }).collect())
}

/// Where a component says that it is well.
pub fn health_port(component: Component, place: Option<Place>) -> u16 {
    match (component, place) {
        (Component::Apiserver, _) => API_PORT,
        (Component::ControllerManager, Some(Place::Temporary)) => 10267,
        (Component::ControllerManager, _) => 10257,
        (Component::Scheduler, Some(Place::Temporary)) => 10269,
        (Component::Scheduler, _) => 10259,
    }
}

/// The flag that marks a temporary API server.
pub(super) const MARK_FLAG: &str = "shutdown-delay-duration";

/// The argument by which the process of a temporary pod is told from its successor's.
pub fn temporary_argument(component: Component) -> &'static str {
    match component {
        // It is the default; only that it is said is the mark.
        Component::Apiserver => "--shutdown-delay-duration=0s",
        Component::ControllerManager => "--secure-port=10267",
        Component::Scheduler => "--secure-port=10269",
    }
}

fn apiserver(input: &Input<'_>, place: Option<Place>) -> Result<Vec<Row>> {
    let mut rows = apiserver_serving(input, place)?;
    if place == Some(Place::Temporary) {
        rows.push((
            MARK_FLAG,
            "0s".into(),
            "the default, said here: the agent knows the temporary process by it",
        ));
    }
    rows.extend(apiserver_peers(input)?);
    rows.extend(apiserver_access(input)?);
    rows.extend(apiserver_service_accounts(input)?);
    if input.control_plane()?.style == Style::SelfHosted {
        rows.push((
            "permit-port-sharing",
            "true".into(),
            "the temporary pod and its successor serve side by side; both must have it",
        ));
    }
    Ok(rows)
}

fn apiserver_serving(input: &Input<'_>, place: Option<Place>) -> Result<Vec<Row>> {
    let own = |file| input.published("kube-apiserver", "kube-apiserver", file);
    Ok(vec![
        (
            "advertise-address",
            match place {
                Some(_) => input.address()?.to_string(),
                // One DaemonSet for all controllers, whoever applies it.
                None => format!("$({NODE_IP})"),
            },
            "the endpoint of the service `kubernetes`: this node, not the first interface's guess",
        ),
        ("secure-port", API_PORT.to_string(), "where kubeconfigs and load balancers look for it"),
        (
            "tls-cert-file",
            own("cert.pem")?,
            "published by the agent; taken up as soon as it changes",
        ),
        ("tls-private-key-file", own("key.pem")?, "belongs to the certificate"),
        ("tls-min-version", "VersionTLS12".into(), "nothing older has a reason to come"),
        (
            "shutdown-watch-termination-grace-period",
            "2s".into(),
            "open watches kept a stopped API server for 62 s; with it the next one serves in 4 s",
        ),
        ("profiling", "false".into(), "profiles show memory, and cost"),
    ])
}

/// etcd and the kubelets, of which the API server is a client, and the aggregated API servers.
fn apiserver_peers(input: &Input<'_>) -> Result<Vec<Row>> {
    let etcd = |file| input.published("kube-apiserver", "apiserver-etcd-client", file);
    let kubelet = |file| input.published("kube-apiserver", "apiserver-kubelet-client", file);
    let proxy = |file| input.published("kube-apiserver", "front-proxy-client", file);
    Ok(vec![
        (
            "etcd-servers",
            "https://127.0.0.1:2379".into(),
            "the member of this node only: a node that is cut off does not half-work",
        ),
        ("etcd-cafile", trust("etcd"), "read at the start only, so it is the stable copy"),
        ("etcd-certfile", etcd("cert.pem")?, "read at each handshake"),
        ("etcd-keyfile", etcd("key.pem")?, "belongs to the certificate"),
        ("kubelet-certificate-authority", trust("cluster"), "without it kubelets go unverified"),
        ("kubelet-client-certificate", kubelet("cert.pem")?, "for logs, exec and metrics"),
        ("kubelet-client-key", kubelet("key.pem")?, "belongs to the certificate"),
        (
            "kubelet-preferred-address-types",
            "InternalIP".into(),
            "nodes' names are in no DNS: logs and exec would wait for it until they time out",
        ),
        ("proxy-client-cert-file", proxy("cert.pem")?, "shown to aggregated API servers"),
        ("proxy-client-key-file", proxy("key.pem")?, "belongs to the certificate"),
        (
            "requestheader-client-ca-file",
            proxy("ca.pem")?,
            "an authority of its own: under the cluster's any client could claim to be a proxy",
        ),
        (
            "requestheader-allowed-names",
            input.common_name("kube-apiserver", "front-proxy-client")?,
            "the one name that may speak for others",
        ),
        ("requestheader-username-headers", "X-Remote-User".into(), "what aggregation agreed on"),
        ("requestheader-group-headers", "X-Remote-Group".into(), "what aggregation agreed on"),
        (
            "requestheader-extra-headers-prefix",
            "X-Remote-Extra-".into(),
            "what aggregation agreed on",
        ),
    ])
}

fn apiserver_access(input: &Input<'_>) -> Result<Vec<Row>> {
    Ok(vec![
        (
            "client-ca-file",
            input.published("kube-apiserver", "kube-apiserver", "ca.pem")?,
            "who signs for clients; taken up as soon as it changes",
        ),
        (
            "authentication-config",
            in_directory("authentication.yaml"),
            "anonymous requests reach health and nothing else",
        ),
        (
            "authorization-mode",
            "Node,RBAC".into(),
            "a kubelet sees what its own pods need; all others are under RBAC",
        ),
        (
            "enable-admission-plugins",
            input.control_plane()?.admission.join(","),
            "NodeRestriction: a kubelet changes its own node and no protected label",
        ),
        ("allow-privileged", "true".into(), "network plugins and kube-proxy are privileged"),
        ("audit-policy-file", in_directory("audit-policy.yaml"), "who did what to what"),
        (
            "audit-log-path",
            "-".into(),
            "standard output: the kubelet bounds it with containerLogMaxSize and -MaxFiles",
        ),
        (
            "encryption-provider-config",
            in_directory("encryption.yaml"),
            "a copy of etcd's disk holds no readable secret",
        ),
        (
            "encryption-provider-config-automatic-reload",
            "true".into(),
            "a new key needs no restart",
        ),
    ])
}

fn apiserver_service_accounts(input: &Input<'_>) -> Result<Vec<Row>> {
    let cluster = input.cluster()?;
    let issuer = format!("https://kubernetes.default.svc.{}", cluster.dns_domain);
    Ok(vec![
        ("service-account-issuer", issuer.clone(), "the name in tokens, the same on all nodes"),
        ("api-audiences", issuer, "tokens made for others are not taken here"),
        (
            "service-account-key-file",
            in_directory("service-account/verify.pem"),
            "all keys that tokens may be signed with; read at the start only",
        ),
        (
            "service-account-signing-key-file",
            in_directory("service-account/signing.key"),
            "the newest key, shared by all controllers",
        ),
        (
            "service-cluster-ip-range",
            cluster.service_cidr.to_string(),
            "[cluster] service_cidr: its first address is the API's own",
        ),
    ])
}

/// No flag names a key of an authority: certificates are signed in Vault, and a node from which
/// such a key could be taken would be the whole cluster.
fn controller_manager(input: &Input<'_>, place: Option<Place>) -> Result<Vec<Row>> {
    let cluster = input.cluster()?;
    let consumer = Component::ControllerManager;
    let told = input.control_plane()?.flags.get(&consumer);
    let mask_told = told.is_some_and(|flags| flags.contains_key("node-cidr-mask-size"));
    if cluster.pod_cidr.prefix > NODE_MASK && !mask_told {
        let text = format!("pod_cidr {} has no /{NODE_MASK} for a node", cluster.pod_cidr);
        return Err(Error::new(Code::Config, text).advise(
            "widen it, or give kube-controller-manager node-cidr-mask-size in control_plane.flags",
        ));
    }
    let mut rows = client(input, consumer, ("controller-manager", place))?;
    rows.extend([
        (
            "use-service-account-credentials",
            "true".into(),
            "each controller has its own rights instead of all of them",
        ),
        (
            "service-account-private-key-file",
            in_directory("service-account/signing.key"),
            "signs the tokens that are kept in secrets; read at the start only",
        ),
        ("root-ca-file", trust("cluster"), "what pods trust the API by; read at the start only"),
        ("allocate-node-cidrs", "true".into(), "each node gets its part of the pods' range"),
        ("cluster-cidr", cluster.pod_cidr.to_string(), "[cluster] pod_cidr"),
        (
            "service-cluster-ip-range",
            cluster.service_cidr.to_string(),
            "[cluster] service_cidr: no node gets a part of it",
        ),
        ("cluster-name", input.config.cluster.clone(), "the prefix of what clouds are asked for"),
    ]);
    Ok(rows)
}

fn scheduler(input: &Input<'_>, place: Option<Place>) -> Result<Vec<Row>> {
    client(input, Component::Scheduler, ("scheduler", place))
}

/// What the two have in common that serve nothing but their health. `name` is the certificate's
/// and the kubeconfig's.
fn client(
    input: &Input<'_>,
    component: Component,
    (name, place): (&'static str, Option<Place>),
) -> Result<Vec<Row>> {
    let kubeconfig = in_directory(&format!("{name}.conf"));
    Ok(vec![
        ("kubeconfig", kubeconfig.clone(), "names the published certificate, which is re-read"),
        ("authentication-kubeconfig", kubeconfig.clone(), "tokens of its clients are asked about"),
        ("authorization-kubeconfig", kubeconfig, "and what they may do"),
        (
            "authentication-skip-lookup",
            "true".into(),
            "else it exits where it starts before the API server, and waits in back-off",
        ),
        (
            "client-ca-file",
            input.published(component.name(), name, "ca.pem")?,
            "what the lookup would have found",
        ),
        ("bind-address", "127.0.0.1".into(), "health and metrics are for this node"),
        (
            "tls-cert-file",
            input.published(component.name(), name, "cert.pem")?,
            "by its serial the agent knows who answers for its health; re-read as it changes",
        ),
        (
            "tls-private-key-file",
            input.published(component.name(), name, "key.pem")?,
            "belongs to the certificate",
        ),
        (
            "secure-port",
            health_port(component, place).to_string(),
            "a temporary one leaves the usual port to its successor",
        ),
        ("leader-elect", "true".into(), "one works, the others wait; the same lease for both"),
        ("profiling", "false".into(), "profiles show memory, and cost"),
    ])
}

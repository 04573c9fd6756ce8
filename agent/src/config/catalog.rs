//! The certificates of each role, as the lowest layer of configuration: a drop-in that changes
//! one of them names it and gives only what differs.

use super::Role;

/// A built-in layer with the name that errors give it.
pub type Layer = (&'static str, &'static str);

const OF_WORKERS: Layer = ("built-in catalogue of workers", WORKER);
const OF_CONTROLLERS: Layer = ("built-in catalogue of controllers", CONTROLLER);
const OF_CONTROL_PLANES: Layer = ("built-in catalogue of control planes", CONTROL_PLANE);

/// The built-in layers of a role, lowest first.
pub fn layers(role: Role) -> &'static [Layer] {
    match role {
        Role::Worker => &[OF_WORKERS],
        Role::Controller => &[OF_WORKERS, OF_CONTROLLERS],
        Role::Bare => &[],
    }
}

/// What lies above them where the configuration tells of a cluster.
pub fn cluster_layers(role: Role) -> &'static [Layer] {
    match role {
        Role::Controller => &[OF_CONTROL_PLANES],
        Role::Worker | Role::Bare => &[],
    }
}

/// A kubelet serves on 10250 and is a client of the API server as `system:node:<name>`, which the
/// Node authorizer and NodeRestriction go by.
const WORKER: &str = r#"
[[consumer]]
name = "kubelet"
unit = "kubelet.service"
probe = "127.0.0.1:10250"

[[certificate]]
name = "kubelet-server"
consumer = "kubelet"
pki = "cluster"
role = "kubelet-server"
common_name = "system:node:{{instance_id}}"
organizations = ["system:nodes"]
dns = ["{{instance_id}}"]
ips = ["{{private_ip}}", "127.0.0.1"]
usage = "server"

[[certificate]]
name = "kubelet-client"
consumer = "kubelet"
pki = "cluster"
role = "kubelet-client"
common_name = "system:node:{{instance_id}}"
organizations = ["system:nodes"]
usage = "client"
"#;

/// etcd and the control plane. `{{api_server}}` is the name or address that clients reach the API
/// by, `{{service_ip}}` the first address of the service range and `{{dns_domain}}` the domain of
/// services; they follow from `[cluster]`, or are the operator's variables. Separate authorities:
/// under one a kubelet's certificate would open etcd. No certificate here is a super-user's: the
/// API server may reach into kubelets because RBAC says so.
const CONTROLLER: &str = r#"
[[consumer]]
name = "etcd-member"
unit = "etcd-member.service"
probe = "127.0.0.1:2379"

[[certificate]]
name = "etcd-server"
consumer = "etcd-member"
pki = "etcd"
role = "etcd-server"
common_name = "{{instance_id}}"
dns = ["{{instance_id}}", "localhost"]
ips = ["{{private_ip}}", "127.0.0.1"]
usage = "both"

[[certificate]]
name = "etcd-peer"
consumer = "etcd-member"
pki = "etcd"
role = "etcd-peer"
common_name = "{{instance_id}}"
dns = ["{{instance_id}}", "localhost"]
ips = ["{{private_ip}}", "127.0.0.1"]
usage = "both"

[[consumer]]
name = "kube-apiserver"
probe = "127.0.0.1:6443"

[[certificate]]
name = "kube-apiserver"
consumer = "kube-apiserver"
pki = "cluster"
role = "kube-apiserver"
common_name = "kube-apiserver"
dns = [
  "kubernetes",
  "kubernetes.default",
  "kubernetes.default.svc",
  "kubernetes.default.svc.{{dns_domain}}",
  "{{instance_id}}",
  "{{api_server}}",
]
ips = ["127.0.0.1", "{{private_ip}}", "{{service_ip}}"]
usage = "server"

[[certificate]]
name = "apiserver-kubelet-client"
consumer = "kube-apiserver"
pki = "cluster"
role = "apiserver-kubelet-client"
common_name = "kube-apiserver-kubelet-client"
usage = "client"

[[certificate]]
name = "apiserver-etcd-client"
consumer = "kube-apiserver"
pki = "etcd"
role = "apiserver-etcd-client"
common_name = "kube-apiserver-etcd-client"
usage = "client"

[[certificate]]
name = "front-proxy-client"
consumer = "kube-apiserver"
pki = "front-proxy"
role = "front-proxy-client"
common_name = "front-proxy-client"
usage = "client"

[[consumer]]
name = "kube-controller-manager"
act = "nothing"

[[certificate]]
name = "controller-manager"
consumer = "kube-controller-manager"
pki = "cluster"
role = "controller-manager"
common_name = "system:kube-controller-manager"
ips = ["127.0.0.1"]
usage = "both"

[[consumer]]
name = "kube-scheduler"
act = "nothing"

[[certificate]]
name = "scheduler"
consumer = "kube-scheduler"
pki = "cluster"
role = "scheduler"
common_name = "system:kube-scheduler"
ips = ["127.0.0.1"]
usage = "both"

[[consumer]]
name = "nodeagent"
act = "nothing"

[[certificate]]
name = "etcd-client"
consumer = "nodeagent"
pki = "etcd"
role = "etcd-client"
common_name = "nodeagent"
usage = "client"
"#;

/// Where the agent itself has told them to, these serve the certificate they are clients with; a
/// control plane that it does not run has them serve one of their own.
const CONTROL_PLANE: &str = r#"
[[consumer]]
name = "kube-controller-manager"
probe = "127.0.0.1:10257"
act = "probe"

[[consumer]]
name = "kube-scheduler"
probe = "127.0.0.1:10259"
act = "probe"
"#;

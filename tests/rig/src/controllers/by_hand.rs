//! The control plane raised without the agent's help: everything that it is told is written before
//! the first boot, only the certificates are the agent's. Nothing is waited for that a person who
//! knew everything beforehand would not wait for, so this is the floor of every figure.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use super::{Controller, Controllers, MANIFESTS, PLANE, text};
use crate::peer::kube::in_a_container;

/// The name of the API, in the certificate and nowhere else.
pub(super) const API_NAME: &str = "api.rig.test";
/// The API's own service.
pub(super) const SERVICE_IP: &str = "10.96.0.1";
const CERTIFICATES: &str = "/var/lib/nodeagent-certs";
const GIVEN: &str = "/etc/kubernetes/by-hand";

impl Controllers {
    pub(super) fn raise_by_hand(&self, node: &Controller) -> Result<(), String> {
        let roots = &self.site.configured.roots;
        for mount in ["pki", "pki-etcd", "pki-front-proxy"] {
            node.write(&format!("{GIVEN}/{mount}.pem"), &roots[mount])?;
        }
        // Each controller would have to have the same; by hand there is one.
        let signing = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(text)?;
        node.write(&format!("{GIVEN}/signing.key"), &signing.serialize_pem())?;
        node.write(&format!("{GIVEN}/verify.pem"), &signing.public_key_pem())?;
        node.write(&format!("{PLANE}/etcd.yaml"), &self.etcd_yaml(node).to_string())?;
        let clients = [
            ("kubelet", "kubelet/kubelet-client"),
            ("controller-manager", "kube-controller-manager/controller-manager"),
            ("scheduler", "kube-scheduler/scheduler"),
        ];
        for (name, certificate) in clients {
            node.write(&format!("{PLANE}/{name}.conf"), &kubeconfig(certificate).to_string())?;
        }
        node.write(&format!("{PLANE}/kubelet.yaml"), &kubelet().to_string())?;
        let flags = format!(
            "KUBELET_FLAGS=--config={PLANE}/kubelet.yaml --kubeconfig={PLANE}/kubelet.conf \
             --hostname-override={} --node-ip={}\n",
            node.instance,
            node.machine.ip()
        );
        node.write(&format!("{PLANE}/kubelet.env"), &flags)?;
        let pods = [
            ("kube-apiserver", apiserver(node)),
            ("kube-controller-manager", controller_manager()),
            ("kube-scheduler", scheduler()),
        ];
        for (name, flags) in pods {
            node.write(&format!("{MANIFESTS}/{name}.yaml"), &pod(name, &flags).to_string())?;
        }
        Ok(())
    }

    fn etcd_yaml(&self, node: &Controller) -> Value {
        let url = |port: u16| format!("https://{}:{port}", node.machine.ip());
        let member =
            |node: &Controller| format!("{}=https://{}:2380", node.member, node.machine.ip());
        let members: Vec<String> = self.nodes.iter().map(member).collect();
        let tls = |certificate: &str| {
            let current = format!("{CERTIFICATES}/etcd-member/{certificate}/current");
            json!({
                "cert-file": format!("{current}/cert.pem"),
                "key-file": format!("{current}/key.pem"),
                "trusted-ca-file": format!("{GIVEN}/pki-etcd.pem"),
                "client-cert-auth": true,
            })
        };
        json!({
            "name": node.member,
            "data-dir": "/var/lib/etcd",
            "listen-client-urls": format!("https://127.0.0.1:2379,{}", url(2379)),
            "advertise-client-urls": url(2379),
            "listen-peer-urls": url(2380),
            "initial-advertise-peer-urls": url(2380),
            "initial-cluster": members.join(","),
            "client-transport-security": tls("etcd-server"),
            "peer-transport-security": tls("etcd-peer"),
        })
    }
}

fn kubeconfig(certificate: &str) -> Value {
    let current = format!("{CERTIFICATES}/{certificate}/current");
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {
            "server": "https://127.0.0.1:6443",
            "certificate-authority": format!("{GIVEN}/pki.pem"),
        }}],
        "users": [{"name": "u", "user": {
            "client-certificate": format!("{current}/cert.pem"),
            "client-key": format!("{current}/key.pem"),
        }}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    })
}

fn kubelet() -> Value {
    let current = format!("{CERTIFICATES}/kubelet/kubelet-server/current");
    let mut configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "staticPodPath": MANIFESTS,
        "tlsCertFile": format!("{current}/cert.pem"),
        "tlsPrivateKeyFile": format!("{current}/key.pem"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": format!("{GIVEN}/pki.pem")},
        },
        "authorization": {"mode": "Webhook"},
    });
    configuration.as_object_mut().expect("it is written as one").extend(in_a_container());
    configuration
}

fn apiserver(node: &Controller) -> Vec<String> {
    let of = |name: &str| format!("{CERTIFICATES}/kube-apiserver/{name}/current");
    let pair = |flag: &str, key: &str, name: &str| {
        [format!("--{flag}={}/cert.pem", of(name)), format!("--{key}={}/key.pem", of(name))]
    };
    let mut flags = vec![
        format!("--advertise-address={}", node.machine.ip()),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--etcd-servers=https://127.0.0.1:2379".to_owned(),
        format!("--etcd-cafile={GIVEN}/pki-etcd.pem"),
        format!("--client-ca-file={GIVEN}/pki.pem"),
        format!("--kubelet-certificate-authority={GIVEN}/pki.pem"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--requestheader-client-ca-file={GIVEN}/pki-front-proxy.pem"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={GIVEN}/verify.pem"),
        format!("--service-account-signing-key-file={GIVEN}/signing.key"),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
    ];
    flags.extend(pair("tls-cert-file", "tls-private-key-file", "kube-apiserver"));
    flags.extend(pair("etcd-certfile", "etcd-keyfile", "apiserver-etcd-client"));
    flags.extend(pair(
        "kubelet-client-certificate",
        "kubelet-client-key",
        "apiserver-kubelet-client",
    ));
    flags.extend(pair("proxy-client-cert-file", "proxy-client-key-file", "front-proxy-client"));
    flags
}

fn controller_manager() -> Vec<String> {
    let mut flags = client_flags("controller-manager");
    flags.push(format!("--root-ca-file={GIVEN}/pki.pem"));
    flags.push(format!("--service-account-private-key-file={GIVEN}/signing.key"));
    flags.push("--use-service-account-credentials=true".to_owned());
    flags
}

fn scheduler() -> Vec<String> {
    client_flags("scheduler")
}

fn client_flags(name: &str) -> Vec<String> {
    let kinds = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"];
    let mut flags: Vec<String> =
        kinds.iter().map(|kind| format!("--{kind}={PLANE}/{name}.conf")).collect();
    flags.push("--bind-address=127.0.0.1".to_owned());
    flags
}

fn pod(name: &str, flags: &[String]) -> Value {
    let mut command = vec![name.to_owned()];
    command.extend_from_slice(flags);
    let directories = ["/etc/kubernetes", CERTIFICATES];
    let mounts = directories.iter().enumerate().map(
        |(number, path)| json!({"name": format!("v{number}"), "mountPath": path, "readOnly": true}),
    );
    let volumes = directories.iter().enumerate().map(|(number, path)| {
        json!({"name": format!("v{number}"), "hostPath": {"path": path, "type": "Directory"}})
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": {
            "hostNetwork": true,
            "containers": [{
                "name": name,
                "image": format!("localhost/{name}:1"),
                "imagePullPolicy": "Never",
                "command": command,
                "volumeMounts": mounts.collect::<Vec<_>>(),
            }],
            "volumes": volumes.collect::<Vec<_>>(),
        },
    })
}

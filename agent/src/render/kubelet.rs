//! The kubelet's files: its configuration, its kubeconfig, and the few flags that have no place in
//! the configuration.

use serde_json::{Map, Value, json};

use super::plane::kubeconfig;
use super::{API_PORT, CONTROLLER_LABEL, File, Input, MARK, document, in_directory};
use crate::config::Role;
use crate::config::plane::Taint;
use crate::error::{Code, Error, Result};

/// Which address of the service range the cluster's DNS has, by custom.
const DNS_PLACE: u32 = 10;

/// The first version of Kubernetes that lets a kubelet bound its crash back-off without a gate.
const BOUNDED_BACKOFF: (u16, u16) = (1, 35);

/// `kubelet.yaml`, `kubelet.conf` and `kubelet.env`.
pub fn kubelet(input: &Input<'_>) -> Result<Vec<File>> {
    let cluster = input.cluster()?;
    let mut configuration = configuration(input)?;
    // Key by key, so that one that is given replaces what we say of it, whole.
    let told = input.config.kubelet.config.clone();
    configuration.extend(told);
    let server = match is_controller(input) {
        true => format!("https://127.0.0.1:{API_PORT}"),
        false => cluster.api_server.clone(),
    };
    Ok(vec![
        File::ours("kubelet.yaml", document(&Value::Object(configuration))?),
        kubeconfig(input, "kubelet.conf", &server, ("kubelet", "kubelet-client"))?,
        File::ours("kubelet.env", environment(input)?),
    ])
}

fn is_controller(input: &Input<'_>) -> bool {
    input.config.role == Role::Controller
}

fn configuration(input: &Input<'_>) -> Result<Map<String, Value>> {
    let cluster = input.cluster()?;
    let dns = cluster.service_cidr.nth(DNS_PLACE);
    if !cluster.service_cidr.contains(dns.into()) {
        let text = format!("service_cidr {} has no tenth address for DNS", cluster.service_cidr);
        return Err(Error::new(Code::Config, text).advise("give it at least 16 addresses: /28"));
    }
    let file = |certificate, name| input.published("kubelet", certificate, name);
    let mut told = Map::new();
    let mut tell = |key: &str, value: Value| told.insert(key.to_owned(), value);
    tell("apiVersion", json!("kubelet.config.k8s.io/v1beta1"));
    tell("kind", json!("KubeletConfiguration"));
    // Who asks is known by a certificate or a token, and may do what the API server says.
    tell(
        "authentication",
        json!({
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": file("kubelet-server", "ca.pem")? },
        }),
    );
    tell("authorization", json!({ "mode": "Webhook" }));
    tell("readOnlyPort", json!(0));
    // The agent rotates: neither is the kubelet to ask the API server for certificates.
    tell("tlsCertFile", json!(file("kubelet-server", "cert.pem")?));
    tell("tlsPrivateKeyFile", json!(file("kubelet-server", "key.pem")?));
    tell("tlsMinVersion", json!("VersionTLS12"));
    tell("rotateCertificates", json!(false));
    tell("serverTLSBootstrap", json!(false));
    tell("clusterDomain", json!(cluster.dns_domain));
    tell("clusterDNS", json!([dns]));
    tell("containerRuntimeEndpoint", json!("unix:///run/containerd/containerd.sock"));
    // As Flatcar's containerd has it; a node with two managers of cgroups falls over under load.
    tell("cgroupDriver", json!("systemd"));
    // The default is below /usr, which is read-only on Flatcar.
    tell("volumePluginDir", json!("/var/lib/kubelet/volume-plugins"));
    // protectKernelDefaults stays off: the kubelet then sets what it needs instead of refusing.
    tell("registerNode", json!(true));
    let taints = input.config.kubelet.taints.iter().map(taint).collect();
    tell("registerWithTaints", Value::Array(taints));
    if let Some(plane) = &input.config.control_plane {
        tell("staticPodPath", json!(plane.manifests));
        // The audit log goes to the API server's standard output: 250 MB of it are kept.
        tell("containerLogMaxSize", json!("50Mi"));
        tell("containerLogMaxFiles", json!(5));
        // A controller-manager that lost its lease because the API was away has to be back in
        // seconds; after some crashes it would wait for five minutes (54 s of no API were seen).
        if input.config.kubernetes.is_some_and(|version| version >= BOUNDED_BACKOFF) {
            tell("crashLoopBackOff", json!({ "maxContainerRestartPeriod": "10s" }));
        }
        if !plane.feature_gates.is_empty() {
            tell("featureGates", json!(plane.feature_gates));
        }
    }
    Ok(told)
}

fn taint(taint: &Taint) -> Value {
    let mut object = Map::new();
    object.insert("key".into(), json!(taint.key));
    if !taint.value.is_empty() {
        object.insert("value".into(), json!(taint.value));
    }
    object.insert("effect".into(), json!(taint.effect));
    Value::Object(object)
}

/// What is a flag and nothing else. The node's name is the one that Vault lets it have.
fn environment(input: &Input<'_>) -> Result<String> {
    let mut labels = input.config.kubelet.labels.clone();
    if is_controller(input) {
        labels.insert(CONTROLLER_LABEL.into(), String::new());
    }
    let mut flags = vec![
        format!("--config={}", in_directory("kubelet.yaml")),
        format!("--kubeconfig={}", in_directory("kubelet.conf")),
        format!("--hostname-override={}", input.identity.instance_id),
        format!("--node-ip={}", input.address()?),
    ];
    if !labels.is_empty() {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        flags.push(format!("--node-labels={}", labels.join(",")));
    }
    Ok(format!("{MARK}\nKUBELET_FLAGS={}\n", flags.join(" ")))
}

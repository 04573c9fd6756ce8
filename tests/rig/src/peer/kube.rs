//! The real kubelet in a machine, as a consumer of certificates: a systemd service on containerd
//! and runc, with one static pod. It is told of no API server (standalone), so nothing but its own
//! certificates decides whether it starts and what it serves.
//!
//! Its unit knows nothing of the agent; what makes it wait for certificates is the agent's drop-in,
//! and that is what tests are about. Not as on a real node, because a container has no cgroup
//! controllers: no limits, no accounting, no OOM scores; and no authorization of requests.

mod served;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::machine::{Machine, MachineError, Result};
pub use served::{serial_of, served_leaf};

/// Where the kubelet serves its API; Kubernetes' own default.
pub const KUBELET_PORT: u16 = 10250;
/// Where the agent publishes the kubelet's serving certificate.
pub const KUBELET_CERTIFICATES: &str = "/var/lib/nodeagent-certs/kubelet/kubelet-server/current";

const UNIT: &str = include_str!("kube/kubelet.service");
const WANTS: &str = "etc/systemd/system/multi-user.target.wants";

/// What the kubelet of a machine is told.
#[derive(Clone, Debug)]
pub struct KubeletOptions {
    /// The name of its node.
    pub node_name: String,
    /// The address of its node.
    pub node_ip: IpAddr,
    /// The directory, in the machine, with `cert.pem`, `key.pem` and, for the certificates of its
    /// clients, `ca.pem`.
    pub certificates: String,
}

impl KubeletOptions {
    /// Named as the machine, at its address, with the certificates that the agent publishes.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        Self {
            node_name: machine.name().to_owned(),
            node_ip: machine.ip().into(),
            certificates: KUBELET_CERTIFICATES.to_owned(),
        }
    }
}

/// Writes the kubelet's configuration, its enabled unit and one static pod to the disk of a machine
/// (`Flavour::Kube`) before it boots. The certificates are the caller's business.
pub fn install(machine: &Machine, options: &KubeletOptions) -> Result<()> {
    let configuration = text(&configuration(options));
    machine.write("/etc/kubernetes/kubelet.yaml", configuration.as_bytes(), 0o644)?;
    let pod = text(&static_pod("still"));
    machine.write("/etc/kubernetes/manifests/still.yaml", pod.as_bytes(), 0o644)?;
    let flags = format!(
        "KUBELET_FLAGS=--config=/etc/kubernetes/kubelet.yaml --hostname-override={} --node-ip={}\n",
        options.node_name, options.node_ip
    );
    machine.write("/etc/kubernetes/kubelet.env", flags.as_bytes(), 0o644)?;
    install_unit(machine)
}

/// The kubelet's enabled unit alone: what it is started with is `$KUBELET_FLAGS` of the agent.
pub fn install_unit(machine: &Machine) -> Result<()> {
    machine.write("/etc/systemd/system/kubelet.service", UNIT.as_bytes(), 0o644)?;
    let link = machine.root().join(WANTS).join("kubelet.service");
    std::os::unix::fs::symlink("../kubelet.service", &link)
        .map_err(|error| MachineError::new(format!("{}: {error}", link.display())))
}

/// The serial number (as Vault prints it, `3f:a1:…`) of the certificate that the kubelet serves,
/// seen from outside the machine.
pub fn kubelet_probe(machine: &Machine) -> Result<String> {
    let address = SocketAddr::new(machine.ip().into(), KUBELET_PORT);
    served_leaf(address).and_then(|leaf| serial_of(&leaf))
}

/// The main process of each running container, sandboxes included, as the machine numbers them:
/// what must not change when the kubelet is restarted.
pub fn container_pids(machine: &Machine) -> Result<BTreeMap<String, u32>> {
    let list = ["ctr", "--namespace", "k8s.io", "tasks", "list"];
    let printed = machine.exec_ok(&list)?;
    let running = printed.lines().filter_map(|line| {
        let mut columns = line.split_whitespace();
        let (id, pid, state) = (columns.next()?, columns.next()?, columns.next()?);
        (state == "RUNNING").then_some((id.to_owned(), pid.parse().ok()?))
    });
    Ok(running.collect())
}

fn configuration(options: &KubeletOptions) -> Value {
    let certificates = &options.certificates;
    let mut configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "staticPodPath": "/etc/kubernetes/manifests",
        "tlsCertFile": format!("{certificates}/cert.pem"),
        "tlsPrivateKeyFile": format!("{certificates}/key.pem"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": format!("{certificates}/ca.pem")},
        },
        // There is no API server to ask. On a node that serves anyone this would hand every pod to
        // whoever has any client certificate of the cluster.
        "authorization": {"mode": "AlwaysAllow"},
    });
    let all = configuration.as_object_mut().expect("it is written as one");
    all.extend(in_a_container());
    configuration
}

/// What makes a kubelet live in a machine of the rig: without cgroup controllers, without
/// CAP_SYS_RESOURCE, and on a disk whose device it cannot see; nothing may be evicted because the
/// host's disk is full.
#[must_use]
pub fn in_a_container() -> serde_json::Map<String, Value> {
    let settings = json!({
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": ["none"],
        "oomScoreAdj": 0,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "makeIPTablesUtilChains": false,
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "featureGates": {"KubeletInUserNamespace": true},
    });
    settings.as_object().cloned().unwrap_or_default()
}

/// A pod that does nothing but exist; in the host's network, because there is no CNI plugin.
fn static_pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "hostNetwork": true,
            // By default 30 s, which the shutdown of the machine would wait for.
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": name, "image": "localhost/pause:1", "imagePullPolicy": "Never"},
            ],
        },
    })
}

/// JSON is YAML too.
fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

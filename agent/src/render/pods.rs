//! The pods of the control plane: static ones, and the DaemonSets of the self-hosted style, which
//! run the same containers.

use serde_json::{Value, json};

use super::flags;
use super::tables::{NODE_IP, health_port};
use super::{
    COMPONENT_LABEL, CONTROLLER_LABEL, Content, DIRECTORY, File, Input, MARK, Manifest,
    PLACE_LABEL, PUBLISHED, Place, document, in_directory,
};
use crate::config::plane::Component;
use crate::error::Result;

const NAMESPACE: &str = "kube-system";

/// The static pods of this node, in the order in which they need each other.
pub fn manifests(input: &Input<'_>, place: Place) -> Result<Vec<Manifest>> {
    let directory = &input.control_plane()?.manifests;
    let made = Component::ALL.map(|component| {
        let name = match place {
            Place::Static => component.name().to_owned(),
            Place::Temporary => format!("{component}-temporary"),
        };
        let mut pod = pod(input, component, Some(place))?;
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["namespace"] = json!(NAMESPACE);
        let path = directory.join(format!("{name}.yaml"));
        let text = explained(&document(&pod)?, input, (component, Some(place)))?;
        // No secret is in it, but nobody else has a use for it.
        let file = File { path, mode: 0o600, content: Content::Open(text) };
        Ok(Manifest { component, file })
    });
    made.into_iter().collect()
}

/// The DaemonSets of the self-hosted style.
///
/// They are updated by the agent, one node after the other under the lock, so by deletion only.
pub fn daemon_sets(input: &Input<'_>) -> Result<Vec<Value>> {
    let made = Component::ALL.map(|component| {
        let mut template = pod(input, component, None)?;
        let spec = &mut template["spec"];
        // There is a class by now; a static pod that names one waits 75 s for its mirror at a
        // bootstrap, because the class is not there yet.
        spec["priorityClassName"] = json!("system-node-critical");
        spec["automountServiceAccountToken"] = json!(false);
        let mut selector = serde_json::Map::new();
        selector.insert(CONTROLLER_LABEL.into(), json!(""));
        spec["nodeSelector"] = Value::Object(selector);
        // Whatever is wrong with a node, its control plane is the last to go.
        spec["tolerations"] = json!([{ "operator": "Exists" }]);
        let labels = template["metadata"]["labels"].clone();
        Ok(json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": { "name": component.name(), "namespace": NAMESPACE, "labels": labels },
            "spec": {
                "selector": { "matchLabels": labels },
                "updateStrategy": { "type": "OnDelete" },
                "template": template,
            },
        }))
    });
    made.into_iter().collect()
}

/// Labels and spec of a component's pod. Without a place it is the one of a DaemonSet.
fn pod(input: &Input<'_>, component: Component, place: Option<Place>) -> Result<Value> {
    let mut labels = serde_json::Map::new();
    labels.insert(COMPONENT_LABEL.into(), json!(component.name()));
    labels.insert(PLACE_LABEL.into(), json!(place_name(place)));
    let mut container = container(input, component, place)?;
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    for (name, path, kind) in host_paths(component) {
        volumes.push(json!({ "name": name, "hostPath": { "path": path, "type": kind } }));
        mounts.push(json!({ "name": name, "mountPath": path, "readOnly": true }));
    }
    container["volumeMounts"] = Value::Array(mounts);
    Ok(json!({
        "metadata": { "labels": labels },
        "spec": {
            "hostNetwork": true,
            "containers": [container],
            "volumes": volumes,
            "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
            "terminationGracePeriodSeconds": grace(component),
        },
    }))
}

fn place_name(place: Option<Place>) -> &'static str {
    match place {
        Some(Place::Static) => "static",
        Some(Place::Temporary) => "temporary",
        None => "daemon-set",
    }
}

/// For how many seconds a component may finish after SIGTERM. An API server is gone 1.1 s after it
/// (its watches get 2 s) but for requests that hang, and replacing a pod waits for all of this;
/// the others hold nothing that they could finish.
fn grace(component: Component) -> u64 {
    match component {
        Component::Apiserver => 10,
        Component::ControllerManager | Component::Scheduler => 5,
    }
}

fn container(input: &Input<'_>, component: Component, place: Option<Place>) -> Result<Value> {
    let image = input.control_plane()?.image.replace("{component}", component.name());
    let (cpu, memory) = requests(component);
    // No ports are told: two pods of the host's network that name one port could not both be
    // scheduled, and the temporary one and its successor share theirs.
    let mut container = json!({
        "name": component.name(),
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": flags::command(input, component, place)?,
        "resources": { "requests": { "cpu": cpu, "memory": memory } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": capabilities(component),
            "readOnlyRootFilesystem": true,
        },
        // The last lines of a component that died are in its status, where they are looked for.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    if place.is_none() {
        let address = json!({ "fieldRef": { "fieldPath": "status.hostIP" } });
        container["env"] = json!([{ "name": NODE_IP, "valueFrom": address }]);
    }
    for (kind, probe) in probes(component, health_port(component, place)) {
        container[kind] = probe;
    }
    Ok(container)
}

/// Kubernetes' own image gives the API server's program the right to low ports as a file's
/// capability, and the kernel does not start a program that has more than its container may:
/// without it in the set, nothing starts, on whatever port.
fn capabilities(component: Component) -> Value {
    match component {
        Component::Apiserver => json!({ "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] }),
        Component::ControllerManager | Component::Scheduler => json!({ "drop": ["ALL"] }),
    }
}

/// What an idle cluster uses, rounded up: 293, 129 and 96 MiB were measured.
fn requests(component: Component) -> (&'static str, &'static str) {
    match component {
        Component::Apiserver => ("250m", "320Mi"),
        Component::ControllerManager => ("100m", "160Mi"),
        Component::Scheduler => ("100m", "128Mi"),
    }
}

/// Started once it serves; ready by the second, because bootstraps wait for it; restarted only
/// where a restart can help. Without etcd an API server is not well and a new one would not be
/// better, so that check is left out.
fn probes(component: Component, port: u16) -> [(&'static str, Value); 3] {
    let (live, ready) = match component {
        Component::Apiserver => ("/livez?exclude=etcd", "/readyz"),
        Component::ControllerManager => ("/healthz", "/healthz"),
        Component::Scheduler => ("/livez", "/readyz"),
    };
    let probe = |path: &str, period: u64, failures: u64| {
        json!({
            "httpGet": { "host": "127.0.0.1", "port": port, "path": path, "scheme": "HTTPS" },
            "periodSeconds": period,
            "timeoutSeconds": 15,
            "failureThreshold": failures,
        })
    };
    [
        // Four minutes: an API server waits for its informers, and those for etcd.
        ("startupProbe", probe(live, 1, 240)),
        ("readinessProbe", probe(ready, 1, 3)),
        ("livenessProbe", probe(live, 10, 8)),
    ]
}

/// What a component sees of the node, read only: name, path, kind. Directories where files change
/// by rename under a running program (a mounted file would stay the old one), single files where
/// only a start reads them. No component sees keys of another.
fn host_paths(component: Component) -> Vec<(&'static str, String, &'static str)> {
    let certificates = format!("{PUBLISHED}/{component}");
    let mut paths = vec![("certificates", certificates, "Directory")];
    match component {
        // The plane directory whole: everything secret in it is the API server's.
        Component::Apiserver => paths.push(("nodeagent", DIRECTORY.into(), "Directory")),
        Component::ControllerManager => paths.extend([
            ("kubeconfig", in_directory("controller-manager.conf"), "File"),
            ("service-account", in_directory("service-account"), "Directory"),
            ("trust", in_directory("trust"), "Directory"),
        ]),
        Component::Scheduler => {
            paths.push(("kubeconfig", in_directory("scheduler.conf"), "File"));
        }
    }
    paths
}

/// The reason of each flag, as a comment above it.
fn explained(
    text: &str,
    input: &Input<'_>,
    (component, place): (Component, Option<Place>),
) -> Result<String> {
    let reasons = flags::reasons(input, component, place)?;
    let mut lines = String::with_capacity(text.len() * 2);
    for line in text.lines() {
        let words = line.trim_start().trim_start_matches("- ").trim_start_matches(['"', '\'']);
        let flag = words.strip_prefix("--").and_then(|rest| rest.split('=').next());
        if let Some(why) = flag.and_then(|flag| reasons.get(flag)) {
            let indent = line.len() - line.trim_start().len();
            lines.push_str(&format!("{:indent$}# {why}\n", ""));
        }
        lines.push_str(line);
        lines.push('\n');
    }
    debug_assert!(lines.starts_with(MARK), "a comment never comes before the mark");
    Ok(lines)
}

//! What stories see of controllers and wait for. Each wait has a deadline, and its error shows what
//! agent, kubelet and containers said last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{COMPONENTS, Controller, Controllers, ETCD, text};
use crate::machine::Output;
use crate::node::{AGENT, KUBELET};

/// Between two looks: a call takes 5 ms.
const PAUSE: Duration = Duration::from_millis(100);
/// A bootstrap has bounds of its own, below this one.
const BOOTSTRAP_LIMIT: Duration = Duration::from_secs(600);
/// The end of each log, in lines.
const LINES: &str = "25";
/// The ends of the containers' logs; there may be none.
const CONTAINERS: &str = r#"cd /var/log/pods 2>/dev/null || exit 0
for log in */*/*.log; do [ -e "$log" ] && echo "== $log" && tail -n 12 "$log"; done | cut -c1-400"#;

impl Controllers {
    /// Waits until the API server on one controller says that it is ready.
    pub async fn wait_readyz(&self, node: usize, limit: Duration) -> Result<(), String> {
        let api = self.api(node)?;
        let ready = async || match api.call("GET", "/readyz", None).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text)),
            Err(error) => Err(error),
        };
        self.wait(node, "its API server is ready", limit, ready).await
    }

    /// Waits until the node of one controller is Ready, as the API server on another one sees it.
    pub async fn wait_node_ready(
        &self,
        node: usize,
        seen_by: usize,
        limit: Duration,
    ) -> Result<Value, String> {
        let api = self.api(seen_by)?;
        let path = format!("/api/v1/nodes/{}", self.nodes[node].instance);
        let ready = async || {
            let found = api.get(&path).await?;
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.into_iter().find(|part| part["type"] == "Ready");
            match ready {
                Some(ready) if ready["status"] == "True" => Ok(found),
                other => Err(format!("its condition is {other:?}")),
            }
        };
        self.wait(node, "its node is Ready", limit, ready).await
    }

    /// The mirror pods of a controller's static pods, and whether each is Ready.
    pub async fn mirror_pods(&self, node: usize) -> Result<BTreeMap<String, bool>, String> {
        let instance = &self.nodes[node].instance;
        let path =
            format!("/api/v1/namespaces/kube-system/pods?fieldSelector=spec.nodeName%3D{instance}");
        let pods = self.api(node)?.list(&path).await?;
        let mirrors = pods
            .iter()
            .filter(|pod| !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null());
        Ok(mirrors.map(|pod| (name_without_node(pod, instance), is_ready(pod))).collect())
    }

    /// Waits until the three components of a controller have a mirror pod each that is Ready.
    pub async fn wait_mirror_pods(&self, node: usize, limit: Duration) -> Result<(), String> {
        let ready = async || {
            let pods = self.mirror_pods(node).await?;
            match COMPONENTS.iter().all(|name| pods.get(*name) == Some(&true)) {
                true => Ok(()),
                false => Err(format!("there are {pods:?}")),
            }
        };
        self.wait(node, "its static pods are Ready", limit, ready).await
    }

    /// The health of a member of etcd, as its own gateway tells it.
    pub async fn etcd_health(&self, node: usize) -> Result<Value, String> {
        self.etcd(node)?.get("/health").await
    }

    /// The members that a member of etcd knows.
    pub async fn etcd_members(&self, node: usize) -> Result<Vec<Value>, String> {
        let api = self.etcd(node)?;
        let list = api.create("/v3/cluster/member/list", &json!({})).await?;
        Ok(list["members"].as_array().cloned().unwrap_or_default())
    }

    /// Asks `probe` again and again until it has an answer; the error says what it said last, and
    /// what the controller's logs end in.
    pub async fn wait<T>(
        &self,
        node: usize,
        what: &str,
        limit: Duration,
        mut probe: impl AsyncFnMut() -> Result<T, String>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + limit;
        loop {
            match probe().await {
                Ok(answer) => return Ok(answer),
                Err(last) if Instant::now() >= deadline => {
                    let node = &self.nodes[node];
                    let (name, evidence) = (&node.member, node.evidence());
                    return Err(format!(
                        "{name}: waited {limit:?} in vain until {what}: {last}\n{evidence}"
                    ));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

impl Controller {
    /// Runs `nodeagent bootstrap` with more arguments.
    pub fn bootstrap(&self, arguments: &[&str]) -> Result<Output, String> {
        let arguments: Vec<&str> =
            std::iter::once("bootstrap").chain(arguments.iter().copied()).collect();
        self.machine.nodeagent(BOOTSTRAP_LIMIT, &arguments).map_err(text)
    }

    /// What it says of itself: the ends of the logs of agent, etcd, kubelet and all containers.
    #[must_use]
    pub fn evidence(&self) -> String {
        let machine = &self.machine;
        let run = |argv: &[&str]| match machine.exec(argv) {
            Ok(output) => output.stdout + &output.stderr,
            Err(error) => error.to_string(),
        };
        let mut evidence = String::new();
        for unit in [AGENT, ETCD, KUBELET] {
            let argv = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--lines", LINES];
            let argv = [&argv[..], &["--unit", unit]].concat();
            evidence.push_str(&format!("== {unit}\n{}", run(&argv)));
        }
        evidence + &run(&["sh", "-c", CONTAINERS])
    }
}

/// The kubelet adds the node's name to that of a static pod.
fn name_without_node(pod: &Value, node: &str) -> String {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    name.strip_suffix(&format!("-{node}")).unwrap_or(name).to_owned()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|part| part["type"] == "Ready" && part["status"] == "True")
}

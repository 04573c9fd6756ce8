//! Manifests against the real API server: what is applied, what stays, what goes, and what is
//! said of those that cannot be. Between the agent and the API lies a server that passes on, so
//! that a story can say which call fails, and sees which calls were made.

use std::path::Path;
use std::time::{Duration, Instant};

use http::Method;
use nodeagent::bootstrap::assets::{self, Outcome, Set};
use nodeagent::error::{Code, Kind};
use nodeagent::host::files::Root;
use nodeagent::secret::Secret;
use nodeagent::wire::http::{ClientIdentity, Http, Limits, Peer, Trust};
use nodeagent::wire::kube::{Applied, Kube, KubeOptions};
use rig::clock::ModelClock;
use rig::peer::apiserver::{self, RealApiserver};
use rig::peer::etcd::{self, RealEtcd};
use rig::pki::Ca;
use rig::server::{Fault, Request, Response, Server, ServerOptions, Step, handler};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::play::{SOON, skip};

const DEFAULT: &str = "/api/v1/namespaces/default/configmaps";
const INVENTORY: &str = "/api/v1/namespaces/kube-system/configmaps/nodeagent-assets";

/// An API server has 300 MiB and keeps a core busy while it starts.
static SERVERS: Semaphore = Semaphore::const_new(1);

const PEER: Peer = Peer {
    unreachable: Code::ApiserverUnreachable,
    failing: Code::ApiserverFailing,
    denied: Code::ApiserverDenied,
};

/// A cluster that consists of its API, seen through a server of our own, and a directory.
struct Cluster {
    front: Server,
    kube: Kube,
    /// Straight to the API, as somebody else.
    other: Kube,
    directory: TempDir,
    _api: RealApiserver,
    _etcd: RealEtcd,
    _turn: SemaphorePermit<'static>,
}

fn limits() -> Limits {
    let limit = Duration::from_secs(30);
    Limits { connect: limit, total: limit, body: 16 << 20 }
}

impl Cluster {
    async fn start() -> Option<Cluster> {
        let programs = etcd::program().and_then(|_| apiserver::program());
        if let Err(reason) = programs {
            return skip(&reason);
        }
        let turn = SERVERS.acquire().await.expect("nobody closes it");
        let etcd = RealEtcd::start().await.expect("etcd starts");
        let api = RealApiserver::start(&etcd).await.expect("the API server starts");
        let admin = api.admin();
        let client = ClientIdentity {
            cert_pem: admin.cert_pem.clone(),
            key_pem: Secret::new(admin.key_pem.clone()),
        };
        let options = KubeOptions {
            address: api.address().to_owned(),
            ca_pem: api.ca().pem().as_bytes().to_vec(),
            client: Some(client),
            limits: limits(),
        };
        let forward = Http::with_identity(
            limits(),
            &Trust::Pinned(options.ca_pem.clone()),
            options.client.as_ref(),
            PEER,
        )
        .expect("a client");
        let address = options.address.clone();
        let passes_on = handler(move |request| pass_on(forward.clone(), address.clone(), request));
        let ca = Ca::new("front");
        let server = ServerOptions::new(passes_on, ModelClock::real()).tls(ca.server_config());
        let front = Server::start(server).expect("a server");
        let ours = KubeOptions {
            address: front.url(),
            ca_pem: ca.pem().as_bytes().to_vec(),
            client: None,
            limits: limits(),
        };
        let kube = Kube::new(ours).expect("a client");
        let other = Kube::new(options).expect("a client");
        let directory = TempDir::new().expect("a directory");
        Some(Cluster { front, kube, other, directory, _api: api, _etcd: etcd, _turn: turn })
    }

    /// Puts a manifest into the directory.
    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).expect("a file");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.directory.path().join(name)).expect("a file");
    }

    fn set(&self) -> Set {
        assets::read(&Root::new(self.directory.path()), Some(Path::new("/")), Vec::new())
    }

    /// One pass over the directory as it is.
    async fn pass(&self) -> Outcome {
        assets::apply(&self.kube, &self.set()).await.expect("a pass")
    }

    /// Passes until nothing is pending; the last one is told.
    async fn passes(&self) -> Outcome {
        let end = Instant::now() + SOON;
        loop {
            let outcome = self.pass().await;
            if outcome.settled() {
                return outcome;
            }
            assert!(Instant::now() < end, "{outcome:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn satisfied(&self) -> bool {
        assets::satisfied(&self.kube, &self.set()).await.expect("an answer")
    }

    async fn get(&self, path: &str) -> Option<Value> {
        self.other.get(path).await.expect("an answer")
    }

    async fn version(&self, path: &str) -> Value {
        self.get(path).await.expect("an object")["metadata"]["resourceVersion"].clone()
    }
}

async fn pass_on(http: Http, address: String, request: Request) -> Response {
    let query =
        if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    let mut passed = http::Request::builder()
        .method(request.method.clone())
        .uri(format!("{address}{}{query}", request.path));
    for name in ["accept", "content-type"] {
        if let Some(value) = request.header(name) {
            passed = passed.header(name, value);
        }
    }
    let passed = passed.body(request.body.to_vec()).expect("a request");
    match http.send(passed).await {
        Ok(answer) => {
            let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok());
            let kind = kind.unwrap_or("text/plain").to_owned();
            Response::typed(answer.status().as_u16(), &kind, answer.into_body())
        }
        Err(error) => Response::text(502, format!("{error:#}")),
    }
}

fn map(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: b}}\n")
}

fn busy(code: u16) -> Fault {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "busy", "code": code });
    let headers = vec![("content-type".into(), "application/json".into())];
    Fault::Status { code, body: body.to_string(), headers }
}

fn names(remarks: &[assets::Remark]) -> Vec<&str> {
    remarks.iter().map(|remark| remark.object.as_str()).collect()
}

/// Of every sort that a set has: what depends on another stands before it in its file.
const WHOLE: &str = r#"
apiVersion: example.net/v1
kind: Bowl
metadata: {name: blue}
spec: {size: 3}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: bowls.example.net}
spec:
  group: example.net
  names: {kind: Bowl, plural: bowls, singular: bowl, listKind: BowlList}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {size: {type: integer}, colour: {type: string, default: blue}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: proxy, namespace: kitchen}
spec:
  selector: {matchLabels: {app: proxy}}
  template:
    metadata: {labels: {app: proxy}}
    spec:
      serviceAccountName: proxy
      containers:
      - name: proxy
        image: localhost/proxy:1
        ports: [{containerPort: 80}]
        resources: {requests: {cpu: 0.1, memory: 1024Mi}}
        volumeMounts: [{name: c, mountPath: /c}]
      volumes: [{name: c, configMap: {name: c, defaultMode: 0644}}]
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: proxy, namespace: kitchen}}
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRoleBinding
  metadata: {name: "kitchen:proxy"}
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "kitchen:proxy"}
  subjects: [{kind: ServiceAccount, name: proxy, namespace: kitchen}]
- apiVersion: rbac.authorization.k8s.io/v1
  kind: ClusterRole
  metadata: {name: "kitchen:proxy"}
  rules: [{apiGroups: [""], resources: [nodes], verbs: [get]}]
- apiVersion: v1
  kind: Service
  metadata: {name: dns, namespace: kitchen}
  spec: {selector: {app: dns}, ports: [{name: dns, port: 53, protocol: UDP}, {name: tcp, port: 53}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: kitchen}
"#;

#[tokio::test]
async fn a_set_is_applied_whole_and_then_changes_nothing() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.put("whole.yaml", WHOLE);
    assert_eq!(cluster.set().faults, []);
    assert!(!cluster.satisfied().await);

    // The kind of the bowl is new: what defines it is taken first, and the pass goes on.
    let first = cluster.pass().await;
    assert_eq!(first.refused, []);
    assert!(first.applied.iter().all(|(_, _, applied)| *applied == Applied::Created), "{first:#?}");
    assert!(names(&first.pending).iter().all(|name| *name == "Bowl blue"), "{first:#?}");
    cluster.passes().await;
    assert!(cluster.satisfied().await);
    let bowl = "/apis/example.net/v1/namespaces/default/bowls/blue";
    assert_eq!(cluster.get(bowl).await.expect("a bowl")["spec"]["size"], 3);

    // The API has filled in what the manifests leave out; that is no change.
    let places = [
        bowl,
        INVENTORY,
        "/apis/apps/v1/namespaces/kitchen/daemonsets/proxy",
        "/api/v1/namespaces/kitchen/services/dns",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/kitchen:proxy",
    ];
    let mut before = Vec::new();
    for place in places {
        before.push(cluster.version(place).await);
    }
    let again = cluster.pass().await;
    assert_eq!((again.changes(), again.applied.len()), (0, 8), "{again:#?}");
    for (place, version) in places.iter().zip(before) {
        assert_eq!(cluster.version(place).await, version, "{place}");
    }

    // What somebody broke is put right, and only that.
    let dns = "/api/v1/namespaces/kitchen/services/dns";
    assert!(cluster.other.delete(dns, None).await.expect("a deletion"));
    let repaired = cluster.pass().await;
    assert_eq!(repaired.changes(), 1, "{repaired:#?}");
    assert!(cluster.get(dns).await.is_some());
}

#[tokio::test]
async fn only_what_the_agent_made_is_pruned() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let foreign = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "before", "namespace": "default" }, "data": { "mine": "yes" },
    });
    cluster.other.apply(&foreign, "somebody").await.expect("an object of somebody else");
    let namespace = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: room}}\n";
    let all = [map("goes"), map("before"), map("anew"), map("stays"), namespace.into()].concat();
    cluster.put("a.yaml", &all);
    let first = cluster.passes().await;
    assert_eq!(first.changes(), 5, "{first:#?}");
    let anew = format!("{DEFAULT}/anew");
    cluster.other.delete(&anew, None).await.expect("a deletion");
    let mut another = foreign.clone();
    another["metadata"]["name"] = "anew".into();
    cluster.other.apply(&another, "nodeagent").await.expect("another object of that name");

    // A document that is broken may be one of these: nothing is pruned while there is one.
    cluster.put("a.yaml", &[map("stays").as_str(), "---\nkind: [\n"].concat());
    let broken = cluster.pass().await;
    assert_eq!((broken.pruned.len(), broken.kept.len()), (0, 0), "{broken:#?}");
    assert!(!cluster.satisfied().await);
    // Nor while the directory is away.
    let away = Root::new(cluster.directory.path());
    let away = assets::read(&away, Some(Path::new("/away")), Vec::new());
    assets::apply(&cluster.kube, &away).await.expect("a pass");
    assert!(cluster.get(&format!("{DEFAULT}/goes")).await.is_some());

    cluster.put("a.yaml", &map("stays"));
    let pruned = cluster.pass().await;
    assert_eq!(pruned.pruned, ["ConfigMap goes"], "{pruned:#?}");
    let mut kept = names(&pruned.kept);
    kept.sort_unstable();
    assert_eq!(kept, ["ConfigMap anew", "ConfigMap before", "Namespace room"]);
    assert!(cluster.get(&format!("{DEFAULT}/goes")).await.is_none());
    for name in ["before", "anew", "stays"] {
        assert!(cluster.get(&format!("{DEFAULT}/{name}")).await.is_some(), "{name}");
    }
    assert!(cluster.get("/api/v1/namespaces/room").await.is_some());
    assert!(cluster.satisfied().await);
    assert_eq!(cluster.pass().await.changes(), 0);
}

#[tokio::test]
async fn what_is_broken_is_named_and_holds_back_nothing_else() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let unknown = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: typo}\nspecs: {}\n";
    let bad =
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 0}]}\n";
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: early}\n\
               spec: {containers: [{name: a, image: localhost/a}]}\n";
    let nowhere =
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: far, namespace: nowhere}\n";
    let kind = "---\napiVersion: example.net/v1\nkind: Bowl\nmetadata: {name: b}\n";
    let broken = "---\nkind: [\n";
    let secret =
        "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: 1234567}\n";
    let parts = [&map("one"), unknown, bad, broken, nowhere, pod, kind, &map("two"), secret];
    cluster.put("mixed.yaml", &parts.concat());

    let set = cluster.set();
    let outcome = assets::apply(&cluster.kube, &set).await.expect("a pass");
    let faults: Vec<_> = set.faults.iter().map(|fault| fault.source.as_str()).collect();
    assert_eq!(faults, ["mixed.yaml document 4 (line 17)"]);
    let taken: Vec<_> = outcome.applied.iter().map(|(object, ..)| object.as_str()).collect();
    assert_eq!(taken, ["ConfigMap one", "ConfigMap two"]);
    let refused = |at: usize| {
        let remark = &outcome.refused[at];
        format!("{}: {}: {}", remark.source, remark.object, remark.reason)
    };
    assert_eq!(outcome.refused.len(), 3, "{outcome:#?}");
    assert!(
        refused(0).starts_with("mixed.yaml document 2 (line 7): ConfigMap typo: "),
        "{}",
        refused(0)
    );
    assert!(refused(0).contains(".specs: field not declared"), "{}", refused(0));
    assert!(refused(2).contains("document 3 (line 12): Service bad: "), "{}", refused(2));
    assert!(refused(2).contains("422 "), "{}", refused(2));
    assert!(refused(1).contains("Secret s: ") && refused(1).contains("***"), "{}", refused(1));
    assert!(!refused(1).contains("1234567"), "{}", refused(1));
    let pending = ["ConfigMap nowhere/far", "Pod early", "Bowl b"];
    assert_eq!(names(&outcome.pending), pending, "{outcome:#?}");
    assert!(!cluster.satisfied().await);

    // The namespace and the account come later, from others: nothing else had to change.
    for (kind, name) in [("Namespace", "nowhere"), ("ServiceAccount", "default")] {
        let object = json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } });
        cluster.other.apply(&object, "somebody").await.expect("what was missing");
    }
    let later = cluster.pass().await;
    assert_eq!((later.changes(), names(&later.pending)), (2, vec!["Bowl b"]), "{later:#?}");
}

#[tokio::test]
async fn an_api_that_fails_or_goes_away_is_asked_again() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let all: String = ["a", "b", "c", "d", "e", "f"].map(map).concat();
    cluster.put("a.yaml", &all);
    let patch = |path: &str, fault| Step::on(path, fault).method(Method::PATCH);

    // Single failures are of single objects.
    let place = |name: &str| format!("{DEFAULT}/{name}");
    cluster.front.script(vec![patch(&place("b"), busy(429)), patch(&place("d"), busy(500))]);
    let outcome = cluster.pass().await;
    assert_eq!(names(&outcome.pending), ["ConfigMap b", "ConfigMap d"], "{outcome:#?}");
    assert_eq!((outcome.applied.len(), outcome.refused.len()), (4, 0));
    assert!(!cluster.satisfied().await);

    // Away in the middle: nothing more is tried, and what was not is told.
    cluster.put("a.yaml", &all.replace("a: b", "a: c"));
    cluster.front.script(vec![patch(DEFAULT, Fault::Close).skip(2)]);
    cluster.front.clear_log();
    let outcome = cluster.pass().await;
    assert_eq!(outcome.applied.len(), 2, "{outcome:#?}");
    assert_eq!(
        names(&outcome.pending),
        ["ConfigMap c", "ConfigMap d", "ConfigMap e", "ConfigMap f"]
    );
    let tried = |name: &str| {
        let requests = cluster.front.requests();
        requests.iter().filter(|r| r.method == Method::PATCH && r.path == place(name)).count()
    };
    assert_eq!((tried("c"), tried("d")), (1, 0));

    // Failing for everything, its health too: the same.
    let sick = vec![patch(DEFAULT, busy(503)), Step::on("/readyz", busy(500))];
    cluster.front.script(sick.clone());
    cluster.front.clear_log();
    let outcome = cluster.pass().await;
    assert_eq!((outcome.pending.len(), tried("c"), tried("d")), (6, 1, 0), "{outcome:#?}");
    // Failing for some while it is well: the others are tried all the same.
    cluster.front.script(sick[..1].to_vec());
    cluster.front.clear_log();
    assert_eq!((cluster.pass().await.pending.len(), tried("f")), (6, 1));

    // Away before the inventory is written at the end: the next pass does it.
    cluster.front.script(vec![patch(INVENTORY, busy(503))]);
    let outcome = cluster.pass().await;
    assert_eq!(names(&outcome.pending), ["ConfigMap kube-system/nodeagent-assets"], "{outcome:#?}");
    // Failing when it is asked what was there before: that object alone waits.
    cluster.front.script(vec![Step::on(&place("new"), busy(500)).method(Method::GET)]);
    cluster.put("b.yaml", &map("new"));
    assert_eq!(names(&cluster.pass().await.pending), ["ConfigMap new"]);
    cluster.remove("b.yaml");

    // Away from the start: nothing is done, and that is an error to try again.
    cluster.front.script(vec![Step::on("", Fault::Close)]);
    let error = assets::apply(&cluster.kube, &cluster.set()).await.expect_err("the API is away");
    assert_eq!(error.kind(), Kind::Unavailable, "{error:#}");

    cluster.front.script(Vec::new());
    assert_eq!(cluster.passes().await.refused, []);
    assert!(cluster.satisfied().await);
    let object = cluster.get(&place("f")).await.expect("an object");
    assert_eq!(object["data"]["a"], "c");
}

#[tokio::test]
async fn what_is_applied_is_written_down_before() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    // The agent dies after the first object: with its last call it had written down both.
    cluster.put("a.yaml", &[map("one"), map("two")].concat());
    let two = format!("{DEFAULT}/two");
    cluster.front.script(vec![Step::on(&two, Fault::Close).method(Method::PATCH)]);
    assert_eq!(names(&cluster.pass().await.pending), ["ConfigMap two"]);
    let inventory = cluster.get(INVENTORY).await.expect("an inventory");
    let objects = inventory["data"]["objects"].as_str().expect("objects");
    assert_eq!(objects.lines().count(), 2, "{objects}");
    assert_eq!(inventory["data"]["state"], "incomplete");

    // Both leave the set before it ever was whole: what was made goes all the same.
    cluster.front.script(Vec::new());
    cluster.put("a.yaml", &map("three"));
    let outcome = cluster.passes().await;
    assert_eq!(outcome.pruned, ["ConfigMap one"], "{outcome:#?}");
    assert!(cluster.get(&format!("{DEFAULT}/one")).await.is_none());

    // An inventory that somebody spoilt forgets, and prunes nothing.
    let spoilt = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": { "objects": "?" },
        "metadata": { "name": "nodeagent-assets", "namespace": "kube-system" },
    });
    cluster.other.apply(&spoilt, "somebody").await.expect("a spoilt inventory");
    cluster.put("a.yaml", &map("four"));
    let outcome = cluster.passes().await;
    assert_eq!(names(&outcome.kept), ["ConfigMap kube-system/nodeagent-assets"], "{outcome:#?}");
    assert!(cluster.get(&format!("{DEFAULT}/three")).await.is_some());
    assert!(cluster.satisfied().await);
    cluster.remove("a.yaml");
    cluster.put("b.yaml", "# nothing any more\n");
    assert_eq!(cluster.passes().await.pruned, ["ConfigMap four"]);
}

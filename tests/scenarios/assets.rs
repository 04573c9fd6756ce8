//! Manifests against the real API server: what is applied, what stays, what goes, and what is
//! said of those that cannot be.

mod cluster;

use std::path::Path;
use std::time::{Duration, Instant};

use http::Method;
use nodeagent::bootstrap::assets;
use nodeagent::error::Kind;
use nodeagent::host::files::Root;
use nodeagent::wire::kube::Applied;
use rig::server::{Fault, Step};
use serde_json::json;

use crate::play::SOON;
use cluster::{Cluster, busy, map, names};

const DEFAULT: &str = "/api/v1/namespaces/default/configmaps";
const INVENTORY: &str = "/api/v1/namespaces/kube-system/configmaps/nodeagent-assets";

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
    // It has no field but its name, and so nothing that could be the agent's.
    let bare = "---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: bare}}\n";
    let maps = ["goes", "before", "anew", "stays"].map(map).concat();
    cluster.put("a.yaml", &[maps.as_str(), namespace, bare].concat());
    let first = cluster.passes().await;
    assert_eq!(first.changes(), 6, "{first:#?}");
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
    assert_eq!(pruned.pruned, ["ConfigMap goes", "ServiceAccount bare"], "{pruned:#?}");
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
    let deep = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: t}\n\
                stringData: {a: {b: c, d: hunter2}}\n";
    let two = map("two");
    let parts = [&map("one"), unknown, bad, broken, nowhere, pod, kind, &two, secret, deep];
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
    assert_eq!(outcome.refused.len(), 4, "{outcome:#?}");
    assert!(!format!("{outcome:?}").contains("hunter2"), "{outcome:#?}");
    assert!(
        refused(0).starts_with("mixed.yaml document 2 (line 7): ConfigMap typo: "),
        "{}",
        refused(0)
    );
    assert!(refused(0).contains(".specs: field not declared"), "{}", refused(0));
    assert!(refused(3).contains("document 3 (line 12): Service bad: "), "{}", refused(3));
    assert!(refused(3).contains("422 "), "{}", refused(3));
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

#[tokio::test]
async fn a_directory_without_a_manifest_takes_nothing_out() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    // Before anything was applied there is nothing to say.
    cluster.put("README", "no manifest");
    assert_eq!(cluster.passes().await.kept, []);
    cluster.put("a.yaml", &[map("one"), map("two")].concat());
    assert_eq!(cluster.passes().await.changes(), 2);

    // Not mounted yet, or being filled anew.
    cluster.remove("a.yaml");
    let outcome = cluster.passes().await;
    assert_eq!((outcome.pruned.len(), outcome.kept.len()), (0, 1), "{outcome:#?}");
    let reason = &outcome.kept[0].reason;
    assert!(reason.starts_with("2 that were applied before") && reason.contains("a comment"));
    assert!(cluster.get(&format!("{DEFAULT}/two")).await.is_some());
    assert!(cluster.satisfied().await);

    // What was applied before is known all the same.
    cluster.put("a.yaml", &map("one"));
    assert_eq!(cluster.passes().await.pruned, ["ConfigMap two"]);
    cluster.remove("a.yaml");
    assert_eq!(cluster.passes().await.kept.len(), 1);
    cluster.put("none.yaml", "# nothing, on purpose\n");
    assert!(!cluster.satisfied().await);
    assert_eq!(cluster.passes().await.pruned, ["ConfigMap one"]);
}

#[tokio::test]
async fn of_two_agents_with_different_sets_the_later_one_prevails() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    cluster.put("a.yaml", &map("former"));
    cluster.passes().await;
    cluster.put("a.yaml", &map("held"));
    let (ours, held) = (cluster.set(), format!("{DEFAULT}/held"));
    cluster.put("a.yaml", &[map("theirs"), map("former")].concat());
    let theirs = cluster.set();

    // While ours is stopped before its object, as by a partition, theirs is applied whole.
    let later = async {
        let end = Instant::now() + SOON;
        while cluster.front.count(&held) < 3 {
            assert!(Instant::now() < end, "ours never comes to its object");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let outcome = assets::apply(&cluster.other, &theirs).await.expect("a pass");
        cluster.gate.add_permits(1);
        outcome
    };
    let (ours, theirs) = tokio::join!(assets::apply(&cluster.kube, &ours), later);
    assert!(theirs.settled(), "{theirs:#?}");
    let error = ours.expect_err("another agent has taken over");
    assert!(format!("{error:#}").contains("another agent applies another set"), "{error:#}");
    for name in ["theirs", "former"] {
        assert!(cluster.get(&format!("{DEFAULT}/{name}")).await.is_some(), "{name}");
    }
    assert!(cluster.satisfied().await);
}

//! What a person gets wrong around an API server is named, with the file or the object that it is
//! in, and once it is right the bootstrap goes on: broken documents, files that are not ours, an
//! image that there is none of, objects that the API refuses for now or for good. Answers of a sick
//! API (429, 500, 503) are in `assets`, before a real one.

use nodeagent::bootstrap::journal;
use rig::controllers::underway::Underway;
use rig::controllers::{Controller, ControllersOptions, MANIFESTS, Raising};
use serde_json::{Value, json};

use super::{SOON, Story, installed, told};

const ASSETS: &str = "/etc/nodeagent/assets";
const MORE: &str = "/etc/nodeagent/config.d/30-more.toml";
const BROKEN: &str = "---\nkind: [\n";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

#[tokio::test]
async fn what_is_wrong_around_a_control_plane_is_named_and_then_gone_on_with() {
    let config = format!("[control_plane]\nassets = \"{ASSETS}\"\n");
    let options = ControllersOptions::new(1).raised(Raising::Told).with(&config);
    let Some(mut story) = installed(options).await else { return };
    told(story.boot());
    super::crash::wait_for_certificates(&story);

    broken_at_first(&story.nodes[0]);
    foreign_of_our_name(&story.nodes[0]);
    no_such_image(&story, &config).await;
    story.wait_whole().await;
    broken_on_a_living_cluster(&story, &config).await;
    filled_while_it_is_read(&story).await;
    refused_for_now(&story).await;
    refused_by_a_quota(&story).await;
    foreign_of_another_name(&story).await;
}

/// Nothing is begun with half of a set.
fn broken_at_first(node: &Controller) {
    told(node.write(&format!("{ASSETS}/10-maps.yaml"), &(map("one", "a") + BROKEN)));
    let refused = told(node.bootstrap(&[]));
    assert_eq!(refused.status.code(), Some(78), "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stderr.contains("10-maps.yaml document 2 (line 7): "), "{}", refused.stderr);
    assert_eq!(node.steps_journal(), Vec::<Value>::new(), "nothing was begun");
    assert_eq!(node.manifests(), Vec::<String>::new());
    told(node.write(&format!("{ASSETS}/10-maps.yaml"), &map("one", "a")));
}

/// What somebody else has put there under a name of ours is not overwritten, nor is anything put
/// beside it.
fn foreign_of_our_name(node: &Controller) {
    let path = format!("{MANIFESTS}/kube-scheduler.yaml");
    let theirs = "# a person's\n";
    told(node.write(&path, theirs));
    let refused = told(node.bootstrap(&[]));
    assert!(!refused.status.success(), "{}", refused.stdout);
    let says = format!("{path}: nodeagent did not write it and leaves it alone");
    assert!(refused.stderr.contains(&says), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("mv {path} ")), "{}", refused.stderr);
    assert_eq!(node.manifests(), ["kube-scheduler.yaml"]);
    assert_eq!(told(node.machine.read(&path)), theirs.as_bytes());
    told(node.machine.exec_ok(&["rm", &path]));
}

/// The bootstrap says what does not run and where to look, and takes the correction.
async fn no_such_image(story: &Story, config: &str) {
    let node = &story.nodes[0];
    told(node.write(MORE, &format!("{config}image = \"localhost/{{component}}:no-such\"\n")));
    let mut run = told(node.begin_bootstrap(&[]));
    told_by(story, &mut run, "await-apiserver             waiting: no kube-apiserver runs").await;
    let printed = told(run.printed());
    assert!(printed.contains("journalctl -u kubelet"), "{printed}");
    told(run.kill());
    let log = told(node.machine.journal("kubelet.service"));
    assert!(log.contains("localhost/kube-apiserver:no-such"), "what is looked at does not tell");
    told(node.write(MORE, config));
    let ended = told(node.bootstrap(&[]));
    assert!(ended.status.success(), "{}{}\n{}", ended.stdout, ended.stderr, node.evidence());
}

async fn broken_on_a_living_cluster(story: &Story, config: &str) {
    let node = &story.nodes[0];
    told(node.write(&format!("{ASSETS}/20-more.yaml"), &(map("two", "a") + BROKEN)));
    let ended = told(node.bootstrap(&[]));
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("20-more.yaml document 2 (line 7): "), "{}", ended.stdout);
    for name in ["one", "two"] {
        told(told(story.api(0)).get(&format!("{MAPS}/{name}")).await);
    }
    // The daemon that acts by itself has it in its status.
    told(node.write(&format!("{ASSETS}/20-more.yaml"), &(map("two", "b") + BROKEN)));
    told(node.write(MORE, &format!("{config}automatic = true\n")));
    told(node.machine.systemctl("reload", "nodeagent"));
    let bad = |problem: &Value| {
        let says = problem["text"].as_str().is_some_and(|text| text.contains("20-more.yaml"));
        problem["code"] == "assets-bad" && says
    };
    story.wait_status(0, "the broken document", |status| {
        status["problems"].as_array().is_some_and(|all| all.iter().any(bad))
    });
    let applied = async || {
        let two = told(story.api(0)).get(&format!("{MAPS}/two")).await?;
        if two["data"]["a"] == "b" { Ok(()) } else { Err(two.to_string()) }
    };
    told(story.wait(0, "the rest is applied", SOON, applied).await);
    // Nothing of the rest has changed when the broken one is gone.
    told(node.write(&format!("{ASSETS}/20-more.yaml"), &map("two", "b")));
    story.wait_status(0, "no broken document", |status| {
        status["problems"].as_array().is_some_and(|all| !all.iter().any(bad))
    });
    told(node.write(MORE, config));
    told(node.machine.systemctl("reload", "nodeagent"));
    let mended = told(node.bootstrap(&[]));
    assert!(!mended.stdout.contains("20-more.yaml"), "{}{}", mended.stdout, mended.stderr);
}

/// What has gone from a directory and comes back while a run reads it stays in the cluster.
async fn filled_while_it_is_read(story: &Story) {
    let (node, api) = (&story.nodes[0], told(story.api(0)));
    let two = told(api.get(&format!("{MAPS}/two")).await);
    let path = format!("{ASSETS}/20-more.yaml");
    // The cluster knows of them, though this node knows of nothing.
    told(node.machine.exec_ok(&["rm", &path, journal::PATH]));
    told(node.write(&format!("{ASSETS}/10-maps.yaml"), &map("one", "b")));
    let mut run = told(node.begin_bootstrap(&[]));
    told(run.until("begun", "apply-assets"));
    told(node.write(&path, &map("two", "b")));
    let ended = told(run.wait());
    assert!(ended.status.success(), "{}\n{}", ended.printed, node.evidence());
    assert_eq!(told(api.get(&format!("{MAPS}/one")).await)["data"]["a"], "b");
    let now = told(api.get(&format!("{MAPS}/two")).await);
    assert_eq!(now["metadata"]["uid"], two["metadata"]["uid"], "it was taken out");
}

/// A webhook that cannot be called makes the API answer 500. A wait for it holds up nothing else.
async fn refused_for_now(story: &Story) {
    let node = &story.nodes[0];
    let api = told(story.api(0));
    let hook = json!({
        "metadata": {"name": "away"},
        "webhooks": [{
            "name": "away.example.net", "failurePolicy": "Fail", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["configmaps"],
            }],
            "namespaceSelector":
                {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        }],
    });
    told(api.create(HOOKS, &hook).await);
    told(node.write(&format!("{ASSETS}/20-more.yaml"), &map("two", "c")));
    let mut run = told(node.begin_bootstrap(&[]));
    told_by(story, &mut run, "apply-assets                waiting: ConfigMap ").await;
    let printed = told(run.printed());
    assert!(printed.contains("away.example.net"), "{printed}");
    // A control plane that goes down meanwhile is raised first.
    let scheduler = format!("{MANIFESTS}/kube-scheduler.yaml");
    told(node.machine.exec_ok(&["rm", &scheduler]));
    told(run.until("done", "place-manifests"));
    assert_eq!(node.manifests().len(), 3);
    told(api.delete(&format!("{HOOKS}/away")).await);
    let ended = told(run.wait());
    assert!(ended.status.success(), "{}\n{}", ended.printed, node.evidence());
    assert_eq!(told(api.get(&format!("{MAPS}/two")).await)["data"]["a"], "c");
}

/// A quota makes the API answer 403, whoever asks; it is told, and holds back nothing else.
async fn refused_by_a_quota(story: &Story) {
    let node = &story.nodes[0];
    let api = told(story.api(0));
    let quota = json!({
        "metadata": {"name": "full"}, "spec": {"hard": {"count/configmaps": "1"}},
    });
    told(api.create(QUOTAS, &quota).await);
    let counted = async || {
        let quota = api.get(&format!("{QUOTAS}/full")).await?;
        match quota["status"]["used"]["count/configmaps"].as_str() {
            Some(_) => Ok(()),
            None => Err(quota.to_string()),
        }
    };
    told(story.wait(0, "the quota is counted", SOON, counted).await);
    let more = map("three", "a") + &map("two", "d");
    told(node.write(&format!("{ASSETS}/20-more.yaml"), &more));
    let mut run = told(node.begin_bootstrap(&[]));
    told_by(story, &mut run, "ConfigMap three").await;
    let printed = told(run.printed());
    assert!(printed.contains("exceeded quota: full"), "{printed}");
    assert_eq!(told(api.get(&format!("{MAPS}/two")).await)["data"]["a"], "d", "{printed}");
    told(api.delete(&format!("{QUOTAS}/full")).await);
    told(run.wait());
    told(node.write(&format!("{ASSETS}/30-again.yaml"), &map("four", "a")));
    let ended = told(node.bootstrap(&[]));
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    told(api.get(&format!("{MAPS}/three")).await);
}

/// A pod of somebody's is none of the agent's business, but it is told.
async fn foreign_of_another_name(story: &Story) {
    let node = &story.nodes[0];
    let path = format!("{MANIFESTS}/other.yaml");
    told(node.write(&path, "# a person's\n"));
    story.wait_status(0, "the foreign file", |status| {
        status["control_plane"]["foreign"].as_array().is_some_and(|all| all.contains(&json!(path)))
    });
    let before = story.processes(0);
    let again = told(node.bootstrap(&[]));
    assert!(again.stdout.ends_with("nothing is to do\n"), "{}{}", again.stdout, again.stderr);
    assert_eq!(story.processes(0), before);
    assert_eq!(told(node.machine.read(&path)), b"# a person's\n");
}

fn map(name: &str, value: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: {value}}}\n"
    )
}

/// Waits until a run has printed a text.
async fn told_by(story: &Story, run: &mut Underway, text: &str) {
    let printed = async || {
        let printed = run.printed()?;
        if printed.contains(text) { Ok(()) } else { Err(printed) }
    };
    told(story.wait(0, &format!("it prints `{text}`"), SOON, printed).await);
}

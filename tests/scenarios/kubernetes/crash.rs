//! A bootstrap may end anywhere: killed before and after every step, or with the power of its
//! machine, and run again it comes to the same end. The points are made from the list of steps, so
//! that a step is covered on the day it is added; whoever adds one whose effect nothing here takes
//! back is told so by a run that comes to its end unkilled.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use nodeagent::bootstrap::step::{Step, steps};
use nodeagent::config::plane::Style as Listed;
use rig::controllers::{ControllersOptions, ETCD, MANIFESTS, PLANE, Raising, Style};
use serde_json::json;

use super::{BRIEF_LEASES, SOON, Story, installed, told};

const APISERVER: &str = "kube-apiserver";
const SCHEDULER: &str = "kube-scheduler";
const RECOVER: &[&str] = &["--recover"];
/// The shortest that is allowed.
const BRIEF: &str = "[control_plane]\nlock_lease = \"5s\"\n";

/// An end of a step, as the journal notes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    Begun,
    Done,
}

#[tokio::test]
async fn z20_a_bootstrap_killed_before_and_after_every_step_comes_to_the_same_end() {
    let Some(mut story) = told_to_raise(Style::Static).await else { return };
    told(story.boot());
    wait_for_certificates(&story);
    kill_at_every_edge(&story, Listed::Static, &[]).await;
    finish(&story, &[]).await;
    story.wait_whole().await;
    let killed = tree(&story);

    lose(&story).await;
    kill_at_every_edge(&story, Listed::Static, RECOVER).await;
    finish(&story, RECOVER).await;
    assert_same(&tree(&story), &killed, "a killed recovery, a killed bootstrap");

    lose(&story).await;
    finish(&story, RECOVER).await;
    assert_same(&tree(&story), &killed, "nobody killed, everywhere killed");
    story.wait_whole().await;
    let planted = told(story.plant_super_user(0));
    assert_eq!(told(story.nodes[0].super_user_material()), planted, "a search that finds");
}

#[tokio::test]
async fn a_self_hosted_bootstrap_killed_before_and_after_every_step_comes_to_its_end() {
    let Some(mut story) = told_to_raise(Style::SelfHosted).await else { return };
    told(story.boot());
    wait_for_certificates(&story);
    kill_at_every_edge(&story, Listed::SelfHosted, &[]).await;
    finish(&story, &[]).await;
    super::self_hosted::wait_final(&story).await;
}

#[tokio::test]
async fn n05_a_bootstrap_whose_power_fails_at_every_step_comes_to_its_end() {
    let Some(mut story) = told_to_raise(Style::Static).await else { return };
    for &step in steps(Listed::Static) {
        if !story.nodes[0].machine.is_on() {
            told(story.boot());
        }
        wait_for_certificates(&story);
        undo(&story, step).await;
        let mut run = told(story.nodes[0].begin_bootstrap(&[]));
        told(run.until("begun", step.name()));
        told(story.nodes[0].machine.kill_power());
    }
    told(story.boot());
    wait_for_certificates(&story);
    finish(&story, &[]).await;
    story.wait_whole().await;
    let failed = tree(&story);
    lose(&story).await;
    finish(&story, RECOVER).await;
    assert_same(&tree(&story), &failed, "nothing failed, power failed everywhere");
}

async fn told_to_raise(style: Style) -> Option<Story> {
    let options = ControllersOptions { style, ..ControllersOptions::new(1) };
    installed(options.raised(Raising::Told).with(BRIEF).with(BRIEF_LEASES)).await
}

/// Until a run has all that it needs.
pub(super) fn wait_for_certificates(story: &Story) {
    told(story.nodes[0].machine.wait_unit(ETCD, "active", SOON));
    story.wait_status(0, "a session and all certificates", |status| {
        let all = status["certificates"].as_array().cloned().unwrap_or_default();
        let issued = |part: &serde_json::Value| part["serial"].is_string();
        status["vault"]["session"] == "logged-in" && !all.is_empty() && all.iter().all(issued)
    });
}

/// One bootstrap, killed and begun again at each edge of each step in turn.
async fn kill_at_every_edge(story: &Story, style: Listed, arguments: &[&str]) {
    let node = &story.nodes[0];
    for &step in steps(style) {
        for edge in [Edge::Begun, Edge::Done] {
            undo(story, step).await;
            let mut run = told(node.begin_bootstrap(arguments));
            told(run.until("begun", step.name()));
            if edge == Edge::Done {
                let_go(story, step);
                let done = run.until("done", step.name());
                told(done.map_err(|error| format!("{error}\n{}", node.evidence())));
            }
            told(run.kill());
            let_go(story, step);
            println!("FIGURE killed_at={edge:?}/{step}{}", arguments.concat());
            release_lock(story).await;
        }
    }
}

/// Makes a step untrue, where a run would pass it by otherwise.
async fn undo(story: &Story, step: Step) {
    let node = &story.nodes[0];
    let remove = |path: &str| told(node.machine.exec_ok(&["rm", "-f", path]));
    match step {
        Step::AwaitEtcd => {
            told(node.machine.systemctl("stop", ETCD));
        }
        Step::SharedSecrets => {
            remove(&format!("{PLANE}/service-account/signing.key"));
        }
        Step::PlaceManifests => {
            remove(&format!("{MANIFESTS}/{SCHEDULER}.yaml"));
        }
        // What reads the key at its start only, and has: one without it would end by itself.
        Step::RefreshComponents => {
            told(story.wait_readyz(0, SOON).await);
            remove(&format!("{PLANE}/service-account/signing.key"));
        }
        Step::AwaitApiserver => {
            told(node.signal(APISERVER, Signal::SIGSTOP));
        }
        Step::AwaitSuccessors => delete_scheduler(story).await,
        // These follow from the others, and from the journal.
        _ => {}
    }
}

/// Lets a step become true that was held up.
fn let_go(story: &Story, step: Step) {
    let node = &story.nodes[0];
    match step {
        Step::AwaitEtcd => {
            told(node.machine.systemctl("start", ETCD));
        }
        Step::AwaitApiserver => {
            told(node.signal(APISERVER, Signal::SIGCONT));
        }
        _ => {}
    }
}

/// Deletes the pod of the final scheduler: another one has to get ready.
async fn delete_scheduler(story: &Story) {
    let pods = "/api/v1/namespaces/kube-system/pods";
    let selected = format!("{pods}?labelSelector=nodeagent%2Fplace%3Ddaemon-set");
    let pods = async || {
        let found = told(story.api(0)).list(&selected).await?;
        let names = found.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
        names.map(str::to_owned).find(|name| name.starts_with(SCHEDULER)).ok_or("none".to_owned())
    };
    let name = told(story.wait(0, "there is a final scheduler", SOON, pods).await);
    let path = format!("/api/v1/namespaces/kube-system/pods/{name}?gracePeriodSeconds=0");
    told(told(story.api(0)).delete(&path).await);
}

/// The lease of a run that was killed ends by itself, after 5 s; what that is like is another
/// story, and here it would be most of this one.
async fn release_lock(story: &Story) {
    // base64 of "/nodeagent/rig/control-plane".
    let key = json!({"key": "L25vZGVhZ2VudC9yaWcvY29udHJvbC1wbGFuZQ=="});
    let release = async || told(story.etcd(0)).create("/v3/kv/deleterange", &key).await;
    told(story.wait(0, "etcd takes the lock away", SOON, release).await);
}

/// Nothing is left of the control plane but its data.
async fn lose(story: &Story) {
    told(story.nodes[0].remove_manifests());
    let gone = async || match story.processes(0) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?} run")),
    };
    told(story.wait(0, "nothing of the control plane runs", SOON, gone).await);
}

/// A run that nobody kills, then one that finds nothing to do, and nothing left behind.
async fn finish(story: &Story, arguments: &[&str]) {
    let node = &story.nodes[0];
    let last = told(node.bootstrap(arguments));
    let printed = format!("{}{}", last.stdout, last.stderr);
    assert!(last.status.success(), "{printed}\n{}", node.evidence());
    let again = told(node.bootstrap(&[]));
    assert!(again.stdout.ends_with("nothing is to do\n"), "{}{}", again.stdout, again.stderr);
    assert_eq!(told(node.super_user_material()), Vec::<String>::new());
    let lock = json!({"key": "L25vZGVhZ2VudC9yaWcvY29udHJvbC1wbGFuZQ=="});
    let held = told(told(story.etcd(0)).create("/v3/kv/range", &lock).await);
    assert!(held["kvs"].is_null(), "the lock was given back: {held}");
}

type Tree = BTreeMap<String, (u32, Vec<u8>)>;

/// Every file that a control plane is made of: its mode and its content.
fn tree(story: &Story) -> Tree {
    let mut files = Tree::new();
    for directory in [MANIFESTS, PLANE] {
        collect(story.nodes[0].machine.root(), directory.trim_start_matches('/'), &mut files);
    }
    files
}

fn collect(root: &Path, directory: &str, files: &mut Tree) {
    for entry in std::fs::read_dir(root.join(directory)).expect("a directory").flatten() {
        let name = format!("{directory}/{}", entry.file_name().to_string_lossy());
        let kind = entry.metadata().expect("it is there");
        if kind.is_dir() {
            collect(root, &name, files);
        } else {
            let bytes = std::fs::read(entry.path()).expect("it can be read");
            files.insert(name, (kind.permissions().mode() & 0o7777, bytes));
        }
    }
}

fn assert_same(one: &Tree, other: &Tree, what: &str) {
    let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(one), names(other), "{what}");
    let differing: Vec<_> = one.iter().filter(|(name, file)| other[*name] != **file).collect();
    let differing: Vec<_> = differing.iter().map(|(name, _)| name).collect();
    assert!(differing.is_empty(), "{what}: {differing:?} differ");
}

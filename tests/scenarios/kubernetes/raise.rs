//! From a fresh controller to a served, healthy API: by the agent itself, and by one command.

use nodeagent::status::metrics;
use rig::controllers::{ControllersOptions, MANIFESTS, PLANE, Raising};
use serde_json::json;

use super::{SOON, installed, raised, told};
use crate::metrics::{faults, promtool};

const NOTHING: &str = "the control plane is whole: nothing is to do\n";

#[tokio::test]
async fn a_fresh_controller_raises_its_control_plane_by_itself() {
    let Some(story) = raised(ControllersOptions::new(1)).await else { return };
    let node = &story.nodes[0];
    let manifests = ["kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml"];
    assert_eq!(node.manifests(), manifests);
    let members = told(story.etcd_members(0).await);
    assert_eq!(members.len(), 1);
    assert_eq!(members[0]["name"], node.member.as_str());

    let processes = story.processes(0);
    let output = told(node.bootstrap(&[]));
    assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
    assert!(output.stdout.ends_with(NOTHING), "{}", output.stdout);
    assert_eq!(story.processes(0), processes, "nothing was restarted");

    story.wait_status(0, "a whole control plane", |status| {
        status["control_plane"]["step"].is_null() && status["health"] == "healthy"
    });
    let published = node.machine.read(metrics::PATH).expect("the metrics are there");
    told(of_whole_controller(&String::from_utf8_lossy(&published)));
}

/// What a whole controller's metrics say, and that they are as few as docs/metrics.md has it.
fn of_whole_controller(metrics: &str) -> Result<(), String> {
    let mut wanted = vec![String::from("nodeagent_control_plane_whole 1\n")];
    for component in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        wanted.push(format!("component_ready{{component=\"{component}\"}} 1\n"));
    }
    if let Some(missing) = wanted.iter().find(|wanted| !metrics.contains(wanted.as_str())) {
        return Err(format!("no {missing} in:\n{metrics}"));
    }
    let series = metrics.lines().filter(|line| !line.starts_with('#')).count();
    println!("FIGURE series_of_a_controller={series}");
    let faults = promtool().map(|promtool| faults(&promtool, metrics)).unwrap_or_default();
    match series {
        _ if !faults.is_empty() => Err(faults),
        ..250 => Ok(()),
        _ => Err(format!("{series} series")),
    }
}

#[tokio::test]
async fn a_person_raises_a_control_plane_with_one_command() {
    let options = ControllersOptions::new(1).raised(Raising::Told);
    let Some(mut story) = installed(options).await else { return };
    told(story.boot());
    let node = &story.nodes[0];
    story.wait_status(0, "the certificates of the API server", |status| {
        !rig::node::watch::serial(status, "kube-apiserver").is_empty()
    });
    assert_eq!(node.manifests(), Vec::<String>::new(), "nobody told it");
    let planned = told(node.bootstrap(&["--plan"]));
    assert!(planned.stdout.contains("place-manifests"), "{}{}", planned.stdout, planned.stderr);
    assert!(!planned.stdout.contains(NOTHING), "{}", planned.stdout);
    assert_eq!(node.manifests(), Vec::<String>::new(), "a plan touches nothing");

    let output = told(node.bootstrap(&[]));
    let printed = format!("{}{}", output.stdout, output.stderr);
    assert!(output.status.success(), "{printed}\n{}", node.evidence());
    let steps =
        ["shared-secrets", "place-manifests", "await-apiserver", "apply-assets"].map(|step| {
            let done = format!("{step:27} done in ");
            printed.find(&done).unwrap_or_else(|| panic!("no end of {step} in:\n{printed}"))
        });
    assert!(steps.is_sorted(), "{printed}");
    assert!(printed.contains("the control plane is whole: "), "{printed}");
    // It ends when the API is served: nothing is waited for here.
    let ready = told(story.api(0)).call("GET", "/readyz", None).await;
    assert_eq!(ready.expect("an answer").status, 200);
    told(story.wait_node_ready(0, 0, SOON).await);

    let processes = story.processes(0);
    let again = told(node.bootstrap(&[]));
    assert_eq!(again.stdout, NOTHING, "{}", again.stderr);
    assert_eq!(story.processes(0), processes, "nothing was restarted");
    let marked = told(
        node.machine
            .exec_ok(&["head", "-n1", &format!("{MANIFESTS}/kube-scheduler.yaml")])
            .map_err(|error| error.to_string()),
    );
    assert!(marked.starts_with('#') && marked.contains("nodeagent"), "{marked}");
}

#[tokio::test]
async fn three_fresh_controllers_raise_one_cluster() {
    let Some(story) = raised(ControllersOptions::new(3)).await else { return };
    let nodes = told(told(story.api(2)).list("/api/v1/nodes").await);
    let mut names: Vec<_> = nodes.iter().map(|node| node["metadata"]["name"].clone()).collect();
    names.sort_by_key(ToString::to_string);
    let instances: Vec<_> = story.nodes.iter().map(|node| node.instance.as_str()).collect();
    assert_eq!(names, instances);
    assert_eq!(told(story.etcd_members(0).await).len(), 3);
    // What a token is signed with on one controller is taken on the others.
    let keys = story.nodes.iter().map(|node| {
        node.machine.read(&format!("{PLANE}/service-account/verify.pem")).expect("it is there")
    });
    let keys: Vec<_> = keys.collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "the controllers' keys differ");
    let ask = json!({"spec": {}});
    let path = "/api/v1/namespaces/kube-system/serviceaccounts/default/token";
    let token = told(told(story.api(0)).create(path, &ask).await);
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token["status"]["token"]},
    });
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = told(told(story.api(1)).create(path, &review).await);
    assert_eq!(review["status"]["authenticated"], true, "{:#}", review["status"]);
}

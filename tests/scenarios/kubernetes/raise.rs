//! From a fresh controller to a served, healthy API: by the agent itself, and by one command.

use rig::controllers::{ControllersOptions, MANIFESTS, Raising};

use super::{SOON, installed, raised, told};

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

//! The guard of the metadata service on a booted node. Whom it lets through hangs on the slices
//! that the node's own systemd and kubelet place them in, and the agent has to be among them.

use std::path::Path;

use rig::node::{KUBELET, NodeOptions};
use rig::peer::kube::container_pids;

use super::{Story, installed};

const GUARD: &str = "nodeagent-imds-guard.service";
/// Where the service is on AWS, which is the agent's default.
const SERVICE: &str = "[identity]\nimds = \"http://169.254.169.254\"\n";
/// A connection is all that is to be had or not.
const ASK: &str = "exec 3<> /dev/tcp/169.254.169.254/80";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Reached,
    Prohibited,
}
use Answer::{Prohibited, Reached};

#[tokio::test]
async fn n17_on_a_booted_node_the_guard_lets_the_agent_through_and_no_pod() {
    let Some(mut story) = installed(NodeOptions::worker().with(SERVICE)).await else {
        return;
    };
    story.boot().expect("it boots");
    stand_in(&story);
    let former = story.wait_serving();
    assert_eq!(asked(&story), [Reached; 5], "without a guard");

    story.run(&["systemctl", "enable", "--now", GUARD]);
    let guarded = [Reached, Reached, Prohibited, Prohibited, Prohibited];
    assert_eq!(asked(&story), guarded, "with the guard");
    story.run(&["systemctl", "reload", GUARD]);
    assert_eq!(asked(&story), guarded, "with the guard loaded again");

    // Its certificates are good, so that it would wait with its log-in for the rest of a fleet.
    story.configure("[vault]\nsplay = \"1s\"\n");
    story.machine.reboot().expect("it boots again");
    assert_eq!(story.wait_serving(), former);
    story
        .wait_status("a log-in past the guard", |status| status["vault"]["session"] == "logged-in");
    let (guard, kubelet) =
        (story.instant(GUARD, "ActiveEnter"), story.instant(KUBELET, "ActiveEnter"));
    assert!(0 < guard && guard < kubelet, "{guard} {kubelet}: it is there before any pod");
    assert_eq!(asked(&story), guarded, "after a reboot");

    story.run(&["systemctl", "stop", GUARD]);
    assert_eq!(asked(&story), [Reached; 5], "after the guard");
}

/// The service at its address, on this node alone; behind it is the site's.
fn stand_in(story: &Story) {
    let target = story.imds.url().replace("http://", "");
    let units = [
        ("socket", "[Socket]\nListenStream=169.254.169.254:80\n".to_owned()),
        (
            "service",
            format!("[Service]\nExecStart=/usr/lib/systemd/systemd-socket-proxyd {target}"),
        ),
    ];
    for (kind, text) in units {
        let text = format!("{text}\n[Install]\nWantedBy=sockets.target\n");
        story.write(&format!("/etc/systemd/system/imds.{kind}"), &text).expect("it is written");
    }
    // The network is the rig's, and stays when the node reboots. Who asks does so from the address
    // of the node, as on AWS: else the answers would go to the service's.
    let node = story.machine.ip().to_string();
    story.run(&["ip", "addr", "add", "169.254.169.254/32", "dev", "lo"]);
    let own = ["local", "169.254.169.254", "dev", "lo", "table", "local", "src", &node];
    story.run(&[&["ip", "route", "replace"], &own[..]].concat());
    story.run(&["systemctl", "enable", "--now", "imds.socket"]);
}

/// What root's services, root's shells, others than root, a slice of pods, and the container of a
/// pod that runs are told, in this order.
fn asked(story: &Story) -> [Answer; 5] {
    let service = |placed: &[&str]| {
        let run = ["systemd-run", "--quiet", "--wait", "--pipe"];
        ask(story, &[&run, placed, &["timeout", "10", "bash", "-c", ASK]].concat())
    };
    let joined = format!("echo $$ > \"/sys/fs/cgroup$0/cgroup.procs\" || exit 99; {ASK}");
    let pod = pod(story);
    [
        service(&[]),
        service(&["--slice=user.slice"]),
        service(&["--uid=nobody"]),
        service(&["--slice=kubepods.slice"]),
        ask(story, &["timeout", "10", "bash", "-c", &joined, &pod]),
    ]
}

fn ask(story: &Story, argv: &[&str]) -> Answer {
    let asked = story.machine.exec(argv).expect("exec");
    match (asked.status.success(), &asked.stderr) {
        (true, _) => Reached,
        // So that a path that is broken is not taken for one that is guarded.
        (false, said) if said.contains("No route to host") => Prohibited,
        (false, said) if said.contains("Permission denied") => Prohibited,
        (false, said) => panic!("{argv:?}: {}: {said}", asked.status),
    }
}

/// The cgroup of a container of the kubelet's.
fn pod(story: &Story) -> String {
    let mut path = None;
    story.wait("a container runs", || {
        let pids = container_pids(&story.machine).unwrap_or_default();
        path = pids.into_values().next().map(|pid| format!("/proc/{pid}/cgroup"));
        path.is_some()
    });
    let told = story.run(&["cat", &path.unwrap_or_default()]);
    let cgroup =
        told.lines().find_map(|line| line.strip_prefix("0::")).expect("cgroup2").to_owned();
    assert!(Path::new(&cgroup).parent().is_some(), "{cgroup}: it has one of its own");
    cgroup
}

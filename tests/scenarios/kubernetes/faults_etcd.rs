//! What goes wrong with etcd is told in its own words and is not repaired by the agent: a member
//! that is stopped, slow or full is waited for, and where the data are gone nothing is begun, least
//! of all another cluster.

use std::time::Duration;

use nix::sys::signal::Signal;
use rig::controllers::ETCD;
use serde_json::json;

use super::{SOON, Story, raised_when_told, told};

const MEMBER: &str = "/var/lib/etcd/member";
const AWAY: &str = "/var/lib/etcd-away";
const RECOVER: &[&str] = &["--recover"];
/// Longer than a look at etcd takes (3 s), shorter than the lease of the lock (15 s).
const SLOW: Duration = Duration::from_secs(5);

#[tokio::test]
async fn z10_an_etcd_that_is_stopped_slow_full_or_has_lost_its_data_is_told_and_left_alone() {
    let Some(story) = raised_when_told().await else { return };

    stopped(&story).await;
    slow(&story).await;
    full(&story).await;
    data_gone(&story).await;
    story.wait_whole().await;
}

async fn stopped(story: &Story) {
    let node = &story.nodes[0];
    told(node.machine.systemctl("stop", ETCD));
    let mut bootstrap = told(node.begin_bootstrap(&[]));
    let waits = format!("{:27} waiting: {ETCD} is inactive", "await-etcd");
    told_by(story, &mut bootstrap, &waits).await;
    wait_told(story, "await-etcd: etcd-member.service is inactive");
    told(node.machine.systemctl("start", ETCD));
    let ended = told(bootstrap.wait());
    assert!(ended.status.success(), "{}\n{}", ended.printed, node.evidence());
}

/// A member that answers nothing for longer than anybody waits for an answer. It is the whole
/// cluster's lock and the API server's data that are slow here, in the middle of a run.
async fn slow(story: &Story) {
    let node = &story.nodes[0];
    let mut bootstrap = told(node.begin_bootstrap(RECOVER));
    told(bootstrap.until("begun", "apply-assets"));
    assert_eq!(told(node.signal("etcd", Signal::SIGSTOP)), 1);
    tokio::time::sleep(SLOW).await;
    assert_eq!(told(node.signal("etcd", Signal::SIGCONT)), 1);
    let ended = told(bootstrap.wait());
    assert!(ended.status.success(), "{}\n{}", ended.printed, node.evidence());
}

/// The alarm that etcd itself raises where its quota is used up: it answers, and takes no write.
async fn full(story: &Story) {
    let node = &story.nodes[0];
    let etcd = told(story.etcd(0));
    let alarm = |action: &str| json!({"action": action, "memberID": 0, "alarm": "NOSPACE"});
    told(etcd.create("/v3/maintenance/alarm", &alarm("ACTIVATE")).await);
    let mut bootstrap = told(node.begin_bootstrap(RECOVER));
    let waits = format!("{:27} waiting: etcd is not healthy: ALARM NOSPACE", "await-etcd");
    told_by(story, &mut bootstrap, &waits).await;
    wait_told(story, "await-etcd: etcd is not healthy: ALARM NOSPACE");
    told(etcd.create("/v3/maintenance/alarm", &alarm("DEACTIVATE")).await);
    let ended = told(bootstrap.wait());
    assert!(ended.status.success(), "{}\n{}", ended.printed, node.evidence());
}

/// As after a volume that was not mounted: an empty directory, and an agent that knows better.
async fn data_gone(story: &Story) {
    let node = &story.nodes[0];
    told(node.machine.systemctl("stop", ETCD));
    told(node.machine.exec_ok(&["mv", MEMBER, AWAY]));
    let journal = node.steps_journal();
    let gone =
        "/var/lib/etcd: this node was a member of etcd, and the data of that member are gone";
    for arguments in [&[][..], RECOVER, &["--plan"]] {
        let refused = told(node.bootstrap(arguments));
        assert_eq!(refused.status.code(), Some(77), "{}{}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains(gone), "{}", refused.stderr);
        assert!(refused.stderr.contains("findmnt /var/lib/etcd"), "{}", refused.stderr);
    }
    assert_eq!(node.steps_journal(), journal, "nothing was begun");
    // Its start waits at its condition for a minute; nobody has to wait for that here.
    told(node.machine.exec_ok(&["systemctl", "restart", "--no-block", ETCD]));
    let held = async || {
        let log = node.machine.journal(ETCD).map_err(|error| error.to_string())?;
        if log.contains("waiting: /var/lib/etcd: this node was") { Ok(()) } else { Err(log) }
    };
    told(story.wait(0, "its start is held", SOON, held).await);
    wait_told(story, "the data of that member are gone");
    assert_eq!(node.pids("etcd"), Vec::<u32>::new(), "no etcd is started as a new one");
    let left = told(node.machine.exec_ok(&["ls", "-A", "/var/lib/etcd"]));
    assert_eq!(left, "", "nothing was written where the data were");
    told(node.machine.systemctl("stop", ETCD));
    told(node.machine.exec_ok(&["mv", AWAY, MEMBER]));
    told(node.machine.systemctl("start", ETCD));
    let again = told(node.bootstrap(&[]));
    assert!(again.status.success(), "{}{}\n{}", again.stdout, again.stderr, node.evidence());
}

/// Waits until a run has printed a text.
async fn told_by(story: &Story, run: &mut rig::controllers::underway::Underway, text: &str) {
    let printed = async || {
        let printed = run.printed()?;
        if printed.contains(text) { Ok(()) } else { Err(printed) }
    };
    told(story.wait(0, &format!("it prints `{text}`"), SOON, printed).await);
}

/// Waits until the daemon's status tells of it.
fn wait_told(story: &Story, text: &str) {
    story.wait_status(0, text, |status| {
        let problems = status["problems"].as_array().cloned().unwrap_or_default();
        problems.iter().any(|problem| problem["text"].as_str().is_some_and(|t| t.contains(text)))
    });
}

//! A controller's whole life, from its first boot over a rotation, an outage, the loss of its
//! control plane and crashes to another boot, with everything real; and no secret of it is
//! anywhere but where it is kept, for root alone. (The super-user of a bootstrap is looked for in
//! `crash`: nobody outside its process has ever seen its key.) What is searched is all that the
//! machine has: arguments and environments of all its processes as they come and go, the journal,
//! the properties of units, what the agent tells, and every file, whoever may read it. The same
//! search then finds what is planted.

mod disk;
mod watch;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rig::controllers::{Controller, ControllersOptions, ETCD, Raising};
use rig::node::AGENT;
use rig::proxy::Fault;

use super::{SOON, Story, installed, rotation, told};
use crate::scan::Secrets;
use disk::Disk;
use watch::Watch;

/// Where secrets are kept; what is below a directory belongs to it. None of it is for others.
const KEPT: [&str; 6] = [
    "/var/lib/nodeagent/archive/",
    "/var/lib/nodeagent/nonce/",
    "/var/lib/nodeagent-certs/",
    "/run/nodeagent/token",
    "/etc/kubernetes/nodeagent/service-account/signing.key",
    "/etc/kubernetes/nodeagent/encryption.yaml",
];
/// What no secret of anybody's would do without, where only texts are.
const LOOKS: [&str; 3] = ["PRIVATE KEY", "hvs.", "hvb."];
/// The longest lines of the agent are those for whoever looks for an error.
const DEBUG: &str = "[Service]\nEnvironment=NODEAGENT_LOG=debug\n";
/// A core dump is allowed, and would be written here.
const DUMPING: &str =
    "cd /var/tmp && ulimit -c $(ulimit -Hc) && exec nodeagent bootstrap --recover";
/// Ends that run.
const CRASH_OF_A_RUN: &str = r#"for process in /proc/[0-9]*; do
tr '\0' ' ' < $process/cmdline | grep -q '^nodeagent bootstrap' && kill -ABRT ${process#/proc/}
done 2>/dev/null; :"#;

/// What the machine has told so far, by where.
type Told = BTreeMap<String, Vec<u8>>;

#[tokio::test]
async fn z09_through_the_life_of_a_controller_no_secret_is_anywhere_but_where_it_is_kept() {
    let options = ControllersOptions::new(1).raised(Raising::Told);
    let Some(mut story) = installed(options).await else { return };
    told(story.nodes[0].write(&format!("/etc/systemd/system/{AGENT}.d/debug.conf"), DEBUG));
    let disk = Disk::since_now();
    told(story.boot());
    let watch = Watch::start(&story.nodes[0]);
    let (mut shown, mut secrets) = (Told::new(), Secrets::default());

    live(&mut story, &mut shown).await;
    crash(&story).await;
    collect(&story, &mut secrets).await;
    shown.insert("the journal".into(), journal(&story.nodes[0]));
    let seen = watch.stop();
    shown.extend(seen.shown.clone());
    secrets.extend(seen.secrets.clone());
    let before = disk.search(&story.nodes[0], &secrets);

    told(story.nodes[0].machine.reboot());
    let watch = Watch::start(&story.nodes[0]);
    story.wait_whole().await;
    story.wait_status(0, "health", |status| status["health"] == "healthy");
    ask(&story.nodes[0], "after the boot", &mut shown);
    collect(&story, &mut secrets).await;
    let again = watch.stop();
    shown.extend(again.shown);
    secrets.extend(again.secrets);
    println!(
        "FIGURE leaks_looks={} leaks_processes={} leaks_texts={} leaks_bytes={}",
        seen.looks + again.looks,
        seen.processes + again.processes,
        shown.len(),
        shown.values().map(Vec::len).sum::<usize>(),
    );
    shown.insert("the journal".into(), journal(&story.nodes[0]));
    let after = disk.search(&story.nodes[0], &secrets);

    let mut looks = secrets.clone();
    LOOKS.iter().for_each(|look| looks.add_look(look));
    assert_eq!(looks.leaks(&shown), [""; 0]);
    for found in [&before, &after] {
        assert_eq!(found.astray(&KEPT), [""; 0]);
        assert_eq!(found.dumps, [""; 0], "core dumps");
        // What is known to be there is seen, so the search has eyes.
        KEPT.iter().for_each(|place| assert!(found.is_in(place), "nothing is seen in {place}"));
    }
    planted(&story.nodes[0], &secrets, &disk);
}

/// Everything that goes well, and everything that a person cures.
async fn live(story: &mut Story, shown: &mut Told) {
    super::crash::wait_for_certificates(story);
    let node = &story.nodes[0];
    let first = told(node.bootstrap(&[]));
    assert!(first.status.success(), "{}{}\n{}", first.stdout, first.stderr, node.evidence());
    shown.insert("bootstrap".into(), [first.stdout, first.stderr].concat().into_bytes());
    story.wait_whole().await;
    ask(node, "when all is well", shown);

    rotation::renew_all(story, &[0]);
    story.site.proxy.set(Fault::Refuse);
    told(node.machine.systemctl("reload", AGENT));
    told(node.machine.nodeagent(SOON, &["renew", "kubelet-server"]));
    story.wait_status(0, "that vault is away", |status| {
        let problems = status["problems"].as_array().cloned().unwrap_or_default();
        problems.iter().any(|problem| problem["code"] == "vault-unreachable")
    });
    ask(node, "without vault", shown);
    story.site.proxy.set(Fault::None);
    told(node.machine.systemctl("reload", AGENT));
    story.wait_status(0, "health", |status| status["health"] == "healthy");
}

/// What ends a program at once and would have its memory written to a disk: the agent's own, and
/// that of a run that a person has begun where dumps are allowed. All manifests are lost with it.
async fn crash(story: &Story) {
    let node = &story.nodes[0];
    told(node.remove_manifests());
    told(node.kill_components());
    let machine = &node.machine;
    let argv = ["sh", "-c", DUMPING];
    let begun = node.steps_journal().len();
    let run = std::thread::scope(|scope| {
        let run = scope.spawn(|| machine.exec_within(SOON, &argv));
        let end = Instant::now() + SOON;
        while node.steps_journal().len() == begun {
            assert!(Instant::now() < end, "no run: {}", node.evidence());
            std::thread::sleep(Duration::from_millis(2));
        }
        told(machine.exec_ok(&["sh", "-c", CRASH_OF_A_RUN]));
        told(run.join().expect("no panic"))
    });
    assert_eq!(run.status.signal(), Some(6), "{:?} {}{}", run.status, run.stdout, run.stderr);
    // As the watchdog does it, and as a fault does; a SIGSEGV without one is waved away once.
    for signal in ["SIGABRT", "SIGILL"] {
        let before = told(machine.main_pid(AGENT)).expect("it runs");
        let limits = told(machine.read(&format!("/proc/{before}/limits")));
        let limits = String::from_utf8_lossy(&limits).into_owned();
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        let words: Vec<_> = core.expect("a limit").split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{limits}");
        told(machine.kill(AGENT, signal));
        let other = || machine.main_pid(AGENT).ok()?.filter(|now| *now != before);
        told(rig::machine::wait_for("another agent", SOON, other));
    }
    let recovered = told(node.bootstrap(&["--recover"]));
    assert!(recovered.status.success(), "{}{}", recovered.stdout, recovered.stderr);
    story.wait_whole().await;
}

/// What only a look at Vault, or at the files at this moment, has.
async fn collect(story: &Story, secrets: &mut Secrets) {
    let stored = told(story.vault().read("kv-control-plane/data/rig").await);
    let document = stored.data("data");
    for key in document["service_account"].as_array().expect("a list") {
        secrets.add_key("service-account key", key["private_pem"].as_str().expect("a key"));
    }
    for key in document["encryption"].as_array().expect("a list") {
        secrets.add("encryption key", key["secret"].as_str().expect("a key"));
    }
    let node = &story.nodes[0];
    let read = |path: &str| {
        let bytes = told(node.machine.read(path));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    secrets.extend(Secrets::of_node(read, &node.instance, &[]));
}

/// What the agent and systemd tell whoever asks.
fn ask(node: &Controller, when: &str, shown: &mut Told) {
    let machine = &node.machine;
    for verb in [&["status"][..], &["status", "--json"], &["check"], &["bootstrap", "--plan"]] {
        let output = told(machine.nodeagent(SOON, verb));
        let text = [output.stdout, output.stderr].concat();
        assert!(!text.is_empty(), "{verb:?}");
        shown.insert(format!("{} {when}", verb.join(" ")), text.into_bytes());
    }
    // All that D-Bus tells of every unit and of systemd itself.
    for argv in [&["systemctl", "show", "*"][..], &["systemctl", "show"]] {
        let text = told(machine.exec_ok(argv));
        assert!(text.len() > 1000, "{text}");
        shown.insert(format!("{} {when}", argv.join(" ")), text.into_bytes());
    }
    for path in [nodeagent::status::PATH, nodeagent::status::metrics::PATH] {
        let bytes = told(machine.read(path));
        shown.insert(format!("{path} {when}"), bytes);
    }
}

/// The journal of all boots, each entry with all of its fields, also those that are compressed in
/// its files.
fn journal(node: &Controller) -> Vec<u8> {
    let argv = ["journalctl", "--quiet", "--no-pager", "--all", "--output=export"];
    let text = told(node.machine.exec_ok(&argv));
    assert!(text.contains(&format!("_SYSTEMD_UNIT={AGENT}\n")), "the agent has logged nothing");
    assert!(text.contains(&format!("_SYSTEMD_UNIT={ETCD}\n")), "etcd has logged nothing");
    text.into_bytes()
}

/// A secret of each kind is let slip in each way, and each is found.
fn planted(node: &Controller, secrets: &Secrets, disk: &Disk) {
    let machine = &node.machine;
    let watch = Watch::start(node);
    let run = |script: &str| told(machine.exec(&["sh", "-c", script]));
    let token = "\"$(cat /run/nodeagent/token)\"";
    let nonce = "\"$(cat /var/lib/nodeagent/nonce/aws/*)\"";
    let key = "/var/lib/nodeagent-certs/kubelet/kubelet-server/current/key.pem";
    run(&format!("exec sh -c 'sleep 0.3; :' argument {token}"));
    run(&format!("PLANTED={nonce} exec sleep 0.3"));
    run(&format!("systemd-cat < {key}"));
    run("base64 -w0 < /etc/kubernetes/nodeagent/encryption.yaml > /tmp/planted");
    // A real dump where the kernel writes it to a file, which the shell here asks it for.
    let dump =
        format!("cd /srv && ulimit -c $(ulimit -Hc) && PLANTED={token} sh -c 'kill -ABRT $$'");
    run(&dump);
    let seen = watch.stop();
    for (what, place) in [("token", "cmdline"), ("nonce", "environ")] {
        let found = secrets.leaks(&seen.shown);
        let is_it = |leak: &String| leak.contains(what) && leak.contains(place);
        assert!(found.iter().any(is_it), "no {what} in a {place}: {found:?}");
    }
    let journal = Told::from([("the journal".to_owned(), journal(node))]);
    let found = secrets.leaks(&journal);
    assert!(found.iter().any(|leak| leak.contains("key of kubelet-server")), "{found:?}");
    let found = disk.search(node, secrets);
    let astray = found.astray(&KEPT);
    let file = astray.iter().any(|leak| leak.contains("encryption key is in /tmp/planted"));
    assert!(file, "{astray:?}");
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with(['|', '/']) {
        println!("no dump is planted: the kernel gives them to {pattern}");
        return;
    }
    assert!(found.dumps.iter().any(|path| path.starts_with("/srv/core")), "{:?}", found.dumps);
    assert!(astray.iter().any(|leak| leak.contains("token is in /srv/core")), "{astray:?}");
}

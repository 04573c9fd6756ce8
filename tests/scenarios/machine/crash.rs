//! The agent is killed at random points of a rotation, and consumers start in the middle of one:
//! nobody ever meets a certificate without its key, and every generation has one act at most.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rig::machine::Machine;
use rig::node::{AGENT, KUBELET, NodeOptions};
use rig::peer::kube::{KUBELET_PORT, served_leaf};
use rig::pki::{self, Leaf};

use super::{SOON, Story, serving};
use crate::play::{random, seed};

/// As often as a story likes, and a start again at once: RestartSteps= would make it wait for
/// minutes after ten kills.
const IMPATIENT: &str = "[Service]\nRestartSec=50ms\nRestartSteps=0\n";
const UNBOUND: &str = "[rotation]\nissues_per_hour = 3600\n";
/// Nor does anybody restart a kubelet five times in ten seconds, which systemd would refuse.
const UNLIMITED: &str = "[Unit]\nStartLimitIntervalSec=0\n";
const RESTART: &str = "[[consumer]]\nname = \"kubelet\"\nact = \"restart\"\n";
/// A rotation, from the wish to the proof, takes this long here.
const ROTATION_MS: u64 = 300;

#[tokio::test]
async fn an_agent_killed_anywhere_in_a_rotation_leaves_a_pair_that_fits() {
    let Some(story) = serving(NodeOptions::worker().with(UNBOUND)).await else {
        return;
    };
    let run = story.kubelet_run().expect("the kubelet runs");
    kill_in_the_middle(&story, 10);
    assert_eq!(story.kubelet_run().expect("the kubelet runs"), run, "no act was needed");
}

#[tokio::test]
async fn an_agent_killed_around_a_restart_restarts_a_generation_once() {
    let Some(story) = serving(NodeOptions::worker().with(UNBOUND).with(RESTART)).await else {
        return;
    };
    story.drop_in(KUBELET, UNLIMITED);
    // Its first generation may have had an act: the gate opens, and the kubelet may be up, before
    // the agent looks at it.
    let before = starts_and_generation(&story);
    kill_in_the_middle(&story, 10);
    let after = starts_and_generation(&story);
    println!("FIGURE kubelet_starts_and_generation={before:?}..{after:?}");
    let (acts, generations) = (after.0 - before.0, after.1 - before.1);
    assert!((1..=generations).contains(&acts), "{acts} acts for {generations} generations");
    assert_eq!(story.machine.unit_property(KUBELET, "NRestarts").expect("a number"), "0");
}

/// How often the kubelet was started, and the generation of what it serves, once all is well.
fn starts_and_generation(story: &Story) -> (u64, u64) {
    let status = story.wait_healthy();
    let generation = status["certificates"][0]["generation"].as_u64().expect("a number");
    let journal = story.machine.journal(KUBELET).expect("a journal");
    (journal.matches("Started kubelet.service").count() as u64, generation)
}

#[tokio::test]
async fn a_kubelet_that_starts_in_the_middle_of_a_rotation_serves_a_pair_that_fits() {
    let Some(story) = serving(NodeOptions::worker().with(UNBOUND)).await else {
        return;
    };
    let mut former = story.wait_serving();
    story.drop_in(KUBELET, UNLIMITED);
    let readers = Readers::start(&story.machine);
    let mut seed = seed();
    for _ in 0..6 {
        story.renew();
        wait_a_random_time(&mut seed);
        story.run(&["systemctl", "restart", KUBELET]);
        let (serial, _) = story.wait_served_other(&former, SOON).expect("another serial");
        // Not the proof: a kubelet that was down when the agent looked reads the new files anyway.
        story.wait_status("the serial on disk", |status| {
            status["health"] == "healthy"
                && rig::node::watch::serial(status, "kubelet-server") == serial
        });
        former = serial;
    }
    readers.end();
    let restarts = story.machine.unit_property(KUBELET, "NRestarts").expect("a number");
    println!("FIGURE kubelets_that_gave_up={restarts}");
    story.wait_healthy();
}

fn kill_in_the_middle(story: &Story, times: u32) {
    story.wait_serving();
    story.drop_in(AGENT, IMPATIENT);
    let readers = Readers::start(&story.machine);
    let mut seed = seed();
    for _ in 0..times {
        story.renew();
        wait_a_random_time(&mut seed);
        let pid = story.machine.main_pid(AGENT).expect("a pid");
        story.machine.kill(AGENT, "SIGKILL").expect("a signal");
        story.wait("systemd starts the agent again", || {
            let now = story.machine.main_pid(AGENT).unwrap_or_default();
            now.is_some() && now != pid
        });
        story.machine.wait_unit(AGENT, "active", SOON).expect("it is READY");
    }
    story.wait("the last wish is fulfilled", || {
        let wish = ["test", "-e", "/run/nodeagent/requests/kubelet-server"];
        story.machine.exec(&wish).is_ok_and(|output| !output.status.success())
    });
    let former = story.wait_serving();
    story.renew();
    let (serial, _) = story.wait_served_other(&former, SOON).expect("rotations go on");
    story.wait_proved(&serial);
    readers.end();
    assert_eq!(story.wait_healthy()["problems"], serde_json::json!([]));
}

fn wait_a_random_time(seed: &mut u64) {
    std::thread::sleep(Duration::from_millis(random(seed, ROTATION_MS)));
}

/// Those who look all the time: a client of the kubelet, one that reads the pair as one file, and
/// one that holds a generation open and reads two.
struct Readers {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u32, String>>>,
}

impl Readers {
    fn start(machine: &Machine) -> Readers {
        let ended = Arc::new(AtomicBool::new(false));
        let published = machine.root().join("var/lib/nodeagent-certs/kubelet/kubelet-server");
        let (one, two, address) = (published.clone(), published, machine.ip());
        let threads = vec![
            watch(&ended, move || handshake((address, KUBELET_PORT).into())),
            watch(&ended, move || pair_in_one_file(&one.join("current"))),
            watch(&ended, move || pair_of_a_generation(&two)),
        ];
        Readers { ended, threads }
    }

    /// Every one has seen something, and nobody a pair that does not fit.
    fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let seen = thread.join().expect("a reader does not panic").expect("it saw pairs only");
            assert!(seen > 0, "a reader saw nothing");
        }
    }
}

/// Looks until the end; how often it saw a pair, or what it saw that was none.
fn watch(
    ended: &Arc<AtomicBool>,
    look: impl Fn() -> Result<bool, String> + Send + 'static,
) -> JoinHandle<Result<u32, String>> {
    let ended = Arc::clone(ended);
    std::thread::spawn(move || {
        let mut seen = 0;
        while !ended.load(Ordering::Relaxed) {
            seen += u32::from(look()?);
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(seen)
    })
}

/// A handshake that ends well shows that the server holds the key. A server that is being
/// restarted refuses or cuts the connection, which is no pair.
fn handshake(address: std::net::SocketAddr) -> Result<bool, String> {
    match served_leaf(address) {
        Ok(_) => Ok(true),
        Err(error) if error.to_string().contains("invalid peer certificate") => {
            Err(error.to_string())
        }
        Err(_) => Ok(false),
    }
}

fn pair_in_one_file(current: &Path) -> Result<bool, String> {
    let Ok(pem) = std::fs::read_to_string(current.join("pair.pem")) else {
        return Ok(false);
    };
    fits(pem.clone(), pem)
}

/// Reads both files of the generation that the link names: whatever is published meanwhile, they
/// are of one generation, or gone.
fn pair_of_a_generation(published: &Path) -> Result<bool, String> {
    let generation: Option<PathBuf> = std::fs::read_link(published.join("current")).ok();
    let file =
        |name: &str| std::fs::read_to_string(published.join(generation.as_ref()?).join(name)).ok();
    match (file("cert.pem"), file("key.pem")) {
        (Some(cert_pem), Some(key_pem)) => fits(cert_pem, key_pem),
        _ => Ok(false),
    }
}

fn fits(cert_pem: String, key_pem: String) -> Result<bool, String> {
    pki::server_config(&Leaf { cert_pem, key_pem }).map(|_| true)
}

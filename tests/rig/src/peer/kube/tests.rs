//! What the machine tests of the agent build on: the real kubelet starts on published certificates,
//! notices a generation by the unlink of the one before, and a restart of it touches no container.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use crate::machine::{Flavour, Machine, MachineOptions, wait_for};
use crate::pki::{Ca, Leaf};

use super::{KubeletOptions, container_pids, install, kubelet_probe, serial_of};

const LIMIT: Duration = Duration::from_secs(120);
const PUBLISHED: &str = "var/lib/nodeagent-certs/kubelet/kubelet-server";

fn write_generation(machine: &Machine, generation: &str, ca: &Ca, leaf: &Leaf) {
    let files = [("cert.pem", &leaf.cert_pem), ("key.pem", &leaf.key_pem)];
    for (name, pem) in files.into_iter().chain([("ca.pem", &ca.pem().to_owned())]) {
        let path = format!("/{PUBLISHED}/{generation}/{name}");
        machine.write(&path, pem.as_bytes(), 0o640).expect("a file in the store");
    }
}

fn swap_current(published: &Path, generation: &str) {
    let (new, current) = (published.join("new"), published.join("current"));
    symlink(generation, &new).expect("a link");
    std::fs::rename(&new, &current).expect("a swap");
}

fn serial(leaf: &Leaf) -> String {
    let pem = x509_parser::pem::parse_x509_pem(leaf.cert_pem.as_bytes());
    serial_of(&pem.expect("our own PEM").1.contents).expect("our own certificate")
}

fn wait_served(machine: &Machine, leaf: &Leaf) {
    let what = format!("the kubelet serves {}", serial(leaf));
    let served = || (kubelet_probe(machine).ok()? == serial(leaf)).then_some(());
    wait_for(&what, LIMIT, served).expect("the kubelet follows the published path");
}

#[test]
fn the_kubelet_of_a_machine_serves_what_is_published_and_its_pod_outlives_it() {
    if !Machine::available() {
        return;
    }
    let mut machine = Machine::prepare(MachineOptions::new("node0", Flavour::Kube))
        .expect("a machine can be made");
    install(&machine, &KubeletOptions::of(&machine)).expect("a kubelet is installed");
    let (ca, address) = (Ca::new("rig"), machine.ip().to_string());
    let (first, second) = (ca.issue(&["node0", &address]), ca.issue(&["node0", &address]));
    write_generation(&machine, "1", &ca, &first);
    let published = machine.root().join(PUBLISHED);
    swap_current(&published, "1");

    machine.boot().expect("it boots");
    machine.wait_unit("kubelet.service", "active", LIMIT).expect("the kubelet is READY");
    // It listens a moment after it has said READY.
    wait_served(&machine, &first);
    let pods = || container_pids(&machine).ok().filter(|pids| pids.len() == 2);
    let pids = wait_for("sandbox and container run", LIMIT, pods).expect("the static pod runs");
    let kubelet = machine.main_pid("kubelet.service").expect("its pid");

    write_generation(&machine, "2", &ca, &second);
    swap_current(&published, "2");
    std::fs::remove_file(published.join("1/cert.pem")).expect("the notification");
    std::fs::remove_file(published.join("1/key.pem")).expect("the notification");
    wait_served(&machine, &second);
    assert_eq!(machine.main_pid("kubelet.service").expect("its pid"), kubelet);

    machine.exec_ok(&["systemctl", "restart", "kubelet.service"]).expect("a restart");
    assert_ne!(machine.main_pid("kubelet.service").expect("its pid"), kubelet);
    wait_served(&machine, &second);
    assert_eq!(container_pids(&machine).expect("they run"), pids);
}

//! One machine through its life. It is one test because a boot is the costly part.

use std::os::unix::fs::symlink;
use std::time::Duration;

use super::{Flavour, Lan, Machine, MachineOptions, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

const UNIT: &str = "[Service]
ExecStart=/bin/sh -c 'echo beating; exec sleep infinity'
Restart=always
RestartSec=0

[Install]
WantedBy=multi-user.target
";

fn prepared(name: &str) -> Machine {
    let machine = Machine::prepare(MachineOptions::new(name, Flavour::Base));
    machine.expect("a machine can be made")
}

/// Gone, or dead and not yet collected by the host's process 1.
fn is_gone(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_err() || status.is_ok_and(|status| status.contains("State:\tZ"))
}

#[test]
fn a_machine_boots_loses_its_power_and_boots_again() {
    if !Machine::available() {
        return;
    }
    let mut machine = prepared("alpha");
    machine
        .write("/etc/systemd/system/heart.service", UNIT.as_bytes(), 0o644)
        .expect("files are written before the first boot");
    let wants = machine.root().join("etc/systemd/system/multi-user.target.wants");
    std::fs::create_dir_all(&wants).expect("a directory on its disk");
    symlink("../heart.service", wants.join("heart.service")).expect("the unit is enabled");
    machine.boot().expect("it boots");
    let state = machine.settled(LIMIT).expect("it settles");
    let failed = machine.exec_ok(&["systemctl", "--failed"]).expect("exec");
    assert_eq!(state, "running", "{failed}");
    assert_eq!(machine.exec_ok(&["hostname"]).expect("exec"), "alpha\n");

    let refused = machine.exec(&["sh", "-c", "echo no >&2; exit 3"]).expect("exec");
    assert_eq!((refused.status.code(), refused.stderr.as_str()), (Some(3), "no\n"));
    let hung = machine.exec_within(Duration::from_millis(200), &["sleep", "1000"]);
    assert!(hung.expect_err("a deadline").to_string().contains("killed"));

    machine.wait_unit("heart.service", "active", LIMIT).expect("the unit runs");
    let pid = machine.main_pid("heart.service").expect("a pid").expect("a process");
    machine.kill("heart.service", "SIGKILL").expect("a signal is sent");
    let again = || machine.main_pid("heart.service").ok()?.filter(|&now| now != pid);
    wait_for("systemd restarts the unit", LIMIT, again).expect("it is restarted");

    machine.write("/var/lib/kept", b"\x00\xff", 0o600).expect("a file");
    machine.write("/run/lost", b"", 0o600).expect("a volatile file");
    let init = machine.init().expect("it runs");
    machine.kill_power().expect("the power is gone");
    assert!(is_gone(init));
    assert!(machine.journal("heart.service").expect("off, too").contains("beating"));

    machine.boot().expect("it boots again");
    let state = machine.settled(LIMIT).expect("it settles");
    let failed = machine.exec_ok(&["systemctl", "--failed"]).expect("exec");
    assert_eq!(state, "running", "{failed}");
    assert_eq!(machine.read("/var/lib/kept").expect("it was kept"), b"\x00\xff");
    assert!(machine.read("/run/lost").is_err());
    machine.power_off().expect("it shuts down");
    assert!(machine.exec(&["true"]).is_err());
}

#[test]
fn two_machines_do_not_meet_and_leave_nothing_behind() {
    if !Machine::available() {
        return;
    }
    let (mut one, mut two) = (prepared("one"), prepared("two"));
    one.boot().expect("the first boots");
    two.boot().expect("the second boots");
    assert_ne!(one.ip(), two.ip());
    let host = one.host_ip().to_string();
    let ping = ["sh", "-c", "ip route get \"$0\" && hostname", &host];
    assert!(one.exec_ok(&ping).expect("a route to the host").contains("eth0"));
    one.write("/etc/mine", b"", 0o644).expect("a file");
    assert!(two.read("/etc/mine").is_err());
    assert!(two.exec_ok(&["systemctl", "is-active", "basic.target"]).is_ok());

    let (root, init) = (one.root().to_owned(), one.init().expect("it runs"));
    drop(one);
    assert!(!root.exists());
    assert!(is_gone(init));
    assert_eq!(two.exec_ok(&["hostname"]).expect("untouched"), "two\n");
}

/// Whether a connection to a port of `to` on which nobody listens is refused, as it is where the
/// two machines reach each other. The short limit ends the silence of a cut only.
fn reaches(from: &Machine, to: std::net::Ipv4Addr) -> bool {
    let connect = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{to}/9'");
    let tried = from.exec(&["bash", "-c", &connect]).expect("exec");
    tried.stderr.contains("refused")
}

#[test]
fn machines_of_one_network_can_be_cut_off_from_each_other() {
    if !Machine::available() {
        return;
    }
    let lan = Lan::make().expect("a network can be made");
    let prepared = |name: &str| {
        let mut machine = Machine::prepare(MachineOptions::new(name, Flavour::Base).on(&lan))
            .expect("a machine can be made");
        machine.boot().expect("it boots");
        machine
    };
    let (one, two) = (prepared("one"), prepared("two"));
    assert_eq!(one.host_ip(), lan.host_ip());
    assert!(reaches(&one, two.ip()) && reaches(&two, one.ip()));
    one.cut_from(&two).expect("they are cut off");
    assert!(!reaches(&one, two.ip()) && !reaches(&two, one.ip()));
    assert!(reaches(&one, lan.host_ip()), "the host is still there");
    one.join_again(&two).expect("they are joined");
    assert!(reaches(&one, two.ip()) && reaches(&two, one.ip()));
}

//! The guard of the metadata service as it is shipped, the unit's commands and the rules, on a real
//! path: the service, the node, and a pod behind it, each in a network namespace of its own. On the
//! node who asks is told by cgroup and user, as systemd and a kubelet place them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, io};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::hop::{SERVICE, Space, row_or_reason};
use super::*;

const SERVICE_6: &str = "fd00:ec2::254";
const CGROUPS: &str = "/sys/fs/cgroup";
const UNIT: &str = "units/system/nodeagent-imds-guard.service";

/// Joins the cgroup, becomes the user, and asks: a connection is all that is to be had or not.
const ASK: &str = r#"
echo $$ > "$1/cgroup.procs" || exit 99
exec setpriv --reuid="$2" --regid="$2" --clear-groups \
  timeout 10 bash -c 'exec 3<> "/dev/tcp/$0/$1"' "$3" "$4""#;

#[derive(Debug, PartialEq)]
enum Answer {
    Reached,
    Prohibited,
}
use Answer::{Prohibited, Reached};

/// A cgroup beside systemd's own, or in its place; what was made here is removed again.
struct Cgroup {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Cgroup {
    fn make(slice: &str) -> Cgroup {
        let path = Path::new(CGROUPS).join(slice);
        let path = path.join(format!("nodeagent-guard-{}", std::process::id()));
        let missing = path.ancestors().take(2).filter(|path| !path.exists());
        let made: Vec<_> = missing.map(Path::to_path_buf).collect();
        fs::create_dir_all(&path).expect("a cgroup");
        Cgroup { path, made }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in &self.made {
            // A slice that got other processes meanwhile stays theirs.
            fs::remove_dir(path).ok();
        }
    }
}

/// Who asks: from which cgroup, as which user.
struct Caller<'a> {
    cgroup: &'a Cgroup,
    user: &'a str,
}

impl Caller<'_> {
    fn ask(&self, to: SocketAddr) -> Answer {
        let (address, port) = (to.ip().to_string(), to.port().to_string());
        let mut bash = Command::new("bash");
        bash.args(["-c", ASK, "ask"]).arg(&self.cgroup.path);
        answer(bash.args([self.user, &address, &port]).env("LC_ALL", "C").output())
    }
}

fn answer(asked: io::Result<Output>) -> Answer {
    let asked = asked.expect("bash runs");
    let said = String::from_utf8_lossy(&asked.stderr);
    match (asked.status.success(), said) {
        (true, _) => Reached,
        // So that a path that is broken is not taken for one that is guarded.
        (false, said) if said.contains("No route to host") => Prohibited,
        (false, said) if said.contains("Permission denied") => Prohibited,
        (false, said) => panic!("{}: {said}", asked.status),
    }
}

/// The command of a line of the unit, with the rules where they lie in the tree.
fn run_of(line: &str) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let unit = fs::read_to_string(top.join(UNIT)).expect("the unit");
    let command = unit.lines().find_map(|text| text.strip_prefix(line)).expect("its command");
    let rules = top.join("units/nft/imds-guard.nft").display().to_string();
    let words = command.split(' ').map(|word| match word {
        "/usr/lib/nodeagent/imds-guard.nft" => rules.clone(),
        word => word.to_owned(),
    });
    let words: Vec<String> = words.collect();
    let output = Command::new(&words[0]).args(&words[1..]).output().expect("nft runs");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn table() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().expect("nft runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same path for IPv6, and the service at its address there.
fn also_ipv6([service, node, container]: [&Space; 3]) {
    service.ip("addr add 2001:db8::1/126 dev link0 nodad");
    node.ip("addr add 2001:db8::2/126 dev uplink nodad");
    node.ip("addr add 2001:db8:1::1/126 dev downlink nodad");
    container.ip("addr add 2001:db8:1::2/126 dev eth0 nodad");
    service.ip(&format!("addr add {SERVICE_6}/128 dev link0 nodad"));
    service.ip("route add default via 2001:db8::2");
    node.ip("route add default via 2001:db8::1");
    container.ip("route add default via 2001:db8:1::1");
    let forward = node.run(|| fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1"));
    forward.expect("a node forwards");
}

/// A mount namespace of this thread's, in which cgroup2 is where nft and systemd look for it.
fn own_cgroups() {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("mounts of its own");
    let flags = MsFlags::empty();
    mount(Some("none"), CGROUPS, Some("cgroup2"), flags, None::<&str>).expect("cgroup2");
}

#[test]
fn n17_the_metadata_service_is_for_services_of_root_alone() {
    let Some([service, node, container]) = row_or_reason() else {
        return;
    };
    // By which a process of the node is told that it is prohibited.
    node.ip("link set lo up");
    also_ipv6([&service, &node, &container]);
    let (aws, _) = world();
    let id = aws.launch(LaunchSpec { hop_limit: 2, ..LaunchSpec::default() });
    let serve = |bind: String| {
        let bind = bind.parse().expect("an address");
        service.run(|| aws.imds_at(&id, bind)).expect("a free port")
    };
    let served = [serve(format!("{SERVICE}:0")), serve(format!("[{SERVICE_6}]:0"))];
    let addresses = served.each_ref().map(|imds| imds.url().replace("http://", ""));
    let addresses = addresses.map(|text| text.parse::<SocketAddr>().expect("an address"));
    node.run(|| {
        own_cgroups();
        let [system, shells, pods] =
            ["system.slice", "user.slice", "kubepods.slice"].map(Cgroup::make);
        let root = |cgroup| Caller { cgroup, user: "0" };
        let nobody = Caller { cgroup: &system, user: "65534" };
        let asked = |address| {
            let behind = container.run(|| root(&pods).ask(address));
            let own = [root(&system), root(&shells), root(&pods)].map(|who| who.ask(address));
            (own, nobody.ask(address), behind)
        };
        let open = ([Reached, Reached, Reached], Reached, Reached);
        let guarded = ([Reached, Reached, Prohibited], Prohibited, Prohibited);
        for address in addresses {
            assert_eq!(asked(address), open, "{address} without a guard");
        }
        run_of("ExecStart=");
        let loaded = table();
        for address in addresses {
            assert_eq!(asked(address), guarded, "{address} with the guard");
        }
        run_of("ExecReload=");
        assert_eq!(table(), loaded, "loading it twice is loading it once");
        run_of("ExecStop=");
        assert_eq!(table(), "", "nothing of it is left");
        for address in addresses {
            assert_eq!(asked(address), open, "{address} after the guard");
        }
    });
}

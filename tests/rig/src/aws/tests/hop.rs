//! The hop rule on a real path: the service, a node that forwards and a container behind it, each
//! in a network namespace of its own. The namespaces have no names, so they end with the test,
//! however it ends.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

use super::*;

/// Where AWS serves it.
pub(super) const SERVICE: &str = "169.254.169.254";
/// By then an answer that comes at all is there, on any machine.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the container waits for the answer that must not come.
const PATIENCE: Duration = Duration::from_secs(2);

/// A network namespace that lives as long as this handle.
pub(super) struct Space(File);

impl Space {
    fn make() -> std::io::Result<Self> {
        let maker = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net").map(Self)
        });
        maker.join().expect("the maker of a namespace does not panic")
    }

    /// Runs the work on a thread inside; what it starts there stays inside.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().expect("the work does not panic"))
    }

    pub(super) fn ip(&self, arguments: &str) {
        let output = self.run(|| Command::new("ip").args(arguments.split(' ')).output());
        let output = output.expect("ip runs");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {complaint}");
    }

    /// A cable from the interface here to the one there, both with their addresses.
    fn cable(&self, here: [&str; 2], other: &Self, there: [&str; 2]) {
        let other_file = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
        self.ip(&format!(
            "link add {} type veth peer name {} netns {other_file}",
            here[0], there[0]
        ));
        for (space, [name, address]) in [(self, here), (other, there)] {
            space.ip(&format!("addr add {address} dev {name}"));
            space.ip(&format!("link set {name} up"));
        }
    }

    /// What the service answers to this side, or none within the limit.
    fn ask(&self, limit: Duration, request: reqwest::RequestBuilder) -> Option<(u16, String)> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                match request.timeout(limit).send().await {
                    Ok(answer) => {
                        let status = answer.status().as_u16();
                        Some((status, answer.text().await.expect("a body")))
                    }
                    Err(error) => {
                        assert!(error.is_timeout() && !error.is_connect(), "{error:?}");
                        None
                    }
                }
            })
        })
    }

    /// Packets whose time to live ended here, as the kernel counts what it told their senders.
    fn expired(&self) -> u64 {
        let table = self.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
        let table = table.expect("the kernel's counters");
        let mut rows = table.lines().filter(|line| line.starts_with("Icmp: "));
        let mut row = || rows.next().expect("names and values").split(' ');
        let (mut names, mut values) = (row(), row());
        let column = names.position(|name| name == "OutTimeExcds").expect("the counter");
        values.nth(column).expect("its value").parse().expect("a number")
    }
}

/// The service, the node and the container, in a row.
fn row() -> std::io::Result<[Space; 3]> {
    let [service, node, container] = [Space::make()?, Space::make()?, Space::make()?];
    service.cable(["link0", "192.0.2.1/30"], &node, ["uplink", "192.0.2.2/30"]);
    node.cable(["downlink", "192.0.2.5/30"], &container, ["eth0", "192.0.2.6/30"]);
    service.ip(&format!("addr add {SERVICE}/32 dev link0"));
    service.ip("route add default via 192.0.2.2");
    node.ip("route add default via 192.0.2.1");
    container.ip("route add default via 192.0.2.5");
    let forward = node.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"));
    forward.map(|()| [service, node, container])
}

/// The row, or the reason on the screen; a test that was skipped in CI proves nothing.
pub(super) fn row_or_reason() -> Option<[Space; 3]> {
    let found = Command::new("ip").arg("-V").output().and_then(|_| row());
    found
        .inspect_err(|error| {
            let must = std::env::var_os("NODEAGENT_TESTS_MUST_RUN").is_some_and(|v| v == "1");
            let reason = format!("paths between namespaces need root, namespaces and ip: {error}");
            assert!(!must, "{reason}, and NODEAGENT_TESTS_MUST_RUN=1");
            eprintln!("skipped: {reason}");
        })
        .ok()
}

#[test]
fn z24_a_token_does_not_outlive_its_hops() {
    let Some([service, node, container]) = row_or_reason() else {
        return;
    };
    let (aws, _) = world();
    let serve = |hop_limit| {
        let id = aws.launch(LaunchSpec { hop_limit, ..LaunchSpec::default() });
        let bind = format!("{SERVICE}:0").parse().expect("an address");
        service.run(|| aws.imds_at(&id, bind)).expect("a free port")
    };
    let put = |imds: &Imds| {
        let request = client().put(format!("{}/latest/api/token", imds.url()));
        request.header("X-aws-ec2-metadata-token-ttl-seconds", "60")
    };

    let near = serve(1);
    let (status, session) = node.ask(LIMIT, put(&near)).expect("one hop is enough here");
    assert_eq!((status, node.expired()), (200, 0));
    assert_eq!(container.ask(PATIENCE, put(&near)), None);
    let answered: Vec<_> = near.server().requests().iter().map(|entry| entry.status).collect();
    assert_eq!(answered, [Some(200), Some(200)], "the service did answer both");
    assert_ne!(node.expired(), 0, "the answer ended at the node, nowhere else");
    let get = client().get(format!("{}/latest/meta-data/instance-id", near.url()));
    let get = get.header("X-aws-ec2-metadata-token", session);
    let (status, _) = container.ask(LIMIT, get).expect("only the token is kept near");
    assert_eq!(status, 200);

    let far = serve(2);
    let (status, _) = container.ask(LIMIT, put(&far)).expect("two hops reach it");
    assert_eq!(status, 200);
}

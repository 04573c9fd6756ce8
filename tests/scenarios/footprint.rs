//! What an agent holds on to does not grow with what it does. How much that is in a release, and
//! at rest, `tests/bench footprint` measures.

use rig::stage::{Running, StageOptions};

use crate::play::*;

/// What a process has: its own memory, without the pages of its program, and its descriptors.
#[derive(Debug)]
struct Held {
    kib: u64,
    descriptors: usize,
}

fn held(agent: &Running) -> Held {
    let pid = agent.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = kib.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    Held { kib: kib.expect("a number"), descriptors }
}

/// What nobody is to need.
const MOST_KIB: u64 = 15 << 10;
/// What an allocator may keep for itself, and connections that are still open.
const SLACK: Held = Held { kib: 512, descriptors: 4 };
const WARM: usize = 5;
const RENEWALS: usize = 40;

#[tokio::test]
async fn n18_renewals_leave_memory_and_descriptors_as_they_were() {
    let options = StageOptions::worker().with("[rotation]\nissues_per_hour = 3600\n");
    let (stage, agent) = serving(options).await;
    (0..WARM).for_each(|_| drop(renew(&stage)));
    let before = held(&agent);
    (0..RENEWALS).for_each(|_| drop(renew(&stage)));
    let after = held(&agent);
    println!("FIGURE after {RENEWALS} renewals: {before:?}, then {after:?}");
    assert!(after.kib <= MOST_KIB, "{after:?}");
    assert!(after.kib <= before.kib + SLACK.kib, "{before:?}, then {after:?}");
    assert!(after.descriptors <= before.descriptors + SLACK.descriptors, "{before:?}, {after:?}");
}

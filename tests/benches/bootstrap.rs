//! From the power-on of a fresh controller to its served API and its node Ready, beside the same
//! machine, units, programs and flags with everything in place: set-up, manifests and certificates
//! are on the disk, and the agent has nothing to do but to open the gates.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rig::controllers::{Controllers, ControllersOptions, Raising};
use serde_json::Value;

use super::median;

/// How many times each is measured, in turn; NODEAGENT_BENCH_RUNS says otherwise.
const RUNS: usize = 5;

/// Both are given up after this.
const LIMIT: Duration = Duration::from_secs(180);

/// Between two looks at the API.
const PAUSE: Duration = Duration::from_millis(20);

/// What a life of a cluster leaves: the floor begins each of its lives without it.
const LIFE: [&str; 3] = ["var/lib/etcd", "var/lib/kubelet", "var/log/pods"];

/// Measures both in turn.
pub(crate) async fn run() -> Result<(), String> {
    let runs = std::env::var("NODEAGENT_BENCH_RUNS").ok();
    let runs = runs.and_then(|text| text.parse().ok()).unwrap_or(RUNS);
    if let Some(reason) = Controllers::unavailable() {
        return Err(reason);
    }
    let options = ControllersOptions::new(1).raised(Raising::ByHand);
    let mut by_hand = Controllers::prepare(options).await?;
    // The first boot gets the certificates and warms the caches.
    (by_hand, _) = measure(by_hand).await?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let fresh = Controllers::prepare(ControllersOptions::new(1)).await?;
        let (mut fresh, raised) = measure(fresh).await?;
        let whole = |status: &Value| status["control_plane"]["step"].is_null();
        fresh.nodes[0].machine.wait_agent_status("a whole control plane", LIMIT, whole)?;
        let steps = steps(&fresh)?;
        off(&mut fresh)?;
        drop(fresh);
        off(&mut by_hand)?;
        forget(&by_hand)?;
        let in_place;
        (by_hand, in_place) = measure(by_hand).await?;
        println!(
            "run {run}: ours API {:.2} s, Ready {:.2} s; by hand API {:.2} s, Ready {:.2} s",
            raised.api, raised.ready, in_place.api, in_place.ready
        );
        println!("run {run}: ours by step: {steps}");
        ours.push(raised.ready);
        floor.push(in_place.ready);
    }
    off(&mut by_hand)?;
    let (ours, floor) = (median(ours), median(floor));
    println!("FIGURE bootstrap_s={ours:.2}");
    println!("FIGURE bootstrap_floor_s={floor:.2}");
    println!("FIGURE bootstrap_ratio={:.2}", ours / floor);
    Ok(())
}

/// Seconds since the power was switched on.
struct Seconds {
    api: f64,
    ready: f64,
}

/// Switches a controller on and watches from outside.
async fn measure(mut plane: Controllers) -> Result<(Controllers, Seconds), String> {
    let api = plane.api(0)?;
    let node = format!("/api/v1/nodes/{}", plane.nodes[0].instance);
    let begun = Instant::now();
    // It ends when every unit of the machine is up, which is not what is measured.
    let booting = tokio::task::spawn_blocking(move || plane.boot().map(|()| plane));
    let mut served = None;
    let ready = loop {
        let elapsed = begun.elapsed();
        if elapsed > LIMIT {
            return Err(format!("not Ready within {LIMIT:?}"));
        }
        let answer = api.call("GET", "/readyz", None).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            served.get_or_insert(elapsed);
            let registered = api.get(&node).await.unwrap_or_default();
            if is_ready(&registered) {
                break begun.elapsed();
            }
        }
        tokio::time::sleep(PAUSE).await;
    };
    let plane = booting.await.map_err(|error| error.to_string())??;
    let api = served.unwrap_or(ready).as_secs_f64();
    Ok((plane, Seconds { api, ready: ready.as_secs_f64() }))
}

fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    conditions.is_some_and(|conditions| conditions.iter().any(ready))
}

/// What the journal says of each step: `place-manifests 0.03 s`.
fn steps(plane: &Controllers) -> Result<String, String> {
    let bytes = plane.nodes[0].machine.read("/var/lib/nodeagent/journal");
    let bytes = bytes.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut begun = None;
    let mut told = Vec::new();
    for entry in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let at = entry["at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        match (entry["event"].as_str(), at) {
            (Some("begun"), at) => begun = at,
            (Some("done"), Some(at)) => {
                let took = begun.map_or(0.0, |begun| begun.duration_until(at).as_secs_f64());
                told.push(format!("{} {took:.2} s", entry["step"].as_str().unwrap_or_default()));
            }
            _ => {}
        }
    }
    Ok(told.join(", "))
}

fn off(plane: &mut Controllers) -> Result<(), String> {
    plane.nodes[0].machine.power_off().map_err(|error| error.to_string())
}

/// Forgets a cluster's life, and nothing else.
fn forget(plane: &Controllers) -> Result<(), String> {
    let root = plane.nodes[0].machine.root();
    for directory in LIFE.map(|directory| root.join(directory)) {
        empty(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    Ok(())
}

fn empty(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}

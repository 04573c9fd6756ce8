//! From a control plane whose pods are all gone to a served API: by the duty, which has to notice
//! first, and by a person's `nodeagent bootstrap --recover`.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rig::controllers::{COMPONENTS, Controllers, ControllersOptions, Raising};

use super::median;

/// How many times each is measured; NODEAGENT_BENCH_RUNS says otherwise.
const RUNS: usize = 5;

const LIMIT: Duration = Duration::from_secs(300);

/// Between two looks at the API.
const PAUSE: Duration = Duration::from_millis(50);

/// Measures both.
pub(crate) async fn run() -> Result<(), String> {
    let runs = std::env::var("NODEAGENT_BENCH_RUNS").ok();
    let runs = runs.and_then(|text| text.parse().ok()).unwrap_or(RUNS);
    if let Some(reason) = Controllers::unavailable() {
        return Err(reason);
    }
    let by_duty = measure(Raising::Automatic, runs).await?;
    let by_hand = measure(Raising::Told, runs).await?;
    println!("FIGURE recover_s={by_duty:.2}");
    println!("FIGURE recover_verb_s={by_hand:.2}");
    Ok(())
}

async fn measure(raising: Raising, runs: usize) -> Result<f64, String> {
    let mut plane = Controllers::prepare(ControllersOptions::new(1).raised(raising)).await?;
    plane.boot()?;
    if raising == Raising::Told {
        let ready = |status: &serde_json::Value| !status["autonomy_s"].is_null();
        plane.nodes[0].machine.wait_agent_status("certificates", LIMIT, ready)?;
        verb(&plane, &[])?;
    }
    plane.wait_readyz(0, LIMIT).await?;
    let mut seconds = Vec::new();
    for run in 1..=runs {
        let whole = |status: &serde_json::Value| status["control_plane"]["step"].is_null();
        plane.nodes[0].machine.wait_agent_status("a whole control plane", LIMIT, whole)?;
        let begun = lose(&plane, raising)?;
        if raising == Raising::Told {
            verb(&plane, &["--recover"])?;
        }
        served(&plane, begun).await?;
        let took = begun.elapsed().as_secs_f64();
        println!("{raising:?} {run}: served after {took:.2} s");
        seconds.push(took);
    }
    Ok(median(seconds))
}

/// Takes manifests and processes away; the time counts from when the last process is gone. The
/// duty may be at work by then, and has its manifests taken away only once.
fn lose(plane: &Controllers, raising: Raising) -> Result<Instant, String> {
    let node = &plane.nodes[0];
    node.remove_manifests()?;
    let gone = |component: &str| node.pids(component).is_empty();
    for component in COMPONENTS {
        node.signal(component, Signal::SIGKILL)?;
    }
    let begun = Instant::now();
    while raising == Raising::Told && !COMPONENTS.into_iter().all(gone) {
        if begun.elapsed() > LIMIT {
            return Err("the components do not go".into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(if raising == Raising::Told { Instant::now() } else { begun })
}

async fn served(plane: &Controllers, begun: Instant) -> Result<(), String> {
    let api = plane.api(0)?;
    while begun.elapsed() < LIMIT {
        let answer = api.call("GET", "/readyz", None).await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("not served within {LIMIT:?}:\n{}", plane.nodes[0].evidence()))
}

fn verb(plane: &Controllers, arguments: &[&str]) -> Result<(), String> {
    let output = plane.nodes[0].bootstrap(arguments)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}{}", output.stdout, output.stderr)),
    }
}

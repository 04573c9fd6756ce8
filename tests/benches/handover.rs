//! What clients see of a control plane that changes under them: 50 new connections a second, each
//! with a request that RBAC has to allow, while a self-hosted plane takes over from the temporary
//! one, and while every certificate of a static one is renewed.

use std::time::Duration;

use rig::controllers::load::Tally;
use rig::controllers::{Controllers, ControllersOptions, Raising, Style};

/// New connections a second.
const RATE: u32 = 50;

/// How long clients go on after the change: what follows it late belongs to it.
const AFTER: Duration = Duration::from_secs(10);

const LIMIT: Duration = Duration::from_secs(300);

/// What is renewed: everything that a controller serves or shows.
const CERTIFICATES: [&str; 9] = [
    "kube-apiserver",
    "apiserver-kubelet-client",
    "apiserver-etcd-client",
    "front-proxy-client",
    "controller-manager",
    "scheduler",
    "etcd-server",
    "etcd-peer",
    "kubelet-server",
];

/// Measures both once: they are counts, not timings.
pub(crate) async fn run() -> Result<(), String> {
    if let Some(reason) = Controllers::unavailable() {
        return Err(reason);
    }
    let pivot = pivot().await?;
    tell("pivot", &pivot);
    let rotation = rotation().await?;
    tell("rotation", &rotation);
    println!("FIGURE pivot_total={}", pivot.total);
    println!("FIGURE pivot_refused={}", pivot.refused + pivot.other);
    println!("FIGURE pivot_403={}", pivot.forbidden);
    println!("FIGURE pivot_403_s={:.2}", pivot.span("403"));
    println!("FIGURE rotation_total={}", rotation.total);
    println!("FIGURE rotation_failed={}", rotation.failed());
    Ok(())
}

fn tell(what: &str, tally: &Tally) {
    println!("{what}: {} of {} requests failed", tally.failed(), tally.total);
    for (at, failure) in &tally.failures {
        println!("{what}: at {:.2} s: {failure}", at.as_secs_f64());
    }
}

/// The clients come when the temporary plane serves, and stay until the final one has for a while.
async fn pivot() -> Result<Tally, String> {
    let options = ControllersOptions { style: Style::SelfHosted, ..ControllersOptions::new(1) };
    let mut plane = Controllers::prepare(options.raised(Raising::Automatic)).await?;
    plane.boot()?;
    plane.wait_readyz(0, LIMIT).await?;
    let who = plane.admit_clients().await?;
    let load = plane.load(0, &who, RATE)?;
    let whole = |status: &serde_json::Value| status["control_plane"]["step"].is_null();
    let waited = plane.nodes[0].machine.wait_agent_status("the final plane", LIMIT, whole);
    std::thread::sleep(AFTER);
    let tally = load.stop();
    waited.map(|_| tally)
}

async fn rotation() -> Result<Tally, String> {
    let mut plane = Controllers::prepare(ControllersOptions::new(1)).await?;
    plane.boot()?;
    plane.wait_readyz(0, LIMIT).await?;
    let who = plane.admit_clients().await?;
    let machine = &plane.nodes[0].machine;
    let healthy = |status: &serde_json::Value| status["health"] == "healthy";
    machine.wait_agent_status("a healthy node", LIMIT, healthy)?;
    let load = plane.load(0, &who, RATE)?;
    for certificate in CERTIFICATES {
        let renewed = machine.exec_ok(&[rig::node::PROGRAM, "renew", certificate]);
        renewed.map_err(|error| error.to_string())?;
    }
    let proved = |status: &serde_json::Value| {
        let certificates = status["certificates"].as_array().cloned().unwrap_or_default();
        let second = |part: &serde_json::Value| {
            !CERTIFICATES.contains(&part["name"].as_str().unwrap_or_default())
                || part["generation"].as_u64() >= Some(2)
        };
        certificates.iter().all(second)
    };
    let waited = machine.wait_agent_status("second generations", LIMIT, proved);
    std::thread::sleep(AFTER);
    let tally = load.stop();
    waited.map(|_| tally)
}

//! The agent beside the real `vault agent` of the Vault that it speaks to: auto-auth (aws, ec2),
//! one `pkiCert` template with a command. Both have a node of their own before the same Vault and
//! the same models of AWS, a proxy of their own of the same kind, and are measured in turn. What
//! `vault agent` is cited with elsewhere is measured here, not remembered.

pub(crate) mod audit;
mod hazards;
mod hour;
mod pair;

use std::path::Path;
use std::time::{Duration, Instant};

use rig::setup::SetupOptions;
use rig::stage::{Peer, Running};

use super::footprint::Sample;
use super::{median, program};
use pair::{Pair, Wish};

use crate::first_cert::CONFIG;

/// How often each is started on a fresh node, and how many idle windows there are;
/// NODEAGENT_BENCH_RUNS says otherwise.
const RUNS: usize = 11;

/// After the first certificate, before the memory of a start is read.
const REST: Duration = Duration::from_secs(2);

/// Before the idle windows: the connections of a start close by themselves.
const SETTLING: Duration = Duration::from_secs(40);

/// One idle window.
const WINDOW: Duration = Duration::from_secs(9);

/// For how long a first certificate is waited for.
const LIMIT: Duration = Duration::from_secs(30);

/// Measures both in turn, then what each does when something goes wrong; a part of it where one is
/// named: `starts`, `idle`, `hazards`, `outage`. By name only: `hour`, which takes more than one.
pub(crate) async fn run(part: Option<&str>, seconds: Option<&str>) -> Result<(), String> {
    if part == Some("hour") {
        return hour::run(seconds).await;
    }
    let wanted = |name: &str| part.is_none_or(|part| part == name);
    if !["starts", "idle", "hazards", "outage"].into_iter().any(wanted) {
        return Err("the parts of vault-agent are: starts idle hazards outage hour".into());
    }
    let runs = std::env::var("NODEAGENT_BENCH_RUNS").ok();
    let runs = runs.and_then(|text| text.parse().ok()).unwrap_or(RUNS);
    let mut pair = Pair::set(program()?, SetupOptions::new("", "")).await?;
    if let Peer::Real(vault) = &pair.stage.vault {
        println!("Vault and Vault Agent {}; {runs} runs of each, in turn", vault.version().await?);
    }
    let version = pair.stage.command(&["version"]).output().map_err(|error| error.to_string())?;
    print!("{}", String::from_utf8_lossy(&version.stdout));
    sizes(&pair)?;
    if wanted("starts") {
        starts(&mut pair, runs).await?;
    }
    if wanted("idle") {
        idle(&mut pair, runs).await?;
    }
    if wanted("hazards") {
        hazards::run(&mut pair).await?;
    }
    if wanted("outage") {
        hazards::outage(&mut pair).await?;
    }
    Ok(())
}

/// Prints a figure of both.
fn tell(name: &str, ours: impl std::fmt::Display, theirs: impl std::fmt::Display) {
    println!("FIGURE {name}={ours}");
    println!("FIGURE vault_agent_{name}={theirs}");
}

fn sizes(pair: &Pair) -> Result<(), String> {
    let bytes = |path: &Path| {
        let metadata = std::fs::metadata(path);
        metadata.map(|metadata| metadata.len()).map_err(|e| format!("{}: {e}", path.display()))
    };
    let (ours, theirs) = (bytes(&program()?)?, bytes(&pair.vault)?);
    tell("binary_bytes", ours, theirs);
    println!("FIGURE vault_agent_size_ratio={:.1}", theirs as f64 / ours as f64);
    Ok(())
}

/// What a start cost one of them.
#[derive(Default)]
struct Starts {
    milliseconds: Vec<f64>,
    rss_kib: Vec<f64>,
    anonymous_kib: Vec<f64>,
}

impl Starts {
    /// Waits for the first certificate of a process that was just started, and for its rest.
    async fn add(&mut self, begun: Instant, agent: Running, file: &Path) -> Result<f64, String> {
        await_file(file, begun)?;
        let took = begun.elapsed().as_secs_f64() * 1000.0;
        tokio::time::sleep(REST).await;
        let sample = Sample::of(agent.pid())?;
        self.milliseconds.push(took);
        self.rss_kib.push(sample.rss_kib as f64);
        self.anonymous_kib.push(sample.anonymous_kib as f64);
        agent.kill().map_err(|error| error.to_string())?;
        Ok(took)
    }

    /// Forgets the first, which warms the caches.
    fn forget(&mut self) {
        *self = Starts::default();
    }
}

fn await_file(file: &Path, begun: Instant) -> Result<(), String> {
    while !file.exists() {
        if begun.elapsed() > LIMIT {
            return Err(format!("no {} within {LIMIT:?}", file.display()));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// From the start of the process to the first certificate on disk, each on a fresh node.
async fn starts(pair: &mut Pair, runs: usize) -> Result<(), String> {
    let (mut ours, mut theirs) = (Starts::default(), Starts::default());
    for run in 0..=runs {
        pair.replace(CONFIG, Wish::default())?;
        let begun = Instant::now();
        let agent = pair.run_ours()?;
        let our_ms = ours.add(begun, agent, &pair.our_file()).await?;
        let begun = Instant::now();
        let agent = pair.run_theirs()?;
        let their_ms = theirs.add(begun, agent, &pair.their_file()).await?;
        println!("start {run}: nodeagent {our_ms:.1} ms, vault agent {their_ms:.1} ms");
        if run == 0 {
            ours.forget();
            theirs.forget();
        }
    }
    let [our_ms, their_ms] = [ours.milliseconds, theirs.milliseconds].map(median);
    tell("first_cert_ms", format!("{our_ms:.1}"), format!("{their_ms:.1}"));
    println!("FIGURE vault_agent_speedup={:.2}", their_ms / our_ms);
    tell("rss_after_start_kib", median(ours.rss_kib), median(theirs.rss_kib));
    let [our_kib, their_kib] = [ours.anonymous_kib, theirs.anonymous_kib].map(median);
    tell("anonymous_after_start_kib", our_kib, their_kib);
    Ok(())
}

/// Windows of an idle process.
#[derive(Default)]
struct Idle {
    rss_kib: Vec<f64>,
    anonymous_kib: Vec<f64>,
    threads: Vec<f64>,
    cpu_s_per_min: Vec<f64>,
    wakeups_per_min: Vec<f64>,
}

impl Idle {
    fn add(&mut self, before: &Sample, after: &Sample, minutes: f64) {
        self.rss_kib.push(after.rss_kib as f64);
        self.anonymous_kib.push(after.anonymous_kib as f64);
        self.threads.push(after.threads as f64);
        self.cpu_s_per_min.push((after.seconds - before.seconds) / minutes);
        self.wakeups_per_min.push((after.switches - before.switches) as f64 / minutes);
    }
}

/// Both side by side with a certificate each and nothing to do.
async fn idle(pair: &mut Pair, windows: usize) -> Result<(), String> {
    pair.replace(CONFIG, Wish::default())?;
    let (our_agent, their_agent) = pair.run_both().await?;
    println!("idle: settling for {SETTLING:?}, then {windows} windows of {WINDOW:?}");
    tokio::time::sleep(SETTLING).await;
    let (mut ours, mut theirs) = (Idle::default(), Idle::default());
    for _ in 0..windows {
        let begun = Instant::now();
        let before = [Sample::of(our_agent.pid())?, Sample::of(their_agent.pid())?];
        tokio::time::sleep(WINDOW).await;
        let after = [Sample::of(our_agent.pid())?, Sample::of(their_agent.pid())?];
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        ours.add(&before[0], &after[0], minutes);
        theirs.add(&before[1], &after[1], minutes);
    }
    let [our_rss, their_rss] = [ours.rss_kib, theirs.rss_kib].map(median);
    tell("idle_rss_kib", our_rss, their_rss);
    println!("FIGURE vault_agent_rss_ratio={:.1}", their_rss / our_rss);
    let [our_kib, their_kib] = [ours.anonymous_kib, theirs.anonymous_kib].map(median);
    tell("idle_anonymous_kib", our_kib, their_kib);
    let [our_cpu, their_cpu] = [ours.cpu_s_per_min, theirs.cpu_s_per_min].map(mean);
    tell("idle_cpu_s_per_min", format!("{our_cpu:.4}"), format!("{their_cpu:.4}"));
    tell("threads", median(ours.threads), median(theirs.threads));
    let [our_wakeups, their_wakeups] = [ours.wakeups_per_min, theirs.wakeups_per_min].map(mean);
    tell("wakeups_per_min", format!("{our_wakeups:.0}"), format!("{their_wakeups:.0}"));
    Ok(())
}

/// What is rare, as a look twice a minute is, is not seen by the middle one of short windows.
fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

//! What the idle agent costs: size on disk, memory, threads, processor time, wake-ups.

use std::time::{Duration, Instant};

use rig::stage::{Stage, StageOptions};

use super::{median, program};

/// One idle window; with five of them the figures are medians of a minute each.
const WINDOW: Duration = Duration::from_secs(60);

/// How many windows are measured; NODEAGENT_BENCH_WINDOWS says otherwise.
const WINDOWS: usize = 5;

/// Runs a healthy agent and reads /proc.
pub(crate) async fn run() -> Result<(), String> {
    let program = program()?;
    let bytes = std::fs::metadata(&program).map_err(|error| error.to_string())?.len();
    let stage = Stage::set(&program, StageOptions::worker()).await?;
    let agent = stage.run().map_err(|error| error.to_string())?;
    stage.wait_status("health", WINDOW, |status| status["health"] == "healthy")?;
    let windows = std::env::var("NODEAGENT_BENCH_WINDOWS").ok();
    let windows = windows.and_then(|text| text.parse().ok()).unwrap_or(WINDOWS);
    // The connections of the first minute close by themselves; they are no idle cost.
    println!("settling for {WINDOW:?}, then {windows} windows of {WINDOW:?}");
    tokio::time::sleep(WINDOW).await;
    let mut seconds = Vec::new();
    let mut wakeups = Vec::new();
    for window in 1..=windows {
        let (before, begun) = (Sample::of(agent.pid())?, Instant::now());
        tokio::time::sleep(WINDOW).await;
        let after = Sample::of(agent.pid())?;
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        seconds.push((after.seconds - before.seconds) / minutes);
        wakeups.push((after.switches - before.switches) as f64 / minutes);
        println!(
            "window {window}: rss {} KiB, {} threads, {:.4} s, {} wake-ups",
            after.rss_kib,
            after.threads,
            after.seconds - before.seconds,
            after.switches - before.switches
        );
    }
    let last = Sample::of(agent.pid())?;
    println!("FIGURE binary_bytes={bytes}");
    println!("FIGURE idle_rss_kib={}", last.rss_kib);
    println!("FIGURE threads={}", last.threads);
    println!("FIGURE idle_cpu_s_per_min={:.4}", median(seconds));
    println!("FIGURE wakeups_per_min={:.1}", median(wakeups));
    Ok(())
}

/// One look at a process.
pub(crate) struct Sample {
    /// Resident memory, file pages and all.
    pub(crate) rss_kib: u64,
    /// Resident memory that is in no file.
    pub(crate) anonymous_kib: u64,
    /// Threads.
    pub(crate) threads: u64,
    /// Processor time of all its threads, from the scheduler's own count in nanoseconds.
    pub(crate) seconds: f64,
    /// How often its threads gave up the processor to wait, which is how often they woke.
    pub(crate) switches: u64,
}

impl Sample {
    /// Looks at a process.
    pub(crate) fn of(pid: u32) -> Result<Sample, String> {
        let read =
            |path: String| std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"));
        let status = read(format!("/proc/{pid}/status"))?;
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| e.to_string())?;
        let (mut nanoseconds, mut switches) = (0, 0);
        for task in tasks.flatten() {
            let task = task.path().display().to_string();
            let schedule = read(format!("{task}/schedstat"))?;
            nanoseconds +=
                schedule.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            switches += field(&read(format!("{task}/status"))?, "voluntary_ctxt_switches:");
        }
        Ok(Sample {
            rss_kib: field(&status, "VmRSS:"),
            anonymous_kib: field(&status, "RssAnon:"),
            threads: field(&status, "Threads:"),
            seconds: nanoseconds as f64 / 1e9,
            switches,
        })
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

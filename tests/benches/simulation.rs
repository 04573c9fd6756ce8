//! The simulation of `tests/scenarios` at length: in pieces, each a run of the same test with a
//! seed of its own, built as a release is. The first piece that breaks something is the last; its
//! lives are named by their seeds, and each replays alone.
//!
//! `tests/bench simulation 1000000` lives so many node-days, 200,000 without a number;
//! NODEAGENT_SEED repeats a former run, and NODEAGENT_BENCH_SECONDS begins no piece after as many
//! seconds: what was lived by then is what the figures tell.

use std::process::Command;
use std::time::Instant;

/// Node-days of a run that nobody gave a number.
const NODE_DAYS: u64 = 200_000;

/// Node-days of a piece: some minutes, so that a run that is cut has told how far it came.
const PIECE: u64 = 1_000;

/// The test that lives them.
const TEST: &str = "simulation::nodes_keep_every_invariant_through_months_of_faults";

/// How a line begins that names a life in which something was broken.
const LIFE: &str = "NODEAGENT_SEED=";

/// The kernel counts processor time for programs in hundredths of a second.
const TICKS: f64 = 100.0;

/// Lives them all, or until a piece breaks something.
pub(crate) fn run(node_days: Option<&str>) -> Result<(), String> {
    let wanted = node_days.map_or(Ok(NODE_DAYS), parsed)?;
    let seed = told("NODEAGENT_SEED")?.unwrap_or_else(rand::random);
    let limit = told("NODEAGENT_BENCH_SECONDS")?.unwrap_or(u64::MAX);
    println!("{wanted} node-days from seed {seed}, {PIECE} at a time");
    let begun = Instant::now();
    let mut lived = Piece::default();
    let mut pieces = 0;
    let in_time = || begun.elapsed().as_secs() < limit;
    while lived.node_days < wanted && lived.broken.is_empty() && in_time() {
        let days = PIECE.min(wanted - lived.node_days);
        let piece = Piece::live(seed.wrapping_add(pieces), days)?;
        pieces += 1;
        lived.node_days += piece.node_days;
        lived.broken = piece.broken;
        let (done, seconds) = (lived.node_days, begun.elapsed().as_secs());
        println!("{done} node-days after {seconds} s: {}", piece.summary);
    }
    figures(&lived, begun.elapsed().as_secs_f64())?;
    match lived.broken.is_empty() {
        true => Ok(()),
        false => Err(replays(&lived.broken)),
    }
}

fn told(name: &str) -> Result<Option<u64>, String> {
    std::env::var(name).ok().as_deref().map(parsed).transpose()
}

fn parsed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// A run of the test.
#[derive(Default)]
struct Piece {
    node_days: u64,
    /// The seeds of the lives in which something was broken.
    broken: Vec<String>,
    summary: String,
}

impl Piece {
    fn live(seed: u64, days: u64) -> Result<Piece, String> {
        let scenarios = std::env::var_os("NODEAGENT_SCENARIOS");
        let scenarios = scenarios.ok_or("NODEAGENT_SCENARIOS is not there; use tests/bench")?;
        let mut test = Command::new(scenarios);
        test.args(["--exact", "--show-output", TEST]);
        test.env("NODEAGENT_SEED", seed.to_string());
        test.env("NODEAGENT_NODE_DAYS", days.to_string());
        let output = test.output().map_err(|error| format!("the test cannot be run: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let piece = Piece::read(&text);
        if piece.broken.is_empty() != output.status.success() || piece.node_days < days {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("seed {seed} was not lived to its end:\n{text}{errors}"));
        }
        if !piece.broken.is_empty() {
            println!("{text}");
        }
        Ok(piece)
    }

    fn read(text: &str) -> Piece {
        let summary = text.lines().rfind(|line| line.contains(" node-days, "));
        let summary = summary.and_then(|line| line.strip_prefix("simulation: "));
        let summary = summary.unwrap_or_default();
        let days = summary.split(' ').next().and_then(|word| word.parse().ok());
        let lives = text.lines().filter_map(|line| line.strip_prefix(LIFE));
        let seeds = lives.filter_map(|rest| Some(rest.split_once(':')?.0.to_owned()));
        Piece { node_days: days.unwrap_or(0), broken: seeds.collect(), summary: summary.to_owned() }
    }
}

/// The last lines: what was lived, and what the processors did meanwhile.
fn figures(lived: &Piece, seconds: f64) -> Result<(), String> {
    let (program, kernel) = processor_seconds()?;
    let cores = (program + kernel) / seconds;
    println!(
        "processors: {program:.0} s in the program, {kernel:.0} s in the kernel, {cores:.2} busy"
    );
    println!("FIGURE node_days={}", lived.node_days);
    println!("FIGURE broken_invariants={}", lived.broken.len());
    println!("FIGURE seconds={seconds:.0}");
    println!("FIGURE node_days_per_second={:.1}", lived.node_days as f64 / seconds);
    Ok(())
}

fn replays(seeds: &[String]) -> String {
    let command = |seed: &String| {
        format!(
            "\n  {LIFE}{seed} cargo test --profile bench -p nodeagent --test scenarios -- \
             --exact --show-output {TEST}"
        )
    };
    format!(
        "invariants were broken; live it again:{}",
        seeds.iter().map(command).collect::<String>()
    )
}

/// Processor time of the children that have ended: in the program, and in the kernel.
fn processor_seconds() -> Result<(f64, f64), String> {
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(|error| error.to_string())?;
    // The second field is a name that may hold blanks; `cutime` is the 16th of all.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let mut fields = fields.split(' ').skip(13).map(|word| word.parse::<f64>());
    let mut next = || fields.next().and_then(Result::ok).map(|ticks| ticks / TICKS);
    next().zip(next()).ok_or_else(|| format!("no processor time in {stat:?}"))
}

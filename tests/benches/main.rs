//! Benchmarks: `tests/bench NAME`. Each prints what it did and, last, `FIGURE key=value` lines;
//! a timing is a ratio against something measured in the same run, and nothing here asserts one.

mod bootstrap;
mod first_cert;
mod fleet;
mod footprint;
mod handover;
mod mutations;
mod recover;
mod simulation;
mod soak;
mod swap;
mod vault_agent;

use std::path::PathBuf;
use std::process::ExitCode;

/// What can be measured.
const NAMES: &str = "first-cert footprint swap vault-agent bootstrap handover recover simulation \
    mutations fleet soak";

/// The program under measurement: the static release, which `tests/bench` builds.
fn program() -> Result<PathBuf, String> {
    let path = std::env::var_os("NODEAGENT_STATIC").map(PathBuf::from);
    path.ok_or_else(|| "NODEAGENT_STATIC does not name the static release; use tests/bench".into())
}

/// The middle one of some measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> ExitCode {
    // `cargo bench` adds `--bench`; the rest is a name, and a number where one is taken.
    let names: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match (names.first().map(String::as_str), runtime) {
        (_, Err(error)) => Err(error.to_string()),
        (Some("first-cert"), Ok(runtime)) => runtime.block_on(first_cert::run()),
        (Some("bootstrap"), Ok(runtime)) => runtime.block_on(bootstrap::run()),
        (Some("fleet"), Ok(_)) => fleet::run(),
        (Some("footprint"), Ok(runtime)) => runtime.block_on(footprint::run()),
        (Some("handover"), Ok(runtime)) => runtime.block_on(handover::run()),
        (Some("mutations"), Ok(_)) => mutations::run(names.get(1).map(String::as_str)),
        (Some("recover"), Ok(runtime)) => runtime.block_on(recover::run()),
        (Some("simulation"), Ok(_)) => simulation::run(names.get(1).map(String::as_str)),
        (Some("soak"), Ok(runtime)) => {
            runtime.block_on(soak::run(names.get(1).map(String::as_str)))
        }
        (Some("swap"), Ok(runtime)) => runtime.block_on(swap::run()),
        (Some("vault-agent"), Ok(runtime)) => {
            let word = |at: usize| names.get(at).map(String::as_str);
            runtime.block_on(vault_agent::run(word(1), word(2)))
        }
        _ => Err(format!("name one of: {NAMES}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

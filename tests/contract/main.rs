//! The contract of Vault, as far as an agent can meet it: one table of cases, run against the
//! model always and against the real Vault where it is built. A case asserts statuses, texts and
//! values; beyond that, everything that both peers answered in it is compared. Where they differ,
//! the model is wrong.
//!
//! `cargo test -p rig --test contract [-- NAME…]` runs the cases whose names hold such a word.

mod agent;
mod bench;
mod bounds;
mod cases;
mod csr;
mod documents;
mod init;
mod login;
mod pki;
mod quota;
mod renew;
mod shipped;
mod sign;
mod sys;
mod token;
mod trace;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use rig::clock::ModelClock;
use rig::peer::vault::RealVault;
use rig::vault::{Model, ModelOptions};
use tokio::task::{JoinSet, LocalSet};

use bench::{Bench, Ctx, Kind};
use cases::{CASES, Case};
use trace::Entry;

/// Cases of the real Vault that run at once: waits for leases to end overlap, on two cores.
const AT_ONCE: usize = 12;
/// The longest case waits for AWS's SDK to give up on a throttled call: about 6 s.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// What a case came to on one peer.
struct Run {
    result: Result<(), String>,
    trace: Vec<Entry>,
}

type Runs = BTreeMap<&'static str, Run>;

fn main() -> ExitCode {
    rig::pki::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime needs only file descriptors");
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let chosen = |case: &&Case| {
        wanted.is_empty() || wanted.iter().any(|word| case.name.contains(word.as_str()))
    };
    let cases: Vec<&'static Case> = CASES.iter().filter(chosen).collect();
    if cases.is_empty() {
        // `cargo test NAME` hands its word to every test program; none of ours is meant.
        return ExitCode::SUCCESS;
    }
    let failed = LocalSet::new().block_on(&runtime, run(&cases));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match failed {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("contract: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the cases on both peers and reports; the answer is the number of failures.
async fn run(cases: &[&'static Case]) -> Result<usize, String> {
    let model = on_model(cases).await?;
    let (real, version) = match RealVault::start().await {
        Ok(vault) => {
            let version = vault.version().await?;
            (on_real(cases, vault).await?, Some(version))
        }
        Err(why) if std::env::var_os("NODEAGENT_TESTS_MUST_RUN").is_some_and(|v| v == "1") => {
            return Err(why);
        }
        Err(why) => {
            println!("contract: not run on the real Vault: {why}");
            (Runs::new(), None)
        }
    };
    let failures = report(cases, &model, &real);
    let version = version.unwrap_or_else(|| rig::vault::VERSION.into());
    println!(
        "contract: {} cases on the model, {} on real Vault {version}",
        model.len(),
        real.len()
    );
    println!("{} passed, {failures} failed", model.len() + real.len() - failures);
    Ok(failures)
}

/// One after the other: the model's clock is moved by the cases.
async fn on_model(cases: &[&'static Case]) -> Result<Runs, String> {
    let clock = ModelClock::real();
    let model = Model::start(ModelOptions::new(clock.clone())).map_err(|e| e.to_string())?;
    let bench = Bench::new(Kind::Model(clock), model.handle()).await?;
    let mut runs = Runs::new();
    for case in cases {
        let (name, run) = run_one(case, Ctx::new(&bench, case.name)).await;
        runs.insert(name, run);
    }
    Ok(runs)
}

/// Several at once: the real clock has to be waited for.
async fn on_real(cases: &[&'static Case], vault: RealVault) -> Result<Runs, String> {
    let bench = Bench::new(Kind::Real, vault.handle()).await?;
    let mut waiting = cases.iter();
    let mut running = JoinSet::new();
    let mut runs = Runs::new();
    loop {
        while running.len() < AT_ONCE {
            let Some(case) = waiting.next() else { break };
            running.spawn_local(run_one(case, Ctx::new(&bench, case.name)));
        }
        let Some(ended) = running.join_next().await else {
            return Ok(runs);
        };
        let (name, run) = ended.map_err(|error| format!("a case panicked: {error}"))?;
        runs.insert(name, run);
    }
}

async fn run_one(case: &'static Case, ctx: Ctx) -> (&'static str, Run) {
    let result = match tokio::time::timeout(CASE_LIMIT, (case.run)(&ctx)).await {
        Ok(result) => result,
        Err(_) => Err(format!("not done after {CASE_LIMIT:?}")),
    };
    (case.name, Run { result, trace: ctx.trace() })
}

/// Prints every failure by name. A case fails on a peer; a difference is the model's failure.
fn report(cases: &[&'static Case], model: &Runs, real: &Runs) -> usize {
    let mut failures = 0;
    for case in cases {
        for (peer, runs) in [("model", model), ("real Vault", real)] {
            if let Some(Run { result: Err(why), .. }) = runs.get(case.name) {
                failures += 1;
                println!("FAILED {} on the {peer}: {why}", case.name);
            }
        }
        let (Some(model), Some(real)) = (model.get(case.name), real.get(case.name)) else {
            continue;
        };
        if model.result.is_ok()
            && real.result.is_ok()
            && let Some(difference) = trace::difference(&model.trace, &real.trace)
        {
            failures += 1;
            println!("FAILED {}: the model differs: {difference}", case.name);
        }
    }
    failures
}

//! Months of nodes in minutes: `decide` and the effects themselves, under a manual clock that
//! jumps to the next instant due, against models of Vault and AWS, under faults from a seed, with
//! the invariants checked after each effect.
//!
//! `NODEAGENT_NODE_DAYS` says how many node-days (2,000 by default) and `NODEAGENT_SEED` from
//! which seed; a seed alone lives one node's life again. A new seed is drawn for every run, and
//! printed. In one run the same code decides and acts as in production; only clock, systemd and
//! the consumer are the test's own, and all requests go over real sockets.

mod clock;
mod consumer;
mod disk;
mod evidence;
mod faults;
mod invariants;
mod ledger;
mod life;
mod marks;
mod outages;
mod random;
mod sabotage;
mod schedule;
mod units;
mod weather;
mod world;

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use clock::lock;
use disk::Disk;
use life::{Broken, Life, Log, Outcome};
use random::{Random, derived};
use world::{Kind, World};

/// Node-days of a run that nobody gave a number.
const NODE_DAYS: u64 = 2_000;

/// A life is long enough for two changes of the authority, and for what an outage leaves behind.
const DAYS_OF_LIFE: u64 = 50;

/// All lives begin here, by the true time.
const BIRTH: &str = "2027-03-01T00:00:00Z";

/// What is to be simulated.
#[derive(Clone, Copy, Debug)]
struct Run {
    seed: u64,
    lives: u64,
    days: u64,
}

impl Run {
    fn of_environment() -> Run {
        let number = |name| std::env::var(name).ok().map(|text| parsed(name, &text));
        let (seed, node_days) = (number("NODEAGENT_SEED"), number("NODEAGENT_NODE_DAYS"));
        let alone = seed.is_some() && node_days.is_none();
        let node_days = node_days.unwrap_or(if alone { DAYS_OF_LIFE } else { NODE_DAYS });
        let drawn = || rand::random::<u64>();
        Run {
            seed: seed.unwrap_or_else(drawn),
            lives: node_days.div_ceil(DAYS_OF_LIFE),
            days: node_days.min(DAYS_OF_LIFE),
        }
    }
}

fn parsed(name: &str, text: &str) -> u64 {
    let digits = text.strip_prefix("0x");
    let number = digits.map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16));
    number.unwrap_or_else(|_| panic!("{name}={text} is no number"))
}

#[test]
fn nodes_keep_every_invariant_through_months_of_faults() {
    let run = Run::of_environment();
    let begun = Instant::now();
    let (next, lived) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let own_mounts = disk::own_mounts();
                if !own_mounts {
                    println!("simulation: not root: no disk is full or read-only");
                }
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= run.lives {
                        return;
                    }
                    let seed = derived(run.seed, number);
                    let disk = if own_mounts { Disk::mounted() } else { Disk::directory() };
                    let outcome = disk.map_err(|error| error.to_string());
                    let outcome = outcome.and_then(|disk| live(seed, run.days, disk));
                    lock(&lived).push((seed, outcome));
                }
            });
        }
    });
    let lived = lived.into_inner().unwrap_or_default();
    let broken = report(&lived);
    println!(
        "simulation: {} node-days, {broken} broken invariants, {} s, seed {}",
        run.lives * run.days,
        begun.elapsed().as_secs(),
        run.seed
    );
    assert_eq!(
        broken, 0,
        "invariants were broken; NODEAGENT_SEED=… of a line above lives it again"
    );
}

/// One node's life from its seed.
fn live(seed: u64, days: u64, disk: Disk) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let log = Log::default();
    let ours = Targets::new().with_target("nodeagent", LevelFilter::DEBUG);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(Lines(log.clone()));
    let subscriber = tracing_subscriber::registry().with(ours).with(lines);
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let mut random = Random::new(derived(seed, 1));
            let birth: Timestamp = BIRTH.parse().map_err(|_| "no birth")?;
            let kind = Kind::drawn(&mut random);
            let death = birth + SignedDuration::from_hours(24 * i64::try_from(days).unwrap_or(1));
            let plan = schedule::plan(&mut random, birth, death);
            let world = World::new(kind, disk, birth).await?;
            let mut life = Life::new(world, plan, seed, log)?;
            life.live(death).await?;
            Ok(life.outcome())
        })
    })
}

/// Prints what went wrong, and counts it.
fn report(lived: &[(u64, Result<Outcome, String>)]) -> usize {
    let mut broken = 0;
    let mut sum = Outcome::default();
    for (seed, outcome) in lived {
        match outcome {
            Err(error) => {
                broken += 1;
                println!("NODEAGENT_SEED={seed}: the simulation itself failed: {error}");
            }
            Ok(outcome) => {
                broken += outcome.broken.len();
                outcome.broken.iter().for_each(|found| tell(*seed, found));
                sum.effects += outcome.effects;
                sum.issued += outcome.issued;
                sum.acts += outcome.acts;
                sum.starts += outcome.starts;
            }
        }
    }
    println!(
        "simulation: {} effects, {} certificates, {} restarts and reloads, {} starts of the agent",
        sum.effects, sum.issued, sum.acts, sum.starts
    );
    broken
}

fn tell(seed: u64, found: &Broken) {
    println!("NODEAGENT_SEED={seed}: {} {}: {}", found.at, found.invariant, found.text);
    for line in &found.story {
        println!("    {line}");
    }
}

/// A place for lines of log.
#[derive(Clone)]
struct Lines(Log);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Lines {
    type Writer = Lines;

    fn make_writer(&'a self) -> Lines {
        Lines(Arc::clone(&self.0))
    }
}

//! 10,000 nodes on one Vault: how even the load is that they are on it, day by day, after an
//! outage and after a reboot of all of them, and how many kubelets restart at once.
//!
//! Each node asks the agent's own `decide` when what is due; a day of all of them takes seconds.
//! One fleet is launched within minutes, which is the worst for its evenness; it is looked at day
//! by day for a month. Another, that grew over a day, is looked at on its fourth.

mod node;
mod plot;
mod vault;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use nodeagent::config::{self, Config};
use nodeagent::duty::act::PROBE_LIMIT;
use nodeagent::host::files::Root;
use rig::pki::Ca;

use node::{Moment, Node};
use vault::{Call, Vault};

/// How many nodes.
const NODES: usize = 10_000;

/// When the first is launched.
const BIRTH: &str = "2027-03-01T00:00:00Z";

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Within this all nodes of a fleet are launched that is raised at once.
const LAUNCH: SignedDuration = SignedDuration::from_mins(10);

/// After so many days the fleet that was raised at once is measured.
const SETTLED: i32 = 29;

/// After so many days the one that grew is.
const GROWN: i32 = 3;

/// For how long Vault is away.
const OUTAGE: SignedDuration = SignedDuration::from_hours(6);

/// Within this the first requests after an outage are made: the longest backoff.
const RETURN: SignedDuration = SignedDuration::from_mins(75);

/// Within this all machines are up again after a reboot of all.
const BOOT: SignedDuration = SignedDuration::from_mins(1);

/// Seconds of a window: a rate is the mean of five minutes, as dashboards show it.
const WINDOW: usize = 300;

/// Where the plot is drawn.
const PLOT: &str = "docs/figures/fleet.svg";

/// When what is measured.
struct Schedule {
    /// Within this all nodes are launched.
    launch: SignedDuration,
    watched: Range<Timestamp>,
    day: Range<Timestamp>,
    outage: Range<Timestamp>,
    after: Range<Timestamp>,
    reboot: Timestamp,
}

impl Schedule {
    fn new(launch: SignedDuration, settled: i32) -> Result<Schedule, String> {
        let birth: Timestamp = BIRTH.parse().map_err(|_| "no birth")?;
        let day = birth + DAY * settled..birth + DAY * (settled + 1);
        let outage = day.end..day.end + OUTAGE;
        let after = outage.end..outage.end + DAY * 2;
        let reboot = after.end;
        Ok(Schedule { launch, watched: birth..reboot + DAY, day, outage, after, reboot })
    }
}

/// What the fleet did.
struct Lived {
    vault: Vault,
    restarts: Vec<Timestamp>,
    /// When the last node that the outage disturbed was well again.
    recovered: Timestamp,
}

/// Lives the days of both fleets, prints the figures and draws the plot.
pub(crate) fn run() -> Result<(), String> {
    let config = configuration()?;
    println!("{NODES} nodes, rates are means of {WINDOW} s");
    let grown = Schedule::new(DAY, GROWN)?;
    let (vault, day) = (live(&grown, &config).vault, &grown.day);
    let grown = Rates::of(&vault, day);
    println!("launched over a day, day {}: {grown}", GROWN + 1);
    let schedule = Schedule::new(LAUNCH, SETTLED)?;
    let lived = live(&schedule, &config);
    println!("launched within {LAUNCH:#}:");
    for number in [0, 1, 2, 4, 6, 9, 13, 19, 24, SETTLED] {
        let begun = schedule.watched.start + DAY * number;
        println!("  day {}: {}", number + 1, Rates::of(&lived.vault, &(begun..begun + DAY)));
    }
    tell_calls(&lived.vault, &schedule.day);
    let day = Rates::of(&lived.vault, &schedule.day);
    let outage = tell_outage(&schedule, &lived, day.mean);
    let reboot = tell_reboot(&schedule, &lived.vault, day.mean);
    println!("restarts of kubelets count as {PROBE_LIMIT:?} each, the longest they may take");
    draw(&schedule, &lived.vault, day.mean)?;
    println!("FIGURE fleet_requests_per_second={:.2}", day.mean);
    println!("FIGURE fleet_peak_to_mean={:.2}", grown.ratio());
    println!("FIGURE fleet_peak_to_mean_launched_at_once={:.2}", day.ratio());
    for (name, value) in outage.into_iter().chain(reboot) {
        println!("FIGURE fleet_{name}={value:.2}");
    }
    for (name, span) in [("", &schedule.day), ("_after_outage", &schedule.after)] {
        let most = parallel(&lived.restarts, span);
        println!("FIGURE fleet_parallel_restarts{name}={most}");
    }
    Ok(())
}

/// How Vault fares when it is back, measured by the mean of a day in which nothing happens; the
/// figures are the answer.
fn tell_outage(schedule: &Schedule, lived: &Lived, mean: f64) -> [(&'static str, f64); 3] {
    let back = schedule.outage.end..schedule.outage.end + RETURN;
    let at_once = Rates::of(&lived.vault, &back).peak;
    let echo = Rates::of(&lived.vault, &(back.end..schedule.after.end)).peak;
    let away = lived.vault.in_vain as f64 / OUTAGE.as_secs_f64();
    println!("Vault away for {OUTAGE:#}: {away:.1} connections/s in vain");
    println!("back: at most {at_once:.1} requests/s, in the first {RETURN:#}:");
    tell_calls(&lived.vault, &back);
    println!("then: at most {echo:.1} requests/s, when what was renewed at once is due again");
    let recovery = schedule.outage.end.duration_until(lived.recovered).as_secs_f64() / 60.0;
    println!("the last node is well {recovery:.1} min after Vault is back");
    [
        ("peak_to_mean_after_outage", at_once.max(echo) / mean),
        ("peak_to_mean_in_echo", echo / mean),
        ("recovery_min", recovery),
    ]
}

/// The same for a day that begins with a boot of all machines.
fn tell_reboot(schedule: &Schedule, vault: &Vault, mean: f64) -> [(&'static str, f64); 2] {
    let day = schedule.reboot..schedule.watched.end;
    let peak = Rates::of(vault, &day).peak;
    println!("all machines boot, and are up within {BOOT:#}: at most {peak:.1} requests/s");
    tell_calls(vault, &(day.start..day.start + HOUR));
    let (_, log_ins) = vault.count(&day, Call::LogIn);
    [
        ("peak_to_mean_after_reboot", peak / mean),
        ("log_ins_in_a_second_after_reboot", f64::from(log_ins)),
    ]
}

/// The most and the mean of a span's windows, in requests a second.
struct Rates {
    mean: f64,
    peak: f64,
}

impl Rates {
    fn of(vault: &Vault, span: &Range<Timestamp>) -> Rates {
        let rates = vault.rates(span, WINDOW);
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        Rates { mean, peak: rates.into_iter().fold(0.0, f64::max) }
    }

    fn ratio(&self) -> f64 {
        self.peak / self.mean
    }
}

impl std::fmt::Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Rates { mean, peak } = self;
        write!(f, "{mean:.1} requests/s, at most {peak:.1}: {:.2} of the mean", self.ratio())
    }
}

fn tell_calls(vault: &Vault, span: &Range<Timestamp>) {
    let one = |call: Call| {
        let (sum, most) = vault.count(span, call);
        format!("{call:?} {sum} (at most {most} in a second)")
    };
    println!("  {}", Call::ALL.map(one).join(", "));
}

/// A worker whose kubelet has to be restarted for each client certificate.
fn configuration() -> Result<Config, String> {
    let text = |error: std::io::Error| error.to_string();
    let directory = tempfile::tempdir().map_err(text)?;
    let place = directory.path().join("etc/nodeagent/config.d");
    std::fs::create_dir_all(&place).map_err(text)?;
    let config = "[node]\nrole = \"worker\"\nkubernetes = \"1.35\"\n\
         [vault]\naddress = \"http://127.0.0.1:8200\"\n\
         [pki.cluster]\nmount = \"pki\"\nca = \"/etc/nodeagent/ca.pem\"\n";
    std::fs::write(place.join("10-fleet.toml"), config).map_err(text)?;
    let authority = Ca::new("fleet");
    std::fs::write(directory.path().join("etc/nodeagent/ca.pem"), authority.pem()).map_err(text)?;
    let now = BIRTH.parse().map_err(|_| "no birth")?;
    config::load(&Root::new(directory.path()), now).map_err(|error| format!("{error:#}"))
}

fn live(schedule: &Schedule, config: &Config) -> Lived {
    let vault = Vault::new(schedule.watched.clone(), schedule.outage.clone());
    let mut lived = Lived { vault, restarts: Vec::new(), recovered: schedule.outage.end };
    let mut nodes: Vec<Node> = (0..NODES).map(|number| Node::new(number, config)).collect();
    let mut queue = BinaryHeap::new();
    for (number, node) in nodes.iter().enumerate() {
        let launched = schedule.watched.start + schedule.launch.mul_f64(node.fraction(1));
        queue.push(Reverse((launched, number)));
    }
    let mut rebooted = false;
    while let Some(Reverse((now, number))) = queue.pop() {
        if now >= schedule.watched.end {
            break;
        }
        if now >= schedule.reboot && !rebooted {
            rebooted = true;
            queue = boots(schedule, config, &mut nodes);
            continue;
        }
        let node = &mut nodes[number];
        let (config, vault, restarts) = (config, &mut lived.vault, &mut lived.restarts);
        let failing = node.is_failing();
        let next = node.turn(&mut Moment { config, vault, restarts, now });
        if failing && !node.is_failing() {
            lived.recovered = lived.recovered.max(now);
        }
        queue.push(Reverse((next, number)));
    }
    lived
}

/// All machines boot, and are up one after the other.
fn boots(
    schedule: &Schedule,
    config: &Config,
    nodes: &mut [Node],
) -> BinaryHeap<Reverse<(Timestamp, usize)>> {
    let up = |(number, node): (usize, &mut Node)| {
        let up = schedule.reboot + BOOT.mul_f64(node.fraction(2));
        node.boot(config, up);
        Reverse((up, number))
    };
    nodes.iter_mut().enumerate().map(up).collect()
}

/// The most restarts of a span that are under way at once, each taking as long as it may.
fn parallel(restarts: &[Timestamp], span: &Range<Timestamp>) -> usize {
    let begun: Vec<Timestamp> = restarts.iter().filter(|at| span.contains(at)).copied().collect();
    let beside = |(first, at): (usize, &Timestamp)| {
        let end = *at + PROBE_LIMIT;
        begun[first..].partition_point(|other| *other < end)
    };
    begun.iter().enumerate().map(beside).max().unwrap_or(0)
}

fn draw(schedule: &Schedule, vault: &Vault, mean: f64) -> Result<(), String> {
    let panel = |title: &str, span: Range<Timestamp>| plot::Panel {
        title: title.to_owned(),
        hours: span.start.duration_until(span.end).as_secs_f64() / 3600.0,
        rates: vault.rates(&span, WINDOW),
        mean,
    };
    let after = schedule.outage.start - HOUR..schedule.outage.end + HOUR * 11;
    let launch = schedule.watched.start..schedule.watched.start + DAY;
    let boot = schedule.reboot - HOUR..schedule.reboot + HOUR * 11;
    let title = format!("{NODES} nodes on one Vault, requests a second (means of 5 minutes)");
    let text = plot::draw(
        &title,
        &[
            panel("launched within ten minutes", launch),
            panel("the thirtieth day", schedule.day.clone()),
            panel("Vault away from hour 1 to hour 7", after),
            panel("all machines boot at hour 1", boot),
        ],
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PLOT);
    let directory = path.parent().ok_or("no directory")?;
    std::fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    std::fs::write(&path, text).map_err(|error| format!("{PLOT}: {error}"))?;
    println!("drawn: {PLOT}");
    Ok(())
}

//! An hour of accelerated life of one agent beside the real Vault: a renewal every few seconds, a
//! consumer that reads its files again and one that has to be restarted, a token that is renewed
//! and replaced, and Vault away for longer than the certificates live. What the agent holds is
//! looked at every ten seconds, and a straight line is laid through the looks: what leaks with
//! each renewal, each restart or each failure is a slope, whatever the machine does beside it.

mod line;
mod look;

use std::time::{Duration, Instant};

use nodeagent::duty::certs::publish::TOP;
use nodeagent::duty::certs::store::{ARCHIVE, KEPT};
use rig::consumer::{Consumer, Mode};
use rig::proxy::Fault;
use rig::setup::SetupOptions;
use rig::stage::{Running, Stage, StageOptions, Which};
use rig::systemd::ActiveState;
use serde_json::{Value, json};

use super::program;
use super::vault_agent::audit::Audit;
use line::Line;
use look::{Look, directories, lines};

/// How long it lasts; the argument says otherwise.
const LENGTH: Duration = Duration::from_secs(3600);

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(10);

/// Vault goes away so often, or three times in all where that is less, and for so long.
const OUTAGES: Duration = Duration::from_secs(600);
const OUTAGE: Duration = Duration::from_secs(20);

/// For how long a state is waited for.
const SOON: Duration = Duration::from_secs(60);

/// What is left of a certificate at any moment.
const SURVIVE: u32 = 4;

/// Each certificate with its life in seconds.
const LIVES: [(&str, u32); 3] = [("kubelet-server", 10), ("kubelet-client", 10), (OLD, 24)];

/// How many of them are issued in an hour, by the hours of 2026-11-29 and 30. (Of the life without
/// what is to be left, twelve thirteenths would be 1490.)
const ISSUES: f64 = 1786.0;

/// The certificate of the consumer that has to be restarted, and the consumer.
const OLD: &str = "old-server";
const OLD_UNIT: &str = "old.service";

/// Outages and all there is a renewal in so many seconds.
const FEWEST: usize = 10;

/// More memory than this from one end of the line to the other is a leak, and so are more
/// descriptors; the error of the slope is granted twice. An hour here has as many renewals as a
/// worker has in a year.
const MOST_KIB: f64 = 256.0;
const MOST_FDS: f64 = 2.0;

/// The agent's new generation beside the one that is still being read, and the archive's beside
/// those that are kept.
const MOST_GENERATIONS: usize = 2;
const MOST_ARCHIVED: usize = KEPT + 1;

/// Lives an hour, or so many seconds, and judges it.
pub(crate) async fn run(seconds: Option<&str>) -> Result<(), String> {
    let seconds = seconds.map(|text| text.parse().map_err(|_| format!("`{text}`: no seconds")));
    let length = seconds.transpose()?.map_or(LENGTH, Duration::from_secs);
    let (stage, old) = set().await?;
    let audit = Audit::new(stage.path("/audit.log"));
    audit.begin(&stage.admin()).await?;
    let agent = settle(&stage, &old)?;
    let (mark, log) = (audit.mark()?, lines(&stage));
    println!(
        "soak for {length:?}: a look every {EVERY:?}, vault away for {OUTAGE:?} of every {:?}",
        outages(length)
    );
    let looks = live(&stage, &agent, length).await?;
    let (asked, _) = audit.since(mark)?;
    println!("vault was asked: {asked:?}");
    println!("FIGURE soak_seconds={}", length.as_secs());
    println!("FIGURE soak_renewals={}", asked.issues);
    println!("FIGURE soak_log_ins={}", asked.logins);
    println!("FIGURE soak_restarts={}", old.record().restarts);
    println!("FIGURE soak_rereads={}", stage.kubelet.record().rereads);
    let hours = length.as_secs_f64() / 3600.0;
    let logged = lines(&stage) - log;
    println!("FIGURE log_lines_per_hour={:.0}", logged as f64 / hours);
    println!("FIGURE log_lines_per_renewal={:.2}", logged as f64 / asked.issues as f64);
    let mut faults = judge(&looks);
    if asked.issues < length.as_secs() as usize / FEWEST {
        faults.push(format!("{} renewals are no accelerated life", asked.issues));
    }
    faults.extend(leave(&stage, agent)?);
    match faults.is_empty() {
        true => Ok(()),
        false => Err(faults.join("; ")),
    }
}

/// A worker before the real Vault, with tokens and certificates that live for seconds.
async fn set() -> Result<(Stage, Consumer), String> {
    let setup = SetupOptions {
        token_ttl: "30s".into(),
        token_max_ttl: "2m".into(),
        ..SetupOptions::new("", "")
    };
    let options = StageOptions { vault: Which::Real, setup, ..StageOptions::worker() };
    let stage = Stage::set(program()?, options).await?;
    let admin = stage.admin();
    for role in ["kubelet-server", "kubelet-client"] {
        // Dated back by 30 s, as Vault does by default, these lives would be over at once.
        let path = format!("pki/roles/{role}");
        let mut body = admin.read(&path).await?.json["data"].clone();
        body["not_before_duration"] = json!("1s");
        admin.must_write(&path, &body).await?;
    }
    let text = |error: std::io::Error| error.to_string();
    let directory = stage.path(&format!("{TOP}/old/{OLD}/current"));
    let old = Consumer::new(directory, Mode::RereadNever).map_err(text)?;
    stage.systemd.add_unit(OLD_UNIT, old.unit());
    let gid = nix::unistd::getgid();
    let mut config = format!(
        "[rotation]\nsurvive_vault_outage = \"{SURVIVE}s\"\nissues_per_hour = 3600\n\
         [[consumer]]\nname = \"old\"\nunit = \"{OLD_UNIT}\"\nprobe = \"{}\"\ngroup = \"{gid}\"\n",
        old.addr()
    );
    for (name, life) in LIVES {
        config.push_str(&format!("[[certificate]]\nname = \"{name}\"\nttl = \"{life}s\"\n"));
    }
    config.push_str(
        "consumer = \"old\"\npki = \"cluster\"\nrole = \"kubelet-server\"\nusage = \"server\"\n\
         common_name = \"system:node:{{instance_id}}\"\norganizations = [\"system:nodes\"]\n\
         dns = [\"{{instance_id}}\"]\nips = [\"{{private_ip}}\", \"127.0.0.1\"]\n",
    );
    stage.write("/etc/nodeagent/config.d/20-more.toml", config.as_bytes()).map_err(text)?;
    Ok((stage, old))
}

/// An agent that has been through an hour already, by its records: it counts what it asked for in
/// the last hour, and a list that fills up would look like a leak.
fn settle(stage: &Stage, old: &Consumer) -> Result<Running, String> {
    let text = |error: std::io::Error| error.to_string();
    let first = stage.run().map_err(text)?;
    stage.wait_status("health", SOON, |status| status["health"] == "healthy")?;
    first.stop(SOON)?;
    let path = nodeagent::duty::records::PATH;
    let mut records: Value = serde_json::from_str(&stage.read(path)).map_err(|e| e.to_string())?;
    let frequency: f64 = LIVES.iter().map(|(_, life)| 1.0 / f64::from(life - SURVIVE)).sum();
    for (name, life) in LIVES {
        let period = f64::from(life - SURVIVE) * frequency * 3600.0 / ISSUES;
        let now = stage.clock.now();
        let at = |n: i32| now - jiff::SignedDuration::from_secs_f64(f64::from(n) * period);
        let issues: Vec<_> = (1..(3600.0 / period) as i32).rev().map(at).collect();
        records["certificates"][name]["issues"] = json!(issues);
    }
    stage.write(path, records.to_string().as_bytes()).map_err(text)?;
    let agent = stage.run().map_err(text)?;
    stage.wait_status("health", SOON, |status| status["health"] == "healthy")?;
    stage.start_kubelet()?;
    old.restart()?;
    stage.systemd.set_state(OLD_UNIT, ActiveState::Active);
    Ok(agent)
}

/// How often Vault goes away in a run of this length.
fn outages(length: Duration) -> Duration {
    OUTAGES.min(length / 3).max(OUTAGE * 2)
}

/// Looks again and again while everything goes on, and takes Vault away now and then.
async fn live(stage: &Stage, agent: &Running, length: Duration) -> Result<Vec<Look>, String> {
    let begun = Instant::now();
    let every = outages(length);
    let (mut looks, mut away) = (Vec::new(), false);
    let mut ticks = tokio::time::interval(EVERY);
    while begun.elapsed() < length {
        ticks.tick().await;
        let phase = begun.elapsed().as_secs_f64() % every.as_secs_f64();
        let now_away = (phase - every.as_secs_f64() / 2.0).abs() * 2.0 < OUTAGE.as_secs_f64();
        if now_away != away {
            stage.proxy.set(if now_away { Fault::Refuse } else { Fault::None });
            away = now_away;
        }
        let look = Look::at(stage, agent.pid(), begun.elapsed())?;
        println!("{look}{}", if away { " vault-away" } else { "" });
        looks.push(look);
    }
    stage.proxy.set(Fault::None);
    Ok(looks)
}

/// Prints what the looks come to; gives what is too much.
fn judge(looks: &[Look]) -> Vec<String> {
    let mut faults = Vec::new();
    // What is there after the first sixth is what it needs; what comes after that is a slope.
    let warm = &looks[looks.len() / 6..];
    let hours = warm.last().map_or(f64::NAN, Look::hours) - warm[0].hours();
    let line = |value: fn(&Look) -> usize| {
        Line::through(warm.iter().map(|look| (look.hours(), value(look) as f64)))
    };
    for (name, value, most) in [
        ("rss_slope_kib", (|look| look.rss_kib) as fn(&Look) -> usize, MOST_KIB),
        ("anonymous_slope_kib", |look| look.anonymous_kib, MOST_KIB),
        ("fd_slope", |look| look.fds, MOST_FDS),
    ] {
        let line = line(value);
        println!("FIGURE {name}_per_hour={:.2}", line.slope);
        println!("FIGURE {name}_error={:.2}", line.error);
        let sure = (line.slope - 2.0 * line.error) * hours;
        // A run that is so short that there is no line fails too.
        if sure.is_nan() || sure > most {
            faults.push(format!("{name}_per_hour comes to {sure:.0} at least, over {most}"));
        }
    }
    for (name, value, most) in [
        ("generations", (|look| look.generations) as fn(&Look) -> usize, MOST_GENERATIONS),
        ("archived", |look| look.archived, MOST_ARCHIVED),
    ] {
        let max = looks.iter().map(value).max().unwrap_or_default();
        println!("FIGURE {name}_max={max}");
        if max > most {
            faults.push(format!("{max} {name} of one certificate, more than {most}"));
        }
    }
    let most = |value: fn(&Look) -> usize| looks.iter().map(value).max().unwrap_or_default();
    println!("FIGURE rss_kib_max={}", most(|look| look.rss_kib));
    println!("FIGURE fds_max={}", most(|look| look.fds));
    println!("FIGURE threads_max={}", most(|look| look.threads));
    println!("FIGURE files_max={}", most(|look| look.files));
    println!("FIGURE records_bytes_max={}", most(|look| look.records));
    faults
}

/// Has the agent end; gives what it has left that it should not.
fn leave(stage: &Stage, agent: Running) -> Result<Vec<String>, String> {
    let code = agent.stop(SOON)?;
    let mut faults = Vec::new();
    for (name, _) in LIVES {
        let consumer = if name == OLD { "old" } else { "kubelet" };
        for (directory, most) in
            [(format!("{TOP}/{consumer}/{name}"), 1), (format!("{ARCHIVE}/{name}"), KEPT)]
        {
            let left = directories(&stage.path(&directory));
            if left.len() > most {
                faults.push(format!("{directory} is left with {left:?}"));
            }
        }
    }
    println!("FIGURE generation_directories_left={}", faults.len());
    if code != 0 {
        faults.push(format!("it ended with {code}"));
    }
    Ok(faults)
}

//! Vault away for an hour that is really waited for, longer than the tokens of both live: with
//! certificates that would outlast it, at the worst moment that there is for the agent, and with
//! certificates that all end in it. Each has a pair of nodes and a Vault of its own, side by side.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rig::proxy::Fault;
use rig::setup::SetupOptions;
use rig::stage::Running;

use super::hazards::{PAUSE, date_back_little, leaf, seconds_left};
use super::pair::{Pair, Wish};
use crate::first_cert::CONFIG;
use crate::program;

/// For how long Vault is away; the argument says otherwise.
const LENGTH: Duration = Duration::from_secs(3600);

/// For how long another certificate is waited for when it is back.
const RETURN: Duration = Duration::from_secs(900);

/// For how long the moment before a renewal is waited for.
const MOMENT: Duration = Duration::from_secs(1500);

/// The certificates of one pair.
struct Lives {
    name: &'static str,
    /// How long each lives, in seconds.
    life: u64,
    /// What the agent is told to survive; Vault Agent is told nothing.
    survive: u64,
}

/// Waits for an hour, or for so many seconds, with both kinds of lives.
pub(crate) async fn run(seconds: Option<&str>) -> Result<(), String> {
    let seconds = seconds.map(|text| text.parse().map_err(|_| format!("`{text}`: no seconds")));
    let length = seconds.transpose()?.map_or(LENGTH, Duration::from_secs);
    let (life, survive) = (length.as_secs() * 7 / 6, length.as_secs());
    let outlasts = Lives { name: "outlasting", life, survive };
    let ends = Lives { name: "ending", life: 60, survive: 27 };
    println!("FIGURE hour_outage_s={}", length.as_secs());
    // What has taken an hour is told, whatever has become of the other.
    let (one, other) = tokio::join!(one(length, &outlasts), one(length, &ends));
    one.and(other)
}

/// An outage for one pair.
async fn one(length: Duration, lives: &Lives) -> Result<(), String> {
    let setup = SetupOptions {
        token_ttl: format!("{}s", length.as_secs() / 4),
        token_max_ttl: format!("{}s", length.as_secs() / 2),
        ..SetupOptions::new("", "")
    };
    let mut pair = Pair::set(program()?, setup).await?;
    pair.audit.begin(&pair.stage.admin()).await?;
    date_back_little(&pair).await?;
    let Lives { name, life, survive } = lives;
    let config = format!(
        "{CONFIG}ttl = \"{life}s\"\n[rotation]\nsurvive_vault_outage = \"{survive}s\"\n\
         issues_per_hour = 3600\n"
    );
    pair.replace(&config, Wish { ttl: format!("{life}s"), ..Wish::default() })?;
    let (ours, theirs) = pair.run_both().await?;
    await_renewal(&pair, lives).await?;
    let logs = [pair.stage.log().len(), pair.their_log().len()];
    for proxy in [&pair.stage.proxy, &pair.proxy] {
        proxy.set(Fault::Refuse);
    }
    let files = [pair.our_file(), pair.their_file()];
    for (who, file) in ["nodeagent", "vault agent"].iter().zip(&files) {
        let left = seconds_left(&pair.stage.clock, &leaf(file)?);
        println!("{name}: vault goes away, {left:.0} s are left of the certificate of {who}");
    }
    tokio::time::sleep(length).await;
    let mark = pair.audit.mark()?;
    let logged =
        [pair.stage.log()[logs[0]..].lines().count(), pair.their_log()[logs[1]..].lines().count()];
    for proxy in [&pair.stage.proxy, &pair.proxy] {
        proxy.set(Fault::None);
    }
    let met = (meet(&pair, &files[0], ours), meet(&pair, &files[1], theirs));
    let (our, their) = tokio::try_join!(met.0, met.1)?;
    let (ours, theirs) = pair.audit.since(mark)?;
    println!("{name}: after the return nodeagent {ours:?}, vault agent {theirs:?}");
    let tell = |what: &str, ours: String, theirs: String| {
        super::tell(&format!("hour_{name}_{what}"), ours, theirs);
    };
    tell("life_s", life.to_string(), life.to_string());
    tell("recovery_s", our.recovery, their.recovery);
    tell("without_certificate_s", our.without, their.without);
    tell("still_running", our.running.to_string(), their.running.to_string());
    tell("log_lines", logged[0].to_string(), logged[1].to_string());
    Ok(())
}

/// Until the agent's next renewal is two seconds away, and little more is left than what it is to
/// survive: the worst moment that there is. The first renewal of a node may come earlier.
async fn await_renewal(pair: &Pair, lives: &Lives) -> Result<(), String> {
    let begun = Instant::now();
    // The spread over the fleet is less than an eighth of what is not to be survived.
    let most = (lives.survive + (lives.life - lives.survive) / 8 + 2) as f64;
    loop {
        // What is not there yet is due at once; that is not the moment that is meant.
        let told = pair.stage.certificate("kubelet-client");
        let renew = told["renew"].as_str().filter(|_| told["serial"].is_string());
        let renew: Option<Timestamp> = renew.and_then(|text| text.parse().ok());
        let soon = renew.map(|renew| pair.stage.clock.now().duration_until(renew).as_secs());
        let left = leaf(&pair.our_file()).map(|leaf| seconds_left(&pair.stage.clock, &leaf));
        if soon.is_some_and(|soon| (0..=2).contains(&soon)) && left.is_ok_and(|left| left < most) {
            return Ok(());
        }
        if begun.elapsed() > MOMENT {
            return Err(format!("no moment before a renewal: {told}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What an outage did to one of them.
struct Met {
    /// From Vault's return to another certificate.
    recovery: String,
    /// From the end of the last certificate to another one.
    without: String,
    /// Whether its process has lived through it.
    running: bool,
}

/// Waits for another certificate than the one that there is when Vault is back.
async fn meet(pair: &Pair, file: &Path, mut agent: Running) -> Result<Met, String> {
    let running = agent.is_running();
    let (back, last) = (Instant::now(), leaf(file)?);
    while back.elapsed() < RETURN {
        if leaf(file).is_ok_and(|now| now.serial != last.serial) {
            let without = (-seconds_left(&pair.stage.clock, &last)).max(0.0);
            let recovery = format!("{:.1}", back.elapsed().as_secs_f64());
            return Ok(Met { recovery, without: format!("{without:.1}"), running });
        }
        tokio::time::sleep(PAUSE).await;
    }
    let never = format!("over {}", RETURN.as_secs());
    Ok(Met { recovery: never.clone(), without: never, running })
}

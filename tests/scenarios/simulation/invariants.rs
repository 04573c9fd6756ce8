//! What must be true of a node at any instant, each as a function with a sentence of what it
//! says; the error says how it was broken. A new invariant is a function and a line in [`ALL`].

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use nodeagent::status::Health;

use super::evidence::{Asked, Certificate, Evidence, Leaf};
use super::units::Trace;
use super::weather::AT_LEISURE;

/// An invariant with its name.
pub(super) type Invariant = (&'static str, fn(&Evidence) -> Result<(), String>);

/// All of them.
pub(super) const ALL: &[Invariant] = &[
    ("key fits certificate and chain", key_fits_certificate_and_chain),
    ("a certificate is the node's own", a_certificate_is_the_nodes_own),
    ("a consumer reads what fits", a_consumer_reads_what_fits),
    ("no leaf expires in fair weather", no_leaf_expires_in_fair_weather),
    ("what is bad is repaired", what_is_bad_is_repaired),
    ("a generation is acted on once", a_generation_is_acted_on_once),
    ("no act before a commit", no_act_before_a_commit),
    ("no request storm", no_request_storm),
    ("effects are bounded", effects_are_bounded),
    ("rotation is as rare as planned", rotation_is_as_rare_as_planned),
    ("the issue budget is kept", the_issue_budget_is_kept),
    ("no secret is shown", no_secret_is_shown),
    ("healthy means well", healthy_means_well),
    ("what has failed is told", what_has_failed_is_told),
    ("what is under way is not asked for", what_is_under_way_is_not_asked_for),
    ("an effect ends within its limit", an_effect_ends_within_its_limit),
    ("the nonce stays", the_nonce_stays),
    ("nothing is left behind", nothing_is_left_behind),
];

/// Requests of an hour that are log-ins: 9 while the backoff doubles from a second to five
/// minutes, 24 at five minutes with its jitter, and as many again where another cause of failure
/// begins the backoff anew.
const LOGINS_PER_HOUR: usize = 66;

/// All requests of an hour: log-ins, renewals and look-ups as often as those, twelve signatures,
/// the clock once a minute while it is wrong.
const REQUESTS_PER_HOUR: usize = 200;

/// A sealed Vault is asked every 30 to 60 s by the session and by each certificate that is due,
/// so that the fleet is back within a minute; it answers without work. The first minutes of a
/// backoff come on top.
const SEALED_PER_HOUR: usize = 3 * 120 + 20;

/// What starting an agent may add: a look-up and a log-in, each tried anew with its backoff.
const REQUESTS_PER_START: usize = 12;

/// Effects of an hour: as many as requests of a sealed Vault, since hardly one makes none.
const EFFECTS_PER_HOUR: usize = SEALED_PER_HOUR;

/// A certificate is signed within this after it was counted, which is the limit of its effect.
const SIGNED_WITHIN: SignedDuration = SignedDuration::from_mins(4);

/// Three generations are kept, and three kills in the middle of publications are the most between
/// two that succeed.
const ARCHIVED: usize = 6;

/// A status may call a node healthy while a consumer takes up what was committed: this long.
const ADOPTION: SignedDuration = SignedDuration::from_secs(400);

/// Where the clock may be wrong by half a minute, what is near may be on either side.
const CLOCK_ERROR: SignedDuration = SignedDuration::from_secs(35);

fn leaves(evidence: &Evidence) -> impl Iterator<Item = (&&'static str, &Certificate, &Leaf)> {
    evidence
        .certificates
        .iter()
        .filter_map(|(name, certificate)| Some((name, certificate, certificate.leaf()?)))
}

/// Key, certificate and one-file pair fit, and the chain leads to the published bundle, through
/// the published path, always; only what the world itself has torn is excused until it is repaired.
fn key_fits_certificate_and_chain(evidence: &Evidence) -> Result<(), String> {
    for (name, certificate, leaf) in leaves(evidence) {
        if certificate.torn {
            continue;
        }
        leaf.fits.clone().map_err(|text| format!("{name}: {text}"))?;
        leaf.trusted.clone().map_err(|text| format!("{name}: {text}"))?;
    }
    Ok(())
}

/// Names, addresses and usage are those that this node asked for, whatever Vault signed.
fn a_certificate_is_the_nodes_own(evidence: &Evidence) -> Result<(), String> {
    for (name, certificate, leaf) in leaves(evidence).filter(|(_, found, _)| !found.torn) {
        leaf.ours.clone().map_err(|text| format!("{name}: {text}"))?;
        if leaf.not_after <= leaf.not_before {
            return Err(format!("{name} ends before it begins: {:?}", certificate.found));
        }
    }
    Ok(())
}

/// No consumer ever reads a certificate and a key that do not fit.
fn a_consumer_reads_what_fits(evidence: &Evidence) -> Result<(), String> {
    match evidence.mismatches.first() {
        None => Ok(()),
        Some(text) => Err(format!("it read a pair that does not fit: {text}")),
    }
}

/// A leaf has expired only if, from the outage that it must survive before its end until now,
/// there was never a spell of fair weather as long as its recovery.
fn no_leaf_expires_in_fair_weather(evidence: &Evidence) -> Result<(), String> {
    let now = evidence.now;
    for (name, certificate, leaf) in leaves(evidence).filter(|(_, _, leaf)| leaf.not_after <= now) {
        let latest = leaf.not_after - evidence.survive;
        let from = certificate.rests_until.map_or(latest, |rest| rest.max(latest));
        if evidence.weather.gave_leisure(from, now) {
            return Err(format!(
                "{name} ended {} and there was time since {from}: {:?}",
                leaf.not_after, evidence.weather.spells
            ));
        }
    }
    Ok(())
}

/// A certificate that is missing or torn is there again within the recovery of fair weather.
fn what_is_bad_is_repaired(evidence: &Evidence) -> Result<(), String> {
    for (name, certificate) in &evidence.certificates {
        let Some(since) = certificate.bad_since else { continue };
        if evidence.weather.gave_time(since, evidence.now) {
            return Err(format!("{name} is bad since {since}: {:?}", certificate.found));
        }
    }
    Ok(())
}

/// At most one restart or reload for each set of generations, kills and reboots included. One
/// case is excused: kill -9 between a reload and the note of its end, of which systemd keeps
/// nothing.
fn a_generation_is_acted_on_once(evidence: &Evidence) -> Result<(), String> {
    for (index, act) in evidence.acts.iter().enumerate() {
        let known = evidence.acts[..index].iter().filter(|before| before.trace == Trace::Known);
        if let Some(before) = known.into_iter().find(|before| before.generations == act.generations)
        {
            let (first, second) = (before.at, act.at);
            return Err(format!("{:?} at {first} and at {second}", act.generations));
        }
    }
    Ok(())
}

/// An act follows a commit of what is in force; never is a consumer restarted for nothing new.
fn no_act_before_a_commit(evidence: &Evidence) -> Result<(), String> {
    let commits = &evidence.commits;
    let committed = |act: &BTreeMap<String, u64>| {
        act.iter().filter_map(|(name, generation)| commits.get(&(name.clone(), *generation))).max()
    };
    for pair in evidence.acts.windows(2) {
        let (before, act) = (&pair[0], &pair[1]);
        let newest: Option<&Timestamp> = committed(&act.generations);
        if before.trace == Trace::Lost {
            continue;
        }
        if newest.is_some_and(|newest| *newest < before.at) {
            return Err(format!("act at {} for {:?}", act.at, act.generations));
        }
    }
    Ok(())
}

/// Vault is asked a bounded number of times an hour, whatever it answers.
fn no_request_storm(evidence: &Evidence) -> Result<(), String> {
    let hour = last_hour(evidence);
    let logins = hour.iter().filter(|asked| ***asked == Asked::Login).count();
    let starts = evidence.starts * REQUESTS_PER_START;
    if logins > LOGINS_PER_HOUR + starts {
        return Err(format!("{logins} log-ins in an hour"));
    }
    let refused = hour.iter().filter(|asked| ***asked == Asked::Refused).count();
    if refused > SEALED_PER_HOUR + starts {
        return Err(format!("{refused} requests of a sealed vault in an hour"));
    }
    if hour.len() - refused > REQUESTS_PER_HOUR + starts {
        return Err(format!("{} requests in an hour", hour.len() - refused));
    }
    Ok(())
}

/// The loop never spins: what fails is tried anew after its backoff.
fn effects_are_bounded(evidence: &Evidence) -> Result<(), String> {
    let most = EFFECTS_PER_HOUR + evidence.starts * REQUESTS_PER_START;
    match evidence.effects > most {
        true => Err(format!("{} effects in an hour", evidence.effects)),
        false => Ok(()),
    }
}

/// In fair weather a certificate is renewed twice a day; once more where the first issue, or the
/// one after an outage, lay off the node's place in the fleet.
fn rotation_is_as_rare_as_planned(evidence: &Evidence) -> Result<(), String> {
    let Some(spell) = evidence.weather.spells.last().filter(|spell| spell.until.is_none()) else {
        return Ok(());
    };
    let day = SignedDuration::from_hours(24);
    let settled = spell.from + spell.recovery.max(AT_LEISURE);
    for name in evidence.certificates.keys() {
        let counts = |(at, role): &&(Timestamp, String)| {
            role == name && *at > settled && evidence.now.duration_since(*at) < day
        };
        let count = evidence.signed.iter().filter(counts).count();
        if count > 3 {
            return Err(format!("{name} was issued {count} times in a day since {settled}"));
        }
    }
    Ok(())
}

/// No certificate is signed more often in an hour than its budget says, reboots included, and
/// whether or not the answer arrived.
fn the_issue_budget_is_kept(evidence: &Evidence) -> Result<(), String> {
    // An issue is counted before it is asked for, and is signed within its effect's time.
    let hour = SignedDuration::from_hours(1) - SIGNED_WITHIN;
    let mut signs: BTreeMap<&str, u32> = BTreeMap::new();
    for (at, role) in evidence.signed.iter() {
        *signs.entry(role).or_default() += u32::from(evidence.now.duration_since(*at) < hour);
    }
    match signs.iter().find(|(_, count)| **count > evidence.budget) {
        None => Ok(()),
        Some((role, count)) => Err(format!("{role} was signed {count} times in an hour")),
    }
}

fn last_hour(evidence: &Evidence) -> Vec<&Asked> {
    let hour = SignedDuration::from_hours(1);
    let recent = evidence.asked.iter().filter(|(at, _)| evidence.now.duration_since(*at) < hour);
    recent.map(|(_, asked)| asked).collect()
}

/// No token, nonce or key stands in the status, in the log, in the records or in a file that
/// everyone may read.
fn no_secret_is_shown(evidence: &Evidence) -> Result<(), String> {
    for (place, text) in &evidence.shown {
        if evidence.secrets.iter().any(|secret| text.contains(secret.as_str())) {
            return Err(format!("a secret stands in {place}"));
        }
    }
    Ok(())
}

/// `healthy` means: every certificate is there, fits, has the outage still before it, and is
/// what the consumer serves, unless it was committed just now.
fn healthy_means_well(evidence: &Evidence) -> Result<(), String> {
    let Some(status) = &evidence.status else { return Ok(()) };
    if status.health != Health::Healthy {
        return Ok(());
    }
    for (name, certificate) in &evidence.certificates {
        let Some(leaf) = certificate.leaf() else {
            return Err(format!("healthy, and {name} is missing: {:?}", certificate.found));
        };
        leaf.fits.clone().map_err(|text| format!("healthy, and {name}: {text}"))?;
        let left = evidence.now.duration_until(leaf.not_after);
        let wrong = evidence.clock_wrong.abs();
        if left + CLOCK_ERROR.max(wrong) < evidence.survive {
            return Err(format!("healthy, and {name} ends in {left:#}"));
        }
    }
    let Some(leaf) = evidence.certificates.get("kubelet-server").and_then(Certificate::leaf) else {
        return Ok(());
    };
    let committed = evidence.commits.get(&("kubelet-server".to_owned(), leaf.generation));
    // Who has lost the records tries anew, whatever failed before.
    let begun = [committed.copied(), evidence.forgotten].into_iter().flatten().max();
    let fresh = begun.is_some_and(|at| evidence.now.duration_since(at) < ADOPTION);
    match &evidence.served {
        Some(served) if *served != leaf.serial && !fresh => {
            Err(format!("healthy, and {served} is served, not {}", leaf.serial))
        }
        _ => Ok(()),
    }
}

/// A certificate that is missing or has ended is told as `failed`; only a clock that is wrong
/// may hide an end.
fn what_has_failed_is_told(evidence: &Evidence) -> Result<(), String> {
    let Some(status) = &evidence.status else { return Ok(()) };
    let clock = CLOCK_ERROR.max(evidence.clock_wrong.abs());
    for (name, certificate) in &evidence.certificates {
        let ended = certificate.leaf().is_none_or(|leaf| leaf.not_after + clock < evidence.now);
        if ended && status.health != Health::Failed {
            return Err(format!("{:?}, and {name} is {:?}", status.health, certificate.found));
        }
    }
    Ok(())
}

/// `decide` never asks for a duty that is under way, nor for one that must not run beside it.
fn what_is_under_way_is_not_asked_for(evidence: &Evidence) -> Result<(), String> {
    match evidence.asked_again.first() {
        None => Ok(()),
        Some(id) => Err(format!("{id} was asked for again")),
    }
}

/// Every effect ends within its duty's limit, whatever the other side does.
fn an_effect_ends_within_its_limit(evidence: &Evidence) -> Result<(), String> {
    match &evidence.effect {
        Some((id, took, limit)) if took.as_secs_f64() > limit.as_secs_f64() => {
            Err(format!("{id} took {took:#}, its limit is {limit:?}"))
        }
        _ => Ok(()),
    }
}

/// The client nonce is made once and never changes.
fn the_nonce_stays(evidence: &Evidence) -> Result<(), String> {
    match &evidence.nonces {
        (Some(first), now) if now.as_ref() != Some(first) => Err("the nonce has changed".into()),
        _ => Ok(()),
    }
}

/// Between two effects one generation is published, and another at most until the next start; in
/// the archive are the three that are kept, and those of the last publications that were killed.
/// A disk that fails lets nothing go.
fn nothing_is_left_behind(evidence: &Evidence) -> Result<(), String> {
    let (published, archived) = evidence.leftovers;
    if !evidence.weather.disk_is_well(evidence.now) {
        return Ok(());
    }
    if published > 2 {
        return Err(format!("{published} generations are published"));
    }
    if archived > ARCHIVED {
        return Err(format!("{archived} generations are archived"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

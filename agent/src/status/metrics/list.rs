//! Every metric there is, with where it comes from. Beside the name of a thing a metric has no
//! labels that change while the thing stays: a series that ends is a gap in every graph.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Metric, Sample, instant};
use crate::bootstrap::step::Step;
use crate::status::plane::{ComponentPart, PlanePart};
use crate::status::{CertPart, ConsumerPart, Health, Status, text};

const CERTIFICATE: &[&str] = &["certificate", "consumer"];
const CONSUMER: &[&str] = &["consumer"];
const DUTY: &[&str] = &["duty"];

/// A row of the list: name, labels, help, field, and how it is read.
const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    (help, field): (&'static str, &'static str),
    read: fn(&Status) -> Vec<Sample>,
) -> Metric {
    Metric { name, labels, help, field, read }
}

/// Every metric, in the order of the file.
pub const METRICS: &[Metric] = &[
    gauge(
        "nodeagent_build_info",
        &["version", "commit"],
        ("What runs; the commit is known of releases.", "agent.version"),
        |s| info([s.agent.version.clone(), s.agent.commit.clone().unwrap_or_default()]),
    ),
    gauge(
        "nodeagent_node_info",
        &["cluster", "role", "instance_id"],
        ("The node, as Vault has accepted it.", "node"),
        |s| {
            let id = s.node.instance_id.clone().unwrap_or_default();
            info([s.node.cluster.clone(), s.node.role.clone(), id])
        },
    ),
    gauge(
        "nodeagent_configuration_info",
        &["digest"],
        ("Which configuration the agent goes by.", "agent.configuration"),
        |s| info([s.agent.configuration.clone()]),
    ),
    gauge(
        "nodeagent_start_timestamp_seconds",
        &[],
        ("When the agent started, or took up a new configuration.", "agent.started"),
        |s| one(instant(s.agent.started)),
    ),
    gauge(
        "nodeagent_last_look_timestamp_seconds",
        &[],
        ("When the agent last looked and wrote all this.", "agent.looked"),
        |s| one(instant(s.agent.looked)),
    ),
    gauge(
        "nodeagent_look_interval_seconds",
        &[],
        ("How often the agent looks at least; after twice as long it is dead.", "agent.interval_s"),
        |s| one(s.agent.interval_s as f64),
    ),
    gauge(
        "nodeagent_health",
        &["state"],
        ("Whether the node is healthy, degraded or failed: 1 or 0.", "health"),
        |s| {
            let all = [Health::Healthy, Health::Degraded, Health::Failed];
            all.map(|state| sample([text::word(state).into()], f64::from(s.health == state))).into()
        },
    ),
    gauge(
        "nodeagent_problems",
        &["code", "place"],
        ("How many problems there are of a code of operating.md at a place.", "problems"),
        problems,
    ),
    gauge(
        "nodeagent_session_logged_in",
        &[],
        ("Whether the token has proved good with Vault: 1 or 0.", "vault.session"),
        |s| one(f64::from(s.vault.session == "logged-in")),
    ),
    gauge(
        "nodeagent_token_expires_timestamp_seconds",
        &[],
        ("When the lease of the token ends.", "vault.expires"),
        |s| maybe(s.vault.expires.map(instant)),
    ),
    gauge(
        "nodeagent_token_renewal_timestamp_seconds",
        &[],
        ("When the token is renewed or replaced, or the node logs in.", "vault.renew"),
        |s| maybe(s.vault.renew.map(instant)),
    ),
    gauge(
        "nodeagent_clock_ahead_seconds",
        &[],
        ("How far the clock is ahead of Vault's.", "node.clock_ahead_s"),
        |s| maybe(s.node.clock_ahead_s),
    ),
    gauge(
        "nodeagent_clock_synchronized",
        &[],
        ("Whether a time service has set the clock: 1 or 0.", "node.clock_synchronized"),
        |s| maybe(s.node.clock_synchronized.map(f64::from)),
    ),
    gauge(
        "nodeagent_autonomy_seconds",
        &[],
        ("For how long every certificate lasts; absent while one is missing.", "autonomy_s"),
        // A node without certificates needs Vault for none.
        |s| {
            maybe(
                s.autonomy_s.map(|left| if left == i64::MAX { f64::INFINITY } else { left as f64 }),
            )
        },
    ),
    gauge(
        "nodeagent_autonomy_wanted_seconds",
        &[],
        ("For how long Vault may be away at any moment, as configured.", "survive_s"),
        |s| maybe(s.survive_s.map(|wanted| wanted as f64)),
    ),
    gauge(
        "nodeagent_authority_not_after_timestamp_seconds",
        &["authority"],
        ("When the last authority of a pinned bundle ends.", "authorities.not_after"),
        |s| {
            let all = s.authorities.iter();
            all.map(|part| sample([part.name.clone()], instant(part.not_after))).collect()
        },
    ),
    gauge(
        "nodeagent_duty_failures",
        DUTY,
        ("How often a duty has failed in a row.", "duties.failures"),
        |s| {
            let all = s.duties.iter();
            all.map(|part| sample([part.name.clone()], f64::from(part.failures))).collect()
        },
    ),
    gauge(
        "nodeagent_duty_failing_since_timestamp_seconds",
        DUTY,
        ("Since when a duty fails; absent while it does not.", "duties.failing_since"),
        |s| {
            let all = s.duties.iter().map(|part| (&part.name, part.failing_since));
            instants(all)
        },
    ),
    gauge(
        "nodeagent_duty_last_success_timestamp_seconds",
        DUTY,
        ("When a duty last succeeded.", "duties.last_success"),
        |s| instants(s.duties.iter().map(|part| (&part.name, part.last_success))),
    ),
    gauge(
        "nodeagent_certificate_good",
        CERTIFICATE,
        (
            "Whether the published certificate is complete and in force: 1 or 0.",
            "certificates.state",
        ),
        |s| certificates(s, |part| Some(f64::from(part.state == "good"))),
    ),
    gauge(
        "nodeagent_certificate_not_after_timestamp_seconds",
        CERTIFICATE,
        ("When the published certificate ends.", "certificates.not_after"),
        |s| certificates(s, |part| part.not_after.map(instant)),
    ),
    gauge(
        "nodeagent_certificate_renewal_timestamp_seconds",
        CERTIFICATE,
        ("When the next certificate is asked for.", "certificates.renew"),
        |s| certificates(s, |part| part.renew.map(instant)),
    ),
    gauge(
        "nodeagent_certificate_waiting",
        CERTIFICATE,
        ("Whether a due renewal waits for something else: 1 or 0.", "certificates.waits_for"),
        |s| certificates(s, |part| Some(f64::from(part.waits_for.is_some()))),
    ),
    gauge(
        "nodeagent_certificate_generation",
        CERTIFICATE,
        ("The published generation; each publication is the next.", "certificates.generation"),
        |s| certificates(s, |part| part.generation.map(|generation| generation as f64)),
    ),
    gauge(
        "nodeagent_certificate_issued_timestamp_seconds",
        CERTIFICATE,
        ("When Vault last issued one that was published.", "certificates.issued"),
        |s| certificates(s, |part| part.issued.map(instant)),
    ),
    gauge(
        "nodeagent_certificate_recent_issues",
        CERTIFICATE,
        ("How many were asked for within the last hour.", "certificates.issues"),
        |s| certificates(s, |part| Some(part.issues as f64)),
    ),
    gauge(
        "nodeagent_consumer_current",
        CONSUMER,
        ("Whether the consumer has taken up all that is published: 1 or 0.", "consumers.state"),
        |s| consumers(s, |_, part| Some(f64::from(part.state == "current"))),
    ),
    gauge(
        "nodeagent_consumer_serves_published",
        CONSUMER,
        (
            "Whether the serial that it was last seen to serve is on disk: 1 or 0.",
            "consumers.served",
        ),
        |s| consumers(s, serves_published),
    ),
    gauge(
        "nodeagent_consumer_proved_timestamp_seconds",
        CONSUMER,
        ("When it was last seen to serve what is on disk.", "consumers.proved"),
        |s| consumers(s, |_, part| part.proved.map(instant)),
    ),
    gauge(
        "nodeagent_consumer_last_act_timestamp_seconds",
        CONSUMER,
        ("When it was last reloaded, restarted or taken back.", "consumers.last_act_at"),
        |s| consumers(s, |_, part| part.last_act_at.map(instant)),
    ),
    gauge(
        "nodeagent_control_plane_whole",
        &[],
        ("Whether every step of the control plane is true: 1 or 0.", "control_plane.step"),
        |s| plane(s, |part| Some(f64::from(part.step.is_none()))),
    ),
    gauge(
        "nodeagent_control_plane_down_since_timestamp_seconds",
        &[],
        ("Since when the control plane is not whole.", "control_plane.since"),
        |s| plane(s, |part| part.since.map(instant)),
    ),
    gauge(
        "nodeagent_control_plane_automatic",
        &[],
        ("Whether the agent raises it by itself: 1 or 0.", "control_plane.automatic"),
        |s| plane(s, |part| Some(f64::from(part.automatic))),
    ),
    gauge(
        "nodeagent_control_plane_epoch",
        &[],
        ("How many runs were begun; 0 before the first.", "control_plane.epoch"),
        |s| plane(s, |part| Some(part.epoch as f64)),
    ),
    gauge(
        "nodeagent_control_plane_step",
        &["step"],
        ("Whether a step is the next to be done: 1 or 0.", "control_plane.step"),
        |s| s.control_plane.iter().flat_map(steps).collect(),
    ),
    gauge(
        "nodeagent_control_plane_lock_since_timestamp_seconds",
        &["holder"],
        ("Since when which instance holds the cluster's lock.", "control_plane.holder"),
        |s| {
            let holder = s.control_plane.iter().filter_map(|part| part.holder.as_ref());
            holder.map(|held| sample([held.instance.clone()], instant(held.since))).collect()
        },
    ),
    gauge(
        "nodeagent_control_plane_component_ready",
        &["component"],
        ("Whether etcd or a component of this node is ready: 1 or 0.", "control_plane.components"),
        |s| s.control_plane.iter().flat_map(|part| &part.components).map(ready).collect(),
    ),
    gauge(
        "nodeagent_control_plane_foreign_manifests",
        &[],
        ("How many manifests the agent did not write.", "control_plane.foreign"),
        |s| plane(s, |part| Some(part.foreign.len() as f64)),
    ),
    gauge(
        "nodeagent_control_plane_outdated",
        &[],
        ("How much runs with files that changed since its start.", "control_plane.outdated"),
        |s| plane(s, |part| Some(part.outdated.len() as f64)),
    ),
];

fn sample<const N: usize>(labels: [String; N], value: f64) -> Sample {
    Sample { labels: labels.into(), value }
}

fn one(value: f64) -> Vec<Sample> {
    vec![sample([], value)]
}

fn maybe(value: Option<f64>) -> Vec<Sample> {
    value.map_or(Vec::new(), one)
}

/// What is told by labels alone.
fn info<const N: usize>(labels: [String; N]) -> Vec<Sample> {
    vec![sample(labels, 1.0)]
}

fn instants<'a>(all: impl Iterator<Item = (&'a String, Option<Timestamp>)>) -> Vec<Sample> {
    all.filter_map(|(name, at)| Some(sample([name.clone()], instant(at?)))).collect()
}

/// The same code may stand twice at one place, as the ends of two authorities do.
fn problems(status: &Status) -> Vec<Sample> {
    let mut counts = BTreeMap::new();
    for problem in &status.problems {
        *counts.entry((problem.code.slug(), &problem.place)).or_insert(0.0) += 1.0;
    }
    let rows = counts.into_iter();
    rows.map(|((code, place), count)| sample([code.into(), place.clone()], count)).collect()
}

fn certificates(status: &Status, read: fn(&CertPart) -> Option<f64>) -> Vec<Sample> {
    let labels = |part: &CertPart| [part.name.clone(), part.consumer.clone()];
    let all = status.certificates.iter();
    all.filter_map(|part| Some(sample(labels(part), read(part)?))).collect()
}

fn consumers(status: &Status, read: fn(&Status, &ConsumerPart) -> Option<f64>) -> Vec<Sample> {
    let all = status.consumers.iter();
    all.filter_map(|part| Some(sample([part.name.clone()], read(status, part)?))).collect()
}

/// Of the certificates of a consumer one is seen from without. Nothing is told of a consumer that
/// was never seen, nor of one that took up the last generation unseen: it was not running.
fn serves_published(status: &Status, part: &ConsumerPart) -> Option<f64> {
    let served = part.served.as_ref()?;
    let mut own = status.certificates.iter().filter(|cert| cert.consumer == part.name);
    let is_on_disk = own.any(|cert| cert.serial.as_ref() == Some(served));
    (is_on_disk || part.state != "current").then(|| f64::from(is_on_disk))
}

fn plane(status: &Status, read: fn(&PlanePart) -> Option<f64>) -> Vec<Sample> {
    maybe(status.control_plane.as_ref().and_then(read))
}

fn steps(part: &PlanePart) -> Vec<Sample> {
    let is_next = |name: &str| part.step.as_deref() == Some(name);
    let all = Step::ALL.iter().map(ToString::to_string);
    all.map(|name| sample([name.clone()], f64::from(is_next(&name)))).collect()
}

fn ready(part: &ComponentPart) -> Sample {
    sample([part.name.clone()], f64::from(part.state == "ready"))
}

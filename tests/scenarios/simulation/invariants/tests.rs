//! Every invariant can fail: each is caught breaking on a mutation of the world that it is there
//! for. What reads files is shown real files with a real mismatch; the rest is shown evidence.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nodeagent::duty::DutyId;
use nodeagent::status::Status;
use rig::pki::Ca;

use super::super::evidence::{self, Expected, Found, Usage};
use super::super::schedule::Fault;
use super::super::units::Act;
use super::super::weather::Weather;
use super::*;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// A node that is well, in fair weather since three days.
fn well() -> Evidence {
    let mut weather = Weather::default();
    weather.fair(now() - HOUR * 72, SignedDuration::from_mins(12));
    let name = |name: &str| (name.to_owned(), 7);
    let commits = ["kubelet-server", "kubelet-client"].map(|of| (name(of), now() - HOUR * 2));
    Evidence {
        now: now(),
        clock_wrong: SignedDuration::ZERO,
        survive: HOUR * 11,
        weather,
        certificates: BTreeMap::from([
            ("kubelet-server", certificate("0a")),
            ("kubelet-client", certificate("0b")),
        ]),
        served: Some("0a".into()),
        mismatches: Vec::new(),
        acts: vec![act(now() - HOUR * 14, 6), act(now() - HOUR * 2, 7)],
        forgotten: Some(now() - HOUR * 20),
        commits: Arc::new(BTreeMap::from(commits)),
        asked: Arc::new([Asked::Login, Asked::Sign, Asked::Other].map(|it| (now(), it)).into()),
        signed: Arc::new(vec![(now() - HOUR * 2, "kubelet-server".into())]),
        budget: 6,
        starts: 1,
        effects: 3,
        shown: vec![("the log".into(), "logged in".into())],
        secrets: vec!["hvs.secret".into()],
        status: Some(status("healthy")),
        asked_again: Vec::new(),
        effect: Some((DutyId::Session, SignedDuration::from_secs(2), Duration::from_secs(9))),
        nonces: (Some("n".into()), Some("n".into())),
        leftovers: (1, 3),
    }
}

fn certificate(serial: &str) -> Certificate {
    let leaf = Leaf {
        generation: 7,
        serial: serial.into(),
        not_before: now() - HOUR * 2,
        not_after: now() + HOUR * 22,
        fits: Ok(()),
        trusted: Ok(()),
        ours: Ok(()),
    };
    Certificate { found: Found::Leaf(leaf), torn: false, bad_since: None, rests_until: None }
}

fn act(at: Timestamp, generation: u64) -> Act {
    let names = ["kubelet-server", "kubelet-client"];
    let generations = names.map(|name| (name.to_owned(), generation));
    Act { at, generations: BTreeMap::from(generations), trace: Trace::Known }
}

fn status(health: &str) -> Status {
    let (at, none) = (now().to_string(), serde_json::Value::Null);
    let text = serde_json::json!({
        "schema": 1, "health": health, "autonomy_s": 1, "certificates": [], "consumers": [],
        "problems": [],
        "agent": { "version": "0", "started": at, "looked": at, "interval_s": 30 },
        "node": { "cluster": "c", "role": "worker", "instance_id": none, "clock_ahead_s": none,
                  "clock_synchronized": none },
        "vault": { "address": "a", "session": "none", "expires": none, "renew": none },
    });
    serde_json::from_value(text).expect("a status")
}

/// The invariant holds for a node that is well, and breaks for the mutated one.
fn catches(invariant: fn(&Evidence) -> Result<(), String>, mutation: impl Fn(&mut Evidence)) {
    assert_eq!(invariant(&well()), Ok(()));
    let mut evidence = well();
    mutation(&mut evidence);
    assert!(invariant(&evidence).is_err(), "the mutation goes unnoticed");
}

fn server(evidence: &mut Evidence) -> &mut Certificate {
    evidence.certificates.get_mut("kubelet-server").expect("it is there")
}

fn leaf(evidence: &mut Evidence) -> &mut Leaf {
    match &mut server(evidence).found {
        Found::Leaf(leaf) => leaf,
        Found::Nothing(text) => panic!("{text}"),
    }
}

#[test]
fn a_well_node_breaks_none_of_them() {
    for (name, holds) in ALL {
        assert_eq!(holds(&well()), Ok(()), "{name}");
    }
}

/// `tests/bench mutations` tries them.
#[test]
fn each_invariant_has_a_mutation_of_the_agent_that_breaks_it() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/mutations");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .expect("the mutations")
        .map(|entry| entry.expect("a name").path())
        .collect();
    paths.sort();
    let breaks = paths.iter().map(|path| {
        let text = std::fs::read_to_string(path).expect("a patch");
        let line = text.lines().nth(1).and_then(|line| line.strip_prefix("Breaks: "));
        line.expect("what it breaks").to_owned()
    });
    let names: Vec<_> = ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(breaks.collect::<Vec<_>>(), names);
}

/// Files as they are published, of this certificate with this key, trusting this authority.
fn published(dir: &Path, cert: &str, key: &str, ca: &str) -> Found {
    let generation = dir.join("00000001");
    std::fs::create_dir_all(&generation).expect("a directory");
    for (name, text) in [
        ("cert.pem", cert),
        ("key.pem", key),
        ("ca.pem", ca),
        ("pair.pem", &format!("{cert}{key}")),
    ] {
        std::fs::write(generation.join(name), text).expect("a file");
    }
    let current = dir.join("current");
    std::os::unix::fs::symlink("00000001", &current).ok();
    let roots = [ca.to_owned()];
    let expected = Expected {
        roots: &roots,
        common_name: "node".into(),
        dns: vec!["node".into()],
        ips: Vec::new(),
        server: Usage::Server,
    };
    evidence::found(&current, &expected)
}

#[test]
fn a_mismatched_key_that_is_planted_is_caught() {
    let (ca, dir) = (Ca::new("ours"), tempfile::tempdir().expect("a directory"));
    let (one, other) = (ca.issue(&["node"]), ca.issue(&["node"]));
    let planted = |key: &str| {
        let found = published(dir.path(), &one.cert_pem, key, ca.pem());
        move |evidence: &mut Evidence| server(evidence).found = found.clone()
    };
    let mut good = well();
    planted(&one.key_pem)(&mut good);
    assert_eq!(key_fits_certificate_and_chain(&good), Ok(()));
    catches(key_fits_certificate_and_chain, planted(&other.key_pem));
}

#[test]
fn a_certificate_of_another_authority_is_caught() {
    let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
    let (leaf, dir) = (theirs.issue(&["node"]), tempfile::tempdir().expect("a directory"));
    let found = published(dir.path(), &leaf.cert_pem, &leaf.key_pem, ours.pem());
    catches(key_fits_certificate_and_chain, |evidence| server(evidence).found = found.clone());
}

#[test]
fn a_certificate_of_other_names_is_caught() {
    let (ca, dir) = (Ca::new("ours"), tempfile::tempdir().expect("a directory"));
    let leaf = ca.issue(&["another"]);
    let found = published(dir.path(), &leaf.cert_pem, &leaf.key_pem, ca.pem());
    catches(a_certificate_is_the_nodes_own, |evidence| server(evidence).found = found.clone());
}

#[test]
fn a_mismatch_that_a_consumer_has_read_is_caught() {
    catches(a_consumer_reads_what_fits, |evidence| evidence.mismatches.push("keys".into()));
}

#[test]
fn an_old_leaf_in_fair_weather_is_caught() {
    catches(no_leaf_expires_in_fair_weather, |evidence| {
        leaf(evidence).not_after = now() - SignedDuration::from_secs(1);
    });
    let mut outage = well();
    outage.weather = Weather::default();
    outage.weather.foul(now() - HOUR * 30, Fault::Away);
    leaf(&mut outage).not_after = now() - HOUR;
    assert_eq!(no_leaf_expires_in_fair_weather(&outage), Ok(()), "nobody could do better");
}

#[test]
fn what_stays_torn_is_caught() {
    catches(what_is_bad_is_repaired, |evidence| {
        let certificate = server(evidence);
        certificate.torn = true;
        certificate.bad_since = Some(now() - HOUR);
    });
}

#[test]
fn a_second_act_is_caught() {
    catches(a_generation_is_acted_on_once, |evidence| evidence.acts.push(act(now(), 7)));
}

#[test]
fn an_act_without_a_commit_is_caught() {
    catches(no_act_before_a_commit, |evidence| {
        let before = now() - HOUR * 20;
        Arc::make_mut(&mut evidence.commits).insert(("kubelet-server".into(), 5), before);
        Arc::make_mut(&mut evidence.commits).insert(("kubelet-client".into(), 5), before);
        evidence.acts.push(act(now(), 5));
    });
}

#[test]
fn a_storm_is_caught() {
    let many = |asked: Asked| {
        move |evidence: &mut Evidence| evidence.asked = Arc::new(vec![(now(), asked.clone()); 400])
    };
    catches(no_request_storm, many(Asked::Login));
    catches(no_request_storm, many(Asked::Other));
    catches(no_request_storm, many(Asked::Refused));
    catches(effects_are_bounded, |evidence| evidence.effects = 1000);
}

#[test]
fn one_issue_too_many_is_caught() {
    let role = || "kubelet-server".to_owned();
    catches(the_issue_budget_is_kept, |evidence| {
        evidence.signed = Arc::new(vec![(now(), role()); 7])
    });
    catches(rotation_is_as_rare_as_planned, |evidence| {
        let signed = (0..5).map(|hours| (now() - HOUR * hours, role()));
        evidence.signed = Arc::new(signed.collect());
    });
}

#[test]
fn a_secret_that_is_shown_is_caught() {
    catches(no_secret_is_shown, |evidence| {
        evidence.shown.push(("the status".into(), "token hvs.secret".into()));
    });
}

#[test]
fn a_status_that_flatters_is_caught() {
    catches(healthy_means_well, |evidence| evidence.served = Some("09".into()));
    catches(healthy_means_well, |evidence| leaf(evidence).not_after = now() + HOUR * 9);
    catches(healthy_means_well, |evidence| {
        server(evidence).found = Found::Nothing("no such file".into());
    });
    catches(healthy_means_well, |evidence| leaf(evidence).fits = Err("keys".into()));
}

#[test]
fn a_failure_that_is_not_told_is_caught() {
    catches(what_has_failed_is_told, |evidence| {
        evidence.status = Some(status("degraded"));
        leaf(evidence).not_after = now() - HOUR;
    });
    catches(what_has_failed_is_told, |evidence| {
        server(evidence).found = Found::Nothing("no such file".into());
    });
}

#[test]
fn a_duty_asked_for_twice_is_caught() {
    catches(what_is_under_way_is_not_asked_for, |evidence| {
        evidence.asked_again.push(DutyId::Session);
    });
}

#[test]
fn an_effect_without_end_is_caught() {
    catches(an_effect_ends_within_its_limit, |evidence| {
        evidence.effect = Some((DutyId::Session, HOUR, Duration::from_secs(200)));
    });
}

#[test]
fn a_new_nonce_is_caught() {
    catches(the_nonce_stays, |evidence| evidence.nonces.1 = Some("m".into()));
    catches(the_nonce_stays, |evidence| evidence.nonces.1 = None);
}

#[test]
fn what_is_left_behind_is_caught() {
    catches(nothing_is_left_behind, |evidence| evidence.leftovers.0 = 3);
    catches(nothing_is_left_behind, |evidence| evidence.leftovers.1 = 9);
}

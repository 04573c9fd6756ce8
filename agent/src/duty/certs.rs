//! Certificates: when one is due, and how it is got, checked and committed.
//!
//! [`due`] is a pure function of what is on disk; [`perform`] makes the key, has Vault sign,
//! checks the answer as if an enemy had sent it, keeps a copy in the archive and publishes. What
//! follows for the consumer is another duty's business: a failing restart never costs an issue.

mod commit;
mod issue;
pub mod leaf;
pub mod publish;
pub mod request;
pub mod schedule;
mod spare;
pub mod store;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use self::commit::{can_be_kept, commit};
use self::leaf::Leaf;
use self::publish::{Published, Target};
use self::store::{Archive, Generation, Material};
use super::facts::{CertFact, Facts, Held};
use super::records::{BUDGET_TIME, CertRecord};
use super::{Due, DutyId, Hold, Records, Why};
use crate::attest::Identity;
use crate::backoff;
use crate::config::names::Values;
use crate::config::{CertSpec, Config, Names};
use crate::error::{Code, Context, Error, Result};
use crate::host::files::Root;
use crate::host::users;
use crate::node::Node;

pub use self::commit::{Commit, restore};
pub use self::spare::{Spare, spare};

/// When a certificate is due, and why.
pub fn due(
    config: &Config,
    spec: &CertSpec,
    facts: &Facts,
    records: &Records,
    now: Timestamp,
) -> Due {
    match held_back(config, spec, facts, records, now) {
        Some(until) => Due::At(until),
        None => wanted(config, spec, facts, records, now),
    }
}

/// Until when the budget of issues holds back a certificate that is due; nothing if it does not.
pub fn held_back(
    config: &Config,
    spec: &CertSpec,
    facts: &Facts,
    records: &Records,
    now: Timestamp,
) -> Option<Timestamp> {
    let is_due = matches!(wanted(config, spec, facts, records, now), Due::Now(_));
    if !is_due || !will_issue(facts.certificates.get(&spec.name)) {
        return None;
    }
    budget(config, &records.certificate(&spec.name), now)
}

/// When a certificate is due, and why, were there no budget.
fn wanted(
    config: &Config,
    spec: &CertSpec,
    facts: &Facts,
    records: &Records,
    now: Timestamp,
) -> Due {
    let record = records.certificate(&spec.name);
    let (why, repairable) = match facts.certificates.get(&spec.name) {
        None | Some(CertFact::Unknown(_)) => return Due::Idle,
        Some(CertFact::Foreign { .. }) => return Due::Blocked(Hold::Foreign),
        Some(CertFact::Held(Held { flaw: Some(Why::Unfinished), .. })) => (Why::Unfinished, true),
        Some(CertFact::Absent { archived }) => (Why::Missing, archived.is_some()),
        Some(CertFact::Broken { archived, .. }) => (Why::Unreadable, archived.is_some()),
        Some(CertFact::Held(held)) => match renewal(config, held, facts, &record) {
            (_, Some(why)) => (why, false),
            (at, None) if at > now => return Due::At(at),
            (_, None) => (Why::Expiring, false),
        },
    };
    if repairable {
        return Due::Now(why);
    }
    if !facts.has_token(now) {
        return Due::Blocked(Hold::Duty(DutyId::Session));
    }
    if !facts.clock.fits {
        return Due::Blocked(Hold::Clock);
    }
    Due::Now(why)
}

/// When a certificate is renewed, and a reason to renew it at once.
fn renewal(
    config: &Config,
    held: &Held,
    facts: &Facts,
    record: &CertRecord,
) -> (Timestamp, Option<Why>) {
    let leaf = &held.leaf;
    if held.flaw == Some(Why::Requested) {
        return (leaf.not_after, held.flaw);
    }
    // Whatever broke the consumer is likely to be there still: half of what is left is waited, and
    // half is left for another try.
    // One that was issued since was not put back: a crash may have come before that was noted.
    if let Some(back) = record.rolled_back.filter(|back| leaf.not_before <= *back) {
        let left = back.duration_until(leaf.not_after);
        return (back.checked_add(left / 2).unwrap_or(leaf.not_after), None);
    }
    let place = place(facts.identity.as_ref());
    // Vault dates certificates back; what had passed of a life when it was issued is none of it.
    let life = leaf.not_before..leaf.not_after;
    let begun = record.issued.filter(|at| life.contains(at)).unwrap_or(leaf.not_before);
    (schedule::renew_at(begun, leaf.not_after, config.survive, place), held.flaw)
}

/// The node's place in the fleet.
fn place(identity: Option<&Identity>) -> u64 {
    identity.map_or(0, |node| backoff::hash(&node.instance_id))
}

/// When the budget of issues allows the next one; nothing if it allows it now.
fn budget(config: &Config, record: &CertRecord, now: Timestamp) -> Option<Timestamp> {
    if record.recent_issues(now).count() < config.issues_per_hour as usize {
        return None;
    }
    let oldest = record.recent_issues(now).min()?;
    oldest.checked_add(BUDGET_TIME).ok()
}

/// Whether a failed request surely brought no certificate into the world: it was never sent, or
/// was answered with a no. Such a one costs nothing of the budget, or half a minute of trouble
/// at Vault would keep a node without certificates for an hour.
pub fn brought_none(error: &Error) -> bool {
    use crate::error::Kind;
    let no =
        matches!(error.kind(), Kind::Denied | Kind::Sealed | Kind::Unauthenticated | Kind::Config);
    let away = matches!(error.code(), Code::VaultThrottled | Code::VaultFailing | Code::ClockSkew);
    no || away || error.is_unsent()
}

/// Whether performing this duty asks Vault for a certificate.
pub fn will_issue(fact: Option<&CertFact>) -> bool {
    match fact {
        Some(CertFact::Absent { archived } | CertFact::Broken { archived, .. }) => {
            archived.is_none()
        }
        Some(CertFact::Held(held)) => held.flaw != Some(Why::Unfinished),
        _ => true,
    }
}

/// Looks at one certificate on disk.
pub fn examine(
    node: &Node,
    spec: &CertSpec,
    identity: Option<&Identity>,
    quarantined: &[Generation],
) -> CertFact {
    let looked = || -> Result<CertFact> {
        let target = target(node, spec)?;
        let spare = || spare(node, spec, identity, quarantined, None);
        Ok(match publish::inspect(&node.root, &target)? {
            Published::Absent => CertFact::Absent { archived: spare().map(|kept| kept.generation) },
            Published::Broken { reason } => {
                CertFact::Broken { reason, archived: spare().map(|kept| kept.generation) }
            }
            Published::Foreign { what } => CertFact::Foreign { what },
            Published::Sound { generation, material } => {
                let leaf = Leaf::of(&material)?;
                let asked = is_requested(node, spec).then_some(Why::Requested);
                let open = publish::superseded(&node.root, &target, generation);
                let open =
                    open.is_ok_and(|open| !open.is_empty()) && has_time(node, &leaf, identity);
                let unfinished = open.then_some(Why::Unfinished);
                let flaw =
                    asked.or(unfinished).or_else(|| flaw(node, spec, identity, &leaf, &material));
                // A bundle that lost authorities reads as one of before they were added. Where the
                // archive tells otherwise no issue is needed.
                let archived = (flaw == Some(Why::CaRotated)).then(spare).flatten();
                match archived.filter(|kept| kept.is_the_whole_of(&material)) {
                    Some(kept) => CertFact::Broken {
                        reason: "ca.pem lacks an authority that it had".into(),
                        archived: Some(kept.generation),
                    },
                    None => CertFact::Held(Held { generation, leaf, flaw }),
                }
            }
        })
    };
    looked().unwrap_or_else(CertFact::Unknown)
}

/// Whether a leaf is not to be renewed yet. What a failing disk does not let go of its former
/// generations must not hold up its renewal.
fn has_time(node: &Node, leaf: &Leaf, identity: Option<&Identity>) -> bool {
    let (survive, place) = (node.config.survive, place(identity));
    node.clock.now() < schedule::renew_at(leaf.not_before, leaf.not_after, survive, place)
}

/// Why a sound generation is not what the configuration asks for.
fn flaw(
    node: &Node,
    spec: &CertSpec,
    identity: Option<&Identity>,
    leaf: &Leaf,
    material: &Material,
) -> Option<Why> {
    if let Some(identity) = identity
        && let Ok(names) = names(&node.config, spec, identity)
        && (leaf::check_names(leaf, &names).is_err()
            || leaf::check_usage(leaf, spec.usage).is_err())
    {
        return Some(Why::SpecChanged);
    }
    // A bundle that cannot be read just now is no reason to change anything.
    let pinned = pinned(node, spec).ok()?;
    let trusted = leaf::bundle(&material.ca).ok()?;
    let stale = !leaf::has_all(&trusted, &pinned)
        || leaf::check_chain(material, &pinned, node.clock.now()).is_err();
    stale.then_some(Why::CaRotated)
}

/// Gets one certificate: from the archive where a sound copy is there, else from Vault.
pub async fn perform(node: &Node, spec: &CertSpec, records: &Records) -> Result<Commit> {
    let record = records.certificate(&spec.name);
    let session = node.session.get().map(|(session, _)| session.facts.identity);
    let fact = match examine(node, spec, session.as_ref(), &record.quarantined) {
        // What cannot be seen just now may be better than anything in the archive.
        CertFact::Unknown(error) => return Err(error.unsent()),
        fact => fact,
    };
    if fact.held().is_some_and(|held| held.flaw == Some(Why::Unfinished)) {
        return finish(node, spec, &fact).map_err(Error::unsent);
    }
    if let Some(Spare { generation, material, .. }) = ready(node, spec, &fact, records) {
        let commit = commit(node, spec, &material).await.map_err(Error::unsent);
        let commit = commit.during(format!("publishing {} again", spec.name))?;
        if is_wished(node, spec, generation) {
            node.root.unlink(&request_path(&spec.name))?;
        }
        return Ok(Commit { copied_from: Some(generation), ..commit });
    }
    // A disk that fails may have shown the look a copy that it does not show now. An issue in its
    // place would be one that nobody has counted; the next look decides anew.
    if !records.is_granted(&spec.name) {
        let text = "what the archive held a moment ago cannot be read now";
        return Err(Error::new(Code::Disk, text)
            .at(&spec.name)
            .advise("see `dmesg` for a failing disk"));
    }
    // What could not be numbered, and so not be kept, is not asked for.
    can_be_kept(node, spec).map_err(Error::unsent)?;
    let material = issue::issue(node, spec, &fact).await;
    let material = material.during(format!("issuing {}", spec.name))?;
    let commit = commit(node, spec, &material).await.during(format!("publishing {}", spec.name))?;
    if is_requested(node, spec) {
        node.root.unlink(&request_path(&spec.name))?;
    }
    Ok(Commit { issued: true, ..commit })
}

/// A generation in the archive that makes an issue needless: any sound one where none is in force,
/// and one that was issued and kept but never came to be published.
fn ready(node: &Node, spec: &CertSpec, fact: &CertFact, records: &Records) -> Option<Spare> {
    let record = records.certificate(&spec.name);
    let session = node.session.get().map(|(session, _)| session.facts.identity);
    let found = spare(node, spec, session.as_ref(), &record.quarantined, None)?;
    let held = match fact {
        CertFact::Held(held) => held,
        // Another than that one is there only because a failing disk has hidden it meanwhile.
        CertFact::Absent { archived } | CertFact::Broken { archived, .. } => {
            return Some(found).filter(|found| *archived == Some(found.generation));
        }
        CertFact::Foreign { .. } | CertFact::Unknown(_) => return Some(found),
    };
    let leaf = Leaf::of(&found.material).ok()?;
    // What is wrong with the one in force is worse than an earlier end.
    let lasts = held.flaw.is_some() || leaf.not_after > held.leaf.not_after;
    let newer = found.generation > held.generation && lasts && !found.is_stale;
    let fits = held.flaw != Some(Why::Requested) || is_wished(node, spec, found.generation);
    (newer && fits).then_some(found)
}

/// Carries a publication to its end: the unlink that tells the consumers.
fn finish(node: &Node, spec: &CertSpec, fact: &CertFact) -> Result<Commit> {
    heal(node, spec)?;
    let held = fact.held().ok_or_else(|| Error::new(Code::Bug, "nothing is published"))?;
    Ok(Commit {
        name: spec.name.clone(),
        consumer: spec.consumer.clone(),
        generation: held.generation,
        serial: held.leaf.serial.clone(),
        not_after: held.leaf.not_after,
        issued: false,
        copied_from: None,
    })
}

/// The longest number of a generation, and more.
const WISH_LIMIT: usize = 64;

/// Where a person's wish for a new certificate lies until it is fulfilled. In /run: a wish does
/// not outlive the boot in which it was made.
fn request_path(name: &str) -> PathBuf {
    Path::new("/run/nodeagent/requests").join(name)
}

fn is_requested(node: &Node, spec: &CertSpec) -> bool {
    matches!(node.root.stat(&request_path(&spec.name)), Ok(Some(_)))
}

/// Whether a generation in the archive is what a person wished for: one that was kept since, and
/// then could not be published, or the wish would cost an issue at every try.
fn is_wished(node: &Node, spec: &CertSpec, generation: Generation) -> bool {
    let wish = node.root.read_optional(&request_path(&spec.name), WISH_LIMIT).ok().flatten();
    let newest = wish.as_deref().and_then(|wish| std::str::from_utf8(wish).ok());
    newest.and_then(Generation::parse).is_some_and(|newest| generation > newest)
}

/// Asks the agent for a new certificate, at once and within its budget. The request holds the
/// newest generation in the archive.
pub fn request_renewal(root: &Root, name: &str) -> Result<()> {
    let kept = Archive::of(root, name).list();
    let newest = |kept: Vec<Generation>| kept.into_iter().max().unwrap_or(Generation(0));
    // What cannot be listed is not known to fulfil the wish.
    let newest = kept.map(|kept| newest(kept).to_string()).unwrap_or_default();
    root.make_dir(Path::new("/run/nodeagent/requests"), 0o700, None)?;
    root.write_volatile(&request_path(name), newest.as_bytes(), 0o600)
}

/// The pinned bundle of a certificate's authority, read anew.
fn pinned(node: &Node, spec: &CertSpec) -> Result<Vec<leaf::Authority>> {
    let authority = node.config.authorities.get(&spec.authority);
    let authority =
        authority.ok_or_else(|| Error::new(Code::Bug, "an authority went unchecked"))?;
    let bytes = node.root.read(&authority.ca, leaf::BUNDLE_LIMIT)?;
    leaf::bundle(&bytes).at(authority.ca.display())
}

/// The names of a certificate on this node.
pub fn names(config: &Config, spec: &CertSpec, identity: &Identity) -> Result<Names> {
    let values = Values { identity, cluster: &config.cluster, variables: &config.variables };
    let fill = |templates: &[crate::config::Template]| -> Result<Vec<String>> {
        templates.iter().map(|template| template.fill(&values)).collect()
    };
    Ok(Names {
        common_name: spec.common_name.fill(&values)?,
        organizations: fill(&spec.organizations)?,
        dns: fill(&spec.dns)?,
        ips: fill(&spec.ips)?,
        uris: fill(&spec.uris)?,
    })
}

/// Where a certificate is published, and for whom.
pub fn target(node: &Node, spec: &CertSpec) -> Result<Target> {
    let consumer = node.config.consumer(&spec.consumer);
    let consumer = consumer.ok_or_else(|| Error::new(Code::Bug, "a consumer went unchecked"))?;
    let gid = users::group_id(&node.root.path(Path::new("/etc/group")), &consumer.group)?;
    Ok(Target { consumer: consumer.name.clone(), certificate: spec.name.clone(), gid })
}

/// Heals what a crash left between the steps of a publication, and clears what it left half made in
/// the archive: the next issue would, and may be hours away.
pub fn heal(node: &Node, spec: &CertSpec) -> Result<()> {
    // What stays is met again at the next start or issue.
    Archive::of(&node.root, &spec.name).prune(store::KEPT).ok();
    publish::heal(&node.root, &target(node, spec)?)
        .map(|_| ())
        .during(format!("healing {}", spec.name))
}

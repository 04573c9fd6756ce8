//! What the simulation remembers of a node, and how it becomes [`Evidence`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nodeagent::agent::Agent;
use nodeagent::duty::DutyId;
use nodeagent::host::clock::Clock;
use nodeagent::node::Node;
use nodeagent::status::{Status, text};

use super::evidence::{self, Asked, Certificate, Evidence, Expected, Found, Leaf, Usage};
use super::faults::CERTIFICATES;
use super::marks::{Marks, Memo};
use super::schedule::Fault;
use super::weather::Weather;
use super::world::{Published, SURVIVE, World};

/// The shipped default, which the nodes have.
const ISSUES_PER_HOUR: u32 = 6;

/// Screen and tree are searched for secrets at every so many looks; log, status and records at
/// each that finds them changed, or knows another secret.
const SEARCH_EVERY: u64 = 32;

/// So many secrets are searched for: the token, the nonce, the keys, and those just before.
const SECRETS: usize = 8;

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// The memory of one node's life.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) weather: Weather,
    /// Certificates that the world has torn.
    pub(super) torn: BTreeSet<&'static str>,
    /// Effects as they were begun.
    pub(super) effects: Vec<Timestamp>,
    /// The effect that has just ended.
    pub(super) effect: Option<(DutyId, SignedDuration, Duration)>,
    /// What was asked for while it was under way.
    pub(super) asked_again: Vec<DutyId>,
    /// Lines of log since the last look.
    pub(super) log: String,
    starts: Vec<Timestamp>,
    excuses: Vec<Timestamp>,
    bad_since: BTreeMap<&'static str, Timestamp>,
    /// The leaf that was put back last, and until when it rests.
    rests: BTreeMap<&'static str, (String, Timestamp)>,
    commits: Arc<BTreeMap<(String, u64), Timestamp>>,
    asked: Arc<Vec<(Timestamp, Asked)>>,
    pub(super) signed: Arc<Vec<(Timestamp, String)>>,
    forgiven_acts: usize,
    forgotten: Option<Timestamp>,
    nonce: Option<String>,
    /// The newest last; old ones were searched for while they were new.
    secrets: VecDeque<String>,
    /// How many secrets were learnt.
    learnt: usize,
    /// What is published, and what lies about, verified anew only where a file has changed.
    seen: BTreeMap<&'static str, Memo<Found>>,
    nonce_seen: Memo<Option<String>>,
    archived: Memo<usize>,
    /// Status and records were searched for secrets, so many of them.
    searched: Memo<usize>,
    looks: u64,
    pub(super) issued: u64,
}

impl Ledger {
    /// The agent was started.
    pub(super) fn started(&mut self, now: Timestamp) {
        self.starts.push(now);
    }

    /// The clock was stepped, or the records are lost: the budget of the hour begins anew.
    pub(super) fn excuse_the_budget(&mut self, now: Timestamp) {
        self.excuses.push(now);
    }

    /// The records are lost: nobody can know what was acted on before.
    pub(super) fn forgive_acts(&mut self, world: &World) {
        self.forgiven_acts = world.units.count();
        self.forgotten = Some(world.now());
    }

    /// Another machine: nothing that was known of the former one is held against it.
    pub(super) fn replaced(&mut self, world: &World) {
        self.forgive_acts(world);
        self.excuse_the_budget(world.now());
        self.torn.clear();
        self.bad_since.clear();
        self.commits = Arc::default();
        self.nonce = None;
    }

    /// Everything that can be seen now.
    pub(super) fn observe(
        &mut self,
        world: &World,
        agent: &Agent,
        node: &Node,
        (published, status): (Published, Option<Status>),
    ) -> Evidence {
        let now = world.now();
        self.looks += 1;
        self.take_requests(world);
        self.learn_secrets(world, node);
        let numbered = published.iter().map(Marks::numbered).max();
        let certificates = CERTIFICATES
            .into_iter()
            .zip(published)
            .map(|(name, marks)| (name, self.certificate(world, agent, name, marks)))
            .collect();
        for times in [&mut self.starts, &mut self.excuses, &mut self.effects] {
            times.retain(|at| now.duration_since(*at) < HOUR);
        }
        let excuses = u32::try_from(self.excuses.len()).unwrap_or(u32::MAX - 1);
        Evidence {
            now,
            clock_wrong: world.clock.wrong(),
            survive: SURVIVE,
            weather: self.weather.clone(),
            certificates,
            served: world.consumer.serial(),
            mismatches: world.consumer.mismatches(),
            acts: world.units.acts_since(self.forgiven_acts),
            forgotten: self.forgotten,
            commits: self.commits.clone(),
            asked: self.asked.clone(),
            signed: self.signed.clone(),
            budget: ISSUES_PER_HOUR * (1 + excuses),
            starts: self.starts.len(),
            effects: self.effects.len(),
            shown: self.shown(world, status.as_ref()),
            secrets: self.secrets.iter().cloned().collect(),
            status,
            asked_again: std::mem::take(&mut self.asked_again),
            effect: self.effect.take(),
            nonces: (self.nonce.clone(), self.nonce_of(world)),
            leftovers: (numbered.unwrap_or(0), self.archived(world)),
        }
    }

    fn take_requests(&mut self, world: &World) {
        let now = world.now();
        let server = world.model.server();
        let (asked, signed) = (Arc::make_mut(&mut self.asked), Arc::make_mut(&mut self.signed));
        for entry in server.take_requests() {
            let kind = match entry.path.strip_prefix("/v1/pki/sign/") {
                _ if entry.status == Some(503) => Asked::Refused,
                Some(role) => {
                    let page = self.weather.fault == Some(Fault::Html);
                    if entry.status == Some(200) && !page {
                        signed.push((entry.at, role.to_owned()));
                        self.issued += 1;
                    }
                    Asked::Sign
                }
                None if entry.path.ends_with("/login") => Asked::Login,
                None => Asked::Other,
            };
            asked.push((entry.at, kind));
        }
        asked.retain(|(at, _)| now.duration_since(*at) < HOUR);
        signed.retain(|(at, _)| now.duration_since(*at) < HOUR * 24);
    }

    fn learn_secrets(&mut self, world: &World, node: &Node) {
        if let Some((session, _)) = node.session.get() {
            self.learn(session.token.expose().to_owned());
        }
        if self.nonce.is_none() {
            self.nonce = self.nonce_of(world);
        }
        if let Some(nonce) = self.nonce.clone() {
            self.learn(nonce);
        }
    }

    fn learn(&mut self, secret: String) {
        if !self.secrets.contains(&secret) {
            self.learnt += 1;
            self.secrets.push_back(secret);
            let excess = self.secrets.len().saturating_sub(SECRETS);
            self.secrets.drain(..excess);
        }
    }

    fn certificate(
        &mut self,
        world: &World,
        agent: &Agent,
        name: &'static str,
        marks: Marks,
    ) -> Certificate {
        let now = world.now();
        let found = self.found(world, name, marks);
        let sound = match &found {
            Found::Leaf(leaf) => leaf.fits.is_ok() && leaf.trusted.is_ok(),
            Found::Nothing(_) => false,
        };
        if sound {
            self.torn.remove(name);
            self.bad_since.remove(name);
        } else {
            self.bad_since.entry(name).or_insert(now);
        }
        if let Found::Leaf(leaf) = &found {
            let commit = (name.to_owned(), leaf.generation);
            if !self.commits.contains_key(&commit) {
                Arc::make_mut(&mut self.commits).insert(commit, now);
            }
        }
        let rests_until = found.leaf().and_then(|leaf| self.rest(agent, name, leaf));
        Certificate {
            torn: self.torn.contains(name),
            bad_since: self.bad_since.get(name).copied(),
            rests_until,
            found,
        }
    }

    /// Until when a leaf that was put back rests. That it did stays true when the agent's records
    /// of it are lost.
    fn rest(&mut self, agent: &Agent, name: &'static str, leaf: &Leaf) -> Option<Timestamp> {
        let back = agent.records().certificate(name).rolled_back;
        if let Some(back) = back.filter(|back| leaf.not_before <= *back) {
            let left = back.duration_until(leaf.not_after);
            self.rests.insert(name, (leaf.serial.clone(), back + left / 2));
        }
        let (serial, until) = self.rests.get(name)?;
        (*serial == leaf.serial).then_some(*until)
    }

    /// Whether a consumer may start: every certificate fits and is valid by the node's clock.
    pub(super) fn gate_is_open(&mut self, world: &World) -> bool {
        let now = world.clock.now();
        CERTIFICATES.iter().all(|name| match self.found(world, name, world.published(name)) {
            Found::Leaf(leaf) => {
                leaf.fits.is_ok() && leaf.not_before <= now && now < leaf.not_after
            }
            Found::Nothing(_) => false,
        })
    }

    /// The world has changed files, perhaps faster than the kernel counts.
    pub(super) fn forget_marks(&mut self) {
        self.seen.values_mut().for_each(Memo::forget);
        self.nonce_seen.forget();
        self.archived.forget();
        self.searched.forget();
    }

    /// What is published; verified anew only where a file of it has changed.
    fn found(&mut self, world: &World, name: &'static str, marks: Marks) -> Found {
        if let Some(found) = self.seen.entry(name).or_default().get(&marks) {
            return found;
        }
        let current = world.current(name);
        let key = std::fs::read_to_string(current.join("key.pem")).unwrap_or_default();
        if let Some(line) = key.lines().nth(1).filter(|line| line.len() > 20) {
            self.learn(line.to_owned());
        }
        let found = evidence::found(&current, &expected(world, name));
        self.seen.entry(name).or_default().keep(marks, found)
    }

    /// The nonce on disk.
    fn nonce_of(&mut self, world: &World) -> Option<String> {
        let path = world.path(&format!("var/lib/nodeagent/nonce/aws/{}", world.instance));
        let marks = Marks::of(&[&path]);
        let read = || std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        self.nonce_seen.get(&marks).unwrap_or_else(|| self.nonce_seen.keep(marks, read()))
    }

    /// The most generations that the archive keeps of a certificate.
    fn archived(&mut self, world: &World) -> usize {
        let dirs = CERTIFICATES.map(|name| world.path("var/lib/nodeagent/archive").join(name));
        let marks = Marks::of(&[&dirs[0], &dirs[1]]);
        let most = || dirs.iter().map(|dir| Marks::tree(dir).numbered()).max().unwrap_or(0);
        self.archived.get(&marks).unwrap_or_else(|| self.archived.keep(marks, most()))
    }

    fn shown(&mut self, world: &World, status: Option<&Status>) -> Vec<(String, String)> {
        let mut shown = vec![("the log".to_owned(), std::mem::take(&mut self.log))];
        let files = ["run/nodeagent/status.json", "var/lib/nodeagent/records.json"];
        let paths = files.map(|file| world.path(file));
        let marks = Marks::of(&[&paths[0], &paths[1]]);
        if self.searched.get(&marks) != Some(self.learnt) {
            for (file, path) in files.into_iter().zip(paths) {
                let bytes = std::fs::read(path).unwrap_or_default();
                shown.push((file.to_owned(), String::from_utf8_lossy(&bytes).into_owned()));
            }
            self.searched.keep(marks, self.learnt);
        }
        if self.looks.is_multiple_of(SEARCH_EVERY) {
            let screen = status.map(|status| text::screen(status, world.now()));
            shown.push(("the screen".to_owned(), screen.unwrap_or_default()));
            readable(world.disk.path(), &mut shown);
        }
        shown
    }
}

fn expected<'a>(world: &'a World, name: &str) -> Expected<'a> {
    let server = match name {
        "kubelet-server" => Usage::Server,
        _ => Usage::Client,
    };
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    if server == Usage::Server {
        dns.push(world.instance.clone());
        ips.push(vec![127, 0, 0, 1]);
        let instance = world.aws.instance(&world.instance);
        ips.extend(instance.map(|found| found.private_ip.octets().to_vec()));
    }
    let common_name = format!("system:node:{}", world.instance);
    Expected { roots: &world.authorities.ever, common_name, dns, ips, server }
}

/// Files that everyone may read, below a directory.
fn readable(dir: &Path, into: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else { continue };
        let path = entry.path();
        if found.is_dir() {
            readable(&path, into);
        } else if found.is_file()
            && found.permissions().mode() & 0o004 != 0
            && found.len() < 1 << 20
        {
            let bytes = std::fs::read(&path).unwrap_or_default();
            into.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

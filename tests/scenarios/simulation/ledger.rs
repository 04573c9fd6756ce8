//! What the simulation remembers of a node, and how it becomes [`Evidence`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nodeagent::agent::Agent;
use nodeagent::duty::DutyId;
use nodeagent::host::clock::Clock;
use nodeagent::node::Node;
use nodeagent::status::{Status, text};

use super::evidence::{self, Asked, Certificate, Evidence, Expected, Found, Usage};
use super::faults::CERTIFICATES;
use super::schedule::Fault;
use super::weather::Weather;
use super::world::{PUBLISHED, SURVIVE, World};

/// The shipped default, which the nodes have.
const ISSUES_PER_HOUR: u32 = 6;

/// Screen and tree are searched for secrets at every so many looks; log, status and records at
/// each.
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
    commits: BTreeMap<(String, u64), Timestamp>,
    asked: Vec<(Timestamp, Asked)>,
    pub(super) signed: Vec<(Timestamp, String)>,
    forgiven_acts: usize,
    nonce: Option<String>,
    /// The newest last; old ones were searched for while they were new.
    secrets: VecDeque<String>,
    seen: BTreeMap<&'static str, (u64, Found)>,
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
    }

    /// Everything that can be seen now.
    pub(super) fn observe(
        &mut self,
        world: &World,
        agent: &Agent,
        node: &Node,
        status: Option<&Status>,
    ) -> Evidence {
        let now = world.now();
        self.looks += 1;
        self.take_requests(world);
        self.learn_secrets(world, node);
        let certificates = CERTIFICATES
            .map(|name| (name, self.certificate(world, agent, name)))
            .into_iter()
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
            commits: self.commits.clone(),
            asked: self.asked.clone(),
            signed: self.signed.clone(),
            budget: ISSUES_PER_HOUR * (1 + excuses),
            starts: self.starts.len(),
            effects: self.effects.len(),
            shown: self.shown(world, status),
            secrets: self.secrets.iter().cloned().collect(),
            status: status.cloned(),
            asked_again: std::mem::take(&mut self.asked_again),
            effect: self.effect.take(),
            nonces: (self.nonce.clone(), nonce(world)),
            leftovers: leftovers(world),
        }
    }

    fn take_requests(&mut self, world: &World) {
        let now = world.now();
        let server = world.model.server();
        for entry in server.requests() {
            let asked = match entry.path.strip_prefix("/v1/pki/sign/") {
                _ if entry.status == Some(503) => Asked::Refused,
                Some(role) => {
                    let page = self.weather.fault == Some(Fault::Html);
                    if entry.status == Some(200) && !page {
                        self.signed.push((entry.at, role.to_owned()));
                        self.issued += 1;
                    }
                    Asked::Sign
                }
                None if entry.path.ends_with("/login") => Asked::Login,
                None => Asked::Other,
            };
            self.asked.push((entry.at, asked));
        }
        server.clear_log();
        self.asked.retain(|(at, _)| now.duration_since(*at) < HOUR);
        self.signed.retain(|(at, _)| now.duration_since(*at) < HOUR * 24);
    }

    fn learn_secrets(&mut self, world: &World, node: &Node) {
        if let Some((session, _)) = node.session.get() {
            self.learn(session.token.expose().to_owned());
        }
        if self.nonce.is_none() {
            self.nonce = nonce(world);
        }
        if let Some(nonce) = self.nonce.clone() {
            self.learn(nonce);
        }
    }

    fn learn(&mut self, secret: String) {
        if !self.secrets.contains(&secret) {
            self.secrets.push_back(secret);
            let excess = self.secrets.len().saturating_sub(SECRETS);
            self.secrets.drain(..excess);
        }
    }

    fn certificate(&mut self, world: &World, agent: &Agent, name: &'static str) -> Certificate {
        let now = world.now();
        let found = self.found(world, name);
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
            self.commits.entry((name.to_owned(), leaf.generation)).or_insert(now);
        }
        let rolled_back = agent.records().certificate(name).rolled_back;
        let rests_until = match (&found, rolled_back) {
            (Found::Leaf(leaf), Some(back)) => {
                let left = back.duration_until(leaf.not_after);
                Some(back + left / 2)
            }
            _ => None,
        };
        Certificate {
            torn: self.torn.contains(name),
            bad_since: self.bad_since.get(name).copied(),
            rests_until,
            found,
        }
    }

    /// Whether a consumer may start: every certificate fits and is valid by the node's clock.
    pub(super) fn gate_is_open(&mut self, world: &World) -> bool {
        let now = world.clock.now();
        CERTIFICATES.iter().all(|name| match self.found(world, name) {
            Found::Leaf(leaf) => {
                leaf.fits.is_ok() && leaf.not_before <= now && now < leaf.not_after
            }
            Found::Nothing(_) => false,
        })
    }

    /// What is published; verified anew only where a byte of it has changed.
    fn found(&mut self, world: &World, name: &'static str) -> Found {
        let current = world.current(name);
        let mut hash = DefaultHasher::new();
        std::fs::read_link(&current).ok().hash(&mut hash);
        for file in ["cert.pem", "key.pem", "ca.pem", "pair.pem"] {
            std::fs::read(current.join(file)).ok().hash(&mut hash);
        }
        let hash = hash.finish();
        if let Some((_, found)) = self.seen.get(name).filter(|(seen, _)| *seen == hash) {
            return found.clone();
        }
        let key = std::fs::read_to_string(current.join("key.pem")).unwrap_or_default();
        if let Some(line) = key.lines().nth(1).filter(|line| line.len() > 20) {
            self.learn(line.to_owned());
        }
        let found = evidence::found(&current, &expected(world, name));
        self.seen.insert(name, (hash, found.clone()));
        found
    }

    fn shown(&mut self, world: &World, status: Option<&Status>) -> Vec<(String, String)> {
        let read = |path: &str| {
            let bytes = std::fs::read(world.path(path)).unwrap_or_default();
            (path.to_owned(), String::from_utf8_lossy(&bytes).into_owned())
        };
        let mut shown = vec![
            ("the log".to_owned(), std::mem::take(&mut self.log)),
            read("run/nodeagent/status.json"),
            read("var/lib/nodeagent/records.json"),
        ];
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

/// The nonce on disk.
fn nonce(world: &World) -> Option<String> {
    let path = format!("var/lib/nodeagent/nonce/aws/{}", world.instance);
    std::fs::read_to_string(world.path(&path)).ok().map(|text| text.trim().to_owned())
}

fn leftovers(world: &World) -> (usize, usize) {
    let most = |top: &str| {
        let count = |name: &str| {
            let entries = std::fs::read_dir(world.path(top).join(name)).into_iter().flatten();
            let numbered = entries.flatten().filter(|entry| {
                entry.file_name().to_string_lossy().trim_start_matches('.').starts_with('0')
            });
            numbered.count()
        };
        CERTIFICATES.iter().map(|name| count(name)).max().unwrap_or(0)
    };
    (most(PUBLISHED), most("var/lib/nodeagent/archive"))
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

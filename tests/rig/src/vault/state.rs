//! The model's state and its one entry, [`State::handle`]: a synchronous function of the state,
//! the time and the request. It never waits; where EC2 has to be asked first it says so, changes
//! nothing, and is called again with the answer.

mod access;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Call, Operation, Refusal, Reply};
use super::aws::ec2::{Ec2Question, Ec2Result};
use super::aws::{self, Grant};
use super::fault::Lie;
use super::ids;
use super::lease;
use super::mounts::{Backend, Mounts};
use super::pki;
use super::quota::Quotas;
use super::seal::Seal;
use super::token::endpoint::{self, Renewal};
use super::token::{Origin, Token, Tokens, invalid_token};

/// Everything that the model knows.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) seal: Seal,
    pub(super) lie: Option<Lie>,
    mounts: Mounts,
    tokens: Tokens,
    policies: BTreeMap<String, String>,
    entities: BTreeMap<String, Entity>,
    quotas: Quotas,
}

/// One identity: the names that a machine has at the auth mounts, by their accessor.
#[derive(Debug, Default)]
struct Entity {
    aliases: BTreeMap<String, String>,
}

/// What a call comes to.
#[derive(Debug)]
pub(super) enum Outcome {
    Answer(Answer),
    Ask(Ec2Question),
}

/// A reply, or what has to be asked first.
enum Step {
    Reply(Reply, String),
    Ask(Ec2Question),
}

/// A request whose path, body and caller are known to be good.
struct Checked<'a> {
    operation: Operation,
    body: &'a Map<String, Value>,
    now: Timestamp,
    evidence: Option<&'a Ec2Result>,
    from: std::net::IpAddr,
}

/// Tokens are swept out when there are this many, so that months of logins stay cheap.
const SWEEP_AT: usize = 512;

impl State {
    /// Answers one call. `evidence` is what EC2 said to an earlier [`Outcome::Ask`].
    pub(super) fn handle(
        &mut self,
        now: Timestamp,
        call: &Call,
        evidence: Option<&Ec2Result>,
    ) -> Outcome {
        let mut headers = Vec::new();
        if evidence.is_none() {
            match self.quotas.count(&call.path, call.from, now) {
                Ok(shown) => headers = shown,
                Err(answer) => return Outcome::Answer(*answer),
            }
        }
        if let Some(answer) = self.seal.page(call, now) {
            return Outcome::Answer(answer);
        }
        if call.path == "sys/init" {
            return Outcome::Answer(self.init(now, call).unwrap_or_else(|no| no.into_answer()));
        }
        if self.seal.sealed {
            return Outcome::Answer(Answer::errors(503, &["Vault is sealed"]));
        }
        let public = self.is_public(call);
        match self.checked(now, call, evidence) {
            Ok(Step::Ask(question)) => Outcome::Ask(question),
            Ok(Step::Reply(reply, kind)) => {
                let mut answer = reply.into_answer(&kind);
                answer.headers.extend(headers);
                Outcome::Answer(answer)
            }
            Err(refusal) => {
                let mut answer =
                    if public { refusal.into_answer() } else { refusal.into_wrapped_answer() };
                answer.headers.extend(headers);
                Outcome::Answer(answer)
            }
        }
    }

    fn init(&mut self, now: Timestamp, call: &Call) -> Result<Answer, Refusal> {
        let mut keys = self.seal.init(&call.form()?)?;
        let root = Token::root(now);
        keys["root_token"] = json!(root.id);
        self.tokens.insert(root);
        Ok(Answer::json(200, &keys))
    }

    fn is_public(&mut self, call: &Call) -> bool {
        match self.mounts.route(&call.path) {
            Some((_, mount, rest)) => match &mount.backend {
                Backend::Aws(_) => rest == "login",
                Backend::Pki(_) => {
                    call.operation() != Some(Operation::Write) && pki::is_public(rest)
                }
                _ => false,
            },
            None => false,
        }
    }

    fn checked(
        &mut self,
        now: Timestamp,
        call: &Call,
        evidence: Option<&Ec2Result>,
    ) -> Result<Step, Refusal> {
        let body = call.form()?;
        let operation = call.operation().ok_or_else(Refusal::unsupported_operation)?;
        let caller = if self.is_public(call) {
            None
        } else {
            Some(self.authorize(now, call, operation, evidence)?)
        };
        let checked = Checked { operation, body: &body, now, evidence, from: call.from };
        let Some((prefix, mount, rest)) = self.mounts.route(&call.path) else {
            let path = &call.path;
            let text = format!("no handler for route {path:?}. route entry not found.");
            return Err(Refusal::new(404, text));
        };
        let (prefix, kind) = (prefix.to_owned(), mount.kind.clone());
        let core = matches!(mount.backend, Backend::Core);
        if core {
            let caller = caller.ok_or_else(invalid_token)?;
            return self.core(&prefix, rest, &checked, &caller);
        }
        let step = self.backend(&prefix, rest, &checked, caller.as_ref())?;
        Ok(match step {
            Step::Reply(reply, _) => Step::Reply(reply, kind),
            ask => ask,
        })
    }

    fn backend(
        &mut self,
        prefix: &str,
        rest: &str,
        checked: &Checked<'_>,
        caller: Option<&Token>,
    ) -> Result<Step, Refusal> {
        let aliases = caller
            .and_then(|caller| self.entities.get(&caller.entity_id))
            .map(|entity| entity.aliases.clone())
            .unwrap_or_default();
        let Checked { operation, body, now, evidence, from } = *checked;
        let lie = self.lie;
        let mount = self.mounts.get_mut(prefix).ok_or_else(Refusal::unsupported_path)?;
        let mount_ttl = mount.ttl();
        let plain = |reply| Step::Reply(reply, String::new());
        match &mut mount.backend {
            Backend::Core => Err(Refusal::unsupported_path()),
            Backend::Kv(kv) => kv.handle(rest, operation, body, now).map(plain),
            Backend::Pki(pki) => {
                let aliases = &aliases;
                let path = rest;
                pki.handle(&pki::Request { operation, path, body, now, mount_ttl, aliases, lie })
                    .map(plain)
            }
            Backend::Aws(aws) => {
                let path = rest;
                let request =
                    aws::Request { operation, path, body, from, now, evidence, mount_ttl };
                match aws.handle(&request)? {
                    aws::Outcome::Reply(reply) => Ok(plain(reply)),
                    aws::Outcome::Ask(question) => Ok(Step::Ask(question)),
                    aws::Outcome::Login(grant) => {
                        let accessor = mount.accessor.clone();
                        self.admit(prefix, &accessor, *grant, now).map(plain)
                    }
                }
            }
        }
    }

    /// Makes a token out of an accepted login.
    fn admit(
        &mut self,
        prefix: &str,
        accessor: &str,
        grant: Grant,
        now: Timestamp,
    ) -> Result<Reply, Refusal> {
        if self.tokens.count() > SWEEP_AT {
            self.tokens.sweep(now);
        }
        let mut token = Token::root(now);
        token.policies = grant.policies;
        token.meta = grant.meta;
        token.display_name = display(prefix);
        token.path = format!("{prefix}login");
        token.entity_id = self.entity(accessor, &grant.alias);
        token.num_uses = grant.num_uses;
        token.batch = grant.batch;
        token.renewable = !grant.batch;
        token.bound_cidrs = grant.bound_cidrs;
        if grant.batch {
            token.id = format!("hvb.{}", ids::base62(92));
        }
        token.origin = Origin::Ec2 { mount: prefix.to_owned(), login: grant.login };
        let (lease, cut) = lease::grant(&grant.terms, 0, now, now)?;
        let mut warnings = grant.warnings;
        warnings.extend(cut);
        token.terms = grant.terms;
        token.creation_ttl = lease;
        token.grant(now, lease);
        let auth = token.auth(lease);
        self.tokens.insert(token);
        Ok(Reply::Auth(auth, warnings))
    }

    fn entity(&mut self, accessor: &str, alias: &str) -> String {
        let known = self
            .entities
            .iter()
            .find(|(_, entity)| entity.aliases.get(accessor).is_some_and(|name| name == alias));
        if let Some((id, _)) = known {
            return id.clone();
        }
        let id = ids::uuid();
        let aliases = BTreeMap::from([(accessor.to_owned(), alias.to_owned())]);
        self.entities.insert(id.clone(), Entity { aliases });
        id
    }

    fn core(
        &mut self,
        prefix: &str,
        rest: &str,
        checked: &Checked<'_>,
        caller: &Token,
    ) -> Result<Step, Refusal> {
        let Checked { operation, body, now, .. } = *checked;
        let system = |reply| Ok(Step::Reply(reply, "system".to_owned()));
        match prefix {
            "auth/token/" => {
                let request = endpoint::Request { operation, path: rest, body, caller, now };
                match endpoint::handle(&mut self.tokens, &request)? {
                    endpoint::Outcome::Reply(reply) => Ok(Step::Reply(reply, "token".into())),
                    endpoint::Outcome::Renew(renewal) => self.renew(renewal, checked),
                }
            }
            "sys/" => {
                if let Some(path) = below(rest, "auth") {
                    return system(self.mounts.handle("auth/", path, operation, body)?);
                }
                if let Some(path) = below(rest, "mounts") {
                    return system(self.mounts.handle("", path, operation, body)?);
                }
                if let Some(path) = rest.strip_prefix("quotas/") {
                    return system(self.quotas.handle(path, operation, body)?);
                }
                let name = rest.strip_prefix("policies/acl");
                if let Some(name) = name.or_else(|| rest.strip_prefix("policy")) {
                    return system(self.policy(name.trim_matches('/'), operation, body)?);
                }
                if rest == "seal" && operation == Operation::Write {
                    self.seal.seal();
                    return system(Reply::NoContent);
                }
                Err(Refusal::unsupported_path())
            }
            _ => Err(Refusal::unsupported_path()),
        }
    }

    fn renew(&mut self, renewal: Renewal, checked: &Checked<'_>) -> Result<Step, Refusal> {
        let now = checked.now;
        let token = self
            .tokens
            .live(&renewal.id, now)
            .cloned()
            .ok_or_else(|| Refusal::new(403, "bad token"))?;
        if token.batch {
            return Err(Refusal::bad("batch tokens cannot be renewed"));
        }
        if !token.renewable || token.expires.is_none() {
            return Err(Refusal::bad("lease is not renewable"));
        }
        let terms = match &token.origin {
            Origin::TokenStore => token.terms,
            Origin::Ec2 { mount, login } => {
                let gone = || Refusal::fault(500, "failed to renew entry: no such mount");
                let found = self.mounts.get_mut(mount).ok_or_else(gone)?;
                let mount_ttl = found.ttl();
                let Backend::Aws(aws) = &mut found.backend else {
                    return Err(gone());
                };
                if checked.evidence.is_none() {
                    return Ok(Step::Ask(aws.renewal_question(login)));
                }
                aws.renew(login, &aws_request(checked, mount_ttl))?
            }
        };
        let (seconds, cut) = lease::grant(&terms, renewal.increment, token.created, now)?;
        let mut warnings = renewal.warnings;
        warnings.extend(cut);
        let stored = self.tokens.live_mut(&renewal.id, now).ok_or_else(invalid_token)?;
        stored.terms = lease::Terms { ttl: seconds, ..terms };
        stored.last_renewal = Some(now);
        stored.grant(now, seconds);
        let auth = stored.auth(seconds);
        Ok(Step::Reply(Reply::Auth(auth, warnings), "token".into()))
    }
}

fn aws_request<'a>(checked: &Checked<'a>, mount_ttl: (i64, i64)) -> aws::Request<'a> {
    aws::Request {
        operation: checked.operation,
        path: "",
        body: checked.body,
        from: checked.from,
        now: checked.now,
        evidence: checked.evidence,
        mount_ttl,
    }
}

/// A token of `auth/aws/` is shown as `aws`, not as its instance.
fn display(prefix: &str) -> String {
    let name = prefix.trim_start_matches("auth/").trim_end_matches('/');
    name.replace('/', "-")
}

/// What follows `area` in a path, where it is that area.
fn below<'a>(path: &'a str, area: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(area)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

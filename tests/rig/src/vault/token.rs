//! The tokens of the model: their store, and what Vault says about one of them. The endpoints are
//! in `token/endpoint.rs`.

pub(super) mod endpoint;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::ids;
use super::lease::{Terms, after};

/// Where a token came from decides who has a say at its renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    TokenStore,
    /// An EC2 login: the mount and the instance that the renewal is checked against.
    Ec2 {
        mount: String,
        login: Ec2Login,
    },
}

/// What an EC2 login leaves inside the token for its renewals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ec2Login {
    pub(super) instance_id: String,
    pub(super) region: String,
    pub(super) account_id: String,
}

/// One token.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) id: String,
    pub(super) accessor: String,
    pub(super) policies: Vec<String>,
    pub(super) meta: BTreeMap<String, String>,
    pub(super) display_name: String,
    pub(super) path: String,
    pub(super) created: Timestamp,
    pub(super) expires: Option<Timestamp>,
    pub(super) last_renewal: Option<Timestamp>,
    pub(super) creation_ttl: i64,
    pub(super) terms: Terms,
    pub(super) renewable: bool,
    pub(super) num_uses: i64,
    pub(super) batch: bool,
    pub(super) orphan: bool,
    pub(super) parent: Option<String>,
    pub(super) entity_id: String,
    pub(super) bound_cidrs: Vec<String>,
    pub(super) origin: Origin,
}

impl Token {
    /// A token that never ends and may do everything.
    pub(super) fn root(now: Timestamp) -> Token {
        Token {
            id: format!("hvs.{}", ids::base62(24)),
            accessor: ids::base62(24),
            policies: vec!["root".into()],
            meta: BTreeMap::new(),
            display_name: "root".into(),
            path: "auth/token/root".into(),
            created: now,
            expires: None,
            last_renewal: None,
            creation_ttl: 0,
            terms: Terms::default(),
            renewable: false,
            num_uses: 0,
            batch: false,
            orphan: true,
            parent: None,
            entity_id: String::new(),
            bound_cidrs: Vec::new(),
            origin: Origin::TokenStore,
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.policies.iter().any(|policy| policy == "root")
    }

    /// Starts the lease over.
    pub(super) fn grant(&mut self, now: Timestamp, seconds: i64) {
        self.expires = Some(after(now, seconds));
    }

    fn remaining(&self, now: Timestamp) -> i64 {
        self.expires.map_or(0, |end| end.duration_since(now).as_secs())
    }

    /// The body of `lookup-self`.
    pub(super) fn lookup(&self, now: Timestamp) -> Value {
        let meta = if self.meta.is_empty() { Value::Null } else { json!(self.meta) };
        let mut data = json!({
            "accessor": self.accessor,
            "creation_time": self.created.as_second(),
            "creation_ttl": self.creation_ttl,
            "display_name": self.display_name,
            "entity_id": self.entity_id,
            "expire_time": self.expires.map(|end| end.to_string()),
            "explicit_max_ttl": self.terms.explicit_max_ttl,
            "id": self.id,
            "meta": meta,
            "num_uses": self.num_uses,
            "orphan": self.orphan,
            "path": self.path,
            "policies": self.policies,
            "ttl": self.remaining(now),
            "type": self.kind(),
        });
        if self.expires.is_some() {
            data["issue_time"] = json!(self.created.to_string());
            data["renewable"] = json!(self.renewable);
        }
        if let Some(at) = self.last_renewal {
            data["last_renewal"] = json!(at.to_string());
            data["last_renewal_time"] = json!(at.as_second());
        }
        if self.terms.period > 0 {
            data["period"] = json!(self.terms.period);
        }
        if !self.bound_cidrs.is_empty() {
            data["bound_cidrs"] = json!(self.bound_cidrs);
        }
        data
    }

    /// The `auth` block of a login, a creation or a renewal.
    pub(super) fn auth(&self, lease: i64) -> Value {
        let metadata = if self.meta.is_empty() { Value::Null } else { json!(self.meta) };
        json!({
            "client_token": self.id,
            "accessor": if self.batch { "" } else { self.accessor.as_str() },
            "policies": self.policies,
            "token_policies": self.policies,
            "metadata": metadata,
            "lease_duration": lease,
            "renewable": self.renewable,
            "entity_id": self.entity_id,
            "token_type": self.kind(),
            "orphan": self.orphan,
            "mfa_requirement": null,
            "num_uses": self.num_uses,
        })
    }

    fn kind(&self) -> &'static str {
        if self.batch { "batch" } else { "service" }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Token").field("display_name", &self.display_name).finish_non_exhaustive()
    }
}

/// All tokens that are still good for something.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    by_id: BTreeMap<String, Token>,
}

/// What separates "log in again" from a policy that refuses.
pub(super) fn invalid_token() -> Refusal {
    let text = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n";
    Refusal::new(403, text)
}

impl Tokens {
    pub(super) fn insert(&mut self, token: Token) {
        self.by_id.insert(token.id.clone(), token);
    }

    /// A token that is neither expired nor used up.
    pub(super) fn live(&self, id: &str, now: Timestamp) -> Option<&Token> {
        let token = self.by_id.get(id)?;
        let expired = token.expires.is_some_and(|end| end <= now);
        (!expired && token.num_uses >= 0).then_some(token)
    }

    pub(super) fn live_mut(&mut self, id: &str, now: Timestamp) -> Option<&mut Token> {
        self.live(id, now)?;
        self.by_id.get_mut(id)
    }

    pub(super) fn by_accessor(&self, accessor: &str, now: Timestamp) -> Option<&Token> {
        let id = self.by_id.values().find(|token| token.accessor == accessor)?.id.clone();
        self.live(&id, now)
    }

    /// Checks the caller's token and counts one use of it.
    pub(super) fn use_once(
        &mut self,
        id: &str,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Token, Refusal> {
        let token = self.live_mut(id, now).ok_or_else(invalid_token)?;
        if !token.bound_cidrs.is_empty() && !super::cidr::any_contains(&token.bound_cidrs, from) {
            return Err(Refusal::new(403, "permission denied"));
        }
        if token.num_uses > 0 {
            // Vault marks the last use with -1 while that request still runs.
            token.num_uses = if token.num_uses == 1 { -1 } else { token.num_uses - 1 };
        }
        Ok(token.clone())
    }

    /// Removes a token and everything that it created.
    pub(super) fn revoke(&mut self, id: &str) {
        let mut doomed = vec![id.to_owned()];
        while let Some(id) = doomed.pop() {
            self.by_id.remove(&id);
            let children = self.by_id.values().filter(|t| t.parent.as_deref() == Some(&id));
            doomed.extend(children.map(|token| token.id.clone()));
        }
    }

    /// Forgets tokens that ended, so that a year of logins does not pile up.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        self.by_id.retain(|_, token| token.expires.is_none_or(|end| end > now));
    }

    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }
}

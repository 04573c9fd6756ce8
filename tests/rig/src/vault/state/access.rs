//! Who may do what: the caller's token, its policies, and where policies are kept.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::answer::{Call, Operation, Refusal, Reply};
use super::super::aws::ec2::Ec2Result;
use super::super::field::{Field, Form, Kind, field};
use super::super::mounts::Backend;
use super::super::policy;
use super::super::token::{Token, invalid_token};
use super::State;

const POLICY: &[Field] = &[field("policy", Kind::Text), field("name", Kind::Text)];

impl State {
    /// Whose token it is, and whether its policies allow the operation.
    pub(super) fn authorize(
        &mut self,
        now: Timestamp,
        call: &Call,
        operation: Operation,
        evidence: Option<&Ec2Result>,
    ) -> Result<Token, Refusal> {
        let denied = || Refusal::new(403, "permission denied");
        let id = call.token.as_deref().filter(|id| !id.is_empty()).ok_or_else(denied)?;
        // The second time round the use is counted already.
        let caller = if evidence.is_some() {
            self.tokens.live(id, now).cloned().ok_or_else(invalid_token)?
        } else {
            self.tokens.use_once(id, call.from, now)?
        };
        if caller.is_root() || self.allows(&caller, call, operation) {
            return Ok(caller);
        }
        Err(Refusal::fault(403, "permission denied"))
    }

    fn allows(&mut self, caller: &Token, call: &Call, operation: Operation) -> bool {
        // Only a key-value store tells creating from updating here; elsewhere a write updates.
        let creates = self.mounts.route(&call.path).is_some_and(
            |(_, mount, rest)| matches!(&mount.backend, Backend::Kv(kv) if !kv.exists(rest)),
        );
        let capability = match operation {
            Operation::Read => "read",
            Operation::List => "list",
            Operation::Delete => "delete",
            Operation::Write if creates => "create",
            Operation::Write => "update",
        };
        let text = |name: &String| match name.as_str() {
            "default" => Some(policy::DEFAULT.to_owned()),
            name => self.policies.get(name).cloned(),
        };
        let texts = caller.policies.iter().filter_map(text);
        let rules: Vec<policy::Rule> =
            texts.flat_map(|text| policy::parse(&text).unwrap_or_default()).collect();
        policy::allows(&rules, &call.path, capability)
    }

    pub(super) fn policy(
        &mut self,
        name: &str,
        operation: Operation,
        body: &Map<String, Value>,
    ) -> Result<Reply, Refusal> {
        match operation {
            Operation::Write => {
                let (form, warnings) = Form::parse(POLICY, body)?;
                policy::parse(form.text("policy")).map_err(Refusal::bad)?;
                self.policies.insert(name.to_owned(), form.text("policy").to_owned());
                Ok(Reply::written(warnings))
            }
            Operation::Delete => {
                self.policies.remove(name);
                Ok(Reply::NoContent)
            }
            _ if name.is_empty() => {
                let own = ["default".to_owned(), "root".to_owned()];
                Ok(Reply::Keys(own.into_iter().chain(self.policies.keys().cloned()).collect()))
            }
            _ => Ok(self.policies.get(name).map_or(Reply::Absent, |policy| {
                Reply::data(json!({ "name": name, "policy": policy }))
            })),
        }
    }
}

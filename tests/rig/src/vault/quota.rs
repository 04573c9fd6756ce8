//! Rate quotas: 429 for a client that asks too often. They are counted before anything else of a
//! request, so a refused request never ran.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Operation, Refusal, Reply};
use super::field::{Field, Form, Kind, field, with_default};
use super::lease::after;

/// All quotas and how they show themselves.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    rules: BTreeMap<String, Rule>,
    config: Option<Form>,
}

#[derive(Debug)]
struct Rule {
    path: String,
    rate: u64,
    interval: i64,
    block: i64,
    clients: BTreeMap<IpAddr, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    ends: Timestamp,
    used: u64,
    blocked_until: Option<Timestamp>,
}

const RULE: &[Field] = &[
    field("name", Kind::Text),
    field("path", Kind::Text),
    field("rate", Kind::Number),
    with_default("interval", Kind::Seconds, "1s"),
    field("block_interval", Kind::Seconds),
    field("role", Kind::Text),
    field("inheritable", Kind::Flag),
    field("type", Kind::Text),
];
const CONFIG: &[Field] = &[
    field("enable_rate_limit_response_headers", Kind::Flag),
    field("enable_rate_limit_audit_logging", Kind::Flag),
    field("rate_limit_exempt_paths", Kind::List),
    field("absolute_rate_limit_exempt_paths", Kind::List),
];

/// Paths that no quota counts: a locked-out operator must still see and unseal the server.
const EXEMPT: [&str; 4] = ["sys/health", "sys/seal-status", "sys/unseal", "sys/init"];

impl Quotas {
    /// `sys/quotas/…`.
    pub(super) fn handle(
        &mut self,
        path: &str,
        operation: Operation,
        body: &Map<String, Value>,
    ) -> Result<Reply, Refusal> {
        if path == "config" {
            if operation == Operation::Write {
                let (form, warnings) = Form::parse(CONFIG, body)?;
                self.config = Some(form);
                return Ok(Reply::written(warnings));
            }
            let shown = self.config.as_ref().map(Form::shown).unwrap_or_default();
            return Ok(Reply::data(Value::Object(shown)));
        }
        if path.starts_with("lease-count/") {
            return Err(Refusal::new(404, "enterprise-only feature"));
        }
        let name = path.strip_prefix("rate-limit/").ok_or_else(Refusal::unsupported_path)?;
        match operation {
            Operation::Write => {
                let (form, warnings) = Form::parse(RULE, body)?;
                if form.number("rate") <= 0 {
                    return Err(Refusal::bad("'rate' is invalid"));
                }
                self.rules.insert(name.to_owned(), Rule::new(&form));
                Ok(Reply::written(warnings))
            }
            Operation::Delete => {
                self.rules.remove(name);
                Ok(Reply::NoContent)
            }
            _ => Ok(self.rules.get(name).map_or(Reply::Absent, |rule| {
                Reply::data(json!({
                    "type": "rate-limit", "name": name, "group_by": "ip", "path": rule.path,
                    "role": "", "rate": rule.rate, "secondary_rate": 0, "inheritable": false,
                    "interval": rule.interval, "block_interval": rule.block,
                }))
            })),
        }
    }

    /// Counts a request: the answer that refuses it, or the headers for the answer it will get.
    pub(super) fn count(
        &mut self,
        path: &str,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Vec<(String, String)>, Box<Answer>> {
        if EXEMPT.contains(&path) {
            return Ok(Vec::new());
        }
        let narrowest = self
            .rules
            .values_mut()
            .filter(|rule| path.starts_with(rule.path.as_str()))
            .max_by_key(|rule| rule.path.len());
        let Some(rule) = narrowest else {
            return Ok(Vec::new());
        };
        let (allowed, headers) = rule.take(from, now);
        let told = |config: &Form| config.flag("enable_rate_limit_response_headers");
        let headers = if self.config.as_ref().is_some_and(told) { headers } else { Vec::new() };
        if allowed {
            return Ok(headers);
        }
        let text = format!("request path {path:?}: rate limit quota exceeded");
        let mut answer = Answer::errors(429, &[&text]);
        answer.headers.extend(headers);
        Err(Box::new(answer))
    }
}

impl Rule {
    fn new(form: &Form) -> Rule {
        Rule {
            path: form.text("path").to_owned(),
            rate: u64::try_from(form.number("rate")).unwrap_or(1),
            interval: form.number("interval").max(1),
            block: form.number("block_interval"),
            clients: BTreeMap::new(),
        }
    }

    fn take(&mut self, from: IpAddr, now: Timestamp) -> (bool, Vec<(String, String)>) {
        let interval = self.interval;
        let fresh = Bucket { ends: after(now, interval), used: 0, blocked_until: None };
        let bucket = self.clients.entry(from).or_insert(fresh);
        if let Some(until) = bucket.blocked_until {
            if now < until {
                let left = until.duration_since(now).as_secs().max(1);
                return (false, vec![("Retry-After".into(), left.to_string())]);
            }
            *bucket = fresh;
        }
        if now >= bucket.ends {
            *bucket = fresh;
        }
        let allowed = bucket.used < self.rate;
        if allowed {
            bucket.used += 1;
        } else if self.block > 0 {
            bucket.blocked_until = Some(after(now, self.block));
        }
        let left = bucket.ends.duration_since(now).as_secs().max(1);
        let mut headers = vec![
            ("X-Ratelimit-Limit".into(), self.rate.to_string()),
            ("X-Ratelimit-Remaining".into(), (self.rate - bucket.used).to_string()),
            ("X-Ratelimit-Reset".into(), left.to_string()),
        ];
        if !allowed {
            let wait = if self.block > 0 { self.block } else { left };
            headers.push(("Retry-After".into(), wait.to_string()));
        }
        (allowed, headers)
    }
}

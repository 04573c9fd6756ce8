//! What is mounted where: `sys/auth`, `sys/mounts` and their tuning.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::answer::{Operation, Refusal, Reply};
use super::aws::Aws;
use super::field::{Field, Form, Kind, field};
use super::ids;
use super::kv::Kv;
use super::lease::SYSTEM_TTL;
use super::pki::Pki;

/// A mounted backend with its tuning.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) kind: String,
    pub(super) accessor: String,
    description: String,
    options: Value,
    default_ttl: i64,
    max_ttl: i64,
    pub(super) backend: Backend,
}

#[derive(Debug)]
pub(super) enum Backend {
    /// `sys`, `auth/token`, `identity`, `cubbyhole`: answered by the core itself.
    Core,
    Aws(Box<Aws>),
    Pki(Box<Pki>),
    Kv(Kv),
}

/// Everything that is mounted, by path with a trailing slash; auth methods below `auth/`.
#[derive(Debug)]
pub(super) struct Mounts {
    by_path: BTreeMap<String, Mount>,
}

const ENABLE: &[Field] = &[
    field("type", Kind::Text),
    field("description", Kind::Text),
    field("config", Kind::Pairs),
    field("options", Kind::Pairs),
    field("local", Kind::Flag),
    field("seal_wrap", Kind::Flag),
];
const TUNE: &[Field] = &[
    field("default_lease_ttl", Kind::Seconds),
    field("max_lease_ttl", Kind::Seconds),
    field("description", Kind::Text),
    field("token_type", Kind::Text),
    field("listing_visibility", Kind::Text),
    field("passthrough_request_headers", Kind::List),
    field("allowed_response_headers", Kind::List),
];

impl Default for Mounts {
    fn default() -> Mounts {
        let core = [
            ("auth/token/", "token"),
            ("cubbyhole/", "cubbyhole"),
            ("identity/", "identity"),
            ("sys/", "system"),
        ];
        let by_path = core.map(|(path, kind)| (path.to_owned(), Mount::new(kind, Backend::Core)));
        Mounts { by_path: BTreeMap::from(by_path) }
    }
}

impl Mount {
    fn new(kind: &str, backend: Backend) -> Mount {
        Mount {
            kind: kind.to_owned(),
            accessor: format!("{kind}_{}", ids::hex::<4>()),
            description: String::new(),
            options: Value::Null,
            default_ttl: 0,
            max_ttl: 0,
            backend,
        }
    }

    /// Default and maximum lease in seconds, the system's where the mount has none.
    pub(super) fn ttl(&self) -> (i64, i64) {
        let or_system = |ttl: i64| if ttl > 0 { ttl } else { SYSTEM_TTL };
        let max = or_system(self.max_ttl);
        (or_system(self.default_ttl).min(max), max)
    }

    fn shown(&self) -> Value {
        json!({
            "accessor": self.accessor,
            "config": { "default_lease_ttl": self.default_ttl, "max_lease_ttl": self.max_ttl },
            "description": self.description,
            "options": self.options,
            "type": self.kind,
        })
    }

    fn tune(&mut self, form: &Form) {
        if form.given("default_lease_ttl") {
            self.default_ttl = form.number("default_lease_ttl");
        }
        if form.given("max_lease_ttl") {
            self.max_ttl = form.number("max_lease_ttl");
        }
        if form.given("description") {
            self.description = form.text("description").to_owned();
        }
    }
}

impl Mounts {
    /// The mount that a path belongs to, and the rest of the path.
    pub(super) fn route<'a>(&mut self, path: &'a str) -> Option<(&str, &mut Mount, &'a str)> {
        let found = self.by_path.iter_mut().filter_map(|(prefix, mount)| {
            path.strip_prefix(prefix.as_str()).map(|rest| (prefix.as_str(), mount, rest))
        });
        found.max_by_key(|(prefix, _, _)| prefix.len())
    }

    pub(super) fn get_mut(&mut self, path: &str) -> Option<&mut Mount> {
        self.by_path.get_mut(path)
    }

    /// `sys/auth/…` where `area` is `auth/`, `sys/mounts/…` where it is empty.
    pub(super) fn handle(
        &mut self,
        area: &str,
        path: &str,
        operation: Operation,
        body: &Map<String, Value>,
    ) -> Result<Reply, Refusal> {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return match operation {
                Operation::Read => Ok(Reply::data(self.listing(area))),
                _ => Err(Refusal::unsupported_operation()),
            };
        }
        if let Some(name) = path.strip_suffix("/tune") {
            return self.tune(&format!("{area}{name}/"), operation, body);
        }
        let full = format!("{area}{path}/");
        match operation {
            Operation::Write => self.enable(area, &full, body),
            Operation::Delete => {
                self.by_path.remove(&full);
                Ok(Reply::NoContent)
            }
            Operation::Read => match self.by_path.get(&full) {
                Some(mount) => Ok(Reply::data(mount.shown())),
                None => Err(Refusal::bad(format!("No auth engine at {path}/"))),
            },
            Operation::List => Err(Refusal::unsupported_operation()),
        }
    }

    fn listing(&self, area: &str) -> Value {
        let shown = self.by_path.iter().filter_map(|(path, mount)| {
            let name = match area {
                "" if path.starts_with("auth/") => None,
                "" => Some(path.as_str()),
                area => path.strip_prefix(area),
            };
            name.map(|name| (name.to_owned(), mount.shown()))
        });
        Value::Object(shown.collect())
    }

    fn enable(
        &mut self,
        area: &str,
        full: &str,
        body: &Map<String, Value>,
    ) -> Result<Reply, Refusal> {
        let (form, warnings) = Form::parse(ENABLE, body)?;
        let kind = form.text("type");
        let backend = match (area, kind) {
            ("auth/", "aws") => Backend::Aws(Box::default()),
            ("", "pki") => Backend::Pki(Box::default()),
            ("", "kv" | "kv-v2") => Backend::Kv(Kv::default()),
            ("auth/", kind) => {
                return Err(Refusal::bad(format!("plugin not found in the catalog: {kind}")));
            }
            (_, kind) => {
                return Err(Refusal::bad(format!("plugin not found in the catalog: {kind}")));
            }
        };
        if self.by_path.contains_key(full) {
            let existing = full.strip_prefix("auth/").unwrap_or(full);
            return Err(Refusal::bad(format!("path is already in use at {existing}")));
        }
        let mut mount = Mount::new(kind, backend);
        mount.description = form.text("description").to_owned();
        mount.options = form.shown().get("options").cloned().unwrap_or_default();
        if let Some(config) = form.shown().get("config").and_then(Value::as_object) {
            let (config, _) = Form::parse(TUNE, config)?;
            mount.tune(&config);
        }
        self.by_path.insert(full.to_owned(), mount);
        Ok(Reply::written(warnings))
    }

    fn tune(
        &mut self,
        full: &str,
        operation: Operation,
        body: &Map<String, Value>,
    ) -> Result<Reply, Refusal> {
        let mount = self.by_path.get_mut(full).ok_or_else(|| {
            Refusal::bad(format!("sysview: no mount entry found for path {full:?}"))
        })?;
        if operation == Operation::Write {
            let (form, warnings) = Form::parse(TUNE, body)?;
            mount.tune(&form);
            return Ok(Reply::written(warnings));
        }
        let (default_ttl, max_ttl) = mount.ttl();
        let data = json!({
            "default_lease_ttl": default_ttl,
            "max_lease_ttl": max_ttl,
            "description": mount.description,
        });
        Ok(Reply::data(data))
    }
}

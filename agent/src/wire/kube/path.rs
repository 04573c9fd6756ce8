//! Addresses within the API. A name comes from files that people write, and must not lead
//! anywhere else: an empty one would turn the deletion of an object into that of all its kind.

use std::fmt;

use serde_json::Value;

use super::answer::Known;
use crate::error::{Code, Error, Result};

/// What an address holds where a name can be nobody's: the API allows `%` in none.
const NOBODY: &str = "%25";

/// A kind as the API serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    base: String,
    plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// A kind that the version at `base` serves.
    pub(super) fn of(base: String, known: Known) -> Resource {
        Resource { base, plural: known.name, namespaced: known.namespaced }
    }

    /// The address of an object. A namespace that the kind does not have is left out, and one that
    /// is missing is `default`.
    pub fn path(&self, namespace: Option<&str>, name: &str) -> String {
        let namespace = namespace.filter(|name| !name.is_empty()).unwrap_or("default");
        format!("{}/{}", self.list_path(Some(namespace)), segment(name))
    }

    /// The address of all objects, or of those in one namespace.
    pub fn list_path(&self, namespace: Option<&str>) -> String {
        let Resource { base, plural, .. } = self;
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{base}/namespaces/{}/{plural}", segment(namespace)),
            None => format!("{base}/{plural}"),
        }
    }
}

/// What an object says of itself.
pub(super) struct Identity<'a> {
    pub(super) api_version: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

impl fmt::Display for Identity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// Which object it is, if it says so.
pub(super) fn identify(object: &Value) -> Result<Identity<'_>> {
    let text = |pointer: &str| {
        let found = object.pointer(pointer).and_then(Value::as_str);
        found.filter(|text| !text.is_empty()).ok_or_else(|| {
            let field = pointer[1..].replace('/', ".");
            Error::new(Code::ApiserverRefused, format!("the object has no {field}"))
        })
    };
    Ok(Identity {
        api_version: text("/apiVersion")?,
        kind: text("/kind")?,
        namespace: text("/metadata/namespace").ok(),
        name: text("/metadata/name")?,
    })
}

/// Where a version's kinds are listed: `v1` is older than groups and lies apart.
pub(super) fn of_version(api_version: &str) -> String {
    match api_version.split_once('/') {
        Some((group, version)) => format!("/apis/{}/{}", segment(group), segment(version)),
        None => format!("/api/{}", segment(api_version)),
    }
}

/// A text as one part of a path, and never as more or less than one.
fn segment(text: &str) -> String {
    if matches!(text, "" | "." | "..") {
        return NOBODY.to_owned();
    }
    let mut coded = String::with_capacity(text.len());
    for byte in text.bytes() {
        // The names of roles have colons, which need no coding in a path.
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            coded.push(char::from(byte));
        } else {
            coded.push_str(&format!("%{byte:02X}"));
        }
    }
    coded
}

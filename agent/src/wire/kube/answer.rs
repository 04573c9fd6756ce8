//! Reading the API's answers, and what its refusals mean. The status decides, after it is sure
//! that the API itself has answered: every refusal of the API is a `Status` object, but for the
//! 404 of a path that it does not know.

use std::time::Duration;

use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::{Applied, Probe, place};
use crate::error::{Code, Error, Result};

/// Enough of a text for a status screen; a validation error can be a page.
const LONGEST: usize = 400;

/// A refusal in the API's own words.
#[derive(Deserialize)]
struct Status {
    kind: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default, rename = "retryAfterSeconds")]
    retry_after: u64,
}

/// What a health endpoint said.
pub(super) fn probe(reply: &Response<Vec<u8>>) -> Probe {
    if reply.status() == StatusCode::OK {
        return Probe::Ok;
    }
    let whole = String::from_utf8_lossy(reply.body());
    let failing: Vec<&str> = whole.lines().filter(|line| line.starts_with("[-]")).collect();
    let text = match (status(reply), failing.is_empty()) {
        (Some(status), _) => line(&status.message),
        (None, true) => line(&whole),
        (None, false) => line(&failing.join(", ")),
    };
    Probe::Failing { status: reply.status().as_u16(), text }
}

/// Whether the API says that there is no such object, kind or path.
pub(super) fn is_not_found(reply: &Response<Vec<u8>>) -> bool {
    let unknown_path = reply.body().starts_with(b"404 page not found");
    reply.status() == StatusCode::NOT_FOUND && (unknown_path || status(reply).is_some())
}

/// The object of a success, or what the refusal means.
pub(super) fn object(reply: &Response<Vec<u8>>) -> Result<Value> {
    if !reply.status().is_success() {
        return Err(refusal(reply));
    }
    let object: Option<Value> = serde_json::from_slice(reply.body()).ok();
    let object = object.filter(|object| object["kind"].is_string());
    object.ok_or_else(|| not_the_api(reply))
}

/// A part of a list.
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    /// What to ask for the next part with; empty at the end.
    pub(super) rest: String,
}

pub(super) fn page(mut list: Value) -> Result<Page> {
    let rest = list.pointer("/metadata/continue").and_then(Value::as_str);
    let rest = rest.unwrap_or_default().to_owned();
    match list.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(Page { items, rest }),
        // An empty list may come as `null`.
        Some(Value::Null) => Ok(Page { items: Vec::new(), rest }),
        _ => Err(strange("an answer that is no list".into())),
    }
}

/// A kind as discovery tells it.
#[derive(Deserialize)]
pub(super) struct Known {
    pub(super) name: String,
    kind: String,
    pub(super) namespaced: bool,
}

impl Known {
    /// Whether it is this kind itself; `pods/status` is of kind Pod too.
    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind == kind && !self.name.contains('/')
    }
}

pub(super) fn resources(list: Value) -> Result<Vec<Known>> {
    #[derive(Deserialize)]
    struct List {
        resources: Vec<Known>,
    }
    let list: List = serde_json::from_value(list)
        .map_err(|_| strange("an answer that is no list of resources".into()))?;
    Ok(list.resources)
}

/// What an apply has done, by what was there before.
pub(super) fn applied(status: StatusCode, before: Option<Value>, after: Value) -> Applied {
    if status == StatusCode::CREATED {
        return Applied::Created;
    }
    match before.map(wanted) {
        Some(before) if before == wanted(after) => Applied::Unchanged,
        _ => Applied::Changed,
    }
}

/// An object without what others write into it all the time: a controller that reports the state
/// between our two looks has not changed what is wanted.
fn wanted(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
    }
    object
}

/// Whether a deletion deletes; not where the object is gone or another has its name.
pub(super) fn deleted(reply: &Response<Vec<u8>>) -> Result<bool> {
    if is_not_found(reply) {
        return Ok(false);
    }
    let conflict = status(reply).filter(|_| reply.status() == StatusCode::CONFLICT);
    if let Some(conflict) = conflict {
        let of_another = ["UID in the precondition", "UID in precondition"];
        if of_another.iter().any(|words| conflict.message.contains(words)) {
            return Ok(false);
        }
        // A namespace that is being deleted says so in this way.
        if conflict.message.contains("ensuring all content is removed") {
            return Ok(true);
        }
    }
    object(reply).map(|_| true)
}

/// What a refusal means.
fn refusal(reply: &Response<Vec<u8>>) -> Error {
    let Some(said) = status(reply).filter(|_| !reply.status().is_redirection()) else {
        return not_the_api(reply);
    };
    // A field that the schema does not have, or a text for a number: the API says 500.
    let misfit = said.message.starts_with("failed to create typed patch object");
    let code = match reply.status().as_u16() {
        _ if misfit => Code::ApiserverRefused,
        401 | 403 => Code::ApiserverDenied,
        // 408: it ran out of time; 410: a list changed while it was read.
        408 | 410 | 429 | 500.. => Code::ApiserverFailing,
        _ => Code::ApiserverRefused,
    };
    let status = reply.status().as_u16();
    let asked = said.details.map(|details| details.retry_after).filter(|seconds| *seconds > 0);
    let wait = retry_after(reply).or(asked.map(Duration::from_secs));
    Error::new(code, format!("{status} {}", line(&said.message))).retry_after(wait)
}

/// An answer of something before the API, or of an API that is starting.
fn not_the_api(reply: &Response<Vec<u8>>) -> Error {
    let status = reply.status().as_u16();
    let header = |name| reply.headers().get(name).and_then(|value| value.to_str().ok());
    let text = match (header(LOCATION), header(CONTENT_TYPE)) {
        (Some(location), _) if reply.status().is_redirection() => {
            let to = location.parse().map_or_else(|_| "?".into(), |uri| place(&uri));
            format!("{status} redirect to {to}")
        }
        _ if reply.body().starts_with(b"404 page not found") => "404 page not found".into(),
        (_, kind) => {
            let kind = line(kind.unwrap_or("no content type"));
            format!("{status} with {kind}, which is no answer of the Kubernetes API")
        }
    };
    strange(text).retry_after(retry_after(reply))
}

fn status(reply: &Response<Vec<u8>>) -> Option<Status> {
    let status: Option<Status> = serde_json::from_slice(reply.body()).ok();
    status.filter(|status| status.kind == "Status")
}

fn retry_after(reply: &Response<Vec<u8>>) -> Option<Duration> {
    let text = reply.headers().get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

pub(super) fn strange(text: String) -> Error {
    Error::new(Code::ApiserverFailing, text)
}

/// A text of the other side in one line.
fn line(text: &str) -> String {
    let text = text.replace(|letter: char| letter.is_control(), " ");
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST).collect()
}

//! What goes in and what comes out of the model of Vault: a call as the router sees it, and the
//! reply in Vault's envelope. Refusals keep Vault's status and text, because the agent has to
//! sort answers by both.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// One request, with the `/v1/` already cut off its path.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// GET, POST, PUT, DELETE, LIST.
    pub(super) method: String,
    /// Path below `/v1/`.
    pub(super) path: String,
    /// Query string without the question mark.
    pub(super) query: String,
    /// The token of `X-Vault-Token` or of a bearer header.
    pub(super) token: Option<String>,
    /// The body as received.
    pub(super) body: Vec<u8>,
    /// The peer, for bound CIDRs and rate quotas.
    pub(super) from: IpAddr,
}

/// The operation that a method asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    List,
    Write,
    Delete,
}

impl Call {
    /// The operation, or nothing for a method that Vault does not know.
    pub(super) fn operation(&self) -> Option<Operation> {
        match self.method.as_str() {
            "GET" if self.query.split('&').any(|pair| pair == "list=true") => Some(Operation::List),
            "GET" | "HEAD" => Some(Operation::Read),
            "LIST" => Some(Operation::List),
            "POST" | "PUT" | "PATCH" => Some(Operation::Write),
            "DELETE" => Some(Operation::Delete),
            _ => None,
        }
    }

    /// The body as a JSON object; an empty body is an empty object.
    pub(super) fn form(&self) -> Result<Map<String, Value>, Refusal> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        if let Some(open) = unclosed(&self.body) {
            return Err(Refusal::new(500, format!("malformed JSON, unclosed {open}")));
        }
        let refused = |why: String| {
            Refusal::bad(format!("error parsing JSON: failed to parse JSON input: {why}"))
        };
        let kind = match serde_json::from_slice::<Value>(&self.body) {
            Ok(Value::Object(map)) => return check_lengths(map),
            Ok(Value::Array(_)) => "array",
            Ok(Value::String(_)) => "string",
            Ok(_) => "number",
            Err(_) => return Err(refused(invalid_character(&self.body))),
        };
        let into = "Go value of type map[string]interface {}";
        Err(refused(format!("json: cannot unmarshal {kind} into {into}")))
    }
}

/// What a body that was cut off left open, if it began as JSON.
fn unclosed(body: &[u8]) -> Option<&'static str> {
    let (mut depth, mut in_string, mut escaped) = (0_i64, false, false);
    for byte in body {
        match (in_string, escaped, byte) {
            (true, true, _) => escaped = false,
            (true, false, b'\\') => escaped = true,
            (_, _, b'"') => in_string = !in_string,
            (false, _, b'{' | b'[') => depth += 1,
            (false, _, b'}' | b']') => depth -= 1,
            _ => {}
        }
    }
    if in_string {
        return Some("string");
    }
    (depth > 0).then_some("containers")
}

/// Vault's JSON limit: no string value above 1 MiB.
const STRING_LIMIT: usize = 1 << 20;

fn check_lengths(map: Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    let too_long = |value: &Value| value.as_str().is_some_and(|text| text.len() > STRING_LIMIT);
    if map.values().any(too_long) {
        return Err(Refusal::new(500, "JSON string value exceeds allowed length"));
    }
    Ok(map)
}

fn invalid_character(body: &[u8]) -> String {
    let first = body.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    let shown = char::from(first.unwrap_or(b' '));
    format!("invalid character '{shown}' looking for beginning of value")
}

/// The reply on its way to the wire.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// HTTP status.
    pub(super) status: u16,
    /// Headers beyond the content type.
    pub(super) headers: Vec<(String, String)>,
    /// Content type, empty where there is no body.
    pub(super) content_type: String,
    /// The body.
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// A JSON body under a status.
    pub(super) fn json(status: u16, body: &Value) -> Answer {
        let mut bytes = body.to_string().into_bytes();
        bytes.push(b'\n');
        Answer {
            status,
            headers: vec![("Cache-Control".into(), "no-store".into())],
            content_type: "application/json".into(),
            body: bytes,
        }
    }

    /// A status without a body.
    pub(super) fn empty(status: u16) -> Answer {
        let headers = vec![("Cache-Control".into(), "no-store".into())];
        Answer {
            status,
            headers,
            // Vault says this of an empty body too.
            content_type: "application/json".into(),
            body: Vec::new(),
        }
    }

    pub(super) fn errors(status: u16, errors: &[&str]) -> Answer {
        Answer::json(status, &json!({ "errors": errors }))
    }
}

/// A reply of one of the backends, before it is put into the envelope.
#[derive(Debug)]
pub(super) enum Reply {
    Data(Value, Vec<String>),
    /// A list of keys; an empty one is a 404 as in Vault.
    Keys(Vec<String>),
    Auth(Value, Vec<String>),
    Raw(u16, &'static str, Vec<u8>),
    NoContent,
    /// Nothing is stored there.
    Absent,
}

impl Reply {
    pub(super) fn data(data: Value) -> Reply {
        Reply::Data(data, Vec::new())
    }

    /// A write that says nothing unless there is something to warn of.
    pub(super) fn written(warnings: Vec<String>) -> Reply {
        if warnings.is_empty() { Reply::NoContent } else { Reply::Data(Value::Null, warnings) }
    }

    pub(super) fn into_answer(self, mount_type: &str) -> Answer {
        match self {
            Reply::Data(data, warnings) => envelope(data, Value::Null, &warnings, mount_type),
            Reply::Auth(auth, warnings) => envelope(Value::Null, auth, &warnings, mount_type),
            Reply::Keys(keys) if keys.is_empty() => Answer::errors(404, &[]),
            Reply::Keys(keys) => envelope(json!({ "keys": keys }), Value::Null, &[], mount_type),
            Reply::Raw(status, content_type, body) => Answer {
                status,
                headers: vec![("Cache-Control".into(), "no-store".into())],
                content_type: content_type.into(),
                body,
            },
            Reply::NoContent => Answer::empty(204),
            Reply::Absent => Answer::errors(404, &[]),
        }
    }
}

fn envelope(data: Value, auth: Value, warnings: &[String], mount_type: &str) -> Answer {
    let warnings = if warnings.is_empty() { Value::Null } else { json!(warnings) };
    let body = json!({
        "request_id": super::ids::uuid(),
        "lease_id": "",
        "renewable": false,
        "lease_duration": 0,
        "data": data,
        "wrap_info": null,
        "warnings": warnings,
        "auth": auth,
        "mount_type": mount_type,
    });
    Answer::json(200, &body)
}

/// A refusal: Vault's status and its words.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) text: String,
    /// A Go error rather than an error response: `1 error occurred:` is put around it on the way
    /// out of an authenticated request.
    pub(super) fault: bool,
}

impl Refusal {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into(), fault: false }
    }

    /// 400: the request is at fault.
    pub(super) fn bad(text: impl Into<String>) -> Refusal {
        Refusal::new(400, text)
    }

    /// A Go error inside a backend: 500 unless a status says otherwise.
    pub(super) fn fault(status: u16, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into(), fault: true }
    }

    pub(super) fn unsupported_operation() -> Refusal {
        Refusal::fault(405, "unsupported operation")
    }

    pub(super) fn unsupported_path() -> Refusal {
        Refusal::fault(404, "unsupported path")
    }

    /// On the way out of a request that needs no token.
    pub(super) fn into_answer(self) -> Answer {
        Answer::errors(self.status, &[&self.text])
    }

    /// On the way out of a request with a token: a Go error is put into a list of errors.
    pub(super) fn into_wrapped_answer(self) -> Answer {
        if self.fault {
            let text = format!("1 error occurred:\n\t* {}\n\n", self.text);
            return Answer::errors(self.status, &[&text]);
        }
        self.into_answer()
    }
}

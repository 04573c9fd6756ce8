//! What a peer answered in a case, with everything taken out that differs from run to run, so that
//! the answers of two peers can be compared: status, errors, warnings, and which values there are.

use rig::setup::Reply;
use serde_json::Value;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    call: String,
    status: u16,
    content_type: String,
    texts: Vec<String>,
    shape: Vec<String>,
}

impl Entry {
    pub(crate) fn new(method: &str, path: &str, reply: &Reply) -> Entry {
        let mut texts = Vec::new();
        for list in ["errors", "warnings"] {
            let items = reply.json[list].as_array().into_iter().flatten();
            texts.extend(items.filter_map(Value::as_str).map(normal));
        }
        let mut shape = Vec::new();
        if reply.status < 400 || reply.json["errors"].is_null() {
            collect(&mut shape, "", &reply.json, 0);
        }
        Entry {
            call: format!("{method} {}", normal(path)),
            status: reply.status,
            content_type: reply.headers.get("content-type").cloned().unwrap_or_default(),
            texts,
            shape,
        }
    }
}

/// The first difference, if there is one.
pub(crate) fn difference(model: &[Entry], real: &[Entry]) -> Option<String> {
    let pair = model.iter().zip(real).find(|(model, real)| model != real);
    if let Some((model, real)) = pair {
        let missing = without(&real.shape, &model.shape);
        let surplus = without(&model.shape, &real.shape);
        return Some(format!(
            "{}: {} {} {:?}, real {} {} {:?}; missing {missing:?}, surplus {surplus:?}",
            real.call,
            model.status,
            model.content_type,
            model.texts,
            real.status,
            real.content_type,
            real.texts
        ));
    }
    (model.len() != real.len())
        .then(|| format!("{} answers, the real Vault gave {}", model.len(), real.len()))
}

fn without<'a>(all: &'a [String], some: &[String]) -> Vec<&'a String> {
    all.iter().filter(|item| !some.contains(item)).collect()
}

/// How deep names are compared; below, the values are data of the case.
const DEPTH: usize = 3;

fn collect(shape: &mut Vec<String>, path: &str, value: &Value, depth: usize) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "flag",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    shape.push(format!("{path}:{kind}"));
    if let (Value::Object(map), true) = (value, depth < DEPTH) {
        for (name, value) in map {
            collect(shape, &format!("{path}/{}", normal(name)), value, depth + 1);
        }
    }
}

/// Replaces times, UUIDs, other hexadecimal names and ports by what they are.
pub(crate) fn normal(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for letter in text.chars() {
        if letter.is_ascii_alphanumeric() || "-:.".contains(letter) {
            word.push(letter);
        } else {
            out.push_str(&normal_word(&word));
            word.clear();
            out.push(letter);
        }
    }
    out.push_str(&normal_word(&word));
    out
}

fn normal_word(word: &str) -> String {
    let bytes = word.as_bytes();
    let digits = |from: usize, to: usize| {
        bytes.get(from..to).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    if bytes.len() > 18 && digits(0, 4) && digits(5, 7) && bytes.get(10) == Some(&b'T') {
        return "<time>".into();
    }
    let hex = |part: &str| part.chars().all(|letter| letter.is_ascii_hexdigit());
    if word.len() == 64 && hex(word) {
        return "<hash>".into();
    }
    if word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12]) {
        return "<uuid>".into();
    }
    if let Some(id) = word.strip_prefix("i-").filter(|id| id.len() == 17 && hex(id)) {
        return if id.is_empty() { word.into() } else { "<instance>".into() };
    }
    if word.split([':', '-']).count() > 15
        && word.split([':', '-']).all(|part| part.len() == 2 && hex(part))
    {
        return "<serial>".into();
    }
    if let Some((host, port)) = word.rsplit_once(':')
        && host.ends_with("127.0.0.1")
        && !port.is_empty()
    {
        return format!("{host}:<port>");
    }
    word.into()
}

//! Typed fields of a request, as Vault's own framework has them: each endpoint names its fields,
//! values are converted with the same leniency (durations as `24h`, `1d` or seconds, lists as
//! arrays or comma text), a wrong type is refused and an unknown field is a warning.

use serde_json::{Map, Value, json};

use super::answer::Refusal;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Flag,
    Number,
    Seconds,
    SignedSeconds,
    List,
    Pairs,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    name: &'static str,
    kind: Kind,
    default: &'static str,
}

/// A field whose default is the empty value of its kind.
pub(super) const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, default: "" }
}

/// A field with a default, written as a caller would write it.
pub(super) const fn with_default(name: &'static str, kind: Kind, default: &'static str) -> Field {
    Field { name, kind, default }
}

/// The fields of one request, converted; a field that was not given has its default.
#[derive(Debug, Clone, Default)]
pub(super) struct Form {
    values: Map<String, Value>,
    given: Vec<String>,
}

impl Form {
    /// Converts a body. The second part is the framework's warnings.
    pub(super) fn parse(
        fields: &[Field],
        body: &Map<String, Value>,
    ) -> Result<(Form, Vec<String>), Refusal> {
        let mut form = Form::default();
        for field in fields {
            let value = match body.get(field.name) {
                None | Some(Value::Null) => {
                    convert(field, &Value::String(field.default.into())).unwrap_or(Value::Null)
                }
                Some(raw) => {
                    form.given.push(field.name.into());
                    convert(field, raw).ok_or_else(|| refuse(field, raw))?
                }
            };
            form.values.insert(field.name.into(), value);
        }
        let known = |name: &String| fields.iter().any(|field| field.name == name);
        let mut unknown: Vec<&str> =
            body.keys().filter(|name| !known(name)).map(String::as_str).collect();
        unknown.sort_unstable();
        if unknown.is_empty() {
            return Ok((form, Vec::new()));
        }
        let names = unknown.join(" ");
        Ok((form, vec![format!("Endpoint ignored these unrecognized parameters: [{names}]")]))
    }

    /// Whether the caller named the field.
    pub(super) fn given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given == name)
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.values.get(name).and_then(Value::as_str).unwrap_or("")
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.values.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn number(&self, name: &str) -> i64 {
        self.values.get(name).and_then(Value::as_i64).unwrap_or(0)
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let items = self.values.get(name).and_then(Value::as_array);
        let texts = items.into_iter().flatten().filter_map(Value::as_str);
        texts.map(String::from).collect()
    }

    /// Everything, as a read of the stored object shows it.
    pub(super) fn shown(&self) -> Map<String, Value> {
        self.values.clone()
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.values.insert(name.into(), value);
    }

    /// Takes over what the other names and keeps the rest: a partial update.
    pub(super) fn update(&mut self, newer: &Form) {
        for name in &newer.given {
            if let Some(value) = newer.values.get(name) {
                self.values.insert(name.clone(), value.clone());
            }
        }
    }
}

fn refuse(field: &Field, raw: &Value) -> Refusal {
    let shown = raw.as_str().map_or_else(|| raw.to_string(), String::from);
    let name = field.name;
    Refusal::bad(match field.kind {
        Kind::Seconds if shown.starts_with('-') => format!(
            "Field validation failed: error converting input for field {name:?}: \
             cannot provide negative value '{shown}'"
        ),
        Kind::Seconds | Kind::SignedSeconds => format!(
            "Field validation failed: error converting input for field {name:?}: \
             time: invalid duration {shown:?}"
        ),
        _ => format!(
            "Field validation failed: error converting input {raw} for field {name:?}: \
             expected a different type"
        ),
    })
}

fn convert(field: &Field, raw: &Value) -> Option<Value> {
    match field.kind {
        Kind::Text => match raw {
            Value::String(text) => Some(json!(text)),
            Value::Number(number) => Some(json!(number.to_string())),
            Value::Bool(flag) => Some(json!(flag.to_string())),
            _ => None,
        },
        Kind::Flag => match raw {
            Value::Bool(flag) => Some(json!(flag)),
            Value::String(text) => match text.as_str() {
                "true" | "1" => Some(json!(true)),
                "false" | "0" | "" => Some(json!(false)),
                _ => None,
            },
            _ => None,
        },
        Kind::Number => match raw {
            Value::Number(number) => number.as_i64().map(|number| json!(number)),
            Value::String(text) if text.is_empty() => Some(json!(0)),
            Value::String(text) => text.parse::<i64>().ok().map(|number| json!(number)),
            _ => None,
        },
        Kind::Seconds => seconds_of(raw).filter(|seconds| *seconds >= 0).map(|s| json!(s)),
        Kind::SignedSeconds => seconds_of(raw).map(|seconds| json!(seconds)),
        Kind::List => list_of(raw),
        Kind::Pairs => match raw {
            Value::Object(_) => Some(raw.clone()),
            Value::String(text) if text.is_empty() => Some(json!({})),
            _ => None,
        },
    }
}

fn list_of(raw: &Value) -> Option<Value> {
    let items: Vec<String> = match raw {
        Value::Array(items) => items.iter().map(|item| item.as_str().map(String::from)).collect(),
        Value::String(text) if text.is_empty() => Some(Vec::new()),
        Value::String(text) => Some(text.split(',').map(String::from).collect()),
        _ => None,
    }?;
    let trimmed = items.iter().map(|item| item.trim()).filter(|item| !item.is_empty());
    Some(json!(trimmed.collect::<Vec<_>>()))
}

fn seconds_of(raw: &Value) -> Option<i64> {
    match raw {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => parse_seconds(text),
        _ => None,
    }
}

/// A duration as Vault takes it: bare seconds, `1d`, or Go's `1h30m`. Less than a second is 0.
pub(super) fn parse_seconds(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(seconds);
    }
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let mut millis = 0_i64;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..]
            .find(|letter: char| letter.is_ascii_digit())
            .map_or(rest.len(), |end| digits + end);
        let factor = match &rest[digits..unit_end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        millis += number.checked_mul(factor)?;
        rest = &rest[unit_end..];
    }
    Some(sign * millis / 1_000)
}

/// A duration as Vault's warnings print it: `1h`, `1m30s`, `36h5s`.
pub(super) fn print_seconds(seconds: i64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    for (number, unit) in [(hours, 'h'), (minutes, 'm'), (rest, 's')] {
        if number != 0 {
            text.push_str(&format!("{number}{unit}"));
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

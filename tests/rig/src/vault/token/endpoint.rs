//! `auth/token/*`: create, lookup, renew and revoke.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::answer::{Operation, Refusal, Reply};
use super::super::field::{Field, Form, Kind, field, with_default};
use super::super::ids;
use super::super::lease::{SYSTEM_TTL, Terms, grant};
use super::{Token, Tokens, invalid_token};

const CREATE: &[Field] = &[
    field("id", Kind::Text),
    field("policies", Kind::List),
    field("meta", Kind::Pairs),
    field("ttl", Kind::Seconds),
    field("explicit_max_ttl", Kind::Seconds),
    field("period", Kind::Seconds),
    field("num_uses", Kind::Number),
    field("display_name", Kind::Text),
    with_default("renewable", Kind::Flag, "true"),
    field("no_parent", Kind::Flag),
    field("no_default_policy", Kind::Flag),
    with_default("type", Kind::Text, "service"),
];

const RENEW: &[Field] = &[field("token", Kind::Text), field("increment", Kind::SignedSeconds)];
const NAMED: &[Field] = &[field("token", Kind::Text)];
const ACCESSOR: &[Field] = &[field("accessor", Kind::Text)];

/// A renewal that the router has to finish, because the login backend has a say in it.
#[derive(Debug)]
pub(in super::super) struct Renewal {
    pub(in super::super) id: String,
    pub(in super::super) increment: i64,
    pub(in super::super) warnings: Vec<String>,
}

/// The outcome of an `auth/token` call.
#[derive(Debug)]
pub(in super::super) enum Outcome {
    Reply(Reply),
    Renew(Renewal),
}

/// One call below `auth/token/`.
pub(in super::super) struct Request<'a> {
    pub(in super::super) operation: Operation,
    pub(in super::super) path: &'a str,
    pub(in super::super) body: &'a Map<String, Value>,
    pub(in super::super) caller: &'a Token,
    pub(in super::super) now: Timestamp,
}

/// Answers one call.
pub(in super::super) fn handle(
    tokens: &mut Tokens,
    request: &Request<'_>,
) -> Result<Outcome, Refusal> {
    let reply = |reply| Ok(Outcome::Reply(reply));
    match (request.path, request.operation) {
        ("lookup-self", Operation::Read | Operation::Write) => {
            reply(Reply::data(fresh(tokens, request)?.lookup(request.now)))
        }
        ("lookup", Operation::Write) => {
            let (form, warnings) = Form::parse(NAMED, request.body)?;
            let found = tokens.live(form.text("token"), request.now);
            let token = found.ok_or_else(|| Refusal::new(403, "bad token"))?;
            reply(Reply::Data(token.lookup(request.now), warnings))
        }
        ("lookup-accessor", Operation::Write) => {
            let (form, warnings) = Form::parse(ACCESSOR, request.body)?;
            let token = accessed(tokens, &form, request.now)?;
            let mut data = token.lookup(request.now);
            data["id"] = json!("");
            reply(Reply::Data(data, warnings))
        }
        ("renew-self", Operation::Write) => renewal(request, &request.caller.id),
        ("renew", Operation::Write) => {
            let named = request.body.get("token").and_then(Value::as_str).unwrap_or("");
            renewal(request, named)
        }
        ("revoke-self", Operation::Write) => {
            refuse_batch(request.caller)?;
            tokens.revoke(&request.caller.id);
            reply(Reply::NoContent)
        }
        ("revoke", Operation::Write) => {
            let (form, _) = Form::parse(NAMED, request.body)?;
            if let Some(token) = tokens.live(form.text("token"), request.now) {
                refuse_batch(token)?;
            }
            tokens.revoke(form.text("token"));
            reply(Reply::NoContent)
        }
        ("revoke-accessor", Operation::Write) => {
            let (form, _) = Form::parse(ACCESSOR, request.body)?;
            let id = accessed(tokens, &form, request.now)?.id.clone();
            tokens.revoke(&id);
            reply(Reply::NoContent)
        }
        ("create" | "create-orphan", Operation::Write) => {
            create(tokens, request).map(Outcome::Reply)
        }
        (known, _) if KNOWN.contains(&known) => Err(Refusal::unsupported_operation()),
        _ => Err(Refusal::unsupported_path()),
    }
}

const KNOWN: [&str; 10] = [
    "lookup-self",
    "lookup",
    "lookup-accessor",
    "renew-self",
    "renew",
    "revoke-self",
    "revoke",
    "revoke-accessor",
    "create",
    "create-orphan",
];

fn fresh<'a>(tokens: &'a Tokens, request: &'a Request<'_>) -> Result<&'a Token, Refusal> {
    // The last use of a token still answers: it shows itself with -1 uses left.
    if request.caller.num_uses < 0 {
        return Ok(request.caller);
    }
    tokens.live(&request.caller.id, request.now).ok_or_else(invalid_token)
}

fn accessed<'a>(tokens: &'a Tokens, form: &Form, now: Timestamp) -> Result<&'a Token, Refusal> {
    let accessor = form.text("accessor");
    tokens.by_accessor(accessor, now).ok_or_else(|| Refusal::fault(400, "invalid accessor"))
}

fn refuse_batch(token: &Token) -> Result<(), Refusal> {
    if token.batch { Err(Refusal::bad("batch tokens cannot be revoked")) } else { Ok(()) }
}

fn renewal(request: &Request<'_>, id: &str) -> Result<Outcome, Refusal> {
    let (form, warnings) = Form::parse(RENEW, request.body)?;
    let increment = form.number("increment");
    Ok(Outcome::Renew(Renewal { id: id.to_owned(), increment, warnings }))
}

fn create(tokens: &mut Tokens, request: &Request<'_>) -> Result<Reply, Refusal> {
    let (form, mut warnings) = Form::parse(CREATE, request.body)?;
    let batch = form.text("type") == "batch";
    let mut token = Token::root(request.now);
    token.path = format!("auth/token/{}", request.path);
    token.policies = policies(&form, request.caller);
    token.orphan = form.flag("no_parent") || request.path == "create-orphan";
    token.parent = (!token.orphan).then(|| request.caller.id.clone());
    token.display_name = match form.text("display_name") {
        "" => "token".into(),
        name => format!("token-{name}"),
    };
    token.num_uses = form.number("num_uses");
    token.batch = batch;
    token.renewable = form.flag("renewable") && !batch;
    token.meta = texts(form.shown().get("meta"));
    match form.text("id") {
        "" if batch => token.id = format!("hvb.{}", ids::base62(92)),
        "" => {}
        id => token.id = id.to_owned(),
    }
    token.terms = Terms {
        ttl: form.number("ttl"),
        max_ttl: 0,
        period: form.number("period"),
        explicit_max_ttl: form.number("explicit_max_ttl"),
        mount_default: SYSTEM_TTL,
        mount_max: SYSTEM_TTL,
    };
    if token.is_root() && token.terms.ttl == 0 {
        let auth = token.auth(0);
        tokens.insert(token);
        return Ok(Reply::Auth(auth, warnings));
    }
    let (lease, cut) = grant(&token.terms, 0, request.now, request.now)?;
    warnings.extend(cut);
    token.creation_ttl = lease;
    token.terms.ttl = lease;
    token.grant(request.now, lease);
    let auth = token.auth(lease);
    tokens.insert(token);
    Ok(Reply::Auth(auth, warnings))
}

fn policies(form: &Form, caller: &Token) -> Vec<String> {
    let mut names = form.list("policies");
    if names.is_empty() {
        names.clone_from(&caller.policies);
    }
    let root = names.iter().any(|name| name == "root");
    if !root && !form.flag("no_default_policy") && !names.iter().any(|name| name == "default") {
        names.push("default".into());
    }
    names.sort();
    names.dedup();
    names
}

fn texts(pairs: Option<&Value>) -> std::collections::BTreeMap<String, String> {
    let pairs = pairs.and_then(Value::as_object).cloned().unwrap_or_default();
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    pairs.into_iter().map(|(key, value)| (key, text(value))).collect()
}

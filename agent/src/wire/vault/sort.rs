//! What Vault's refusals mean: one pure function over one table. The status alone cannot be
//! trusted (AWS throttling is a 400, a signature that does not verify a 500, a token that is
//! gone and a policy that forbids are both 403), so the texts of a real Vault 1.21 decide first,
//! and the status only where no text is known.

mod advice;
mod table;

use std::time::Duration;

use serde::Deserialize;

use self::table::{Rule, TABLE};
use crate::error::{Code, Error};
use crate::secret::Secret;

/// Which call was refused, and what its advice has to name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call<'a> {
    /// `auth/<mount>/login`.
    Login { mount: &'a str, role: &'a str, instance: &'a str },
    /// `auth/token/lookup-self`.
    Lookup,
    /// `auth/token/renew-self`.
    Renew,
    /// `auth/token/revoke-self`.
    Revoke,
    /// `<mount>/sign/<role>`.
    Sign { mount: &'a str, role: &'a str },
    /// A secret of `<mount>`, read.
    KvRead { mount: &'a str, path: &'a str },
    /// The same, made.
    KvCreate { mount: &'a str, path: &'a str },
    /// `sys/health`.
    Health,
}

/// An answer, as far as it matters.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) retry_after: Option<u64>,
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Call<'_> {
    /// The frame of every error of this call.
    pub(super) fn place(&self) -> String {
        format!("vault {}", self.path())
    }

    fn path(&self) -> String {
        match self {
            Call::Login { mount, .. } => format!("auth/{mount}/login"),
            Call::Lookup => "auth/token/lookup-self".into(),
            Call::Renew => "auth/token/renew-self".into(),
            Call::Revoke => "auth/token/revoke-self".into(),
            Call::Sign { mount, role } => format!("{mount}/sign/{role}"),
            Call::KvRead { mount, path } | Call::KvCreate { mount, path } => {
                format!("{mount}/data/{path}")
            }
            Call::Health => "sys/health".into(),
        }
    }
}

impl Reply {
    /// The same without a secret that it may quote: errors are shown and logged.
    pub(super) fn hiding(mut self, secret: Option<&Secret>) -> Reply {
        if let Some(secret) = secret.filter(|secret| !secret.expose().is_empty())
            && let Ok(body) = std::str::from_utf8(&self.body)
        {
            self.body = body.replace(secret.expose(), "***").into_bytes();
        }
        self
    }

    /// Whether it is a success that Vault gave: a login page with 200 is none.
    pub(super) fn is_success(&self) -> bool {
        match self.status {
            200 => self.is_json(),
            204 => self.body.is_empty(),
            _ => false,
        }
    }

    /// Whether it comes from Vault rather than from something before it.
    pub(super) fn is_vaults(&self) -> bool {
        #[derive(Deserialize)]
        struct Mark {
            errors: Option<Vec<String>>,
            request_id: Option<String>,
            initialized: Option<bool>,
        }
        let mark: Option<Mark> = serde_json::from_slice(&self.body).ok();
        self.is_json()
            && mark.is_some_and(|mark| {
                mark.errors.is_some() || mark.request_id.is_some() || mark.initialized.is_some()
            })
    }

    fn is_json(&self) -> bool {
        self.content_type.starts_with("application/json")
    }

    /// Vault's own words, if this is an error of Vault's.
    pub(super) fn errors(&self) -> Option<Vec<String>> {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<String>,
        }
        let body: Errors = serde_json::from_slice(&self.body).ok()?;
        self.is_json().then_some(body.errors)
    }
}

/// The error that an answer is.
pub(super) fn sort(call: &Call<'_>, reply: &Reply) -> Error {
    let wait = reply.retry_after.map(Duration::from_secs);
    let Some(errors) = reply.errors() else {
        return not_vaults(reply).retry_after(wait);
    };
    let said = fold(&errors);
    let text = match said.as_str() {
        "" => reply.status.to_string(),
        said => format!("{} {}", reply.status, shorten(said)),
    };
    let matches = |rule: &&Rule| {
        let Rule(on, status, text, _, _) = rule;
        on.matches(call) && [0, reply.status].contains(status) && said.contains(text)
    };
    let (code, advice) = match TABLE.iter().find(matches) {
        Some(Rule(_, _, _, code, advice)) => (*code, advice(call)),
        None => (Code::VaultFailing, None),
    };
    let error = Error::new(code, text).retry_after(wait);
    match advice {
        Some(advice) => error.advise(advice),
        None => error,
    }
}

/// Whether a compare-and-swap was refused because somebody else was first.
pub(super) fn was_late(reply: &Reply) -> bool {
    const WORDS: &str = "check-and-set parameter did not match the current version";
    let said = reply.errors().unwrap_or_default();
    reply.status == 400 && said.iter().any(|error| error.contains(WORDS))
}

/// An answer of something before Vault, or of Vault without words.
fn not_vaults(reply: &Reply) -> Error {
    let status = reply.status;
    if let Some(location) = &reply.location {
        // A redirect that was not followed: from plain HTTP, to it, or once too often.
        let to =
            location.parse().map_or_else(|_| "?".into(), |uri| super::super::http::place(&uri));
        return Error::new(Code::VaultFailing, format!("{status} redirect to {to}"))
            .advise("set the address to the one that Vault redirects to, with https");
    }
    let kind = match reply.content_type.split(';').next().unwrap_or_default() {
        "" => "no content type".to_owned(),
        kind => shorten(&clean(kind)),
    };
    let start = String::from_utf8_lossy(&reply.body);
    if status == 400 && start.contains("HTTP request to an HTTPS server") {
        return Error::new(Code::VaultFailing, "400 this port of Vault speaks TLS")
            .advise("write the address of Vault with https://");
    }
    let code = match status {
        429 => Code::VaultThrottled,
        _ => Code::VaultFailing,
    };
    Error::new(code, format!("{status} with {kind}, which is no answer of Vault"))
        .advise("look at what stands between the node and Vault: a proxy, a load balancer")
}

/// Vault's words in one line: `2 errors occurred:\n\t* a\n\t* b` becomes `a, b`.
fn fold(errors: &[String]) -> String {
    let mut parts = Vec::new();
    for error in errors {
        let items: Vec<&str> = error.split("\n\t* ").collect();
        let counted = items.len() > 1 && items[0].ends_with("occurred:");
        parts.extend(items.iter().skip(usize::from(counted)).map(|item| clean(item)));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// White space folded, control characters dropped, what looks like a token blackened.
fn clean(text: &str) -> String {
    let text = text.replace(|letter: char| letter.is_control() || letter.is_whitespace(), " ");
    let words = text.split(' ').filter(|word| !word.is_empty());
    let words: Vec<&str> = words.map(|word| if is_token(word) { "***" } else { word }).collect();
    words.join(" ")
}

/// Vault's tokens since 1.10 are `hvs.`, `hvb.` and `hvr.` with 24 letters or more.
fn is_token(word: &str) -> bool {
    ["hvs.", "hvb.", "hvr."].iter().any(|start| {
        let place = word.find(start);
        place.is_some_and(|place| word.len() - place > 24)
    })
}

/// Enough of a text for a status screen; an AWS error can be a page.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 300;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests;

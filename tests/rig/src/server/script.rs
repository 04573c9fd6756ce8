//! Faults of a server as data: which requests are hit, how often, and by what. Those that a
//! byte proxy cannot tell (a lie inside TLS) live here; those of the connection also in `proxy`.

use std::time::Duration;

use jiff::SignedDuration;

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The handler is asked only after this long.
    Delay(Duration),
    /// The handler is asked so late by the model's clock, which moves; no real time passes.
    Late(SignedDuration),
    /// The same, and whoever asked has given up by then: the answer is lost.
    TooLate(SignedDuration),
    /// Nothing is answered, the connection stays open.
    Hang,
    /// The connection is closed without an answer; the handler was not asked.
    Close,
    /// This answer instead of the handler's, which is not asked.
    Status {
        /// The status code.
        code: u16,
        /// The body.
        body: String,
        /// Headers beside the length and the date.
        headers: Vec<(String, String)>,
    },
    /// The handler did its work, and its answer is cut after so many bytes (head included).
    Cut {
        /// 0 loses the whole answer.
        after_bytes: usize,
    },
    /// Bytes that are no HTTP; the handler is not asked.
    Garbage,
    /// 200 with a login page, as captive proxies do; the handler is not asked.
    Html200,
    /// The handler's answer with a length 16 bytes too long, then the end.
    WrongLength,
}

impl Fault {
    /// A JSON error answer as Vault's: `{"errors": [text]}`.
    #[must_use]
    pub fn status(code: u16, text: &str) -> Self {
        let body = serde_json::json!({ "errors": [text] }).to_string();
        let headers = vec![("content-type".into(), "application/json".into())];
        Self::Status { code, body, headers }
    }
}

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Only this method, or any.
    pub method: Option<http::Method>,
    /// Only paths that start so; empty for any.
    pub path: String,
    /// This many matching requests pass unharmed first.
    pub skip: u32,
    /// So many are then hit, or all.
    pub times: Option<u32>,
    /// By what.
    pub fault: Fault,
}

impl Step {
    /// Every request whose path starts so is hit.
    #[must_use]
    pub fn on(path: &str, fault: Fault) -> Self {
        Self { method: None, path: path.into(), skip: 0, times: None, fault }
    }

    /// The same for one method only.
    #[must_use]
    pub fn method(mut self, method: http::Method) -> Self {
        self.method = Some(method);
        self
    }

    /// The same, so many times only.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// The same after so many matching requests.
    #[must_use]
    pub fn skip(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    fn matches(&self, method: &http::Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method) && path.starts_with(&self.path)
    }
}

/// The steps that are left.
#[derive(Debug, Default)]
pub(super) struct Script {
    steps: Vec<Step>,
}

impl Script {
    pub(super) fn new(steps: Vec<Step>) -> Self {
        Self { steps }
    }

    /// The fault for this request: the first step that matches and is neither skipped nor used up.
    pub(super) fn take(&mut self, method: &http::Method, path: &str) -> Option<Fault> {
        for step in self.steps.iter_mut().filter(|step| step.matches(method, path)) {
            if step.skip > 0 {
                step.skip -= 1;
                continue;
            }
            match &mut step.times {
                None => return Some(step.fault.clone()),
                Some(0) => {}
                Some(left) => {
                    *left -= 1;
                    return Some(step.fault.clone());
                }
            }
        }
        None
    }
}

//! What a handler gets and gives: a request with its body read, an answer with its headers.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

/// A request as a handler sees it, its body read to the end.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: http::Method,
    /// The path, without the query.
    pub path: String,
    /// The query, empty where there is none.
    pub query: String,
    /// The headers as they came.
    pub headers: http::HeaderMap,
    /// The body, at most [`BODY_LIMIT_BYTES`](super::BODY_LIMIT_BYTES).
    pub body: Bytes,
    /// Who connected.
    pub peer: SocketAddr,
}

impl Request {
    /// A header's text, where it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Bodies and header values may hold secrets, so neither is shown.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({} bytes, from {})", self.method, self.path, self.body.len(), self.peer)
    }
}

/// A handler's answer.
#[derive(Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers; `Content-Length` and `Date` are the server's.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The IP time to live of the packets that carry the answer: IMDS's hop limit. The system's
    /// default where it is `None`.
    pub ip_ttl: Option<u32>,
}

impl Response {
    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, value: serde_json::Value) -> Self {
        Self::typed(status, "application/json", value.to_string())
    }

    /// A plain text answer.
    #[must_use]
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::typed(status, "text/plain", text.into())
    }

    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), ip_ttl: None }
    }

    /// An answer of a content type.
    #[must_use]
    pub fn typed(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut answer = Self::empty(status).with_header("content-type", content_type);
        answer.body = body.into();
        answer
    }

    /// The same answer with one header more.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Bodies may hold secrets, so only their length is shown.
impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.status, self.body.len())
    }
}

/// What a handler returns.
pub type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
/// A model's side of the server. It runs on the server's thread: it must not block for long, and
/// must not stop its own server.
pub type Handler = Arc<dyn Fn(Request) -> Answer + Send + Sync>;

/// Makes a [`Handler`] of an async function.
pub fn handler<F, Fut>(answer: F) -> Handler
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response> + Send + 'static,
{
    Arc::new(move |request| Box::pin(answer(request)))
}

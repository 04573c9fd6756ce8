//! One connection of the server: TLS where asked, hyper over a stream that can be made to fail in
//! the middle of an answer, and the scripted faults applied around the model's handler.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{BODY_LIMIT_BYTES, Fault, Request, Response, Shared};
use crate::clock::lock;

/// Go's limit for a TLS handshake in net/http is of this order.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Go's and Vault's idle limit of a kept connection.
const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// A request's body must have come by then.
const BODY_LIMIT: Duration = Duration::from_secs(60);
/// Linux' default, set back on a kept connection after an answer with a TTL of its own.
const DEFAULT_IP_TTL: u32 = 64;
/// Neither HTTP nor TLS.
pub(crate) const GARBAGE: &[u8] = b"\x00\xffnot a protocol that you speak\x00\r\n\r\n\xfe";
const LOGIN_PAGE: &str = "<!DOCTYPE html><html><body><h1>Please log in</h1></body></html>\n";
const PLAIN_ON_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\n\
    Client sent an HTTP request to an HTTPS server.\n";

/// Serves one connection to its end; what a peer does wrong is its own affair.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    stream.set_nodelay(true).ok();
    let Ok(descriptor) = stream.as_fd().try_clone_to_owned() else {
        return;
    };
    let connection = Connection {
        shared,
        peer,
        socket: std::net::TcpStream::from(descriptor),
        wreck: Arc::default(),
    };
    let Some(acceptor) = connection.shared.acceptor.clone() else {
        return connection.serve_http(stream).await;
    };
    let mut first = [0];
    match timeout(HANDSHAKE_LIMIT, stream.peek(&mut first)).await {
        // 22 is the TLS record type of a handshake.
        Ok(Ok(1)) if first[0] == 22 => {}
        Ok(Ok(1)) => return refuse_plain(stream).await,
        _ => return,
    }
    if let Ok(Ok(stream)) = timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
        connection.serve_http(stream).await;
    }
}

async fn refuse_plain(mut stream: TcpStream) {
    let mut scrap = [0; 4096];
    // What is left unread at the close would make the kernel reset the answer away.
    stream.try_read(&mut scrap).ok();
    stream.write_all(PLAIN_ON_TLS).await.ok();
    stream.shutdown().await.ok();
}

struct Connection {
    shared: Arc<Shared>,
    peer: SocketAddr,
    /// The same socket, for its options.
    socket: std::net::TcpStream,
    wreck: Arc<Mutex<Wreck>>,
}

impl Connection {
    async fn serve_http<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        let io = TokioIo::new(FaultIo { inner: stream, wreck: Arc::clone(&self.wreck) });
        let connection = Arc::new(self);
        let service = service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Infallible>(connection.answer(request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_LIMIT)
            .auto_date_header(false)
            .serve_connection(io, service);
        // Cut and broken connections end with an error by design.
        served.await.ok();
    }

    async fn answer(&self, request: hyper::Request<Incoming>) -> hyper::Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let number = self.shared.note_arrival(&head.method, &path);
        let body = Limited::new(body, BODY_LIMIT_BYTES);
        let Ok(Ok(body)) = timeout(BODY_LIMIT, body.collect()).await else {
            self.shared.note_status(number, 413);
            return self.encode(Response::text(413, "body too large, too slow or broken\n"));
        };
        let fault = lock(&self.shared.script).take(&head.method, &path);
        let request = Request {
            method: head.method,
            path,
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers,
            body: body.to_bytes(),
            peer: self.peer,
        };
        let response = self.apply(fault, request).await;
        if let Some(response) = &response {
            self.shared.note_status(number, response.status);
        }
        self.encode(response.unwrap_or_else(|| Response::empty(500)))
    }

    /// The answer under a fault; `None` where the client will not see a status.
    async fn apply(&self, fault: Option<Fault>, request: Request) -> Option<Response> {
        match fault {
            None => Some((self.shared.handler)(request).await),
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                Some((self.shared.handler)(request).await)
            }
            Some(Fault::Late(by)) => {
                self.shared.clock.advance(by);
                Some((self.shared.handler)(request).await)
            }
            Some(Fault::TooLate(by)) => {
                self.shared.clock.advance(by);
                drop((self.shared.handler)(request).await);
                self.wreck(Wreck::Cut(0));
                None
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Close) => {
                self.wreck(Wreck::Cut(0));
                None
            }
            Some(Fault::Status { code, body, headers }) => {
                Some(Response { status: code, headers, body: body.into(), ip_ttl: None })
            }
            Some(Fault::Cut { after_bytes }) => {
                let response = (self.shared.handler)(request).await;
                self.wreck(Wreck::Cut(after_bytes));
                Some(response.with_header("connection", "close")).filter(|_| after_bytes > 0)
            }
            Some(Fault::Garbage) => {
                self.wreck(Wreck::Replace(Bytes::from_static(GARBAGE)));
                None
            }
            Some(Fault::Html200) => {
                Some(Response::typed(200, "text/html; charset=utf-8", LOGIN_PAGE))
            }
            Some(Fault::WrongLength) => {
                let response = (self.shared.handler)(request).await;
                self.wreck(Wreck::Replace(too_long(&response)));
                Some(response)
            }
        }
    }

    fn wreck(&self, wreck: Wreck) {
        *lock(&self.wreck) = wreck;
    }

    fn encode(&self, response: Response) -> hyper::Response<Full<Bytes>> {
        // Failing to set it is seen by the tests of the hop rule, not by the client.
        self.socket.set_ttl(response.ip_ttl.unwrap_or(DEFAULT_IP_TTL)).ok();
        let mut builder = hyper::Response::builder()
            .status(response.status)
            .header("date", http_date(self.shared.clock.now()));
        for (name, value) in &response.headers {
            builder = builder.header(name, value);
        }
        builder.body(Full::new(response.body)).expect("a model answers with valid headers")
    }
}

/// RFC 9110's date, for the `Date` header.
fn http_date(at: jiff::Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The answer in bytes with a `Content-Length` that its body does not fill.
fn too_long(response: &Response) -> Bytes {
    let mut raw = format!("HTTP/1.1 {} Scripted\r\n", response.status).into_bytes();
    for (name, value) in &response.headers {
        raw.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    let length = response.body.len() + 16;
    raw.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
    raw.extend_from_slice(&response.body);
    raw.into()
}

/// What is to happen to the bytes of the next answer.
#[derive(Default)]
enum Wreck {
    #[default]
    None,
    /// So many bytes more, then the end.
    Cut(usize),
    /// These bytes instead, then the end.
    Replace(Bytes),
}

/// A stream whose writes end as the wreck says.
struct FaultIo<S> {
    inner: S,
    wreck: Arc<Mutex<Wreck>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for FaultIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FaultIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut wreck = lock(&this.wreck);
        match &mut *wreck {
            Wreck::None => return Pin::new(&mut this.inner).poll_write(cx, buf),
            Wreck::Cut(0) => {}
            Wreck::Cut(left) => {
                let part = &buf[..buf.len().min(*left)];
                let written = ready!(Pin::new(&mut this.inner).poll_write(cx, part))?;
                *left -= written;
                return Poll::Ready(Ok(written));
            }
            Wreck::Replace(bytes) => {
                while bytes.has_remaining() {
                    let written = ready!(Pin::new(&mut this.inner).poll_write(cx, bytes))?;
                    bytes.advance(written);
                }
            }
        }
        ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the script")))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

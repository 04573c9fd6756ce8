//! An HTTP server on loopback that gives the answers it is told, one to each request. The agent's
//! own clients ask it, so that what reads an answer is reached as it is in a node, status line and
//! headers included, and no parser has to be public for it.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nodeagent::wire::http::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Long enough for a machine that is busy with other things: no answer is ever waited for, because
/// whatever is sent is followed by the end of the connection.
pub const LIMITS: Limits =
    Limits { connect: Duration::from_secs(20), total: Duration::from_secs(20), body: 64 << 10 };

/// The server and the one thread that it and its client run in.
pub struct Server {
    runtime: Runtime,
    answers: Arc<Mutex<VecDeque<Vec<u8>>>>,
    address: SocketAddr,
}

impl Server {
    /// A server on a free port of loopback.
    pub fn start() -> Server {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let given = Arc::clone(&answers);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let given = Arc::clone(&given);
                tokio::spawn(async move { serve(stream, &given).await.ok() });
            }
        });
        Server { runtime, answers, address }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Runs calls, the first of which gets the first answer. Where there are fewer answers than
    /// requests the last is given again.
    pub fn answering<T>(&self, answers: Vec<Vec<u8>>, calls: impl Future<Output = T>) -> T {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers.into();
        self.runtime.block_on(calls)
    }
}

/// An answer as HTTP says it. Headers lose what would end them.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        head.push_str(&format!("{name}: {}\r\n", value.replace(['\r', '\n', '\0'], " ")));
    }
    [head.as_bytes(), b"Connection: close\r\n\r\n", body].concat()
}

/// One connection, one answer: what an odd answer leaves behind meets no later request.
async fn serve(mut stream: TcpStream, answers: &Mutex<VecDeque<Vec<u8>>>) -> io::Result<()> {
    read_request(&mut stream).await?;
    let answer = {
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        let last = answers.len() == 1;
        let first = if last { answers.front().cloned() } else { answers.pop_front() };
        first.unwrap_or_default()
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    // The client's end is waited for, and then forgotten at once: a port that is kept for a
    // minute, as after other ends, would be one of 28,000.
    while stream.read(&mut [0; 4096]).await? > 0 {}
    stream.set_zero_linger()
}

async fn read_request(stream: &mut TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    let mut part = [0; 8192];
    loop {
        let length = stream.read(&mut part).await?;
        request.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let head = text.find("\r\n\r\n");
        let body = text.split("content-length: ").nth(1).and_then(|rest| {
            rest.split("\r\n").next().and_then(|number| number.parse::<usize>().ok())
        });
        let whole = head.is_some_and(|end| request.len() >= end + 4 + body.unwrap_or(0));
        if whole || length == 0 {
            return Ok(());
        }
    }
}

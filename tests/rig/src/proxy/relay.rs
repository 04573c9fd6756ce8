//! One connection through the proxy: two pumps, one for each direction, that look at the fault
//! before every piece they pass on.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Fault, State};
use crate::server::GARBAGE;

/// How much is passed on at once.
const PIECE_BYTES: usize = 16 << 10;
/// A peer on this machine accepts at once or not at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Which way a pump works; faults are done to answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Requests,
    Answers,
}

/// Relays until either side ends or the fault ends it; both sides are then closed.
pub(super) async fn relay(client: TcpStream, mut state: watch::Receiver<State>) {
    if thaw(&mut state).await.is_err() {
        return;
    }
    let target = state.borrow().target;
    let Ok(peer) = connect(target).await else {
        return;
    };
    client.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_peer, to_peer) = peer.into_split();
    let requests = Pump::new(Flow::Requests, state.clone());
    let answers = Pump::new(Flow::Answers, state);
    // The first error ends both: that is the cut.
    let ended =
        tokio::try_join!(requests.run(from_client, to_peer), answers.run(from_peer, to_client));
    ended.ok();
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_LIMIT, TcpStream::connect(target)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Waits while everything hangs; an error where the proxy is gone.
async fn thaw(state: &mut watch::Receiver<State>) -> io::Result<()> {
    state.wait_for(|state| state.fault != Fault::Hang).await.map_err(io::Error::other)?;
    Ok(())
}

struct Pump {
    flow: Flow,
    state: watch::Receiver<State>,
    /// Bytes that may still pass under the switch of this number.
    budget: (u64, usize),
}

impl Pump {
    fn new(flow: Flow, state: watch::Receiver<State>) -> Self {
        Self { flow, state, budget: (u64::MAX, 0) }
    }

    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = from.read(&mut piece).await?;
            thaw(&mut self.state).await?;
            if length == 0 {
                return to.shutdown().await;
            }
            self.pass(&piece[..length], &mut to).await?;
        }
    }

    async fn pass(&mut self, piece: &[u8], to: &mut OwnedWriteHalf) -> io::Result<()> {
        let State { fault, switch, .. } = self.state.borrow().clone();
        match fault {
            _ if self.flow == Flow::Requests => to.write_all(piece).await,
            Fault::Delay(delay) => {
                // A switch ends the delay early: what is late may then go.
                let switched = self.state.wait_for(|state| state.switch != switch);
                drop(timeout(delay, switched).await);
                to.write_all(piece).await
            }
            Fault::Cut { after_bytes } => {
                if self.budget.0 != switch {
                    self.budget = (switch, after_bytes);
                }
                let passed = piece.len().min(self.budget.1);
                to.write_all(&piece[..passed]).await?;
                self.budget.1 -= passed;
                if passed < piece.len() { Err(cut()) } else { Ok(()) }
            }
            Fault::Garbage => {
                to.write_all(GARBAGE).await?;
                Err(cut())
            }
            Fault::None | Fault::Refuse | Fault::Hang | Fault::Flap { .. } => {
                to.write_all(piece).await
            }
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut by the fault")
}

//! A TCP proxy between the agent and any peer, real or model: it breaks the connection in ways
//! given as data and switched at run time. TLS passes through untouched, so it works before every
//! peer; lies inside HTTP belong to the script of `server`. A switch holds for the connections
//! that are open too, and is in force when `set` returns.

mod relay;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::server::bound;

/// What the proxy does to connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Passes everything on.
    #[default]
    None,
    /// The port is closed, open connections are cut.
    Refuse,
    /// Connections are accepted and nothing moves on any, until the next switch.
    Hang,
    /// Every piece of an answer comes so much later.
    Delay(Duration),
    /// So many bytes of the answer pass on each connection, then it ends.
    Cut {
        /// Bytes, counted from the switch or the connection's start; 0 loses the answer.
        after_bytes: usize,
    },
    /// The answer is replaced by bytes that are neither TLS nor HTTP, then the end.
    Garbage,
    /// In turn closed as by [`Fault::Refuse`] and open, starting closed.
    Flap {
        /// How long it is open.
        up: Duration,
        /// How long it is closed.
        down: Duration,
    },
}

/// What relays look at: the fault and where to go.
#[derive(Clone, Debug)]
struct State {
    fault: Fault,
    target: SocketAddr,
    /// Grows with each switch, so that a `Cut` counts from the switch.
    switch: u64,
}

/// A message to the proxy's thread; it confirms on the channel.
struct Switch {
    fault: Option<Fault>,
    target: Option<SocketAddr>,
    done: std_mpsc::Sender<()>,
}

/// A running proxy; dropping it closes the port and cuts its connections.
pub struct Proxy {
    addr: SocketAddr,
    switches: Option<mpsc::UnboundedSender<Switch>>,
    accepted: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    /// Bound and never listening: keeps the port ours while it refuses.
    _reservation: TcpSocket,
}

impl Proxy {
    /// A proxy on a free port of loopback.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), target)
    }

    /// A proxy at an address of its own.
    pub fn start_at(bind: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let reservation = bound(bind)?;
        let addr = reservation.local_addr()?;
        let (switches, received) = mpsc::unbounded_channel();
        let (ready, started) = std_mpsc::channel();
        let accepted = Arc::new(AtomicUsize::new(0));
        let state = watch::Sender::new(State { fault: Fault::None, target, switch: 0 });
        let gate = Gate { addr, state, accepted: Arc::clone(&accepted) };
        let thread =
            std::thread::Builder::new().name(format!("proxy {addr}")).spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let outcome = match runtime {
                    Ok(runtime) => runtime.block_on(gate.run(received, &ready)),
                    Err(error) => Err(error),
                };
                if let Err(error) = outcome {
                    // The starter is gone where the proxy had started: then this is its end.
                    ready.send(Err(error)).ok();
                }
            })?;
        started.recv().map_err(io::Error::other)??;
        let (switches, thread) = (Some(switches), Some(thread));
        Ok(Self { addr, switches, accepted, thread, _reservation: reservation })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Switches to a fault, or with [`Fault::None`] back.
    pub fn set(&self, fault: Fault) {
        self.switch(Some(fault), None);
    }

    /// Sends new connections to another peer.
    pub fn retarget(&self, target: SocketAddr) {
        self.switch(None, Some(target));
    }

    /// How many connections it accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    fn switch(&self, fault: Option<Fault>, target: Option<SocketAddr>) {
        let (done, confirmed) = std_mpsc::channel();
        let switches = self.switches.as_ref().expect("held until the drop");
        switches.send(Switch { fault, target, done }).expect("the proxy's thread runs");
        confirmed.recv().expect("the proxy's thread confirms each switch");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The closed channel is the thread's sign to end.
        self.switches = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({})", self.addr)
    }
}

/// Whether the port takes connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Open,
    Closed,
}

/// The thread's side: opens and closes the port, and starts relays.
struct Gate {
    addr: SocketAddr,
    state: watch::Sender<State>,
    accepted: Arc<AtomicUsize>,
}

impl Gate {
    async fn run(
        self,
        mut switches: mpsc::UnboundedReceiver<Switch>,
        ready: &std_mpsc::Sender<io::Result<()>>,
    ) -> io::Result<()> {
        let mut listener = Some(self.listen()?);
        let mut relays = JoinSet::new();
        let mut flap: Option<Instant> = None;
        ready.send(Ok(())).map_err(io::Error::other)?;
        loop {
            tokio::select! {
                switch = switches.recv() => {
                    let Some(switch) = switch else { return Ok(()) };
                    flap = self.apply(&switch, &mut listener, &mut relays).await?;
                    // A test that panicked meanwhile does not wait for it.
                    switch.done.send(()).ok();
                }
                () = until(flap) => {
                    let port = if listener.is_some() { Port::Closed } else { Port::Open };
                    flap = self.phase_end(port);
                    self.turn(port, &mut listener, &mut relays).await?;
                }
                accepted = accept(listener.as_ref()) => {
                    if let Ok((stream, _)) = accepted {
                        self.accepted.fetch_add(1, Ordering::Relaxed);
                        relays.spawn(relay::relay(stream, self.state.subscribe()));
                    }
                }
                Some(_) = relays.join_next(), if !relays.is_empty() => {}
            }
        }
    }

    /// Puts a switch in force and tells when the next flap is due.
    async fn apply(
        &self,
        switch: &Switch,
        listener: &mut Option<TcpListener>,
        relays: &mut JoinSet<()>,
    ) -> io::Result<Option<Instant>> {
        self.state.send_modify(|state| {
            if let Some(fault) = &switch.fault {
                state.fault = fault.clone();
                state.switch += 1;
            }
            state.target = switch.target.unwrap_or(state.target);
        });
        let port = match self.state.borrow().fault {
            Fault::Refuse | Fault::Flap { .. } => Port::Closed,
            _ => Port::Open,
        };
        self.turn(port, listener, relays).await?;
        Ok(self.phase_end(port))
    }

    /// When the phase that now begins ends, where the fault is a flap.
    fn phase_end(&self, port: Port) -> Option<Instant> {
        let Fault::Flap { up, down } = self.state.borrow().fault else {
            return None;
        };
        Some(Instant::now() + if port == Port::Open { up } else { down })
    }

    async fn turn(
        &self,
        port: Port,
        listener: &mut Option<TcpListener>,
        relays: &mut JoinSet<()>,
    ) -> io::Result<()> {
        match port {
            Port::Closed => {
                *listener = None;
                relays.shutdown().await;
            }
            Port::Open if listener.is_none() => *listener = Some(self.listen()?),
            Port::Open => {}
        }
        Ok(())
    }

    fn listen(&self) -> io::Result<TcpListener> {
        bound(self.addr)?.listen(1024)
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

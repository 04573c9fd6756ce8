//! The signals that end a run of the loop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Ending;
use crate::error::{Code, Error, Result};

/// The signals that end a run. They are listened to over every reload, and before anybody can
/// find the process to send one: without a listener SIGHUP is the end, and a SIGTERM in the
/// middle of a reload would be lost.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Starts listening.
    pub fn new() -> Result<Signals> {
        let listen = |kind| {
            signal(kind).map_err(|error| Error::new(Code::Bug, error.to_string()).at("signals"))
        };
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Ending {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Ending::Stopped,
            _ = self.interrupt.recv() => Ending::Stopped,
            _ = self.hangup.recv() => Ending::Reload,
        }
    }
}

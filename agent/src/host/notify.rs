//! What systemd is told: ready, the status line, the watchdog, reloading and stopping. The socket
//! and the watchdog interval are taken from the environment once, at the start, and nothing is
//! ever removed from the environment, because that cannot be done safely beside other threads.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::error::{Code, Error, Result};

/// The longest status line that is sent; systemd cuts what is longer.
const STATUS_LIMIT: usize = 1024;

/// The way to the service manager; without one, every message is silently dropped.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    socket: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As systemd passed it in the environment of this process.
    pub fn from_environment() -> Notifier {
        let text = |name: &str| std::env::var(name).ok();
        let owner = text("WATCHDOG_PID").and_then(|pid| pid.parse::<u32>().ok());
        let ours = owner.is_none_or(|pid| pid == std::process::id());
        Notifier {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()),
            watchdog: text("WATCHDOG_USEC").filter(|_| ours).and_then(|limit| interval(&limit)),
        }
    }

    /// To a socket of one's own: a path, or `@name` for an abstract one.
    pub fn to(socket: impl Into<OsString>) -> Notifier {
        Notifier { socket: Some(socket.into()), watchdog: None }
    }

    /// How often [`Notifier::watchdog`] has to be called: half of what systemd allows.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The service has started, or has finished reloading.
    pub fn ready(&self) -> Result<()> {
        self.send("READY=1")
    }

    /// The status line of `systemctl status`.
    pub fn status(&self, text: &str) -> Result<()> {
        let end = text.floor_char_boundary(STATUS_LIMIT);
        let line = text.get(..end).unwrap_or_default().replace('\n', " ");
        self.send(&format!("STATUS={line}"))
    }

    /// The service is alive.
    pub fn watchdog(&self) -> Result<()> {
        self.send("WATCHDOG=1")
    }

    /// The service ends by its own will.
    pub fn stopping(&self) -> Result<()> {
        self.send("STOPPING=1")
    }

    /// The service reads its configuration again; `awake` is CLOCK_MONOTONIC, by which systemd
    /// tells this reload from an earlier one.
    pub fn reloading(&self, awake: Duration) -> Result<()> {
        let micros = awake.as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"))
    }

    /// Starting, stopping or the watchdog may take this much longer from now.
    pub fn extend_timeout(&self, by: Duration) -> Result<()> {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()))
    }

    fn send(&self, message: &str) -> Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        deliver(socket, message).map_err(|error| {
            Error::new(Code::SystemdUnreachable, error.to_string())
                .at(socket.to_string_lossy())
                .during("notifying systemd")
                .advise("start the agent as a unit of Type=notify with NotifyAccess=main")
        })
    }
}

/// A datagram never waits here: a full queue is an error, not a pause of the loop.
fn deliver(socket: &OsStr, message: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

/// Half of `WATCHDOG_USEC`, as sd_watchdog_enabled(3) asks for.
fn interval(limit: &str) -> Option<Duration> {
    let micros: u64 = limit.parse().ok().filter(|micros| *micros > 0)?;
    Some(Duration::from_micros(micros) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_what_systemd_reads() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("notify");
        let server = UnixDatagram::bind(&path).expect("a socket in it");
        let notifier = Notifier::to(&path);
        let second = Duration::from_secs(1);
        notifier.ready().expect("sent");
        notifier.status("two\nlines").expect("sent");
        notifier.watchdog().expect("sent");
        notifier.stopping().expect("sent");
        notifier.reloading(second).expect("sent");
        notifier.extend_timeout(second).expect("sent");
        let expected = [
            "READY=1",
            "STATUS=two lines",
            "WATCHDOG=1",
            "STOPPING=1",
            "RELOADING=1\nMONOTONIC_USEC=1000000",
            "EXTEND_TIMEOUT_USEC=1000000",
        ];
        for message in expected {
            let mut buffer = [0; 256];
            let length = server.recv(&mut buffer).expect("a datagram");
            assert_eq!(std::str::from_utf8(&buffer[..length]), Ok(message));
        }
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("nodeagent-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let server = UnixDatagram::bind_addr(&address).expect("a socket");
        Notifier::to(format!("@{name}")).ready().expect("sent");
        let mut buffer = [0; 16];
        let length = server.recv(&mut buffer).expect("a datagram");
        assert_eq!(&buffer[..length], b"READY=1");
    }

    #[test]
    fn no_socket_is_no_error_and_a_dead_one_is() {
        assert!(Notifier::default().ready().is_ok());
        let error = Notifier::to("/nonexistent/notify").ready().expect_err("nobody listens");
        assert_eq!(error.code(), Code::SystemdUnreachable);
        assert!(format!("{error:#}").contains("/nonexistent/notify"));
    }

    #[test]
    fn the_watchdog_is_pinged_at_half_its_limit() {
        assert_eq!(interval("30000000"), Some(Duration::from_secs(15)));
        assert_eq!(interval("0"), None);
        assert_eq!(interval("soon"), None);
    }
}

//! The node: what it was told, and its handles to the outside. Built once by `main`; tests build
//! it with other handles. Public fields, no builder, no globals.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::attest::{Attestor, Identity};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::host::clock::Clock;
use crate::host::files::Root;
use crate::host::units::Units;
use crate::secret::Secret;
use crate::wire::vault::Vault;

/// Where the session is kept for the next start. In /run: a reboot may bring another instance.
pub const SESSION_FILE: &str = "/run/nodeagent/token";

/// Who Vault last took this node for. In /var/lib: files are rendered and a control plane is
/// raised again while Vault is away, on the same machine.
const IDENTITY_FILE: &str = "/var/lib/nodeagent/identity.json";

/// The configuration and the handles to the outside.
#[allow(missing_debug_implementations, reason = "the handles have nothing to show")]
pub struct Node {
    /// What the agent was told.
    pub config: Config,
    /// Where all paths start.
    pub root: Root,
    /// The one clock.
    pub clock: Arc<dyn Clock>,
    /// systemd.
    pub units: Arc<dyn Units>,
    /// Vault.
    pub vault: Vault,
    /// Who proves the node's identity.
    pub attestor: Arc<dyn Attestor>,
    /// The session with Vault, where there is one.
    pub session: SessionCell,
    /// Seeds the jitter of this process.
    pub seed: u64,
}

/// A session with Vault: the token, what it may, and whom it was given to.
#[derive(Clone, Debug)]
pub struct Session {
    /// The token.
    pub token: Secret,
    /// What is known of it.
    pub facts: SessionFacts,
}

/// What is known of a session, without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionFacts {
    /// Names the token in Vault's audit log.
    pub accessor: String,
    /// Whom Vault took us for.
    pub identity: Identity,
    /// The auth mount and role that it was got with.
    pub mount: String,
    /// The role at that mount.
    pub role: String,
    /// When the lease in force began.
    pub since: Timestamp,
    /// When the lease in force ends.
    pub expires: Timestamp,
    /// The lease of the log-in, which every renewal asks for.
    pub asked_s: u64,
    /// Whether it can be renewed.
    pub renewable: bool,
}

impl SessionFacts {
    /// The lease in force.
    pub fn lease(&self) -> SignedDuration {
        self.since.duration_until(self.expires)
    }

    /// A lease clearly shorter than asked for: the token's maximum life is near.
    pub fn is_cut(&self) -> bool {
        self.lease().as_secs_f64() < 0.9 * self.asked_s as f64
    }
}

/// How far a stored session can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Taken from the disk, not used in this process yet.
    Stored,
    /// Vault has taken it.
    Proved,
    /// Vault takes it, but a log-in is to replace it: it may be older than its policy.
    Stale,
    /// Vault refused it.
    Doubtful,
}

/// The session in force, shared between the effects.
#[derive(Debug, Default)]
pub struct SessionCell(Mutex<Option<(Session, Standing)>>);

impl SessionCell {
    /// The session, where there is one that Vault has taken.
    pub fn proved(&self) -> Result<Session> {
        match &*self.lock() {
            Some((session, Standing::Proved | Standing::Stale)) => Ok(session.clone()),
            _ => Err(Error::new(Code::TokenInvalid, "there is no session with Vault")),
        }
    }

    /// The session and its standing, whatever that is.
    pub fn get(&self) -> Option<(Session, Standing)> {
        self.lock().clone()
    }

    /// Puts a session in force.
    pub fn set(&self, session: Session, standing: Standing) {
        *self.lock() = Some((session, standing));
    }

    /// Changes the standing of the session in force, never to a better one.
    pub fn demote(&self, to: Standing) {
        if let Some((_, standing)) = &mut *self.lock()
            && (*standing == Standing::Proved || to == Standing::Doubtful)
        {
            *standing = to;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Session, Standing)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    token: String,
    #[serde(flatten)]
    facts: SessionFacts,
}

impl Node {
    /// Stores the session for the next start: 0600, in /run.
    pub fn store_session(&self, session: &Session) -> Result<()> {
        let stored =
            Stored { token: session.token.expose().to_string(), facts: session.facts.clone() };
        let text = serde_json::to_string(&stored)
            .map_err(|error| Error::new(Code::Bug, error.to_string()))?;
        let text = Secret::new(text);
        self.root.write_volatile(Path::new(SESSION_FILE), text.expose().as_bytes(), 0o600)
    }

    /// Takes up the session of an earlier start. One that cannot be read is as none: its loss
    /// costs a log-in.
    pub fn recall_session(&self) {
        let Ok(Some(bytes)) = self.root.read_optional(Path::new(SESSION_FILE), 64 << 10) else {
            return;
        };
        if let Ok(stored) = serde_json::from_slice::<Stored>(&bytes) {
            let session = Session { token: Secret::new(stored.token), facts: stored.facts };
            self.session.set(session, Standing::Stored);
        }
    }

    /// Who this node is: by its session, or by the last one where there is none.
    pub fn identity(&self) -> Result<Identity> {
        if let Some((session, _)) = self.session.get() {
            return Ok(session.facts.identity);
        }
        let bytes = self.root.read_optional(Path::new(IDENTITY_FILE), 64 << 10)?;
        let known = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        known.ok_or_else(|| {
            Error::new(Code::TokenInvalid, "this node has not logged in to vault yet")
                .advise("see `nodeagent status`; the agent logs in by itself")
        })
    }

    /// Whether the disk gives what lies beside the records.
    pub fn disk_reads(&self) -> bool {
        self.root.read_optional(Path::new(IDENTITY_FILE), 64 << 10).is_ok()
    }

    /// Keeps who Vault took this node for, where that is news.
    pub fn remember_identity(&self, identity: &Identity) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(identity)
            .map_err(|error| Error::new(Code::Bug, error.to_string()))?;
        let path = Path::new(IDENTITY_FILE);
        match self.root.read_optional(path, 64 << 10)? {
            Some(known) if known == bytes => Ok(()),
            _ => self.root.write_atomic(path, &bytes, 0o600, None),
        }
    }

    /// How far the local clock is ahead of Vault's, where that was measured since the start.
    ///
    /// A step of the local clock after the measurement shows against the monotonic clock, so an
    /// old measurement still judges it; only drift is missed, and that is seconds a day.
    pub fn clock_ahead(&self) -> Option<SignedDuration> {
        let seen = self.vault.observed()?;
        let wall = seen.wall.duration_until(self.clock.now());
        let steady = self.clock.monotonic().saturating_sub(seen.monotonic);
        let steady = SignedDuration::try_from(steady).unwrap_or_default();
        Some(seen.skew() + wall - steady)
    }

    /// Whether the clock is within its bound; unmeasured counts as within.
    pub fn clock_fits(&self) -> bool {
        let bound = SignedDuration::try_from(self.config.max_clock_skew).unwrap_or_default();
        // Vault tells full seconds: one second of the difference may be rounding.
        let bound = bound + SignedDuration::from_secs(1);
        self.clock_ahead().is_none_or(|ahead| ahead.abs() <= bound)
    }
}

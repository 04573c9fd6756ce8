//! The one error of the crate: what went wrong (`Code`), how it is handled (`Kind`), where
//! (frames) and what a person does about it (advice).
//!
//! A `Code` is a problem that `status` can show and that docs/operating.md explains; it decides
//! the `Kind`, which is the handling path: retry, wait, log in again, stop and tell.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How an error is handled: one variant per path through the code that cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The command line is wrong.
    Usage,
    /// The configuration is wrong; starting again does not help.
    Config,
    /// Something is away for now: retry with backoff.
    Unavailable,
    /// Vault is there but sealed or not initialised: wait, a person has to act.
    Sealed,
    /// The token is not (or no longer) valid: log in again.
    Unauthenticated,
    /// Somebody said no and will say no again: retry slowly and raise a problem.
    Denied,
    /// What came or what lies on disk is not what it should be: keep the last good.
    Corrupt,
    /// Somebody else holds it.
    Conflict,
    /// A broken promise of our own code.
    Bug,
}

impl Kind {
    /// Whether somebody cannot be asked just now, as opposed to having said no.
    pub fn is_away(self) -> bool {
        matches!(self, Kind::Unavailable | Kind::Sealed | Kind::Unauthenticated)
    }

    /// The process exit code, after sysexits.h.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 64,
            Kind::Config => 78,
            Kind::Unavailable | Kind::Sealed => 69,
            Kind::Unauthenticated | Kind::Denied => 77,
            Kind::Corrupt => 65,
            Kind::Conflict => 75,
            Kind::Bug => 70,
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $slug:literal, $kind:ident;)+) => {
        /// What went wrong, as `status` and docs/operating.md name it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $slug)] $name,)+
        }

        impl Code {
            /// Every code there is; docs/operating.md has an entry for each (checked).
            pub const ALL: &'static [Code] = &[$(Code::$name),+];

            /// The word for it in `status`, in logs and in docs/operating.md.
            pub fn slug(self) -> &'static str {
                match self { $(Code::$name => $slug),+ }
            }

            /// The handling path it belongs to.
            pub fn kind(self) -> Kind {
                match self { $(Code::$name => Kind::$kind),+ }
            }
        }
    };
}

codes! {
    /// The command line cannot be understood.
    Usage = "usage", Usage;
    /// The configuration does not say what is possible.
    Config = "config", Config;
    /// Vault does not answer: refused, timed out, cut, or TLS does not verify.
    VaultUnreachable = "vault-unreachable", Unavailable;
    /// Vault, or something in front of it, answered 5xx or what is no answer of Vault.
    VaultFailing = "vault-failing", Unavailable;
    /// A quota of Vault or throttling of AWS behind it: slow down.
    VaultThrottled = "vault-throttled", Unavailable;
    /// Vault is sealed or not initialised.
    VaultSealed = "vault-sealed", Sealed;
    /// The token is invalid, expired or revoked.
    TokenInvalid = "token-invalid", Unauthenticated;
    /// The token can be renewed no longer.
    TokenNotRenewable = "token-not-renewable", Unauthenticated;
    /// Another client nonce is on record for this instance.
    NonceMismatch = "nonce-mismatch", Denied;
    /// Vault will not let this instance log in a second time.
    ReauthenticationDisabled = "reauthentication-disabled", Denied;
    /// The identity document is older than the one of an earlier login.
    DocumentOutdated = "document-outdated", Denied;
    /// The login role, the account, the image or the profile does not fit this instance.
    LoginRefused = "login-refused", Denied;
    /// The token is valid, its policy does not allow the call.
    PolicyDenied = "policy-denied", Denied;
    /// The PKI role does not allow the names, the key or the kind of certificate asked for.
    RoleRefused = "role-refused", Denied;
    /// The certificate authority ends before the certificate would.
    AuthorityEnding = "authority-ending", Denied;
    /// The instance metadata service does not answer.
    ImdsUnreachable = "imds-unreachable", Unavailable;
    /// The instance metadata service answered what is no identity document.
    ImdsAnswer = "imds-answer", Unavailable;
    /// A certificate came from an issuer that is not in the pinned bundle.
    IssuerUnknown = "issuer-unknown", Corrupt;
    /// A certificate names what was not asked for.
    NamesWrong = "names-wrong", Corrupt;
    /// A certificate, key or bundle is unreadable, or they do not fit each other.
    CertificateBad = "certificate-bad", Corrupt;
    /// A certificate is not valid now, or not for as long as it has to be.
    ValidityWrong = "validity-wrong", Corrupt;
    /// The local clock and Vault's differ by more than the bound.
    ClockSkew = "clock-skew", Unavailable;
    /// A file could not be read or written: full, read-only, broken, no right.
    Disk = "disk", Unavailable;
    /// Something that this agent did not write stands where it writes.
    Foreign = "foreign", Conflict;
    /// More certificates were issued in an hour than the budget allows.
    IssueBudget = "issue-budget", Unavailable;
    /// systemd does not answer on D-Bus.
    SystemdUnreachable = "systemd-unreachable", Unavailable;
    /// systemd would not do what was asked: a right, another job, a shutdown.
    SystemdRefused = "systemd-refused", Unavailable;
    /// What a consumer's unit needs did not come up, and so neither did the consumer.
    DependencyFailed = "dependency-failed", Unavailable;
    /// The unit of a consumer does not exist.
    UnitMissing = "unit-missing", Denied;
    /// systemd could not restart or reload a consumer.
    RestartFailed = "restart-failed", Denied;
    /// A consumer does not answer where it is probed, or is on its way up or down.
    ConsumerSilent = "consumer-silent", Unavailable;
    /// A consumer still serves the old certificate.
    NotServed = "not-served", Denied;
    /// A consumer failed with a new certificate; the one before it is in place again.
    RolledBack = "rolled-back", Denied;
    /// A certificate has expired, or ends before the outage that must be survived.
    AutonomyShort = "autonomy-short", Unavailable;
    /// An effect took longer than it may and was cut.
    EffectCut = "effect-cut", Unavailable;
    /// The Kubernetes API does not answer: refused, timed out, cut, or TLS does not verify.
    ApiserverUnreachable = "apiserver-unreachable", Unavailable;
    /// The Kubernetes API, or something in front of it, answered 5xx, 429 or what is none.
    ApiserverFailing = "apiserver-failing", Unavailable;
    /// The Kubernetes API does not know the client certificate, or does not allow the call.
    ApiserverDenied = "apiserver-denied", Denied;
    /// The Kubernetes API will not take an object: it, or its kind, is wrong.
    ApiserverRefused = "apiserver-refused", Denied;
    /// etcd does not answer: refused, timed out, cut, or TLS does not verify.
    EtcdUnreachable = "etcd-unreachable", Unavailable;
    /// etcd answered that it cannot: no leader, no space, an error of its own.
    EtcdFailing = "etcd-failing", Unavailable;
    /// etcd does not take the client certificate, or does not allow the call.
    EtcdDenied = "etcd-denied", Denied;
    /// The data of this node's member of etcd are gone.
    EtcdDataGone = "etcd-data-gone", Denied;
    /// A step of the control plane was not done in its time.
    PlaneWaiting = "plane-waiting", Unavailable;
    /// Another controller holds the cluster's lock for too long.
    LockHeld = "lock-held", Unavailable;
    /// The cluster's lock ended in the middle of a run.
    LockLost = "lock-lost", Unavailable;
    /// The keys that all controllers share are missing, unreadable or others than before.
    SharedSecrets = "shared-secrets", Denied;
    /// A manifest of the assets cannot be used.
    AssetsBad = "assets-bad", Config;
    /// Another nodeagent holds the lock.
    Locked = "locked", Conflict;
    /// The agent is not running, or has not looked for too long.
    AgentSilent = "agent-silent", Unavailable;
    /// A promise of our own code is broken; please report it.
    Bug = "bug", Bug;
}

/// An error: a code, the frames of what was being done (innermost first), and perhaps advice.
#[derive(Debug)]
pub struct Error {
    code: Code,
    frames: Vec<String>,
    advice: Option<String>,
    retry_after: Option<Duration>,
    unsent: bool,
}

/// The result of nearly everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A new error; `text` names what was found, lower case, no full stop, never a secret.
    pub fn new(code: Code, text: impl Into<String>) -> Error {
        Error { code, frames: vec![text.into()], advice: None, retry_after: None, unsent: false }
    }

    /// An error of the file system at a path.
    pub fn disk(path: &Path, error: &std::io::Error) -> Error {
        Error::new(Code::Disk, error.to_string()).at(path.display())
    }

    /// Adds what was being done, as a gerund: `issuing kubelet-server`.
    #[must_use]
    pub fn during(mut self, act: impl Into<String>) -> Error {
        self.frames.push(act.into());
        self
    }

    /// Adds where it happened: a path, a URL, a unit.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Error {
        self.during(place.to_string())
    }

    /// Adds what a person does about it: an exact command where there is one.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Error {
        self.advice = Some(advice.into());
        self
    }

    /// Adds how long the other side asked us to stay away.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Error {
        self.retry_after = wait;
        self
    }

    /// Adds that the other side cannot have heard of the request.
    #[must_use]
    pub fn unsent(mut self) -> Error {
        self.unsent = true;
        self
    }

    /// Whether the other side cannot have heard of the request.
    pub fn is_unsent(&self) -> bool {
        self.unsent
    }

    /// What went wrong.
    pub fn code(&self) -> Code {
        self.code
    }

    /// How it is handled.
    pub fn kind(&self) -> Kind {
        self.code.kind()
    }

    /// What a person does about it.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// How long the other side asked us to stay away.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// `{}` prints the outermost frame, `{:#}` the whole chain joined with `: `.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return f.write_str(self.frames.last().map_or("", String::as_str));
        }
        for (index, frame) in self.frames.iter().rev().enumerate() {
            if index > 0 {
                f.write_str(": ")?;
            }
            f.write_str(frame)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// A text that a stranger may have had a part in, as one line: control characters, which could end
/// it or steer a terminal, become spaces.
pub fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// What a parser says, as one line of 300 letters at most: parsers quote what they read, or list
/// all that they would have taken.
pub fn said(parser: &impl fmt::Display) -> String {
    const LONGEST: usize = 300;
    let text = plain(&parser.to_string());
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Frames for results, so that the main flow stays readable.
pub trait Context<T> {
    /// See [`Error::during`].
    fn during(self, act: impl Into<String>) -> Result<T>;
    /// See [`Error::at`].
    fn at(self, place: impl fmt::Display) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn during(self, act: impl Into<String>) -> Result<T> {
        self.map_err(|error| error.during(act))
    }

    fn at(self, place: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.at(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_joined_once_and_outermost_first() {
        let error = Error::new(Code::PolicyDenied, "403 permission denied")
            .at("vault pki/sign/kubelet")
            .during("issuing kubelet-server");
        let chain = "issuing kubelet-server: vault pki/sign/kubelet: 403 permission denied";
        assert_eq!(format!("{error:#}"), chain);
        assert_eq!(format!("{error}"), "issuing kubelet-server");
        assert_eq!(error.kind().exit_code(), 77);
    }

    #[test]
    fn what_a_parser_says_is_one_line_and_not_long() {
        assert_eq!(said(&"unknown field `a\u{1b}[2J\r\nb`"), "unknown field `a [2J  b`");
        let long = said(&"ä".repeat(1000));
        assert_eq!((long.chars().count(), long.ends_with("ä…")), (301, true));
        assert_eq!(said(&"ä".repeat(300)).chars().count(), 300);
    }

    #[test]
    fn slugs_are_unique() {
        let mut slugs: Vec<_> = Code::ALL.iter().map(|code| code.slug()).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), Code::ALL.len());
    }
}

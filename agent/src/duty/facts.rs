//! What one look saw: the session, the clock and the certificates on disk.
//!
//! Gathering never fails as a whole; each item carries its own fault. Nothing here changes
//! anything.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::certs::store::Generation;
use super::files::{self, FilesFact};
use super::{Records, Why, certs};
use crate::attest::Identity;
use crate::bootstrap::facts::PlaneFacts;
use crate::duty::certs::leaf::Leaf;
use crate::error::{Error, Result};
use crate::node::{Node, SessionFacts, Standing};

/// What one look saw.
#[derive(Debug, Default)]
pub struct Facts {
    /// The session and its standing.
    pub session: Option<(SessionFacts, Standing)>,
    /// Who this node is: by its session, or by the last one where there is none.
    pub identity: Option<Identity>,
    /// The clock against Vault's.
    pub clock: ClockFact,
    /// Each certificate, by name.
    pub certificates: BTreeMap<String, CertFact>,
    /// The files that follow from the configuration, where it tells of a cluster.
    pub files: Option<Result<FilesFact>>,
    /// The control plane, where this node has one and the loop has looked at it.
    pub plane: Option<PlaneFacts>,
    /// Since when the control plane has not been whole.
    pub plane_down_since: Option<Timestamp>,
}

/// The clock against Vault's.
#[derive(Clone, Copy, Debug)]
pub struct ClockFact {
    /// How far it is ahead of Vault's, where that was measured.
    pub ahead: Option<SignedDuration>,
    /// Whether that is within the bound.
    pub fits: bool,
    /// When it was measured, by the local clock.
    pub measured: Option<Timestamp>,
    /// Whether a time service says that it has set the clock.
    pub synchronized: Option<bool>,
}

impl Default for ClockFact {
    fn default() -> ClockFact {
        ClockFact { ahead: None, fits: true, measured: None, synchronized: None }
    }
}

impl ClockFact {
    /// Whether an instant has passed: by Vault's clock too, where the two are too far apart.
    pub fn has_passed(&self, at: Timestamp, now: Timestamp) -> bool {
        let ahead = self.ahead.filter(|_| !self.fits).unwrap_or_default();
        at <= now && at <= now.saturating_sub(ahead).unwrap_or(now)
    }
}

/// One certificate, as published.
#[derive(Debug)]
pub enum CertFact {
    /// There is none.
    Absent {
        /// A generation in the archive that may be published again.
        archived: Option<Generation>,
    },
    /// A complete generation whose key fits.
    Held(Held),
    /// A generation that is torn or does not fit itself.
    Broken {
        /// What is wrong with it.
        reason: String,
        /// A generation in the archive that may be published again.
        archived: Option<Generation>,
    },
    /// Something that the agent did not write stands in the way.
    Foreign {
        /// What and where.
        what: String,
    },
    /// It could not be looked at.
    Unknown(Error),
}

/// A generation that is complete and whose key fits.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which generation.
    pub generation: Generation,
    /// What the certificate says.
    pub leaf: Leaf,
    /// Why it is not what the configuration asks for, if it is not.
    pub flaw: Option<Why>,
}

impl CertFact {
    /// The published generation, where there is a sound one.
    pub fn held(&self) -> Option<&Held> {
        match self {
            CertFact::Held(held) => Some(held),
            _ => None,
        }
    }
}

impl Facts {
    /// What is known without looking at a certificate.
    pub fn known(node: &Node) -> Facts {
        let session = node.session.get().map(|(session, standing)| (session.facts, standing));
        Facts {
            session,
            identity: node.identity().ok(),
            clock: ClockFact {
                ahead: node.clock_ahead(),
                fits: node.clock_fits(),
                measured: node.vault.observed().map(|seen| seen.wall),
                synchronized: node.clock.synchronized(),
            },
            files: files::examine(node),
            ..Facts::default()
        }
    }

    /// Whether there is a token that requests can be made with. One that has ended earns a refusal,
    /// and a wait that the log-in does not end.
    pub fn has_token(&self, now: Timestamp) -> bool {
        self.session.as_ref().is_some_and(|(session, standing)| {
            matches!(standing, Standing::Proved | Standing::Stale) && session.expires > now
        })
    }

    /// Takes one look.
    pub async fn gather(node: &Node, records: &Records) -> Facts {
        let mut facts = Facts::known(node);
        for spec in &node.config.certificates {
            let quarantined = records.certificate(&spec.name).quarantined;
            let fact = certs::examine(node, spec, facts.identity.as_ref(), &quarantined);
            facts.certificates.insert(spec.name.clone(), fact);
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_passed_by_one_of_two_clocks_has_not() {
        let at =
            |hour: i64| Timestamp::from_second(1_800_000_000 + 3600 * hour).expect("an instant");
        let clock = |ahead, fits| ClockFact {
            ahead: Some(SignedDuration::from_hours(ahead)),
            fits,
            ..ClockFact::default()
        };
        for (what, clock, passed) in [
            ("nobody has measured", ClockFact::default(), [true, true, false]),
            ("within the bound", clock(3, true), [true, true, false]),
            ("three hours ahead", clock(3, false), [false, false, false]),
            ("an hour ahead", clock(1, false), [true, false, false]),
            ("an hour behind", clock(-1, false), [true, true, false]),
        ] {
            assert_eq!(
                [9, 10, 12].map(|hour| clock.has_passed(at(hour), at(10))),
                passed,
                "{what}"
            );
        }
    }
}

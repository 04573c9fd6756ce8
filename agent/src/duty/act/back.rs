//! The way back from a generation with which a consumer failed. That it failed is recorded before
//! the first step: after a crash on the way the former generation, which is published as a new one,
//! would else be taken for one, and nobody would know of the bad one any more.

use super::{
    Acted, Case, Generations, RolledBack, generations, is_consumers, is_new, was_restarted,
};
use crate::config::CertSpec;
use crate::duty::certs;
use crate::duty::certs::leaf::Leaf;
use crate::duty::certs::store::{Generation, Material};
use crate::duty::facts::Held;
use crate::duty::records::{ActRecord, Records};
use crate::error::{Code, Error, Result};
use crate::host::units::Active;

impl Case<'_> {
    /// The act that failed, and why, where the way back from it was begun. What was issued
    /// meanwhile ends it: that is taken to the consumer like any other.
    pub(super) fn going_back(&self, records: &Records) -> Option<(&ActRecord, &str)> {
        let act = self.record.act.as_ref().filter(|act| !act.ended)?;
        let why = act.failed.as_deref()?;
        let mut new = self.target.iter().filter(|(cert, held)| is_new(&self.record, cert, held));
        let belongs = new.all(|(cert, held)| {
            let is_bad = act.target.get(&cert.name) == Some(&held.generation);
            is_bad || self.is_former(cert, held, records)
        });
        belongs.then_some((act, why))
    }

    /// Whether what is published is a copy of what the consumer had.
    fn is_former(&self, cert: &CertSpec, held: &Held, records: &Records) -> bool {
        let former = self.former(cert, held, records);
        let leaf = former.and_then(|material| Leaf::of(&material).ok());
        leaf.is_some_and(|leaf| leaf.serial == held.leaf.serial)
    }

    /// Has the failure recorded. Where there is no former generation that is still valid, the new
    /// one stays.
    pub(super) async fn give_up(
        &self,
        act: &ActRecord,
        error: Error,
        records: &Records,
    ) -> Result<Acted> {
        let mut new = self.target.iter().filter(|(cert, held)| is_new(&self.record, cert, held));
        if !new.all(|(cert, held)| self.former(cert, held, records).is_some()) {
            return Err(error);
        }
        // The restart that follows shows against what runs now.
        let invocation = self.state().await.ok().and_then(|state| state.invocation);
        let (begun, failed) = (self.node.clock.now(), Some(format!("{error:#}")));
        let act = ActRecord { begun, invocation, failed, ..act.clone() };
        Ok(Acted::Intends(self.spec.name.clone(), act))
    }

    /// Puts the former generation of every changed certificate back and starts the consumer with
    /// it; what a crash has cut is carried on with.
    pub(super) async fn go_back(
        &self,
        act: &ActRecord,
        why: &str,
        records: &Records,
    ) -> Result<Acted> {
        let mut applied = self.record.applied.clone();
        applied.extend(generations(&self.target));
        let mut quarantined = Generations::new();
        let mut former = Vec::new();
        for (cert, held) in &self.target {
            let bad = act.target.get(&cert.name).copied();
            let Some(bad) = bad.filter(|bad| self.record.applied.get(&cert.name) != Some(bad))
            else {
                continue;
            };
            quarantined.insert(cert.name.clone(), bad);
            if held.generation == bad {
                let found = self.former(cert, held, records);
                let found = found.ok_or_else(|| Error::new(Code::RestartFailed, why))?;
                former.push((*cert, found));
            }
        }
        let restored = !former.is_empty();
        for (cert, material) in former {
            applied.insert(cert.name.clone(), certs::restore(self.node, cert, &material).await?);
        }
        let unit = self.spec.unit.as_deref().unwrap_or_default();
        let state = self.state().await?;
        // A start before the former certificate was in place is none with it.
        let had_it = !restored && was_restarted(act, &state);
        let again = match state.active {
            Active::Active if had_it => Ok(()),
            Active::Failed if had_it => Err(Error::new(Code::RestartFailed, "its unit failed")),
            _ => self.node.units.restart(unit, self.spec.limit).await,
        };
        let fate = match again {
            // Neither certificate is to blame: the way back is gone on with.
            Err(error) if !is_consumers(&error) => return Err(error),
            Ok(()) => "it was restarted with the former certificate".to_string(),
            Err(also) => format!("with the former certificate it failed too: {also:#}"),
        };
        let consumer = self.spec.name.clone();
        let error = Error::new(Code::RolledBack, format!("{why}; {fate}"))
            .advise(format!("systemctl status {unit}; journalctl -u {unit}"));
        Ok(Acted::RolledBack(RolledBack { consumer, quarantined, applied, error }))
    }

    /// What a consumer had before a generation. One that was kept and never published, because a
    /// crash came between, is newer and no consumer has had it: that one is tried last.
    fn former(&self, cert: &CertSpec, held: &Held, records: &Records) -> Option<Material> {
        let bad = records.certificate(&cert.name).quarantined;
        let identity = self.node.session.get().map(|(session, _)| session.facts.identity);
        // A stale one would be renewed at once by what the consumer has just failed with.
        let below = |limit: Generation| {
            certs::spare(self.node, cert, identity.as_ref(), &bad, Some(limit))
                .filter(|spare| !spare.is_stale)
        };
        let had = self.record.applied.get(&cert.name).map(|had| had.next().min(held.generation));
        let found = had.and_then(below).or_else(|| below(held.generation));
        found.map(|found| found.material)
    }
}

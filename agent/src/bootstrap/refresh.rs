//! The restart of what runs with files that have changed since its start: one at a time, under the
//! cluster's lock, while the other controllers are well, and in the way that costs least. A pod's
//! process is asked to end and the kubelet starts its container again, which takes 4 s where a new
//! manifest takes 12 (real API servers, with the rendered grace periods).

use std::time::Duration;

use super::facts::{Answer, ETCD_UNIT};
use super::outdated::{self, Outdated};
use super::{PAUSE, Run};
use crate::error::{Context, Result};
use crate::host::processes;

/// The longest that etcd may take to be started again.
const ETCD_LIMIT: Duration = Duration::from_secs(90);

/// An API server is back 4 s after it was asked to end, on an idle machine.
const OTHERS_LIMIT: Duration = Duration::from_secs(20);

impl Run<'_> {
    pub(super) async fn refresh(&mut self) -> Result<()> {
        loop {
            let notes = outdated::notes(self.node);
            let Some(note) = notes.first() else {
                return Ok(());
            };
            let was_well = self.is_well(note).await?;
            if was_well {
                self.until_others_are_well().await?;
            }
            let doing = || format!("restarting {}", note.program);
            self.restart(note).await.during(doing())?;
            // What was down before is another step's to wait for: a temporary controller never
            // answers at its successor's port.
            if was_well {
                self.until_well(note).await.during(doing())?;
            }
        }
    }

    /// One of them may be on its way up, from a restart of its own. It is not waited for long: to
    /// get well it may need the lock.
    pub(super) async fn until_others_are_well(&self) -> Result<()> {
        let begun = self.node.clock.monotonic();
        loop {
            let others = self.others_are_well().await;
            let waited = self.node.clock.monotonic().saturating_sub(begun);
            if others.is_ok() || waited >= OTHERS_LIMIT {
                return others;
            }
            self.node.clock.sleep(PAUSE).await;
        }
    }

    /// What is down already is disturbed by nothing.
    async fn is_well(&mut self, note: &Outdated) -> Result<bool> {
        let facts = self.look().await?;
        Ok(match outdated::component_of(&note.program) {
            Some(component) => facts.component(component).settled().is_ok(),
            None => facts.etcd == Answer::Ready,
        })
    }

    async fn restart(&mut self, note: &Outdated) -> Result<()> {
        if outdated::component_of(&note.program).is_none() {
            self.node.units.restart(ETCD_UNIT, ETCD_LIMIT).await?;
        } else {
            let proc = outdated::proc(self.node);
            processes::terminate(&proc, &note.process)?;
            while processes::is_alive(&proc, &note.process) {
                self.node.clock.sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// The step's limit ends it.
    async fn until_well(&mut self, note: &Outdated) -> Result<()> {
        while !self.is_well(note).await? {
            self.node.clock.sleep(PAUSE).await;
        }
        Ok(())
    }
}

//! The restart of what runs with files that have changed since its start: one at a time, under the
//! cluster's lock, while the other controllers are well, and in the way that costs least. A pod's
//! process is asked to end and the kubelet starts its container again, which takes 4 s where a new
//! manifest takes 12 (real API servers, with the rendered grace periods).

use std::time::Duration;

use super::facts::{self, Answer, PlaneFacts};
use super::manifests::{self, Pending};
use super::outdated::{self, Outdated};
use super::{PAUSE, Run};
use crate::config::plane::Component;
use crate::error::{Code, Context, Error, Result};
use crate::host::processes;
use crate::host::units::Active;

/// The longest that etcd, or the kubelet, may take to be started again, and that the kubelet may
/// take to replace a pod.
const UNIT_LIMIT: Duration = Duration::from_secs(90);

/// An API server is back 4 s after it was asked to end, on an idle machine.
const BACK_LIMIT: Duration = Duration::from_secs(20);

impl Run<'_> {
    pub(super) async fn refresh(&mut self) -> Result<()> {
        loop {
            let notes = outdated::notes(self.node);
            let next = next(&notes);
            let Some(last) = next.last() else {
                return Ok(());
            };
            let facts = self.look().await?;
            let well = next.iter().filter(|note| is_well(&facts, note));
            let well: Vec<&Outdated> = well.copied().collect();
            // One look that fell into an election says nothing of etcd.
            let has_etcd = next.iter().any(|note| note.program == outdated::ETCD);
            if has_etcd || !well.is_empty() {
                self.until_others_are_well().await?;
            }
            let doing = || format!("restarting {}", last.program);
            for note in &next {
                self.restart(note).await.during(doing())?;
            }
            // What was down before is another step's to wait for: a temporary controller never
            // answers at its successor's port.
            for note in well {
                self.until_well(note).await.during(doing())?;
            }
        }
    }

    /// Until a kubelet has met an API server it ends no static pod ("skipping delete because
    /// sources aren't ready"), and starts no other of that name: a mistake in a manifest that keeps
    /// the API server down could not be corrected. One that is slow for a look, or on its way up,
    /// says nothing: all components would be replaced at once, and the kubelet restarted.
    pub(super) async fn is_deaf(&mut self, pending: &[Pending]) -> Result<bool> {
        let replaces = |pending: &Pending| facts::exists(self.node, &pending.manifest.file.path);
        if !pending.iter().any(replaces) {
            return Ok(false);
        }
        let served = self.until_component(Component::Apiserver);
        match tokio::time::timeout(BACK_LIMIT, served).await {
            Ok(served) => served.map(|()| false),
            Err(_) => Ok(true),
        }
    }

    /// The next step starts the kubelet again, then ends what ran by the former manifests.
    pub(super) fn place_unheard(&self, pending: &[Pending]) -> Result<()> {
        let former: Vec<_> = pending
            .iter()
            .map(|pending| (pending.manifest.component, pending.former.clone()))
            .collect();
        outdated::mark_deaf(self.node, &former)?;
        pending
            .iter()
            .try_for_each(|pending| manifests::write(self.node, self.plane, &pending.manifest))
    }

    /// One of them may be on its way up, from a restart of its own. It is not waited for long: to
    /// get well it may need the lock.
    pub(super) async fn until_others_are_well(&self) -> Result<()> {
        let begun = self.node.clock.monotonic();
        loop {
            let others = self.others_are_well().await;
            let waited = self.node.clock.monotonic().saturating_sub(begun);
            if others.is_ok() || waited >= BACK_LIMIT {
                return others;
            }
            self.node.clock.sleep(PAUSE).await;
        }
    }

    async fn restart(&mut self, note: &Outdated) -> Result<()> {
        if note.file == outdated::MANIFEST {
            // The kubelet is about to end it; ending it first would bring the former one back. It
            // may have missed the change, or run by what is there again: then it is ended here.
            let former = std::slice::from_ref(&note.process);
            let replaced = tokio::time::timeout(UNIT_LIMIT, self.until_replaced(former)).await;
            if replaced.is_ok() {
                return Ok(());
            }
        }
        if let Some(unit) = outdated::unit_of(&note.program) {
            self.node.units.restart(unit, UNIT_LIMIT).await?;
        } else {
            self.kubelet_is_up().await?;
            let proc = outdated::proc(self.node);
            processes::terminate(&proc, &note.process)?;
            while processes::is_alive(&proc, &note.process) {
                self.node.clock.sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// What is ended is started again by the kubelet alone.
    async fn kubelet_is_up(&self) -> Result<()> {
        let state = self.node.units.state(outdated::KUBELET_UNIT).await?;
        if state.active == Active::Active {
            return Ok(());
        }
        let text = format!("not while the kubelet's unit is {:?}", state.active).to_lowercase();
        Err(Error::new(Code::PlaneWaiting, text)
            .advise("systemctl status kubelet; journalctl -u kubelet -n 50"))
    }

    /// The step's limit ends it.
    async fn until_well(&mut self, note: &Outdated) -> Result<()> {
        while !is_well(&self.look().await?, note) {
            self.node.clock.sleep(PAUSE).await;
        }
        Ok(())
    }
}

/// What is down already is disturbed by nothing.
fn is_well(facts: &PlaneFacts, note: &Outdated) -> bool {
    match outdated::component_of(&note.program) {
        Some(component) => facts.component(component).settled().is_ok(),
        None => note.program == outdated::ETCD && facts.etcd == Answer::Ready,
    }
}

/// What is restarted next: one program, but for an API server and its etcd where both are due.
/// An etcd that is asked to end waits 7 s for the watches of its API server, and half works
/// meanwhile; where the API server has ended first it is back in half a second, before the new
/// API server needs it.
fn next(notes: &[Outdated]) -> Vec<&Outdated> {
    let of = |program: &str| notes.iter().find(|note| note.program == program);
    // What it has run by a former manifest ends after it: it would start that again.
    if let Some(kubelet) = of(outdated::KUBELET) {
        return vec![kubelet];
    }
    match (of(Component::Apiserver.name()), of(outdated::ETCD)) {
        (Some(server), Some(etcd)) => vec![server, etcd],
        _ => notes.first().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::processes::Process;

    fn note(program: &str, pid: i32) -> Outdated {
        let process = Process { pid, started: 1 };
        Outdated { program: program.into(), process, file: "a".into(), former: None }
    }

    #[test]
    fn one_is_restarted_after_another_but_for_an_api_server_and_its_etcd() {
        let programs = |notes: &[Outdated]| -> Vec<String> {
            next(notes).iter().map(|note| note.program.clone()).collect()
        };
        assert_eq!(programs(&[]), Vec::<String>::new());
        let manager = note("kube-controller-manager", 1);
        let (server, etcd) = (note("kube-apiserver", 2), note("etcd", 3));
        assert_eq!(programs(&[manager.clone(), server.clone()]), ["kube-controller-manager"]);
        assert_eq!(programs(&[etcd.clone(), manager.clone()]), ["etcd"]);
        assert_eq!(
            programs(&[etcd.clone(), manager.clone(), server.clone()]),
            ["kube-apiserver", "etcd"]
        );
        assert_eq!(programs(&[etcd, manager, server, note("kubelet", 4)]), ["kubelet"]);
    }
}

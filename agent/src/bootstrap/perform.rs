//! The effect of each step: one short function for one step. All of them may be cut anywhere and
//! done again.

use std::time::Duration;

use serde_json::Value;

use super::facts::{self, Answer, LOOK, PlaneFacts};
use super::step::Step;
use super::{PAUSE, Progress, Run, clients, outdated, secrets, super_user};
use crate::config::plane::{Component, Member};
use crate::error::{Code, Error, Kind, Result};
use crate::host::processes;
use crate::wire::kube::Kube;

/// A call of the API in a run: a webhook may take its time.
const CALL: Duration = Duration::from_secs(15);

/// Vault that had no super-user for this run is asked again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// An API server that is well finds an etcd that is well at once.
const STUCK: Duration = Duration::from_secs(8);

/// What has been missing for as long is told.
const TELL: Duration = Duration::from_secs(5);

/// A cluster that has lost its majority does not get it back by waiting; one whose machines are
/// all booting is given this long.
const QUORUM: Duration = Duration::from_secs(30);

impl Run<'_> {
    pub(super) async fn perform(&mut self, step: Step) -> Result<()> {
        let limit = step.limit();
        let begun = self.node.clock.monotonic();
        let outcome = tokio::time::timeout(limit, self.effect(step)).await;
        match outcome {
            Ok(done) => done,
            Err(_) => {
                let waited = self.node.clock.monotonic().saturating_sub(begun).as_secs();
                let facts = self.look().await?;
                let missing = step.satisfied(self.plane.style, &facts, &self.journal).err();
                let missing = missing.unwrap_or_else(|| "it was cut".into());
                let text = format!("not done within {waited} s: {missing}");
                Err(Error::new(Code::PlaneWaiting, text).advise(advice(step)))
            }
        }
    }

    async fn effect(&mut self, step: Step) -> Result<()> {
        match step {
            Step::AwaitEtcd | Step::AwaitSuccessors => self.until_true(step).await,
            Step::AwaitApiserver => self.await_apiserver().await,
            Step::SharedSecrets => self.shared_secrets().await,
            Step::PlaceManifests | Step::PlaceTemporaryManifests => self.place_manifests().await,
            Step::RefreshComponents => self.refresh().await,
            Step::ApplyAssets => self.apply_assets().await,
            Step::RemoveTemporaryManifests => self.remove_temporary().await,
            Step::AwaitControlPlane => self.await_control_plane().await,
        }
    }

    /// An API server that has lost etcd for minutes goes on waiting for it when it is back: 103 s
    /// were seen after 200 s. One that is started again serves in 4 s, and as it serves nobody,
    /// that disturbs nobody.
    async fn await_apiserver(&mut self) -> Result<()> {
        let waiting = async {
            loop {
                let facts = facts::gather(self.node, None).await;
                if !facts.is_some_and(|facts| waits_for_etcd(&facts)) {
                    return;
                }
                self.node.clock.sleep(PAUSE).await;
            }
        };
        let facts = self.look().await?;
        if waits_for_etcd(&facts) && tokio::time::timeout(STUCK, waiting).await.is_err() {
            self.note("the API server does not find etcd again; it is started again".into());
            let name = Component::Apiserver.name();
            for process in outdated::ours(self.node, name) {
                processes::terminate(&outdated::proc(self.node), &process)?;
            }
        }
        self.until_true(Step::AwaitApiserver).await
    }

    /// Looks until a step is true; tells what is missing when that changes.
    async fn until_true(&mut self, step: Step) -> Result<()> {
        let begun = self.node.clock.monotonic();
        let mut told = (begun, String::new());
        loop {
            let facts = self.look().await?;
            let Err(missing) = step.satisfied(self.plane.style, &facts, &self.journal) else {
                return Ok(());
            };
            super::membership::check(&self.node.root, &self.etcd.data_dir)?;
            if self.gives_way(step, &facts) {
                return Ok(());
            }
            let waited = self.node.clock.monotonic().saturating_sub(begun);
            if step == Step::AwaitEtcd && waited >= QUORUM && self.lost_quorum().await {
                return Err(Error::new(Code::PlaneWaiting, missing).advise(advice(step)));
            }
            self.tell_missing(step, missing, &mut told);
            self.node.clock.sleep(PAUSE).await;
        }
    }

    /// Whether a cluster that once was whole has no majority now.
    async fn lost_quorum(&self) -> bool {
        let all = self.etcd.members.len();
        let up = all - clients::silent_members(self.node, self.etcd).await.len();
        self.journal.assets.is_some() && up <= all / 2
    }

    pub(super) fn tell_missing(
        &mut self,
        step: Step,
        missing: String,
        told: &mut (Duration, String),
    ) {
        let now = self.node.clock.monotonic();
        if missing != told.1 && now.saturating_sub(told.0) >= TELL {
            (self.tell)(&Progress::Waiting(step, missing.clone()));
            *told = (now, missing);
        }
    }

    async fn shared_secrets(&mut self) -> Result<()> {
        match secrets::establish(self.node, self.plane).await {
            // A mistake in Vault must not keep down what this node has good keys for.
            Err(error)
                if error.code() == Code::SharedSecrets
                    && secrets::missing(&self.node.root).is_none() =>
            {
                self.note(format!("the keys on this node stay in use: {error:#}"));
                self.report.remarks.get_or_insert(error);
            }
            done => done?,
        }
        self.shared_changed = None;
        Ok(())
    }

    /// Vault is asked for it now and then only, however often it is wanted.
    async fn obtain_super_user(&mut self, now: Duration) -> Result<()> {
        if let Some((at, code, text)) = &self.no_super_user
            && now.saturating_sub(*at) < AGAIN
        {
            return Err(Error::new(*code, text.clone()));
        }
        match super_user::obtain(self.node).await {
            Ok(user) => {
                self.super_user = Some(user);
                Ok(())
            }
            Err(error) => {
                self.no_super_user = Some((now, error.code(), format!("{error:#}")));
                Err(error)
            }
        }
    }

    /// The API of this node, as the super-user of this run.
    pub(super) async fn as_super_user(&mut self) -> Result<Kube> {
        let now = self.node.clock.monotonic();
        let fresh = |user: &super_user::SuperUser| user.expires > now + super_user::MARGIN;
        if !self.super_user.as_ref().is_some_and(fresh) {
            self.obtain_super_user(now).await?;
        }
        let identity = self.super_user.as_ref().map(|user| user.identity.clone());
        clients::kube(self.node, &clients::local(Component::Apiserver), identity, CALL)
    }

    /// Health of every component, and with a super-user the leases and this node's registration.
    async fn await_control_plane(&mut self) -> Result<()> {
        let mut told = (self.node.clock.monotonic(), String::new());
        loop {
            let missing = self.unwell().await?;
            let Some(missing) = missing else {
                return Ok(());
            };
            self.tell_missing(Step::AwaitControlPlane, missing, &mut told);
            self.node.clock.sleep(PAUSE).await;
        }
    }

    async fn unwell(&mut self) -> Result<Option<String>> {
        let facts = self.look().await?;
        if self.gives_way(Step::AwaitControlPlane, &facts) {
            return Ok(None);
        }
        for component in Component::ALL {
            if let Err(text) = facts.component(component).settled() {
                return Ok(Some(format!("{component}: {text}")));
            }
        }
        if let Err(error) = self.as_super_user().await {
            if !error.kind().is_away() {
                return Err(error);
            }
            let text = format!("leases and node were not looked at: {error:#}");
            if !self.report.notes.contains(&text) {
                self.note(text);
            }
            return Ok(None);
        }
        let asked = async {
            match self.unled(Duration::ZERO).await? {
                Some(text) => Ok(Some(text)),
                None => self.unregistered().await,
            }
        };
        match asked.await {
            Err(error) if error.kind() == Kind::Unavailable => Ok(Some(format!("{error:#}"))),
            other => other,
        }
    }

    async fn unregistered(&mut self) -> Result<Option<String>> {
        let kube = self.as_super_user().await?;
        let name = self.node.identity()?.instance_id;
        let Some(node) = kube.get(&format!("/api/v1/nodes/{name}")).await? else {
            return Ok(Some(format!("the kubelet has not registered {name}")));
        };
        if is_ready(&node) {
            return Ok(None);
        }
        // Without a pod network no node gets ready, and that may be brought by hand later.
        let text = why_unready(&node).map_or(String::new(), |found| format!(": {found}"));
        if text.contains("NetworkPluginNotReady") || text.contains("cni plugin") {
            self.note(format!("node {name} is registered and waits for its pod network{text}"));
            return Ok(None);
        }
        Ok(Some(format!("node {name} is not ready{text}")))
    }

    /// The members of etcd on the other controllers.
    pub(super) fn others(&self) -> Result<impl Iterator<Item = &'_ Member>> {
        let own = self.node.identity()?.private_ip;
        Ok(self.etcd.members.iter().filter(move |member| Some(member.address) != own))
    }

    /// The other controllers have a healthy etcd and API: only then may this one's be disturbed.
    pub(super) async fn others_are_well(&self) -> Result<()> {
        let port = clients::port(Component::Apiserver);
        let mut unwell = Vec::new();
        for member in self.others()? {
            let address = std::net::SocketAddr::new(member.address, port).to_string();
            let kube = clients::anonymous(self.node, &address, LOOK)?;
            let (api, etcd) =
                tokio::join!(kube.probe("/readyz"), clients::etcd_is_healthy(self.node, member));
            let api = matches!(api, Ok(crate::wire::kube::Probe::Ok));
            if !(api && etcd) {
                let what = if api { "etcd" } else { "API server" };
                unwell.push(format!("the {what} of {} ({})", member.name, member.address));
            }
        }
        match unwell.is_empty() {
            true => Ok(()),
            false => {
                let text = format!("not while another controller is unwell: {}", unwell.join(", "));
                Err(Error::new(Code::PlaneWaiting, text)
                    .advise("see `nodeagent status` there; this one goes on by itself then"))
            }
        }
    }
}

/// Whether the API server waits for an etcd that is well.
fn waits_for_etcd(facts: &PlaneFacts) -> bool {
    let answer = facts.component(Component::Apiserver);
    facts.etcd == Answer::Ready && matches!(answer, Answer::Unready(text) if text.contains("etcd"))
}

pub(super) fn is_ready(object: &Value) -> bool {
    condition(object).is_some_and(|ready| ready["status"] == "True")
}

/// The condition `Ready` of a node or a pod.
fn condition(object: &Value) -> Option<&Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")
}

/// Why a node is not ready, in the kubelet's words.
fn why_unready(node: &Value) -> Option<String> {
    condition(node)?["message"].as_str().map(|text| text.chars().take(200).collect())
}

pub(super) fn advice(step: Step) -> &'static str {
    match step {
        Step::AwaitEtcd => {
            "systemctl status etcd-member; journalctl -u etcd-member -n 50; a lost quorum or lost \
             data are not repaired by nodeagent: bring the members back first"
        }
        Step::AwaitApiserver | Step::AwaitControlPlane | Step::AwaitSuccessors => {
            "see why: journalctl -u kubelet -n 50; crictl ps -a; the logs in /var/log/pods"
        }
        _ => "see `nodeagent status` and run `nodeagent bootstrap` again",
    }
}

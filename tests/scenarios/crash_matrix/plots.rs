//! The stories that crashes come into: where each begins, what is run, and when it is over.

use rig::consumer::Mode;
use rig::stage::{Stage, StageOptions};
use rig::systemd::Behaviour;
use serde_json::Value;

use super::disk::Disk;
use crate::play::*;

/// Where a wish for a new certificate lies, which `renew` leaves.
pub(super) const WISH: &str = "/run/nodeagent/requests/kubelet-server";

/// Who Vault last took the node for.
const IDENTITY: &str = "/var/lib/nodeagent/identity.json";

/// A story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plot {
    /// A worker's first boot, and the files that its kubelet is told by.
    FirstBoot,
    /// A rotation with a consumer that rereads, the oldest of the archive dropped.
    Rotation,
    /// A rotation with a consumer that has to be restarted.
    Restart,
    /// A rotation with a consumer that is reloaded.
    Reload,
    /// A rotation with a consumer that does not come up with the new certificate.
    RollBack,
    /// A published key that was torn is repaired from the archive.
    Repair,
    /// A person's `renew` while no agent runs.
    Renew,
    /// A person's `bootstrap`, up to its journal: what follows needs etcd.
    Bootstrap,
}

/// What a story is disturbed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// SIGKILL, or nothing.
    Kill,
    /// What was not fsynced is lost, and /run.
    Power,
}

impl Plot {
    pub(super) const ALL: [Plot; 8] = [
        Plot::FirstBoot,
        Plot::Rotation,
        Plot::Restart,
        Plot::Reload,
        Plot::RollBack,
        Plot::Repair,
        Plot::Renew,
        Plot::Bootstrap,
    ];

    pub(super) fn options(self) -> StageOptions {
        let worker = StageOptions::worker();
        let never = |text: &str| {
            let options = StageOptions { consumer: Mode::RereadNever, ..StageOptions::worker() };
            options.with(&kubelet(text))
        };
        match self {
            Plot::FirstBoot => {
                worker.with("[cluster]\napi_server = \"https://api.rig.test:6443\"\n")
            }
            Plot::Rotation | Plot::Repair | Plot::Renew => worker,
            Plot::Restart | Plot::RollBack => never("act = \"restart\""),
            Plot::Reload => never("act = \"reload\""),
            Plot::Bootstrap => {
                let plane = "[cluster]\napi_server = \"https://api.rig.test:6443\"\n\
                             [etcd.members]\nc1 = \"10.0.0.10\"\n\
                             [control_plane]\nimage = \"localhost/{component}:1\"\n\
                             automatic = false\n";
                StageOptions { role: "controller", ..worker.with(plane) }
            }
        }
    }

    /// Leaves a fresh stage as the story finds it, with no agent running.
    pub(super) fn prepare(self, stage: &Stage) -> Disk {
        if self == Plot::FirstBoot {
            return Disk::default();
        }
        let agent = stage.run().expect("the agent starts");
        if self == Plot::Bootstrap {
            // It has logged in once, and that is all.
            until("identity", || stage.path(IDENTITY).exists());
            agent.kill().expect("it runs");
            let mut disk = Disk::read(stage.root());
            disk.0.retain(|path, _| IDENTITY.starts_with(path.as_str()));
            return disk;
        }
        wait_healthy(stage);
        stage.start_kubelet().expect("the consumer starts");
        // So that the next one drops one of the archive.
        let renewals = if self == Plot::Rotation { 2 } else { 0 };
        for _ in 0..renewals {
            renew(stage);
            until("one generation", || generations(stage, PUBLISHED).len() == 1);
            wait_healthy(stage);
        }
        assert_eq!(agent.stop(SOON), Ok(0));
        match self {
            Plot::Rotation | Plot::Restart | Plot::Reload | Plot::RollBack => {
                let output = run_verb(stage, &["renew", SERVER]);
                assert!(output.status.success(), "{}", text_of(&output));
            }
            Plot::Repair => {
                let key = format!("{PUBLISHED}/current/key.pem");
                let text = stage.read(&key);
                stage.write(&key, &text.as_bytes()[..text.len() / 2]).expect("it is torn");
            }
            Plot::FirstBoot | Plot::Renew | Plot::Bootstrap => {}
        }
        Disk::read(stage.root())
    }

    /// The verb that the crash comes into.
    pub(super) fn verb(self) -> &'static [&'static str] {
        match self {
            Plot::Renew => &["renew", SERVER],
            Plot::Bootstrap => &["bootstrap"],
            _ => &["run"],
        }
    }

    /// Whether the node boots at the beginning: its consumer is not up yet.
    pub(super) fn boots(self) -> bool {
        matches!(self, Plot::FirstBoot | Plot::Bootstrap)
    }

    /// Lays the disk down, and has the consumer run with what is on it, or be down where the node
    /// boots.
    pub(super) fn set(self, stage: &Stage, disk: &Disk) {
        set_off(stage);
        if self == Plot::Repair {
            // It had read its files before the one was torn.
            whole(disk).lay(stage.root());
            stage.start_kubelet().expect("the consumer starts");
        }
        disk.lay(stage.root());
        if self.boots() || self == Plot::Repair {
            return;
        }
        stage.start_kubelet().expect("the consumer starts");
        if self == Plot::RollBack {
            let good = serial(stage);
            start_only_with(stage, &good);
        }
    }

    /// Whether the story is over, by what the disk, the consumer and the status say. `began` is the
    /// serial that was published at its beginning; a wish does not outlive a loss of power, and so
    /// what was to come of it need not.
    pub(super) fn is_over(self, stage: &Stage, began: Option<&str>, crash: Crash) -> bool {
        if self == Plot::Bootstrap {
            return stage.log().contains("waiting: there is no certificate");
        }
        let status = stage.status();
        // One that was taken back is told as failing, and has what is published.
        let back = problem(&status, "rolled-back").is_some();
        let current = stage.consumer("kubelet")["state"] == "current" || back;
        if stage.path(WISH).exists() || generations(stage, PUBLISHED).len() != 1 || !current {
            return false;
        }
        let now = stage.certificate(SERVER)["serial"].clone();
        match self {
            _ if crash == Crash::Power => now.is_string() && is_well(&status),
            Plot::RollBack => now.as_str() == began && stage.certificate(SERVER)["generation"] != 1,
            Plot::Repair => now.as_str() == began && status["health"] == "healthy",
            _ => status["health"] == "healthy" && now.as_str() != began,
        }
    }
}

/// Healthy, but for what is told of a consumer that was taken back.
fn is_well(status: &Value) -> bool {
    let problems = status["problems"].as_array().cloned().unwrap_or_default();
    let told = problems.iter().all(|problem| problem["code"] == "rolled-back");
    told && (status["health"] == "healthy" || !problems.is_empty())
}

/// The disk with what the archive has in place of a torn key.
fn whole(disk: &Disk) -> Disk {
    let mut whole = disk.clone();
    let archived = "/var/lib/nodeagent/archive/kubelet-server/00000001/key.pem";
    let key = disk.0[archived].content.clone();
    let torn = whole.0.get_mut(&format!("{PUBLISHED}/00000001/key.pem")).expect("it is there");
    torn.content = key;
    whole
}

/// As a machine boots: its consumer is down until its gate opens. A job that outlived who asked for
/// it is waited for: its end would else be taken for one of the next story's unit.
pub(super) fn set_off(stage: &Stage) {
    assert!(stage.systemd.wait_idle(KUBELET, SOON), "a job of {KUBELET} does not end");
    stage.kubelet.stop();
    let reloading = stage.kubelet.clone();
    let unit = stage.kubelet.unit().with_reload(Behaviour::run(move || reloading.restart()));
    stage.systemd.add_unit(KUBELET, unit);
}

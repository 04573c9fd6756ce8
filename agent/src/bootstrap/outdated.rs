//! What runs with files that have changed since its start.
//!
//! Some files are read once: an API server's service-account keys and its etcd CA, etcd's client
//! CA, the controllers' kubeconfig. Before the agent changes such a file it notes which processes
//! read the former one. They are named by pid and start, so that the note means nothing once they
//! are gone, and it lies in /run, which a reboot clears as it ends them. No clock is compared.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::facts::ETCD_UNIT;
use super::manifests::{self, Pending};
use crate::config::plane::Component;
use crate::error::{Code, Error, Result};
use crate::host::files::Root;
use crate::host::processes::{self, Process};
use crate::node::Node;
use crate::render;

/// Where the notes lie.
const PATH: &str = "/run/nodeagent/outdated.json";

const LIMIT: usize = 64 << 10;

/// What stands for a file in the note of a process that a new manifest replaces.
pub const MANIFEST: &str = "its manifest";

/// etcd's program, which a unit runs.
pub const ETCD: &str = "etcd";

/// The kubelet's program, which a unit runs too.
pub const KUBELET: &str = "kubelet";

/// That unit.
pub const KUBELET_UNIT: &str = "kubelet.service";

/// A process that has to be restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outdated {
    /// Its program: a component's name, or `etcd`.
    pub program: String,
    /// Which process of it.
    pub process: Process,
    /// The file that has changed.
    pub file: String,
    /// What it runs by, where a new manifest is to replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Former>,
}

/// The manifest that a process runs by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Where it lay.
    path: PathBuf,
    /// The pod that it described ([`manifests::pod`]).
    pod: String,
}

impl Outdated {
    fn of(program: &str, process: Process, file: &str) -> Outdated {
        Outdated { program: program.into(), process, file: file.into(), former: None }
    }

    /// Whether the manifest that it runs by lies there again, or still where a run ended before it
    /// wrote another: the kubelet replaces nothing then, and it would be waited for until a reboot.
    fn is_taken_back(&self, root: &Root) -> bool {
        let same = |by: &Former| manifests::pod(root, &by.path).is_some_and(|pod| pod == by.pod);
        self.former.as_ref().is_some_and(same)
    }
}

/// The processes of a program that this agent has set up: others may have its name, a tenant's
/// etcd or a second scheduler, and only ours are told by files of the plane directory.
pub(super) fn ours(node: &Node, program: &str) -> Vec<Process> {
    let proc = proc(node);
    let mut found = processes::named(&proc, program);
    found.retain(|process| processes::mentions(&proc, process, PLANE));
    found
}

/// Where the files lie that our processes are told by.
const PLANE: &str = concat!("/etc/kubernetes/nodeagent", "/");

/// Who reads a file of the plane directory only at its start. What is not named re-reads it.
pub fn readers(name: &str) -> &'static [&'static str] {
    match name {
        "trust/etcd.pem" => &[ETCD, "kube-apiserver"],
        "trust/cluster.pem" => &["kube-controller-manager"],
        // It is re-read too, but only once a minute: where a run ends, the new keys are in use.
        "encryption.yaml" => &["kube-apiserver"],
        "audit-policy.yaml" | "service-account/verify.pem" => &["kube-apiserver"],
        "service-account/signing.key" => &["kube-apiserver", "kube-controller-manager"],
        "controller-manager.conf" => &["kube-controller-manager"],
        "scheduler.conf" => &["kube-scheduler"],
        _ => &[],
    }
}

/// Notes who reads a file that is about to change.
fn mark(node: &Node, name: &str) -> Result<()> {
    let mut notes = load(node);
    let before = notes.len();
    for program in readers(name) {
        for process in ours(node, program) {
            add(&mut notes, Outdated::of(program, process, name));
        }
    }
    if notes.len() == before {
        return Ok(());
    }
    store(node, notes)
}

/// Writes a file of the plane directory, once its readers are noted; gives its name there.
pub fn replace(node: &Node, file: &render::File) -> Result<String> {
    let name = file.path.strip_prefix(render::DIRECTORY).unwrap_or(&file.path);
    let name = name.to_string_lossy().into_owned();
    mark(node, &name)?;
    let parent = file.path.parent();
    let parent = parent.ok_or_else(|| Error::new(Code::Bug, "a file without a directory"))?;
    node.root.make_dir(parent, 0o755, None)?;
    node.root.write_atomic(&file.path, file.content.text().as_bytes(), file.mode, None)?;
    Ok(name)
}

/// Notes processes that a new manifest is about to replace: the kubelet ends them, and whatever
/// becomes of this run, the next one waits for it.
pub fn mark_replaced(node: &Node, pending: &Pending) -> Result<()> {
    let Pending { manifest, former } = pending;
    let path = &manifest.file.path;
    // What cannot be read as a pod started nothing, and the kubelet may never have seen it.
    let Some(pod) = manifests::pod(&node.root, path) else { return Ok(()) };
    let by = Some(Former { path: path.clone(), pod });
    let mut notes = load(node);
    for process in former {
        let note = Outdated::of(manifest.component.name(), process.clone(), MANIFEST);
        // It runs by what lay there when it was noted first.
        if !notes.iter().any(|other| other.process == note.process && other.file == note.file) {
            notes.push(Outdated { former: by.clone(), ..note });
        }
    }
    store(node, notes)
}

/// Notes a kubelet that has met no API server since it started, and what it runs by manifests that
/// are about to change: it would never let go of them.
pub fn mark_deaf(node: &Node, former: &[(Component, Vec<Process>)]) -> Result<()> {
    let mut notes = load(node);
    for process in ours(node, KUBELET) {
        add(&mut notes, Outdated::of(KUBELET, process, "manifests"));
    }
    for (component, processes) in former {
        for process in processes {
            let note = Outdated::of(component.name(), process.clone(), "its former manifest");
            add(&mut notes, note);
        }
    }
    store(node, notes)
}

fn add(notes: &mut Vec<Outdated>, note: Outdated) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

fn store(node: &Node, mut notes: Vec<Outdated>) -> Result<()> {
    notes.retain(|note| processes::is_alive(&proc(node), &note.process));
    let bytes = serde_json::to_vec(&notes)
        .map_err(|error| Error::new(Code::Bug, error.to_string()).at(PATH))?;
    node.root.write_volatile(Path::new(PATH), &bytes, 0o600)
}

/// The processes that were noted and still run, by something else than what is there now.
pub fn notes(node: &Node) -> Vec<Outdated> {
    let mut notes = load(node);
    notes.retain(|note| {
        processes::is_alive(&proc(node), &note.process) && !note.is_taken_back(&node.root)
    });
    notes
}

/// Whether a component runs on this node, well or not.
pub fn runs(node: &Node, component: Component) -> bool {
    !ours(node, component.name()).is_empty()
}

/// The same for people: `etcd (trust/etcd.pem)`.
pub fn running(node: &Node) -> Vec<String> {
    notes(node).iter().map(|note| format!("{} ({})", note.program, note.file)).collect()
}

/// Notes that cannot be read cost a restart that is due; it is told by what does not work then.
fn load(node: &Node) -> Vec<Outdated> {
    let bytes = node.root.read_optional(Path::new(PATH), LIMIT).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Where the kernel shows the processes of this machine.
pub(super) fn proc(node: &Node) -> std::path::PathBuf {
    node.root.path(Path::new("/proc"))
}

/// The unit of a program that has one; the others are static pods.
pub fn unit_of(program: &str) -> Option<&'static str> {
    match program {
        ETCD => Some(ETCD_UNIT),
        KUBELET => Some(KUBELET_UNIT),
        _ => None,
    }
}

/// The component that a program is.
pub fn component_of(program: &str) -> Option<Component> {
    Component::ALL.into_iter().find(|component| component.name() == program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_is_taken_back_replaces_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Root::new(directory.path());
        let path = Path::new("/scheduler.yaml");
        let write = |text: &str| std::fs::write(root.path(path), text).expect("a file");
        write("kind: Pod\nspec: {v: 1}\n");
        let pod = manifests::pod(&root, path).expect("a pod");
        let process = Process { pid: 1, started: 1 };
        let plain = Outdated::of("kube-scheduler", process, MANIFEST);
        let note = Outdated { former: Some(Former { path: path.into(), pod }), ..plain.clone() };
        let taken_back = |text: &str| {
            write(text);
            (note.is_taken_back(&root), plain.is_taken_back(&root))
        };
        assert_eq!(taken_back("kind: Pod\nspec: {v: 2}\n"), (false, false), "another");
        assert_eq!(taken_back("spec:\n  v: 1 # the same\nkind: Pod\n"), (true, false));
        assert_eq!(taken_back(": {"), (false, false), "what says nothing");
        std::fs::remove_file(root.path(path)).expect("a file");
        assert!(!note.is_taken_back(&root), "the kubelet ends it");
    }
}

//! The directory that the kubelet takes static pods from. A manifest is made elsewhere and renamed
//! into it, so that the kubelet never sees half of one; what the agent did not write is left alone
//! and told; what is removed is gone only when its process is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::facts::ManifestFact;
use super::outdated;
use crate::backoff;
use crate::config::plane::{Component, ControlPlane, Style};
use crate::error::{Code, Context, Error, Result};
use crate::host::files::Root;
use crate::host::processes::{self, Process};
use crate::node::Node;
use crate::render::{self, Manifest, Place};

/// Below the plane directory: where manifests are made.
const STAGED: &str = "/etc/kubernetes/nodeagent/staged";

/// A manifest larger than this is none of ours.
const LIMIT: usize = 1 << 20;

/// Between two looks at a process that is to end.
const PAUSE: Duration = Duration::from_millis(100);

/// What one look at the directory saw.
#[derive(Debug, Default)]
pub struct Placed {
    /// The manifests that the style asks for.
    pub manifests: BTreeMap<Component, ManifestFact>,
    /// Files that the agent did not write.
    pub foreign: Vec<String>,
    /// Temporary manifests and processes that are there.
    pub temporary: Vec<String>,
}

/// Where the pods of a style are from, as far as they are static.
pub fn place_of(style: Style) -> Place {
    match style {
        Style::Static => Place::Static,
        Style::SelfHosted => Place::Temporary,
    }
}

/// Looks at the directory.
pub fn look(node: &Node, plane: &ControlPlane) -> Placed {
    let mut placed = Placed::default();
    match wanted(node, plane) {
        Ok(manifests) => {
            for manifest in &manifests {
                placed.manifests.insert(manifest.component, examine(node, manifest));
            }
        }
        Err(error) => {
            let unknown = ManifestFact::Unknown(format!("{error:#}"));
            let each = Component::ALL.into_iter().map(|component| (component, unknown.clone()));
            placed.manifests.extend(each);
        }
    }
    placed.foreign = foreign(node, &plane.manifests);
    if plane.style == Style::SelfHosted {
        placed.temporary = temporary(node, plane);
    }
    placed
}

/// The manifests that the style asks for.
pub fn wanted(node: &Node, plane: &ControlPlane) -> Result<Vec<Manifest>> {
    super::inputs::Inputs::gather(node)?
        .with(node, |input| render::manifests(input, place_of(plane.style)))
}

fn examine(node: &Node, manifest: &Manifest) -> ManifestFact {
    match super::clients::text(node, &manifest.file.path, LIMIT) {
        // A link that leads nowhere is somebody's all the same.
        Ok(None) if super::facts::exists(node, &manifest.file.path) => {
            ManifestFact::Foreign(manifest.file.path.display().to_string())
        }
        Ok(None) => ManifestFact::Missing,
        Ok(Some(text)) if text == manifest.file.content.text() => ManifestFact::Current,
        Ok(Some(text)) if render::is_ours(&text) => ManifestFact::Differs,
        Ok(Some(_)) => ManifestFact::Foreign(manifest.file.path.display().to_string()),
        Err(error) => ManifestFact::Unknown(format!("{error:#}")),
    }
}

/// Names that a kubelet takes for manifests: it leaves out what begins with a dot.
fn foreign(node: &Node, directory: &Path) -> Vec<String> {
    let entries = node.root.list(directory).unwrap_or_default();
    let names = entries.into_iter().map(|entry| entry.name).filter(|name| !name.starts_with('.'));
    names
        .map(|name| directory.join(name))
        .filter(|path| {
            let text = super::clients::text(node, path, LIMIT).ok().flatten();
            !text.is_some_and(|text| render::is_ours(&text))
        })
        .map(|path| path.display().to_string())
        .collect()
}

fn temporary_path(plane: &ControlPlane, component: Component) -> PathBuf {
    plane.manifests.join(format!("{component}-temporary.yaml"))
}

fn temporary(node: &Node, plane: &ControlPlane) -> Vec<String> {
    let mut found = Vec::new();
    for component in Component::ALL {
        let path = temporary_path(plane, component);
        if super::facts::exists(node, &path) {
            found.push(path.display().to_string());
        } else if let Some(process) = temporary_processes(node, component).first() {
            found.push(format!("process {} of {component}-temporary", process.pid));
        }
    }
    found
}

/// Whether a component runs that is no temporary one.
pub fn final_runs(node: &Node, component: Component) -> bool {
    let temporary = temporary_processes(node, component);
    outdated::ours(node, component.name()).iter().any(|process| !temporary.contains(process))
}

/// The processes of a temporary pod: its command line says so.
fn temporary_processes(node: &Node, component: Component) -> Vec<Process> {
    let proc = outdated::proc(node);
    let argument = render::temporary_argument(component);
    let mut found = outdated::ours(node, component.name());
    found.retain(|process| processes::has_argument(&proc, process, argument));
    found
}

/// What is to be written: a manifest, and the processes that its former text has started.
#[derive(Debug)]
pub struct Pending {
    /// The manifest.
    pub manifest: Manifest,
    /// What runs by the former one, and will be replaced.
    pub former: Vec<Process>,
}

/// The manifests that are not in place. What stands there and is not ours is an error before
/// anything is written.
pub fn pending(node: &Node, plane: &ControlPlane) -> Result<Vec<Pending>> {
    let mut pending = Vec::new();
    for manifest in wanted(node, plane)? {
        let former = match examine(node, &manifest) {
            ManifestFact::Current => continue,
            ManifestFact::Missing => Vec::new(),
            ManifestFact::Differs if same_pod(node, &manifest) => Vec::new(),
            ManifestFact::Differs => running(node, plane, manifest.component),
            ManifestFact::Foreign(path) => {
                return Err(foreign_file(&path, "nodeagent did not write it and leaves it alone"));
            }
            ManifestFact::Unknown(text) => {
                return Err(foreign_file(&manifest.file.path.display().to_string(), &text));
            }
        };
        pending.push(Pending { manifest, former });
    }
    Ok(pending)
}

/// The kubelet compares pods and not texts: another comment replaces nothing.
fn same_pod(node: &Node, manifest: &Manifest) -> bool {
    let held = pod(&node.root, &manifest.file.path);
    held.is_some() && held == pod_of(manifest.file.content.text())
}

/// What a manifest says, by which it is known again; none where it is not there or says nothing.
pub(super) fn pod(root: &Root, path: &Path) -> Option<String> {
    let bytes = root.read_optional(path, LIMIT).ok().flatten()?;
    pod_of(std::str::from_utf8(&bytes).ok()?)
}

fn pod_of(text: &str) -> Option<String> {
    let pod = serde_saphyr::from_str::<serde_json::Value>(text).ok()?;
    Some(format!("{:016x}", backoff::hash(&pod.to_string())))
}

fn foreign_file(path: &str, text: &str) -> Error {
    Error::new(Code::Foreign, text)
        .at(path)
        .advise(format!("move it out of the directory: mv {path} /var/tmp/"))
}

/// The processes of this style's static pods of a component.
fn running(node: &Node, plane: &ControlPlane, component: Component) -> Vec<Process> {
    match plane.style {
        Style::Static => outdated::ours(node, component.name()),
        Style::SelfHosted => temporary_processes(node, component),
    }
}

/// Puts a manifest in place; it appears whole.
pub fn write(node: &Node, plane: &ControlPlane, manifest: &Manifest) -> Result<()> {
    make_directories(node, plane)?;
    let file = &manifest.file;
    let bytes = file.content.text().as_bytes();
    node.root.write_through(Path::new(STAGED), &file.path, bytes, file.mode)
}

/// Puts all manifests in place that are not, without waiting for what they replace.
pub fn place(node: &Node, plane: &ControlPlane) -> Result<()> {
    let pending = pending(node, plane)?;
    pending.iter().try_for_each(|pending| write(node, plane, &pending.manifest))
}

fn make_directories(node: &Node, plane: &ControlPlane) -> Result<()> {
    node.root.make_dir(Path::new(render::DIRECTORY), 0o755, None)?;
    node.root.make_dir(Path::new(STAGED), 0o700, None)?;
    match node.root.stat(&plane.manifests)? {
        Some(_) => Ok(()),
        None => node.root.make_dir(&plane.manifests, 0o755, None),
    }
}

/// Removes the temporary manifest of a component, where it is ours, and waits until its process is
/// gone: the deadline is the step's.
pub async fn remove_temporary(
    node: &Node,
    plane: &ControlPlane,
    component: Component,
) -> Result<()> {
    let path = temporary_path(plane, component);
    if let Some(text) = super::clients::text(node, &path, LIMIT)? {
        if !render::is_ours(&text) {
            return Err(Error::new(Code::Foreign, "nodeagent did not write it")
                .at(path.display())
                .advise("move it out of the directory by hand"));
        }
        node.root.unlink(&path)?;
        node.root.fsync_dir(&plane.manifests).during("removing a temporary manifest")?;
    }
    while !temporary_processes(node, component).is_empty() {
        node.clock.sleep(PAUSE).await;
    }
    Ok(())
}

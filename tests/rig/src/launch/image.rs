//! The image that instances boot from, as far as it is none of the agent's business: what a site
//! of Flatcar brings along for Kubernetes, on the disk of `Flavour::Kube`.

use std::fs;
use std::io::ErrorKind;

use crate::machine::Machine;
use crate::node::write;

/// As users bring it: it knows nothing of the agent, is not enabled, and would start with flags of
/// its own.
const KUBELET: &str = include_str!("image/kubelet.service");
/// Flatcar enables nothing that nobody asked for; Debian would enable everything.
const PRESET: &str = "disable *\n";
/// What the image must not decide: a first boot makes the one, Ignition the others.
const ABSENT: [&str; 2] =
    ["etc/machine-id", "etc/systemd/system/multi-user.target.wants/containerd.service"];

/// Makes the disk of a machine that has never booted an image.
pub(super) fn install(machine: &Machine) -> Result<(), String> {
    write(machine, "/usr/lib/systemd/system/kubelet.service", KUBELET)?;
    write(machine, "/usr/lib/systemd/system-preset/99-default.preset", PRESET)?;
    for path in ABSENT {
        let path = machine.root().join(path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("{}: {error}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

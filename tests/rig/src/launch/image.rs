//! The image that instances boot from, as far as it is none of the agent's business: what a site
//! of Flatcar brings along for Kubernetes, on the disk of `Flavour::Kube`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use super::text;
use crate::machine::Machine;
use crate::node::write;

/// As users bring it: it knows nothing of the agent, is not enabled, and would start with flags of
/// its own.
const KUBELET: &str = include_str!("image/kubelet.service");
/// Flatcar has one too: without TLS and with its data wherever /var/lib/etcd is. Nobody wants it.
const ETCD: &str = include_str!("image/etcd-member.service");
/// What Flatcar does after it has merged system extensions: their units are there from then on.
const EXTENDED: &str = include_str!("image/ensure-sysext.service");
/// What is not as on a machine of one's own: whatever else runs on this host may take a loop device
/// at the same instant.
const AGAIN: &str = "[Service]\nRestart=on-failure\nRestartMode=direct\nRestartSec=1\n";
/// The units of an image that start with it.
const SYSINIT: &str = "/etc/systemd/system/sysinit.target.wants";
/// Flatcar enables nothing that nobody asked for; Debian would enable everything.
const PRESET: &str = "disable *\n";
/// What the image must not decide: a first boot makes the one, Ignition the others.
const ABSENT: [&str; 2] =
    ["etc/machine-id", "etc/systemd/system/multi-user.target.wants/containerd.service"];

/// Makes the disk of a machine that has never booted an image.
pub(super) fn install(machine: &Machine) -> Result<(), String> {
    write(machine, "/usr/lib/systemd/system/kubelet.service", KUBELET)?;
    write(machine, "/usr/lib/systemd/system/etcd-member.service", ETCD)?;
    write(machine, "/usr/lib/systemd/system-preset/99-default.preset", PRESET)?;
    write(machine, "/usr/lib/systemd/system/ensure-sysext.service", EXTENDED)?;
    write(machine, "/usr/lib/systemd/system/systemd-sysext.service.d/again.conf", AGAIN)?;
    let wants = machine.root().join(SYSINIT.trim_start_matches('/'));
    fs::create_dir_all(&wants).map_err(text)?;
    for unit in ["systemd-sysext.service", "ensure-sysext.service"] {
        symlink(format!("/usr/lib/systemd/system/{unit}"), wants.join(unit)).map_err(text)?;
    }
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

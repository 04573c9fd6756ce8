//! The agent on a machine's disk as a package puts it there: the static binary, the units as they
//! are shipped, and what a package enables.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::Machine;

/// Where the agent is installed, as its units name it.
pub const PROGRAM: &str = "/usr/bin/nodeagent";

const BUILD: &str = "cargo build --release --target x86_64-unknown-linux-musl -p nodeagent";
const BUILT: &str = "x86_64-unknown-linux-musl/release/nodeagent";
/// Where each part of `units/` is installed.
const INSTALLED: [(&str, &str); 4] = [
    ("system", "/usr/lib/systemd/system"),
    ("tmpfiles.d", "/usr/lib/tmpfiles.d"),
    ("config.d", "/usr/lib/nodeagent/config.d"),
    ("nft", "/usr/lib/nodeagent"),
];

/// The binary and the units, where a package puts them, and these units enabled as a package
/// enables them.
pub(crate) fn install(machine: &Machine, program: &Path, enabled: &[&str]) -> Result<(), String> {
    let bytes = fs::read(program).map_err(text)?;
    machine.write(PROGRAM, &bytes, 0o755).map_err(|error| error.to_string())?;
    for (part, inside) in INSTALLED {
        install_files(machine, &repository().join("units").join(part), inside)?;
    }
    let mut preset = Command::new("chroot");
    preset.arg(machine.root()).args(["systemctl", "preset"]).args(enabled);
    let output = preset.env("SYSTEMD_OFFLINE", "1").output().map_err(text)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("preset: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

fn install_files(machine: &Machine, from: &Path, inside: &str) -> Result<(), String> {
    for entry in fs::read_dir(from).map_err(text)? {
        let path = entry.map_err(text)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let inside = format!("{inside}/{name}");
        if path.is_dir() {
            install_files(machine, &path, &inside)?;
            continue;
        }
        let bytes = fs::read(&path).map_err(text)?;
        machine.write(&inside, &bytes, 0o644).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The agent as it is shipped: a static binary, which runs in every machine. NODEAGENT_STATIC
/// names it; otherwise it is the last one built.
pub fn static_binary() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("NODEAGENT_STATIC") {
        let path = PathBuf::from(path);
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!("NODEAGENT_STATIC: there is no program at {}", path.display())),
        };
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let path = target.unwrap_or_else(|| repository().join("target")).join(BUILT);
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("there is no static binary of the agent: build it with {BUILD}")),
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(error: io::Error) -> String {
    error.to_string()
}

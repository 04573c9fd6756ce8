//! The loop devices of the host. A machine of the rig has no udev that would make their nodes, and
//! the kernel gives out the first device that is free, whoever holds the others.

use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// What images are attached through.
const CONTROL: &str = "/dev/loop-control";
/// The kernel's number of the kind of device.
const MAJOR: u64 = 7;
/// Each machine with an extension takes one, and a host has a few of its own.
const NODES: u64 = 32;

/// The nodes of the first devices and the one that they are asked for at, made where they are
/// missing.
pub(super) fn nodes() -> Result<Vec<PathBuf>, String> {
    let control = PathBuf::from(CONTROL);
    if !control.exists() {
        return Err(format!("{CONTROL} is missing: this host has no loop devices"));
    }
    let mut nodes = vec![control];
    for number in 0..NODES {
        let path = PathBuf::from(format!("/dev/loop{number}"));
        if !path.exists() {
            make(&path, number)?;
        }
        nodes.push(path);
    }
    Ok(nodes)
}

fn make(path: &Path, number: u64) -> Result<(), String> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP;
    match mknod(path, SFlag::S_IFBLK, mode, makedev(MAJOR, number)) {
        // Somebody else made it meanwhile.
        Err(nix::errno::Errno::EEXIST) | Ok(()) => Ok(()),
        Err(errno) => Err(format!("{}: {errno}", path.display())),
    }
}

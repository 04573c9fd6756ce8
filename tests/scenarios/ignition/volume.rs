//! The volume of etcd: what its unit runs, on files in place of disks. A disk that is not blank is
//! left as it is, whatever is on it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::repository;
use crate::play::{skip, text_of};

/// The least that mkfs.xfs takes is 300 MB; none of it is written but a few blocks.
const SIZE: u64 = 400 << 20;
/// What is compared of a disk: file systems and partition tables begin here.
const HEAD: usize = 1 << 20;

/// The unit's own command, on a disk at this path.
fn format(disk: &Path) -> Option<Output> {
    let unit = repository().join("ignition/units/etcd-volume.service");
    let unit = fs::read_to_string(unit).expect("a unit");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    if !Path::new(program).exists() {
        return skip(&format!("there is no {program}: install xfsprogs"));
    }
    let mut command = Command::new(program);
    command.args(words.filter(|word| *word != "/dev/xvdf")).arg(disk).stdin(Stdio::null());
    Some(command.output().expect("it runs"))
}

fn head(disk: &Path) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    fs::File::open(disk).and_then(|mut file| file.read_exact(&mut bytes)).expect("a disk");
    bytes
}

#[test]
fn a_blank_volume_is_formatted_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = directory.path().join("disk");
    let blank = |bytes: &[u8]| {
        let file = fs::File::create(&disk).expect("a disk");
        file.set_len(SIZE).expect("it is sparse");
        file.write_all_at(bytes, 0).expect("it is written");
    };
    blank(&[]);
    let Some(output) = format(&disk) else {
        return;
    };
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(head(&disk).starts_with(b"XFSB"), "the disk holds no XFS");
    // A file system, its own; and the partition table of a disk that came from elsewhere.
    let mut table = vec![0_u8; 512];
    table[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 255, 255, 255, 0, 8, 0, 0, 0, 0, 1, 0]);
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    for (what, bytes) in [("filesystem (xfs)", head(&disk)), ("partition table (dos)", table)] {
        blank(&bytes);
        let before = head(&disk);
        let output = format(&disk).expect("it was there");
        let said = text_of(&output);
        assert!(!output.status.success() && said.contains(what), "{said}");
        assert!(head(&disk) == before, "{what}: the disk was written to");
    }
}

//! Full and read-only disks, on a small file system mounted where the agent keeps its state.

use std::io::Write;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rig::stage::{Stage, StageOptions};

use crate::play::*;

/// A file system in memory over a directory of a node; unmounted when dropped.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it; nothing, with the reason, where that is not possible.
    fn mount(stage: &Stage, size: &str) -> Option<SmallDisk> {
        SmallDisk::over(stage, "/var/lib", size)
    }

    fn over(stage: &Stage, path: &str, size: &str) -> Option<SmallDisk> {
        if !is_root() {
            return None;
        }
        let path = stage.path(path);
        std::fs::create_dir_all(&path).expect("a directory");
        let options = format!("size={size},mode=0755");
        let kind = Some("tmpfs");
        match mount(kind, &path, kind, MsFlags::empty(), Some(options.as_str())) {
            Ok(()) => Some(SmallDisk { path }),
            Err(error) => skip(&format!("mounting a tmpfs: {error}")),
        }
    }

    /// Fills it to the last byte but for `pages` of 4 KiB.
    fn fill(&self, pages: usize) {
        let write = |name: &str, bytes: &[u8]| -> std::io::Result<()> {
            std::fs::File::create(self.path.join(name))?.write_all(bytes)
        };
        write("spare", &vec![0; pages << 12]).expect("there is room for that");
        // It ends with an error: that is when it is full.
        let filled = write("filler", &vec![0; 64 << 20]);
        assert_eq!(filled.expect_err("it is small").kind(), std::io::ErrorKind::StorageFull);
        std::fs::remove_file(self.path.join("spare")).expect("it was made");
    }

    fn free(&self) {
        std::fs::remove_file(self.path.join("filler")).expect("it was filled");
    }

    fn remount(&self, flags: MsFlags) {
        let none: Option<&str> = None;
        mount(none, &self.path, none, MsFlags::MS_REMOUNT | flags, none).expect("a remount");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(&self.path, MntFlags::MNT_DETACH).ok();
    }
}

#[tokio::test]
async fn on_a_full_disk_no_certificate_is_asked_for_and_the_old_one_stays() {
    let stage = stage(StageOptions::worker()).await;
    let Some(disk) = SmallDisk::mount(&stage, "1m") else { return };
    let agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let before = tree(&stage, PUBLISHED);
    disk.fill(0);
    let serial = ask_renewal(&stage);
    let text = told(&wait_problem(&stage, "disk"));
    assert!(text.contains("No space left") && text.contains("df -h"), "{text}");
    assert_eq!(issues(&stage), 1, "what cannot be counted is not asked for");
    assert_eq!(tree(&stage, PUBLISHED), before);
    disk.free();
    agent.reload().expect("it runs");
    wait_renewed(&stage, &serial);
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_disk_that_fills_in_the_middle_of_a_rotation_keeps_the_old_one_published() {
    let stage = stage(StageOptions::worker()).await;
    let Some(disk) = SmallDisk::mount(&stage, "1m") else { return };
    let agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let before = tree(&stage, PUBLISHED);
    // Enough for the records and some files of a generation, not for all.
    disk.fill(7);
    let serial = ask_renewal(&stage);
    wait_problem(&stage, "disk");
    assert_eq!(issues(&stage), 2, "it was asked for, and could not be kept");
    assert_eq!(tree(&stage, PUBLISHED), before);
    assert_eq!(run_verb(&stage, &["await", "kubelet", "--timeout", "0"]).status.code(), Some(0));
    disk.free();
    agent.reload().expect("it runs");
    wait_renewed(&stage, &serial);
    wait_healthy(&stage);
    assert_eq!(generations(&stage, PUBLISHED).len(), 1, "nothing half made is left");
}

#[tokio::test]
async fn on_a_read_only_disk_the_old_one_stays_until_it_can_be_written_again() {
    let stage = stage(StageOptions::worker()).await;
    let Some(disk) = SmallDisk::mount(&stage, "1m") else { return };
    let agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let before = tree(&stage, PUBLISHED);
    disk.remount(MsFlags::MS_RDONLY);
    let serial = ask_renewal(&stage);
    let text = told(&wait_problem(&stage, "disk"));
    assert!(text.contains("Read-only") || text.contains("read-only"), "{text}");
    assert_eq!((issues(&stage), tree(&stage, PUBLISHED)), (1, before));
    disk.remount(MsFlags::empty());
    agent.reload().expect("it runs");
    wait_renewed(&stage, &serial);
    wait_healthy(&stage);
}

#[tokio::test]
async fn a_fresh_node_with_a_full_disk_does_not_log_in_with_a_nonce_it_cannot_keep() {
    let stage = stage(StageOptions::worker()).await;
    let Some(disk) = SmallDisk::mount(&stage, "256k") else { return };
    for directory in ["nodeagent", "nodeagent-certs"] {
        std::fs::create_dir(disk.path.join(directory)).expect("a directory");
    }
    disk.fill(0);
    let agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "disk");
    assert_eq!(logins(&stage), 0);
    disk.free();
    agent.reload().expect("it runs");
    wait_healthy(&stage);
}

/// The archive is what there is to go back to, and its copies are no issues.
#[tokio::test]
async fn a_publication_that_fails_costs_one_issue_and_nothing_of_the_archive() {
    let stage = stage(brief(60, 45)).await;
    date_back_little(&stage).await;
    configure(&stage, "[rotation]\nissues_per_hour = 3\n");
    let Some(disk) = SmallDisk::over(&stage, "/var/lib/nodeagent-certs", "1m") else { return };
    let agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let before = serial(&stage);
    disk.remount(MsFlags::MS_RDONLY);
    wait_problem(&stage, "disk");
    let archived = || generations(&stage, "/var/lib/nodeagent/archive/kubelet-server");
    until("its copy", || archived().len() == 2);
    for _ in 0..3 {
        look_again(&stage, &agent);
    }
    assert_eq!((archived(), issues(&stage)), (vec!["00000001".into(), "00000002".into()], 2));
    disk.remount(MsFlags::empty());
    agent.reload().expect("it runs");
    wait_renewed(&stage, &before);
    wait_healthy(&stage);
    assert_eq!((archived().len(), issues(&stage)), (2, 2));
}

/// What a disk does not let go stays beside its successors, and these are renewed all the same.
#[tokio::test]
async fn a_generation_that_cannot_be_removed_keeps_none_after_it_from_renewal() {
    let stage = stage(brief(12, 6)).await;
    date_back_little(&stage).await;
    let stuck = format!("{PUBLISHED}/00000000");
    let Some(disk) = SmallDisk::over(&stage, &stuck, "1m") else { return };
    stage.write(&format!("{stuck}/cert.pem"), b"former").expect("it is written");
    disk.remount(MsFlags::MS_RDONLY);
    let _agent = stage.run().expect("the agent starts");
    let first = wait_renewed(&stage, "");
    let second = wait_renewed(&stage, &first);
    wait_renewed(&stage, &second);
    assert_eq!(stage.read(&format!("{stuck}/cert.pem")), "former");
}

#[tokio::test]
async fn a_person_gets_a_new_certificate_beside_a_generation_that_cannot_be_removed() {
    let stage = stage(StageOptions::worker()).await;
    let stuck = format!("{PUBLISHED}/00000000");
    let Some(disk) = SmallDisk::over(&stage, &stuck, "1m") else { return };
    stage.write(&format!("{stuck}/cert.pem"), b"former").expect("it is written");
    disk.remount(MsFlags::MS_RDONLY);
    let _agent = stage.run().expect("the agent starts");
    wait_renewed(&stage, "");
    renew(&stage);
}

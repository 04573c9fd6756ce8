//! Full and read-only disks: a small one of its own, mounted where only this thread sees it.

use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;

/// Runs with a disk of 128 KiB mounted at the house's root, or tells why it cannot.
fn on_a_small_disk(story: fn(&House)) {
    if files::own_uid() != 0 {
        let must = std::env::var("NODEAGENT_TESTS_MUST_RUN").is_ok_and(|value| value == "1");
        assert!(!must, "mounting a small disk needs root");
        eprintln!("skipped: mounting a small disk needs root");
        return;
    }
    let told = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        let house = House::new();
        let place = house.root.path(Path::new("/"));
        let kind = Some("tmpfs");
        mount(kind, &place, kind, MsFlags::empty(), Some("size=128k,mode=755")).unwrap();
        story(&house);
        nix::mount::umount2(&place, nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
    told.join().unwrap();
}

#[test]
fn a_full_disk_changes_nothing_that_is_published() {
    on_a_small_disk(|house| {
        let (one, two) = (material("one"), material("two"));
        house.publish(1, &one).unwrap();
        let ballast = house.root.path(Path::new("/ballast"));
        let full = fs::write(&ballast, vec![0; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        let error = house.publish(2, &two).unwrap_err();
        assert_eq!(error.code(), Code::Disk);
        assert!(format!("{error:#}").contains("No space left"), "{error:#}");
        assert!(error.advice().is_some_and(|advice| advice.contains("df")));
        assert_eq!(house.sound(), (1, one.cert.clone()));
        assert_eq!(house.names(), ["00000001", "current"], "what was begun is gone again");
        fs::remove_file(ballast).unwrap();
        house.publish(3, &two).unwrap();
        assert_eq!(house.sound(), (3, two.cert.clone()));
    });
}

#[test]
fn a_read_only_disk_is_told_and_still_served_from() {
    on_a_small_disk(|house| {
        let one = material("one");
        house.publish(1, &one).unwrap();
        let place = house.root.path(Path::new("/"));
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &place, None::<&str>, flags, None::<&str>).unwrap();
        let error = house.publish(2, &material("two")).unwrap_err();
        assert_eq!(error.code(), Code::Disk);
        assert!(error.advice().is_some_and(|advice| advice.contains("read-only")), "{error:#}");
        assert_eq!(house.sound(), (1, one.cert));
        assert_eq!(house.heal(), Healed::Nothing);
    });
}

//! The archive keeps whole generations through crashes, and tells what was tampered with.

use std::fs;

use super::fixture::{Ca, material, params};
use super::*;
use crate::failpoint::power;

fn archive() -> (tempfile::TempDir, Archive) {
    let dir = tempfile::tempdir().unwrap();
    let archive = Archive::of(&Root::new(dir.path()), "kubelet-server");
    (dir, archive)
}

fn numbers(archive: &Archive) -> Vec<u64> {
    archive.list().unwrap().into_iter().map(|generation| generation.0).collect()
}

#[test]
fn a_generation_comes_back_as_it_was_kept() {
    let (dir, archive) = archive();
    let kept = material("node").trusting_also(&Ca::new("old").bundle()).unwrap();
    archive.save(Generation(1), &kept).unwrap();
    let back = archive.load(Generation(1)).unwrap();
    assert_eq!(back.cert, kept.cert);
    assert_eq!(back.key.expose(), kept.key.expose());
    assert_eq!(leaf::bundle(&back.ca).unwrap().len(), 2);
    assert_eq!(leaf::bundle(&back.pinned).unwrap().len(), 1);
    let place = dir.path().join("var/lib/nodeagent/archive/kubelet-server/00000001");
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    };
    assert_eq!(mode(&place), 0o700);
    let mut names: Vec<_> = fs::read_dir(&place)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .inspect(|path| assert_eq!(mode(path), 0o600, "{}", path.display()))
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["ca.pem", "cert.pem", "key.pem", "pair.pem", "pinned.pem"]);
}

#[test]
fn numbers_are_names_of_exactly_one_form() {
    assert_eq!(Generation(7).to_string(), "00000007");
    assert_eq!(Generation::parse("00000007"), Some(Generation(7)));
    assert_eq!(Generation::parse("123456789"), Some(Generation(123_456_789)));
    for name in ["7", "0000007", "000000007", "+0000007", "0000000x", "", "current", "-0000001"] {
        assert_eq!(Generation::parse(name), None, "{name}");
    }
}

#[test]
fn the_newest_are_kept_and_strangers_are_left_alone() {
    let (dir, archive) = archive();
    for number in 1..=5 {
        archive.save(Generation(number), &material("node")).unwrap();
    }
    let inside = dir.path().join("var/lib/nodeagent/archive/kubelet-server");
    fs::write(inside.join("00000001/notes"), "mine").unwrap();
    fs::create_dir(inside.join("backup")).unwrap();
    archive.prune(KEPT).unwrap();
    assert_eq!(numbers(&archive), [3, 4, 5]);
    assert!(inside.join("backup").exists());
    assert_eq!(fs::read(inside.join(".00000001.nodeagent~/notes")).unwrap(), b"mine");
    assert!(archive.load(Generation(2)).is_err());
}

#[test]
fn what_cannot_be_removed_does_not_keep_the_others() {
    let (dir, archive) = archive();
    for number in 1..=6 {
        archive.save(Generation(number), &material("node")).unwrap();
    }
    let inside = dir.path().join("var/lib/nodeagent/archive/kubelet-server");
    // A directory is not unlinked, as little as a file on a disk that fails there.
    fs::remove_file(inside.join("00000001/cert.pem")).unwrap();
    fs::create_dir(inside.join("00000001/cert.pem")).unwrap();
    archive.prune(KEPT).unwrap_err();
    assert_eq!(numbers(&archive), [4, 5, 6]);
    assert_eq!(fs::read_dir(&inside).unwrap().count(), KEPT + 1);
}

#[test]
fn a_generation_is_never_overwritten() {
    let (_dir, archive) = archive();
    let first = material("first");
    archive.save(Generation(1), &first).unwrap();
    let error = archive.save(Generation(1), &material("second")).unwrap_err();
    assert_eq!(error.code(), Code::Foreign);
    assert_eq!(archive.load(Generation(1)).unwrap().cert, first.cert);
}

#[test]
fn what_was_tampered_with_is_told_with_its_path() {
    type Tamper = fn(&Path);
    let cases: [(Tamper, &str); 7] = [
        (|dir| fs::write(dir.join("cert.pem"), "").unwrap(), "no certificate"),
        (|dir| fs::write(dir.join("key.pem"), [0xff, 0xfe]).unwrap(), "not text"),
        (|dir| fs::write(dir.join("ca.pem"), "torn").unwrap(), "ca.pem"),
        (|dir| fs::write(dir.join("pair.pem"), "").unwrap(), "pair.pem"),
        (|dir| fs::remove_file(dir.join("pinned.pem")).unwrap(), "pinned.pem"),
        (|dir| fs::copy(dir.join("cert.pem"), dir.join("key.pem")).map(drop).unwrap(), "key"),
        (|dir| fs::write(dir.join("ca.pem"), "x".repeat(300 << 10)).unwrap(), "larger than"),
    ];
    for (tamper, expected) in cases {
        let (dir, archive) = archive();
        archive.save(Generation(1), &material("node")).unwrap();
        tamper(&dir.path().join("var/lib/nodeagent/archive/kubelet-server/00000001"));
        let error = archive.load(Generation(1)).expect_err(expected);
        let text = format!("{error:#}");
        assert!(text.contains(expected) && text.contains("00000001"), "{text}");
    }
}

#[test]
fn an_answer_of_vault_becomes_material() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let (cert, key) = new.sign(&params("node"));
    let chain = [new.pem.clone(), String::new()];
    let material = Material::new(&cert, &chain, key, &new.bundle()).unwrap();
    let material = material.trusting_also(&old.bundle()).unwrap();
    assert_eq!(leaf::bundle(&material.ca).unwrap(), [new.bundle(), old.bundle()].concat());
    assert_eq!(leaf::bundle(&material.pinned).unwrap(), new.bundle());
    assert!(material.check().is_ok());
    let key = Secret::new(String::new());
    let error = Material::new("<html>", &[], key, &new.bundle()).unwrap_err();
    assert_eq!(error.code(), Code::CertificateBad);
}

/// Power cut before every single change: whatever is listed can be loaded, and the next save and
/// prune go through and leave nothing half made.
#[test]
fn no_crash_leaves_half_a_generation() {
    let first = material("first");
    let second = material("second");
    for changes in 0.. {
        let (dir, archive) = archive();
        for number in 1..=3 {
            archive.save(Generation(number), &first).unwrap();
        }
        power::cut_after(Some(changes));
        let saved = archive.save(Generation(4), &second);
        let done = saved.and_then(|()| archive.prune(KEPT)).is_ok();
        power::cut_after(None);
        for generation in archive.list().unwrap() {
            archive.load(generation).unwrap();
        }
        let next = archive.list().unwrap().into_iter().max().unwrap().next();
        archive.save(next, &second).unwrap();
        archive.prune(KEPT).unwrap();
        let inside = dir.path().join("var/lib/nodeagent/archive/kubelet-server");
        assert_eq!(fs::read_dir(inside).unwrap().count(), KEPT, "after {changes} changes");
        if done {
            assert!(changes > 20, "every change was counted");
            return;
        }
    }
}

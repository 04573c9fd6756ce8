//! Files are whole, modes exact, links not followed, and every error says what to do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::failpoint::power;

fn root() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    (dir, root)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn paths_stay_below_the_root() {
    let root = Root::new("/r");
    let cases = [
        ("/etc/group", "/r/etc/group"),
        ("etc/group", "/r/etc/group"),
        ("/../../etc", "/r/etc"),
        ("/a/./b/../c", "/r/a/c"),
        ("/", "/r"),
    ];
    for (path, expected) in cases {
        assert_eq!(root.path(Path::new(path)), Path::new(expected), "{path}");
    }
}

#[test]
fn a_write_replaces_the_whole_file_with_the_exact_mode() {
    let (dir, root) = root();
    let path = Path::new("/file");
    let full = dir.path().join("file");
    root.write_atomic(path, b"first", 0o600, None).unwrap();
    assert_eq!((fs::read(&full).unwrap(), mode(&full)), (b"first".to_vec(), 0o600));
    let before = fs::metadata(&full).unwrap().ino();
    fs::write(dir.path().join(".file.nodeagent~"), "leftover of a crash").unwrap();
    root.write_atomic(path, b"second", 0o666, None).unwrap();
    assert_eq!((fs::read(&full).unwrap(), mode(&full)), (b"second".to_vec(), 0o666));
    assert_ne!(fs::metadata(&full).unwrap().ino(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left in the making");
    if own_uid() == 0 {
        root.write_atomic(path, b"third", 0o640, Some(4711)).unwrap();
        assert_eq!((fs::metadata(&full).unwrap().gid(), mode(&full)), (4711, 0o640));
    }
}

#[test]
fn planted_links_are_replaced_or_refused_and_never_followed() {
    let (dir, root) = root();
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    symlink(&victim, dir.path().join("file")).unwrap();
    symlink(&victim, dir.path().join(".file.nodeagent~")).unwrap();
    symlink(dir.path().join("elsewhere"), dir.path().join("dir")).unwrap();
    root.write_atomic(Path::new("/file"), b"ours", 0o600, None).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert!(!dir.path().join("file").is_symlink());
    symlink(&victim, dir.path().join("new")).unwrap();
    let refused = [
        root.write_dir(Path::new("/"), &[("new", b"ours")], 0o600, None),
        root.write_atomic(Path::new("/dir/file"), b"ours", 0o600, None),
        root.write_dir(Path::new("/dir"), &[("file", b"ours")], 0o600, None),
        root.make_dir(Path::new("/dir"), 0o700, None),
        root.make_dir(Path::new("/dir/below"), 0o700, None),
        root.swap_link(Path::new("/dir"), "current", "1"),
        root.list(Path::new("/dir")).map(drop),
    ];
    for (index, result) in refused.into_iter().enumerate() {
        let error = result.expect_err("a link stands there");
        assert_eq!(error.code(), Code::Foreign, "{index}: {error:#}");
        assert!(error.advice().is_some(), "{error:#}");
    }
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(fs::read_dir(dir.path().join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_cut_before_any_change_leaves_the_old_file_or_the_new() {
    for changes in 0.. {
        let (dir, root) = root();
        let path = Path::new("/file");
        root.write_atomic(path, b"old", 0o600, None).unwrap();
        power::cut_after(Some(changes));
        let done = root.write_atomic(path, b"new", 0o600, None).is_ok();
        power::cut_after(None);
        let found = root.read(path, 100).unwrap();
        assert!(found == b"old" || found == b"new", "after {changes}: {found:?}");
        root.write_atomic(path, b"next", 0o600, None).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        if done {
            assert!(changes > 3, "every change was counted");
            return;
        }
    }
}

#[test]
fn a_parent_is_open_to_all_whenever_its_making_was_cut() {
    for changes in 0.. {
        let (dir, root) = root();
        let path = Path::new("/one/two/ours");
        power::cut_after(Some(changes));
        let done = root.make_dir(path, 0o700, None).is_ok();
        power::cut_after(None);
        root.make_dir(path, 0o700, None).unwrap();
        for (path, expected) in [("one", 0o755), ("one/two", 0o755), ("one/two/ours", 0o700)] {
            assert_eq!(mode(&dir.path().join(path)), expected, "{path} after {changes}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "after {changes}");
        if done {
            assert!(changes > 10, "every change was counted");
            return;
        }
    }
}

#[test]
fn a_cut_anywhere_leaves_what_was_staged_unseen_and_a_line_whole_or_to_be_cut() {
    for changes in 0.. {
        let (dir, root) = root();
        for (name, mode) in [("/staged", 0o700), ("/watched", 0o755)] {
            root.make_dir(Path::new(name), mode, None).unwrap();
        }
        let (staging, path) = (Path::new("/staged"), Path::new("/watched/file"));
        let lines = Path::new("/lines");
        root.append(lines, b"one\n", 0o600).unwrap();
        power::cut_after(Some(changes));
        let written = root.write_through(staging, path, b"whole", 0o644);
        let done = written.and_then(|()| root.append(lines, b"two\n", 0o600)).is_ok();
        power::cut_after(None);
        let found = root.read_optional(path, 100).unwrap();
        assert!(found.is_none_or(|found| found == b"whole"), "after {changes}");
        assert!(fs::read_dir(dir.path().join("watched")).unwrap().count() <= 1);
        root.write_through(staging, path, b"whole", 0o644).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("staged")).unwrap().count(), 0);
        root.append(lines, b"three\n", 0o600).unwrap();
        let text = String::from_utf8(root.read(lines, 100).unwrap()).unwrap();
        assert!(["one\nthree\n", "one\ntwo\nthree\n"].contains(&text.as_str()), "{text}");
        if done {
            assert!(changes > 12, "every change was counted");
            return;
        }
    }
}

#[test]
fn reading_has_a_limit_and_waits_for_no_pipe() {
    let (dir, root) = root();
    fs::write(dir.path().join("file"), "12345").unwrap();
    assert_eq!(root.read(Path::new("/file"), 5).unwrap(), b"12345");
    let error = root.read(Path::new("/file"), 4).unwrap_err();
    assert!(format!("{error:#}").contains("larger than 4 bytes"), "{error:#}");
    assert!(root.read_optional(Path::new("/none"), 5).unwrap().is_none());
    let error = root.read(Path::new("/none"), 5).unwrap_err();
    assert!(format!("{error:#}").contains("/none: No such file"), "{error:#}");
    nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for name in ["/pipe", "/"] {
        let error = root.read(Path::new(name), 5).unwrap_err();
        assert!(format!("{error:#}").contains("not a regular file"), "{error:#}");
    }
}

#[test]
fn directories_are_made_with_their_parents_and_put_right() {
    let (dir, root) = root();
    let path = Path::new("/var/lib/a");
    root.make_dir(path, 0o750, None).unwrap();
    assert_eq!(mode(&dir.path().join("var/lib")), 0o755);
    assert_eq!(mode(&dir.path().join("var/lib/a")), 0o750);
    fs::set_permissions(dir.path().join("var/lib/a"), fs::Permissions::from_mode(0o777)).unwrap();
    root.make_dir(path, 0o700, None).unwrap();
    assert_eq!(mode(&dir.path().join("var/lib/a")), 0o700);
    fs::write(dir.path().join("file"), "").unwrap();
    let error = root.make_dir(Path::new("/file"), 0o700, None).unwrap_err();
    assert_eq!(error.code(), Code::Foreign);
    if own_uid() == 0 {
        let other = nix::unistd::Uid::from_raw(4711);
        nix::unistd::chown(&dir.path().join("var/lib/a"), Some(other), None).unwrap();
        let error = root.make_dir(path, 0o700, None).unwrap_err();
        assert_eq!(error.code(), Code::Foreign);
        assert!(format!("{error:#}").contains("belongs to user 4711"), "{error:#}");
    }
}

#[test]
fn a_link_is_swapped_in_one_step_and_what_is_none_is_refused() {
    let (dir, root) = root();
    root.swap_link(Path::new("/"), "current", "1").unwrap();
    symlink("0", dir.path().join(".current.nodeagent~")).unwrap();
    root.swap_link(Path::new("/"), "current", "2").unwrap();
    assert_eq!(root.read_link(Path::new("/current")).unwrap().as_deref(), Some("2"));
    assert_eq!(root.list(Path::new("/")).unwrap().len(), 1);
    assert_eq!(root.read_link(Path::new("/none")).unwrap(), None);
    fs::create_dir(dir.path().join("dir")).unwrap();
    assert_eq!(root.read_link(Path::new("/dir")).unwrap_err().code(), Code::Foreign);
    assert_eq!(root.swap_link(Path::new("/"), "dir", "2").unwrap_err().code(), Code::Foreign);
    assert!(dir.path().join("dir").is_dir());
}

#[test]
fn a_listing_tells_what_stands_there_and_removal_is_idempotent() {
    let (dir, root) = root();
    fs::create_dir(dir.path().join("b")).unwrap();
    fs::write(dir.path().join("a"), "123").unwrap();
    symlink("a", dir.path().join("c")).unwrap();
    let entries = root.list(Path::new("/")).unwrap();
    let found: Vec<_> =
        entries.iter().map(|entry| (entry.name.as_str(), entry.stat.kind)).collect();
    let kinds = [FileKind::File, FileKind::Directory, FileKind::Link];
    assert_eq!(found, ["a", "b", "c"].into_iter().zip(kinds).collect::<Vec<_>>());
    assert_eq!(entries[0].stat.size, 3);
    assert_eq!(entries[0].stat.uid, own_uid());
    assert!(root.list(Path::new("/none")).unwrap().is_empty());
    for _ in 0..2 {
        root.unlink(Path::new("/c")).unwrap();
        root.remove_dir(Path::new("/b")).unwrap();
    }
    assert!(root.stat(Path::new("/b")).unwrap().is_none());
    assert_eq!(root.list(Path::new("/")).unwrap().len(), 1);
    for index in 0..=LIST_LIMIT {
        fs::write(dir.path().join(index.to_string()), "").unwrap();
    }
    let error = root.list(Path::new("/")).unwrap_err();
    assert!(format!("{error:#}").contains("more than 4096"), "{error:#}");
}

/// A kubelet starts what it finds in its directory, whatever it is called and however much of it
/// is there.
#[test]
fn n15_who_looks_all_the_time_sees_whole_files_and_no_others() {
    let (dir, root) = root();
    let (watched, staged) = (dir.path().join("manifests"), Path::new("/staged"));
    fs::create_dir(&watched).unwrap();
    fs::create_dir(dir.path().join("staged")).unwrap();
    let over = AtomicBool::new(false);
    let look = || {
        let (mut looks, mut read) = (0, 0);
        while !over.load(Ordering::Relaxed) {
            for entry in fs::read_dir(&watched).unwrap().flatten() {
                assert_eq!(entry.file_name(), "pod.yaml");
                // It may have been taken away meanwhile.
                let Ok(text) = fs::read(entry.path()) else { continue };
                assert!(text.len() == MANIFEST && text.iter().all(|byte| *byte == text[0]));
                read += 1;
            }
            looks += 1;
        }
        (looks, read)
    };
    let (looks, read) = thread::scope(|scope| {
        let looker = scope.spawn(look);
        for round in 0..200_u8 {
            let path = Path::new("/manifests/pod.yaml");
            root.write_through(staged, path, &[round; MANIFEST], 0o600).unwrap();
            if round % 8 == 7 {
                root.unlink(path).unwrap();
            }
        }
        over.store(true, Ordering::Relaxed);
        looker.join().unwrap()
    });
    assert!(looks > 200 && read > 200, "{looks} looks, {read} files read");
}

/// As large as a manifest is.
const MANIFEST: usize = 8 << 10;

//! The nonce on a disk.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::error::Kind;

const INSTANCE: &str = "i-0123456789abcdef0";

/// A node with nothing on its disk, and where the nonce of `aws` will be.
fn node() -> (tempfile::TempDir, Root, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let root = Root::new(dir.path());
    let file = root.path(&Path::new(DIRECTORY).join("aws").join(INSTANCE));
    (dir, root, file)
}

fn obtain(root: &Root, mount: &str, import: Option<&Path>) -> Result<Secret> {
    let instance = INSTANCE;
    super::obtain(root, Owner { mount, instance }, import)
}

#[test]
fn a_new_nonce_is_random_private_and_stays() {
    let (_dir, root, file) = node();
    let first = obtain(&root, "aws", None).expect("made");
    assert_eq!(first.expose().len(), 2 * RANDOM_BYTES);
    let mode = |path: &Path| {
        let meta = std::fs::metadata(path).expect("it is there");
        meta.permissions().mode() & 0o7777
    };
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(file.parent().expect("a parent")), 0o700);
    let again = obtain(&root, "aws", None).expect("read");
    assert_eq!(again.expose(), first.expose());
}

#[test]
fn instances_and_mounts_have_each_their_own() {
    let (_dir, root, _) = node();
    let obtain = |mount, instance| {
        let owner = Owner { mount, instance };
        let nonce = super::obtain(&root, owner, None).expect("made");
        nonce.expose().to_owned()
    };
    let pairs = [
        ("aws", INSTANCE),
        ("aws-ec2", INSTANCE),
        ("aws/ec2", INSTANCE),
        ("aws%2fec2", INSTANCE),
        ("..", INSTANCE),
        ("aws", "i-0fff"),
    ];
    let mut all: Vec<String> = pairs.map(|(mount, id)| obtain(mount, id)).to_vec();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), pairs.len());
    let outside = root.path(Path::new("/var/lib/nodeagent")).join(INSTANCE);
    assert!(!outside.exists(), "a mount of dots must not leave the directory");
}

#[test]
fn a_file_that_is_no_nonce_is_told_and_never_replaced() {
    for bad in [
        "".to_owned(),
        "\n".to_owned(),
        "abcdef".to_owned(),
        "abc\0\0\0\n".to_owned(),
        "two words\n".to_owned(),
        "x".repeat(129) + "\n",
        "x".repeat(READ_LIMIT + 1),
    ] {
        let (_dir, root, file) = node();
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        std::fs::write(&file, &bad).expect("written");
        let error = obtain(&root, "aws", None).expect_err("no nonce");
        assert!(format!("{error:#}").contains(INSTANCE), "{error:#}");
        assert_eq!(std::fs::read_to_string(&file).expect("still there"), bad);
        if bad.len() <= READ_LIMIT {
            assert_eq!(error.kind(), Kind::Conflict);
            let command = format!("vault delete auth/aws/identity-accesslist/{INSTANCE}");
            assert!(error.advice().expect("advice").contains(&command));
        }
    }
}

#[test]
fn the_nonce_of_another_agent_becomes_ours_once() {
    let (_dir, root, file) = node();
    let import = Path::new("/etc/vault-nonce");
    let other = root.path(import);
    std::fs::create_dir_all(other.parent().expect("a parent")).expect("made");
    std::fs::write(&other, "  5defbf9e-a8f9-3063-bdfc-54b7a42a1f95\n\n").expect("written");
    let taken = obtain(&root, "aws", Some(import)).expect("taken");
    assert_eq!(taken.expose(), "5defbf9e-a8f9-3063-bdfc-54b7a42a1f95");
    assert_eq!(
        std::fs::read_to_string(&file).expect("ours"),
        "5defbf9e-a8f9-3063-bdfc-54b7a42a1f95\n"
    );
    std::fs::write(&other, "another\n").expect("written");
    let kept = obtain(&root, "aws", Some(import)).expect("read");
    assert_eq!(kept.expose(), taken.expose());
}

#[test]
fn an_import_that_is_no_nonce_makes_none() {
    let import = Path::new("/vault-nonce");
    for bad in ["", " \n", "two words", &"x".repeat(129)] {
        let (dir, root, file) = node();
        std::fs::write(dir.path().join("vault-nonce"), bad).expect("written");
        let error = obtain(&root, "aws", Some(import)).expect_err("bad");
        assert!(format!("{error:#}").contains("/vault-nonce"), "{error:#}");
        assert!(!file.exists());
    }
    let (_dir, root, file) = node();
    obtain(&root, "aws", Some(import)).expect("absent: made");
    assert!(file.exists());
}

#[test]
fn a_nonce_that_cannot_be_kept_is_not_used() {
    let (dir, root, _) = node();
    std::fs::write(dir.path().join("var"), "a file where a directory belongs").expect("written");
    let error = obtain(&root, "aws", None).expect_err("no directory");
    assert!(!format!("{error:#}").is_empty());
}

//! Publication under readers, crashes, strangers and full disks.

mod disk;
mod readers;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;

use super::super::store::fixture::material;
use super::*;
use crate::failpoint::failing::{self, Failing};
use crate::failpoint::power;
use crate::host::Pending;

/// A clock that waits for nobody: the pause for readers is none.
#[derive(Debug)]
struct Hasty;

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, duration: Duration) -> Pending<'_, ()> {
        assert_eq!(duration, READERS);
        Box::pin(async {})
    }

    fn synchronized(&self) -> Option<bool> {
        None
    }
}

/// A private root and a consumer in it.
struct House {
    _dir: tempfile::TempDir,
    root: Root,
    target: Target,
}

impl House {
    fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let gid = fs::metadata(dir.path()).unwrap().gid();
        House {
            root: Root::new(dir.path()),
            target: Target { consumer: "kubelet".into(), certificate: "server".into(), gid },
            _dir: dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path(&self.target.dir()).join(name)
    }

    fn publish(&self, number: u64, material: &Material) -> Result<()> {
        let edition = Edition { generation: Generation(number), material };
        let done = publish(&self.root, &Hasty, &self.target, edition);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(done)
    }

    fn inspect(&self) -> Published {
        inspect(&self.root, &self.target).unwrap()
    }

    /// The number and certificate of what is published soundly.
    fn sound(&self) -> (u64, String) {
        match self.inspect() {
            Published::Sound { generation, material } => (generation.0, material.cert),
            other => panic!("{other:?}"),
        }
    }

    fn heal(&self) -> Healed {
        heal(&self.root, &self.target).unwrap()
    }

    fn numbers(&self) -> Vec<u64> {
        generations(&self.root, &self.target).unwrap().into_iter().map(|one| one.0).collect()
    }

    fn names(&self) -> Vec<String> {
        let entries = self.root.list(&self.target.dir()).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }
}

#[test]
fn a_generation_is_what_consumers_were_promised() {
    let house = House::new();
    assert!(matches!(house.inspect(), Published::Absent));
    let (one, two) = (material("one"), material("two"));
    house.publish(1, &one).unwrap();
    assert_eq!(house.sound(), (1, one.cert.clone()));
    house.publish(2, &two).unwrap();
    assert_eq!(house.sound(), (2, two.cert.clone()));
    assert_eq!(house.names(), ["00000002", "current"]);
    assert_eq!(fs::read_link(house.path("current")).unwrap(), Path::new("00000002"));
    let pair = fs::read_to_string(house.path("current/pair.pem")).unwrap();
    assert_eq!(pair, format!("{}{}", two.cert, two.key.expose()));
    let mode = |path: PathBuf| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    for dir in ["..", ".", "00000002"] {
        assert_eq!(mode(house.path(dir)), 0o750, "{dir}");
    }
    assert_eq!(mode(house.path("../..")), 0o755);
    for file in FILES {
        let metadata = fs::metadata(house.path("current").join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640, "{file}");
        assert_eq!(metadata.nlink(), 1, "a hard link keeps watches stuck");
    }
    assert!(strangers(&house.root, &house.target).unwrap().is_empty());
}

#[test]
fn what_cannot_be_retired_does_not_keep_the_others() {
    let house = House::new();
    for number in 1..=3 {
        let material = material("node");
        let edition = Edition { generation: Generation(number), material: &material };
        place(&house.root, &house.target, edition).unwrap();
        swap(&house.root, &house.target, Generation(number)).unwrap();
    }
    failing::set(Failing::Next);
    let retired = retire(&house.root, &house.target, Generation(3));
    assert_eq!(retired.unwrap_err().code(), Code::Disk);
    assert_eq!(house.numbers(), [1, 3]);
}

#[test]
fn each_step_does_its_part_only() {
    let house = House::new();
    let (one, two) = (material("one"), material("two"));
    house.publish(1, &one).unwrap();
    let edition = Edition { generation: Generation(2), material: &two };
    place(&house.root, &house.target, edition).unwrap();
    assert_eq!(house.sound().0, 1, "nobody sees what was placed");
    assert!(retire(&house.root, &house.target, Generation(2)).is_err(), "not in force yet");
    assert_eq!(house.sound().0, 1);
    swap(&house.root, &house.target, Generation(2)).unwrap();
    assert_eq!(house.sound().0, 2);
    assert!(house.path("00000001/cert.pem").exists(), "readers in the middle have their files");
    let retired = retire(&house.root, &house.target, Generation(2)).unwrap();
    assert_eq!(retired, [Generation(1)]);
    assert_eq!(house.numbers(), [2]);
    assert!(place(&house.root, &house.target, edition).is_err(), "no number is used twice");
    assert_eq!(house.sound(), (2, two.cert.clone()));
}

/// A clock by which the pause for readers is seen from inside.
#[derive(Debug)]
struct Pausing(PathBuf, AtomicUsize);

impl Clock for Pausing {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> Pending<'_, ()> {
        let current = fs::read_link(self.0.join(CURRENT)).unwrap();
        assert_eq!(current, Path::new("00000002"), "readers to come are served the new one");
        assert!(FILES.iter().all(|file| self.0.join("00000001").join(file).exists()));
        self.1.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {})
    }

    fn synchronized(&self) -> Option<bool> {
        None
    }
}

#[tokio::test]
async fn readers_in_the_middle_have_a_pause() {
    let house = House::new();
    let first = material("one");
    let place_first = Edition { generation: Generation(1), material: &first };
    place(&house.root, &house.target, place_first).unwrap();
    swap(&house.root, &house.target, Generation(1)).unwrap();
    let clock = Pausing(house.path(""), AtomicUsize::new(0));
    let second = Edition { generation: Generation(2), material: &material("two") };
    publish(&house.root, &clock, &house.target, second).await.unwrap();
    assert_eq!(clock.1.into_inner(), 1);
    assert_eq!(house.numbers(), [2]);
}

#[test]
fn what_was_torn_or_tampered_with_is_broken_and_published_over() {
    type Tamper = fn(&House);
    let cases: [(Tamper, &str); 13] = [
        (|h| fs::write(h.path("current/cert.pem"), "").unwrap(), "no certificate"),
        (|h| fs::write(h.path("current/key.pem"), [0xff]).unwrap(), "is not text"),
        (|h| fs::write(h.path("current/ca.pem"), "torn").unwrap(), "ca.pem"),
        (|h| fs::write(h.path("current/pair.pem"), "").unwrap(), "is not certificate and key"),
        (|h| fs::remove_file(h.path("current/key.pem")).unwrap(), "key.pem is missing"),
        (|h| replace(h, "key.pem", material("x").key.expose()), "another key"),
        (|h| replace(h, "cert.pem", &material("x").cert), "another key"),
        (|h| fs::remove_dir_all(h.path("00000001")).unwrap(), "00000001 is missing"),
        (|h| mode(h, "current/key.pem", 0o644), "mode 0644"),
        (|h| mode(h, "00000001", 0o700), "mode 0700"),
        (|h| mode(h, "..", 0o755), "mode 0755"),
        (|h| fs::write(h.path("current/ca.pem"), "x".repeat(300 << 10)).unwrap(), "307200 bytes"),
        (
            |h| {
                fs::rename(h.path("current/key.pem"), h.path("../key.pem")).unwrap();
                symlink(h.path("../key.pem"), h.path("current/key.pem")).unwrap();
            },
            "key.pem is not ours",
        ),
    ];
    for (tamper, expected) in cases {
        let house = House::new();
        house.publish(1, &material("one")).unwrap();
        tamper(&house);
        match house.inspect() {
            Published::Broken { reason } => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{expected}: {other:?}"),
        }
        // Nothing complete is there to be adopted, unless only the directories above are wrong.
        if expected != "mode 0755" {
            assert_eq!(house.heal(), Healed::Nothing, "{expected}");
        }
        let two = material("two");
        house.publish(2, &two).unwrap();
        assert_eq!(house.sound(), (2, two.cert), "{expected}");
    }
}

fn replace(house: &House, name: &str, text: &str) {
    fs::write(house.path("current").join(name), text).unwrap();
}

fn mode(house: &House, name: &str, mode: u32) {
    fs::set_permissions(house.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn another_group_in_the_configuration_publishes_again() {
    let mut house = House::new();
    house.publish(1, &material("one")).unwrap();
    house.target.gid += 1;
    assert!(matches!(house.inspect(), Published::Broken { .. }));
    if files::own_uid() == 0 {
        house.publish(2, &material("two")).unwrap();
        assert_eq!(house.sound().0, 2);
        let group = fs::metadata(house.path("current/key.pem")).unwrap().gid();
        assert_eq!(group, house.target.gid);
    }
}

/// Whatever stands where `current` belongs and is not ours: told, left, and nothing published.
#[test]
fn a_foreign_current_is_told_and_never_touched() {
    type Plant = fn(&House);
    let cases: [(Plant, &str); 5] = [
        (|h| fs::create_dir(h.path("current")).unwrap(), "current is not our link"),
        (|h| fs::write(h.path("current"), "mine").unwrap(), "current is not our link"),
        (|h| symlink("/etc/ssl", h.path("current")).unwrap(), "leads to \"/etc/ssl\""),
        (|h| symlink("../other/00000001", h.path("current")).unwrap(), "leads to \"../other"),
        (|h| symlink("1", h.path("current")).unwrap(), "leads to \"1\""),
    ];
    for (plant, expected) in cases {
        let house = House::new();
        house.publish(1, &material("one")).unwrap();
        fs::remove_file(house.path("current")).unwrap();
        plant(&house);
        let before = fs::symlink_metadata(house.path("current")).unwrap().ino();
        match house.inspect() {
            Published::Foreign { what } => assert!(what.contains(expected), "{what}"),
            other => panic!("{expected}: {other:?}"),
        }
        assert_eq!(house.heal(), Healed::Nothing);
        let error = house.publish(2, &material("two")).unwrap_err();
        assert_eq!(error.code(), Code::Foreign);
        assert!(format!("{error:#}").contains(expected) && error.advice().is_some());
        assert_eq!(fs::symlink_metadata(house.path("current")).unwrap().ino(), before);
        assert_eq!(house.numbers(), [1]);
        assert!(swap(&house.root, &house.target, Generation(1)).is_err());
    }
}

#[test]
fn a_link_planted_as_a_directory_is_never_followed() {
    for planted in ["var/lib/nodeagent-certs/kubelet", "var/lib/nodeagent-certs/kubelet/server"] {
        let house = House::new();
        let elsewhere = house.root.path(Path::new("/elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        let link = house.root.path(Path::new(planted));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&elsewhere, &link).unwrap();
        assert!(matches!(house.inspect(), Published::Foreign { .. }));
        let error = house.publish(1, &material("one")).unwrap_err();
        assert_eq!(error.code(), Code::Foreign);
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "nothing was written there");
    }
}

#[test]
fn strangers_beside_and_inside_are_told_and_survive() {
    let house = House::new();
    let one = material("one");
    house.publish(1, &one).unwrap();
    fs::write(house.path("00000001/notes"), "a").unwrap();
    fs::write(house.path("readme"), "b").unwrap();
    fs::create_dir(house.path("00000009x")).unwrap();
    symlink("/etc", house.path("00000007")).unwrap();
    fs::hard_link(house.path("00000001/key.pem"), house.path("../backup")).unwrap();
    assert_eq!(house.sound(), (1, one.cert), "strangers harm nobody");
    let told = strangers(&house.root, &house.target).unwrap().join("\n");
    let expected =
        ["00000001/notes", "00000001/key.pem has a second", "readme", "00000009x", "00000007 is"];
    for name in expected {
        assert!(told.contains(name), "{name} in {told}");
    }
    assert_eq!(told.lines().count(), expected.len(), "{told}");
    house.publish(8, &material("two")).unwrap();
    assert_eq!(house.sound().0, 8);
    assert_eq!(fs::read(house.path("00000001/notes")).unwrap(), b"a");
    assert_eq!(fs::read(house.path("readme")).unwrap(), b"b");
    assert!(house.path("00000007").is_symlink() && house.path("00000009x").is_dir());
    assert!(!house.path("00000001/key.pem").exists(), "ours are gone from among them");
    assert_eq!(house.heal(), Healed::Nothing, "a stranger's directory is not retired for ever");
}

#[test]
fn a_missing_or_dangling_current_adopts_the_newest_complete_generation() {
    let house = House::new();
    for number in 1..=3 {
        let material = material(&number.to_string());
        let edition = Edition { generation: Generation(number), material: &material };
        place(&house.root, &house.target, edition).unwrap();
    }
    fs::write(house.path("00000003/cert.pem"), "torn").unwrap();
    assert!(matches!(house.inspect(), Published::Absent));
    assert_eq!(house.heal(), Healed::Adopted(Generation(2)));
    assert_eq!(house.sound().0, 2);
    assert_eq!(house.numbers(), [2]);
    assert_eq!(house.heal(), Healed::Nothing);

    let edition = Edition { generation: Generation(4), material: &material("4") };
    place(&house.root, &house.target, edition).unwrap();
    fs::remove_dir_all(house.path("00000002")).unwrap();
    assert!(matches!(house.inspect(), Published::Broken { .. }));
    assert_eq!(house.heal(), Healed::Adopted(Generation(4)));
    assert_eq!(house.sound().0, 4);
}

/// Power cut before every single change of a publication: what consumers see is always one whole
/// generation; healing leaves exactly it; and the next publication goes through.
#[test]
fn z03_every_crash_is_healed() {
    let (one, two) = (material("one"), material("two"));
    for first in [true, false] {
        for changes in 0.. {
            let house = House::new();
            if !first {
                house.publish(1, &one).unwrap();
            }
            power::cut_after(Some(changes));
            let done = house.publish(2, &two).is_ok();
            power::cut_after(None);
            let seen = match house.inspect() {
                Published::Absent if first => None,
                Published::Sound { generation, .. } => Some(generation),
                other => panic!("after {changes} changes: {other:?}"),
            };
            house.heal();
            if let Some(seen) = seen {
                assert_eq!(house.sound().0, seen.0, "healing keeps what is in force");
                let names = [seen.to_string(), CURRENT.to_owned()];
                assert_eq!(house.names(), names, "after {changes} changes");
            }
            house.publish(3, &two).unwrap();
            assert_eq!(house.names(), ["00000003", "current"], "after {changes} changes");
            if done {
                assert!(changes > 15, "every change was counted");
                break;
            }
        }
    }
}

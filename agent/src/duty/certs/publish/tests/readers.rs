//! Readers in a loop beside hundreds of publications that do not even wait for them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;

/// Each publication is a few milliseconds of fsync.
const PUBLICATIONS: u64 = 300;

/// The key of each certificate.
type Keys = HashMap<String, String>;

fn fits(keys: &Keys, cert: &str, key: &str) -> bool {
    keys.get(cert).is_some_and(|expected| expected == key)
}

/// Certificate and key through one open directory, as `openat` reads them.
fn by_directory(current: &Path) -> io::Result<(String, String)> {
    let dir = File::open(current)?;
    let open = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    Ok((fs::read_to_string(open.join("cert.pem"))?, fs::read_to_string(open.join("key.pem"))?))
}

/// Certificate and key by two paths, as Kubernetes reads them.
fn by_paths(current: &Path) -> io::Result<(String, String)> {
    Ok((
        fs::read_to_string(current.join("cert.pem"))?,
        fs::read_to_string(current.join("key.pem"))?,
    ))
}

/// Certificate and key out of the one file that has both.
fn by_pair(current: &Path) -> io::Result<(String, String)> {
    let pair = fs::read_to_string(current.join("pair.pem"))?;
    let at = pair.find("-----BEGIN PRIVATE KEY").unwrap_or(pair.len());
    let (cert, key) = pair.split_at(at);
    Ok((cert.to_owned(), key.to_owned()))
}

/// What a reader met.
#[derive(Debug, Default)]
struct Tally {
    reads: AtomicUsize,
    missing: AtomicUsize,
    mismatches: AtomicUsize,
}

#[test]
fn n03_who_holds_one_generation_never_sees_a_mismatch() {
    let house = House::new();
    let editions = ["one", "two"].map(material);
    let pairs = editions.iter().map(|one| (one.cert.clone(), one.key.expose().to_owned()));
    let keys: Arc<Keys> = Arc::new(pairs.collect());
    house.publish(1, &editions[1]).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let readers = [by_directory, by_pair, by_paths].map(|read: fn(&Path) -> _| {
        let (keys, over) = (keys.clone(), over.clone());
        let current = house.path(CURRENT);
        thread::spawn(move || {
            let tally = Tally::default();
            while !over.load(Ordering::Relaxed) {
                look(read, &current, &keys, &tally);
            }
            tally
        })
    });
    for number in 2..=PUBLICATIONS {
        let edition = &editions[usize::from(number % 2 == 0)];
        house.publish(number, edition).unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let [directory, pair, paths] = readers.map(|reader| reader.join().unwrap());
    eprintln!("directory {directory:?}\npair {pair:?}\npaths {paths:?}");
    for tally in [&directory, &pair, &paths] {
        assert!(tally.reads.load(Ordering::Relaxed) > 100, "{tally:?}");
    }
    assert_eq!(directory.mismatches.into_inner(), 0);
    assert_eq!(pair.mismatches.into_inner(), 0);
    assert_eq!(house.sound().0, PUBLICATIONS);
}

/// Reads once; a missing file is tried again, as readers have to.
fn look(
    read: fn(&Path) -> io::Result<(String, String)>,
    current: &Path,
    keys: &Keys,
    tally: &Tally,
) {
    match read(current) {
        Ok((cert, key)) if fits(keys, &cert, &key) => &tally.reads,
        Ok(_) => &tally.mismatches,
        Err(error) if error.kind() == io::ErrorKind::NotFound => &tally.missing,
        Err(error) => panic!("{error}"),
    }
    .fetch_add(1, Ordering::Relaxed);
}

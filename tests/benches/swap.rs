//! Ten thousand publications under readers of every kind: how quick, and what the readers saw.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nodeagent::duty::certs::leaf::{self, Leaf};
use nodeagent::duty::certs::publish::{self, Edition, Target};
use nodeagent::duty::certs::store::{Generation, Material};
use nodeagent::host::files::Root;
use nodeagent::secret::Secret;
use rustix::fs::{Mode, OFlags};

/// How many generations are published; NODEAGENT_BENCH_SWAPS says otherwise.
const SWAPS: u64 = 10_000;

/// What the readers met.
#[derive(Debug, Default)]
struct Seen {
    reads: AtomicU64,
    mismatches: AtomicU64,
    torn_retries: AtomicU64,
    missing: AtomicU64,
    end: AtomicBool,
}

/// Publishes under readers.
pub(crate) async fn run() -> Result<(), String> {
    let swaps = std::env::var("NODEAGENT_BENCH_SWAPS").ok();
    let swaps = swaps.and_then(|text| text.parse().ok()).unwrap_or(SWAPS);
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let root = Root::new(directory.path());
    let gid = rustix::process::getgid().as_raw();
    let target = Target { consumer: "kubelet".into(), certificate: "kubelet-server".into(), gid };
    let materials = [material()?, material()?];
    step(publish_one(&root, &target, 1, &materials[1]))?;
    let seen = Arc::new(Seen::default());
    let published = root.path(&target.dir());
    let readers: Vec<_> = [open_directory as Reader, one_file, two_paths]
        .into_iter()
        .map(|reader| {
            let (seen, published) = (Arc::clone(&seen), published.clone());
            std::thread::spawn(move || {
                while !seen.end.load(Ordering::Relaxed) {
                    reader(&published, &seen);
                    seen.reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let begun = Instant::now();
    for generation in 2..=swaps + 1 {
        step(publish_one(&root, &target, generation, &materials[(generation % 2) as usize]))?;
    }
    let took = begun.elapsed();
    seen.end.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().map_err(|_| "a reader ended early")?;
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!("{swaps} generations under {} reads in {took:.1?}", count(&seen.reads));
    println!("FIGURE swaps={swaps}");
    println!("FIGURE swaps_per_s={:.1}", swaps as f64 / took.as_secs_f64());
    println!("FIGURE swap_mismatches={}", count(&seen.mismatches));
    println!("FIGURE swap_torn_retries={}", count(&seen.torn_retries));
    println!("FIGURE swap_enoent={}", count(&seen.missing));
    match count(&seen.mismatches) {
        0 => Ok(()),
        found => Err(format!("{found} readers of one generation saw a pair that does not fit")),
    }
}

/// The steps of a publication with a short wait for readers in the middle: with the shipped
/// 100 ms the bench would take 20 minutes and show less.
fn publish_one(
    root: &Root,
    target: &Target,
    generation: u64,
    material: &Material,
) -> nodeagent::error::Result<()> {
    let generation = Generation(generation);
    publish::place(root, target, Edition { generation, material })?;
    publish::swap(root, target, generation)?;
    std::thread::sleep(Duration::from_millis(2));
    publish::retire(root, target, generation).map(|_| ())
}

fn step<T>(result: nodeagent::error::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{error:#}"))
}

fn material() -> Result<Material, String> {
    let issued = rig::pki::Ca::new("swap").issue(&["swap.test"]);
    let authority = rig::pki::Ca::new("pinned");
    let pinned = step(leaf::bundle(authority.pem()))?;
    let key = Secret::new(issued.key_pem.clone());
    step(Material::new(&issued.cert_pem, &[], key, &pinned))
}

type Reader = fn(&Path, &Seen);

/// Holds one generation by an open directory, as one who cares does.
fn open_directory(published: &Path, seen: &Seen) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let Ok(directory) = rustix::fs::open(published.join("current"), flags, Mode::empty()) else {
        seen.missing.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let read = |name: &str| {
        let file =
            rustix::fs::openat(directory.as_fd(), name, OFlags::RDONLY, Mode::empty()).ok()?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).ok()?;
        Some(text)
    };
    match (read("cert.pem"), read("key.pem")) {
        (Some(cert), Some(key)) => judge(&cert, &key, &seen.mismatches),
        _ => drop(seen.missing.fetch_add(1, Ordering::Relaxed)),
    }
}

/// Reads certificate and key from one file.
fn one_file(published: &Path, seen: &Seen) {
    match read(published.join("current/pair.pem")) {
        Some(pair) => judge(&pair, &pair, &seen.mismatches),
        None => drop(seen.missing.fetch_add(1, Ordering::Relaxed)),
    }
}

/// Opens two paths and tries again where they do not fit, as Kubernetes does.
fn two_paths(published: &Path, seen: &Seen) {
    let both = (read(published.join("current/cert.pem")), read(published.join("current/key.pem")));
    match both {
        (Some(cert), Some(key)) => judge(&cert, &key, &seen.torn_retries),
        _ => drop(seen.missing.fetch_add(1, Ordering::Relaxed)),
    }
}

fn read(path: PathBuf) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Counts a pair that does not fit.
fn judge(cert: &str, key: &str, counter: &AtomicU64) {
    let fits = || -> Option<bool> {
        let leaf = Leaf::read(cert.as_bytes()).ok()?;
        let key = rcgen::KeyPair::from_pem(
            key.split("-----BEGIN PRIVATE")
                .last()
                .map(|rest| format!("-----BEGIN PRIVATE{rest}"))?
                .as_str(),
        )
        .ok()?;
        Some(rcgen::PublicKeyData::subject_public_key_info(&key) == leaf.public_key)
    };
    if fits() != Some(true) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

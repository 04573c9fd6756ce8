//! Readers in the middle of rotations: whoever reads one file or one generation never sees a
//! mismatch, and a component that starts just then is at worst started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nodeagent::duty::certs::leaf::{Leaf, check_key};
use nodeagent::duty::certs::store::Material;
use nodeagent::secret::Secret;
use rig::consumer::{Consumer, Mode};
use rig::stage::StageOptions;

use crate::play::*;

/// Rotations of each story.
const ROTATIONS: usize = 6;

fn often() -> StageOptions {
    StageOptions::worker().with("[rotation]\nissues_per_hour = 3600\n")
}

#[tokio::test]
async fn a_reader_of_the_pair_in_one_file_never_sees_a_mismatch() {
    let (stage, _agent) = healthy(often()).await;
    let path = stage.path(&format!("{PUBLISHED}/current/pair.pem"));
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let reader = std::thread::spawn(move || {
        let (mut read, mut missing) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            match std::fs::read_to_string(&path) {
                Ok(text) => fits(&text),
                Err(_) => missing += 1,
            }
            read += 1;
        }
        (read, missing)
    });
    for _ in 0..ROTATIONS {
        renew(&stage);
    }
    done.store(true, Ordering::Relaxed);
    let (read, missing) = reader.join().expect("no mismatch");
    println!("{read} reads in {ROTATIONS} rotations, {missing} met no file");
    assert!(read > ROTATIONS && missing < read);
}

fn fits(pair: &str) {
    let key = pair.find("-----BEGIN PRIVATE KEY").expect("a key in it");
    let (cert, key) = pair.split_at(key);
    let leaf = Leaf::read(cert.as_bytes()).expect("a certificate in it");
    let (chain, pinned) = (Vec::new(), authorities_of(cert));
    let material =
        Material::new(cert, &chain, Secret::new(key.to_owned()), &pinned).expect("a pair");
    check_key(&leaf, &material).expect("the key is the certificate's");
}

/// Any certificates will do for a check of the key.
fn authorities_of(pem: &str) -> Vec<nodeagent::duty::certs::leaf::Authority> {
    nodeagent::duty::certs::leaf::certificates(pem.as_bytes()).expect("certificates")
}

#[tokio::test]
async fn a_consumer_that_starts_in_a_rotation_serves_a_pair_that_fits_or_starts_again() {
    let mut seed = seed();
    let (stage, _agent) = healthy(often()).await;
    let (mut starts, mut failed) = (0, 0);
    for _ in 0..ROTATIONS {
        let before = ask_renewal(&stage);
        std::thread::sleep(std::time::Duration::from_millis(random(&mut seed, 40)));
        while serial(&stage) == before || generations(&stage, PUBLISHED).len() > 1 {
            let (served, tries) = start_one(&stage);
            starts += tries;
            failed += tries - 1;
            assert!(served == before || served == serial(&stage), "one of the two serials");
        }
        wait_renewed(&stage, &before);
    }
    println!("{starts} starts in {ROTATIONS} rotations, {failed} failed and were repeated");
    assert!(starts > 0);
}

/// Starts a consumer of its own as its unit would: again where it fails. Gives what it serves.
fn start_one(stage: &rig::stage::Stage) -> (String, usize) {
    let path = stage.path(&format!("{PUBLISHED}/current"));
    let consumer = Consumer::new(path, Mode::RereadNever).expect("a port");
    for tries in 1..=5 {
        if consumer.restart().is_ok() {
            // It refuses a pair that does not fit, as Go's tls.LoadX509KeyPair does.
            return (consumer.serial().expect("it serves"), tries);
        }
    }
    panic!("it does not start: {:?}", consumer.record());
}

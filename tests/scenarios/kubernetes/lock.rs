//! The cluster's lock on a real etcd: whoever has it acts, alone, for as long as its lease is
//! certain; whoever lost it stops before anybody else begins, and harms nobody later.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nodeagent::bootstrap::lock::{self, Attempt, Held, Holder};
use nodeagent::error::{Code, Error, Result};
use nodeagent::host::Pending;
use nodeagent::host::clock::{Clock, SystemClock};
use nodeagent::secret::Secret;
use nodeagent::wire::etcd::{Etcd, EtcdOptions};
use nodeagent::wire::http::{ClientIdentity, Limits};
use rig::peer::etcd::{self, RealEtcd};
use rig::proxy::{Fault, Proxy};

use super::SOON;
use crate::play::skip;

const CLUSTER: &str = "c";
/// The lease of these stories: long enough for a machine that is busy with a build.
const TERM: Duration = Duration::from_secs(5);
/// What a client of etcd waits for an answer: a part of the lease, as it is in a run.
const ANSWER: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// etcd, and a way to it that can be cut.
struct Place {
    etcd: RealEtcd,
    way: Proxy,
    clock: SystemClock,
}

impl Place {
    async fn start() -> Option<Place> {
        if let Err(reason) = etcd::program() {
            return skip(&reason);
        }
        let etcd = RealEtcd::start().await.expect("etcd starts");
        let target = etcd.endpoint().trim_start_matches("https://").parse().expect("an address");
        let way = Proxy::start(target).expect("a proxy");
        Some(Place { etcd, way, clock: SystemClock::new("/") })
    }

    fn client(&self, endpoint: &str) -> Etcd {
        let leaf = self.etcd.client();
        let (cert_pem, key_pem) = (leaf.cert_pem.clone(), Secret::new(leaf.key_pem.clone()));
        let options = EtcdOptions {
            endpoint: endpoint.to_owned(),
            ca_pem: self.etcd.ca().pem().as_bytes().to_vec(),
            client: Some(ClientIdentity { cert_pem, key_pem }),
            limits: Limits { connect: ANSWER, total: ANSWER, ..Limits::default() },
        };
        Etcd::new(options).expect("a client")
    }

    /// Straight to etcd.
    fn direct(&self) -> Etcd {
        self.client(self.etcd.endpoint())
    }

    /// To etcd by the way that can be cut.
    fn by_the_way(&self) -> Etcd {
        self.client(&format!("https://{}", self.way.addr()))
    }

    async fn attempt(&self, etcd: Etcd, who: &str) -> Attempt {
        lock::take(etcd, &self.clock, CLUSTER, who, TERM).await.expect("an answer")
    }

    async fn taken(&self, etcd: Etcd, who: &str) -> Held {
        match self.attempt(etcd, who).await {
            Attempt::Taken(held) => held,
            Attempt::HeldBy(other) => panic!("{other:?} has it"),
        }
    }

    /// Tries until it has the lock.
    async fn await_lock(&self, who: &str) -> Held {
        let begun = self.clock.monotonic();
        loop {
            match self.attempt(self.direct(), who).await {
                Attempt::Taken(held) => return held,
                Attempt::HeldBy(other) => {
                    let waited = self.clock.monotonic() - begun;
                    assert!(waited < SOON, "{who} waits in vain for {other:?}");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn holder(&self) -> Option<String> {
        let holder = lock::holder(&self.direct(), CLUSTER).await.expect("an answer");
        holder.map(|holder| holder.instance)
    }
}

/// Work that goes on until it is cut, and notes each time that it goes on.
async fn work(clock: &dyn Clock, last: &Mutex<Duration>) -> Result<()> {
    loop {
        *last.lock().expect("one thread") = clock.monotonic();
        tokio::time::sleep(PAUSE).await;
    }
}

fn lost(outcome: Result<()>) -> Error {
    let error = outcome.expect_err("it is cut");
    assert_eq!(error.code(), Code::LockLost, "{error:#}");
    error
}

#[tokio::test]
async fn of_two_who_want_the_lock_at_once_one_has_it_and_the_other_is_told_who() {
    let Some(place) = Place::start().await else { return };
    let (a, b) = tokio::join!(
        place.attempt(place.direct(), "i-0aaa"),
        place.attempt(place.direct(), "i-0bbb")
    );
    let (held, other, winner) = match (a, b) {
        (Attempt::Taken(held), Attempt::HeldBy(other)) => (held, other, "i-0aaa"),
        (Attempt::HeldBy(other), Attempt::Taken(held)) => (held, other, "i-0bbb"),
        both => panic!("not exactly one has it: {both:?}"),
    };
    assert_eq!(other.instance, winner);
    assert_eq!(place.holder().await.as_deref(), Some(winner));
    // Another process of the very node that has it is nobody better.
    let again = place.attempt(place.direct(), winner).await;
    assert!(matches!(again, Attempt::HeldBy(Holder { ref instance, .. }) if instance == winner));
    held.release().await.expect("it is given back");
    assert_eq!(place.holder().await, None);
    place.taken(place.direct(), "i-0ccc").await;
}

#[tokio::test]
async fn the_lock_of_a_holder_that_was_killed_is_taken_when_its_lease_ends() {
    let Some(place) = Place::start().await else { return };
    drop(place.taken(place.direct(), "i-0dead").await);
    let other = place.attempt(place.direct(), "i-0next").await;
    assert!(matches!(other, Attempt::HeldBy(Holder { ref instance, .. }) if instance == "i-0dead"));
    place.await_lock("i-0next").await;
    assert_eq!(place.holder().await.as_deref(), Some("i-0next"));
}

#[tokio::test]
async fn a_holder_that_is_cut_off_stops_before_another_begins_and_harms_nobody_later() {
    let Some(place) = Place::start().await else { return };
    let former = place.taken(place.by_the_way(), "i-0former").await;
    let last = Mutex::new(Duration::ZERO);
    place.way.set(Fault::Hang);
    let guarded = former.guard(&place.clock, work(&place.clock, &last));
    let next = async {
        let held = place.await_lock("i-0next").await;
        (held, place.clock.monotonic())
    };
    let (outcome, (next, taken)) = tokio::join!(guarded, next);
    let error = lost(outcome);
    assert!(format!("{error:#}").contains("was not renewed for"), "{error:#}");
    let last = *last.lock().expect("one thread");
    assert!(last > Duration::ZERO && last < taken, "it went on at {last:?}, taken at {taken:?}");

    // It is joined again, and tidies up late what it thinks is its own.
    place.way.set(Fault::None);
    assert_eq!(
        lost(former.guard(&place.clock, work(&place.clock, &Mutex::default())).await).code(),
        Code::LockLost
    );
    former.release().await.expect("there is nothing to give back");
    assert_eq!(place.holder().await.as_deref(), Some("i-0next"));
    let done = next.guard(&place.clock, async { Ok(4711) }).await;
    assert_eq!(done.expect("the new holder is not disturbed"), 4711);
}

#[tokio::test]
async fn a_way_that_is_cut_for_less_than_the_lease_is_survived() {
    let Some(place) = Place::start().await else { return };
    let held = place.taken(place.by_the_way(), "i-0held").await;
    let begun = place.clock.monotonic();
    place.way.set(Fault::Cut { after_bytes: 0 });
    let before = place.way.connections();
    let outlives = async {
        // Two attempts to renew fail, then the way is whole again.
        while place.way.connections() < before + 2 {
            tokio::time::sleep(PAUSE).await;
        }
        place.way.set(Fault::None);
        while place.clock.monotonic() - begun < TERM * 2 {
            let other = place.attempt(place.direct(), "i-0other").await;
            assert!(matches!(other, Attempt::HeldBy(_)), "{other:?}");
            tokio::time::sleep(PAUSE * 20).await;
        }
        Ok(())
    };
    held.guard(&place.clock, outlives).await.expect("the lease is kept");
    held.release().await.expect("it is given back");
    assert_eq!(place.holder().await, None);
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_no_lock_behind() {
    let Some(place) = Place::start().await else { return };
    // Cut after so many bytes, the answer to one call after the other is lost.
    for after_bytes in (0..9000).step_by(600) {
        place.way.set(Fault::Cut { after_bytes });
        let attempt = lock::take(place.by_the_way(), &place.clock, CLUSTER, "i-0a", TERM).await;
        place.way.set(Fault::None);
        if let Ok(Attempt::Taken(held)) = attempt {
            held.release().await.expect("it is given back");
        }
        place.await_lock("i-0b").await.release().await.expect("it is given back");
    }
}

/// A clock whose wall jumps by a day at each look, and whose machine can be suspended.
#[derive(Debug)]
struct Odd {
    machine: SystemClock,
    looks: AtomicI64,
    slept_ms: AtomicI64,
}

impl Odd {
    fn new() -> Odd {
        let machine = SystemClock::new("/");
        Odd { machine, looks: AtomicI64::new(0), slept_ms: AtomicI64::new(0) }
    }

    fn suspend(&self, duration: Duration) {
        let millis = i64::try_from(duration.as_millis()).expect("seconds");
        self.slept_ms.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for Odd {
    fn now(&self) -> Timestamp {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        let days = if look % 2 == 0 { look } else { -look };
        self.machine.now() + SignedDuration::from_hours(24 * days)
    }

    fn monotonic(&self) -> Duration {
        let slept = u64::try_from(self.slept_ms.load(Ordering::Relaxed)).expect("forward");
        self.machine.monotonic() + Duration::from_millis(slept)
    }

    fn sleep(&self, duration: Duration) -> Pending<'_, ()> {
        self.machine.sleep(duration)
    }

    fn synchronized(&self) -> Option<bool> {
        None
    }
}

#[tokio::test]
async fn a_wall_clock_that_jumps_is_of_no_concern() {
    let Some(place) = Place::start().await else { return };
    let clock = Odd::new();
    let taken = lock::take(place.direct(), &clock, CLUSTER, "i-0held", TERM).await;
    let Ok(Attempt::Taken(held)) = taken else { panic!("{taken:?}") };
    let begun = clock.monotonic();
    let outlives = async {
        while clock.monotonic() - begun < TERM + TERM / 2 {
            clock.now();
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    };
    held.guard(&clock, outlives).await.expect("the lease is kept");
    assert_eq!(place.holder().await.as_deref(), Some("i-0held"));
}

#[tokio::test]
async fn a_machine_that_was_suspended_for_longer_than_the_lease_does_not_go_on() {
    let Some(place) = Place::start().await else { return };
    let clock = Odd::new();
    let taken = lock::take(place.direct(), &clock, CLUSTER, "i-0slept", TERM).await;
    let Ok(Attempt::Taken(held)) = taken else { panic!("{taken:?}") };
    let steps = AtomicI64::new(0);
    let sleeps = async {
        steps.fetch_add(1, Ordering::Relaxed);
        clock.suspend(TERM);
        // No timer of the process knows of it.
        tokio::task::yield_now().await;
        steps.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    lost(held.guard(&clock, sleeps).await);
    assert_eq!(steps.load(Ordering::Relaxed), 1, "it went on after the sleep");
    // Nor is anything begun.
    let begins = async {
        steps.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    lost(held.guard(&clock, begins).await);
    assert_eq!(steps.load(Ordering::Relaxed), 1);
}

//! Outages of Vault of a known length, in a life in which nothing else happens: what is promised
//! for them is held against the clock, and not only against the invariants.

use jiff::{SignedDuration, Timestamp};
use nodeagent::duty::certs::leaf::Leaf;

use super::BIRTH;
use super::consumer::Habit;
use super::disk::Disk;
use super::faults::CERTIFICATES;
use super::life::{Life, Log};
use super::schedule::{Change, Fault};
use super::world::{Kind, SURVIVE, World};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// By then a node has settled in its place in the fleet.
const SETTLED: SignedDuration = SignedDuration::from_hours(36);
/// After an outage a node is well again within this: two of its longest backoffs, and some.
const RECOVERY: SignedDuration = SignedDuration::from_mins(12);

/// A life with one outage, and what is asked at each hour of it.
async fn lived(
    from: SignedDuration,
    length: SignedDuration,
    each_hour: impl Fn(&World, Timestamp),
) -> Result<(), String> {
    let birth: Timestamp = BIRTH.parse().expect("an instant");
    let (from, until) = (birth + from, birth + from + length);
    let kind =
        Kind { kubernetes: "1.36", act: "probe", habit: Habit::Rereads, token: ("1h", "24h") };
    let disk = Disk::directory().map_err(|error| error.to_string())?;
    let world = World::new(kind, disk, birth).await?;
    let plan = vec![(from, Change::Begin(Fault::Away)), (until, Change::End(Fault::Away))];
    let mut life = Life::new(world, plan, 7, Log::default())?;
    while life.world.now() < until + RECOVERY + DAY {
        let next = life.world.now() + HOUR;
        life.live(next).await?;
        each_hour(&life.world, life.world.now());
    }
    let outcome = life.outcome();
    assert!(outcome.broken.is_empty(), "{:#?}", outcome.broken);
    assert_eq!((outcome.starts, outcome.acts), (1, 0), "nobody was started or restarted");
    Ok(())
}

/// The first end of what is published.
fn ends(world: &World) -> Timestamp {
    let end = |name: &&str| {
        let pem = std::fs::read(world.current(name).join("cert.pem")).expect("it is published");
        Leaf::read(&pem).expect("a certificate").not_after
    };
    CERTIFICATES.iter().map(end).min().expect("there are some")
}

fn block_on(life: impl Future<Output = Result<(), String>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(life).expect("the simulation itself works");
}

#[test]
fn z01_three_days_without_vault_stop_nothing_and_cure_themselves() {
    let birth: Timestamp = BIRTH.parse().expect("an instant");
    let back = birth + SETTLED + DAY * 3 + RECOVERY;
    block_on(lived(SETTLED, DAY * 3, |world, now| {
        assert!(world.consumer.is_running(), "it runs at {now}");
        if now > back {
            assert!(ends(world) > now + SURVIVE, "at {now} it is as if nothing had been");
        }
    }));
}

/// The outage begins at each hour of a period, so once just before a renewal is due.
#[test]
fn n07_an_outage_as_long_as_is_promised_ends_no_certificate() {
    for hour in 0..12 {
        block_on(lived(SETTLED + HOUR * hour, SURVIVE, |world, now| {
            assert!(ends(world) > now, "begun {hour} h later, ended at {now}");
        }));
    }
}

//! One thing of a known length goes wrong in a life in which nothing else happens: what is promised
//! for it is held against the clock, and not only against the invariants.

use jiff::{SignedDuration, Timestamp};
use nodeagent::duty::certs::leaf::Leaf;

use super::BIRTH;
use super::consumer::{Habit, Start};
use super::disk::Disk;
use super::faults::CERTIFICATES;
use super::life::{Life, Log, Outcome};
use super::schedule::{Change, Fault};
use super::world::{Kind, SURVIVE, World};

const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// By then a node has settled in its place in the fleet.
const SETTLED: SignedDuration = SignedDuration::from_hours(36);
/// After an outage a node is well again within this: two of its longest backoffs, and some.
const RECOVERY: SignedDuration = SignedDuration::from_mins(12);

/// What befalls a node, once.
struct Story {
    act: &'static str,
    habit: Habit,
    fault: Fault,
    from: SignedDuration,
    length: SignedDuration,
}

impl Story {
    fn outage(from: SignedDuration, length: SignedDuration) -> Story {
        Story { act: "probe", habit: Habit::Rereads, fault: Fault::Away, from, length }
    }
}

/// Lives it, with what is asked at each hour.
async fn lived(
    story: &Story,
    mut each_hour: impl FnMut(&Life, Timestamp),
) -> Result<Outcome, String> {
    let birth: Timestamp = BIRTH.parse().expect("an instant");
    let (from, until) = (birth + story.from, birth + story.from + story.length);
    let (act, habit) = (story.act, story.habit);
    let kind = Kind { kubernetes: "1.36", act, habit, token: ("1h", "24h") };
    let disk = Disk::directory().map_err(|error| error.to_string())?;
    let world = World::new(kind, disk, birth).await?;
    let plan = vec![(from, Change::Begin(story.fault)), (until, Change::End(story.fault))];
    let mut life = Life::new(world, plan, 7, Log::default())?;
    while life.world.now() < until + RECOVERY + DAY {
        let next = life.world.now() + HOUR;
        life.live(next).await?;
        each_hour(&life, life.world.now());
        let broken = life.broken();
        assert!(broken.is_empty(), "{broken:#?}");
    }
    Ok(life.outcome())
}

/// Nobody was started or restarted.
fn undisturbed(outcome: &Outcome) {
    assert_eq!((outcome.starts, outcome.acts), (1, 0));
}

/// The first end of what is published.
fn ends(world: &World) -> Timestamp {
    let end = |name: &&str| {
        let pem = std::fs::read(world.current(name).join("cert.pem")).expect("it is published");
        Leaf::read(&pem).expect("a certificate").not_after
    };
    CERTIFICATES.iter().map(end).min().expect("there are some")
}

fn block_on(story: &Story, each_hour: impl FnMut(&Life, Timestamp)) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let lived = runtime.expect("a runtime").block_on(lived(story, each_hour));
    lived.expect("the simulation itself works")
}

#[test]
fn z01_three_days_without_vault_stop_nothing_and_cure_themselves() {
    let birth: Timestamp = BIRTH.parse().expect("an instant");
    let back = birth + SETTLED + DAY * 3 + RECOVERY;
    undisturbed(&block_on(&Story::outage(SETTLED, DAY * 3), |life, now| {
        assert!(life.world.consumer.is_running(), "it runs at {now}");
        if now > back {
            assert!(ends(&life.world) > now + SURVIVE, "at {now} it is as if nothing had been");
        }
    }));
}

/// The outage begins at each hour of a period, so once just before a renewal is due.
#[test]
fn n07_an_outage_as_long_as_is_promised_ends_no_certificate() {
    for hour in 0..12 {
        undisturbed(&block_on(&Story::outage(SETTLED + HOUR * hour, SURVIVE), |life, now| {
            assert!(ends(&life.world) > now, "begun {hour} h later, ended at {now}");
        }));
    }
}

/// One renewal takes one certificate; the next comes when half of the former one's rest is over.
#[test]
fn n02_a_restart_that_fails_for_a_day_costs_no_certificate_within_an_hour_of_another() {
    let story = Story {
        act: "restart",
        habit: Habit::Holds,
        fault: Fault::Consumer(Start::Fails),
        from: SETTLED,
        length: DAY,
    };
    let mut signed = Vec::new();
    let outcome = block_on(&story, |life, _| {
        let servers = life.signed().iter().filter(|(_, role)| role == "kubelet-server");
        signed.extend(servers.map(|(at, _)| *at));
    });
    signed.sort();
    signed.dedup();
    println!("{} certificates, {} restarts: {signed:?}", signed.len(), outcome.acts);
    assert!(signed.len() > 2 && outcome.acts > 2, "it was renewed, and its restarts failed");
    for pair in signed.windows(2) {
        assert!(pair[0].duration_until(pair[1]) >= HOUR, "{pair:?}");
    }
}

//! The simulation as a whole can fail: a node that has lived well for two days is tampered with
//! behind the agent's back, in ways that the plan never has, and the very invariant notices.

use std::os::unix::fs::PermissionsExt;

use jiff::{SignedDuration, Timestamp};
use nodeagent::host::units::Units;
use rig::pki::Ca;

use super::BIRTH;
use super::clock::lock;
use super::consumer::Habit;
use super::disk::Disk;
use super::life::{Life, Log};
use super::world::{Kind, Mood, PUBLISHED, World};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A node that nothing befalls, and whose consumer would reread.
fn kind() -> Kind {
    Kind { kubernetes: "1.36", act: "probe", habit: Habit::Rereads, token: ("1h", "24h") }
}

/// The invariant that breaks within a day of the sabotage.
fn broken_by(kind: Kind, sabotage: impl AsyncFn(&mut World)) -> Option<&'static str> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let lived = runtime.expect("a runtime").block_on(async {
        let birth: Timestamp = BIRTH.parse().expect("an instant");
        let disk = Disk::directory().map_err(|error| error.to_string())?;
        let world = World::new(kind, disk, birth).await?;
        let mut life = Life::new(world, Vec::new(), 7, Log::default())?;
        life.live(birth + DAY * 2).await?;
        sabotage(&mut life.world).await;
        life.touched();
        let tampered = life.world.now();
        life.live(tampered + DAY).await?;
        Ok::<_, String>((tampered, life.outcome()))
    });
    let (tampered, outcome) = lived.expect("the simulation itself works");
    let broken = outcome.broken.first()?;
    assert!(broken.at >= tampered, "it was broken before: {broken:?}");
    Some(broken.invariant)
}

#[test]
fn a_life_without_sabotage_breaks_nothing() {
    assert_eq!(broken_by(kind(), async |_| {}), None);
}

#[test]
fn a_planted_certificate_is_noticed() {
    let planted = broken_by(kind(), async |world| {
        let leaf = Ca::new("theirs").issue(&["node"]);
        let pair = format!("{}{}", leaf.cert_pem, leaf.key_pem);
        let current = world.current("kubelet-server");
        for (name, text) in
            [("cert.pem", &leaf.cert_pem), ("key.pem", &leaf.key_pem), ("pair.pem", &pair)]
        {
            std::fs::write(current.join(name), text).expect("a file is overwritten");
        }
    });
    assert_eq!(planted, Some("key fits certificate and chain"));
}

#[test]
fn a_job_that_nobody_recorded_is_noticed() {
    let acted = broken_by(Kind { act: "restart", ..kind() }, async |world| {
        let limit = std::time::Duration::from_secs(90);
        world.units.restart("kubelet.service", limit).await.expect("it restarts");
    });
    assert_eq!(acted, Some("a generation is acted on once"));
}

#[test]
fn a_consumer_that_keeps_the_old_pair_is_noticed() {
    let kind = Kind { act: "nothing", habit: Habit::Holds, ..kind() };
    assert_eq!(broken_by(kind, async |_| {}), Some("healthy means well"));
}

#[test]
fn a_key_that_everyone_may_read_is_noticed() {
    let shown = broken_by(kind(), async |world| {
        // The key, because the token is another one soon.
        let (key, path) = (world.current("kubelet-server").join("key.pem"), world.path("etc/copy"));
        std::fs::copy(key, &path).expect("our own file");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).expect("our own file");
    });
    assert_eq!(shown, Some("no secret is shown"));
}

#[test]
fn a_new_nonce_is_noticed() {
    let renewed = broken_by(kind(), async |world| {
        let path = world.path(&format!("var/lib/nodeagent/nonce/aws/{}", world.instance));
        std::fs::write(path, "another\n").expect("our own file");
    });
    assert_eq!(renewed, Some("the nonce stays"));
}

#[test]
fn a_storm_of_requests_is_noticed() {
    let stormed = broken_by(kind(), async |world| {
        for _ in 0..300 {
            world.admin.read("sys/health").await.expect("vault answers");
        }
    });
    assert_eq!(stormed, Some("no request storm"));
}

#[test]
fn a_night_that_the_agent_slept_through_is_noticed() {
    let slept = broken_by(kind(), async |world| world.truth.advance(DAY * 2));
    assert_eq!(slept, Some("no leaf expires in fair weather"));
}

#[test]
fn an_effect_without_end_is_noticed() {
    let hung = broken_by(kind(), async |world| {
        *lock(&world.mood) = Mood::Slow(SignedDuration::from_mins(10));
    });
    assert_eq!(hung, Some("an effect ends within its limit"));
}

#[test]
fn what_is_left_behind_is_noticed() {
    let left = broken_by(kind(), async |world| {
        for number in 1..4 {
            let dir = world.path(PUBLISHED).join(format!("kubelet-client/{number:08}"));
            std::fs::create_dir_all(&dir).expect("a directory");
            std::fs::write(dir.join("notes.txt"), "of somebody else").expect("a file");
        }
    });
    assert_eq!(left, Some("nothing is left behind"));
}

//! Single turns of the agent that a drawn life seldom meets.

use nodeagent::duty::act::{Acted, Generations, RolledBack};
use nodeagent::duty::certs::store::Generation;
use nodeagent::duty::{Done, certs};
use nodeagent::error::{Code, Error};
use nodeagent::failpoint::failing::{self, Failing};

use super::super::BIRTH;
use super::super::consumer::Habit;
use super::super::disk::Disk;
use super::super::world::Kind;
use super::*;

/// A life without faults, after so many hours.
async fn lived(hours: i64) -> Life {
    let birth: Timestamp = BIRTH.parse().expect("an instant");
    let (kubernetes, act, habit) = ("1.36", "probe", Habit::Rereads);
    let kind = Kind { kubernetes, act, habit, token: ("1h", "24h") };
    let disk = Disk::directory().expect("a directory");
    let world = World::new(kind, disk, birth).await.expect("a world");
    let mut life = Life::new(world, Vec::new(), 7, Log::default()).expect("a life");
    life.live(birth + SignedDuration::from_hours(hours)).await.expect("it lives");
    life
}

fn block_on<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(story)
}

/// What a look found in the archive may be gone when the effect begins.
#[test]
fn n02_a_copy_that_is_gone_after_the_look_costs_no_issue_that_was_not_counted() {
    let signed = block_on(async {
        let mut life = lived(30).await;

        let (name, id) = ("kubelet-client", DutyId::Cert("kubelet-client".into()));
        std::fs::remove_file(life.world.current(name)).expect("its own link");
        let (facts, decision) = life.agent().look().await;
        let due = decision.start.iter().find(|(due, _)| *due == id);
        let why = due.expect("what is gone is published again").1;
        life.agent().begin(&id, &facts).expect("it begins");
        let archive = life.world.path("var/lib/nodeagent/archive").join(name);
        std::fs::remove_dir_all(archive).expect("its own archive");
        life.world.model.server().clear_log();
        let records = life.agent().records().clone();
        let outcome = Agent::perform(&life.node, &id, why, &records).await;
        assert!(outcome.is_err(), "{outcome:?}");
        life.world.model.server().count("/v1/pki/sign/")
    });
    assert_eq!(signed, 0, "an issue that no budget knows");
}

/// The archive may hold nothing better than what a failing disk hides for a moment.
#[test]
fn what_cannot_be_seen_just_now_is_not_replaced_from_the_archive() {
    block_on(async {
        let life = lived(30).await;
        let (name, id) = ("kubelet-client", DutyId::Cert("kubelet-client".into()));
        let published = || std::fs::read_link(life.world.current(name)).expect("a link");
        let before = published();
        let records = life.agent.as_ref().expect("it is up").records().clone();
        failing::set(Failing::Next);
        let outcome = Agent::perform(&life.node, &id, Why::Expiring, &records).await;
        assert_eq!(outcome.err().map(|error| error.code()), Some(Code::Disk));
        assert_eq!(published(), before);
        assert_eq!(failing::set(Failing::Nothing), Failing::Nothing, "nothing was read");
    });
}

/// A person's wish for a new certificate costs one, however often it takes to publish it.
#[test]
fn a_wish_that_cannot_be_published_costs_one_issue() {
    block_on(async {
        let mut life = lived(2).await;
        let (name, id) = ("kubelet-client", DutyId::Cert("kubelet-client".into()));
        let published = life.world.current(name).with_file_name("");
        let generation =
            |life: &Life| std::fs::read_link(life.world.current(name)).expect("a link");
        let before = generation(&life);
        // What `current` is made of before it is renamed.
        let blocked = published.join(nodeagent::host::files::temporary("current"));
        std::fs::create_dir_all(blocked.join("mine")).expect("a directory");
        certs::request_renewal(&life.node.root, name).expect("a wish");
        // The new one ends before the one that is in force.
        let role = "pki/roles/kubelet-client";
        let mut shorter = life.world.admin.read(role).await.expect("a role").json["data"].clone();
        (shorter["ttl"], shorter["max_ttl"]) = ("20h".into(), "20h".into());
        life.world.admin.must_write(role, &shorter).await.expect("it is written");
        life.world.model.server().clear_log();

        for fails in [true, true, false] {
            if !fails {
                std::fs::remove_dir_all(&blocked).expect("its own directory");
            }
            let later = life.world.now() + SignedDuration::from_mins(5);
            life.world.truth.set(later);
            let (facts, decision) = life.agent().look().await;
            let due = decision.start.iter().find(|(due, _)| *due == id);
            assert_eq!(due.map(|(_, why)| *why), Some(Why::Requested));
            life.agent().begin(&id, &facts).expect("it begins");
            let records = life.agent().records().clone();
            let outcome = Agent::perform(&life.node, &id, Why::Requested, &records).await;
            assert_eq!(outcome.is_err(), fails, "{outcome:?}");
            life.agent().settle(&id, outcome);
            assert_eq!(life.world.model.server().count("/v1/pki/sign/"), 1, "one issue");
            assert_eq!(generation(&life) == before, fails);
        }
        let (facts, decision) = life.agent().look().await;
        let held = facts.certificates[name].held().expect("it is published");
        assert_eq!((held.flaw, decision.start.iter().any(|(due, _)| *due == id)), (None, false));
    });
}

/// A crash may come between a publication and the note of it.
#[test]
fn what_was_issued_since_a_rollback_does_not_rest() {
    block_on(async {
        let mut life = lived(2).await;
        let (name, id) = ("kubelet-client", DutyId::Cert("kubelet-client".into()));
        let back = RolledBack {
            consumer: "kubelet".into(),
            quarantined: [(name.to_owned(), Generation(99))].into(),
            applied: Generations::new(),
            error: Error::new(Code::RolledBack, "it failed"),
        };
        let act = DutyId::Act("kubelet".into());
        life.agent().settle(&act, Ok(Done::Acted(Acted::RolledBack(back))));
        life.world.truth.set(life.world.now() + SignedDuration::from_mins(5));
        certs::request_renewal(&life.node.root, name).expect("a wish");
        let (facts, _) = life.agent().look().await;
        life.agent().begin(&id, &facts).expect("it begins");
        let records = life.agent().records().clone();
        let done = Agent::perform(&life.node, &id, Why::Requested, &records).await;
        assert!(matches!(done, Ok(Done::Committed(_))), "{done:?}");
        life.start().expect("it starts again, and knows of nothing");

        let (_, root) = life.world.make_root().await.expect("another authority");
        life.world.believe(root);
        let taken_up = Agent::perform(&life.node, &DutyId::Session, Why::Unproved, &records).await;
        life.agent().settle(&DutyId::Session, taken_up);
        let (_, decision) = life.agent().look().await;
        assert!(decision.start.contains(&(id, Why::CaRotated)), "{:?}", decision.start);
    });
}

/// Whoever waits for records for ever lets every certificate end.
#[test]
fn records_that_the_disk_never_gives_are_done_without_after_an_hour() {
    block_on(async {
        let mut life = lived(2).await;
        // They are torn, and cannot be put aside.
        let path = life.world.path("var/lib/nodeagent/records.json");
        std::fs::write(&path, "{").expect("its own file");
        let aside = life.world.path("var/lib/nodeagent/records.json.unreadable/mine");
        std::fs::create_dir_all(aside).expect("a directory");
        life.start().expect("it starts");
        std::fs::remove_file(life.world.current("kubelet-client")).expect("its own link");

        for (minutes, decides) in [(0, false), (59, false), (2, true)] {
            let later = life.world.now() + SignedDuration::from_mins(minutes);
            life.world.truth.set(later);
            let (_, decision) = life.agent().look().await;
            assert_eq!(!decision.start.is_empty(), decides, "after {minutes} minutes more");
        }
        assert_eq!(std::fs::read_to_string(&path).ok().as_deref(), Some("{"), "it is kept");
    });
}

/// What only the memory knows is gone with the next crash.
#[test]
fn records_that_could_not_be_written_are_written_at_the_next_look() {
    block_on(async {
        let mut life = lived(2).await;
        let path = life.world.path("var/lib/nodeagent/records.json");
        let told =
            |word: &str| std::fs::read_to_string(&path).expect("its own file").contains(word);
        failing::set(Failing::Changes);
        let error = Error::new(Code::VaultUnreachable, "away");
        life.agent().settle(&DutyId::Session, Err(error));
        failing::set(Failing::Nothing);
        assert!(!told("vault-unreachable"));
        life.agent().look().await;
        assert!(told("vault-unreachable"));
    });
}

//! What happens to a node in its life, as data: faults that last and blows that fall, drawn from
//! the seed before the life begins.

use jiff::{SignedDuration, Timestamp};
use nodeagent::failpoint::failing::Failing;
use rig::vault::Lie;

use super::clock::Place;
use super::consumer::Start;
use super::random::Random;

/// Something that is wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// Connections to Vault are refused.
    Away,
    /// Vault is sealed.
    Sealed,
    /// Every answer of Vault is an error of this status.
    Failing(u16),
    /// 429, with a wait asked for.
    Throttled,
    /// A login page with status 200 instead of Vault.
    Html,
    /// Connections are cut in the middle of an answer.
    Cut,
    /// Vault answers late: AWS behind it takes so many seconds, and then says no.
    AwsHangs,
    /// AWS behind Vault throttles, which Vault tells as a 400.
    AwsThrottles,
    /// AWS behind Vault answers so many seconds late.
    AwsSlow(u16),
    /// Vault answers everything so many seconds late.
    Slow(u16),
    /// Vault does what it is asked when the agent has given up waiting.
    TooSlow,
    /// Vault signs what was not asked for.
    Lying(Lie),
    /// The login role is for other accounts.
    LoginRoleNarrow,
    /// The login role is for another image than the node's.
    ImageUnknown,
    /// The PKI role is for other names.
    PkiRoleNarrow,
    /// The policy allows nothing.
    PolicyLost,
    /// Vault signs with an authority that is not in the bundle.
    IssuerUnknown,
    /// The wall clock is wrong by so many seconds.
    ClockStep(i32),
    /// The oscillator is so many millionths too fast, and nobody corrects the clock.
    Drift(i32),
    /// The disk is full.
    DiskFull,
    /// The disk is read-only.
    DiskReadOnly,
    /// The disk fails: EIO.
    DiskFailing(Failing),
    /// Something that the agent did not write is in the place of `current`.
    Foreign,
    /// The metadata service does not answer.
    ImdsAway,
    /// D-Bus does not answer.
    BusAway,
    /// The consumer does not start well.
    Consumer(Start),
    /// The instance is stopped; its start has a new `pendingTime`.
    Stopped,
}

/// Something that happens at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// The agent is killed between two effects, and started again.
    Restart,
    /// The next effect that comes to this place is killed there.
    KillAt(Place),
    /// The machine boots: /run is gone, the consumer starts again.
    Reboot,
    /// The machine is replaced by one of a newer image: another instance, an empty disk.
    Replaced,
    /// The administrator deletes the access-list entry.
    EntryDeleted,
    /// The administrator revokes the token.
    TokenRevoked,
    /// One of the published files loses its second half.
    Torn,
    /// One of the published files is gone.
    Unlinked,
    /// `current` is gone.
    LinkLost,
    /// The records are torn.
    RecordsTorn,
    /// A new authority is made and put into the bundle.
    AuthorityAdded,
    /// Vault signs with the new authority.
    AuthorityChanged,
    /// The old authority leaves the bundle.
    AuthorityDropped,
}

/// One entry of the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    Begin(Fault),
    End(Fault),
    Blow(Blow),
}

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;

/// Time between the end of a lasting fault and the next, in the mean.
const FAIR: f64 = 14.0 * HOUR;

/// Time between two blows, in the mean.
const QUIET: f64 = 16.0 * HOUR;

/// Time between two changes of the authority, in the mean; each takes days.
const REIGN: f64 = 20.0 * DAY;

/// Everything that happens between two instants, in order.
pub(super) fn plan(
    random: &mut Random,
    from: Timestamp,
    until: Timestamp,
) -> Vec<(Timestamp, Change)> {
    let mut plan = Vec::new();
    lasting(random, from, until, &mut plan);
    blows(random, from, until, &mut plan);
    authorities(random, from, until, &mut plan);
    plan.sort_by_key(|(at, _)| *at);
    plan
}

type Plan = Vec<(Timestamp, Change)>;

/// Lasting faults come one after the other, so that each has an end that can be waited for; one
/// in five nodes is born into one.
fn lasting(random: &mut Random, from: Timestamp, until: Timestamp, plan: &mut Plan) {
    let mut at = match random.chance(0.2) {
        true => from,
        false => from + random.wait(FAIR),
    };
    while at < until {
        let (fault, span) = fault(random);
        plan.push((at, Change::Begin(fault)));
        plan.push((at + span, Change::End(fault)));
        at = at + span + SignedDuration::from_secs(1) + random.wait(FAIR);
    }
}

/// A fault and how long it lasts.
fn fault(random: &mut Random) -> (Fault, SignedDuration) {
    let lies = [Lie::WrongName, Lie::OtherKey, Lie::OtherIssuer, Lie::Expired, Lie::NoUsage];
    let starts = [Start::Late, Start::Fails, Start::Fails, Start::Hangs];
    let failing = [Failing::Reads, Failing::Changes, Failing::OneIn(5), Failing::OneIn(40)];
    let hour = random.pick(&[3600, -3600, 90, -90, 20, -20, 86_400]);
    let (shortest, longest, fault) = random.weighted(&[
        (16, (2.0 * MINUTE, 12.0 * HOUR, Fault::Away)),
        (1, (12.0 * HOUR, 3.0 * DAY, Fault::Away)),
        (8, (2.0 * MINUTE, 4.0 * HOUR, Fault::Sealed)),
        (4, (MINUTE, 8.0 * HOUR, Fault::Failing(503))),
        (4, (MINUTE, 8.0 * HOUR, Fault::Failing(500))),
        (4, (MINUTE, 4.0 * HOUR, Fault::Throttled)),
        (4, (MINUTE, 3.0 * HOUR, Fault::Html)),
        (4, (MINUTE, 4.0 * HOUR, Fault::Cut)),
        (4, (MINUTE, 8.0 * HOUR, Fault::AwsHangs)),
        (4, (MINUTE, 8.0 * HOUR, Fault::AwsThrottles)),
        (4, (MINUTE, 8.0 * HOUR, Fault::AwsSlow(40))),
        (4, (MINUTE, 8.0 * HOUR, Fault::Slow(20))),
        (4, (MINUTE, 8.0 * HOUR, Fault::TooSlow)),
        (8, (HOUR, 1.5 * DAY, Fault::Lying(Lie::WrongName))),
        (4, (10.0 * MINUTE, 1.5 * DAY, Fault::LoginRoleNarrow)),
        (3, (10.0 * MINUTE, 1.5 * DAY, Fault::ImageUnknown)),
        (4, (HOUR, 1.5 * DAY, Fault::PkiRoleNarrow)),
        (4, (10.0 * MINUTE, 1.5 * DAY, Fault::PolicyLost)),
        (4, (HOUR, 1.5 * DAY, Fault::IssuerUnknown)),
        (8, (5.0 * MINUTE, 5.0 * HOUR, Fault::ClockStep(hour))),
        (2, (DAY, 1.5 * DAY, Fault::Drift(350))),
        (6, (5.0 * MINUTE, 1.5 * DAY, Fault::DiskFull)),
        (6, (5.0 * MINUTE, 1.5 * DAY, Fault::DiskReadOnly)),
        (8, (5.0 * MINUTE, 1.0 * DAY, Fault::DiskFailing(Failing::Reads))),
        (4, (HOUR, 1.5 * DAY, Fault::Foreign)),
        (4, (MINUTE, 8.0 * HOUR, Fault::ImdsAway)),
        (4, (HOUR, 1.0 * DAY, Fault::BusAway)),
        (10, (6.0 * HOUR, 2.0 * DAY, Fault::Consumer(Start::Fails))),
        (6, (5.0 * MINUTE, 6.0 * DAY, Fault::Stopped)),
    ]);
    let fault = match fault {
        Fault::Lying(_) => Fault::Lying(random.pick(&lies)),
        Fault::Consumer(_) => Fault::Consumer(random.pick(&starts)),
        Fault::DiskFailing(_) => Fault::DiskFailing(random.pick(&failing)),
        Fault::Drift(ppm) => Fault::Drift(random.pick(&[ppm, -ppm])),
        other => other,
    };
    (fault, random.seconds(shortest, longest))
}

fn blows(random: &mut Random, from: Timestamp, until: Timestamp, plan: &mut Plan) {
    let mut at = from + random.wait(QUIET);
    while at < until {
        let blow = random.weighted(&[
            (6, Blow::Restart),
            (3, Blow::KillAt(Place::Pause)),
            (3, Blow::KillAt(Place::BeforeAct)),
            (3, Blow::KillAt(Place::AfterAct)),
            (5, Blow::Reboot),
            (3, Blow::EntryDeleted),
            (3, Blow::TokenRevoked),
            (2, Blow::Torn),
            (2, Blow::Unlinked),
            (2, Blow::LinkLost),
            (1, Blow::RecordsTorn),
            (1, Blow::Replaced),
        ]);
        plan.push((at, Change::Blow(blow)));
        at = at + SignedDuration::from_secs(1) + random.wait(QUIET);
    }
}

/// The right order: the new one is in every bundle before Vault signs with it, and the old one
/// stays until nothing of it is left.
fn authorities(random: &mut Random, from: Timestamp, until: Timestamp, plan: &mut Plan) {
    let mut at = from + random.wait(REIGN);
    while at < until {
        plan.push((at, Change::Blow(Blow::AuthorityAdded)));
        at += random.seconds(2.0 * HOUR, 2.0 * DAY);
        plan.push((at, Change::Blow(Blow::AuthorityChanged)));
        at += random.seconds(2.0 * DAY, 5.0 * DAY);
        plan.push((at, Change::Blow(Blow::AuthorityDropped)));
        at += random.wait(REIGN);
    }
}

#[test]
fn a_plan_is_in_order_and_every_fault_ends() {
    let from = Timestamp::from_second(1_800_000_000).unwrap();
    let until = from + SignedDuration::from_hours(24 * 50);
    let plan = plan(&mut Random::new(5), from, until);
    assert!(plan.is_sorted_by_key(|(at, _)| *at));
    let count = |wanted: fn(&Change) -> bool| plan.iter().filter(|(_, c)| wanted(c)).count();
    let begun = count(|change| matches!(change, Change::Begin(_)));
    assert_eq!(begun, count(|change| matches!(change, Change::End(_))));
    assert!(begun > 15 && count(|change| matches!(change, Change::Blow(_))) > 30);
}

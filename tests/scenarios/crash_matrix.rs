//! A crash at every point where the agent changes something outside of itself: files, links, jobs
//! of systemd, requests. The points are not listed here: the agent, built with debug assertions,
//! tells those that it passes (`nodeagent::failpoint`), so that a new change is covered on the day
//! it is added, and a new kind of change that no story meets fails the matrix.
//!
//! Each story is told once undisturbed. Then it is told again and again, each time with a crash at
//! another point, and gone on with: it has to come to the same end. Points between which neither
//! the disk nor the world has changed are one. Were the rest ever too many for the time that the
//! tests have, they would be thinned out evenly, no kind without its point, and the figures show
//! it; NODEAGENT_CRASH_POINTS=all takes every one.

mod disk;
mod lane;
mod plots;
mod replay;
mod shape;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use clap::ValueEnum;
use nodeagent::failpoint::{Edge, Kind, Passed};

use disk::Disk;
use lane::{Lane, Point, ids};
use plots::Plot;
use replay::Replay;

/// Kills of a story, and disks of one after a loss of power, unless all are asked for. All that
/// there were on the day of writing are fewer, and cost two minutes of one core.
const MOST: usize = 200;

/// What a story was disturbed at.
#[derive(Default)]
struct Tally {
    disturbed: BTreeSet<(Edge, Kind)>,
    points: usize,
    states: usize,
    told: usize,
    faults: Vec<String>,
}

impl Tally {
    fn note(&mut self, what: String, faults: &[String]) {
        if !faults.is_empty() {
            self.faults.push(format!("{what}: {faults:#?}"));
        }
    }
}

#[test]
fn z03_killed_before_and_after_every_change_the_agent_comes_to_the_same_end() {
    let tallies = each_plot(killed);
    let mut disturbed = BTreeSet::new();
    for (plot, tally) in &tallies {
        println!(
            "FIGURE {plot:?} kills={} of_states={} of_points={}",
            tally.told, tally.states, tally.points
        );
        disturbed.extend(tally.disturbed.iter().copied());
    }
    // The code's own list of what it changes.
    for kind in Kind::value_variants() {
        for edge in Edge::value_variants() {
            assert!(disturbed.contains(&(*edge, *kind)), "no story was killed {edge:?} {kind:?}");
        }
    }
}

fn killed(plot: Plot) -> Tally {
    let mut lane = Lane::set(plot);
    let whole = lane.undisturbed();
    let log = &whole.log[..whole.verb];
    let points = lane.points(log);
    let states = states(&lane, log, &points);
    let mut tally = Tally { points: points.len(), states: states.len(), ..Tally::default() };
    let mut chosen = thin(states, MOST, |point| (point.edge, point.kind));
    // A kind that shares all its states with others has its point too.
    for point in points {
        let same = |other: &Point| (other.edge, other.kind) == (point.edge, point.kind);
        if !chosen.iter().any(same) {
            chosen.push(point);
        }
    }
    for point in &chosen {
        // The order of what goes on side by side may differ; then there is no such point.
        if let Some(end) = lane.killed_at(point) {
            tally.told += 1;
            tally.disturbed.insert((point.edge, point.kind));
            let mut faults = end.unlike(&whole.end);
            faults.extend(end.excess(&whole.end));
            tally.note(format!("killed {point:?}"), &faults);
        }
    }
    tally
}

#[test]
fn z03_what_was_not_fsynced_is_lost_and_the_agent_comes_to_the_same_end() {
    for (plot, tally) in &each_plot(powered_off) {
        println!("FIGURE {plot:?} losses={} of={}", tally.told, tally.states);
    }
}

/// After a loss of power it is as if the story had come to its end, or had not begun: what a person
/// wished for is in memory, and has to be wished for again.
fn powered_off(plot: Plot) -> Tally {
    let mut lane = Lane::set(plot);
    let whole = lane.undisturbed();
    let losses = losses(&lane, &whole.log);
    let mut tally = Tally { states: losses.len(), ..Tally::default() };
    let mut replay = Replay::from(lane.disk(), ids());
    whole.log.iter().for_each(|passed| replay.pass(passed));
    let over = lane.powered_on(&replay.now().without_memory(), &whole, &whole.log);
    // From the last to the first: those of the instance that Vault has met, then those of others.
    let mut ends = Vec::new();
    for (at, disk) in thin(losses, MOST, |(at, _)| whole.log[*at].kind).into_iter().rev() {
        let told = &whole.log[..=at];
        ends.push((lane.points(told).pop(), lane.powered_on(&disk, &whole, told)));
    }
    let begin = lane.disk().clone().without_memory();
    let begun = lane.powered_on(&begin, &whole, &[]);
    for (point, end) in ends {
        tally.told += 1;
        let (mut faults, other) = (end.unlike(&over), end.unlike(&begun));
        if other.is_empty() {
            faults.clear();
        }
        faults.extend(end.excess(&whole.end));
        tally.note(format!("power lost at {point:?}"), &faults);
    }
    tally
}

/// Tells every story side by side: most of the time is waiting.
fn each_plot(tell: impl Fn(Plot) -> Tally + Sync) -> Vec<(Plot, Tally)> {
    std::thread::scope(|scope| {
        let threads = Plot::ALL.map(|plot| {
            let tell = &tell;
            (plot, scope.spawn(move || tell(plot)))
        });
        let ended = threads.into_iter().map(|(plot, thread)| (plot, thread.join()));
        let ended: Vec<_> = ended.collect();
        let mut tallies = Vec::new();
        for (plot, tally) in ended {
            let tally = tally.unwrap_or_else(|_| panic!("{plot:?} failed"));
            let faults = tally.faults.join("\n");
            assert!(faults.is_empty(), "{plot:?} came to another end\n{faults}");
            tallies.push((plot, tally));
        }
        tallies
    })
}

/// One point for each state of the disk and the world. Of those that are the same, that of the kind
/// which has the fewest is taken.
fn states(lane: &Lane, log: &[Passed], points: &[Point]) -> Vec<Point> {
    let mut replay = Replay::from(lane.disk(), ids());
    let mut asked = 0;
    let mut groups: Vec<(u64, Vec<Point>)> = Vec::new();
    for (passed, point) in log.iter().zip(points) {
        replay.pass(passed);
        asked += usize::from(matches!(
            passed.kind,
            Kind::State | Kind::Job | Kind::JobEnd | Kind::Request
        ));
        // The status is told at every look, and is no more than that.
        let told = ["status.json", "metrics.prom"].iter().any(|name| point.subject.contains(name));
        if told && point.nth > 1 {
            continue;
        }
        let state = hash(&(replay.now(), asked));
        match groups.iter_mut().find(|(other, _)| *other == state) {
            Some((_, alike)) => alike.push(point.clone()),
            None => groups.push((state, vec![point.clone()])),
        }
    }
    let mut taken: BTreeMap<(Edge, Kind), usize> = BTreeMap::new();
    let mut states = Vec::new();
    for (_, alike) in groups {
        let least = |point: &&Point| taken.get(&(point.edge, point.kind)).copied();
        let point = alike.iter().min_by_key(least).expect("no group is empty");
        *taken.entry((point.edge, point.kind)).or_default() += 1;
        states.push(point.clone());
    }
    states
}

/// Every disk that a loss of power may leave, each once, with the last point that was passed.
fn losses(lane: &Lane, log: &[Passed]) -> Vec<(usize, Disk)> {
    let mut replay = Replay::from(lane.disk(), ids());
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (at, passed) in log.iter().enumerate() {
        replay.pass(passed);
        let disks = replay.losses().into_iter();
        found.extend(disks.filter(|disk| seen.insert(hash(disk))).map(|disk| (at, disk)));
    }
    found
}

/// At most so many of what there is, spread evenly, and at least one of each sort.
fn thin<T: Clone, K: Ord>(all: Vec<T>, most: usize, sort: impl Fn(&T) -> K) -> Vec<T> {
    let everything = std::env::var("NODEAGENT_CRASH_POINTS").is_ok_and(|value| value == "all");
    if everything || all.len() <= most {
        return all;
    }
    let mut seen = BTreeSet::new();
    let even = |index: usize| (index * most) / all.len() != ((index + 1) * most) / all.len();
    let firsts: Vec<bool> = all.iter().map(|one| seen.insert(sort(one))).collect();
    let kept = all.iter().enumerate().filter(|(index, _)| even(*index) || firsts[*index]);
    kept.map(|(_, one)| one.clone()).collect()
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

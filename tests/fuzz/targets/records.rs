//! The records: what is read is written as it was and read again as it is; what cannot be read is
//! put aside, whole; and no instant or number in them upsets what is made of them.

#![no_main]

use std::cell::LazyCell;
use std::time::Duration;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use nodeagent::backoff::Pace;
use nodeagent::duty::DutyId;
use nodeagent::duty::records::{BUDGET_TIME, PATH, Records};
use nodeagent::error::{Code, Error};
use nodeagent_fuzz::{Stage, assert_error, now};

/// Of a duty that nothing hurries: its waits are the longest.
const LEISURE: Pace = Pace { seed: 7, leeway: Some(Duration::MAX) };

thread_local! {
    static STAGE: LazyCell<Stage> = LazyCell::new(|| Stage::new(&["/var/lib/nodeagent"]));
}

fuzz_target!(|bytes: &[u8]| STAGE.with(|stage| records(stage, bytes)));

fn records(stage: &Stage, bytes: &[u8]) {
    stage.write(PATH, bytes);
    let aside = format!("{PATH}.unreadable");
    stage.remove(&aside);
    let read = match Records::load(&stage.root) {
        Ok(read) => read,
        Err(error) => {
            assert_eq!(stage.read(&aside), bytes, "what cannot be read is lost");
            assert_error(&error, 500);
            return;
        }
    };
    assert!(stage.read(&aside).is_empty(), "what was read was put aside too");
    stays(stage, &read);
    for at in [Timestamp::MIN, now(), Timestamp::MAX] {
        goes_on(stage, read.clone(), at);
    }
}

fn stays(stage: &Stage, read: &Records) {
    read.save(&stage.root).expect("it is written");
    let again = Records::load(&stage.root).expect("it is read");
    assert_eq!(again, *read);
    let essence = read.essence();
    assert_eq!(essence.essence(), essence);
}

/// What a run of the agent does with them.
fn goes_on(stage: &Stage, mut records: Records, at: Timestamp) {
    let known: Vec<DutyId> = records.failures().map(|(id, _)| id.clone()).collect();
    records.forget_future(at);
    let once = records.clone();
    records.forget_future(at);
    assert_eq!(records, once);
    let ids = [DutyId::Session, DutyId::Cert("k".into()), DutyId::Act("k".into())];
    for id in known.iter().chain(&ids) {
        let error = Error::new(Code::VaultFailing, "503");
        let before = records.duty(id).failure.map_or(0, |failure| failure.count);
        records.failed(id, &error, at, LEISURE);
        let duty = records.duty(id);
        assert!(duty.not_before.is_some_and(|until| until >= at), "no backoff");
        assert!(duty.failure.is_some_and(|failure| failure.count > 0 || before == u32::MAX));
        records.recovered(id);
        assert!(records.duty(id).failure.is_none());
    }
    let asked = records.certificate("k").recent_issues(at).count();
    records.count_issue("k", at);
    let record = records.certificate("k");
    assert_eq!(record.recent_issues(at).count(), asked + 1, "an issue is not counted once");
    assert!(record.issues.iter().all(|issue| at.duration_since(*issue) < BUDGET_TIME));
    records.refund_issue("k");
    // What is under way is known to the memory alone; with its end it is forgotten.
    assert!(records.is_granted("k"));
    records.end_grant("k");
    assert_eq!(records.certificate("k").recent_issues(at).count(), asked);
    records.forget_backoff();
    records.keep_duties(&known);
    stays(stage, &records);
}

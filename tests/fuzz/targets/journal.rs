//! The journal of the control plane: whatever lies in the file, it is read or refused with the
//! line; a torn end changes nothing; and what is noted or begun anew is known at the next start.

#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use nodeagent::bootstrap::journal::{Event, Journal, Mode, PATH};
use nodeagent::bootstrap::step::Step;
use nodeagent::config::plane::Style;
use nodeagent_fuzz::{Stage, assert_error, now};

thread_local! {
    static STAGE: LazyCell<Stage> = LazyCell::new(|| Stage::new(&["/var/lib/nodeagent"]));
}

fuzz_target!(|bytes: &[u8]| STAGE.with(|stage| journal(stage, bytes)));

fn journal(stage: &Stage, bytes: &[u8]) {
    stage.write(PATH, bytes);
    let read = match Journal::load(&stage.root) {
        Ok(read) => read,
        Err(error) => {
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            let text = format!("{error:#}");
            let line = text.split("line ").nth(1).and_then(|rest| rest.split(':').next());
            let line: Option<usize> = line.and_then(|line| line.parse().ok());
            assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{text}");
            assert_error(&error, 500);
            return;
        }
    };
    torn(stage, bytes, &read);
    noted(stage, bytes, &read);
}

/// What follows the last whole line was never done.
fn torn(stage: &Stage, bytes: &[u8], read: &Journal) {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    for torn in [&bytes[..whole], &[&bytes[..whole], b"{\"at\":\"2026".as_slice()].concat()] {
        stage.write(PATH, torn);
        let again = Journal::load(&stage.root).expect("it was read before");
        assert_eq!(again, *read);
    }
}

fn noted(stage: &Stage, bytes: &[u8], read: &Journal) {
    stage.write(PATH, bytes);
    let mut journal = read.clone();
    let events = [
        Event::Opened { mode: Mode::Raise, style: Style::Static },
        Event::Begun { step: Step::AwaitEtcd },
        Event::Failed { step: Step::AwaitEtcd, text: "\u{1b}[31m\n\"".into() },
        Event::AssetsApplied { digest: "d".into() },
        Event::Completed,
    ];
    for event in events {
        let before = journal.epoch;
        if journal.note(&stage.root, now(), event).is_err() {
            return;
        }
        assert!(journal.epoch >= before, "the epoch went back");
        assert_eq!(Journal::load(&stage.root).expect("it was written"), journal);
    }
}

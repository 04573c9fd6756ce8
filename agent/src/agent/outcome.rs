//! What is told of an effect that succeeded: one line of log, and what went wrong beside it.

use tracing::{debug, info, warn};

use crate::duty::act::Acted;
use crate::duty::session::LOGGED_IN;
use crate::duty::{Done, DutyId};
use crate::error::Error;

/// What went wrong beside a success, and stays told.
pub(super) fn left_over(done: &Done) -> Option<&Error> {
    match done {
        Done::Acted(Acted::RolledBack(back)) => Some(&back.error),
        Done::Raised(report) => report.remarks.as_ref(),
        _ => None,
    }
}

/// One line of log for what an effect achieved, where that is worth one.
pub(super) fn log_success(id: &DutyId, done: &Done, recovered: bool) {
    match done {
        Done::Session(word) if *word == LOGGED_IN || recovered => info!(duty = %id, "{word}"),
        Done::Session(word) => debug!(duty = %id, "{word}"),
        Done::Committed(commit) => {
            let how = if commit.issued { "issued" } else { "published again" };
            info!(
                duty = %id, serial = %commit.serial, generation = commit.generation.0,
                "{how}, valid until {}", commit.not_after
            );
        }
        Done::Acted(Acted::Adopted(adopted)) => {
            let serial = adopted.served.as_deref().unwrap_or("-");
            let word = adopted.act.unwrap_or("needed no restart");
            info!(duty = %id, served = %serial, "{word}");
        }
        Done::Acted(Acted::Intends(..)) => debug!(duty = %id, "an act is needed"),
        Done::Acted(Acted::RolledBack(back)) => warn!(duty = %id, "{:#}", back.error),
        Done::Files(names) => info!(duty = %id, "wrote {}", names.join(", ")),
        Done::Raised(report) => {
            let steps = report.done.iter().map(|(step, _)| step.name());
            let steps: Vec<_> = steps.collect();
            info!(duty = %id, "the control plane is whole: {}", steps.join(", "));
            report.notes.iter().for_each(|note| info!(duty = %id, "{note}"));
        }
    }
}

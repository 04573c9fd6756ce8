//! What is told of an effect that succeeded: one line of log, and what went wrong beside it.

use jiff::Timestamp;
use tracing::{debug, info, warn};

use crate::backoff::Pace;
use crate::bootstrap::Report;
use crate::duty::act::Acted;
use crate::duty::session::Plan;
use crate::duty::{Done, DutyId, Records};

/// What went wrong beside a success, and stays told.
pub(super) fn note_left_over(
    records: &mut Records,
    id: &DutyId,
    done: &Done,
    (now, pace): (Timestamp, Pace),
) {
    match done {
        Done::Acted(Acted::RolledBack(back)) => {
            records.failed(id, &back.error, now, pace);
        }
        Done::Raised(Report { remarks: Some(error), .. }) => records.remarked(id, error, now),
        _ => {}
    }
}

/// One line of log for what an effect achieved, where that is worth one.
pub(super) fn log_success(id: &DutyId, done: &Done, recovered: bool) {
    match done {
        Done::Session(did) if *did == Plan::LogIn || recovered => {
            info!(duty = %id, "{}", did.done());
        }
        Done::Session(did) => debug!(duty = %id, "{}", did.done()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Error};

    #[test]
    fn what_is_wrong_beside_a_raise_is_told_and_nothing_waits_for_it() {
        let (mut records, id) = (Records::default(), DutyId::ControlPlane);
        let now = Timestamp::from_second(1_800_000_000).expect("an instant");
        let remarks = Some(Error::new(Code::AssetsBad, "no such kind").advise("correct it"));
        let done = Done::Raised(Report { remarks, ..Report::default() });
        records.succeeded(&id, &done, now);
        note_left_over(&mut records, &id, &done, (now, Pace::steady(1)));
        records.recovered(&id);
        let duty = records.duty(&id);
        assert_eq!(duty.not_before, None);
        let failure = duty.failure.expect("it is told");
        assert_eq!((failure.code, failure.text.as_str()), (Code::AssetsBad, "no such kind"));
    }
}

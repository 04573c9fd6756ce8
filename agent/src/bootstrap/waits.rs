//! Waits that give way: while a run waits for a step, an earlier one may become untrue, and is to
//! be done first.

use std::time::Duration;

use super::Run;
use super::facts::PlaneFacts;
use super::step::{self, Step};
use crate::error::Result;

/// A wait gives way to an earlier step this often in a run.
const GIVES_WAY: u32 = 20;

impl Run<'_> {
    /// Whether an earlier step is true no more, so that waiting for this one is in vain. A run
    /// that goes to and fro for ever has another reason than that.
    pub(super) fn gives_way(&mut self, step: Step, facts: &PlaneFacts) -> bool {
        let next = step::next(self.plane.style, facts, &self.journal);
        let earlier = next.is_some_and(|next| self.place(next) < self.place(step));
        let gives = earlier && self.gave_way.0 < GIVES_WAY;
        if gives {
            self.gave_way = (self.gave_way.0 + 1, true);
        }
        gives
    }

    /// A wait that gave way may have become true by what came before it: then it is done too.
    pub(super) fn close(&mut self, next: Option<Step>) -> Result<()> {
        let waits = |(open, _): &(Step, Duration)| {
            next.is_some_and(|next| self.place(next) <= self.place(*open))
        };
        let (open, over): (Vec<_>, Vec<_>) = self.open.iter().copied().partition(waits);
        self.open = open;
        over.into_iter().try_for_each(|(step, begun)| self.done(step, begun))
    }

    fn place(&self, step: Step) -> Option<usize> {
        step::steps(self.plane.style).iter().position(|each| *each == step)
    }
}

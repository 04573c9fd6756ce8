//! What the agent remembers, on a disk that may not give it.

use std::time::Duration;

use super::Agent;
use crate::duty::records::BUDGET_TIME;
use crate::duty::{self, Duty, Records};
use crate::error::Error;
use crate::node::Node;

/// What is remembered, as far as it is this node's, and what was wrong with it.
pub(super) fn recall(node: &Node) -> (Records, Option<Error>) {
    let (mut records, own) = match Records::load(&node.root) {
        Ok(records) => (records, None),
        Err(error) => (Records::default(), Some(error)),
    };
    records.forget_future(node.clock.now());
    let known: Vec<_> = duty::duties(&node.config).iter().map(Duty::id).collect();
    records.keep_duties(&known);
    (records, own)
}

/// Whether there are records that were not read.
pub(super) fn is_unread(node: &Node, own: Option<&Error>) -> bool {
    own.is_some() && Records::are_there(&node.root)
}

impl Agent {
    /// Reads once more what the disk did not give. It may never give it, and certificates end:
    /// after the time of the budget every issue that was counted there is none any more, and the
    /// agent goes on without. What it then may do twice is one restart. A disk that gives nothing
    /// else either leaves nothing to go on with.
    pub(super) fn recall_again(&mut self) {
        let Some(since) = self.unread else { return };
        (self.records, self.own) = recall(&self.node);
        let waited = self.node.clock.monotonic().saturating_sub(since);
        let is_over = waited >= Duration::try_from(BUDGET_TIME).unwrap_or_default();
        if !is_unread(&self.node, self.own.as_ref()) {
            self.unread = None;
        } else if is_over && self.node.disk_reads() {
            // Where this fails too they are written over, as little as they are worth by then.
            Records::put_aside(&self.node.root).ok();
            self.unread = None;
        }
    }
}

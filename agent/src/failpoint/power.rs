//! A power cut after so many changes, for tests of what a crash leaves behind. Once it is out, it
//! stays out: cleaning up after the error fails too, as it would.

use std::cell::Cell;
use std::path::Path;

use crate::error::{Code, Error, Result};

thread_local! {
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Cuts the power of this thread after `changes`; `None` restores it.
pub(crate) fn cut_after(changes: Option<usize>) {
    LEFT.set(changes);
}

pub(super) fn spend(path: &Path) -> Result<()> {
    match LEFT.get() {
        None => Ok(()),
        Some(0) => Err(Error::new(Code::Disk, "power cut").at(path.display())),
        Some(left) => {
            LEFT.set(Some(left - 1));
            Ok(())
        }
    }
}

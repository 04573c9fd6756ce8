//! A disk that fails, for the simulation: what is read, or what is changed, ends with EIO on the
//! thread that asked for it. Builds without debug assertions, as every release is, have none of it.

use std::cell::Cell;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{Error, Result};

/// What fails on a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failing {
    /// Nothing.
    #[default]
    Nothing,
    /// Each file that is read.
    Reads,
    /// Each change.
    Changes,
    /// One in so many reads and changes, not always the same ones.
    OneIn(u64),
}

thread_local! {
    static FAILING: Cell<(Failing, u64)> = const { Cell::new((Failing::Nothing, 0)) };
}

/// Has the disk of this thread fail so from now on; gives how it failed before.
pub fn set(failing: Failing) -> Failing {
    FAILING.replace((failing, 0)).0
}

/// Whether a file can be read.
pub fn read() -> std::result::Result<(), Errno> {
    met(Failing::Reads)
}

pub(super) fn change(path: &Path) -> Result<()> {
    met(Failing::Changes).map_err(|error| Error::disk(path, &error.into()))
}

fn met(kind: Failing) -> std::result::Result<(), Errno> {
    let (failing, count) = FAILING.get();
    FAILING.set((failing, count.wrapping_add(1)));
    // The step is odd, so that no short sequence of calls meets the fault at the same place again.
    let chosen = |one_in: u64| (count.wrapping_mul(0x9e37_79b9) >> 7).is_multiple_of(one_in);
    let fails = match failing {
        Failing::Nothing => false,
        Failing::OneIn(one_in) => chosen(one_in.max(1)),
        all => all == kind,
    };
    if fails { Err(Errno::IO) } else { Ok(()) }
}

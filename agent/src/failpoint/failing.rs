//! A disk that fails, for the simulation: what is read, or what is changed, ends with EIO on the
//! thread that asked for it. Builds without debug assertions, as every release is, have none of it.

use std::cell::Cell;
use std::path::Path;

use rustix::io::Errno;

use crate::backoff::mix;
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
    /// One in so many reads and changes, each as likely as any other.
    OneIn(u64),
    /// The next read or change, and nothing after it.
    Next,
}

thread_local! {
    /// What fails, and how many reads and changes were asked of a disk that did.
    static FAILING: Cell<(Failing, u64)> = const { Cell::new((Failing::Nothing, 0)) };
}

/// The disk of this thread is well. Which ones fail when one in so many does is the seed's.
pub fn begin(seed: u64) {
    FAILING.set((Failing::Nothing, seed));
}

/// Has the disk of this thread fail so from now on; gives how it failed before.
pub fn set(failing: Failing) -> Failing {
    let (before, count) = FAILING.get();
    FAILING.set((failing, count));
    before
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
    if failing == Failing::Nothing {
        return Ok(());
    }
    FAILING.set((failing, count.wrapping_add(1)));
    let fails = match failing {
        // Any sequence of them may come through, however long: of numbers that are spread evenly
        // one would be in each that is longer than their distance.
        Failing::OneIn(one_in) => mix(count).is_multiple_of(one_in.max(1)),
        Failing::Next => {
            set(Failing::Nothing);
            true
        }
        all => all == kind,
    };
    if fails { Err(Errno::IO) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_ten_fails_and_now_and_then_none_of_fifty() {
        begin(7);
        set(Failing::OneIn(10));
        let failed: Vec<usize> = (0..20_000).filter(|_| read().is_err()).collect();
        set(Failing::Nothing);
        let gaps = || failed.windows(2).map(|pair| pair[1] - pair[0]);
        assert!((1_800..2_200).contains(&failed.len()), "{}", failed.len());
        assert!(gaps().any(|gap| gap > 50) && gaps().any(|gap| gap == 1));
        assert!(read().is_ok());
    }

    #[test]
    fn the_next_read_or_change_fails_alone() {
        set(Failing::Next);
        assert!(read().is_err() && read().is_ok());
        set(Failing::Next);
        assert!(met(Failing::Changes).is_err() && read().is_ok());
    }
}

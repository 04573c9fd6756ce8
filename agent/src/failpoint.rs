//! The points before and after each change of the world outside this process: a file, a link, a
//! job of systemd, a request. A crash may come at any of them, so tests make one come at each.
//!
//! Builds with debug assertions can be told by their environment to log the points that they pass
//! and to end themselves at one, as `kill -9` does. A release has no debug assertions: a point is
//! nothing there, and not even the names of the variables are in it. A feature of cargo would have
//! the agent built twice, for its tests and for the stories that run the binary, and somebody could
//! switch it on in a release.

use std::fmt;
use std::path::Path;

use crate::error::Result;

#[cfg(debug_assertions)]
mod armed;
#[cfg(debug_assertions)]
pub mod failing;
#[cfg(test)]
pub(crate) mod power;

#[cfg(debug_assertions)]
pub use armed::{KILL, LOG, Passed};

/// On which side of a change a point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(debug_assertions, derive(clap::ValueEnum, serde::Serialize, serde::Deserialize))]
#[cfg_attr(debug_assertions, serde(rename_all = "kebab-case"))]
pub enum Edge {
    /// It is about to be made.
    Before,
    /// It was made.
    After,
}

/// What is changed. The crash matrix fails until each of these was met by one of its stories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(debug_assertions, derive(clap::ValueEnum, serde::Serialize, serde::Deserialize))]
#[cfg_attr(debug_assertions, serde(rename_all = "kebab-case"))]
pub enum Kind {
    /// An empty file appears.
    Create,
    /// Bytes are added to a file.
    Write,
    /// A file ends earlier.
    Truncate,
    /// Mode or group of a file or directory.
    Grant,
    /// What a file holds becomes durable.
    Fsync,
    /// A directory appears.
    MakeDir,
    /// A link appears.
    Symlink,
    /// A name takes the place of another.
    Rename,
    /// A file or link goes.
    Unlink,
    /// An empty directory goes.
    RemoveDir,
    /// The names in a directory become durable.
    FsyncDir,
    /// The file that carries the lock appears.
    Lock,
    /// systemd is asked for the state of a unit.
    State,
    /// systemd is asked for a job.
    Job,
    /// The job ends.
    JobEnd,
    /// A request is sent and answered: to Vault, to the metadata service, to etcd or an API server.
    Request,
}

/// What belongs to a change, so that a log of the points tells what a disk looked like at each.
#[derive(Clone, Copy, Debug)]
pub enum Detail<'a> {
    /// Nothing more.
    Nothing,
    /// What is written.
    Bytes(&'a [u8]),
    /// Where the file ends.
    Length(u64),
    /// The permission bits.
    Mode(u32),
    /// The group.
    Group(u32),
    /// The new name.
    To(&'a Path),
    /// Where the link points.
    Target(&'a str),
}

/// Makes a change of a file between its two points. Unit tests cut the power before it, and
/// the simulation has a disk that fails.
pub fn change<T>(
    kind: Kind,
    path: &Path,
    detail: Detail<'_>,
    make: impl FnOnce() -> Result<T>,
) -> Result<T> {
    #[cfg(test)]
    power::spend(path)?;
    #[cfg(debug_assertions)]
    failing::change(path)?;
    pass(Edge::Before, kind, format_args!("{}", path.display()), detail);
    let made = make()?;
    pass(Edge::After, kind, format_args!("{}", path.display()), Detail::Nothing);
    Ok(made)
}

/// The point before a change that is waited for.
pub fn before(kind: Kind, subject: fmt::Arguments<'_>) {
    pass(Edge::Before, kind, subject, Detail::Nothing);
}

/// The point after a change that was waited for.
pub fn after(kind: Kind, subject: fmt::Arguments<'_>) {
    pass(Edge::After, kind, subject, Detail::Nothing);
}

#[cfg(debug_assertions)]
fn pass(edge: Edge, kind: Kind, subject: fmt::Arguments<'_>, detail: Detail<'_>) {
    armed::pass((edge, kind), subject, detail);
}

#[cfg(not(debug_assertions))]
#[inline(always)]
fn pass(_: Edge, _: Kind, _: fmt::Arguments<'_>, _: Detail<'_>) {}

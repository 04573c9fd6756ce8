//! This machine: files, units, clock, lock, and what systemd is told. Layer 1: knows nothing of
//! the configuration.

use std::future::Future;
use std::pin::Pin;

pub mod clock;
pub mod files;
pub mod lock;
pub mod notify;
pub mod processes;
pub mod units;
pub mod users;

/// A boxed future, for the traits that need to be objects.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

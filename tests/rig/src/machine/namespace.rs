//! Work of the rig in a machine's own network: a server that only that machine reaches (the
//! metadata service at its link-local address), a program that sees what the machine sees.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};

use super::network::ip;
use super::{Machine, MachineError, Result};

impl Machine {
    /// The file that names the machine's network namespace.
    #[must_use]
    pub fn namespace(&self) -> PathBuf {
        self.network.path()
    }

    /// Gives the machine one more address, which nothing but itself reaches; where it has that
    /// address already this is an error.
    pub fn add_local_address(&self, address: Ipv4Addr) -> Result<()> {
        ip(&format!("-n {} addr add {address}/32 dev lo", self.network.name()))
    }

    /// Runs `work` on a thread in the machine's network. What it binds, and the threads that it
    /// starts, stay there.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.namespace();
        let failed = |error: &dyn std::fmt::Display| {
            MachineError::new(format!("entering {}: {error}", path.display()))
        };
        let namespace = File::open(&path).map_err(|error| failed(&error))?;
        let there = move || setns(namespace, CloneFlags::CLONE_NEWNET).map(|()| work());
        let done = std::thread::scope(|scope| scope.spawn(there).join());
        let done = done.map_err(|_| failed(&"the work there panicked"))?;
        done.map_err(|errno| failed(&errno))
    }
}

//! What stories do to controllers: processes end, manifests vanish, power fails, the network
//! between some of them is cut.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{COMPONENTS, Controller, Controllers, MANIFESTS, text};

impl Controllers {
    /// Cuts one controller off from the others; the host, and with it Vault, is still reached by
    /// all.
    pub fn partition(&self, node: usize) -> Result<(), String> {
        self.others(node)
            .try_for_each(|other| self.nodes[node].machine.cut_from(&other.machine).map_err(text))
    }

    /// Takes that back.
    pub fn heal(&self, node: usize) -> Result<(), String> {
        self.others(node)
            .try_for_each(|other| self.nodes[node].machine.join_again(&other.machine).map_err(text))
    }

    fn others(&self, node: usize) -> impl Iterator<Item = &Controller> {
        let others = self.nodes.iter().enumerate().filter(move |(number, _)| *number != node);
        others.map(|(_, other)| other)
    }

    /// Takes the power of all of them away at once and switches them on again.
    pub fn power_cut(&mut self) -> Result<(), String> {
        for node in &mut self.nodes {
            node.machine.kill_power().map_err(text)?;
        }
        self.boot()
    }
}

impl Controller {
    /// The processes of a program of the control plane, or any other, as the host numbers them.
    #[must_use]
    pub fn pids(&self, program: &str) -> Vec<u32> {
        let cgroup = format!("/{}/", self.machine.cgroup_name());
        let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = processes.flatten().filter_map(|entry| {
            let pid = entry.file_name().to_string_lossy().parse().ok()?;
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            let command = read("cmdline");
            let name = Path::new(command.split('\0').next()?).file_name()?.to_owned();
            (name == program && read("cgroup").contains(&cgroup)).then_some(pid)
        });
        pids.collect()
    }

    /// Sends a signal to the processes of a program; gives how many there were.
    pub fn signal(&self, program: &str, signal: Signal) -> Result<usize, String> {
        let pids = self.pids(program);
        for &pid in &pids {
            let pid = i32::try_from(pid).map_err(text)?;
            kill(Pid::from_raw(pid), signal).map_err(|errno| format!("{program}: {errno}"))?;
        }
        Ok(pids.len())
    }

    /// The static pods' files that are there.
    #[must_use]
    pub fn manifests(&self) -> Vec<String> {
        let directory = self.machine.root().join(MANIFESTS.trim_start_matches('/'));
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Removes the manifests of the control plane, as an error of a person would.
    pub fn remove_manifests(&self) -> Result<(), String> {
        for component in COMPONENTS {
            let path = format!("{MANIFESTS}/{component}.yaml");
            self.machine.exec_ok(&["rm", "-f", "--", &path]).map_err(text)?;
        }
        Ok(())
    }
}

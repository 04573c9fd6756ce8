//! What stories do to controllers: processes end, manifests vanish, power fails, the network
//! between some of them is cut.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{COMPONENTS, Controller, Controllers, MANIFESTS, text};

/// The unit of the program that takes a port.
const THIEF: &str = "port-thief.service";

/// The processes of one machine, among those of the host.
#[derive(Clone, Debug)]
pub struct Processes {
    cgroup: String,
}

impl Processes {
    /// Those of some programs now, as the host numbers them.
    #[must_use]
    pub fn of<'a>(&self, programs: &[&'a str]) -> BTreeMap<&'a str, Vec<u32>> {
        let mut found: BTreeMap<&str, Vec<u32>> =
            programs.iter().map(|program| (*program, Vec::new())).collect();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for entry in entries {
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let command = read("cmdline");
            let word = command.split('\0').next().unwrap_or_default();
            let name = Path::new(word).file_name().and_then(|name| name.to_str());
            let Some(pids) = name.and_then(|name| found.get_mut(name)) else { continue };
            if read("cgroup").contains(&self.cgroup) {
                pids.push(pid);
            }
        }
        found
    }
}

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
        self.processes().of(&[program]).remove(program).unwrap_or_default()
    }

    /// Looks at its processes, from any thread.
    #[must_use]
    pub fn processes(&self) -> Processes {
        Processes { cgroup: format!("/{}/", self.machine.cgroup_name()) }
    }

    /// Ends every component at once and for good, as far as a kill goes: without it a kubelet may
    /// not have missed a manifest before it is back.
    pub fn kill_components(&self) -> Result<(), String> {
        super::COMPONENTS.iter().try_for_each(|each| self.signal(each, Signal::SIGKILL).map(drop))
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

    /// Has another program take a port of the machine, until it is told to let go.
    pub fn take_port(&self, port: u16) -> Result<(), String> {
        let listen = format!("--listen=0.0.0.0:{port}");
        let unit = format!("--unit={THIEF}");
        let listen = ["systemd-socket-activate", "--accept", &listen, "cat"];
        let run = [&["systemd-run", "--quiet", &unit][..], &listen].concat();
        self.machine.exec_ok(&run).map_err(text)?;
        Ok(())
    }

    /// Has that program let go.
    pub fn free_port(&self) -> Result<(), String> {
        self.machine.systemctl("stop", THIEF).map_err(text)
    }

    /// Puts /etc/kubernetes on a disk of this size from the next boot on: memory, so that it is
    /// empty after each.
    pub fn put_plane_on_disk_of(&self, kibibytes: u32) -> Result<(), String> {
        let unit = format!(
            "[Mount]\nWhat=tmpfs\nWhere=/etc/kubernetes\nType=tmpfs\n\
             Options=size={kibibytes}k,mode=755\n"
        );
        self.write("/etc/systemd/system/etc-kubernetes.mount", &unit)?;
        let wants = "/etc/systemd/system/local-fs.target.wants";
        let link = format!("mkdir -p {wants} && ln -sf ../etc-kubernetes.mount {wants}/");
        let argv = ["chroot", &self.machine.root().to_string_lossy(), "sh", "-c", &link];
        let done = std::process::Command::new(argv[0]).args(&argv[1..]).status().map_err(text)?;
        if done.success() { Ok(()) } else { Err(format!("enabling etc-kubernetes.mount: {done}")) }
    }

    /// What is taken of that disk.
    pub fn plane_disk_used(&self) -> Result<u32, String> {
        let df = ["df", "--block-size=1K", "--output=used", "/etc/kubernetes"];
        let printed = self.machine.exec_ok(&df).map_err(text)?;
        let used = printed.lines().last().unwrap_or_default().trim();
        used.parse().map_err(|_| format!("df printed {printed}"))
    }

    /// Makes that disk larger, or smaller.
    pub fn resize_plane_disk(&self, kibibytes: u32) -> Result<(), String> {
        let options = format!("remount,size={kibibytes}k");
        self.machine.exec_ok(&["mount", "-o", &options, "/etc/kubernetes"]).map_err(text)?;
        Ok(())
    }
}

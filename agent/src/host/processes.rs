//! The processes of this machine that the agent looks after beside systemd's units: those of
//! static pods. One is named by its pid and the instant of its start, so that a pid that was given
//! to another process is never taken for it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, setrlimit,
};
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};

/// Longer command lines are cut: the program's name stands in front.
const LIMIT: u64 = 64 << 10;

/// A process, known from any other that ever was on this boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid, as this machine numbers it.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

/// Has no dump of this process ever written: keys and tokens pass through its memory. The unit has
/// this limit already, and lets nobody change it; a verb has that of whoever runs it.
pub fn forbid_dumps() -> std::io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if getrlimit(Resource::Core) == none {
        return Ok(());
    }
    setrlimit(Resource::Core, none).map_err(std::io::Error::from)
}

/// The processes whose program has this name, by the first word of their command line.
pub fn named(proc: &Path, program: &str) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir(proc) else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| runs(proc, *pid, program))
        .filter_map(|pid| Some(Process { pid, started: started(proc, pid)? }))
        .collect()
}

/// Whether its command line holds this argument.
pub fn has_argument(proc: &Path, process: &Process, argument: &str) -> bool {
    let line = read(&proc.join(process.pid.to_string()).join("cmdline"));
    line.split('\0').any(|word| word == argument)
}

/// Whether its command line names this place.
pub fn mentions(proc: &Path, process: &Process, place: &str) -> bool {
    read(&proc.join(process.pid.to_string()).join("cmdline")).contains(place)
}

/// Whether it is still there.
pub fn is_alive(proc: &Path, process: &Process) -> bool {
    started(proc, process.pid) == Some(process.started)
}

/// Asks a process to end. One that is gone already is what was wanted.
pub fn terminate(proc: &Path, process: &Process) -> Result<()> {
    let failed = |error: Errno| {
        Error::new(Code::RestartFailed, std::io::Error::from(error).to_string())
            .at(format!("process {}", process.pid))
            .during("asking it to end")
    };
    let Some(pid) = Pid::from_raw(process.pid) else {
        return Err(Error::new(Code::Bug, "a process without a number"));
    };
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    // The handle holds the process: what is seen to be it now still is when the signal comes.
    if !is_alive(proc, process) {
        return Ok(());
    }
    match pidfd_send_signal(&handle, Signal::TERM) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Who listens at a TCP port of this machine, in words; nothing where nobody does.
pub fn listener(proc: &Path, port: u16) -> Option<String> {
    // Not /proc/net, which is not there where only processes are shown.
    let tables = ["self/net/tcp", "self/net/tcp6"].map(|table| read(&proc.join(table)));
    let inode =
        tables.iter().flat_map(|table| table.lines()).find_map(|line| listens(line, port))?;
    let socket = format!("socket:[{inode}]");
    let entries = std::fs::read_dir(proc).ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let holder = pids.find(|pid| {
        let files = std::fs::read_dir(proc.join(pid.to_string()).join("fd"));
        let mut links = files.into_iter().flatten().flatten();
        links.any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&socket)))
    });
    // Whoever may not look into other processes still knows that there is one.
    Some(holder.map_or("another process".into(), |pid| {
        let name = read(&proc.join(pid.to_string()).join("comm"));
        format!("{} (process {pid})", name.trim_end())
    }))
}

/// The inode of a socket in a line of /proc/net/tcp (proc(5)) that listens (state 0A) at a port.
fn listens(line: &str, port: u16) -> Option<&str> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (_, at) = local.rsplit_once(':')?;
    let fits = state == "0A" && u16::from_str_radix(at, 16) == Ok(port);
    fits.then(|| fields.nth(5)).flatten()
}

fn runs(proc: &Path, pid: i32, program: &str) -> bool {
    let line = read(&proc.join(pid.to_string()).join("cmdline"));
    let first = line.split('\0').next().unwrap_or_default();
    PathBuf::from(first).file_name().is_some_and(|name| name == program)
}

/// The 22nd field of /proc/PID/stat (proc(5)); the second may hold blanks, and ends with the last
/// parenthesis.
fn started(proc: &Path, pid: i32) -> Option<u64> {
    let stat = read(&proc.join(pid.to_string()).join("stat"));
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    // A process that has ended and was not waited for yet is gone for our purposes.
    (fields.next()? != "Z").then_some(())?;
    fields.nth(18)?.parse().ok()
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut bytes));
    read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROC: &str = "/proc";

    #[test]
    fn who_listens_at_a_port_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let found = listener(Path::new(PROC), port).expect("this process listens");
        assert!(found.ends_with(&format!("(process {})", std::process::id())), "{found}");
        drop(socket);
        assert_eq!(listener(Path::new(PROC), port), None);
    }

    #[test]
    fn a_process_is_found_by_its_program_and_ends_when_it_is_asked_to() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = dir.path().join("kube-test-component");
        std::os::unix::fs::symlink("/bin/sleep", &program).expect("a link");
        // It ends by itself soon after a test that failed.
        let mut child = std::process::Command::new(&program).arg("30").spawn().expect("a child");
        let pid = i32::try_from(child.id()).expect("a pid");
        let find =
            || named(Path::new(PROC), "kube-test-component").into_iter().find(|p| p.pid == pid);
        // The child is not its program yet until it has been replaced by it.
        let found = (0..1000).find_map(|_| {
            std::thread::yield_now();
            find()
        });
        let ours = found.expect("it is found");
        assert!(is_alive(Path::new(PROC), &ours));
        let other = Process { pid, started: ours.started + 1 };
        terminate(Path::new(PROC), &other).expect("nothing is done to another");
        assert!(child.try_wait().expect("asked").is_none());
        terminate(Path::new(PROC), &ours).expect("it is asked to end");
        child.wait().expect("it ends");
        assert!(!is_alive(Path::new(PROC), &ours));
        terminate(Path::new(PROC), &ours).expect("nothing is left to do");
    }
}

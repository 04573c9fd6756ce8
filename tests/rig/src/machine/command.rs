//! A command with a deadline and a limit on what it may print. Its input and output are unnamed
//! files, not pipes: a daemon that it leaves behind then holds nothing that a reader would wait
//! for.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{MachineError, Result};

/// The journal of a whole test fits; more than this is an error in the test.
const OUTPUT_LIMIT_BYTES: u64 = 64 << 20;

/// How a command ended and what it printed; bytes that are no UTF-8 are replaced.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    bytes: Vec<u8>,
}

impl Output {
    /// What a successful command printed, or an error that names the command and its complaint.
    pub fn ok(self, argv: &[&str]) -> Result<String> {
        self.check(argv)?;
        Ok(self.stdout)
    }

    pub(super) fn ok_bytes(self, argv: &[&str]) -> Result<Vec<u8>> {
        self.check(argv)?;
        Ok(self.bytes)
    }

    fn check(&self, argv: &[&str]) -> Result<()> {
        if self.status.success() {
            return Ok(());
        }
        let (status, complaint) = (self.status, self.stderr.trim());
        let text = format!("{}: {status}: {complaint}", argv.join(" "));
        Err(MachineError::new(text))
    }
}

/// Runs the command with `input` and waits for it; at `limit` it is killed, with what it started.
pub(super) fn run(mut command: Command, limit: Duration, input: &[u8]) -> Result<Output> {
    let program = format!("{command:?}");
    let failed = |error: std::io::Error| MachineError::new(format!("{program}: {error}"));
    let (mut stdin, stdout, stderr) = files().map_err(failed)?;
    stdin.write_all(input).map_err(failed)?;
    stdin.rewind().map_err(failed)?;
    command.stdin(stdin);
    command.stdout(stdout.try_clone().map_err(failed)?);
    command.stderr(stderr.try_clone().map_err(failed)?);
    let mut child = command.process_group(0).spawn().map_err(failed)?;
    let Some(status) = wait(&mut child, limit).map_err(failed)? else {
        return Err(MachineError::new(format!("{program}: not done in {limit:?}, killed")));
    };
    let bytes = read(stdout).map_err(failed)?;
    Ok(Output {
        status,
        stdout: String::from_utf8_lossy(&bytes).into_owned(),
        stderr: String::from_utf8_lossy(&read(stderr).map_err(failed)?).into_owned(),
        bytes,
    })
}

fn files() -> std::io::Result<(File, File, File)> {
    Ok((tempfile::tempfile()?, tempfile::tempfile()?, tempfile::tempfile()?))
}

fn read(mut file: File) -> std::io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_LIMIT_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `None` where it had to be killed. Most commands here take 3 to 10 ms: looking at it every
/// millisecond at first, then more slowly, costs neither time nor processor.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            let group = i32::try_from(child.id()).map_err(std::io::Error::other)?;
            killpg(Pid::from_raw(group), Signal::SIGKILL)?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Waits for a child without killing it.
pub(super) fn wait_child(child: &mut Child, limit: Duration) -> std::io::Result<bool> {
    let deadline = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// For a child that reads nothing and prints into a file.
pub(super) fn detached(command: &mut Command, log: File) -> std::io::Result<Child> {
    let errors = log.try_clone()?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    command.process_group(0).spawn()
}

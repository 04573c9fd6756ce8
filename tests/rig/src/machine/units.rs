//! What a test asks a machine's systemd about its units.

use std::time::Duration;

use super::{EXEC_LIMIT, Machine, MachineError, Result, command, tail, wait_for};

impl Machine {
    /// What a unit (and systemd about it) wrote to the journal, of all boots, oldest first. Works
    /// on a machine that is off as well.
    pub fn journal(&self, unit: &str) -> Result<String> {
        let argv =
            ["journalctl", "--quiet", "--no-pager", "--output=short-precise", "--unit", unit];
        command::run(self.inside(&argv), EXEC_LIMIT, &[])?.ok(&argv)
    }

    /// One property of a unit as `systemctl show` prints it, for example `StatusText`, `NRestarts`.
    pub fn unit_property(&self, unit: &str, property: &str) -> Result<String> {
        let argv = ["systemctl", "show", "--value", "--property", property, "--", unit];
        Ok(self.exec_ok(&argv)?.trim_end().to_owned())
    }

    /// `active`, `activating`, `inactive`, `failed`, …
    pub fn unit_state(&self, unit: &str) -> Result<String> {
        self.unit_property(unit, "ActiveState")
    }

    /// The main process of a unit, as the machine numbers it; `None` where there is none.
    pub fn main_pid(&self, unit: &str) -> Result<Option<u32>> {
        let pid = self.unit_property(unit, "MainPID")?;
        let pid: u32 =
            pid.parse().map_err(|_| self.error(&format!("MainPID of {unit} is '{pid}'")))?;
        Ok((pid != 0).then_some(pid))
    }

    /// Waits until a unit is in this state; the error says in which it is instead, and its journal.
    pub fn wait_unit(&self, unit: &str, state: &str, limit: Duration) -> Result<()> {
        let what = format!("{unit} is {state}");
        let waited =
            wait_for(&what, limit, || (self.unit_state(unit).ok()? == state).then_some(()));
        waited.map_err(|error| {
            let now = self.unit_state(unit).unwrap_or_else(|error| error.to_string());
            let journal = self.journal(unit).unwrap_or_else(|error| error.to_string());
            let start = tail(&journal, 4000);
            MachineError::new(format!("{error}; it is {now}; the end of its journal:\n{start}"))
        })
    }

    /// Has systemd do something with a unit, as a person does.
    pub fn systemctl(&self, verb: &str, unit: &str) -> Result<()> {
        self.exec_ok(&["systemctl", verb, unit]).map(drop)
    }

    /// Sends a signal (`SIGKILL`) to the main process of a unit.
    pub fn kill(&self, unit: &str, signal: &str) -> Result<()> {
        let signal = format!("--signal={signal}");
        self.exec_ok(&["systemctl", "kill", "--kill-whom=main", &signal, "--", unit])?;
        Ok(())
    }
}

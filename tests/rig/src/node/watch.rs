//! What a person or a test sees of a running node, and waits for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::{AGENT, KUBELET, Node, PROGRAM};
use crate::clock::ModelClock;
use crate::machine::{Machine, Output, Result, wait_for};
use crate::peer::kube;

/// Between two looks at what the kubelet serves: a handshake takes 2 ms.
const PAUSE: Duration = Duration::from_millis(2);
/// What a verb that waits for nothing may take.
const VERB_LIMIT: Duration = Duration::from_secs(30);

impl Machine {
    /// Runs a verb of the agent, for `limit` at most.
    pub fn nodeagent(&self, limit: Duration, arguments: &[&str]) -> Result<Output> {
        let argv: Vec<&str> = std::iter::once(PROGRAM).chain(arguments.iter().copied()).collect();
        self.exec_within(limit, &argv)
    }

    /// The status that the agent has published; null where there is none.
    #[must_use]
    pub fn agent_status(&self) -> Value {
        let bytes = self.read("/run/nodeagent/status.json").unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Waits until that status fits; the error shows what it is instead, and the log.
    pub fn wait_agent_status(
        &self,
        what: &str,
        limit: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> std::result::Result<Value, String> {
        let seen = wait_for(what, limit, || Some(self.agent_status()).filter(|now| fits(now)));
        seen.map_err(|error| {
            format!("{error}:\n{:#}\nlog:\n{}", self.agent_status(), self.agent_log())
        })
    }

    /// What the agent has logged, in all its lives.
    #[must_use]
    pub fn agent_log(&self) -> String {
        self.journal(AGENT).unwrap_or_else(|error| error.to_string())
    }
}

impl Node {
    /// Runs a verb of the agent in the machine.
    pub fn verb(&self, arguments: &[&str]) -> Result<Output> {
        self.machine.nodeagent(VERB_LIMIT, arguments)
    }

    /// The published status; null where there is none.
    #[must_use]
    pub fn status(&self) -> Value {
        self.machine.agent_status()
    }

    /// Waits until the status fits; the error shows what it is instead, and the log.
    pub fn wait_status(
        &self,
        what: &str,
        limit: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> std::result::Result<Value, String> {
        self.machine.wait_agent_status(what, limit, fits)
    }

    /// What the agent has logged, in all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        self.machine.agent_log()
    }

    /// The serial on disk of the certificate that the kubelet serves; empty where there is none.
    #[must_use]
    pub fn committed(&self) -> String {
        serial(&self.status(), "kubelet-server")
    }

    /// Which certificate the kubelet serves, seen from outside the machine.
    pub fn served(&self) -> Result<String> {
        kube::kubelet_probe(&self.machine)
    }

    /// Waits until the kubelet serves another certificate than `former`, without a pause that
    /// would blur when; gives its serial and the instant.
    pub fn wait_served_other(
        &self,
        former: &str,
        limit: Duration,
    ) -> std::result::Result<(String, Timestamp), String> {
        let address = SocketAddr::new(self.machine.ip().into(), kube::KUBELET_PORT);
        let (clock, deadline) = (ModelClock::real(), Instant::now() + limit);
        loop {
            let leaf = kube::served_leaf(address);
            let at = clock.now();
            match leaf.and_then(|leaf| kube::serial_of(&leaf)) {
                Ok(serial) if serial != former => return Ok((serial, at)),
                _ if Instant::now() < deadline => std::thread::sleep(PAUSE),
                seen => return Err(format!("no other serial in {limit:?}, but {seen:?}")),
            }
        }
    }

    /// What tells one run of the kubelet from another: its process and systemd's name of the run.
    pub fn kubelet_run(&self) -> Result<(Option<u32>, String)> {
        let machine = &self.machine;
        Ok((machine.main_pid(KUBELET)?, machine.unit_property(KUBELET, "InvocationID")?))
    }
}

/// The serial of a certificate in a status; empty where there is none.
#[must_use]
pub fn serial(status: &Value, certificate: &str) -> String {
    let all = status["certificates"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|part| part["name"] == certificate);
    found.and_then(|part| part["serial"].as_str()).unwrap_or_default().to_owned()
}

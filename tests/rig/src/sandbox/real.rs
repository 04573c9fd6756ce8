//! The sandbox on real peers: the real Vault, and a node that boots with the unit as shipped, the
//! static binary and a real kubelet.

use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getpgrp, tcsetpgrp};
use serde_json::Value;

use super::say;
use super::words::{Printed, World, succeed};
use crate::machine::{MachineError, wait_for};
use crate::node::watch::serial;
use crate::node::{AGENT, GATE, KUBELET, Node, NodeOptions};
use crate::proxy::Proxy;
use crate::setup::Admin;

/// How long each step of the main job may take; a boot takes two seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// The node that has booted.
pub(super) struct Real {
    node: Node,
    begun: Instant,
}

impl Real {
    /// Makes the node and switches it on.
    pub(super) async fn open() -> Result<Real, String> {
        if let Some(reason) = Node::unavailable() {
            return Err(reason);
        }
        say("the real Vault, a model of AWS, and a disk with systemd, kubelet and nodeagent");
        let mut node = Node::prepare(NodeOptions::worker()).await?;
        let (version, address) = (node.vault.version().await?, node.vault.address());
        say(&format!("vault {version} at {address}; instance {} is launched", node.instance));
        let begun = Instant::now();
        node.boot()?;
        let ip = node.machine.ip();
        say(&format!("the node boots at {ip}: systemd as process 1, units as shipped"));
        Ok(Real { node, begun })
    }

    /// Log-in, certificates, the gate, a kubelet that serves them, a rotation without a restart.
    pub(super) fn main_job(&self) -> Result<(), String> {
        let first = self.cold_start()?;
        let run = self.node.kubelet_run().map_err(text)?;
        succeed(self, &["renew", "kubelet-server"])?;
        say("a person asks for the next one: nodeagent renew kubelet-server");
        let asked = Instant::now();
        let (served, _) = self.node.wait_served_other(&first, LIMIT)?;
        let took = asked.elapsed().as_millis();
        self.node.wait_status("proof of the new serial", LIMIT, |status| {
            status["consumers"][0]["served"] == served.as_str() && is_healthy(status)
        })?;
        if self.node.kubelet_run().map_err(text)? != run {
            return Err("the kubelet was restarted, and it need not have been".into());
        }
        let pid = run.0.unwrap_or_default();
        say(&format!("the new serial is served after {took} ms: {served}"));
        say(&format!("the kubelet was not restarted: it is process {pid} as before"));
        println!("\nnode0$ nodeagent status");
        print!("{}", succeed(self, &["status"])?);
        Ok(())
    }

    /// From power on to a kubelet that serves; gives the serial.
    fn cold_start(&self) -> Result<String, String> {
        let (node, machine) = (&self.node, &self.node.machine);
        let status = node.wait_status("first certificates", LIMIT, is_healthy)?;
        let took = self.begun.elapsed().as_millis();
        say(&format!("logged in with the identity document, certificates committed ({took} ms)"));
        machine.wait_unit(GATE, "active", LIMIT).map_err(text)?;
        say(&format!("{GATE} is open: {KUBELET} may start"));
        machine.wait_unit(KUBELET, "active", LIMIT).map_err(text)?;
        let first = serial(&status, "kubelet-server");
        let serves = || (node.served().ok()? == first).then_some(());
        wait_for("the kubelet serves its certificate", LIMIT, serves).map_err(text)?;
        let took = self.begun.elapsed().as_millis();
        say(&format!("the kubelet is READY and serves {first} ({took} ms)"));
        Ok(first)
    }

    fn shell(&self) -> Result<String, String> {
        let shell = self.node.machine.shell().map_err(text)?.status();
        take_terminal_back();
        shell.map(|status| format!("the shell has ended: {status}")).map_err(|e| e.to_string())
    }

    fn reboot(&mut self) -> Result<String, String> {
        self.node.machine.reboot().map_err(text)?;
        self.node.wait_status("health", LIMIT, is_healthy)?;
        self.node.machine.wait_unit(KUBELET, "active", LIMIT).map_err(text)?;
        Ok("the node is up again and its kubelet READY".into())
    }
}

impl World for Real {
    const MORE: &str = "
  shell    a shell on the node; nodeagent, systemctl, journalctl and ctr are there
  kill     kill the agent           reboot   reboot the node";

    fn verb(&self, arguments: &[&str]) -> Result<Printed, String> {
        let output = self.node.verb(arguments).map_err(text)?;
        let text = format!("{}{}", output.stdout, output.stderr);
        Ok(Printed { success: output.status.success(), text })
    }

    fn log(&self) -> String {
        self.node.log()
    }

    fn proxy(&self) -> &Proxy {
        &self.node.proxy
    }

    fn admin(&self) -> Admin {
        self.node.admin()
    }

    fn read(&self, path: &str) -> String {
        let bytes = self.node.machine.read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn tear(&self, path: &str) -> Result<(), String> {
        let torn = self.node.machine.exec_ok(&["truncate", "--size=4", path]);
        torn.map(drop).map_err(text)
    }

    fn wake(&self) -> Result<(), String> {
        self.node.machine.systemctl("reload", AGENT).map_err(text)
    }

    async fn seal(&self) -> Result<(), String> {
        self.node.vault.seal().await
    }

    async fn unseal(&self) -> Result<(), String> {
        self.node.vault.unseal().await
    }

    async fn more(&mut self, word: &str) -> Option<Result<String, String>> {
        Some(match word {
            "shell" => self.shell(),
            "reboot" => self.reboot(),
            "kill" => {
                let killed = self.node.machine.kill(AGENT, "SIGKILL").map_err(text);
                killed.map(|()| "the agent is killed; systemd starts it again".into())
            }
            _ => return None,
        })
    }
}

/// A shell takes the terminal for its own processes. This one, in a process namespace of its own,
/// cannot give it back to ours, whose number it does not see.
pub(super) fn take_terminal_back() {
    // The terminal would stop us for asking from the background.
    let stop = SigSet::from(Signal::SIGTTOU);
    if stop.thread_block().is_ok() {
        // Where the input is no terminal nothing was taken.
        tcsetpgrp(std::io::stdin(), getpgrp()).ok();
        stop.thread_unblock().ok();
    }
}

fn is_healthy(status: &Value) -> bool {
    status["health"] == "healthy"
}

fn text(error: MachineError) -> String {
    error.to_string()
}

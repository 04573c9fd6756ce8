//! The sandbox with a control plane: real controllers boot, their agents raise etcd and Kubernetes
//! step by step, and a person may break what there is and watch it being mended.

mod follow;
mod tables;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::real::take_terminal_back;
use super::words::{Printed, World, succeed};
use super::{Options, say};
use crate::clock::ModelClock;
use crate::controllers::{
    Controller, Controllers, ControllersOptions, ETCD, MANIFESTS, Raising, Style,
};
use crate::machine::Machine;
use crate::node::AGENT;
use crate::proxy::Proxy;
use crate::setup::Admin;
use follow::Followed;

/// For everything from power on to a Ready node. It takes half a minute alone on two cores; beside
/// builds it has taken minutes.
const LIMIT: Duration = Duration::from_secs(480);
/// A verb that does not wait for anything.
const VERB_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Controllers that have booted.
pub(super) struct Plane {
    plane: Controllers,
    style: Style,
    raising: Raising,
    followed: Vec<Followed>,
    begun: Instant,
    /// The controller that words are about.
    at: usize,
}

impl Plane {
    /// Makes the controllers and switches them on.
    pub(super) async fn open(options: Options) -> Result<Plane, String> {
        if let Some(reason) = Controllers::unavailable() {
            return Err(reason);
        }
        let Options { controllers, style, raising, .. } = options;
        say("the real Vault, a model of AWS, disks with systemd, etcd, kubelet and nodeagent");
        let wanted = ControllersOptions { style, raising, ..ControllersOptions::new(controllers) };
        let mut plane = Controllers::prepare(wanted).await?;
        let (version, address) =
            (plane.site.vault.version().await?, plane.site.vault.address().to_owned());
        say(&format!("vault {version} at {address}"));
        for node in &plane.nodes {
            let (name, instance, ip) = (&node.member, &node.instance, node.machine.ip());
            say(&format!("{name} is instance {instance} at {ip}, and boots: units as shipped"));
        }
        let begun = Instant::now();
        plane.boot()?;
        let followed = plane.nodes.iter().map(Followed::new).collect();
        Ok(Plane { plane, style, raising, followed, begun, at: 0 })
    }

    /// From power on to a served API and a Ready node, as it happens.
    pub(super) async fn main_job(&mut self) -> Result<(), String> {
        if self.raising == Raising::Told {
            self.tell_all()?;
        }
        self.until_whole().await?;
        println!("\n{}$ nodeagent bootstrap", self.node().member);
        print!("{}", succeed(self, &["bootstrap"])?);
        println!("\n{}$ nodeagent status", self.node().member);
        print!("{}", succeed(self, &["status"])?);
        println!("\n$ kubectl get nodes\n{}", self.nodes().await?);
        println!("\n$ kubectl get pods --namespace kube-system\n{}", self.pods().await?);
        Ok(())
    }

    /// A person's command on each controller; its steps are seen as it prints them.
    fn tell_all(&mut self) -> Result<(), String> {
        for at in 0..self.plane.nodes.len() {
            self.at = at;
            let what = "certificates";
            self.machine().wait_agent_status(what, LIMIT, follow::has_certificates)?;
            self.stream("nodeagent bootstrap")?;
            self.followed[at].pass_over();
        }
        self.at = 0;
        Ok(())
    }

    /// Tells what happens until all controllers are whole.
    async fn until_whole(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut missing = Vec::new();
            for number in 0..self.followed.len() {
                let took = self.begun.elapsed();
                if let Err(why) = self.followed[number].look(&self.plane, number, took).await {
                    missing.push((number, why));
                }
            }
            let Some((number, why)) = missing.first() else {
                let took = self.begun.elapsed().as_secs_f64();
                say(&format!("the control plane is whole after {took:.1} s"));
                return Ok(());
            };
            if Instant::now() >= deadline {
                let evidence = self.plane.nodes[*number].evidence();
                return Err(format!("waited {LIMIT:?} in vain: {why}\n{evidence}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The same after something was done to them.
    async fn again(&mut self) -> Result<String, String> {
        self.begun = Instant::now();
        self.followed.iter_mut().for_each(Followed::disturbed);
        self.until_whole().await?;
        Ok(String::new())
    }

    fn node(&self) -> &Controller {
        &self.plane.nodes[self.at]
    }

    fn machine(&self) -> &Machine {
        &self.node().machine
    }

    async fn nodes(&self) -> Result<String, String> {
        let nodes = self.plane.api(self.at)?.list("/api/v1/nodes").await?;
        Ok(tables::nodes(&nodes, ModelClock::real().now()))
    }

    async fn pods(&self) -> Result<String, String> {
        let pods = self.plane.api(self.at)?.list("/api/v1/namespaces/kube-system/pods").await?;
        Ok(tables::pods(&pods, ModelClock::real().now()))
    }

    /// A verb whose output is seen as it comes.
    fn stream(&self, command: &str) -> Result<String, String> {
        println!("{}$ {command}", self.node().member);
        let mut shell = self.machine().shell().map_err(text)?;
        let ended = shell.args(["-c", command]).stdin(std::process::Stdio::null()).status();
        let ended = ended.map_err(text)?;
        if ended.success() { Ok(String::new()) } else { Err(ended.to_string()) }
    }

    fn shell(&self) -> Result<String, String> {
        let shell = self.machine().shell().map_err(text)?.status();
        take_terminal_back();
        shell.map(|status| format!("the shell has ended: {status}")).map_err(text)
    }

    fn remove_manifests(&self) -> Result<String, String> {
        if self.style == Style::SelfHosted {
            return Err("the self-hosted style has none there; `reboot` is worse for it".into());
        }
        self.node().remove_manifests()?;
        Ok(format!("{MANIFESTS} is empty; `wait` tells what comes of it"))
    }

    fn kill(&self) -> Result<String, String> {
        let count = self.node().signal("kube-apiserver", Signal::SIGKILL)?;
        Ok(format!("{count} process of kube-apiserver is killed; `wait` tells what comes of it"))
    }

    /// Stops etcd, and the next time starts it.
    fn etcd(&self) -> Result<String, String> {
        let stops = !self.node().pids("etcd").is_empty();
        let verb = if stops { "stop" } else { "start" };
        self.machine().systemctl(verb, ETCD).map_err(text)?;
        Ok(match stops {
            true => format!("{ETCD} is stopped; `recover` waits for it, `etcd` starts it again"),
            false => format!("{ETCD} is started; `wait` tells what comes of it"),
        })
    }

    async fn reboot(&mut self) -> Result<String, String> {
        let at = self.at;
        self.plane.nodes[at].machine.power_off().map_err(text)?;
        say("it was shut down in order, and boots");
        self.begun = Instant::now();
        self.plane.nodes[at].boot()?;
        self.after_boot().await
    }

    async fn power(&mut self) -> Result<String, String> {
        for node in &mut self.plane.nodes {
            node.machine.kill_power().map_err(text)?;
        }
        say("the power of all is gone at once, and comes back");
        self.begun = Instant::now();
        self.plane.boot()?;
        self.after_boot().await
    }

    async fn after_boot(&mut self) -> Result<String, String> {
        self.followed.iter_mut().for_each(Followed::switched_on);
        self.until_whole().await?;
        Ok(String::new())
    }

    fn go(&mut self, number: usize) -> Result<String, String> {
        if number >= self.plane.nodes.len() {
            return Err(format!("there is no controller {number}"));
        }
        self.at = number;
        Ok(format!("words are about {} now", self.node().member))
    }
}

impl World for Plane {
    const MORE: &str = "
  nodes    kubectl get nodes        pods      those of kube-system
  plan     what a bootstrap would do, and why; touches nothing
  bootstrap  do it                  recover   do it again after a loss
  journal  the journal of the runs  wait      until all is whole, and what happens meanwhile
  manifests  remove the manifests   kill      kill the API server
  etcd     stop etcd, start it      agent     kill the agent
  reboot   reboot this controller   power     cut the power of all of them
  shell    a shell on it            0, 1, 2   which controller words are about
  quit     end";
    const RENEWED: &str = "kube-apiserver";

    fn verb(&self, arguments: &[&str]) -> Result<Printed, String> {
        let output = self.machine().nodeagent(VERB_LIMIT, arguments).map_err(text)?;
        let printed = format!("{}{}", output.stdout, output.stderr);
        Ok(Printed { success: output.status.success(), text: printed })
    }

    fn log(&self) -> String {
        self.machine().agent_log()
    }

    fn proxy(&self) -> &Proxy {
        &self.plane.site.proxy
    }

    fn admin(&self) -> Admin {
        self.plane.vault()
    }

    fn read(&self, path: &str) -> String {
        let bytes = self.machine().read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn tear(&self, path: &str) -> Result<(), String> {
        self.machine().exec_ok(&["truncate", "--size=4", path]).map(drop).map_err(text)
    }

    fn wake(&self) -> Result<(), String> {
        self.machine().systemctl("reload", AGENT).map_err(text)
    }

    async fn seal(&self) -> Result<(), String> {
        self.plane.site.vault.seal().await
    }

    async fn unseal(&self) -> Result<(), String> {
        self.plane.site.vault.unseal().await
    }

    async fn more(&mut self, word: &str) -> Option<Result<String, String>> {
        Some(match word {
            "nodes" => self.nodes().await,
            "pods" => self.pods().await,
            "plan" => self.stream("nodeagent bootstrap --plan"),
            "bootstrap" => self.stream("nodeagent bootstrap"),
            "recover" => self.stream("nodeagent bootstrap --recover"),
            "journal" => Ok(self.read(follow::JOURNAL)),
            "wait" => self.again().await,
            "manifests" => self.remove_manifests(),
            "kill" => self.kill(),
            "etcd" => self.etcd(),
            "agent" => {
                let killed = self.machine().kill(AGENT, "SIGKILL").map_err(text);
                killed.map(|()| "the agent is killed; systemd starts it again".into())
            }
            "reboot" => self.reboot().await,
            "power" => self.power().await,
            "shell" => self.shell(),
            "0" => self.go(0),
            "1" => self.go(1),
            "2" => self.go(2),
            _ => return None,
        })
    }
}

/// Whether the agent says that its control plane is whole.
fn is_whole(status: &Value) -> bool {
    let plane = &status["control_plane"];
    plane["epoch"].as_u64().is_some_and(|epoch| epoch > 0) && plane["step"].is_null()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

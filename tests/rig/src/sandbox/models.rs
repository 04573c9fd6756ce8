//! The sandbox on models: everything on loopback and in a private root directory.

use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::say;
use super::words::{Printed, World, succeed};
use crate::consumer::Mode;
use crate::proxy::Proxy;
use crate::setup::Admin;
use crate::stage::{Running, Stage, StageOptions};

/// How long the main job may take; it takes a second.
const LIMIT: Duration = Duration::from_secs(30);

/// The stage with the agent running on it.
pub(super) struct Models {
    stage: Stage,
    running: Running,
    begun: Instant,
}

impl Models {
    /// Sets the stage and starts the agent.
    pub(super) async fn open(agent: &str) -> Result<Models, String> {
        say("models of AWS and Vault start on loopback, in a private root directory");
        // The old kubelet: one that has to be restarted, so that the whole job is seen.
        let options = StageOptions { consumer: Mode::RereadNever, ..StageOptions::worker() };
        let stage = Stage::set(agent, options).await?;
        say(&format!("instance {} is launched; root {}", stage.instance, stage.root().display()));
        let begun = Instant::now();
        let running = stage.run().map_err(|error| error.to_string())?;
        Ok(Models { stage, running, begun })
    }

    /// Log-in, certificates, a consumer that serves them, a rotation with its restart and proof.
    pub(super) fn main_job(&self) -> Result<(), String> {
        let stage = &self.stage;
        let healthy = |status: &Value| status["health"] == "healthy";
        stage.wait_status("first certificates", LIMIT, healthy)?;
        let took = self.begun.elapsed().as_millis();
        say(&format!("logged in with the identity document, certificates committed ({took} ms)"));
        stage.start_kubelet()?;
        let first = stage.kubelet.serial().unwrap_or_default();
        say(&format!("the consumer, a TLS server of the rig, starts and serves {first}"));
        succeed(self, &["renew", "kubelet-server"])?;
        say("a person asks for the next one: nodeagent renew kubelet-server");
        let proved = |status: &Value| {
            let served = &status["consumers"][0]["served"];
            served.is_string() && *served != json!(first) && healthy(status)
        };
        let status = stage.wait_status("proof of the new serial", LIMIT, proved)?;
        let served = status["consumers"][0]["served"].as_str().unwrap_or_default();
        if stage.kubelet.serial().as_deref() != Some(served) {
            return Err(format!("the status says {served}, the consumer serves something else"));
        }
        for call in stage.systemd.calls().iter().filter(|call| call.method == "RestartUnit") {
            say(&format!("the rig's systemd recorded: {} {}", call.method, call.unit));
        }
        say(&format!("the new serial is served: {served}"));
        println!("\n$ nodeagent status");
        print!("{}", succeed(self, &["status"])?);
        Ok(())
    }

    /// How the same is seen from another shell.
    pub(super) fn invite(&self) {
        let command = self.stage.command(&["status"]);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        println!("\nfrom another shell: {}", words.join(" "));
    }
}

impl World for Models {
    const MORE: &str = "";

    fn verb(&self, arguments: &[&str]) -> Result<Printed, String> {
        let output = self.stage.command(arguments).output().map_err(|error| error.to_string())?;
        Ok(Printed { success: output.status.success(), text: text(&output) })
    }

    fn log(&self) -> String {
        self.stage.log()
    }

    fn proxy(&self) -> &Proxy {
        &self.stage.proxy
    }

    fn admin(&self) -> Admin {
        self.stage.admin()
    }

    fn read(&self, path: &str) -> String {
        self.stage.read(path)
    }

    fn tear(&self, path: &str) -> Result<(), String> {
        self.stage.write(path, b"torn").map_err(|error| error.to_string())
    }

    fn wake(&self) -> Result<(), String> {
        self.running.signal(Signal::SIGHUP).map_err(|error| error.to_string())
    }

    async fn seal(&self) -> Result<(), String> {
        self.stage.model().seal();
        Ok(())
    }

    async fn unseal(&self) -> Result<(), String> {
        self.stage.model().unseal();
        Ok(())
    }

    async fn more(&mut self, _: &str) -> Option<Result<String, String>> {
        None
    }
}

fn text(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&all).into_owned()
}

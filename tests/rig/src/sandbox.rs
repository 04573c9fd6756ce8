//! The sandbox: the main job on one screen, then a node to play with. With models it needs
//! neither root nor a network; [`real`] does the same with the real Vault and a node that boots.

pub mod real;

use std::io::BufRead;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::proxy::Fault;
use crate::stage::{Peer, Running, Stage, StageOptions};

/// How long the main job may take; it takes a second.
const LIMIT: Duration = Duration::from_secs(30);

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Do the job and end.
    pub once: bool,
    /// With the real peers.
    pub real: bool,
}

impl Options {
    /// From the command line; nothing if a flag is not known.
    #[must_use]
    pub fn parse(flags: &[&str]) -> Option<Options> {
        let mut options = Options::default();
        for flag in flags {
            match *flag {
                "--once" => options.once = true,
                "--real" => options.real = true,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// Plays the main job, and then does what a person says until the end of input or Ctrl-C.
pub fn run(agent: &str, options: Options) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    if options.real {
        return real::run(&runtime, agent, options);
    }
    let show = runtime.block_on(Show::open(agent))?;
    show.main_job()?;
    if options.once {
        return Ok(());
    }
    runtime.block_on(show.play())
}

/// The stage with the agent running on it.
struct Show {
    stage: Stage,
    running: Running,
    begun: Instant,
}

impl Show {
    async fn open(agent: &str) -> Result<Show, String> {
        say("models of AWS and Vault start on loopback, in a private root directory");
        // The old kubelet: one that has to be restarted, so that the whole job is seen.
        let options =
            StageOptions { consumer: crate::consumer::Mode::RereadNever, ..StageOptions::worker() };
        let stage = Stage::set(agent, options).await?;
        say(&format!("instance {} is launched; root {}", stage.instance, stage.root().display()));
        let begun = Instant::now();
        let running = stage.run().map_err(|error| error.to_string())?;
        Ok(Show { stage, running, begun })
    }

    /// Log-in, certificates, a consumer that serves them, a rotation with its restart and proof.
    fn main_job(&self) -> Result<(), String> {
        let stage = &self.stage;
        let healthy = |status: &Value| status["health"] == "healthy";
        stage.wait_status("first certificates", LIMIT, healthy)?;
        let took = self.begun.elapsed().as_millis();
        say(&format!("logged in with the identity document, certificates committed ({took} ms)"));
        stage.start_kubelet()?;
        let first = stage.kubelet.serial().unwrap_or_default();
        say(&format!("the consumer, a TLS server of the rig, starts and serves {first}"));
        self.succeed(&["renew", "kubelet-server"])?;
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
        print!("{}", self.succeed(&["status"])?);
        Ok(())
    }

    async fn play(&self) -> Result<(), String> {
        println!("{HELP}");
        println!("from another shell: {}", shown(&self.stage.command(&["status"])));
        let mut lines = lines();
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = &mut interrupt => return Ok(()),
            };
            match line.as_deref().map(str::trim) {
                Some("quit" | "exit") => return Ok(()),
                Some("") => {}
                Some(word) => match self.act(word).await {
                    Ok(text) => println!("{text}"),
                    Err(text) => println!("that failed: {text}"),
                },
                // Input has ended: the sandbox goes on until Ctrl-C.
                None => return interrupt.await.map_err(|error| error.to_string()),
            }
        }
    }

    /// Does what a person typed.
    async fn act(&self, word: &str) -> Result<String, String> {
        let stage = &self.stage;
        let admin = stage.admin();
        match word {
            "status" => Ok(text(&self.verb(&["status"])?)),
            "log" => Ok(stage.log()),
            "away" => {
                stage.proxy.set(Fault::Refuse);
                Ok("vault refuses connections; `renew`, then `status`, shows what that costs"
                    .into())
            }
            "back" => {
                stage.proxy.set(Fault::None);
                Ok("vault answers again".into())
            }
            "seal" => self.model(crate::vault::Model::seal, "vault is sealed; `unseal` it"),
            "unseal" => self.model(crate::vault::Model::unseal, "vault is unsealed"),
            "revoke" => {
                let accessor = self.accessor();
                let body = json!({ "accessor": accessor });
                admin.must_write("auth/token/revoke-accessor", &body).await?;
                Ok("the token is revoked; `renew` makes the agent find out".into())
            }
            "renew" => Ok(text(&self.verb(&["renew", "kubelet-server"])?)),
            "tear" => {
                let path = "/var/lib/nodeagent-certs/kubelet/kubelet-server/current/key.pem";
                stage.write(path, b"torn").map_err(|error| error.to_string())?;
                self.wake()?;
                Ok(format!("{path} is torn; `status` and `log` show the repair"))
            }
            _ => Ok(HELP.into()),
        }
    }

    fn model(&self, act: fn(&crate::vault::Model), done: &str) -> Result<String, String> {
        match &self.stage.vault {
            Peer::Model(model) => act(model),
            Peer::Real(_) => return Err("that is for the model".into()),
        }
        Ok(done.into())
    }

    fn accessor(&self) -> Value {
        let stored: Value =
            serde_json::from_str(&self.stage.read("/run/nodeagent/token")).unwrap_or_default();
        stored["accessor"].clone()
    }

    fn wake(&self) -> Result<(), String> {
        self.running.signal(nix::sys::signal::Signal::SIGHUP).map_err(|error| error.to_string())
    }

    fn verb(&self, arguments: &[&str]) -> Result<Output, String> {
        self.stage.command(arguments).output().map_err(|error| error.to_string())
    }

    fn succeed(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.verb(arguments)?;
        match output.status.success() {
            true => Ok(text(&output)),
            false => Err(format!("nodeagent {}: {}", arguments.join(" "), text(&output))),
        }
    }
}

const HELP: &str = "
what to try next (type a word, Ctrl-C ends):
  status   the node as a person sees it over SSH
  renew    move kubelet-server to its renewal point
  away     take vault away          back     and bring it back
  seal     seal vault               unseal   and unseal it
  revoke   revoke the agent's token
  tear     tear a published file
  log      what the agent logged";

fn say(line: &str) {
    println!("-- {line}");
}

fn text(output: &Output) -> String {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&all).into_owned()
}

fn shown(command: &std::process::Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Lines of standard input, read on a thread of their own: a read cannot be cancelled.
fn lines() -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

//! What a person at the sandbox can do to a world, the same on models and on real peers.

use std::io::{self, Write};
use std::sync::mpsc;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::proxy::{Fault, Proxy};
use crate::setup::Admin;

/// A running node and what it talks to.
pub(super) trait World {
    /// Runs a verb of the agent; what it printed.
    fn verb(&self, arguments: &[&str]) -> Result<Printed, String>;
    /// What the agent logged.
    fn log(&self) -> String;
    /// What lies between the agent and Vault.
    fn proxy(&self) -> &Proxy;
    /// An administrator of Vault, past the proxy.
    fn admin(&self) -> Admin;
    /// A file of the node; empty where there is none.
    fn read(&self, path: &str) -> String;
    /// Writes into a file of the node, as a fault does: in place.
    fn tear(&self, path: &str) -> Result<(), String>;
    /// Has the agent look at once.
    fn wake(&self) -> Result<(), String>;
    /// Seals Vault.
    async fn seal(&self) -> Result<(), String>;
    /// Unseals it.
    async fn unseal(&self) -> Result<(), String>;
    /// The help for the words that only this world has.
    const MORE: &str;
    /// The certificate that `renew` asks for.
    const RENEWED: &str = "kubelet-server";
    /// Does one of those words; nothing where it is not known.
    async fn more(&mut self, word: &str) -> Option<Result<String, String>>;
}

/// What a verb printed.
pub(super) struct Printed {
    /// Whether it ended with 0.
    pub(super) success: bool,
    /// All that it printed.
    pub(super) text: String,
}

/// Runs a verb that has to succeed.
pub(super) fn succeed(world: &impl World, arguments: &[&str]) -> Result<String, String> {
    let printed = world.verb(arguments)?;
    match printed.success {
        true => Ok(printed.text),
        false => Err(format!("nodeagent {}: {}", arguments.join(" "), printed.text)),
    }
}

/// Does what a person types until the end of input, `quit` or Ctrl-C.
pub(super) async fn play(world: &mut impl World) -> Result<(), String> {
    let help = help(world);
    println!("{help}");
    let mut lines = Lines::start();
    loop {
        print!("> ");
        io::stdout().flush().map_err(|error| error.to_string())?;
        // Listened to anew each time: what was typed for a shell is not meant for the sandbox.
        let mut interrupt = Interrupt::listen()?;
        let line = tokio::select! {
            line = lines.next() => line,
            () = interrupt.next() => return Ok(()),
        };
        match line.as_deref().map(str::trim) {
            Some("quit" | "exit") => return Ok(()),
            Some("") => {}
            Some(word) => match act(world, word).await {
                Some(Ok(text)) => println!("{text}"),
                Some(Err(text)) => println!("that failed: {text}"),
                None => println!("{help}"),
            },
            // Input has ended: the sandbox goes on until Ctrl-C.
            None => {
                interrupt.next().await;
                return Ok(());
            }
        }
    }
}

async fn act<W: World>(world: &mut W, word: &str) -> Option<Result<String, String>> {
    Some(match word {
        "status" => world.verb(&["status"]).map(|printed| printed.text),
        "renew" => world.verb(&["renew", W::RENEWED]).map(|printed| printed.text),
        "log" => Ok(world.log()),
        "away" => {
            world.proxy().set(Fault::Refuse);
            Ok("vault refuses connections; `renew`, then `status`, shows what that costs".into())
        }
        "back" => {
            world.proxy().set(Fault::None);
            Ok("vault answers again".into())
        }
        "seal" => world.seal().await.map(said("vault is sealed; `unseal` it")),
        "unseal" => world.unseal().await.map(said("vault is unsealed")),
        "revoke" => revoke(world).await.map(said("the token is revoked; `renew` finds out")),
        "tear" => {
            let path = "/var/lib/nodeagent-certs/kubelet/kubelet-server/current/key.pem";
            let torn = world.tear(path).and_then(|()| world.wake());
            torn.map(|()| format!("{path} is torn; `status` and `log` show the repair"))
        }
        _ => return world.more(word).await,
    })
}

fn said(text: &'static str) -> impl FnOnce(()) -> String {
    move |()| text.to_owned()
}

async fn revoke(world: &impl World) -> Result<(), String> {
    let stored = world.read("/run/nodeagent/token");
    let stored: Value = serde_json::from_str(&stored).unwrap_or_default();
    let body = json!({ "accessor": stored["accessor"] });
    world.admin().must_write("auth/token/revoke-accessor", &body).await.map(drop)
}

fn help<W: World>(_: &W) -> String {
    format!("{}{}", HELP.replace("RENEWED", W::RENEWED), W::MORE)
}

const HELP: &str = "
what to try next (type a word, Ctrl-C ends):
  status   the node as a person sees it over SSH
  renew    ask for a new RENEWED
  away     take vault away          back     and bring it back
  seal     seal vault               unseal   and unseal it
  revoke   revoke the agent's token
  tear     tear a published file
  log      what the agent logged";

/// Ctrl-C, SIGTERM, or a terminal that was closed. While somebody listens none ends the process by
/// itself, which would leave what was started running.
pub(super) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupt {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Interrupt, String> {
        let listen = |kind| signal(kind).map_err(|error| error.to_string());
        Ok(Interrupt {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Ends with the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Whether there was one already.
    pub(super) async fn is_there(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.next() => true,
            // The main job blocks the runtime, which has to look at its signals first.
            () = tokio::task::yield_now() => false,
        }
    }
}

/// Lines of standard input, read on a thread of their own, because a read cannot be cancelled; and
/// only when one is asked for, because a shell may have the terminal meanwhile.
struct Lines {
    ask: mpsc::Sender<()>,
    answers: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Lines {
    fn start() -> Lines {
        let (ask, asked) = mpsc::channel();
        let (send, answers) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            while asked.recv().is_ok() {
                let mut line = String::new();
                let read = io::stdin().read_line(&mut line);
                if !read.is_ok_and(|length| length > 0) || send.send(line).is_err() {
                    return;
                }
            }
        });
        Lines { ask, answers }
    }

    /// The next line; nothing at the end of input.
    async fn next(&mut self) -> Option<String> {
        // Where the thread has ended there is no line either.
        self.ask.send(()).ok();
        self.answers.recv().await
    }
}

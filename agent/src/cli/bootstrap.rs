//! `bootstrap` and `render` for a person: each step as it happens, and what follows from the
//! configuration.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use crate::agent;
use crate::bootstrap::inputs::Inputs;
use crate::bootstrap::journal::Mode;
use crate::bootstrap::{self, Progress, Report};
use crate::duty::session;
use crate::error::{Code, Error, Result};
use crate::host::lock;
use crate::node::Node;
use crate::render as rendered;
use crate::status::{self, Status};
use crate::version::VERSION;

/// How long the agent may take to read its configuration again: effects under way end first.
const AGREEMENT: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(200);

/// What a person asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What would be done.
    Plan,
    /// What is missing.
    Raise,
    /// All of it, after a loss.
    Recovery,
}

/// Runs the verb; gives its last words.
pub(super) async fn run(node: &Node, wanted: Wanted) -> Result<String> {
    session::take_up(node).await;
    let mode = match wanted {
        Wanted::Plan => return preview(node).await,
        Wanted::Raise => Mode::Raise,
        Wanted::Recovery => Mode::Recover,
    };
    agent::make_directories(&node.root)?;
    agree(node).await?;
    let begun = node.clock.monotonic();
    let report = bootstrap::run(node, mode, &mut |progress| tell(progress)).await?;
    let took = node.clock.monotonic().saturating_sub(begun);
    Ok(summary(&report, took))
}

/// The running agent goes by the same configuration and program, or it would put back what this
/// run changes. It is told to read the configuration again; a new program it cannot take up.
async fn agree(node: &Node) -> Result<()> {
    let begun = node.clock.monotonic();
    let mut told = false;
    loop {
        let Some(seen) = status::load(&node.root, node.clock.now()).ok().filter(is_alive) else {
            return Ok(());
        };
        if seen.agent.configuration == node.config.digest && seen.agent.version == VERSION {
            return Ok(());
        }
        if !told && !lock::wake_holder(&node.root.path(super::LOCK.as_ref())) {
            return Ok(());
        }
        told = true;
        if node.clock.monotonic().saturating_sub(begun) > AGREEMENT {
            let text = "the running agent goes by another configuration or version";
            return Err(Error::new(Code::Locked, text)
                .advise("systemctl restart nodeagent; see why: journalctl -u nodeagent -n 20"));
        }
        node.clock.sleep(PAUSE).await;
    }
}

fn is_alive(status: &Status) -> bool {
    !status.problems.iter().any(|problem| problem.code == Code::AgentSilent)
}

/// A line that cannot be printed stops nothing: the terminal of a bad night may be gone.
fn tell(progress: &Progress) {
    let mut out = std::io::stdout();
    writeln!(out, "{}", line(progress)).and_then(|()| out.flush()).ok();
}

fn line(progress: &Progress) -> String {
    match progress {
        Progress::Begun(step, why) => format!("{step:27} {}: {why}", step.describe()),
        Progress::Done(step, took) => format!("{step:27} done in {}", seconds(*took)),
        Progress::Waiting(step, missing) => format!("{step:27} waiting: {missing}"),
        Progress::HeldBy(text) => format!("{:27} {text}", "waiting for the lock"),
        Progress::Note(text) => format!("{:27} {text}", "note"),
    }
}

fn summary(report: &Report, took: Duration) -> String {
    let mut text = match report.done.len() {
        0 => "the control plane is whole: nothing is to do\n".to_string(),
        1 => format!("the control plane is whole: 1 step in {}\n", seconds(took)),
        steps => format!("the control plane is whole: {steps} steps in {}\n", seconds(took)),
    };
    if let Some(remarks) = &report.remarks {
        write!(text, "but of the assets:\n{remarks:#}\n").expect("a String takes all");
    }
    text
}

async fn preview(node: &Node) -> Result<String> {
    let planned = bootstrap::preview(node).await?;
    let mut text = String::new();
    for line in &planned {
        let step = line.step;
        match &line.why {
            None => writeln!(text, "{step:27} is true: {}", step.describe()),
            Some(why) => writeln!(text, "{step:27} to do: {why}"),
        }
        .expect("a String takes all");
    }
    if planned.iter().all(|line| line.why.is_none()) {
        text.push_str("the control plane is whole: nothing is to do\n");
    }
    Ok(text)
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Everything that follows from the configuration, each file under its name.
pub(super) fn render(node: &Node) -> Result<String> {
    node.recall_session();
    let files = Inputs::gather(node)?.with(node, rendered::everything)?;
    Ok(rendered::screen(&files))
}

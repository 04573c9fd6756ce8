//! The binary: parse, start logging, run the verb, turn an error's kind into an exit code.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use nodeagent::cli::{self, Cli, Outcome, Verb};
use nodeagent::error::{Error, Kind};
use nodeagent::{host, logging};

/// With the allocator of musl, which is made to be small and hard to misuse from C, a quarter of
/// the processor time of a start went into memory.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Kind::Usage.exit_code() } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    logging::start();
    if let Err(error) = host::processes::forbid_dumps() {
        tracing::warn!("core dumps are not forbidden: {error}");
    }
    let outcome = logging::crypto().and_then(|()| runtime()).and_then(|runtime| {
        let outcome = runtime.block_on(cli::run(&cli));
        // A name lookup that hangs cannot be cancelled; the process does not wait for it.
        runtime.shutdown_timeout(Duration::from_millis(100));
        outcome
    });
    match outcome {
        Ok(Outcome { text, code }) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::from(code),
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => fail(&cli.verb, &error),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(nodeagent::error::Code::Bug, error.to_string()))
}

/// `status` answers 2 where it cannot tell: nothing is known to be good.
fn fail(verb: &Verb, error: &Error) -> ExitCode {
    let mut text = format!("nodeagent: {error:#}\n");
    if let Some(advice) = error.advice() {
        text.push_str(&format!("  do: {advice}\n"));
    }
    let code = match verb {
        Verb::Status { .. } => 2,
        _ => error.kind().exit_code(),
    };
    match std::io::stderr().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE,
    }
}

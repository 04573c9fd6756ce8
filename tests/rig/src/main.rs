//! `rig`: the sandbox and the benchmarks, for `tests/sandbox` and `tests/bench`.

use std::process::ExitCode;

use rig::sandbox;

const USAGE: &str = "\
usage: rig AGENT sandbox [--once]
       rig AGENT sandbox [--once] --real
       rig AGENT sandbox [--once] --real --controller|--controllers 1|3 [--style STYLE] [--told]

  --once         do the main job, print the status, end with 0 if all went well
  --real         with the real Vault and a node that boots (root)
  --controller   a controller that raises a real control plane (--controllers 3: three of them)
  --style        where that lives: static (the default) or self-hosted
  --told         a person raises it with `nodeagent bootstrap`, not the agent by itself
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [agent, "sandbox", flags @ ..] => match sandbox::Options::parse(flags) {
            Some(options) => sandbox::run(agent, options),
            None => return usage(),
        },
        _ => return usage(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rig: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(64)
}

//! Writes the manual pages and the shell completions of nodeagent into a directory, from the very
//! types that `--help` comes from. A program of its own, so that what is shipped holds neither of
//! the two generators.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use nodeagent::cli::Cli;
use nodeagent::version::VERSION;

/// The shells that people of a cluster use.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(out), Some(date)) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return Err(Error::other("name the directory to write into, and the date of the source"));
    };
    pages(&out.join("man"), &date)?;
    completions(&out.join("completions"))
}

/// One page for the program and one for each verb, named as `man nodeagent-await` wants it.
fn pages(out: &Path, date: &str) -> Result<()> {
    fs::create_dir_all(out)?;
    // `nodeagent help` is no verb that wants a page of its own.
    let mut command = Cli::command().disable_help_subcommand(true);
    // Only a built command knows the options that every verb has.
    command.build();
    let source = format!("nodeagent {VERSION}");
    let page = |command: &Command, name: &str| {
        let mut text = Vec::new();
        let man = Man::new(command.clone()).title(name.to_uppercase()).date(date);
        man.source(source.clone()).render(&mut text)?;
        fs::write(out.join(format!("{name}.1")), text)
    };
    page(&command, "nodeagent")?;
    for verb in command.get_subcommands() {
        page(verb, &format!("nodeagent-{}", verb.get_name()))?;
    }
    Ok(())
}

fn completions(out: &Path) -> Result<()> {
    fs::create_dir_all(out)?;
    for shell in SHELLS {
        generate_to(shell, &mut Cli::command(), "nodeagent", out)?;
    }
    Ok(())
}

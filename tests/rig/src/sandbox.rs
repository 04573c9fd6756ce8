//! The sandbox: the main job on one screen, then a node to play with. On models it needs neither
//! root nor a network; [`real`] does the same with the real Vault and a node that boots, and
//! [`controller`] has controllers raise a real control plane.

mod controller;
mod models;
mod real;
mod words;

use crate::controllers::{Raising, Style};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Do the job and end.
    pub once: bool,
    /// With the real peers.
    pub real: bool,
    /// So many controllers, instead of a worker on its own.
    pub controllers: usize,
    /// Where their control plane lives.
    pub style: Style,
    /// Who raises it: the agent by itself, or when it is told to.
    pub raising: Raising,
}

impl Default for Options {
    fn default() -> Options {
        let (style, raising) = (Style::Static, Raising::Automatic);
        Options { once: false, real: false, controllers: 0, style, raising }
    }
}

impl Options {
    /// From the command line; nothing if a flag is not known, or would mean nothing.
    #[must_use]
    pub fn parse(flags: &[&str]) -> Option<Options> {
        let mut options = Options::default();
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            match *flag {
                "--once" => options.once = true,
                "--real" => options.real = true,
                "--controller" => options.controllers = 1,
                "--controllers" => {
                    options.controllers =
                        flags.next()?.parse().ok().filter(|n| [1, 3].contains(n))?;
                }
                "--style" => {
                    options.style = match *flags.next()? {
                        "static" => Style::Static,
                        "self-hosted" => Style::SelfHosted,
                        _ => return None,
                    }
                }
                "--told" => options.raising = Raising::Told,
                _ => return None,
            }
        }
        // A control plane is never a model.
        let fits = options.controllers == 0 || options.real;
        let none = Options { once: options.once, real: options.real, ..Options::default() };
        (fits && (options.controllers > 0 || options == none)).then_some(options)
    }
}

/// Plays the main job, and then does what a person says until the end of input or Ctrl-C. `agent`
/// is the program that runs on models; a node that boots has the static one.
pub fn run(agent: &str, options: Options) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut interrupt = words::Interrupt::listen()?;
        if options.controllers > 0 {
            let mut world = controller::Plane::open(options).await?;
            tokio::select! {
                done = world.main_job() => done?,
                () = interrupt.next() => return Err("it was interrupted".into()),
            }
            return if options.once { Ok(()) } else { words::play(&mut world).await };
        }
        if options.real {
            let mut world = real::Real::open().await?;
            world.main_job()?;
            let ended = options.once || interrupt.is_there().await;
            return if ended { Ok(()) } else { words::play(&mut world).await };
        }
        let mut world = models::Models::open(agent).await?;
        world.main_job()?;
        if options.once || interrupt.is_there().await {
            return Ok(());
        }
        world.invite();
        words::play(&mut world).await
    })
}

fn say(line: &str) {
    println!("-- {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_asked_for_with_their_style_and_never_as_models() {
        let all = ["--real", "--controllers", "3", "--style", "self-hosted", "--once"];
        let options = Options::parse(&all).expect("all of them are known");
        assert_eq!((options.controllers, options.style), (3, Style::SelfHosted));
        assert!(options.once && options.real);
        for wrong in [
            &["--controller"][..],
            &["--real", "--controllers"],
            &["--real", "--controllers", "2"],
            &["--real", "--style", "self-hosted"],
            &["--real", "--told"],
            &["--real", "--controller", "--style", "both"],
        ] {
            assert_eq!(Options::parse(wrong), None, "{wrong:?}");
        }
    }
}

//! The sandbox: the main job on one screen, then a node to play with. On models it needs neither
//! root nor a network; [`real`] does the same with the real Vault and a node that boots.

mod models;
mod real;
mod words;

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

/// Plays the main job, and then does what a person says until the end of input or Ctrl-C. `agent`
/// is the program that runs on models; a node that boots has the static one.
pub fn run(agent: &str, options: Options) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut interrupt = words::Interrupt::listen()?;
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

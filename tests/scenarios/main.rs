//! The real binary on a stage of models: real HTTP, real TLS, a private root. One binary for all
//! stories, so that it is linked once.

mod first_boot;

use rig::stage::{Stage, StageOptions};

/// A stage with the agent under test.
async fn stage(options: StageOptions) -> Stage {
    let program = env!("CARGO_BIN_EXE_nodeagent");
    Stage::set(program, options)
        .await
        .expect("the stage is set")
}

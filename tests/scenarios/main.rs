//! The real binary on a stage of models: real HTTP, real TLS, a private root. One binary for all
//! stories, so that it is linked once.

mod act;
mod act_failures;
mod assets;
mod bad_input;
mod bad_input_plane;
mod certificates;
mod certificates_refused;
mod cli;
mod clock;
mod consumers;
mod crash_matrix;
mod first_boot;
mod footprint;
mod golden;
mod ignition;
mod keys;
mod known_flags;
mod kubernetes;
mod launch;
mod leaks;
mod machine;
mod metrics;
mod nonce;
mod play;
mod render;
mod renewal;
mod session;
mod simulation;
mod store;
mod store_crashes;
mod store_disks;
mod terraform;
mod vault_answers;
mod vault_outage;
mod wire;

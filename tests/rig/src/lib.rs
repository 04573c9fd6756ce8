//! The rig: models of what cannot be had on a test machine, the real peers where they can,
//! and a machine driver. Tests and the sandbox only; it never imports `nodeagent`.

pub mod aws;
pub mod clock;
pub mod consumer;
pub mod controllers;
pub mod ignition;
pub mod launch;
pub mod machine;
pub mod node;
pub mod peer;
pub mod pki;
pub mod proxy;
pub mod s3;
pub mod sandbox;
pub mod server;
pub mod setup;
pub mod stage;
pub mod systemd;
pub mod terraform;
pub mod vault;

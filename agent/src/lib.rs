//! nodeagent: identity, certificates and control plane of a Kubernetes node, from Vault.
//!
//! The one idea: the agent has a short list of *duties*. Each duty answers one pure question,
//! *when are you due, and why?*, and has one effect. Running is: gather facts, `decide`, start
//! what is due, sleep until the earliest answer or until an effect ends.
//!
//! Reading order: [`agent`] (the loop), [`duty`] (the question and its answers), then one duty,
//! say [`duty::certs`]; [`config`] and [`node`] for what they are given; [`render`] for what the
//! node's programs are told; [`wire`] and [`host`] for the two sides that they touch.
//! docs/architecture.md says who may import whom.

pub mod agent;
pub mod attest;
pub mod backoff;
pub mod bootstrap;
pub mod cli;
pub mod config;
pub mod duty;
pub mod error;
pub mod failpoint;
pub mod gate;
pub mod host;
pub mod logging;
pub mod node;
pub mod render;
pub mod secret;
pub mod status;
pub mod version;
pub mod wire;

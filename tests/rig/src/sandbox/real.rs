//! The sandbox on real peers.

use super::Options;

/// Plays the main job on the real Vault and a node that boots.
pub fn run(_: &tokio::runtime::Runtime, _: &str, _: Options) -> Result<(), String> {
    Err("not yet".into())
}

//! The real peers: programs that are built once from pinned sources and run by the rig.

pub mod kube;
pub mod vault;

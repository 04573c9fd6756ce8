//! The real peers: programs that are built once from pinned sources and run by the rig.

pub mod apiserver;
pub mod etcd;
pub mod kube;
pub mod process;
pub mod vault;

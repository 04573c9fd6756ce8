//! The network: one file per service, each knows its protocol and nothing of ours. Layer 1.

pub mod etcd;
pub mod http;
pub mod imds;
pub mod kube;
pub mod tls;
pub mod vault;

//! The network: one file per service, each knows its protocol and nothing of ours. Layer 1.

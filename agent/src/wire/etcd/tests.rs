//! The answers of etcd that are hard to have from a real one.

//! Each invariant fails on what it is there for.

//! The answers of the API that are hard to have from a real one.

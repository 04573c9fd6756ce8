//! What only the model can do: answer wrongly on purpose, so that an agent shows whether it looks
//! at what it is given before it commits it.

/// A way to answer a `sign` request falsely, with status 200 and everything else in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The certificate carries other names than those asked for.
    WrongName,
    /// The certificate is for another key.
    OtherKey,
    /// The certificate is signed by an authority that is not the mount's.
    OtherIssuer,
    /// The certificate has already expired.
    Expired,
    /// The certificate has no extended key usage.
    NoUsage,
}

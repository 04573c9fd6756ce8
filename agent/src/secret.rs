//! Text that must not be seen: tokens, nonces, keys. It has no `Display` and no `Serialize`,
//! its `Debug` says nothing, and its memory is cleared when it is dropped.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text. [`Secret::expose`] is the one way to read it, so that readers can be found.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// The text itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hvs.abc".into())), "Secret(..)");
    }
}

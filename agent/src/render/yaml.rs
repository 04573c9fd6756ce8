//! Values as YAML, always the same for the same value: keys are sorted, and the first line says
//! whose file it is.

use serde_json::Value;

use crate::error::{Code, Error, Result};

/// The first line of every YAML file of ours.
pub const MARK: &str =
    "# Written by nodeagent; changes are overwritten. `nodeagent render` shows it.";

/// Whether a file is one that we wrote. The words that follow may change, the beginning may not.
pub fn is_ours(text: &str) -> bool {
    text.starts_with("# Written by nodeagent;")
}

/// A document with the mark on top.
pub fn document(value: &Value) -> Result<String> {
    Ok(format!("{MARK}\n{}", plain(value)?))
}

/// A document without the mark, for what others keep.
pub(super) fn plain(value: &Value) -> Result<String> {
    // A folded text would be longer to read, and a comment above a flag would fall into it.
    let mut options = serde_saphyr::SerializerOptions::default();
    options.folded_wrap_chars = usize::MAX;
    let body = serde_saphyr::to_string_with_options(value, options)
        .map_err(|error| Error::new(Code::Bug, format!("writing YAML: {error}")))?;
    Ok(format!("{}\n", body.trim_end()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let value = json!({
            "texts": ["1", "true", "0x10", "1e3", "~", "", "-", "a: b # c", "*x", "2026-01-01"],
            "lines": "a\nb\n", "long": "words ".repeat(40).trim(), "none": null,
            "empty": {}, "list": [], "number": 1, "n": {"y": [{"on": "off"}]},
        });
        let text = document(&value).expect("it is written");
        assert!(is_ours(&text), "{text}");
        let back: Value = serde_saphyr::from_str(&text).expect("it is read");
        assert_eq!(back, value, "{text}");
    }

    #[test]
    fn a_foreign_file_is_not_ours() {
        assert!(!is_ours("apiVersion: v1\n"));
        assert!(!is_ours("apiVersion: v1\n# Written by nodeagent;\n"));
    }
}

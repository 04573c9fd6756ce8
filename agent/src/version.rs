//! What this program is: the version, and the commit that it was built from. A node is
//! asked for it when something is wrong, so it has to lead to the very source: a version alone is
//! the same for everything that was built between two releases.

/// The version, as the release and its image are called.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, with `-dirty` behind it where the tree held changes that are in no commit. A
/// release is told it by packaging/release/build; no other build knows.
pub fn commit() -> Option<&'static str> {
    known(option_env!("NODEAGENT_COMMIT"))
}

fn known(told: Option<&str>) -> Option<&str> {
    told.filter(|commit| !commit.is_empty())
}

/// The line that is printed.
pub fn line(commit: Option<&str>) -> String {
    match commit {
        Some(commit) => format!("nodeagent {VERSION} (commit {commit})\n"),
        None => format!("nodeagent {VERSION} (no release: the commit is not known)\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_is_told_where_it_is_known() {
        let told = line(known(Some("0123abcd-dirty")));
        assert_eq!(told, format!("nodeagent {VERSION} (commit 0123abcd-dirty)\n"));
        for unknown in [None, Some("")] {
            let told = line(known(unknown));
            assert!(told.contains("not known") && !told.contains("(commit"), "{told}");
        }
    }
}

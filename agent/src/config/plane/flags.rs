//! The flags that the programs of the control plane know, one list for each, read off the `--help`
//! of Kubernetes 1.36. A scenario compares the lists with the real programs. A misspelt flag keeps
//! a component from starting, which is told here before anything is touched.

use std::sync::LazyLock;

use super::Component;

/// The version that the lists were read off.
pub const VERSION: &str = "1.36";

static APISERVER: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("flags/kube-apiserver.txt").lines().collect());
static CONTROLLER_MANAGER: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("flags/kube-controller-manager.txt").lines().collect());
static SCHEDULER: LazyLock<Vec<&str>> =
    LazyLock::new(|| include_str!("flags/kube-scheduler.txt").lines().collect());

/// The names of a component's flags, sorted, without dashes.
pub fn known_flags(component: Component) -> &'static [&'static str] {
    match component {
        Component::Apiserver => &APISERVER,
        Component::ControllerManager => &CONTROLLER_MANAGER,
        Component::Scheduler => &SCHEDULER,
    }
}

/// What is wrong with the name of a flag, and what to do.
pub fn name_fault(component: Component, flag: &str) -> Option<String> {
    let known = known_flags(component);
    if known.binary_search(&flag).is_ok() {
        return None;
    }
    let bare = flag.trim_start_matches('-').replace('_', "-");
    let advice = match nearest(known, &bare) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "take it out, or correct its name".to_string(),
    };
    Some(format!("{component} of Kubernetes {VERSION} knows no flag `{flag}`; {advice}"))
}

/// The flag that takes the fewest changes, at most three.
fn nearest(known: &[&'static str], flag: &str) -> Option<&'static str> {
    let near = known.iter().map(|name| (distance(name, flag), *name));
    near.filter(|(changes, _)| *changes <= 3).min().map(|(_, name)| name)
}

/// How many letters have to be put in, taken out or changed.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (done, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = done + 1;
        for (at, other) in right.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_names() {
        for component in Component::ALL {
            let flags = known_flags(component);
            assert!(flags.len() > 50, "{component}: {}", flags.len());
            assert!(flags.is_sorted(), "{component}");
            assert!(flags.contains(&"feature-gates"), "{component}");
        }
    }

    #[test]
    fn an_unknown_flag_is_told_with_the_nearest_one() {
        let fault = |flag| name_fault(Component::Apiserver, flag).unwrap_or_default();
        assert_eq!(fault("event-ttl"), "");
        assert!(fault("--event-ttl").contains("did you mean `event-ttl`?"));
        assert!(fault("event_tll").contains("did you mean `event-ttl`?"));
        assert!(fault("frobnicate").contains("take it out"));
    }
}

//! The command line of a component: our table, then what the operator lays over it.

use std::collections::BTreeMap;

use super::tables;
use super::{Input, Place};
use crate::config::plane::Component;
use crate::error::{Code, Error, Result};

/// A flag with its value and the reason why it is not left at its default.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    /// Without dashes.
    pub(super) name: &'static str,
    /// What it is set to.
    pub(super) value: String,
    /// Why.
    pub(super) why: &'static str,
}

/// The command of a component: its program and its flags.
///
/// `flags` replaces a value where it stands and adds new flags after ours, sorted; `without_flags`
/// leaves ours out; feature gates come last.
pub(super) fn command(
    input: &Input<'_>,
    component: Component,
    place: Option<Place>,
) -> Result<Vec<String>> {
    let plane = input.control_plane()?;
    let ours = tables::table(input, component, place)?;
    let without = plane.without_flags.get(&component).map(Vec::as_slice).unwrap_or_default();
    let ours = leave_out(ours, without, component)?;
    let mut over = plane.flags.get(&component).cloned().unwrap_or_default();
    let mut gates: Vec<String> = over.remove("feature-gates").into_iter().collect();
    let mut words = vec![component.name().to_owned()];
    for flag in ours {
        let given = over.remove(flag.name);
        // The mark of a temporary process is not for others to set.
        let marks = place == Some(Place::Temporary) && flag.name == tables::MARK_FLAG;
        let value = given.filter(|_| !marks).unwrap_or(flag.value);
        words.push(format!("--{}={value}", flag.name));
    }
    let others = over.iter().map(|(name, value)| format!("--{name}={value}"));
    // Which is its default: without it the process is not taken for a temporary one.
    words.extend(others.filter(|word| word != tables::temporary_argument(Component::Apiserver)));
    gates.extend(plane.feature_gates.iter().map(|(gate, on)| format!("{gate}={on}")));
    if !gates.is_empty() {
        words.push(format!("--feature-gates={}", gates.join(",")));
    }
    Ok(words)
}

/// A flag that is to be left out and is not there is a mistake in its name.
fn leave_out(ours: Vec<Flag>, without: &[String], component: Component) -> Result<Vec<Flag>> {
    for name in without {
        if !ours.iter().any(|flag| flag.name == name) {
            let names: Vec<&str> = ours.iter().map(|flag| flag.name).collect();
            let text = format!("{component} is not given --{name}, so it cannot be left out");
            let advice = format!("control_plane.without_flags may name {}", names.join(", "));
            return Err(Error::new(Code::Config, text).advise(advice));
        }
    }
    Ok(ours.into_iter().filter(|flag| !without.iter().any(|name| name == flag.name)).collect())
}

/// Why each flag is there, as the comments of a manifest.
pub(super) fn reasons(
    input: &Input<'_>,
    component: Component,
    place: Option<Place>,
) -> Result<BTreeMap<&'static str, &'static str>> {
    let ours = tables::table(input, component, place)?;
    Ok(ours.into_iter().map(|flag| (flag.name, flag.why)).collect())
}

//! The lists of flags that overrides are checked against, compared with what the real programs
//! say of themselves.

use std::process::Command;

use nodeagent::config::plane::Component;
use nodeagent::config::plane::flags::known_flags;
use rig::peer::process::find;

use crate::play::skip;

/// The flag that a line of `--help` documents: `--name` after its indentation, or after `-x,`.
fn flag(line: &str) -> Option<&str> {
    let text = line.trim_start();
    let indentation = line.len() - text.len();
    let text = match text.split_once(", ") {
        Some((short, rest)) if short.len() == 2 && short.starts_with('-') => rest,
        _ => text,
    };
    let name = text.strip_prefix("--")?.split([' ', '[', '=']).next()?;
    // A continuation of the documentation above it stands far to the right.
    (2..=6).contains(&indentation).then_some(name)
}

#[test]
fn the_known_flags_are_those_of_the_real_programs() {
    for component in Component::ALL {
        let program = match find("kube", component.name()) {
            Ok(program) => program,
            Err(reason) => {
                skip::<()>(&reason);
                return;
            }
        };
        let output = Command::new(program).arg("--help").output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{component}: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        let mut real: Vec<&str> = text.lines().filter_map(flag).collect();
        real.sort_unstable();
        real.dedup();
        assert!(real.len() > 50, "{component}: {real:?}");
        let list = format!("agent/src/config/plane/flags/{component}.txt");
        assert_eq!(real, known_flags(component), "{list} is not what the program says");
    }
}

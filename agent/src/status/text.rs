//! The status as a person sees it over SSH; pure.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp, Unit};

use super::plane::PlanePart;
use super::{CertPart, ConsumerPart, Health, Problem, Status};

/// The whole screen.
pub fn screen(status: &Status, now: Timestamp) -> String {
    let mut text = String::new();
    let lines = [head(status), identity(status), vault(status, now), autonomy(status)];
    for line in &lines {
        push(&mut text, line);
    }
    if !status.certificates.is_empty() {
        push(&mut text, "");
        let rows = status.certificates.iter().map(|part| certificate(part, now)).collect();
        table(&mut text, ["CERTIFICATE", "STATE", "SERIAL", "ENDS", "RENEWED"], rows);
    }
    if !status.consumers.is_empty() {
        push(&mut text, "");
        let rows = status.consumers.iter().map(|part| consumer(part, now)).collect();
        table(&mut text, ["CONSUMER", "STATE", "SERVES", "SEEN", "LAST ACT"], rows);
    }
    if let Some(part) = &status.control_plane {
        push(&mut text, "");
        plane(&mut text, part, now);
    }
    for found in &status.problems {
        push(&mut text, "");
        problem(&mut text, found, now);
    }
    text
}

/// One line, for systemd's STATUS=.
pub fn line(status: &Status) -> String {
    let problems = status.problems.len();
    match status.problems.first() {
        None => [word(status.health), &endurance(status)].join("; "),
        Some(first) if problems == 1 => format!("{}: {}", word(status.health), first.text),
        Some(first) => {
            format!("{}: {} (and {} more)", word(status.health), first.text, problems - 1)
        }
    }
}

pub(super) fn word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Failed => "failed",
    }
}

fn head(status: &Status) -> String {
    format!("nodeagent {} is {}", status.agent.version, word(status.health))
}

fn identity(status: &Status) -> String {
    let node = &status.node;
    let id = node.instance_id.as_deref().unwrap_or("unknown");
    format!("node      {id}, {} of {}", node.role, node.cluster)
}

fn vault(status: &Status, now: Timestamp) -> String {
    let vault = &status.vault;
    let mut line = format!("vault     {}, {}", vault.address, vault.session);
    if let Some(expires) = vault.expires {
        let word = if expires < now { "ended" } else { "ends" };
        write_to(&mut line, format_args!(", token {word} {}", distance(now, expires)));
    }
    if let (None, Some(at)) = (vault.expires, vault.renew) {
        write_to(&mut line, format_args!(", log-in {}", distance(now, at)));
    }
    if let Some(ahead) = status.node.clock_ahead_s.filter(|ahead| ahead.abs() >= 2.0) {
        write_to(&mut line, format_args!(", clock {ahead:+.0} s"));
    }
    line
}

fn autonomy(status: &Status) -> String {
    format!("autonomy  {}", endurance(status))
}

/// How long the node can do without Vault.
fn endurance(status: &Status) -> String {
    match status.autonomy_s {
        None => "none: a certificate is missing".into(),
        Some(left) if left <= 0 => "none: a certificate has ended".into(),
        Some(i64::MAX) => "without end: there are no certificates".into(),
        Some(left) => format!("{} without vault", span(SignedDuration::from_secs(left))),
    }
}

fn certificate(part: &CertPart, now: Timestamp) -> [String; 5] {
    let renewed = match (&part.waits_for, part.renew) {
        (Some(what), _) => format!("waits for {what}"),
        (None, Some(at)) => distance(now, at),
        (None, None) => "-".into(),
    };
    [
        part.name.clone(),
        part.state.clone(),
        short(part.serial.as_deref()),
        part.not_after.map_or("-".into(), |end| distance(now, end)),
        renewed,
    ]
}

fn consumer(part: &ConsumerPart, now: Timestamp) -> [String; 5] {
    let act = match (&part.last_act, part.last_act_at) {
        (Some(word), Some(at)) => format!("{word} {}", distance(now, at)),
        _ => "-".into(),
    };
    [
        part.name.clone(),
        part.state.clone(),
        short(part.served.as_deref()),
        part.proved.map_or("-".into(), |at| distance(now, at)),
        act,
    ]
}

/// The control plane: what it is at, and how each component is.
fn plane(text: &mut String, part: &PlanePart, now: Timestamp) {
    let state = match (&part.step, part.since) {
        (None, _) => "whole".to_string(),
        (Some(step), None) => format!("at {step}"),
        (Some(step), Some(since)) => {
            format!("at {step}, not whole for {}", span(now.duration_since(since)))
        }
    };
    let manual = if part.automatic { "" } else { ", raised by hand only" };
    push(text, &format!("plane     {}, epoch {}, {state}{manual}", part.style, part.epoch));
    if let Some(holder) = &part.holder {
        push(text, &format!("lock      {}, {}", holder.instance, distance(now, holder.since)));
    }
    if !part.foreign.is_empty() {
        push(
            text,
            &format!("foreign   {}, which nodeagent did not write", part.foreign.join(", ")),
        );
    }
    if !part.outdated.is_empty() {
        push(text, &format!("outdated  {}", part.outdated.join(", ")));
    }
    push(text, "");
    let rows = part.components.iter().map(|component| {
        let why = component.why.clone().unwrap_or_else(|| "-".into());
        let (name, state) = (component.name.clone(), component.state.clone());
        [name, state, short(component.served.as_deref()), why]
    });
    table(text, ["COMPONENT", "STATE", "SERVES", "WHY"], rows.collect());
}

fn problem(text: &mut String, problem: &Problem, now: Timestamp) {
    let since = problem
        .since
        .map_or(String::new(), |at| format!(", since {}", span(now.duration_since(at))));
    push(text, &format!("PROBLEM   {} at {}{since}", problem.code.slug(), problem.place));
    push(text, &format!("  found   {}", problem.text));
    if let Some(advice) = &problem.advice {
        push(text, &format!("  do      {advice}"));
    }
}

/// A serial is 20 bytes: the first four tell it from its neighbours on one screen.
fn short(serial: Option<&str>) -> String {
    match serial {
        None => "-".into(),
        Some(serial) => match serial.char_indices().nth(11) {
            Some((end, _)) => format!("{}…", &serial[..end]),
            None => serial.into(),
        },
    }
}

/// `in 11 h 3 min` or `5 s ago`.
fn distance(now: Timestamp, at: Timestamp) -> String {
    let until = now.duration_until(at);
    match until.is_negative() {
        true => format!("{} ago", span(until.abs())),
        false => format!("in {}", span(until)),
    }
}

/// The two largest units of a duration.
fn span(duration: SignedDuration) -> String {
    let seconds = duration.round(Unit::Second).unwrap_or(duration).as_secs().max(0);
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn table<const N: usize>(text: &mut String, head: [&str; N], rows: Vec<[String; N]>) {
    let mut widths = head.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head = head.map(String::from);
    for row in std::iter::once(&head).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write_to(&mut line, format_args!("{cell:width$}  "));
        }
        push(text, line.trim_end());
    }
}

/// Several lines at most: what else controls a terminal is not for the screen, wherever it comes
/// from.
fn push(text: &mut String, line: &str) {
    text.push_str(&line.replace(|letter: char| letter.is_control() && letter != '\n', " "));
    text.push('\n');
}

fn write_to(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_cut_between_its_letters() {
        assert_eq!(short(Some("40:78:22:04:0a")), "40:78:22:04…");
        assert_eq!(short(Some("40:78:22:04")), "40:78:22:04");
        assert_eq!(short(Some("0123456789ä:no serial")), "0123456789ä…");
    }

    #[test]
    fn nothing_on_the_screen_steers_a_terminal() {
        let mut text = String::new();
        table(&mut text, ["NAME"], vec![["a\u{1b}[2Jb\r".into()]]);
        push(&mut text, "two\nlines\u{7}");
        assert_eq!(text, "NAME\na [2Jb\ntwo\nlines \n");
    }
}

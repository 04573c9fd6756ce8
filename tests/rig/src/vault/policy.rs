//! Vault's ACL policies: the few forms of HCL that a policy uses, and which rule wins for a path.
//! The agent's policies are tested with it, so a rule that is too narrow fails on the model as it
//! does on a real server.

use std::collections::BTreeSet;

/// What the built-in `default` policy lets every token do, as far as an agent can meet it.
pub(super) const DEFAULT: &str = r#"
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }
"#;

#[derive(Debug, Clone)]
pub(super) struct Rule {
    path: String,
    capabilities: BTreeSet<String>,
}

/// Reads a policy; the error is Vault's sentence about it.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let tokens = tokenize(text)?;
    let mut rules = Vec::new();
    let mut rest = tokens.as_slice();
    while let Some((first, after)) = rest.split_first() {
        if first != "path" && first != "\"path" {
            return Err(format!("failed to parse policy: unknown keyword {first:?}"));
        }
        let (path, after) = string_of(after)?;
        let (block, after) = block_of(after)?;
        rules.push(Rule { path, capabilities: capabilities_of(block)? });
        rest = after;
    }
    Ok(rules)
}

/// Whether rules grant a capability on a path: the most specific path decides, and rules for the
/// same path add up unless one denies.
pub(super) fn allows(rules: &[Rule], path: &str, capability: &str) -> bool {
    let matching = rules.iter().filter(|rule| matches(&rule.path, path));
    let Some(best) = matching.map(|rule| rank(&rule.path)).max() else {
        return false;
    };
    let deciding =
        rules.iter().filter(|rule| matches(&rule.path, path) && rank(&rule.path) == best);
    let granted: BTreeSet<&str> =
        deciding.flat_map(|rule| rule.capabilities.iter().map(String::as_str)).collect();
    if granted.contains("deny") {
        return false;
    }
    granted.contains(capability)
}

fn matches(pattern: &str, path: &str) -> bool {
    let (body, glob) = match pattern.strip_suffix('*') {
        Some(body) => (body, true),
        None => (pattern, false),
    };
    if !body.contains('+') {
        return if glob { path.starts_with(body) } else { path == body };
    }
    let wanted: Vec<&str> = body.split('/').collect();
    let found: Vec<&str> = path.split('/').collect();
    if found.len() < wanted.len() || (!glob && found.len() != wanted.len()) {
        return false;
    }
    let last = wanted.len() - 1;
    wanted.iter().zip(&found).enumerate().all(|(index, (wanted, found))| {
        *wanted == "+" || wanted == found || (glob && index == last && found.starts_with(wanted))
    })
}

/// Vault's priority: a later first wildcard, then no trailing glob, then fewer `+`, then longer.
fn rank(pattern: &str) -> (usize, bool, std::cmp::Reverse<usize>, usize) {
    let first_wildcard = pattern.find(['+', '*']).unwrap_or(usize::MAX);
    let segments = pattern.split('/').filter(|segment| *segment == "+").count();
    let exact_end = !pattern.ends_with('*');
    (first_wildcard, exact_end, std::cmp::Reverse(segments), pattern.len())
}

/// Words, strings (kept with a leading quote) and punctuation; comments are dropped.
fn tokenize(text: &str) -> Result<Vec<String>, String> {
    let mut tokens = Vec::new();
    for line in text.lines() {
        let mut letters = line.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '#' => break,
                '/' if letters.peek() == Some(&'/') => break,
                '"' => {
                    let mut string = String::from("\"");
                    loop {
                        match letters.next() {
                            Some('"') => break,
                            Some(letter) => string.push(letter),
                            None => {
                                return Err("failed to parse policy: literal not terminated".into());
                            }
                        }
                    }
                    tokens.push(string);
                }
                letter if letter.is_whitespace() || letter == ',' => {}
                letter if letter.is_alphanumeric() || letter == '_' => {
                    let mut word = String::from(letter);
                    while let Some(next) = letters.peek().copied().filter(|c| is_word(*c)) {
                        word.push(next);
                        letters.next();
                    }
                    tokens.push(word);
                }
                punctuation => tokens.push(punctuation.to_string()),
            }
        }
    }
    Ok(tokens)
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn string_of(tokens: &[String]) -> Result<(String, &[String]), String> {
    match tokens.split_first() {
        Some((first, rest)) if first.starts_with('"') => Ok((first[1..].to_owned(), rest)),
        _ => Err("failed to parse policy: expected a string after \"path\"".into()),
    }
}

fn block_of(tokens: &[String]) -> Result<(&[String], &[String]), String> {
    if tokens.first().map(String::as_str) != Some("{") {
        return Err("failed to parse policy: object expected".into());
    }
    let end = tokens
        .iter()
        .position(|token| token == "}")
        .ok_or("failed to parse policy: object expected closing RBRACE")?;
    Ok((&tokens[1..end], &tokens[end + 1..]))
}

fn capabilities_of(block: &[String]) -> Result<BTreeSet<String>, String> {
    let words: Vec<&str> = block.iter().map(String::as_str).collect();
    let ["capabilities", "=", "[", inner @ .., "]"] = words.as_slice() else {
        return Err("failed to parse policy: invalid key in path block".into());
    };
    let names = inner.iter().map(|name| name.trim_start_matches('"').to_owned());
    names
        .map(|name| if KNOWN.contains(&name.as_str()) { Ok(name) } else { Err(unknown(&name)) })
        .collect()
}

const KNOWN: [&str; 9] =
    ["deny", "create", "read", "update", "delete", "list", "sudo", "patch", "subscribe"];

fn unknown(name: &str) -> String {
    format!("failed to parse policy: invalid capability {name:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(policy: &str, path: &str, capability: &str) -> bool {
        allows(&parse(policy).expect("policy parses"), path, capability)
    }

    #[test]
    fn the_most_specific_path_decides() {
        let policy = "path \"pki/*\" { capabilities = [\"update\"] }\n\
                      path \"pki/sign/admin\" { capabilities = [\"deny\"] } # no admin\n\
                      path \"+/sign/node\" { capabilities = [\"read\"] }";
        assert!(check(policy, "pki/sign/worker", "update"));
        assert!(!check(policy, "pki/sign/admin", "update"));
        assert!(check(policy, "pki/sign/node", "update"));
        assert!(check(policy, "etcd/sign/node", "read"));
        assert!(!check(policy, "etcd/sign/node/x", "read"));
    }

    #[test]
    fn a_policy_that_does_not_parse_says_why() {
        assert!(parse("path \"a\" { capabilities = [\"fly\"] }").is_err());
        assert!(parse("path \"a { }").is_err());
    }
}

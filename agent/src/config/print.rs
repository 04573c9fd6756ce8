//! The options as texts: the default file that is shipped (units/config.d/00-defaults.toml) and
//! the reference (docs/configuration.md). Both come from the tables of [`super::file`], so that
//! neither can tell of an option that is not there; the tidy test compares them with what is
//! checked in.

use super::file::{OPTIONS, OptionDoc, TABLES};

/// What the default file says before its first option.
const HEAD: &str = "\
# Every option of nodeagent with its default. This file is replaced at an upgrade: write what
# differs into a file of your own in /etc/nodeagent/config.d, like 50-site.toml.
#
# Directories, later ones win key by key; in each the files in the order of their names:
#   /usr/lib/nodeagent/config.d  /etc/nodeagent/config.d  /run/nodeagent/config.d
#
# `nodeagent check` prints every error at once. `systemctl reload nodeagent` takes up a change.
# An option without a value here has no default; docs/configuration.md says which are needed.
";

/// What the reference says before the tables.
const INTRODUCTION: &str = "\
# Configuration

Generated from `agent/src/config/file.rs` by `NODEAGENT_BLESS=1 cargo test -p nodeagent --test \
tidy`. Do not edit.

TOML files in `config.d`, read in this order; a later one wins, key by key:

1. the built-in catalogue of the node's role
2. `/usr/lib/nodeagent/config.d/*.toml`
3. `/etc/nodeagent/config.d/*.toml`
4. `/run/nodeagent/config.d/*.toml`

In each directory the files are read in the order of their names. An entry of `[[certificate]]`
or `[[consumer]]` changes the one with the same `name` in a layer below, and gives only what
differs. Unknown keys and wrong types are errors. `nodeagent check` prints every error with file
and line and exits with 78. `systemctl reload nodeagent` takes up a change; where the new
configuration is wrong, the old one stays in force.

Durations are written like `90s`, `30m`, `11h`. Paths are absolute.

`-` marks an option without a default. These have to be given: `node.role`, `vault.address`,
`vault.ca` for an `https` address, `mount` and `ca` of every authority that a certificate names,
and of a certificate of your own `name`, `consumer`, `pki`, `role`, `common_name`, `usage`. With
`[cluster]`: `cluster.api_server`, and on a controller `etcd.members` and `control_plane.image`.

Tables in tables, like `[control_plane.flags.kube-apiserver]`, merge key by key too. A list is
replaced as a whole. The flags of components are checked against those of Kubernetes 1.36; a flag
that would undo what the agent guarantees is refused with the reason.
";

/// What the reference says of the one table whose keys are the operator's own.
const VARIABLES: &str = "\
## `[variables]`

Texts of your own for templates: `api_server = \"api.example\"` is `{{api_server}}` in a name. The
catalogue of controllers asks for `api_server` (the name or address that clients reach the API by)
and `service_ip` (the first address of the service range). Both, and `dns_domain`, follow from
`[cluster]` where they are not given here; without `[cluster]` the first two have to be given.

Templates also know, from the identity that Vault has accepted: `{{instance_id}}`,
`{{private_ip}}`, `{{region}}`, `{{availability_zone}}`, `{{account_id}}`, `{{image_id}}`,
`{{instance_type}}`; and `{{cluster}}` from `[node]`.
";

/// The default file: every option, commented out, with its documentation and default.
pub fn default_file() -> String {
    let mut text = HEAD.to_string();
    for (table, doc) in TABLES {
        text.push('\n');
        lines(&mut text, "# ", doc);
        text.push_str(&format!("#{}\n", header(table)));
        for option in of(table) {
            lines(&mut text, "#   ", option.doc);
            // Every option without a default is a text.
            let value = if option.default.is_empty() { "\"\"" } else { option.default };
            text.push_str(&format!("#{} = {value}\n", option.key));
        }
    }
    text.push_str("\n# Texts for templates: api_server = \"api.example\" is {{api_server}}.\n");
    text.push_str("#[variables]\n");
    text
}

/// The reference: docs/configuration.md.
pub fn reference() -> String {
    let mut text = INTRODUCTION.to_string();
    for (table, doc) in TABLES {
        text.push_str(&format!("\n## `{}`\n\n", header(table)));
        lines(&mut text, "", doc);
        text.push_str("\n| option | default | is |\n| --- | --- | --- |\n");
        for option in of(table) {
            let default = match option.default {
                "" => "-".to_string(),
                default => format!("`{default}`"),
            };
            let doc = joined(option.doc);
            text.push_str(&format!("| `{}` | {default} | {doc} |\n", option.key));
        }
    }
    text.push('\n');
    text.push_str(VARIABLES);
    text
}

fn of(table: &str) -> impl Iterator<Item = &'static OptionDoc> {
    OPTIONS.iter().filter(move |option| option.table == table)
}

/// As TOML writes it: the two lists are arrays of tables.
fn header(table: &str) -> String {
    match table {
        "certificate" | "consumer" => format!("[[{table}]]"),
        table => format!("[{table}]"),
    }
}

fn lines(text: &mut String, prefix: &str, doc: &[&str]) {
    for line in doc {
        text.push_str(&format!("{prefix}{}\n", line.trim()));
    }
}

/// One cell of a table of Markdown.
fn joined(doc: &[&str]) -> String {
    let lines: Vec<_> = doc.iter().map(|line| line.trim()).collect();
    lines.join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::super::file::File;
    use super::*;

    /// The file with every option switched on.
    fn switched_on() -> String {
        let text = default_file();
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(code) if !code.starts_with(' ') => code,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_default_file_says_nothing_by_itself() {
        let table: toml::Table = default_file().parse().unwrap();
        assert!(table.is_empty(), "{table:?}");
    }

    #[test]
    fn switched_on_the_default_file_gives_every_option() {
        let text = switched_on();
        toml::from_str::<File>(&text).unwrap();
        let table: toml::Table = text.parse().unwrap();
        for option in OPTIONS {
            let mut value = &toml::Value::Table(table.clone());
            for part in option.table.split('.') {
                value = &value[part];
                value = value.get(0).unwrap_or(value);
            }
            assert!(value.get(option.key).is_some(), "{}.{}", option.table, option.key);
        }
    }

    #[test]
    fn the_reference_names_every_option_with_its_default() {
        let text = reference();
        for option in OPTIONS {
            let row = format!("| `{}` | ", option.key);
            assert!(text.contains(&row), "{row}");
            assert!(option.default.is_empty() || text.contains(&format!("`{}`", option.default)));
        }
    }
}

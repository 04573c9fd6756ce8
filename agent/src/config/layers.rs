//! The drop-ins, read and laid over each other.
//!
//! `/usr/lib`, then `/etc`, then `/run`, each `nodeagent/config.d/*.toml` in the order of the
//! names; below them the built-in catalogue of the role. A later layer wins key by key; the
//! entries of `[[certificate]]` and `[[consumer]]` are matched by their `name`. For every key the
//! place where it was last said is kept, so that an error can name file and line.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::Role;
use super::catalog;
use super::file::File;
use crate::backoff;
use crate::error::{plain, said};
use crate::host::files::Root;

/// The directories, lowest first.
pub const DIRECTORIES: [&str; 3] =
    ["/usr/lib/nodeagent/config.d", "/etc/nodeagent/config.d", "/run/nodeagent/config.d"];

/// A drop-in larger than this is none: a real one has a few KB.
const LIMIT: usize = 1 << 20;

/// What was read: the merged tables, and where each key was said.
#[derive(Debug)]
pub struct Layers {
    /// The merged tables.
    pub file: File,
    /// Tells one configuration from another.
    pub digest: String,
    origins: BTreeMap<String, String>,
}

impl Layers {
    /// `file:line: key`. A key that nobody said is placed at its table, where it is to be said, and
    /// stands alone where there is none.
    pub fn place(&self, key: &str) -> String {
        let mut said = Some(key);
        while let Some(path) = said {
            if let Some(origin) = self.origins.get(path) {
                return format!("{origin}: {key}");
            }
            said = path.rsplit_once('.').map(|(table, _)| table);
        }
        key.to_string()
    }
}

/// Reads all layers below a root; the error has a line for each fault.
pub fn read(root: &Root) -> Result<Layers, Vec<String>> {
    let texts = texts(root)?;
    let parsed: Vec<_> = texts.iter().map(|(name, text)| parse(name, text)).collect();
    let faults: Vec<String> = parsed.iter().filter_map(|p| p.as_ref().err().cloned()).collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut merge = Merge::default();
    let tables: Vec<toml::Table> = parsed.into_iter().flatten().collect();
    let role = tables
        .iter()
        .rev()
        .find_map(|table| table.get("node")?.get("role")?.clone().try_into::<Role>().ok());
    let in_cluster = tables.iter().any(|table| table.contains_key("cluster"));
    let catalogue = role.map(catalog::layers).unwrap_or_default().iter();
    let above = role.filter(|_| in_cluster).map(catalog::cluster_layers).unwrap_or_default();
    for (name, text) in catalogue.chain(above) {
        let table = parse(name, text).map_err(|fault| vec![fault])?;
        merge.add(name, text, table);
    }
    for ((name, text), table) in texts.iter().zip(tables) {
        merge.add(name, text, table);
    }
    let digest = backoff::hash(&texts.iter().map(|(_, text)| text.as_str()).collect::<String>());
    merge.finish().map(|layers| Layers { digest: format!("{digest:016x}"), ..layers })
}

fn texts(root: &Root) -> Result<Vec<(String, String)>, Vec<String>> {
    let mut texts = Vec::new();
    let mut faults = Vec::new();
    for directory in DIRECTORIES {
        let mut names = match root.list(Path::new(directory)) {
            Ok(entries) => entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>(),
            Err(error) => {
                faults.push(format!("{error:#}"));
                continue;
            }
        };
        names.retain(|name| name.ends_with(".toml") && !name.starts_with('.'));
        for name in names {
            let path = format!("{directory}/{name}");
            match root.read(Path::new(&path), LIMIT) {
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => texts.push((path, text)),
                    Err(error) => faults.push(format!(
                        "{path}: byte {} is not UTF-8; write the file in UTF-8",
                        error.utf8_error().valid_up_to()
                    )),
                },
                Err(error) => faults.push(format!("{error:#}")),
            }
        }
    }
    if texts.is_empty() && faults.is_empty() {
        faults.push(format!(
            "no configuration: no *.toml in {}; /usr/lib/nodeagent/config.d/00-defaults.toml shows \
             every option",
            DIRECTORIES.join(", ")
        ));
    }
    if faults.is_empty() { Ok(texts) } else { Err(faults) }
}

/// Parses one layer by itself, so that wrong types and unknown keys get the line of their file.
fn parse(name: &str, text: &str) -> Result<toml::Table, String> {
    let place = |error: &toml::de::Error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        format!("{name}:{line}: {}", said(&error.message()))
    };
    toml::from_str::<File>(text).map_err(|error| place(&error))?;
    text.parse::<toml::Table>().map_err(|error| place(&error))
}

/// Whether a key holds entries that are told apart by their names.
fn is_list(key: &str) -> bool {
    key == "certificate" || key == "consumer"
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

#[derive(Default)]
struct Merge {
    table: toml::Table,
    origins: BTreeMap<String, String>,
    faults: Vec<String>,
}

impl Merge {
    fn add(&mut self, name: &str, text: &str, table: toml::Table) {
        if let Ok(spanned) = DeTable::parse(text) {
            self.note(name, text, "", spanned.get_ref());
        }
        for (key, value) in table {
            match value {
                toml::Value::Array(entries) if is_list(&key) => {
                    self.add_entries(name, &key, entries);
                }
                value => lay(&mut self.table, key, value),
            }
        }
    }

    fn add_entries(&mut self, layer: &str, key: &str, entries: Vec<toml::Value>) {
        let mut seen = Vec::new();
        for entry in entries {
            // One without a name was noted as a fault, with its line.
            let Some(name) = entry.get("name").and_then(|name| name.as_str()).map(String::from)
            else {
                continue;
            };
            if seen.contains(&name) {
                self.faults.push(plain(&format!(
                    "{}: [[{key}]] `{name}` stands twice in one file; take one of them out",
                    self.origins.get(&format!("{key}.{name}.name")).map_or(layer, String::as_str)
                )));
            }
            let slot = self.table.entry(key).or_insert_with(|| toml::Value::Array(Vec::new()));
            if let toml::Value::Array(list) = slot {
                lay_entry(list, &name, entry);
            }
            seen.push(name);
        }
    }

    /// Keeps where each key was said last.
    fn note(&mut self, name: &str, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = match prefix {
                "" => key.get_ref().to_string(),
                prefix => format!("{prefix}.{}", key.get_ref()),
            };
            let origin = format!("{name}:{}", line_of(text, key.span().start));
            self.origins.insert(path.clone(), origin);
            match value.get_ref() {
                DeValue::Table(inner) => self.note(name, text, &path, inner),
                DeValue::Array(entries) => {
                    for spanned in entries {
                        let Some(entry) = spanned.get_ref().as_table() else { continue };
                        let id = entry.get("name").and_then(|id| id.get_ref().as_str());
                        if id.is_none() && is_list(&path) {
                            let line = line_of(text, spanned.span().start);
                            self.faults.push(format!(
                                "{name}:{line}: a [[{path}]] has no `name`; give it one"
                            ));
                        }
                        let path = format!("{path}.{}", id.unwrap_or("?"));
                        self.note(name, text, &path, entry);
                    }
                }
                _ => {}
            }
        }
    }

    fn finish(self) -> Result<Layers, Vec<String>> {
        let Merge { table, origins, mut faults } = self;
        match toml::Value::Table(table).try_into::<File>() {
            Ok(file) if faults.is_empty() => Ok(Layers { file, digest: String::new(), origins }),
            Ok(_) => Err(faults),
            Err(error) => {
                faults.push(said(&error.message()));
                Err(faults)
            }
        }
    }
}

/// Lays a value over a table: tables are merged, everything else is replaced.
fn lay(table: &mut toml::Table, key: String, value: toml::Value) {
    match (table.get_mut(&key), value) {
        (Some(toml::Value::Table(below)), toml::Value::Table(above)) => {
            for (key, value) in above {
                lay(below, key, value);
            }
        }
        (_, value) => {
            table.insert(key, value);
        }
    }
}

fn lay_entry(list: &mut Vec<toml::Value>, name: &str, entry: toml::Value) {
    let found = list
        .iter_mut()
        .find(|known| known.get("name").and_then(|known| known.as_str()) == Some(name));
    match (found, entry) {
        (Some(toml::Value::Table(below)), toml::Value::Table(above)) => {
            for (key, value) in above {
                lay(below, key, value);
            }
        }
        (_, entry) => list.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::new(directory.path());
        (directory, root)
    }

    #[test]
    fn later_directories_and_later_names_win_key_by_key() {
        let (_keep, root) = root(&[
            ("/run/nodeagent/config.d/10.toml", "[vault]\nnamespace = \"run\"\n"),
            ("/etc/nodeagent/config.d/20.toml", "[vault]\naddress = \"late\"\n"),
            ("/etc/nodeagent/config.d/10.toml", "[vault]\naddress = \"early\"\nca = \"ca\"\n"),
            ("/usr/lib/nodeagent/config.d/99.toml", "[vault]\nca = \"low\"\nnamespace = \"n\"\n"),
        ]);
        let layers = read(&root).unwrap();
        let vault = &layers.file.vault;
        assert_eq!(vault.address.as_deref(), Some("late"));
        assert_eq!(vault.ca.as_deref(), Some("ca"));
        assert_eq!(vault.namespace.as_deref(), Some("run"));
        assert_eq!(layers.place("vault.ca"), "/etc/nodeagent/config.d/10.toml:3: vault.ca");
    }

    #[test]
    fn an_entry_of_the_catalogue_is_changed_by_name() {
        let (_keep, root) = root(&[(
            "/etc/nodeagent/config.d/10.toml",
            "[node]\nrole = \"worker\"\n[[certificate]]\nname = \"kubelet-server\"\nttl = \"2h\"\n",
        )]);
        let layers = read(&root).unwrap();
        assert_eq!(layers.file.certificate.len(), 2);
        let server = &layers.file.certificate[0];
        assert_eq!(server.ttl.as_deref(), Some("2h"));
        assert_eq!(server.usage.as_deref(), Some("server"));
        let place = layers.place("certificate.kubelet-server.ttl");
        assert!(place.starts_with("/etc/nodeagent/config.d/10.toml:5:"), "{place}");
    }

    #[test]
    fn every_file_with_a_fault_is_named_with_its_line() {
        let (_keep, root) = root(&[
            ("/etc/nodeagent/config.d/10.toml", "[vault]\n\nadress = \"x\"\n"),
            ("/etc/nodeagent/config.d/20.toml", "[rotation]\nissues_per_hour = \"six\"\n"),
            ("/etc/nodeagent/config.d/30.toml", "[vault\n"),
        ]);
        let faults = read(&root).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:#?}");
        assert!(faults[0].starts_with("/etc/nodeagent/config.d/10.toml:3: unknown field `adress`"));
        assert!(faults[1].starts_with("/etc/nodeagent/config.d/20.toml:2: invalid type"));
        assert!(faults[2].starts_with("/etc/nodeagent/config.d/30.toml:1:"));
    }

    #[test]
    fn an_entry_without_a_name_is_told_with_its_line() {
        let (_keep, root) = root(&[(
            "/etc/nodeagent/config.d/10.toml",
            "[[consumer]]\nname = \"a\"\n\n[[consumer]]\ngroup = \"b\"\n[[consumer]]\n",
        )]);
        let faults = read(&root).unwrap_err();
        let place = "/etc/nodeagent/config.d/10.toml";
        let advice = "a [[consumer]] has no `name`; give it one";
        assert_eq!(faults, [4, 6].map(|line| format!("{place}:{line}: {advice}")));
    }

    #[test]
    fn what_nobody_said_is_placed_at_the_table_where_it_is_to_be_said() {
        let text = "[node]\nrole = \"worker\"\n[pki.odd_name]\nmount = \"pki\"\n";
        let (_keep, root) = root(&[("/etc/nodeagent/config.d/10.toml", text)]);
        let layers = read(&root).unwrap();
        let place = |key| layers.place(key);
        assert_eq!(
            place("pki.odd_name.name"),
            "/etc/nodeagent/config.d/10.toml:3: pki.odd_name.name"
        );
        assert_eq!(place("vault.address"), "vault.address");
    }

    #[test]
    fn a_fault_is_one_line_whatever_it_quotes() {
        let (_keep, root) = root(&[
            ("/etc/nodeagent/config.d/10.toml", "\"a\\nb\\u001b\" = 1\n"),
            ("/etc/nodeagent/config.d/20.toml", "[node]\nrole = \"worker\"\n"),
        ]);
        let faults = read(&root).unwrap_err();
        assert!(!faults[0].contains(char::is_control), "{faults:?}");
    }

    #[test]
    fn two_entries_of_one_name_in_one_file_are_refused() {
        let (_keep, root) = root(&[(
            "/etc/nodeagent/config.d/10.toml",
            "[[consumer]]\nname = \"a\"\n[[consumer]]\nname = \"a\"\n",
        )]);
        assert!(read(&root).unwrap_err()[0].contains("stands twice"));
    }
}

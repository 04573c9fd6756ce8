//! From a directory of manifests to a set of objects, without a network. Whatever cannot be
//! understood becomes a fault with its file, document and line, and never hides the rest: the
//! documents of one file are parsed apart. YAML means here what it means to kubectl (octal
//! `0644`, YAML 1.1 booleans), so that a manifest tried by hand does the same on a node.

mod split;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ring::digest::{Context, SHA256};
use serde_json::{Map, Value};

use super::{Key, NAMESPACE, group, inventory, order};
use crate::host::files::{FileKind, Root};
use split::{Document, documents};

/// The API takes no object above 1.5 MiB, the largest files of many objects seen have 4 MiB.
const FILE_LIMIT: usize = 8 << 20;

/// Twenty times the add-ons of any predecessor.
const FILES: usize = 512;

/// As many as an inventory of one ConfigMap can name, with names of the usual length.
const OBJECTS: usize = 2048;

/// A list of lists of lists is nobody's manifest.
const NESTING: usize = 3;

/// What the server owns; it refuses or misreads them in what is applied.
const SERVERS_OWN: [&str; 6] =
    ["creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"];

/// One object of a set, with where it came from.
#[derive(Clone, PartialEq)]
pub struct Asset {
    /// Where it stands: `dns.yaml document 3 (line 41)`.
    pub source: String,
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its `kind`.
    pub kind: String,
    /// Its namespace, where the manifest names one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The whole object, as it is to be applied.
    pub object: Value,
}

/// A part of the set that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it stands: a file, or a document of it with its line.
    pub source: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { source, reason } = self;
        write!(f, "{source}: {reason}")
    }
}

/// The objects of a directory in the order in which they are applied, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// The objects, each once.
    pub objects: Vec<Asset>,
    /// What could not be used. While there is any nothing is pruned.
    pub faults: Vec<Fault>,
    /// The directory, where no file in it is a manifest. Nothing is pruned then either: so is a
    /// place where nothing is mounted yet, and one that is being filled anew.
    pub empty: Option<String>,
    /// SHA-256 of the content, the same however it is written or cut into files.
    pub digest: String,
}

/// The object may be a Secret.
impl fmt::Debug for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asset({} of {})", self.key(), self.source)
    }
}

impl Asset {
    /// Which object of the cluster it is.
    pub fn key(&self) -> Key {
        Key {
            group: group(&self.api_version).to_owned(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone().unwrap_or_else(|| NAMESPACE.to_owned()),
            name: self.name.clone(),
        }
    }
}

/// Reads the manifests that lie directly in `directory` (`*.yaml`, `*.yml`, `*.json`, no hidden
/// ones), after the objects that are built in.
pub fn read(root: &Root, directory: Option<&Path>, builtin: Vec<Value>) -> Set {
    let mut reader = Reader::default();
    for (index, value) in builtin.into_iter().enumerate() {
        reader.take(&format!("built-in object {}", index + 1), value, NESTING);
    }
    if let Some(directory) = directory {
        reader.directory(root, directory);
    }
    reader.finish()
}

/// Collects objects and faults; an object that comes twice is a fault at both places.
#[derive(Default)]
struct Reader {
    objects: Vec<Asset>,
    seen: BTreeMap<Key, String>,
    faults: Vec<Fault>,
    empty: Option<String>,
}

impl Reader {
    fn fault(&mut self, source: &str, reason: impl Into<String>) {
        self.faults.push(Fault { source: source.to_owned(), reason: reason.into() });
    }

    fn directory(&mut self, root: &Root, directory: &Path) {
        let place = directory.display().to_string();
        match root.stat(directory) {
            Err(error) => return self.fault(&place, format!("{error:#}")),
            Ok(None) => {
                // An empty answer here would prune everything that was applied before.
                let reason = "there is no such directory; make it, or take `assets` out of the \
                              configuration";
                return self.fault(&place, reason);
            }
            Ok(Some(_)) => {}
        }
        let entries = match root.list(directory) {
            Err(error) => return self.fault(&place, format!("{error:#}")),
            Ok(entries) => entries,
        };
        let mut files: Vec<_> = entries
            .iter()
            .filter(|entry| entry.stat.kind != FileKind::Directory && is_manifest(&entry.name))
            .map(|entry| entry.name.as_str())
            .collect();
        if files.is_empty() {
            self.empty = Some(place);
            return;
        }
        if files.len() > FILES {
            let reason = format!("{} manifests; at most {FILES} are read: join some", files.len());
            self.fault(&place, reason);
            files.truncate(FILES);
        }
        for file in files {
            self.file(root, &directory.join(file), file);
        }
    }

    fn file(&mut self, root: &Root, path: &Path, name: &str) {
        let bytes = match root.read(path, FILE_LIMIT) {
            Err(error) => return self.fault(name, format!("{error:#}")),
            Ok(bytes) => bytes,
        };
        let Ok(text) = String::from_utf8(bytes) else {
            return self.fault(name, "is not UTF-8 text; save it as UTF-8");
        };
        if text.trim().is_empty() {
            // What a crash leaves of a file that was being written; not what a person means.
            return self.fault(name, "is empty; remove the file if it is to hold nothing");
        }
        for Document { number, line, content } in documents(name, &text) {
            let source = format!("{name} document {number} (line {line})");
            match content {
                Ok(value) => self.take(&source, value, NESTING),
                Err(reason) => self.fault(&source, reason),
            }
        }
    }

    /// Takes one object, or all those of a list.
    fn take(&mut self, source: &str, value: Value, depth: usize) {
        let Value::Object(object) = value else {
            return self.fault(source, format!("is {}, not an object", sort(&value)));
        };
        let kind = match text(&object, "kind") {
            Ok(kind) => kind,
            Err(reason) => return self.fault(source, reason),
        };
        match (kind.strip_suffix("List"), object.get("items")) {
            (Some(_), Some(Value::Array(_))) if depth == 0 => {
                self.fault(source, format!("lists nest deeper than {NESTING}; take one out"));
            }
            (Some(of), Some(Value::Array(_))) => self.list(source, of, object, depth - 1),
            _ => self.single(source, object, kind),
        }
    }

    /// The items of a typed list may leave out what the list says of them.
    fn list(&mut self, source: &str, of: &str, mut list: Map<String, Value>, depth: usize) {
        let version = list.get("apiVersion").cloned();
        let Some(Value::Array(items)) = list.remove("items") else {
            return;
        };
        for (index, mut item) in items.into_iter().enumerate() {
            if let (Value::Object(item), Some(version), false) =
                (&mut item, &version, of.is_empty())
            {
                item.entry("apiVersion").or_insert_with(|| version.clone());
                item.entry("kind").or_insert_with(|| of.into());
            }
            self.take(&format!("{source}, item {}", index + 1), item, depth);
        }
    }

    fn single(&mut self, source: &str, mut object: Map<String, Value>, kind: String) {
        let known = described(&mut object);
        let (api_version, namespace, name) = match known {
            Ok(known) => known,
            Err(reason) => return self.fault(source, reason),
        };
        let source = source.to_owned();
        let object = Value::Object(object);
        let asset = Asset { source, api_version, kind, namespace, name, object };
        if self.objects.len() >= OBJECTS {
            let reason = format!("at most {OBJECTS} objects are applied; this is one too many");
            return self.fault(&asset.source, reason);
        }
        if asset.key() == inventory::key() {
            let reason =
                format!("{} is where the agent keeps its inventory; rename it", asset.key());
            return self.fault(&asset.source, reason);
        }
        match self.seen.get(&asset.key()).cloned() {
            Some(first) => self.fault(
                &asset.source,
                format!("{} is in {first} already; keep one of the two", asset.key()),
            ),
            None => {
                self.seen.insert(asset.key(), asset.source.clone());
                self.objects.push(asset);
            }
        }
    }

    fn finish(mut self) -> Set {
        order::sort(&mut self.objects);
        let digest = self.digest();
        Set { objects: self.objects, faults: self.faults, empty: self.empty, digest }
    }

    /// The keys of a map are sorted whatever a library's features make of them. A directory that
    /// holds nothing is another set than one whose files say that there is nothing, and what comes
    /// or goes with a fault alone is another set too: it is to be told, or told no more.
    fn digest(&self) -> String {
        let objects = self.objects.iter();
        let mut sorted: Vec<_> = objects.map(|asset| (asset.key(), &asset.object)).collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let mut context = Context::new(&SHA256);
        for (_, object) in sorted {
            feed(&mut context, object);
            context.update(b"\n");
        }
        if self.empty.is_some() {
            context.update(b"no manifest");
        }
        for fault in &self.faults {
            context.update(format!("{fault}\n").as_bytes());
        }
        context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn is_manifest(name: &str) -> bool {
    let known = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
    known && !name.starts_with('.')
}

/// Version, namespace and name of an object, which loses what is the server's.
fn described(object: &mut Map<String, Value>) -> Result<(String, Option<String>, String), String> {
    let api_version = text(object, "apiVersion")?;
    let metadata = match object.get_mut("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(other) => return Err(format!("its metadata is {}, not a map", sort(other))),
        None => return Err("has no metadata; an object needs a metadata.name".into()),
    };
    for own in SERVERS_OWN {
        metadata.remove(own);
    }
    if metadata.get("generateName").is_some_and(|name| !name.is_null()) {
        return Err(
            "has a generateName: every pass would make another object; give it a name".into()
        );
    }
    let name = text(metadata, "name").map_err(|reason| format!("metadata: {reason}"))?;
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => None,
        Some(_) => {
            Some(text(metadata, "namespace").map_err(|reason| format!("metadata: {reason}"))?)
        }
    };
    Ok((api_version, namespace, name))
}

/// The longest name of an object (RFC 1123, as Kubernetes has it), which no kind or group exceeds.
const LONGEST: usize = 253;

/// A text that has to be there. The name becomes part of a path, so it may not lead elsewhere, and
/// of a line that people read.
fn text(map: &Map<String, Value>, field: &str) -> Result<String, String> {
    match map.get(field) {
        Some(Value::String(text)) if text.is_empty() => Err(format!("its {field} is empty")),
        Some(Value::String(text)) if text.len() > LONGEST => {
            Err(format!("its {field} has {} bytes; {LONGEST} is the most", text.len()))
        }
        Some(Value::String(text)) if text.contains(char::is_control) => {
            let start: String = text.chars().take(60).flat_map(char::escape_debug).collect();
            Err(format!("its {field} `{start}` holds control characters"))
        }
        Some(Value::String(text)) if field != "apiVersion" && text.contains(['/', '%']) => {
            Err(format!("its {field} `{text}` holds a `/` or `%`"))
        }
        Some(Value::String(text)) if text == "." || text == ".." => {
            Err(format!("its {field} is `{text}`"))
        }
        Some(Value::String(text)) => Ok(text.clone()),
        None | Some(Value::Null) => Err(format!("has no {field}")),
        Some(other) => Err(format!("its {field} is {}, not a text; quote it", sort(other))),
    }
}

fn sort(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

fn feed(context: &mut Context, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            context.update(b"{");
            for key in keys {
                feed(context, &Value::from(key.as_str()));
                context.update(b":");
                feed(context, &map[key]);
                context.update(b",");
            }
            context.update(b"}");
        }
        Value::Array(items) => {
            context.update(b"[");
            for item in items {
                feed(context, item);
                context.update(b",");
            }
            context.update(b"]");
        }
        scalar => context.update(scalar.to_string().as_bytes()),
    }
}

#[cfg(test)]
#[path = "read/tests.rs"]
mod tests;

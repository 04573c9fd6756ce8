//! HCL as far as these tests read it: the blocks of a formatted file, which begin and end at the
//! left margin.

use std::path::Path;

use rig::terraform::files_below;

/// A block at the top of a file.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The directory of its file, below what was read.
    pub(super) module: String,
    pub(super) place: String,
    /// `variable`, `resource`, …
    pub(super) kind: String,
    /// One for a variable, two for a resource.
    pub(super) labels: Vec<String>,
    pub(super) body: String,
}

impl Block {
    /// As Terraform refers to it.
    pub(super) fn reference(&self) -> String {
        let labels = self.labels.join(".");
        match self.kind.as_str() {
            "variable" => format!("var.{labels}"),
            "resource" => labels,
            kind => format!("{kind}.{labels}"),
        }
    }

    /// Whether an argument stands in the block itself, and not in one inside.
    pub(super) fn has(&self, name: &str) -> bool {
        self.body.lines().any(|line| {
            let argument = line.strip_prefix("  ").filter(|line| !line.starts_with(' '));
            argument.is_some_and(|line| line.split(['=', ' ']).next() == Some(name))
        })
    }

    /// How many rules it has that Terraform checks.
    pub(super) fn rules(&self) -> usize {
        let begins = ["validation {", "precondition {", "postcondition {", "assert {"];
        self.body.lines().filter(|line| begins.contains(&line.trim())).count()
    }
}

/// The blocks of all files with this ending below a directory.
pub(super) fn blocks(directory: &Path, ending: &str) -> Vec<Block> {
    let files = files_below(directory).expect("the files are read");
    let files = files.iter().filter(|path| path.to_string_lossy().ends_with(ending));
    files.flat_map(|path| blocks_of(directory, path)).collect()
}

fn blocks_of(directory: &Path, path: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(path).expect("the file is read");
    let place = path.strip_prefix(directory).expect("it is below");
    let module = place.parent().unwrap_or(Path::new("")).display().to_string();
    let place = place.display().to_string();
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let begins = !open && line.starts_with(|c: char| c.is_ascii_lowercase());
        if begins && (line.ends_with('{') || line.ends_with('}')) {
            let mut words = line.split('{').next().unwrap_or_default().split_whitespace();
            let kind = words.next().unwrap_or_default().to_owned();
            let labels = words.map(|word| word.trim_matches('"').to_owned()).collect();
            let (module, place) = (module.clone(), place.clone());
            found.push(Block { module, place, kind, labels, body: String::new() });
            open = line.ends_with('{');
        } else if open && line == "}" {
            open = false;
        } else if let (true, Some(block)) = (open, found.last_mut()) {
            block.body.push_str(line);
            block.body.push('\n');
        }
    }
    found
}

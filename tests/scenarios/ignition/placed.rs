//! User-data as the real Ignition understands it: fetched, unpacked, and nothing left to guess.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::play::text_of;

/// What Ignition would place.
pub(super) struct Placed {
    /// How many bytes the user-data has.
    pub(super) bytes: usize,
    config: Value,
}

impl Placed {
    /// Has Ignition fetch the user-data from a file, which it does like from EC2 but for the way
    /// there, and keep what it understood.
    pub(super) fn read(ignition: &Path, user_data: &str) -> Placed {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("user-data"), user_data).expect("it is written");
        let argument = |name: &str| format!("--{name}={}", at(name).display());
        let mut command = Command::new(ignition);
        command.args(["--platform=file", "--stage=fetch", "--log-to-stdout"]);
        command.args(["root", "config-cache", "state-file", "neednet"].map(argument));
        command.env("IGNITION_CONFIG_FILE", at("user-data"));
        let output = command.output().expect("ignition runs");
        let said = text_of(&output);
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("WARNING") && !said.contains("deprecated"), "{said}");
        let config = std::fs::read(at("config-cache")).expect("it is kept");
        let config = serde_json::from_slice(&config).expect("it is JSON");
        Placed { bytes: user_data.len(), config }
    }

    fn list(&self, part: &str) -> &[Value] {
        self.config.pointer(part).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The text of a file.
    pub(super) fn text(&self, path: &str) -> String {
        let mut files = self.list("/storage/files").iter();
        let file = files.find(|file| file["path"] == path);
        let file = file.unwrap_or_else(|| panic!("{path} is not placed"));
        embedded(file).unwrap_or_else(|| panic!("{path} is fetched"))
    }

    /// The units and drop-ins, by their path below a directory of units.
    pub(super) fn unit_files(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for unit in self.list("/systemd/units") {
            let name = unit["name"].as_str().unwrap_or_default();
            files.extend(unit["contents"].as_str().map(|text| (name.to_owned(), text.to_owned())));
            for drop_in in unit["dropins"].as_array().into_iter().flatten() {
                let text = |key: &str| drop_in[key].as_str().unwrap_or_default();
                files.push((format!("{name}.d/{}", text("name")), text("contents").to_owned()));
            }
        }
        files
    }

    /// A root with the files that need no fetching.
    pub(super) fn unpack(&self) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for file in self.list("/storage/files") {
            if let Some(text) = embedded(file) {
                let path = root.path().join(path_of(file).trim_start_matches('/'));
                std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
                std::fs::write(path, text).expect("it is written");
            }
        }
        root
    }

    /// What is placed, as a person reads it. Certificates differ from run to run, and units are
    /// read in units/.
    pub(super) fn told(&self) -> String {
        let mut told = String::new();
        let mut line = |text: String| writeln!(told, "{text}").expect("a text takes everything");
        for file in self.list("/storage/files") {
            let source = file["contents"]["source"].as_str().unwrap_or_default();
            line(format!("file {} {:04o}", path_of(file), file["mode"].as_u64().unwrap_or(0)));
            match embedded(file) {
                None => {
                    let hash = file["contents"]["verification"]["hash"].as_str().unwrap_or("none");
                    line(format!("    from {source}\n    {}…", &hash[..hash.len().min(23)]));
                }
                Some(text) if text.starts_with("-----BEGIN") => {
                    let count = text.matches("-----BEGIN CERTIFICATE-----").count();
                    line(format!("    {count} certificates"));
                }
                Some(text) => text.lines().for_each(|text| {
                    line(format!("    {text}").trim_end().to_owned());
                }),
            }
        }
        for link in self.list("/storage/links") {
            line(format!("link {} -> {}", path_of(link), link["target"].as_str().unwrap_or("")));
        }
        for unit in self.list("/systemd/units") {
            let enabled = if unit["enabled"] == true { ", enabled" } else { "" };
            let whole = if unit["contents"].is_string() { "" } else { ", its drop-ins alone" };
            line(format!("unit {}{enabled}{whole}", unit["name"].as_str().unwrap_or("")));
            for drop_in in unit["dropins"].as_array().into_iter().flatten() {
                line(format!("    {}", drop_in["name"].as_str().unwrap_or("")));
            }
        }
        told
    }
}

fn path_of(entry: &Value) -> String {
    entry["path"].as_str().unwrap_or_default().to_owned()
}

/// The text of a file whose data are in the configuration itself.
fn embedded(file: &Value) -> Option<String> {
    let source = file["contents"]["source"].as_str()?;
    let bytes = match source.strip_prefix("data:;base64,") {
        Some(text) => BASE64_STANDARD.decode(text).expect("base64"),
        None => unescaped(source.strip_prefix("data:,")?),
    };
    Some(String::from_utf8(bytes).expect("placed texts are UTF-8"))
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).expect("two digits"));
        bytes.extend(rest.bytes());
    }
    bytes
}

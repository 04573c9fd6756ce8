//! The real Terraform on a copy of what packaging/terraform ships: nothing is written beside the
//! sources, and a test may plant faults. There is no network: the AWS provider is stood in for by
//! one that knows its schemas (tests/peers/aws-schema).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::peer::process::find;

const SHIPPED: &str = "../../packaging/terraform";
const USER_DATA: &str = "aws/modules/user-data";
/// The prefix of the AWS provider's types.
const OF_AWS: &str = "aws_";

/// A copy of packaging/terraform, and the program that is run on it.
#[derive(Debug)]
pub struct Terraform {
    program: PathBuf,
    copy: TempDir,
}

/// What nodes of a role are launched with.
#[derive(Clone, Debug)]
pub struct UserData {
    /// As EC2 gives it to the instance.
    pub text: String,
    /// How many bytes the module says it has.
    pub bytes: usize,
}

impl Terraform {
    /// A fresh copy, or what is missing.
    pub fn copy() -> Result<Self, String> {
        let program = find("terraform", "terraform")?;
        let copy = tempfile::tempdir().map_err(|error| error.to_string())?;
        copy_tree(&shipped(), copy.path())?;
        Ok(Self { program, copy })
    }

    /// Lets it use the schemas of the AWS provider, or says that there are none.
    pub fn with_aws(self) -> Result<Self, String> {
        let provider = find("aws-schema", "terraform-provider-aws")?;
        let directory = provider.parent().unwrap_or(Path::new("/")).display();
        let instead = format!("dev_overrides {{ \"hashicorp/aws\" = \"{directory}\" }}");
        write(&self.settings(), &format!("provider_installation {{\n  {instead}\n}}\n"))?;
        Ok(self)
    }

    /// Where the copy is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.copy.path()
    }

    fn settings(&self) -> PathBuf {
        self.path().join("terraform.tfrc")
    }

    /// Runs `terraform ARGUMENTS` in a directory of the copy.
    pub fn run(&self, place: &str, arguments: &[&str]) -> Result<Output, String> {
        let mut command = Command::new(&self.program);
        command.current_dir(self.path().join(place)).args(arguments).env_clear();
        // It asks its maker for a newer version otherwise.
        command.env("CHECKPOINT_DISABLE", "1").env("TF_IN_AUTOMATION", "1");
        command.env("HOME", self.path());
        let settings = self.settings();
        if settings.is_file() {
            command.env("TF_CLI_CONFIG_FILE", settings);
            command.env("AWS_SCHEMA_TYPES", self.types()?);
        }
        command.output().map_err(|error| format!("{}: {error}", self.program.display()))
    }

    /// The same for a command that has to succeed: what it prints, or what it says against it.
    pub fn succeed(&self, place: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.run(place, arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stdout) + &text(&output.stderr)),
        }
    }

    /// The provider offers the types that the copy names, and none of the other fifteen hundred:
    /// decoding those is most of what Terraform does in a test.
    fn types(&self) -> Result<String, String> {
        let mut types = BTreeSet::new();
        for path in files_below(self.path())? {
            let kind = path.extension().and_then(|extension| extension.to_str());
            if !matches!(kind, Some("tf" | "hcl")) {
                continue;
            }
            let text = read(&path)?;
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            types.extend(words.filter(|word| word.starts_with(OF_AWS)).map(str::to_owned));
        }
        Ok(types.into_iter().collect::<Vec<_>>().join(" "))
    }

    /// Changes a text of the copy: each pair is what is there once at least, and what it becomes.
    pub fn plant(&self, place: &str, changes: &[(&str, &str)]) -> Result<(), String> {
        let path = self.path().join(place);
        let mut text = read(&path)?;
        for (from, to) in changes {
            if !text.contains(from) {
                return Err(format!("{place} has no {from:?} to change"));
            }
            text = text.replace(from, to);
        }
        write(&path, &text)
    }
}

/// What the module makes of its inputs, or what Terraform says against them.
pub fn render_user_data(inputs: &Value) -> Result<UserData, String> {
    let terraform = Terraform::copy()?;
    let values = terraform.path().join(USER_DATA).join("terraform.tfvars.json");
    write(&values, &inputs.to_string())?;
    terraform.succeed(USER_DATA, &["init", "-input=false", "-no-color"])?;
    let apply = ["apply", "-input=false", "-auto-approve", "-no-color"];
    terraform.succeed(USER_DATA, &apply)?;
    let printed = terraform.succeed(USER_DATA, &["output", "-json"])?;
    let outputs: Value = serde_json::from_str(&printed).map_err(|error| error.to_string())?;
    let text = outputs["user_data"]["value"].as_str().map(str::to_owned);
    let bytes = outputs["user_data_bytes"]["value"].as_u64().and_then(|n| usize::try_from(n).ok());
    let (Some(text), Some(bytes)) = (text, bytes) else {
        return Err(format!("the outputs lack user_data or user_data_bytes: {printed}"));
    };
    Ok(UserData { text, bytes })
}

/// packaging/terraform of this repository.
#[must_use]
pub fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(SHIPPED)
}

/// All files below a directory but what Terraform itself leaves there (`.terraform…`), in order.
pub fn files_below(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).map_err(|error| at(directory, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| at(directory, &error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(".terraform") || name.starts_with("terraform.tfstate") {
            continue;
        }
        match path.is_dir() {
            true => found.extend(files_below(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), String> {
    for path in files_below(from)? {
        let target = to.join(path.strip_prefix(from).map_err(|error| error.to_string())?);
        let directory = target.parent().unwrap_or(to);
        fs::create_dir_all(directory).map_err(|error| at(directory, &error))?;
        fs::copy(&path, &target).map_err(|error| at(&path, &error))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| at(path, &error))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| at(path, &error))
}

fn at(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

//! Whether the simulation notices a broken agent: for each invariant there is a change of the
//! agent's code in `tests/mutations` that breaks it. All are applied to a copy of the tree, where
//! each sleeps until its name is in NODEAGENT_MUTATION, so that one build does for all. Then, for
//! each, nodes live one after the other until that invariant breaks; and some live with none awake.
//!
//! `tests/bench mutations WORD` tries those whose file name has the word. A mutation that no longer
//! applies is an error that names it: the code that it breaks was changed, and so must it be.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jiff::Timestamp;

/// The test that lives a node.
const TEST: &str = "simulation::nodes_keep_every_invariant_through_months_of_faults";

/// How a line begins that tells of a broken invariant.
const LIFE: &str = "NODEAGENT_SEED=";

/// The first seed; the same for all, so that a run can be repeated.
const SEED: u64 = 20_261_129;

/// What a life begins with and how long it is: as in the simulation.
const BIRTH: &str = "2027-03-01T00:00:00Z";
const DAYS_OF_LIFE: f64 = 50.0;

/// A mutation that has not broken its invariant after so many lives goes unnoticed.
const LIVES: u64 = 40;

/// What is not copied: what is built, and what Git keeps.
const LEFT: [&str; 2] = ["target", ".git"];

/// Lives with no mutation awake: what they break, the mutations have not broken.
const CONTROLS: u64 = 4;

/// Tries them all.
pub(crate) fn run(word: Option<&str>) -> Result<(), String> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no project")?;
    let tree = Tree::copied(project)?;
    let mutations = Mutation::all(&project.join("tests/mutations"))?;
    mutations.iter().try_for_each(|mutation| tree.apply(mutation))?;
    let test = tree.build()?;
    for life in 0..CONTROLS {
        let broken = lived(&test, "", SEED + life)?;
        if let Some((at, what)) = broken.first() {
            return Err(format!("no mutation is awake, and at {at} it broke: {what}"));
        }
    }
    println!("| mutation | breaks | node-days until then |\n| --- | --- | --- |");
    let is_meant = |mutation: &&Mutation| word.is_none_or(|word| mutation.name.contains(word));
    let (mut caught, mut all) = (0, 0);
    for mutation in mutations.iter().filter(is_meant) {
        all += 1;
        let (what, breaks) = (&mutation.what, &mutation.breaks);
        match days_until_broken(&test, mutation)? {
            Ok(days) => {
                caught += 1;
                println!("| {what} | {breaks} | {days:.1} |");
            }
            Err(others) => println!("| {what} | NOT {breaks}, but {others:?} | - |"),
        }
    }
    println!("FIGURE mutations_caught={caught} of {all}");
    (caught == all).then_some(()).ok_or_else(|| format!("{} went unnoticed", all - caught))
}

/// A change of the agent's code.
struct Mutation {
    name: String,
    path: PathBuf,
    /// In a sentence.
    what: String,
    /// The invariant that has to break.
    breaks: String,
}

impl Mutation {
    fn all(dir: &Path) -> Result<Vec<Mutation>, String> {
        let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let paths = entries.flatten().map(|entry| entry.path());
        let patches = paths.filter(|path| path.extension().is_some_and(|end| end == "patch"));
        let mut all = patches.map(Mutation::read).collect::<Result<Vec<_>, _>>()?;
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// The first line says what it does, the second what that breaks.
    fn read(path: PathBuf) -> Result<Mutation, String> {
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let mut lines = text.lines();
        let what = lines.next().unwrap_or_default().to_owned();
        let breaks = lines.next().and_then(|line| line.strip_prefix("Breaks: "));
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // The number is the invariant's place in the list.
        let name = name.split_once('-').map_or(name.clone(), |(_, name)| name.to_owned());
        let breaks = breaks.ok_or_else(|| format!("{name} does not say what it breaks"))?;
        Ok(Mutation { breaks: breaks.to_owned(), what, name, path })
    }
}

/// A copy of the project, built into a directory of its own: in the project's, cargo would take
/// what it made of the copy for what it had made of the project.
struct Tree {
    dir: PathBuf,
    target: PathBuf,
}

impl Tree {
    fn copied(project: &Path) -> Result<Tree, String> {
        let top = project.join("target/mutations");
        let (dir, target) = (top.join("tree"), top.join("build"));
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        for entry in std::fs::read_dir(project).map_err(|error| error.to_string())?.flatten() {
            if LEFT.iter().all(|left| entry.file_name() != *left) {
                done(Command::new("cp").arg("-a").arg(entry.path()).arg(&dir))?;
            }
        }
        Ok(Tree { dir, target })
    }

    fn apply(&self, mutation: &Mutation) -> Result<(), String> {
        let mut git = Command::new("git");
        // The copy lies within a repository and is none of its files.
        git.current_dir(&self.dir)
            .env("GIT_CEILING_DIRECTORIES", self.dir.parent().unwrap_or(&self.dir));
        let applied = done(git.args(["apply", "--whitespace=nowarn"]).arg(&mutation.path));
        applied.map(drop).map_err(|error| {
            format!("{} no longer applies; make it anew:\n{error}", mutation.path.display())
        })
    }

    /// The simulation as a program.
    fn build(&self) -> Result<PathBuf, String> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(&self.dir).env("CARGO_TARGET_DIR", &self.target);
        cargo.args(["test", "--quiet", "--package", "nodeagent", "--test", "scenarios"]);
        cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]);
        let told = String::from_utf8_lossy(&done(&mut cargo)?.stdout).into_owned();
        let field = "\"executable\":\"";
        let paths = told.lines().filter_map(|line| line.split_once(field)?.1.split('"').next());
        let test = paths.into_iter().find(|path| path.contains("/scenarios-"));
        test.map(PathBuf::from).ok_or_else(|| "the simulation was not built".to_owned())
    }
}

/// Node-days until the invariant broke, or the others that did.
fn days_until_broken(test: &Path, mutation: &Mutation) -> Result<Result<f64, Vec<String>>, String> {
    let birth: Timestamp = BIRTH.parse().map_err(|_| "no birth")?;
    let mut others = Vec::new();
    for life in 0..LIVES {
        let broken = lived(test, &mutation.name, SEED + life)?;
        if let Some((at, _)) = broken.iter().find(|(_, what)| *what == mutation.breaks) {
            let days = birth.duration_until(*at).as_secs_f64() / 86_400.0;
            return Ok(Ok(life as f64 * DAYS_OF_LIFE + days));
        }
        others.extend(broken.into_iter().map(|(_, what)| what));
        others.sort();
        others.dedup();
    }
    Ok(Err(others))
}

/// One life with a mutation awake: when what broke in it.
fn lived(test: &Path, mutation: &str, seed: u64) -> Result<Vec<(Timestamp, String)>, String> {
    let mut command = Command::new(test);
    command.args(["--exact", "--show-output", TEST]);
    command.env("NODEAGENT_SEED", seed.to_string()).env("NODEAGENT_MUTATION", mutation);
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let broken: Vec<_> = text.lines().filter_map(broken).collect();
    // A life that neither broke anything nor passed was not lived.
    match broken.is_empty() && !output.status.success() {
        true => Err(format!("{mutation}: {text}{}", String::from_utf8_lossy(&output.stderr))),
        false => Ok(broken),
    }
}

/// When what broke, where a line tells it: `NODEAGENT_SEED=7: INSTANT INVARIANT: how`.
fn broken(line: &str) -> Option<(Timestamp, String)> {
    let (_, rest) = line.strip_prefix(LIFE)?.split_once(": ")?;
    let (at, rest) = rest.split_once(' ')?;
    Some((at.parse().ok()?, rest.split_once(": ")?.0.to_owned()))
}

fn done(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

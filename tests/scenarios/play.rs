//! What the stories share: a stage with the agent under test, waiting for what `status` shows,
//! and the levers of an operator (a renewal, another drop-in, a change of a role in Vault).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use nodeagent::duty::certs::leaf::{self, Authority, Leaf};
use rig::peer::vault;
use rig::stage::{Running, Stage, StageOptions, Which};
use rig::systemd::Behaviour;
use serde_json::{Value, json};

/// The deadline of every wait: what takes a second on an idle machine gets a minute and a half,
/// because the agent's own backoff may be half a minute and the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

/// The certificate that most stories are about, and its role in Vault.
pub(crate) const SERVER: &str = "kubelet-server";

/// The unit of the stage's consumer.
pub(crate) const KUBELET: &str = "kubelet.service";

/// Where the server certificate is published.
pub(crate) const PUBLISHED: &str = "/var/lib/nodeagent-certs/kubelet/kubelet-server";

/// A stage with the agent under test.
pub(crate) async fn stage(options: StageOptions) -> Stage {
    let program = env!("CARGO_BIN_EXE_nodeagent");
    let stage = Stage::set(program, options).await;
    stage.expect("the stage is set")
}

/// The same with a running agent that has reached health.
pub(crate) async fn healthy(options: StageOptions) -> (Stage, Running) {
    let stage = stage(options).await;
    let agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    (stage, agent)
}

/// The same with the consumer running.
pub(crate) async fn serving(options: StageOptions) -> (Stage, Running) {
    let (stage, agent) = healthy(options).await;
    stage.start_kubelet().expect("the consumer starts");
    (stage, agent)
}

/// A stage on the Vault that is asked for; nothing, with the reason, where there is no real one.
pub(crate) async fn stage_on(which: Which, options: StageOptions) -> Option<Stage> {
    if which == Which::Real
        && let Err(reason) = vault::program()
    {
        return skip(&reason);
    }
    let options = StageOptions { vault: which, ..options };
    Some(stage(options).await)
}

/// Says why a story is not told here. Where all of them must be told, it fails.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    let must = std::env::var("NODEAGENT_TESTS_MUST_RUN").is_ok_and(|value| value == "1");
    assert!(!must, "cannot run here: {reason}");
    println!("not run here: {reason}");
    None
}

/// Whether this is root, with the reason told where it is not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        skip::<()>("it needs root");
    }
    root
}

/// A worker whose certificates live for `life` seconds, of which `survive` are left at any time.
pub(crate) fn brief(life: u32, survive: u32) -> StageOptions {
    StageOptions::worker().with(&format!(
        "[rotation]\nsurvive_vault_outage = \"{survive}s\"\nissues_per_hour = 3600\n\
         [[certificate]]\nname = \"kubelet-server\"\nttl = \"{life}s\"\n\
         [[certificate]]\nname = \"kubelet-client\"\nttl = \"{life}s\"\n"
    ))
}

/// Vault dates certificates back by 30 s; lives of seconds need it to date back by one.
pub(crate) async fn date_back_little(stage: &Stage) {
    for role in ["kubelet-server", "kubelet-client"] {
        let change = json!({ "not_before_duration": "1s" });
        change_entry(stage, &format!("pki/roles/{role}"), &change).await;
    }
}

/// Changes fields of an entry in Vault and leaves the others as they are.
pub(crate) async fn change_entry(stage: &Stage, path: &str, change: &Value) {
    let admin = stage.admin();
    let read = admin.read(path).await.expect("vault answers");
    let mut body = read.json["data"].clone();
    let fields = change.as_object().expect("fields to change");
    for (name, value) in fields {
        body[name] = value.clone();
    }
    let written = admin.must_write(path, &body).await;
    written.expect("the entry is taken");
}

/// Waits until the status fits.
pub(crate) fn wait(stage: &Stage, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    match stage.wait_status(what, SOON, fits) {
        Ok(status) => status,
        Err(text) => panic!("{text}"),
    }
}

/// Waits for health, and until all consumers have what is published for them.
pub(crate) fn wait_healthy(stage: &Stage) -> Value {
    wait(stage, "health", |status| {
        let consumers = status["consumers"].as_array();
        let current = |part: &Value| part["state"] == "current" || part["served"].is_string();
        status["health"] == "healthy" && consumers.is_some_and(|all| all.iter().all(current))
    })
}

/// Waits for a problem of a code and gives it.
pub(crate) fn wait_problem(stage: &Stage, code: &str) -> Value {
    let status = wait(stage, code, |status| problem(status, code).is_some());
    problem(&status, code).expect("it was there")
}

/// The first problem of a code in a status.
pub(crate) fn problem(status: &Value, code: &str) -> Option<Value> {
    let problems = status["problems"].as_array()?;
    let found = problems.iter().find(|problem| problem["code"] == code);
    found.cloned()
}

/// Text and advice of a problem.
pub(crate) fn told(problem: &Value) -> String {
    let part = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    format!("{}\n{}", part("text"), part("advice"))
}

/// Waits for anything that is not in the status.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "no {what} within {SOON:?}");
        std::thread::sleep(PAUSE);
    }
}

/// The serial that is published, from the disk.
pub(crate) fn serial(stage: &Stage) -> String {
    let pem = stage.read(&format!("{PUBLISHED}/current/cert.pem"));
    let leaf = Leaf::read(pem.as_bytes());
    leaf.expect("a certificate is published").serial
}

/// Has the agent look again, and waits until it has told what it saw.
pub(crate) fn look_again(stage: &Stage, agent: &Running) -> Value {
    let looked = stage.status()["agent"]["looked"].clone();
    agent.reload().expect("the agent runs");
    wait(stage, "another look", |status| {
        status["agent"]["looked"].is_string() && status["agent"]["looked"] != looked
    })
}

/// Waits until another serial than this one is published and the status tells it; gives it.
pub(crate) fn wait_renewed(stage: &Stage, before: &str) -> String {
    wait(stage, "new certificate", |_| {
        let told = stage.certificate(SERVER);
        told["serial"].as_str().is_some_and(|now| now != before)
    });
    serial(stage)
}

/// A person asks for a new certificate; gives the serial that there is now.
pub(crate) fn ask_renewal(stage: &Stage) -> String {
    let before = serial(stage);
    let output = run_verb(stage, &["renew", SERVER]);
    assert!(output.status.success(), "{}", text_of(&output));
    before
}

/// A renewal from beginning to end; gives the old serial and the new one.
pub(crate) fn renew(stage: &Stage) -> (String, String) {
    let before = ask_renewal(stage);
    let after = wait_renewed(stage, &before);
    (before, after)
}

/// Runs a verb to its end.
pub(crate) fn run_verb(stage: &Stage, arguments: &[&str]) -> Output {
    let output = stage.command(arguments).output();
    output.expect("the verb runs")
}

/// Everything that a verb printed.
pub(crate) fn text_of(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Lays a drop-in over the others and has the agent read it.
pub(crate) fn reconfigure(stage: &Stage, agent: &Running, text: &str) {
    configure(stage, text);
    agent.reload().expect("the agent runs");
}

/// Lays a drop-in over the others.
pub(crate) fn configure(stage: &Stage, text: &str) {
    let path = "/etc/nodeagent/config.d/30-story.toml";
    stage.write(path, text.as_bytes()).expect("it is written");
}

/// The drop-in that changes the stage's consumer.
pub(crate) fn kubelet(text: &str) -> String {
    format!("[[consumer]]\nname = \"kubelet\"\n{text}\n")
}

/// How many requests the model of Vault had for a path.
pub(crate) fn calls(stage: &Stage, path: &str) -> usize {
    stage.model().server().count(&format!("/v1/{path}"))
}

/// How often the model was asked for a server certificate.
pub(crate) fn issues(stage: &Stage) -> usize {
    calls(stage, "pki/sign/kubelet-server")
}

/// How often the model was asked to log in.
pub(crate) fn logins(stage: &Stage) -> usize {
    calls(stage, "auth/aws/login")
}

/// Every file and link below a path of the node, with its content or target.
pub(crate) fn tree(stage: &Stage, path: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    walk(&stage.path(path), &mut |path, content| {
        found.insert(path.display().to_string(), content);
    });
    found
}

/// Calls back for every file and link below a directory, in no order.
pub(crate) fn walk(directory: &Path, each: &mut impl FnMut(&Path, Vec<u8>)) {
    // What vanishes meanwhile is not there.
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            walk(&path, each);
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&path).unwrap_or_default();
            each(&path, target.display().to_string().into_bytes());
        } else if let Ok(content) = std::fs::read(&path) {
            each(&path, content);
        }
    }
}

/// The names of the directories of generations below a path of the node.
pub(crate) fn generations(stage: &Stage, path: &str) -> Vec<String> {
    let entries = std::fs::read_dir(stage.path(path)).into_iter().flatten();
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .collect();
    names.sort();
    names
}

/// The authorities of a PEM text.
pub(crate) fn authorities(pem: &str) -> Vec<Authority> {
    leaf::bundle(pem).expect("a bundle of authorities")
}

/// The fingerprints of the authorities that the consumer is told to trust.
pub(crate) fn trusted(stage: &Stage) -> Vec<String> {
    let pem = stage.read(&format!("{PUBLISHED}/current/ca.pem"));
    let all = authorities(&pem);
    all.into_iter().map(|ca| ca.fingerprint).collect()
}

/// A number below `bound` from a seed that the story has printed.
pub(crate) fn random(seed: &mut u64, bound: u64) -> u64 {
    *seed = seed.wrapping_add(1);
    (nodeagent::backoff::fraction(*seed, 77) * bound as f64) as u64
}

/// The unit comes up with this serial on disk and with no other.
pub(crate) fn start_only_with(stage: &Stage, serial: &str) {
    let (consumer, serial) = (stage.kubelet.clone(), serial.to_owned());
    let path = stage.path(&format!("{PUBLISHED}/current/cert.pem"));
    let restart = move || {
        let pem = std::fs::read(&path).map_err(|error| error.to_string())?;
        let leaf = Leaf::read(&pem);
        match leaf.is_ok_and(|leaf| leaf.serial == serial) {
            true => consumer.restart(),
            false => Err("not this certificate".into()),
        }
    };
    stage.systemd.behave(KUBELET, Behaviour::run(restart));
}

/// A seed for a story, printed so that a failure can be played again: NODEAGENT_SEED sets it.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("NODEAGENT_SEED").ok();
    let given = given.and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| rig::clock::ModelClock::real().micros());
    println!("NODEAGENT_SEED={seed}");
    seed
}

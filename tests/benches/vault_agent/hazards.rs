//! What both do when something goes wrong, side by side, with Vault counting what it is asked.

use std::path::Path;
use std::time::{Duration, Instant};

use nodeagent::duty::certs::leaf::Leaf;
use rig::clock::ModelClock;
use rig::proxy::{Fault, Proxy};
use rig::stage::Running;
use rig::systemd::{ActiveState, Behaviour};
use serde_json::json;

use super::pair::{Nonce, Pair, Wish};
use super::tell;
use crate::first_cert::CONFIG;

/// For how long a failure is watched.
const MINUTE: Duration = Duration::from_secs(60);

/// For how long Vault is away.
const OUTAGE: Duration = Duration::from_secs(20);

/// Before it, so many renewals are watched.
const RENEWALS: usize = 2;

/// More than the agent takes from one look to the next, which is 30 s.
const LOOKS: Duration = Duration::from_secs(45);

/// After a start, until what it asks at once has been asked.
const ASKED: Duration = Duration::from_secs(10);

/// Between two looks at a file.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// One after the other, each on fresh nodes.
pub(crate) async fn run(pair: &mut Pair) -> Result<(), String> {
    pair.audit.begin(&pair.stage.admin()).await?;
    killed(pair).await?;
    torn(pair, Cut::Half).await?;
    torn(pair, Cut::Key).await?;
    without_nonce(pair).await?;
    failing_command(pair).await
}

/// SIGKILL, and another start on the same disk.
async fn killed(pair: &mut Pair) -> Result<(), String> {
    pair.replace(CONFIG, Wish::default())?;
    let (ours, theirs) = pair.run_both().await?;
    tokio::time::sleep(ASKED).await;
    let before = (serial(&pair.our_file())?, serial(&pair.their_file())?);
    let mark = pair.audit.mark()?;
    kill(ours, theirs)?;
    let _running = (pair.run_ours()?, pair.run_theirs()?);
    tokio::time::sleep(ASKED).await;
    let (ours, theirs) = pair.audit.since(mark)?;
    println!("SIGKILL and start: nodeagent {ours:?}, vault agent {theirs:?}");
    tell("killed_logins", ours.logins, theirs.logins);
    tell("killed_issues", ours.issues, theirs.issues);
    let after = (serial(&pair.our_file())?, serial(&pair.their_file())?);
    tell("killed_keeps_certificate", before.0 == after.0, before.1 == after.1);
    Ok(())
}

/// Where a published file ends too early.
#[derive(Clone, Copy)]
enum Cut {
    /// In its middle.
    Half,
    /// Before its key.
    Key,
}

impl Cut {
    fn name(self) -> &'static str {
        match self {
            Cut::Half => "torn",
            Cut::Key => "lost_key",
        }
    }

    fn make(self, file: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", file.display());
        let text = std::fs::read_to_string(file).map_err(failed)?;
        let key = text.match_indices("-----BEGIN ").find(|(at, _)| {
            text[*at..].lines().next().is_some_and(|line| line.ends_with("PRIVATE KEY-----"))
        });
        let end = match self {
            Cut::Half => text.len() / 2,
            Cut::Key => key.map(|(at, _)| at).ok_or("no key in the file")?,
        };
        std::fs::write(file, &text[..end]).map_err(failed)
    }
}

/// A part of the published file is lost; where that is not seen, after a restart too.
async fn torn(pair: &mut Pair, cut: Cut) -> Result<(), String> {
    pair.replace(CONFIG, Wish::default())?;
    let (ours, theirs) = pair.run_both().await?;
    tokio::time::sleep(ASKED).await;
    let mark = pair.audit.mark()?;
    let files = [pair.our_file(), pair.their_file()];
    for file in &files {
        if !is_whole(file) {
            return Err(format!("{} is not whole before it is torn", file.display()));
        }
        cut.make(file)?;
    }
    let begun = Instant::now();
    let mut healed = [None, None];
    while begun.elapsed() < LOOKS && healed.contains(&None) {
        for (healed, file) in healed.iter_mut().zip(&files) {
            if healed.is_none() && is_whole(file) {
                *healed = Some(begun.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    let [our_s, their_s] =
        healed.map(|healed| healed.map_or("never".to_owned(), |s| format!("{s:.1}")));
    let name = cut.name();
    tell(&format!("{name}_healed_s"), our_s, their_s);
    kill(ours, theirs)?;
    let _running = (pair.run_ours()?, pair.run_theirs()?);
    tokio::time::sleep(ASKED).await;
    tell(&format!("{name}_whole_after_restart"), is_whole(&files[0]), is_whole(&files[1]));
    let (ours, theirs) = pair.audit.since(mark)?;
    println!("{name} file, then a restart: nodeagent {ours:?}, vault agent {theirs:?}");
    tell(&format!("{name}_issues"), ours.issues, theirs.issues);
    Ok(())
}

/// The client nonce and the token are gone, as after a reboot of a node whose disk lost the one;
/// Vault Agent has no nonce but in its memory where its configuration names none.
async fn without_nonce(pair: &mut Pair) -> Result<(), String> {
    pair.replace(CONFIG, Wish { nonce: Nonce::MadeUp, ..Wish::default() })?;
    let (ours, theirs) = pair.run_both().await?;
    tokio::time::sleep(ASKED).await;
    kill(ours, theirs)?;
    for gone in ["/var/lib/nodeagent/nonce", "/run/nodeagent"] {
        std::fs::remove_dir_all(pair.stage.path(gone)).map_err(|e| format!("{gone}: {e}"))?;
    }
    let mark = pair.audit.mark()?;
    let (ours, theirs) = (pair.run_ours()?, pair.run_theirs()?);
    tokio::time::sleep(MINUTE).await;
    let (our, their) = pair.audit.since(mark)?;
    println!("without the nonce, in {MINUTE:?}: nodeagent {our:?}, vault agent {their:?}");
    tell("no_nonce_refused_per_min", our.refused, their.refused);
    tell("no_nonce_certificate_stays", is_whole(&pair.our_file()), is_whole(&pair.their_file()));
    let names = |text: &str, instance: &str| text.contains(instance);
    let (status, log) = (pair.stage.status().to_string(), pair.their_log());
    let command = format!("identity-accesslist/{}", pair.stage.instance);
    tell("no_nonce_names_cure", names(&status, &command), log.contains("identity-accesslist"));
    forgive(pair, &ours).await?;
    drop((ours, theirs));
    Ok(())
}

/// An administrator has Vault forget both, as the agent's status says, and has the agent look.
async fn forgive(pair: &Pair, ours: &Running) -> Result<(), String> {
    for instance in [&pair.stage.instance, &pair.node.instance] {
        pair.stage.admin().delete(&format!("auth/aws/identity-accesslist/{instance}")).await?;
    }
    let mark = pair.audit.mark()?;
    ours.reload().map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let mut took = [None, None];
    while begun.elapsed() < MINUTE && took.contains(&None) {
        let (ours, theirs) = pair.audit.since(mark)?;
        for (took, logins) in took.iter_mut().zip([ours.logins, theirs.logins]) {
            if took.is_none() && logins > 0 {
                *took = Some(begun.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    let [our_s, their_s] = took.map(|took| took.map_or("over 60".into(), |s| format!("{s:.1}")));
    tell("forgiven_login_s", our_s, their_s);
    Ok(())
}

/// The restart that follows a certificate fails each time.
async fn failing_command(pair: &mut Pair) -> Result<(), String> {
    let config = format!(
        "{CONFIG}[[consumer]]\nname = \"kubelet\"\nunit = \"kubelet.service\"\nact = \"restart\"\n"
    );
    pair.replace(&config, Wish { command: "exit 1", ..Wish::default() })?;
    pair.stage.systemd.set_state("kubelet.service", ActiveState::Active);
    pair.stage.systemd.behave("kubelet.service", Behaviour::Fails);
    let restarts = pair.stage.systemd.count("RestartUnit", "kubelet.service");
    let mark = pair.audit.mark()?;
    let _running = pair.run_both().await?;
    tokio::time::sleep(MINUTE).await;
    let (ours, theirs) = pair.audit.since(mark)?;
    println!("a failing command, in {MINUTE:?}: nodeagent {ours:?}, vault agent {theirs:?}");
    tell("failing_command_issues_per_min", ours.issues, theirs.issues);
    let restarts = pair.stage.systemd.count("RestartUnit", "kubelet.service") - restarts;
    tell("failing_command_runs_per_min", restarts, pair.their_commands());
    println!("nodeagent tells: {:?}", pair.stage.problems());
    Ok(())
}

/// Certificates of a minute, and Vault away at the worst moment of each. `survive_vault_outage`
/// has the share of the life that it has by default; Vault Agent renews where it does by default.
pub(crate) async fn outage(pair: &mut Pair) -> Result<(), String> {
    date_back_little(pair).await?;
    let config = format!(
        "{CONFIG}ttl = \"60s\"\n[rotation]\nsurvive_vault_outage = \"27s\"\n\
         issues_per_hour = 3600\n"
    );
    pair.replace(&config, Wish { ttl: "60s".into(), ..Wish::default() })?;
    let _running = pair.run_both().await?;
    let (our_file, their_file) = (pair.our_file(), pair.their_file());
    let clock = &pair.stage.clock;
    let ours = meet(clock, &pair.stage.proxy, &our_file);
    let (ours, theirs) = tokio::try_join!(ours, meet(clock, &pair.proxy, &their_file))?;
    println!("FIGURE outage_s={}", OUTAGE.as_secs());
    let one = |value: f64| format!("{value:.1}");
    tell("left_at_renewal_s", one(ours.left_at_renewal), one(theirs.left_at_renewal));
    tell("outage_without_certificate_s", one(ours.gap), one(theirs.gap));
    tell("outage_recovery_s", one(ours.recovery), one(theirs.recovery));
    Ok(())
}

/// Dated back by 30 s, as Vault does by default, half of a life of a minute would be over at once.
pub(super) async fn date_back_little(pair: &Pair) -> Result<(), String> {
    let admin = pair.stage.admin();
    let mut role = admin.read("pki/roles/kubelet-client").await?.json["data"].clone();
    role["not_before_duration"] = json!("1s");
    admin.must_write("pki/roles/kubelet-client", &role).await.map(drop)
}

/// What an outage did to one of them, in seconds.
struct Met {
    /// What was left of a certificate when it was renewed before the outage.
    left_at_renewal: f64,
    /// How long the certificate on disk had ended.
    gap: f64,
    /// From Vault's return to another certificate.
    recovery: f64,
}

/// Watches renewals, has Vault go away a second before another, and watches what follows. The
/// least that was left counts: the first renewal of a node may come early, to spread a fleet.
async fn meet(clock: &ModelClock, proxy: &Proxy, file: &Path) -> Result<Met, String> {
    let mut last = leaf(file)?;
    let mut left_at_renewal = f64::INFINITY;
    for _ in 0..RENEWALS {
        let renewed = changed(file, &last.serial).await?;
        left_at_renewal = left_at_renewal.min(seconds_left(clock, &last));
        last = renewed;
    }
    let begun = Instant::now();
    while seconds_left(clock, &last) > left_at_renewal + 1.0 {
        if begun.elapsed() > 2 * MINUTE {
            return Err(format!("{}: no moment before a renewal", file.display()));
        }
        tokio::time::sleep(PAUSE).await;
        last = leaf(file)?;
    }
    proxy.set(Fault::Refuse);
    tokio::time::sleep(OUTAGE).await;
    let last = leaf(file)?;
    proxy.set(Fault::None);
    let back = Instant::now();
    changed(file, &last.serial).await?;
    let recovery = back.elapsed().as_secs_f64();
    Ok(Met { left_at_renewal, gap: (-seconds_left(clock, &last)).max(0.0), recovery })
}

/// Waits for another certificate than the one with this serial.
async fn changed(file: &Path, serial: &str) -> Result<Leaf, String> {
    let begun = Instant::now();
    while begun.elapsed() < 2 * MINUTE {
        if let Ok(leaf) = leaf(file)
            && leaf.serial != serial
        {
            return Ok(leaf);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("{}: no other certificate within {:?}", file.display(), 2 * MINUTE))
}

pub(super) fn leaf(file: &Path) -> Result<Leaf, String> {
    let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Leaf::read(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn serial(file: &Path) -> Result<String, String> {
    leaf(file).map(|leaf| leaf.serial)
}

pub(super) fn seconds_left(clock: &ModelClock, leaf: &Leaf) -> f64 {
    leaf.left(clock.now()).as_secs_f64()
}

/// Whether certificate and key are in the file, and nothing is cut.
fn is_whole(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let count = |word: &str| text.matches(word).count();
    leaf(file).is_ok()
        && count("PRIVATE KEY-----") == 2
        && count("-----BEGIN ") == count("-----END ")
}

fn kill(ours: Running, theirs: Running) -> Result<(), String> {
    ours.kill().and_then(|()| theirs.kill()).map_err(|error| error.to_string())
}

//! How each fault and blow is done to the world, and undone.

use std::path::PathBuf;

use jiff::SignedDuration;
use nodeagent::failpoint::failing::{self, Failing};
use rig::server::{Fault as Transport, Step};
use rig::setup::Reply;
use serde_json::{Value, json};

use super::clock::lock;
use super::consumer::Start;
use super::random::Random;
use super::schedule::{Blow, Fault};
use super::world::{Mood, World};

const LOGIN_ROLE: &str = "auth/aws/role/worker";
const PKI_ROLE: &str = "pki/roles/kubelet-server";
const POLICY: &str = "sys/policies/acl/worker";

/// The agent waits for an answer of Vault no longer than this, its default.
const PATIENCE: SignedDuration = SignedDuration::from_secs(95);

/// The certificates of a worker.
pub(super) const CERTIFICATES: [&str; 2] = ["kubelet-server", "kubelet-client"];

const FILES: [&str; 4] = ["cert.pem", "key.pem", "ca.pem", "pair.pem"];

/// Whether an administrator can work while this lasts.
pub(super) fn leaves_vault_to_its_administrator(fault: &Fault) -> bool {
    !matches!(
        fault,
        Fault::Away
            | Fault::Sealed
            | Fault::Failing(_)
            | Fault::Throttled
            | Fault::Html
            | Fault::Cut
            | Fault::Slow(_)
            | Fault::TooSlow
            // The administrator's own hand on the node's files.
            | Fault::DiskFull
            | Fault::DiskReadOnly
            | Fault::DiskFailing(_)
    )
}

impl World {
    /// Puts a fault in force. What it has to put back in the end is the answer.
    pub(super) async fn begin(&mut self, fault: Fault) -> Result<Value, String> {
        let script = |fault| self.model.server().script(vec![Step::on("", fault)]);
        match fault {
            Fault::Away => self.model.server().stop(),
            Fault::Sealed => self.model.seal(),
            Fault::Failing(code) => script(Transport::status(code, "internal error")),
            Fault::Throttled => script(throttled()),
            Fault::Html => script(Transport::Html200),
            Fault::Cut => script(Transport::Cut { after_bytes: 60 }),
            Fault::Slow(seconds) => {
                script(Transport::Late(SignedDuration::from_secs(seconds.into())));
            }
            Fault::TooSlow => script(Transport::TooLate(PATIENCE)),
            Fault::AwsHangs => *lock(&self.mood) = Mood::Hangs,
            Fault::AwsThrottles => *lock(&self.mood) = Mood::Throttles,
            Fault::AwsSlow(seconds) => {
                *lock(&self.mood) = Mood::Slow(SignedDuration::from_secs(seconds.into()));
            }
            Fault::Lying(lie) => self.model.lie(Some(lie)),
            Fault::LoginRoleNarrow => {
                return self.narrow(LOGIN_ROLE, "bound_account_id", json!(["999999999999"])).await;
            }
            Fault::ImageUnknown => {
                let others = json!(["ami-0aaaaaaaaaaaaaaaa"]);
                return self.narrow(LOGIN_ROLE, "bound_ami_id", others).await;
            }
            Fault::PkiRoleNarrow => {
                return self.narrow(PKI_ROLE, "allowed_domains", json!(["elsewhere.test"])).await;
            }
            Fault::PolicyLost => {
                let nothing = json!("path \"elsewhere\" { capabilities = [\"read\"] }");
                return self.narrow(POLICY, "policy", nothing).await;
            }
            Fault::IssuerUnknown => {
                let root = self.make_root().await?;
                self.sign_with(root.clone()).await?;
                return Ok(json!(root.1));
            }
            Fault::ClockStep(seconds) => {
                self.clock.step(SignedDuration::from_secs(seconds.into()));
            }
            Fault::Drift(ppm) => self.clock.drift(ppm.into()),
            Fault::DiskFull => self.disk.fill(),
            Fault::DiskReadOnly => self.disk.lock().map_err(|error| error.to_string())?,
            Fault::DiskFailing(failing) => drop(failing::set(failing)),
            Fault::Foreign => return Ok(json!(self.plant())),
            Fault::ImdsAway => self.imds.server().stop(),
            Fault::BusAway => self.units.leave(),
            Fault::Consumer(start) => self.consumer.set_start(start),
            Fault::Stopped => {
                self.aws.stop(&self.instance);
                self.units.go_down();
            }
        }
        self.let_sockets_settle().await;
        Ok(Value::Null)
    }

    /// Ends a fault; `kept` is what [`World::begin`] gave.
    pub(super) async fn end(&mut self, fault: Fault, kept: Value) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        match fault {
            Fault::Away => self.model.server().restart().map_err(text)?,
            Fault::Sealed => self.model.unseal(),
            Fault::Failing(_)
            | Fault::Throttled
            | Fault::Html
            | Fault::Cut
            | Fault::Slow(_)
            | Fault::TooSlow => {
                self.model.server().script(Vec::new());
            }
            Fault::AwsHangs | Fault::AwsThrottles | Fault::AwsSlow(_) => {
                *lock(&self.mood) = Mood::Well;
            }
            Fault::Lying(_) => self.model.lie(None),
            Fault::LoginRoleNarrow | Fault::ImageUnknown => self.widen(LOGIN_ROLE, kept).await?,
            Fault::PkiRoleNarrow => self.widen(PKI_ROLE, kept).await?,
            Fault::PolicyLost => self.widen(POLICY, kept).await?,
            Fault::IssuerUnknown => {
                self.believe(kept.as_str().ok_or("no root was kept")?.to_owned());
            }
            Fault::ClockStep(_) => self.clock.correct(),
            Fault::Drift(_) => {
                self.clock.drift(0.0);
                self.clock.correct();
            }
            Fault::DiskFull => self.disk.free(),
            Fault::DiskReadOnly => self.disk.unlock().map_err(text)?,
            Fault::DiskFailing(_) => drop(failing::set(Failing::Nothing)),
            Fault::Foreign => {
                if let Some(path) = kept.as_str() {
                    std::fs::remove_dir_all(path).map_err(text)?;
                }
            }
            Fault::ImdsAway => self.imds.server().restart().map_err(text)?,
            Fault::BusAway => self.units.come_back(),
            Fault::Consumer(_) => self.consumer.set_start(Start::Well),
            Fault::Stopped => self.aws.start_instance(&self.instance),
        }
        self.let_sockets_settle().await;
        Ok(())
    }

    /// Changes one field of something in Vault; gives what was there.
    async fn narrow(&self, path: &str, field: &str, to: Value) -> Result<Value, String> {
        let Reply { json, .. } = self.admin.read(path).await?;
        let before = json["data"].clone();
        let mut narrowed = before.clone();
        narrowed[field] = to;
        self.admin.must_write(path, &narrowed).await?;
        Ok(before)
    }

    async fn widen(&self, path: &str, before: Value) -> Result<(), String> {
        self.admin.must_write(path, &before).await.map(drop)
    }

    /// A directory of somebody else in the place of a `current`; its path, if there is one.
    fn plant(&self) -> Option<String> {
        let place = self.current(CERTIFICATES[0]);
        if !place.parent()?.is_dir() {
            return None;
        }
        std::fs::remove_file(&place).ok();
        std::fs::create_dir(&place).ok()?;
        std::fs::write(place.join("notes.txt"), "of somebody else\n").ok()?;
        Some(place.display().to_string())
    }

    /// Lets a blow fall on Vault or on the node's files; those on the agent are the life's.
    pub(super) async fn strike(&mut self, blow: Blow, random: &mut Random) -> Result<(), String> {
        match blow {
            Blow::EntryDeleted => {
                let path = format!("auth/aws/identity-accesslist/{}", self.instance);
                self.admin.delete(&path).await?;
            }
            Blow::Torn => {
                if let Some(path) = self.victim(random) {
                    let length = std::fs::metadata(&path).map_or(0, |found| found.len());
                    let file = std::fs::OpenOptions::new().write(true).open(path);
                    file.and_then(|file| file.set_len(length / 2)).ok();
                }
            }
            Blow::Unlinked => {
                self.victim(random).and_then(|path| std::fs::remove_file(path).ok());
            }
            Blow::LinkLost => {
                std::fs::remove_file(self.current(random.pick(&CERTIFICATES))).ok();
            }
            Blow::RecordsTorn => {
                let path = self.path("var/lib/nodeagent/records.json");
                let text = std::fs::read(&path).unwrap_or_default();
                std::fs::write(&path, &text[..text.len() / 2]).ok();
            }
            Blow::AuthorityAdded => {
                let root = self.make_root().await?;
                self.believe(root.1.clone());
                self.authorities.next = Some(root);
            }
            Blow::AuthorityChanged => {
                if let Some(root) = self.authorities.next.take() {
                    self.believe(root.1.clone());
                    self.sign_with(root).await?;
                }
            }
            Blow::Replaced => self.replace()?,
            Blow::AuthorityDropped => self.believe_only_the_signing_one(),
            Blow::Restart | Blow::KillAt(_) | Blow::Reboot | Blow::TokenRevoked => {}
        }
        Ok(())
    }

    /// A published file, if there is one.
    fn victim(&self, random: &mut Random) -> Option<PathBuf> {
        let path = self.current(random.pick(&CERTIFICATES)).join(random.pick(&FILES));
        path.is_file().then_some(path)
    }
}

/// A quota with its headers on, as an administrator sets them.
fn throttled() -> Transport {
    let body = json!({ "errors": ["request path \"x\": rate limit quota exceeded"] }).to_string();
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = vec![header("content-type", "application/json"), header("retry-after", "30")];
    Transport::Status { code: 429, body, headers }
}

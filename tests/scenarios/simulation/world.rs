//! The world of one node: models of Vault and AWS, its disk, its clock, its consumer, all on one
//! true time. What of it differs from node to node comes from the seed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use nodeagent::attest::{self, Options};
use nodeagent::config;
use nodeagent::failpoint::failing::{self, Failing};
use nodeagent::host::clock::Clock;
use nodeagent::host::files::Root;
use nodeagent::node::{Node, SessionCell};
use nodeagent::wire::http::Limits;
use nodeagent::wire::vault::{Vault, VaultOptions};
use rig::aws::{Aws, LaunchSpec, imds::Imds};
use rig::clock::ModelClock;
use rig::server::Place;
use rig::setup::{self, Admin, SetupOptions};
use rig::vault::{
    Ec2Error, Ec2Question, Ec2Result, Ec2Source, Instance, Model, ModelOptions, Transport,
};
use serde_json::json;

use super::clock::{NodeClock, lock};
use super::consumer::{Consumer, Habit};
use super::disk::Disk;
use super::faults::CERTIFICATES;
use super::marks::Marks;
use super::random::Random;
use super::units::Recorder;

/// Where the consumer's certificates are published.
pub(super) const PUBLISHED: &str = "var/lib/nodeagent-certs/kubelet";

/// The pinned bundle of the authority.
const BUNDLE: &str = "etc/nodeagent/cluster-ca.pem";

/// For how long the nodes must do without Vault.
pub(super) const SURVIVE: SignedDuration = SignedDuration::from_hours(11);

/// How AWS treats Vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Well.
    Well,
    /// It answers so late.
    Slow(SignedDuration),
    /// It never answers; Vault gives up after 90 s.
    Hangs,
    /// It wants fewer requests; Vault has asked four times by then, in 5 s.
    Throttles,
}

/// The marks of what is published of each certificate.
pub(super) type Published = [Marks; CERTIFICATES.len()];

/// What a node is, drawn from its seed.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) kubernetes: &'static str,
    pub(super) act: &'static str,
    pub(super) habit: Habit,
    /// Lease and longest life of the token.
    pub(super) token: (&'static str, &'static str),
}

impl Kind {
    pub(super) fn drawn(random: &mut Random) -> Kind {
        let (kubernetes, act, habit) = random.weighted(&[
            (6, ("1.36", "probe", Habit::Rereads)),
            (3, ("1.34", "probe", Habit::Holds)),
            (1, ("", "probe", Habit::Holds)),
            (1, ("1.34", "restart", Habit::Holds)),
            (1, ("1.36", "reload", Habit::Holds)),
            (1, ("1.36", "nothing", Habit::Rereads)),
        ]);
        let token =
            random.weighted(&[(2, ("1h", "24h")), (5, ("6h", "48h")), (3, ("12h", "768h"))]);
        Kind { kubernetes, act, habit, token }
    }
}

/// The world.
pub(super) struct World {
    pub(super) truth: ModelClock,
    pub(super) clock: Arc<NodeClock>,
    pub(super) aws: Arc<Aws>,
    pub(super) imds: Imds,
    pub(super) instance: String,
    /// How many images it has had before.
    images: u64,
    pub(super) model: Model,
    pub(super) admin: Admin,
    pub(super) disk: Disk,
    pub(super) consumer: Consumer,
    pub(super) units: Arc<Recorder>,
    pub(super) mood: Arc<Mutex<Mood>>,
    pub(super) authorities: Authorities,
    pub(super) kind: Kind,
}

/// Who signs, and who is believed.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    /// The bundle, one root each.
    pub(super) bundle: Vec<String>,
    /// Every root that was ever in it.
    pub(super) ever: Vec<String>,
    /// The one that Vault signs with.
    pub(super) signing: String,
    /// The one that is to come: its id at the mount and its root.
    pub(super) next: Option<(String, String)>,
}

impl World {
    pub(super) async fn new(kind: Kind, disk: Disk, start: Timestamp) -> Result<World, String> {
        // A life before on this thread may have ended while its disk was failing.
        failing::set(Failing::Nothing);
        let text = |error: std::io::Error| error.to_string();
        let truth = ModelClock::manual(start);
        let clock = Arc::new(NodeClock::new(truth.clone()));
        let aws = Arc::new(Aws::start(truth.clone()).map_err(text)?);
        let instance = aws.launch(LaunchSpec::profile("worker"));
        let imds = aws.imds_here(&instance).map_err(text)?;
        let mood = Arc::new(Mutex::new(Mood::Well));
        let options = ModelOptions {
            transport: Transport::Plain,
            ec2: source(aws.clone(), truth.clone(), mood.clone()),
            // Node and Vault take turns: on two threads most of the time would be the changes.
            place: Place::Here,
            ..ModelOptions::new(truth.clone())
        };
        let model = Model::start(options).map_err(text)?;
        let setup = SetupOptions {
            token_ttl: kind.token.0.into(),
            token_max_ttl: kind.token.1.into(),
            ..SetupOptions::new(aws.ec2_url(), aws.signing_certificate_pem())
        };
        let configured = setup::configure(&model.handle(), &setup).await?;
        let published = disk.path().join(PUBLISHED);
        let served = published.join("kubelet-server/current");
        let consumer = Consumer::new(&served, kind.habit).await.map_err(text)?;
        clock.shows(consumer.clone());
        let units = Recorder::new(truth.clone(), clock.clone(), consumer.clone(), published);
        let root = configured.roots["pki"].clone();
        let admin = model.handle().admin();
        let world = World {
            truth,
            clock,
            aws,
            imds,
            instance,
            images: 0,
            model,
            admin,
            disk,
            consumer,
            units: Arc::new(units),
            mood,
            authorities: Authorities { signing: root.clone(), ..Authorities::default() },
            kind,
        };
        let mut world = world;
        world.believe(root);
        world.configure().map_err(text)?;
        Ok(world)
    }

    /// The machine is terminated, and another one of a newer image takes its place: nothing that
    /// it had on disk or in memory is there, and Vault has never heard of it.
    pub(super) fn replace(&mut self) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        self.units.go_down();
        self.aws.terminate(&self.instance);
        self.images += 1;
        let image_id = format!("ami-{:017x}", self.images);
        let launch = LaunchSpec { image_id, ..LaunchSpec::profile("worker") };
        self.instance = self.aws.launch(launch);
        self.imds = self.aws.imds_here(&self.instance).map_err(text)?;
        for entry in std::fs::read_dir(self.disk.path()).map_err(text)?.flatten() {
            std::fs::remove_dir_all(entry.path()).map_err(text)?;
        }
        self.clock.boot();
        self.write_bundle();
        self.configure().map_err(text)
    }

    /// The files that the node is installed with.
    fn configure(&self) -> std::io::Result<()> {
        let (gid, probe) = (nix::unistd::getgid(), self.consumer.addr);
        let config = format!(
            "[node]\nrole = \"worker\"\ncluster = \"simulation\"\nkubernetes = \"{}\"\n\
             [vault]\naddress = \"{}\"\n[identity]\nimds = \"{}\"\n\
             [rotation]\nsurvive_vault_outage = \"11h\"\n\
             [pki.cluster]\nmount = \"pki\"\nca = \"/{BUNDLE}\"\n\
             [[consumer]]\nname = \"kubelet\"\ngroup = \"{gid}\"\nprobe = \"{probe}\"\n\
             act = \"{}\"\n",
            self.kind.kubernetes,
            self.model.address(),
            self.imds.url(),
            self.kind.act,
        );
        // An empty version is no version: the line is left out.
        let config = config.replace("kubernetes = \"\"\n", "");
        let path = self.path("etc/nodeagent/config.d/10-simulation.toml");
        write(&path, config.as_bytes())
    }

    /// A process of the agent: everything that it has in memory is new.
    pub(super) fn node(&self, seed: u64) -> Result<Arc<Node>, String> {
        let text = |error: nodeagent::error::Error| format!("{error:#}");
        let root = Root::new(self.disk.path());
        // A process that cannot read its configuration is started again until it can.
        let before = failing::set(Failing::Nothing);
        let config = config::load(&root, self.clock.now()).map_err(text);
        failing::set(before);
        let config = config?;
        let limits = Limits { total: config.vault.timeout, ..Limits::default() };
        let stamp = self.clock.clone();
        let vault = Vault::new(VaultOptions {
            address: config.vault.address.clone(),
            ca_pem: None,
            namespace: None,
            limits,
            stamp: Arc::new(move || (stamp.now(), stamp.monotonic())),
        });
        let attestor = attest::attestor(Options {
            provider: config.identity.provider,
            root: root.clone(),
            mount: config.identity.mount.clone(),
            role: config.identity.role.clone(),
            imds: config.identity.imds.clone(),
            import_nonce: None,
        });
        Ok(Arc::new(Node {
            config,
            root,
            clock: self.clock.clone(),
            units: self.units.clone(),
            vault: vault.map_err(text)?,
            attestor: attestor.map_err(text)?,
            session: SessionCell::default(),
            seed,
        }))
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.disk.path().join(path)
    }

    /// The directory of the generation in force of a certificate.
    pub(super) fn current(&self, certificate: &str) -> PathBuf {
        self.path(PUBLISHED).join(certificate).join("current")
    }

    /// What tells whether anything that is published of a certificate has changed.
    pub(super) fn published(&self, certificate: &str) -> Marks {
        Marks::tree(&self.path(PUBLISHED).join(certificate))
    }

    /// What tells whether anything has changed that the agent looks at on disk: what is published
    /// of each certificate, and the rest.
    pub(super) fn looked_at(&self) -> (Published, Marks) {
        let rest = Marks::of(&[&self.path(BUNDLE), &self.path(PUBLISHED)]);
        (CERTIFICATES.map(|name| self.published(name)), rest)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.truth.now()
    }

    /// Puts a root into the pinned bundle.
    pub(super) fn believe(&mut self, root: String) {
        if !self.authorities.bundle.contains(&root) {
            self.authorities.bundle.push(root.clone());
            self.authorities.ever.push(root);
        }
        self.write_bundle();
    }

    /// Takes all roots but the signing one out of the bundle.
    pub(super) fn believe_only_the_signing_one(&mut self) {
        let signing = self.authorities.signing.clone();
        self.authorities.bundle = vec![signing.clone()];
        self.authorities.ever.push(signing);
        self.write_bundle();
    }

    /// In place: an administrator's disk that is full is not what is simulated here.
    fn write_bundle(&self) {
        let text = self.authorities.bundle.concat();
        let fresh = self.path(&format!("{BUNDLE}.new"));
        write(&fresh, text.as_bytes()).expect("the bundle is written while the disk is well");
        std::fs::rename(&fresh, self.path(BUNDLE)).expect("a rename within a directory");
    }

    /// Makes a new root at the mount: its id and its certificate.
    pub(super) async fn make_root(&self) -> Result<(String, String), String> {
        let body = json!({ "common_name": "rig cluster", "key_type": "ec", "ttl": "80000h" });
        let made = self.admin.must_write("pki/root/generate/internal", &body).await?;
        let text = |name| made.data(name).as_str().unwrap_or_default().to_owned();
        Ok((text("issuer_id"), format!("{}\n", text("certificate"))))
    }

    /// Has Vault sign with a root.
    pub(super) async fn sign_with(&mut self, root: (String, String)) -> Result<(), String> {
        let body = json!({ "default": root.0 });
        self.admin.must_write("pki/config/issuers", &body).await?;
        self.authorities.signing = root.1;
        Ok(())
    }

    /// Lets the runtime see what other threads did to its sockets: connections that were cut are
    /// dropped from the client's pool before the next request, as time would have it.
    pub(super) async fn let_sockets_settle(&self) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }
}

/// EC2's word about the instance, on the simulated time.
fn source(aws: Arc<Aws>, truth: ModelClock, mood: Arc<Mutex<Mood>>) -> Ec2Source {
    Ec2Source::Direct(Arc::new(move |question: &Ec2Question| {
        let failed = |text: &str| {
            let id = &question.instance_id;
            Ec2Error {
                text: format!("error fetching description for instance ID {id:?}: {text}"),
                throttled: text.starts_with("RequestLimitExceeded"),
            }
        };
        let mood = *lock(&mood);
        match mood {
            Mood::Well => {}
            Mood::Slow(by) => truth.advance(by),
            Mood::Hangs => {
                truth.advance(SignedDuration::from_secs(90));
                return Err(failed("RequestCanceled: request context canceled"));
            }
            Mood::Throttles => {
                truth.advance(SignedDuration::from_millis(5400));
                return Err(failed("RequestLimitExceeded: Request limit exceeded."));
            }
        }
        described(&aws, question)
    }))
}

fn described(aws: &Aws, question: &Ec2Question) -> Ec2Result {
    let unknown = Ec2Error { text: "InvalidInstanceID.NotFound".into(), throttled: false };
    let found = aws.instance(&question.instance_id).ok_or(unknown)?;
    Ok(Instance {
        image_id: found.spec.image_id.clone(),
        state: found.state.wire().1.into(),
        subnet_id: found.spec.subnet_id.clone(),
        vpc_id: found.spec.vpc_id.clone(),
        profile_arn: found.profile_arn().unwrap_or_default(),
    })
}

/// Writes a file of the node, as its installation does.
pub(super) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, bytes)
}

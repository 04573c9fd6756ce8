//! The Vaults that the cases run on, with an AWS behind each and one worker in it.

use jiff::SignedDuration;
use rig::aws::{Aws, LaunchSpec};
use rig::clock::ModelClock;
use rig::peer::vault::RealVault;
use rig::setup::{self, SetupOptions, VaultHandle};
use rig::vault::{Model, ModelOptions};

use crate::wire::imds::{self, Imds};
use crate::wire::vault::*;

/// Not the default, so that nothing takes the default for granted.
pub(super) const MOUNT: &str = "aws-ec2";

/// The clocks of a node whose wall clock is ahead by so much.
pub(super) fn stamp(ahead: SignedDuration) -> Stamp {
    let clock = ModelClock::real();
    let start = clock.now();
    Arc::new(move || {
        let now = clock.now();
        let steady = Duration::try_from(now.duration_since(start)).unwrap_or_default();
        let wall = now.checked_add(ahead).expect("a test is ahead by hours");
        (wall, steady)
    })
}

pub(super) fn options(handle: &VaultHandle) -> VaultOptions {
    VaultOptions {
        address: handle.address.clone(),
        ca_pem: Some(handle.ca_pem.clone().into_bytes()),
        namespace: None,
        limits: Limits::default(),
        stamp: stamp(SignedDuration::ZERO),
    }
}

/// A Vault with an AWS behind it and one worker in it.
pub(super) struct Bench {
    pub(super) aws: Aws,
    pub(super) id: String,
    pub(super) handle: VaultHandle,
    pub(super) vault: Vault,
}

impl Bench {
    pub(super) async fn new(handle: VaultHandle) -> Bench {
        let aws = Aws::start(ModelClock::real()).expect("a free port");
        let mut site = SetupOptions::new(aws.ec2_url(), aws.signing_certificate_pem());
        site.auth_mount = MOUNT.into();
        setup::configure(&handle, &site).await.expect("configured");
        let id = aws.launch(LaunchSpec::profile("worker"));
        let vault = Vault::new(options(&handle)).expect("a client");
        Bench { aws, id, handle, vault }
    }

    pub(super) async fn login_as(&self, role: &str, nonce: &str) -> Result<Auth> {
        let model = self.aws.imds(&self.id).expect("a free port");
        let imds = Imds::new(&model.url(), imds::LIMITS).expect("a client");
        let signed = imds.signed_document().await.expect("a document");
        let login = Login::Ec2 {
            role: role.into(),
            pkcs7: signed.pkcs7,
            nonce: Secret::new(nonce.into()),
            instance_id: self.id.clone(),
        };
        self.vault.login(MOUNT, &login).await
    }

    pub(super) async fn login(&self) -> Auth {
        self.login_as("worker", "our-nonce").await.expect("logged in")
    }
}

/// The Vaults that a case runs on; the real one is named where it is missing.
pub(super) enum Peer {
    Model(Model),
    Real(RealVault),
}

impl Peer {
    pub(super) async fn all() -> Vec<Peer> {
        let model = Model::start(ModelOptions::new(ModelClock::real())).expect("a free port");
        let mut peers = vec![Peer::Model(model)];
        match rig::peer::vault::program() {
            Ok(_) => peers.push(Peer::Real(RealVault::start().await.expect("the real Vault"))),
            Err(why) => {
                let must = std::env::var_os("NODEAGENT_TESTS_MUST_RUN");
                assert!(must.is_none_or(|value| value != "1"), "{why}");
                eprintln!("on the model only: {why}");
            }
        }
        peers
    }

    pub(super) fn handle(&self) -> VaultHandle {
        match self {
            Peer::Model(model) => model.handle(),
            Peer::Real(real) => real.handle(),
        }
    }
}

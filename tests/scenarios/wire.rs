//! The clients of etcd, of the Kubernetes API and of Vault's secrets against the real ones: what
//! the code takes for granted of their answers is asked of them here.

mod etcd;
mod etcd_down;
mod garbage;
mod kube;
mod kube_refused;
mod vault_kv;

use std::time::{Duration, Instant};

use nodeagent::secret::Secret;
use nodeagent::wire::etcd::{Etcd, EtcdOptions};
use nodeagent::wire::http::{ClientIdentity, Limits};
use nodeagent::wire::kube::{Kube, KubeOptions};
use rig::peer::apiserver::RealApiserver;
use rig::peer::etcd::{RealEtcd, RealEtcdOptions};
use rig::peer::{apiserver, etcd as etcd_peer};
use rig::pki::Leaf;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::play::skip;

/// The deadline of every wait.
const SOON: Duration = Duration::from_secs(120);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// An API server has 300 MiB and keeps a core busy while it starts.
static SERVERS: Semaphore = Semaphore::const_new(1);

/// A leaf as the agent holds it.
fn identity(leaf: &Leaf) -> ClientIdentity {
    let (cert_pem, key_pem) = (leaf.cert_pem.clone(), Secret::new(leaf.key_pem.clone()));
    ClientIdentity { cert_pem, key_pem }
}

/// Waits until something holds.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < end, "waited in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// The real etcd; nothing, with the reason told, where there is none.
async fn real_etcd(options: RealEtcdOptions) -> Option<RealEtcd> {
    if let Err(reason) = etcd_peer::program() {
        return skip(&reason);
    }
    Some(RealEtcd::start_with(options).await.expect("etcd starts"))
}

/// A client of a member, as whoever is named.
fn client_of(etcd: &RealEtcd, member: usize, who: Option<&Leaf>) -> Etcd {
    let options = EtcdOptions {
        endpoint: etcd.endpoint_of(member).to_owned(),
        ca_pem: etcd.ca().pem().as_bytes().to_vec(),
        client: who.map(identity),
        limits: Limits::default(),
    };
    Etcd::new(options).expect("a client")
}

/// A Kubernetes API with its etcd, and the turn that it has among the others.
struct Api {
    server: RealApiserver,
    etcd: RealEtcd,
    _turn: SemaphorePermit<'static>,
}

/// The real API server; nothing, with the reason told, where there is none.
async fn real_api() -> Option<Api> {
    if let Err(reason) = apiserver::program() {
        return skip(&reason);
    }
    let turn = SERVERS.acquire().await.expect("nobody closes it");
    let etcd = real_etcd(RealEtcdOptions::default()).await?;
    let server = RealApiserver::start(&etcd).await.expect("an API server starts");
    Some(Api { server, etcd, _turn: turn })
}

impl Api {
    /// A client, as whoever is named.
    fn client(&self, who: Option<&Leaf>) -> Kube {
        let options = KubeOptions {
            address: self.server.address().to_owned(),
            ca_pem: self.server.ca().pem().as_bytes().to_vec(),
            client: who.map(identity),
            limits: Limits::default(),
        };
        Kube::new(options).expect("a client")
    }

    /// A client that may do everything.
    fn admin(&self) -> Kube {
        self.client(Some(self.server.admin()))
    }
}

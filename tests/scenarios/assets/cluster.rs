//! A cluster that consists of its API server: between the agent and the real one lies a server
//! that passes on, so that a story can say which call fails, and sees which calls were made.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use nodeagent::bootstrap::assets::{self, Outcome, Set};
use nodeagent::error::Code;
use nodeagent::host::files::Root;
use nodeagent::secret::Secret;
use nodeagent::wire::http::{ClientIdentity, Http, Limits, Peer, Trust};
use nodeagent::wire::kube::{Kube, KubeOptions};
use rig::clock::ModelClock;
use rig::peer::apiserver::{self, RealApiserver};
use rig::peer::etcd::{self, RealEtcd};
use rig::pki::Ca;
use rig::server::{Fault, Request, Response, Server, ServerOptions, handler};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::play::{SOON, skip};

/// An API server has 300 MiB and keeps a core busy while it starts.
static SERVERS: Semaphore = Semaphore::const_new(1);

const PEER: Peer = Peer {
    unreachable: Code::ApiserverUnreachable,
    failing: Code::ApiserverFailing,
    denied: Code::ApiserverDenied,
};

/// A cluster that consists of its API, seen through a server of our own, and a directory.
pub(super) struct Cluster {
    pub(super) front: Server,
    pub(super) kube: Kube,
    /// Straight to the API, as somebody else.
    pub(super) other: Kube,
    pub(super) directory: TempDir,
    /// Each change of an object called `held` waits for a permit of it.
    pub(super) gate: Arc<Semaphore>,
    _api: RealApiserver,
    _etcd: RealEtcd,
    _turn: SemaphorePermit<'static>,
}

fn limits() -> Limits {
    let limit = Duration::from_secs(30);
    Limits { connect: limit, total: limit, body: 16 << 20 }
}

impl Cluster {
    pub(super) async fn start() -> Option<Cluster> {
        let programs = etcd::program().and_then(|_| apiserver::program());
        if let Err(reason) = programs {
            return skip(&reason);
        }
        let turn = SERVERS.acquire().await.expect("nobody closes it");
        let etcd = RealEtcd::start().await.expect("etcd starts");
        let api = RealApiserver::start(&etcd).await.expect("the API server starts");
        let admin = api.admin();
        let client = ClientIdentity {
            cert_pem: admin.cert_pem.clone(),
            key_pem: Secret::new(admin.key_pem.clone()),
        };
        let options = KubeOptions {
            address: api.address().to_owned(),
            ca_pem: api.ca().pem().as_bytes().to_vec(),
            client: Some(client),
            limits: limits(),
        };
        let forward = Http::with_identity(
            limits(),
            &Trust::Pinned(options.ca_pem.clone()),
            options.client.as_ref(),
            PEER,
        )
        .expect("a client");
        let address = options.address.clone();
        let gate = Arc::new(Semaphore::new(0));
        let closed = gate.clone();
        let passes_on = handler(move |request: Request| {
            let (forward, address, gate) = (forward.clone(), address.clone(), closed.clone());
            async move {
                if request.method == Method::PATCH && request.path.ends_with("/held") {
                    gate.acquire().await.expect("nobody closes it").forget();
                }
                pass_on(forward, address, request).await
            }
        });
        let ca = Ca::new("front");
        let server = ServerOptions::new(passes_on, ModelClock::real()).tls(ca.server_config());
        let front = Server::start(server).expect("a server");
        let ours = KubeOptions {
            address: front.url(),
            ca_pem: ca.pem().as_bytes().to_vec(),
            client: None,
            limits: limits(),
        };
        let kube = Kube::new(ours).expect("a client");
        let other = Kube::new(options).expect("a client");
        let directory = TempDir::new().expect("a directory");
        Some(Cluster { front, kube, other, directory, gate, _api: api, _etcd: etcd, _turn: turn })
    }

    /// Puts a manifest into the directory.
    pub(super) fn put(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).expect("a file");
    }

    pub(super) fn remove(&self, name: &str) {
        std::fs::remove_file(self.directory.path().join(name)).expect("a file");
    }

    pub(super) fn set(&self) -> Set {
        assets::read(&Root::new(self.directory.path()), Some(Path::new("/")), Vec::new())
    }

    /// One pass over the directory as it is.
    pub(super) async fn pass(&self) -> Outcome {
        assets::apply(&self.kube, &self.set()).await.expect("a pass")
    }

    /// Passes until nothing is pending; the last one is told.
    pub(super) async fn passes(&self) -> Outcome {
        let end = Instant::now() + SOON;
        loop {
            let outcome = self.pass().await;
            if outcome.settled() {
                return outcome;
            }
            assert!(Instant::now() < end, "{outcome:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn satisfied(&self) -> bool {
        assets::satisfied(&self.kube, &self.set()).await.expect("an answer")
    }

    pub(super) async fn get(&self, path: &str) -> Option<Value> {
        self.other.get(path).await.expect("an answer")
    }

    pub(super) async fn version(&self, path: &str) -> Value {
        self.get(path).await.expect("an object")["metadata"]["resourceVersion"].clone()
    }
}

async fn pass_on(http: Http, address: String, request: Request) -> Response {
    let query =
        if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    let mut passed = http::Request::builder()
        .method(request.method.clone())
        .uri(format!("{address}{}{query}", request.path));
    for name in ["accept", "content-type"] {
        if let Some(value) = request.header(name) {
            passed = passed.header(name, value);
        }
    }
    let passed = passed.body(request.body.to_vec()).expect("a request");
    match http.send(passed).await {
        Ok(answer) => {
            let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok());
            let kind = kind.unwrap_or("text/plain").to_owned();
            Response::typed(answer.status().as_u16(), &kind, answer.into_body())
        }
        Err(error) => Response::text(502, format!("{error:#}")),
    }
}

pub(super) fn map(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: b}}\n")
}

pub(super) fn busy(code: u16) -> Fault {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "busy",
        "code": code,
    });
    let headers = vec![("content-type".into(), "application/json".into())];
    Fault::Status { code, body: body.to_string(), headers }
}

pub(super) fn names(remarks: &[assets::Remark]) -> Vec<&str> {
    remarks.iter().map(|remark| remark.object.as_str()).collect()
}

//! A model of Vault, as far as an agent can meet it: machine logins, tokens, PKI, seal, quotas.
//! It behaves rather than recites: it verifies documents, keeps an access list, cuts leases, signs
//! with keys of its own, and all of that under a clock that a test moves, so that a month passes
//! in a second. The contract suite holds it against the real Vault; where they differ, the model
//! is wrong.

mod answer;
mod aws;
mod cidr;
mod der;
mod fault;
mod field;
mod ids;
mod kv;
mod lease;
mod mounts;
mod pki;
mod policy;
mod quota;
mod seal;
mod state;
mod token;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::{ModelClock, lock};
use crate::pki::Ca;
use crate::server::{Place, Request, Response, Server, ServerOptions, handler};
use crate::setup::{Secret, VaultHandle};
use answer::{Answer, Call};
pub use aws::ec2::{Ec2Error, Ec2Question, Ec2Result, Ec2Source, Instance};
pub use fault::Lie;
use state::{Outcome, State};

/// The version of Vault that the model imitates and the contract suite builds.
pub const VERSION: &str = "1.21.0";

/// Whether the model speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// With a certificate of an authority that the model makes.
    Tls,
    /// Plain HTTP, where a simulation has no use for handshakes.
    Plain,
}

/// In which state the model is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Initialised and unsealed, with a root token.
    Unsealed,
    /// As a server on empty storage starts.
    Uninitialized,
}

/// What a model is started with.
#[derive(Debug)]
pub struct ModelOptions {
    /// Decides when leases and certificates end.
    pub clock: ModelClock,
    /// TLS or plain.
    pub transport: Transport,
    /// Where EC2's word comes from.
    pub ec2: Ec2Source,
    /// Ready to work, or empty.
    pub readiness: Readiness,
    /// The address to listen on: loopback, or one that a machine of the rig reaches.
    pub bind: IpAddr,
    /// On a thread of its own, or in the caller's runtime.
    pub place: Place,
}

impl ModelOptions {
    /// A ready model with TLS that asks EC2 over HTTP, as the real Vault does.
    #[must_use]
    pub fn new(clock: ModelClock) -> ModelOptions {
        crate::pki::install_crypto();
        ModelOptions {
            clock,
            transport: Transport::Tls,
            ec2: Ec2Source::http(),
            readiness: Readiness::Unsealed,
            bind: Ipv4Addr::LOCALHOST.into(),
            place: Place::Thread,
        }
    }
}

/// A running model; dropping it stops it.
#[derive(Debug)]
pub struct Model {
    server: Server,
    core: Arc<Core>,
    ca_pem: String,
    root_token: Secret,
}

/// What the server's handler works on.
struct Core {
    state: Mutex<State>,
    clock: ModelClock,
    ec2: Ec2Source,
    delay: Mutex<Duration>,
}

impl Model {
    /// Starts on a free port.
    pub fn start(options: ModelOptions) -> io::Result<Model> {
        let mut state = State::default();
        let mut root_token = Secret::new("");
        if options.readiness == Readiness::Unsealed {
            root_token = initialize(&mut state, &options.clock);
        }
        let core = Arc::new(Core {
            state: Mutex::new(state),
            clock: options.clock.clone(),
            ec2: options.ec2,
            delay: Mutex::new(Duration::ZERO),
        });
        let shared = Arc::clone(&core);
        let answer = handler(move |request| {
            let core = Arc::clone(&shared);
            async move { core.respond(request).await }
        });
        let ca = Ca::new("model of vault");
        let mut server = ServerOptions::new(answer, options.clock)
            .bind((options.bind, 0).into())
            .place(options.place);
        if options.transport == Transport::Tls {
            server = server.tls(serving(&ca, options.bind)?);
        }
        let server = Server::start(server)?;
        Ok(Model { server, core, ca_pem: ca.pem().to_owned(), root_token })
    }

    /// What setup and tests talk to it with.
    #[must_use]
    pub fn handle(&self) -> VaultHandle {
        VaultHandle {
            address: self.address(),
            ca_pem: self.ca_pem.clone(),
            root_token: self.root_token.clone(),
        }
    }

    /// `https://127.0.0.1:PORT`, or `http:` without TLS.
    #[must_use]
    pub fn address(&self) -> String {
        self.server.url()
    }

    /// The root of the certificate that the model serves.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The root token.
    #[must_use]
    pub fn root_token(&self) -> &Secret {
        &self.root_token
    }

    /// The server in front: its request log, its script of faults, stop and restart.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Seals it, as an operator or a restart would.
    pub fn seal(&self) {
        lock(&self.core.state).seal.seal();
    }

    /// Unseals it with its own keys.
    pub fn unseal(&self) {
        lock(&self.core.state).seal.unseal_now();
    }

    /// Falsifies every certificate that is signed from now on, or stops doing so.
    pub fn lie(&self, lie: Option<Lie>) {
        lock(&self.core.state).lie = lie;
    }

    /// Answers every request only after this long.
    pub fn slow(&self, delay: Duration) {
        *lock(&self.core.delay) = delay;
    }
}

/// A certificate for the address, and for loopback's names.
fn serving(ca: &Ca, bind: IpAddr) -> io::Result<rustls::ServerConfig> {
    let leaf = ca.issue(&["127.0.0.1", "localhost", &bind.to_string()]);
    crate::pki::server_config(&leaf).map_err(io::Error::other)
}

fn initialize(state: &mut State, clock: &ModelClock) -> Secret {
    let body = json!({ "secret_shares": 1, "secret_threshold": 1 });
    let call = Call {
        method: "PUT".into(),
        path: "sys/init".into(),
        query: String::new(),
        token: None,
        body: body.to_string().into_bytes(),
        from: Ipv4Addr::LOCALHOST.into(),
    };
    let Outcome::Answer(answer) = state.handle(clock.now(), &call, None) else {
        return Secret::new("");
    };
    state.seal.unseal_now();
    let keys: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Secret::new(keys["root_token"].as_str().unwrap_or(""))
}

/// The state holds tokens, nonces and keys, so none of it is shown.
impl std::fmt::Debug for Core {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Core(..)")
    }
}

impl Core {
    async fn respond(&self, request: Request) -> Response {
        let delay = *lock(&self.delay);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let Some(call) = call(&request) else {
            return Response::text(404, "404 page not found\n");
        };
        let first = lock(&self.state).handle(self.clock.now(), &call, None);
        let answer = match first {
            Outcome::Answer(answer) => answer,
            Outcome::Ask(question) => {
                let evidence = self.ec2.ask(&question).await;
                let second = lock(&self.state).handle(self.clock.now(), &call, Some(&evidence));
                match second {
                    Outcome::Answer(answer) => answer,
                    Outcome::Ask(_) => Answer::errors(500, &["internal error"]),
                }
            }
        };
        response(answer)
    }
}

fn call(request: &Request) -> Option<Call> {
    let path = request.path.strip_prefix("/v1/")?;
    let bearer = request.header("authorization").and_then(|text| text.strip_prefix("Bearer "));
    let token = request.header("x-vault-token").or(bearer);
    Some(Call {
        method: request.method.to_string(),
        path: path.to_owned(),
        query: request.query.clone(),
        token: token.map(String::from),
        body: request.body.to_vec(),
        from: request.peer.ip(),
    })
}

fn response(answer: Answer) -> Response {
    let mut response = if answer.content_type.is_empty() {
        Response::empty(answer.status)
    } else {
        Response::typed(answer.status, &answer.content_type, answer.body)
    };
    for (name, value) in answer.headers {
        response = response.with_header(&name, &value);
    }
    response
}

#[cfg(test)]
mod tests;

//! The instance metadata service of one instance, version 2 only: a session token by PUT, then
//! documents and metadata. The token's answer carries the instance's hop limit as its IP time to
//! live, so that it dies on the way into a container's network. What it can lie about is data.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_URL_SAFE, Engine};
use jiff::{SignedDuration, Timestamp};
use ring::rand::SecureRandom;
use serde_json::json;

use super::document::{Signer, aws_time, identity_document};
use super::ec2::profile_id;
use super::{Instance, World};
use crate::clock::lock;
use crate::server::{Place, Request, Response, Server, ServerOptions, Step, handler};

/// How long a session may be asked for: six hours.
const TTL_MAX_SECONDS: i64 = 21_600;
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const IDENTITY: &str = "/latest/dynamic/instance-identity/";
/// The version that Ignition asks; what is served does not differ between versions.
const DATED: &str = "/2019-10-01/";
/// Below the metadata; then the name of the role.
const CREDENTIALS: &str = "iam/security-credentials/";
/// Sessions kept; AWS has no such limit, a test that opens more has a loop.
const SESSIONS_MAX: usize = 10_000;

/// What the identity paths serve instead of the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    /// The truth.
    #[default]
    None,
    /// The document of another instance, rightly signed.
    Of(String),
    /// The own document changed after it was signed: another region.
    Tampered,
    /// The own document signed by a key that no Vault knows.
    ForeignSigner,
    /// Text that is no document, unsigned.
    NotADocument,
    /// 404 for the document and all signatures.
    Missing,
}

#[derive(Debug)]
struct Model {
    world: Arc<World>,
    id: String,
    sessions: Mutex<BTreeMap<String, Timestamp>>,
    lie: Mutex<Lie>,
    /// The PKCS #7 that was served last, and of what: AWS signs a document once and not for every
    /// request, and RSA is most of what a log-in costs.
    signed: Mutex<Option<(Served, String)>>,
}

/// A running metadata service; dropping it stops it.
#[derive(Debug)]
pub struct Imds {
    model: Arc<Model>,
    server: Server,
}

impl Imds {
    pub(super) fn start(
        world: Arc<World>,
        id: &str,
        bind: SocketAddr,
        place: Place,
    ) -> io::Result<Self> {
        let clock = world.clock.clone();
        let (sessions, lie, signed) = (Mutex::default(), Mutex::default(), Mutex::default());
        let model = Arc::new(Model { world, id: id.into(), sessions, lie, signed });
        let answering = Arc::clone(&model);
        let answer = handler(move |request| {
            let answer = answering.answer(&request);
            async move { answer }
        });
        let server = Server::start(ServerOptions::new(answer, clock).bind(bind).place(place))?;
        Ok(Self { model, server })
    }

    /// What stands for `http://169.254.169.254`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The server below: its log, `stop` and `restart`.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Scripts failures of the transport: 5xx, slow, garbage.
    pub fn script(&self, steps: Vec<Step>) {
        self.server.script(steps);
    }

    /// Sets what the identity paths serve.
    pub fn lie(&self, lie: Lie) {
        *lock(&self.model.lie) = lie;
    }

    /// What a request would be answered, without a connection.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Response {
        self.model.answer(request)
    }

    /// Ends every session, as a metadata service that restarts does.
    pub fn forget_sessions(&self) {
        lock(&self.model.sessions).clear();
    }
}

impl Model {
    fn answer(&self, request: &Request) -> Response {
        let Some(instance) = self.world.instance(&self.id) else {
            return not_found();
        };
        if request.path == "/latest/api/token" {
            return self.session(request, instance.spec.hop_limit);
        }
        if let Err(refusal) = self.authorise(request) {
            return refusal;
        }
        if request.method != http::Method::GET && request.method != http::Method::HEAD {
            return text(405, "405 - Method Not Allowed");
        }
        let path = match request.path.strip_prefix(DATED) {
            Some(rest) => format!("/latest/{rest}"),
            None => request.path.clone(),
        };
        if let Some(name) = path.strip_prefix(IDENTITY) {
            return self.identity(name, &instance);
        }
        if path == "/latest/user-data" {
            let data = instance.spec.user_data.clone();
            return data.map_or_else(not_found, |data| {
                Response::typed(200, "application/octet-stream", data)
            });
        }
        match path.strip_prefix("/latest/meta-data") {
            Some(name) => metadata(name.trim_start_matches('/'), self.values(&instance)),
            None => not_found(),
        }
    }

    fn values(&self, instance: &Instance) -> BTreeMap<String, String> {
        let mut values = values(instance);
        if let Some(credentials) = self.world.issued.of(instance) {
            let document = credentials.document(self.world.clock.now()).to_string();
            values.insert(format!("{CREDENTIALS}{}", credentials.role), document);
        }
        values
    }

    /// Opens a session, unless a proxy forwarded the request: the rule against open proxies.
    fn session(&self, request: &Request, hop_limit: u32) -> Response {
        if request.method != http::Method::PUT {
            return text(405, "405 - Method Not Allowed");
        }
        if request.headers.contains_key("x-forwarded-for") {
            return text(403, "403 - Forbidden");
        }
        let ttl = request.header(TTL_HEADER).and_then(|ttl| ttl.trim().parse::<i64>().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=TTL_MAX_SECONDS).contains(ttl)) else {
            return text(400, "400 - Bad Request");
        };
        let mut secret = [0; 42];
        ring::rand::SystemRandom::new().fill(&mut secret).expect("the system has randomness");
        let token = BASE64_URL_SAFE.encode(secret);
        let now = self.world.clock.now();
        let end = now.checked_add(SignedDuration::from_secs(ttl)).unwrap_or(Timestamp::MAX);
        let mut sessions = lock(&self.sessions);
        sessions.retain(|_, end| *end > now);
        assert!(sessions.len() < SESSIONS_MAX, "a client opens sessions without end");
        sessions.insert(token.clone(), end);
        let mut answer = text(200, &token).with_header(TTL_HEADER, &ttl.to_string());
        answer.ip_ttl = Some(hop_limit);
        answer
    }

    fn authorise(&self, request: &Request) -> Result<(), Response> {
        let now = self.world.clock.now();
        let sessions = lock(&self.sessions);
        let end = request.header(TOKEN_HEADER).and_then(|token| sessions.get(token));
        match end {
            Some(end) if *end > now => Ok(()),
            _ => Err(text(401, "401 - Unauthorized")),
        }
    }

    fn identity(&self, name: &str, instance: &Instance) -> Response {
        let now = self.world.clock.now();
        let document = identity_document(instance);
        let lie = lock(&self.lie).clone();
        let served = match lie {
            Lie::None => Some(Served::new(Signer::shared(), document)),
            Lie::Of(other) => {
                let other = self.world.instance(&other).expect("the lie names an instance");
                Some(Served::new(Signer::shared(), identity_document(&other)))
            }
            Lie::Tampered => {
                let shown = document.replace(&instance.spec.region, "xx-tampered-1");
                Some(Served { signer: Signer::shared(), signed: document, shown })
            }
            Lie::ForeignSigner => Some(Served::new(foreign_signer(), document)),
            Lie::NotADocument => None,
            Lie::Missing => return not_found(),
        };
        match (name, served) {
            ("document" | "signature" | "rsa2048", None) => text(200, "not a document"),
            ("document", Some(served)) => text(200, &served.shown),
            ("signature", Some(served)) => {
                text(200, &served.signer.signature(served.signed.as_bytes()))
            }
            ("rsa2048", Some(served)) => text(200, &self.rsa2048(served, now)),
            ("", _) => text(200, "document\nrsa2048\nsignature"),
            _ => not_found(),
        }
    }

    fn rsa2048(&self, served: Served, now: Timestamp) -> String {
        let mut last = lock(&self.signed);
        if let Some((_, text)) = last.as_ref().filter(|(before, _)| before.is_same(&served)) {
            return text.clone();
        }
        let text = served.rsa2048(now);
        *last = Some((served, text.clone()));
        text
    }
}

#[derive(Debug)]
struct Served {
    signer: &'static Signer,
    signed: String,
    shown: String,
}

impl Served {
    fn new(signer: &'static Signer, document: String) -> Self {
        Self { signer, signed: document.clone(), shown: document }
    }

    fn is_same(&self, other: &Served) -> bool {
        std::ptr::eq(self.signer, other.signer)
            && (&self.signed, &self.shown) == (&other.signed, &other.shown)
    }

    /// The PKCS #7 of what is signed with what is shown in its place, so that a lie's digest does
    /// not fit.
    fn rsa2048(&self, now: Timestamp) -> String {
        self.signer.rsa2048_showing(self.signed.as_bytes(), self.shown.as_bytes(), now)
    }
}

/// A signer that no Vault was told of, made at its first use.
fn foreign_signer() -> &'static Signer {
    static FOREIGN: std::sync::OnceLock<Signer> = std::sync::OnceLock::new();
    FOREIGN.get_or_init(Signer::generate)
}

fn metadata(name: &str, values: BTreeMap<String, String>) -> Response {
    if let Some(value) = values.get(name) {
        return text(200, value);
    }
    // A directory lists its entries, those that are directories with a slash.
    let prefix =
        if name.is_empty() { String::new() } else { format!("{}/", name.trim_end_matches('/')) };
    let mut entries: Vec<String> = values
        .keys()
        .filter_map(|path| path.strip_prefix(&prefix))
        .map(|rest| match rest.split_once('/') {
            Some((directory, _)) => format!("{directory}/"),
            None => rest.to_owned(),
        })
        .collect();
    entries.dedup();
    if entries.is_empty() { not_found() } else { text(200, &entries.join("\n")) }
}

fn values(instance: &Instance) -> BTreeMap<String, String> {
    let spec = &instance.spec;
    let mut values: BTreeMap<String, String> = [
        ("ami-id", spec.image_id.clone()),
        ("hostname", instance.private_dns()),
        ("instance-id", instance.id.clone()),
        ("instance-type", spec.instance_type.clone()),
        ("local-hostname", instance.private_dns()),
        ("local-ipv4", instance.private_ip.to_string()),
        ("placement/availability-zone", spec.availability_zone.clone()),
        ("placement/region", spec.region.clone()),
        ("services/domain", "amazonaws.com".into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if let Some(arn) = instance.profile_arn() {
        let info = json!({
            "Code": "Success",
            "LastUpdated": aws_time(instance.pending_time),
            "InstanceProfileArn": arn,
            "InstanceProfileId": profile_id(&arn),
        });
        values.insert("iam/info".into(), info.to_string());
    }
    for (key, value) in &spec.tags {
        values.insert(format!("tags/instance/{key}"), value.clone());
    }
    values
}

fn text(status: u16, text: &str) -> Response {
    Response::text(status, text)
}

fn not_found() -> Response {
    text(404, "404 - Not Found")
}

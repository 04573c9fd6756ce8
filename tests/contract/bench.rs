//! The bench that a case works on: one Vault, configured with the shipped data, and for each case
//! a trace of what was asked and answered, an AWS of its own and mounts of its own, so that cases
//! can run side by side.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rig::aws::document::{Signer, identity_document};
use rig::aws::{Aws, Instance, LaunchSpec};
use rig::clock::ModelClock;
use rig::peer::vault::RealVault;
use rig::setup::{Admin, Configured, Reply, SetupOptions, VaultHandle, configure};
use rig::vault::{Model, ModelOptions, Readiness};
use serde_json::{Value, json};

use crate::trace::Entry;

/// What a case comes to.
pub(crate) type Outcome = Result<(), String>;

/// Which peer it is, and by what its time passes.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Model(ModelClock),
    Real,
}

/// One Vault with the shipped configuration.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    kind: Kind,
    vault: VaultHandle,
    admin: Admin,
    aws: Rc<Aws>,
    configured: Rc<Configured>,
}

impl Bench {
    pub(crate) async fn new(kind: Kind, vault: VaultHandle) -> Result<Bench, String> {
        let aws = Aws::start(kind.clock()).map_err(|error| error.to_string())?;
        let options = SetupOptions::new(aws.ec2_url(), aws.signing_certificate_pem());
        let configured = Rc::new(configure(&vault, &options).await?);
        let admin = vault.admin();
        Ok(Bench { kind, vault, admin, aws: Rc::new(aws), configured })
    }
}

impl Kind {
    pub(crate) fn clock(&self) -> ModelClock {
        match self {
            Kind::Model(clock) => clock.clone(),
            Kind::Real => ModelClock::real(),
        }
    }
}

/// A server of a case's own, for what cannot be shared: initialising, sealing.
pub(crate) enum Own {
    Model(Model),
    Real(RealVault),
}

impl Own {
    pub(crate) fn handle(&self) -> VaultHandle {
        match self {
            Own::Model(model) => model.handle(),
            Own::Real(vault) => vault.handle(),
        }
    }
}

/// What one case works with.
#[derive(Debug)]
pub(crate) struct Ctx {
    bench: Bench,
    name: &'static str,
    trace: Rc<RefCell<Vec<Entry>>>,
}

/// A client whose calls are put on the case's trace.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    admin: Admin,
    trace: Option<Rc<RefCell<Vec<Entry>>>>,
}

impl Caller {
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> Result<Reply, String> {
        let reply = self.admin.call(method, path, body).await?;
        if let Some(trace) = &self.trace {
            trace.borrow_mut().push(Entry::new(method, path, &reply));
        }
        Ok(reply)
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Reply, String> {
        self.call("GET", path, None).await
    }

    pub(crate) async fn write(&self, path: &str, body: Value) -> Result<Reply, String> {
        self.call("POST", path, Some(body.to_string())).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Reply, String> {
        self.call("DELETE", path, None).await
    }

    pub(crate) async fn list(&self, path: &str) -> Result<Reply, String> {
        self.call("LIST", path, None).await
    }

    /// The same caller with another token.
    pub(crate) fn with(&self, token: &str) -> Caller {
        Caller { admin: self.admin.with_token(Some(token)), trace: self.trace.clone() }
    }

    /// The same caller without a token.
    pub(crate) fn anyone(&self) -> Caller {
        Caller { admin: self.admin.with_token(None), trace: self.trace.clone() }
    }

    /// The same caller off the record: for answers that tell about the server, not the contract.
    pub(crate) fn quiet(&self) -> Caller {
        Caller { admin: self.admin.clone(), trace: None }
    }
}

impl Ctx {
    pub(crate) fn new(bench: &Bench, name: &'static str) -> Ctx {
        Ctx { bench: bench.clone(), name, trace: Rc::default() }
    }

    pub(crate) fn trace(&self) -> Vec<Entry> {
        self.trace.borrow().clone()
    }

    /// A caller with the root token, on the record.
    pub(crate) fn root(&self) -> Caller {
        Caller { admin: self.bench.admin.clone(), trace: Some(Rc::clone(&self.trace)) }
    }

    /// A caller without a token.
    pub(crate) fn anyone(&self) -> Caller {
        self.root().anyone()
    }

    /// What setup does is not on the record.
    pub(crate) async fn setup(&self, path: &str, body: Value) -> Outcome {
        self.bench.admin.must_write(path, &body).await.map(drop)
    }

    pub(crate) fn address(&self) -> &str {
        &self.bench.vault.address
    }

    /// A plain client that trusts this Vault, for what the administrator's client cannot send.
    pub(crate) fn http(&self) -> Result<reqwest::Client, String> {
        let root = reqwest::Certificate::from_pem(self.bench.vault.ca_pem.as_bytes());
        let root = root.map_err(|error| error.to_string())?;
        let builder = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
        builder.timeout(Duration::from_secs(20)).build().map_err(|error| error.to_string())
    }

    /// The root certificates of the shipped mounts.
    pub(crate) fn roots(&self) -> &std::collections::BTreeMap<String, String> {
        &self.bench.configured.roots
    }

    /// Accessor of the shipped auth mount.
    pub(crate) fn accessor(&self) -> &str {
        &self.bench.configured.auth_accessor
    }

    /// The AWS behind the shipped auth mount.
    pub(crate) fn shipped_aws(&self) -> &Aws {
        &self.bench.aws
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.bench.kind.clock().now()
    }

    /// Lets time pass: at once on the model, really on the real one.
    pub(crate) async fn pass(&self, seconds: f64) {
        match &self.bench.kind {
            Kind::Model(clock) => clock.advance(SignedDuration::from_secs_f64(seconds)),
            Kind::Real => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
        }
    }

    /// A server of the case's own.
    pub(crate) async fn own(&self, readiness: Readiness) -> Result<(Own, Caller), String> {
        let own = match &self.bench.kind {
            Kind::Model(clock) => {
                let mut options = ModelOptions::new(clock.clone());
                options.readiness = readiness;
                Own::Model(Model::start(options).map_err(|error| error.to_string())?)
            }
            Kind::Real if readiness == Readiness::Unsealed => Own::Real(RealVault::start().await?),
            Kind::Real => Own::Real(RealVault::start_uninitialized().await?),
        };
        let admin = own.handle().admin();
        Ok((own, Caller { admin, trace: Some(Rc::clone(&self.trace)) }))
    }

    /// A path of the case's own.
    pub(crate) fn mount(&self, what: &str) -> String {
        format!("{}-{what}", self.name.replace("::", "-").replace('_', "-"))
    }

    /// An auth mount of the case's own with an AWS of its own, and one role for any instance.
    pub(crate) async fn auth(&self) -> Result<Auth<'_>, String> {
        let aws = Aws::start(self.bench.kind.clock()).map_err(|error| error.to_string())?;
        let mount = self.mount("aws");
        self.setup(&format!("sys/auth/{mount}"), json!({ "type": "aws" })).await?;
        let auth = Auth { ctx: self, aws, mount };
        let url = auth.aws.ec2_url();
        let client = json!({
            "access_key": "AK", "secret_key": "SK", "endpoint": url,
            "sts_endpoint": url, "sts_region": "us-east-1", "max_retries": 3,
        });
        self.setup(&auth.path("config/client"), client).await?;
        for kind in ["pkcs7", "identity"] {
            let pem = auth.aws.signing_certificate_pem();
            let body = json!({ "type": kind, "aws_public_cert": pem });
            self.setup(&auth.path(&format!("config/certificate/{kind}")), body).await?;
        }
        auth.role("node", json!({})).await?;
        Ok(auth)
    }

    /// A PKI mount of the case's own with a P-256 root of ten years.
    pub(crate) async fn pki(&self) -> Result<String, String> {
        let mount = self.mount("pki");
        let config = json!({ "max_lease_ttl": "87600h" });
        let body = json!({ "type": "pki", "config": config });
        self.setup(&format!("sys/mounts/{mount}"), body).await?;
        let root = json!({ "common_name": "root", "key_type": "ec", "ttl": "87600h" });
        self.setup(&format!("{mount}/root/generate/internal"), root).await?;
        Ok(mount)
    }
}

/// An auth mount with the AWS that it believes.
#[derive(Debug)]
pub(crate) struct Auth<'a> {
    ctx: &'a Ctx,
    pub(crate) aws: Aws,
    mount: String,
}

impl Auth<'_> {
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("auth/{}/{rest}", self.mount)
    }

    /// Writes a role that any instance of the account satisfies, with more fields.
    pub(crate) async fn role(&self, name: &str, more: Value) -> Outcome {
        self.ctx.setup(&self.path(&format!("role/{name}")), role(more)).await
    }

    pub(crate) fn launch(&self) -> String {
        self.aws.launch(LaunchSpec::default())
    }

    pub(crate) fn instance(&self, id: &str) -> Instance {
        self.aws.instance(id).expect("the case launched it")
    }

    /// The rsa2048 form of a document.
    pub(crate) fn pkcs7(&self, document: &str) -> String {
        Signer::shared().rsa2048(document.as_bytes(), self.ctx.now())
    }

    pub(crate) fn document(&self, id: &str) -> String {
        identity_document(&self.instance(id))
    }

    /// The document with another instant at which the instance was started.
    pub(crate) fn document_at(&self, id: &str, pending_time: &str) -> String {
        let mut instance = self.instance(id);
        instance.pending_time = pending_time.parse().expect("the case's own timestamp");
        identity_document(&instance)
    }

    /// Sends a login body.
    pub(crate) async fn send(&self, body: Value) -> Result<Reply, String> {
        self.ctx.anyone().write(&self.path("login"), body).await
    }

    /// Logs in with a document, under a role, with more fields such as the nonce.
    pub(crate) async fn login_with(
        &self,
        document: &str,
        role: &str,
        more: Value,
    ) -> Result<Reply, String> {
        let mut body = json!({ "role": role, "pkcs7": self.pkcs7(document) });
        merge(&mut body, more);
        self.send(body).await
    }

    /// Logs an instance in under the role `node`.
    pub(crate) async fn login(&self, id: &str, more: Value) -> Result<Reply, String> {
        self.login_with(&self.document(id), "node", more).await
    }

    /// Logs in under a role and takes the token.
    pub(crate) async fn token(&self, id: &str, role: &str) -> Result<Caller, String> {
        let reply = self.login_with(&self.document(id), role, json!({ "nonce": "n" })).await?;
        ok(&reply)?;
        Ok(self.ctx.root().with(reply.auth("client_token").as_str().unwrap_or("")))
    }
}

/// A role that any instance of the account satisfies, with more fields.
pub(crate) fn role(more: Value) -> Value {
    let mut body = json!({
        "auth_type": "ec2",
        "bound_account_id": [rig::aws::ACCOUNT],
        "token_policies": ["default"],
        "token_ttl": "1h",
        "token_max_ttl": "24h",
    });
    merge(&mut body, more);
    body
}

/// Adds or replaces fields.
pub(crate) fn merge(body: &mut Value, more: Value) {
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
}

/// The answer has this status and exactly this error.
pub(crate) fn is(reply: &Reply, status: u16, error: &str) -> Outcome {
    if reply.status == status && reply.error() == error {
        return Ok(());
    }
    Err(format!("wanted {status} {error:?}, got {} {}", reply.status, reply.text.trim()))
}

/// The answer has this status and an error that holds this text.
pub(crate) fn has(reply: &Reply, status: u16, part: &str) -> Outcome {
    if reply.status == status && reply.error().contains(part) {
        return Ok(());
    }
    Err(format!("wanted {status} …{part:?}…, got {} {}", reply.status, reply.text.trim()))
}

/// The answer has this status.
pub(crate) fn status(reply: &Reply, status: u16) -> Outcome {
    if reply.status == status {
        return Ok(());
    }
    Err(format!("wanted {status}, got {} {}", reply.status, reply.text.trim()))
}

/// The answer is a success with a body.
pub(crate) fn ok(reply: &Reply) -> Outcome {
    status(reply, 200)
}

/// Two values are the same.
pub(crate) fn same(what: &str, got: &Value, wanted: Value) -> Outcome {
    if *got == wanted {
        return Ok(());
    }
    Err(format!("{what}: wanted {wanted}, got {got}"))
}

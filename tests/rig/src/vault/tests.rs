//! The model on its own: configured with the shipped data, logged in to, and a month passing.
//! What it shares with the real Vault is held by the contract suite.

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use super::{Lie, Model, ModelOptions};
use crate::aws::document::{Signer, identity_document};
use crate::aws::{Aws, LaunchSpec};
use crate::clock::ModelClock;
use crate::setup::{Admin, Reply, SetupOptions, configure};

struct Site {
    clock: ModelClock,
    model: Model,
    aws: Aws,
    id: String,
}

async fn site() -> Site {
    let start: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a timestamp");
    let clock = ModelClock::manual(start);
    let aws = Aws::start(clock.clone()).expect("the model of AWS starts");
    let model = Model::start(ModelOptions::new(clock.clone())).expect("the model starts");
    let options = SetupOptions::new(aws.ec2_url(), aws.signing_certificate_pem());
    let made = configure(&model.handle(), &options).await.expect("the shipped data is accepted");
    assert_eq!(made.roots.len(), 3);
    let id = aws.launch(LaunchSpec::profile("worker"));
    Site { clock, model, aws, id }
}

impl Site {
    fn client(&self) -> Admin {
        self.model.handle().client(None)
    }

    async fn login(&self, role: &str) -> Reply {
        let instance = self.aws.instance(&self.id).expect("launched");
        let document = identity_document(&instance);
        let pkcs7 = Signer::shared().rsa2048(document.as_bytes(), self.clock.now());
        let body = json!({ "role": role, "pkcs7": pkcs7, "nonce": "n-1" });
        self.client().write("auth/aws/login", &body).await.expect("an answer")
    }

    fn request(&self, name: &str) -> Value {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let csr = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        json!({ "csr": csr, "common_name": name, "ttl": "24h" })
    }
}

fn token(reply: &Reply) -> String {
    reply.auth("client_token").as_str().unwrap_or("").to_owned()
}

#[tokio::test]
async fn a_node_logs_in_and_gets_its_own_name_only() {
    let site = site().await;
    let login = site.login("worker").await;
    assert_eq!(login.status, 200, "{}", login.text);
    let node = site.client().with_token(Some(&token(&login)));
    let own = format!("system:node:{}", site.id);
    let signed = node.write("pki/sign/kubelet-client", &site.request(&own)).await.expect("reply");
    assert_eq!(signed.status, 200, "{}", signed.text);
    let other = site.request("system:node:i-0");
    let refused = node.write("pki/sign/kubelet-client", &other).await.expect("reply");
    assert_eq!(refused.error(), "common name system:node:i-0 not allowed by this role");
    let denied = node.write("pki/sign/kube-apiserver", &other).await.expect("reply");
    assert_eq!(
        (denied.status, denied.error()),
        (403, "1 error occurred:\n\t* permission denied\n\n")
    );
    let wrong = site.login("controller").await;
    assert!(wrong.error().contains("does not satisfy the constraint role"), "{}", wrong.text);
}

#[tokio::test]
async fn a_month_passes_in_a_second_and_ends_every_lease() {
    let site = site().await;
    let node = site.client().with_token(Some(&token(&site.login("worker").await)));
    for _ in 0..23 {
        site.clock.advance(SignedDuration::from_mins(59));
        let renewed = node.write("auth/token/renew-self", &json!({})).await.expect("reply");
        assert_eq!(renewed.auth("lease_duration"), 3_600, "{}", renewed.text);
    }
    site.clock.advance(SignedDuration::from_mins(59));
    let cut = node.write("auth/token/renew-self", &json!({})).await.expect("reply");
    assert_eq!(cut.auth("lease_duration"), 24 * 60, "{}", cut.text);
    site.clock.advance(SignedDuration::from_hours(24 * 30));
    let gone = node.read("auth/token/lookup-self").await.expect("reply");
    assert_eq!(gone.error(), "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n");
    assert_eq!(site.login("worker").await.status, 200);
}

#[tokio::test]
async fn the_model_lies_when_told_to() {
    let site = site().await;
    let node = site.client().with_token(Some(&token(&site.login("worker").await)));
    let own = format!("system:node:{}", site.id);
    let body = site.request(&own);
    for lie in [Lie::WrongName, Lie::OtherKey, Lie::OtherIssuer, Lie::Expired, Lie::NoUsage] {
        site.model.lie(Some(lie));
        let signed = node.write("pki/sign/kubelet-client", &body).await.expect("reply");
        assert_eq!(signed.status, 200, "{lie:?}: {}", signed.text);
        assert!(caught(&signed, &body, &own, site.clock.now()), "{lie:?} is no lie");
    }
    site.model.lie(None);
    let honest = node.write("pki/sign/kubelet-client", &body).await.expect("reply");
    assert!(!caught(&honest, &body, &own, site.clock.now()), "the truth looks like a lie");
}

/// Whether a certificate is not what was asked for.
fn caught(reply: &Reply, asked: &Value, name: &str, now: Timestamp) -> bool {
    let block = |value: &Value| {
        let pem = value.as_str().expect("PEM").trim();
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM").1.contents
    };
    let (leaf, root) = (block(reply.data("certificate")), block(reply.data("issuing_ca")));
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).expect("a certificate");
    let (_, root) = x509_parser::parse_x509_certificate(&root).expect("a certificate");
    let csr = block(&asked["csr"]);
    use x509_parser::prelude::FromDer as _;
    let (_, csr) =
        x509_parser::certification_request::X509CertificationRequest::from_der(&csr).expect("csr");
    let same_key = leaf.public_key().raw == csr.certification_request_info.subject_pki.raw;
    let named = leaf.subject().iter_common_name().any(|cn| cn.as_str() == Ok(name));
    let signed = leaf.verify_signature(Some(root.public_key())).is_ok();
    let usage =
        leaf.extended_key_usage().ok().flatten().is_some_and(|usage| usage.value.client_auth);
    let live = leaf.validity().not_after.timestamp() > now.as_second();
    !(same_key && named && signed && usage && live)
}

#[tokio::test]
async fn a_sealed_model_says_so_and_keeps_its_tokens() {
    let site = site().await;
    let node = site.client().with_token(Some(&token(&site.login("worker").await)));
    site.model.seal();
    let sealed = node.read("auth/token/lookup-self").await.expect("reply");
    assert_eq!((sealed.status, sealed.error()), (503, "Vault is sealed"));
    assert_eq!(node.read("sys/health").await.expect("reply").status, 503);
    site.model.unseal();
    assert_eq!(node.read("auth/token/lookup-self").await.expect("reply").status, 200);
}

//! Where keys are, and what nodes keep away from: a key is made on its node and is in no request,
//! no node has the key of an authority, and the seal of Vault and what opens it are not a node's.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PublicKeyData};
use rig::pki::Ca;
use rig::server::{Request, Response, Server, ServerOptions, handler};
use rig::stage::{Stage, StageOptions};
use rig::systemd::{Behaviour, Unit};
use x509_parser::pem::Pem;

use crate::play::*;

/// The requests of Vault that went by: path and body.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// Puts somebody between agent and Vault who reads everything.
fn eavesdropper(stage: &Stage) -> (Server, Asked) {
    rig::pki::install_crypto();
    let vault = stage.vault.handle();
    let root = reqwest::Certificate::from_pem(vault.ca_pem.as_bytes()).expect("the model's PEM");
    let client = reqwest::Client::builder().tls_certs_only([root]).timeout(SOON);
    let client = client.build().expect("a client");
    let asked = Asked::default();
    let heard = asked.clone();
    let answers = handler(move |request: Request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let mut all = heard.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((request.path.clone(), body));
        let url = format!("{}{}", vault.address, request.path);
        let forward = client.request(request.method.clone(), url).headers(request.headers.clone());
        let forward = forward.body(request.body.clone());
        async move {
            let answer = forward.send().await.expect("the model answers");
            let status = answer.status().as_u16();
            Response::typed(status, "application/json", answer.bytes().await.expect("a body"))
        }
    });
    let ca = Ca::new("an eavesdropper's");
    let options = ServerOptions::new(answers, stage.clock.clone()).tls(ca.server_config());
    let server = Server::start(options).expect("a free port");
    stage.write("/etc/nodeagent/vault-ca.pem", ca.pem().as_bytes()).expect("it is written");
    configure(stage, &format!("[vault]\naddress = \"{}\"\n", server.url()));
    (server, asked)
}

/// Every private key on a node, as PEM.
fn keys(stage: &Stage) -> BTreeSet<String> {
    let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
    let mut found = BTreeSet::new();
    walk(stage.root(), &mut |_, content| {
        let text = String::from_utf8_lossy(&content).into_owned();
        for part in text.split(begin).skip(1) {
            let body = part.split(end).next().expect("the first part");
            found.insert(format!("{begin}{body}{end}\n"));
        }
    });
    found
}

#[tokio::test]
async fn n13_keys_are_made_on_the_node_and_are_in_no_request() {
    let stage = stage(StageOptions::worker()).await;
    let (_server, asked) = eavesdropper(&stage);
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let mut made = keys(&stage);
    renew(&stage);
    made.extend(keys(&stage));
    assert_eq!(made.len(), 3, "two certificates and a renewal");
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    let signs: Vec<_> = asked.iter().filter(|(path, _)| path.contains("/sign/")).collect();
    assert_eq!(signs.len(), 3);
    assert!(signs.iter().all(|(_, body)| body.contains("BEGIN CERTIFICATE REQUEST")));
    for (path, body) in asked.iter() {
        assert!(!path.contains("/issue/"), "{path} would have Vault make the key");
        assert!(!body.contains("PRIVATE KEY"), "{path}");
        // A line is base64 by itself, wherever it stands.
        let lines = made.iter().flat_map(|key| key.lines().filter(|line| line.len() == 64));
        assert!(lines.clone().count() >= made.len(), "a key has such lines");
        for line in lines {
            assert!(!body.contains(line), "{path} has a part of a key");
        }
    }
}

/// How many of these keys belong to an authority.
fn of_authorities(keys: &BTreeSet<String>, bundles: &[String]) -> usize {
    let mut known = BTreeSet::new();
    for block in bundles.iter().flat_map(|bundle| Pem::iter_from_buffer(bundle.as_bytes())) {
        let block = block.expect("PEM");
        let ca = block.parse_x509().expect("a certificate");
        known.insert(ca.public_key().subject_public_key.data.to_vec());
    }
    assert!(known.len() >= bundles.len(), "each has one at least");
    let public = |pem: &String| KeyPair::from_pem(pem).expect("a key").der_bytes().to_vec();
    keys.iter().filter(|pem| known.contains(&public(pem))).count()
}

#[tokio::test]
async fn z06_no_key_of_an_authority_is_on_a_controller() {
    let mut options = StageOptions::worker().with(
        "[variables]\napi_server = \"api.rig.test\"\nservice_ip = \"10.96.0.1\"\n\
         [[consumer]]\nname = \"etcd-member\"\nact = \"nothing\"\n\
         [[consumer]]\nname = \"kube-apiserver\"\nact = \"nothing\"\n",
    );
    options.role = "controller";
    let stage = stage(options).await;
    stage.systemd.add_unit("etcd-member.service", Unit::inactive(Behaviour::Works));
    let _agent = stage.run().expect("the agent starts");
    wait_healthy(&stage);
    let mut bundles: Vec<String> = stage.configured.roots.values().cloned().collect();
    assert_eq!(bundles.len(), 3);
    let found = keys(&stage);
    assert_eq!(found.len(), 11, "one for each certificate");
    assert_eq!(of_authorities(&found, &bundles), 0);

    // An authority as a site might have it by mistake, key and all.
    let key = KeyPair::generate().expect("ring makes P-256 keys");
    let mut planted = CertificateParams::default();
    planted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    bundles.push(planted.self_signed(&key).expect("it signs itself").pem());
    stage.write("/etc/nodeagent/ca.key", key.serialize_pem().as_bytes()).expect("planted");
    assert_eq!(of_authorities(&keys(&stage), &bundles), 1, "a search that finds");
}

/// All that a worker asks Vault for.
const ASKED: [&str; 6] = [
    "/v1/auth/aws/login",
    "/v1/auth/token/lookup-self",
    "/v1/auth/token/renew-self",
    "/v1/pki/sign/kubelet-client",
    "/v1/pki/sign/kubelet-server",
    "/v1/sys/health",
];

#[tokio::test]
async fn z08_a_sealed_vault_is_left_to_its_administrator() {
    let mut options = StageOptions::worker();
    options.setup.token_ttl = "4s".into();
    let stage = stage(options).await;
    stage.model().server().clear_log();
    stage.model().seal();
    let _agent = stage.run().expect("the agent starts");
    wait_problem(&stage, "vault-sealed");
    stage.model().unseal();
    wait_healthy(&stage);
    until("a renewal", || calls(&stage, "auth/token/renew-self") >= 1);
    stage.model().seal();
    wait_problem(&stage, "vault-sealed");
    let asked: BTreeSet<_> =
        stage.model().server().requests().into_iter().map(|it| it.path).collect();
    assert!(asked.contains("/v1/auth/aws/login"), "{asked:?}");
    let other: Vec<_> = asked.iter().filter(|path| !ASKED.contains(&path.as_str())).collect();
    assert!(other.is_empty(), "{other:?}");
    // Whoever unseals has the token of root, and that is not here.
    let root = stage.vault.handle().root_token.expose().to_owned();
    let mut holders = Vec::new();
    walk(stage.root(), &mut |path, content| {
        if content.windows(root.len()).any(|part| part == root.as_bytes()) {
            holders.push(path.display().to_string());
        }
    });
    assert_eq!(holders, [""; 0]);
}

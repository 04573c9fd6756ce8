//! docs/vault.md, tried: its commands are run as they stand, by a shell with the real `vault`,
//! against the real Vault, and what they make is compared with what the rig makes of the same
//! files.

mod page;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::shipped::{self, Write, shipped};
use super::{Admin, SetupOptions, accessor, configure};
use crate::aws::document::{Signer, identity_document};
use crate::aws::{Aws, LaunchSpec};
use crate::clock::ModelClock;
use crate::peer::vault::RealVault;
use page::{blocks, run};

/// What the page exports.
fn values_of_the_page() -> SetupOptions {
    SetupOptions {
        cluster: "prod".into(),
        api_name: "api.prod.example".into(),
        node_cidrs: "10.0.0.0/16".into(),
        ..SetupOptions::new("https://sts.us-east-1.amazonaws.com", "")
    }
}

/// Values of the second cluster, in the words of the page.
const SECOND: [(&str, &str); 2] =
    [("cluster=prod", "cluster=staging"), ("prefix= ", "prefix=staging- ")];

/// A Vault and an administrator's home, or none where there is no real Vault.
struct Site {
    vault: RealVault,
    home: tempfile::TempDir,
}

impl Site {
    async fn start() -> Option<Site> {
        let must = std::env::var_os("NODEAGENT_TESTS_MUST_RUN").is_some_and(|v| v == "1");
        let tool = ["envsubst", "openssl"].into_iter().find(|name| !page::is_there(name));
        let vault = match tool {
            Some(name) => Err(format!("{name} is missing")),
            None => RealVault::start().await,
        };
        match vault {
            Ok(vault) => {
                let home = page::home(&vault).expect("a directory to write in");
                Some(Site { vault, home })
            }
            Err(reason) => {
                assert!(!must, "{reason}, and NODEAGENT_TESTS_MUST_RUN=1");
                println!("not run here: {reason}");
                None
            }
        }
    }

    /// Runs blocks of the page in one shell; the answer is what they print.
    fn run(&self, blocks: &[String]) -> String {
        run(&self.vault, self.home.path(), &blocks.concat())
    }

    fn admin(&self) -> Admin {
        self.vault.handle().admin()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    async fn authority(&self, mount: &str) -> String {
        self.admin().read(&format!("{mount}/ca/pem")).await.expect("an answer").text
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Makes by API what the page makes by hand.
async fn by_api(admin: &Admin, options: &SetupOptions) -> Vec<Write> {
    let mut writes = Vec::new();
    if accessor(admin, &options.auth_mount).await.is_err() {
        writes = shipped::auth(options).expect("the data");
        for write in &writes {
            admin.must_write(&write.path, &write.body).await.expect("a write");
        }
    }
    let accessor = accessor(admin, &options.auth_mount).await.expect("the mount");
    let rest = shipped(options, &accessor).expect("the data");
    for write in &rest {
        admin.must_write(&write.path, &write.body).await.expect("a write");
    }
    writes.extend(rest);
    writes
}

/// What a Vault has of a write, without what it makes up.
async fn kept(admin: &Admin, accessor: &str, write: &Write) -> Value {
    let path = match write.authority_of() {
        Some(mount) => format!("{mount}/issuer/default"),
        None => write.path.clone(),
    };
    let reply = admin.read(&path).await.expect("an answer");
    assert_eq!(reply.status, 200, "{path}: {}", reply.text);
    let text = reply.json["data"].to_string().replace(accessor, "ACCESSOR");
    let mut data: Value = serde_json::from_str(&text).expect("JSON");
    for made_up in ["accessor", "uuid", "role_id", "issuer_id", "key_id", "certificate"] {
        data[made_up] = Value::Null;
    }
    data["ca_chain"] = Value::Null;
    data
}

/// The names of everything, so that nothing is there that the other has not.
async fn names(admin: &Admin, options: &SetupOptions) -> Value {
    let mut all = json!({});
    let roles = format!("auth/{}/role", options.auth_mount);
    let mut lists = vec!["sys/policies/acl".to_owned(), "sys/quotas/rate-limit".into(), roles];
    for mount in ["pki", "pki-etcd", "pki-front-proxy"] {
        lists.push(format!("{}{mount}/roles", options.prefix));
    }
    for path in lists {
        let keys = admin.list(&path).await.expect("an answer").json["data"]["keys"].clone();
        let mut keys: Vec<String> = serde_json::from_value(keys).expect("a list");
        keys.sort();
        all[&path] = json!(keys);
    }
    for path in ["sys/mounts", "sys/auth"] {
        let data = admin.read(path).await.expect("an answer").json["data"].clone();
        all[path] = json!(data.as_object().expect("mounts").keys().collect::<Vec<_>>());
    }
    all
}

async fn compare(hand: &Site, api: &Site, options: &SetupOptions, writes: &[Write]) {
    let (hand, api) = (hand.admin(), api.admin());
    let mount = &options.auth_mount;
    let by_hand = accessor(&hand, mount).await.expect("mounted by hand");
    let by_api = accessor(&api, mount).await.expect("mounted by API");
    for write in writes {
        let left = kept(&hand, &by_hand, write).await;
        let right = kept(&api, &by_api, write).await;
        assert_eq!(left, right, "{}", write.file);
    }
    assert_eq!(names(&hand, options).await, names(&api, options).await);
}

#[tokio::test]
async fn the_commands_of_the_page_make_what_the_rig_makes() {
    let (Some(hand), Some(api)) = (Site::start().await, Site::start().await) else { return };
    let options = values_of_the_page();
    let mut commands = blocks("Applying");
    assert_eq!(commands.len(), 7, "a block for each step");
    let reviews = blocks("Reviewing");
    commands.extend(reviews);
    let printed = hand.run(&commands);
    let missing: Vec<&str> = printed.lines().filter(|line| line.starts_with("no value")).collect();
    assert_eq!(missing, ["no value: auth_accessor"]);
    for shown in ["== pki/roles/kubelet-client", "== sys/policies/acl/worker", "bootstrap-admin"] {
        assert!(printed.contains(shown), "no {shown} in {printed}");
    }
    let writes = by_api(&api.admin(), &options).await;
    compare(&hand, &api, &options, &writes).await;
    for mount in ["pki", "pki-etcd", "pki-front-proxy"] {
        let pinned = read(&hand.file(&format!("prod-{mount}.pem")));
        assert_eq!(pinned, format!("{}\n", hand.authority(mount).await.trim_end()));
    }

    // Steps 5 and 6 once more: nothing changes.
    hand.run(&[commands[0].clone(), page::accessor(&commands[1]), commands[4..6].concat()]);
    compare(&hand, &api, &options, &writes).await;

    // A second cluster, with the auth method of the first.
    let second = SetupOptions { cluster: "staging".into(), prefix: "staging-".into(), ..options };
    let values = SECOND.iter().fold(commands[0].clone(), |text, (old, new)| {
        assert!(text.contains(old), "the page exports no {old}");
        text.replace(old, new)
    });
    hand.run(&[values, page::accessor(&commands[1]), commands[2..7].concat()]);
    let writes = by_api(&api.admin(), &second).await;
    compare(&hand, &api, &second, &writes).await;
    let pinned = read(&hand.file("staging-pki-etcd.pem"));
    assert_eq!(pinned.trim_end(), hand.authority("staging-pki-etcd").await.trim_end());
}

#[tokio::test]
async fn a_second_authority_signs_only_when_it_is_told_to() {
    let Some(site) = Site::start().await else { return };
    let commands = blocks("Applying");
    let [rotate, switch, forget]: [String; 3] =
        blocks("Another authority in the place of one").try_into().expect("three steps");
    site.run(&commands);
    let first = site.authority("pki").await;
    site.run(&[commands[0].clone(), rotate]);
    assert_eq!(site.authority("pki").await, first, "the second root signs already");
    let both = read(&site.file("prod-pki.pem"));
    assert_eq!(both.matches("BEGIN CERTIFICATE").count(), 2, "{both}");
    assert!(both.starts_with(first.trim_end()));
    site.run(&[commands[0].clone(), switch]);
    let second = site.authority("pki").await;
    assert!(second != first && both.trim_end().ends_with(second.trim_end()));
    site.run(&[commands[0].clone(), forget]);
    let left = site.admin().list("pki/issuers").await.expect("an answer");
    assert_eq!(left.data("keys").as_array().map(Vec::len), Some(1));
    assert_eq!(site.authority("pki").await, second);
}

#[tokio::test]
async fn an_authority_may_be_signed_by_one_that_is_offline() {
    let Some(site) = Site::start().await else { return };
    page::offline_root(site.home.path()).expect("a root");
    let mut commands = blocks("Applying");
    // Instead of step 4, and 7 is done by it.
    commands.splice(3..4, blocks("An authority above Vault's"));
    commands.pop();
    let directory = "\ncd \"$OLDPWD\"\n".to_owned();
    let end = commands.len() - 2;
    commands.insert(end, directory);
    site.run(&commands);
    let root = read(&site.file("root.pem"));
    for mount in ["pki", "pki-etcd", "pki-front-proxy"] {
        let pinned = read(&site.file(&format!("prod-{mount}.pem")));
        assert_eq!(pinned.trim_end(), site.authority(mount).await.trim_end());
        assert!(page::verifies(&pinned, &root), "{mount} is not of the root");
    }
    let csr = rcgen::KeyPair::generate().expect("a key");
    let csr = rcgen::CertificateParams::default().serialize_request(&csr).expect("a request");
    let body = json!({ "csr": csr.pem().expect("PEM"), "common_name": "system:kube-scheduler" });
    let signed = site.admin().must_write("pki/sign/scheduler", &body).await.expect("signed");
    let leaf = signed.data("certificate").as_str().expect("PEM").to_owned();
    assert!(page::verifies(&leaf, &read(&site.file("prod-pki.pem"))));
    assert!(!page::verifies(&leaf, &read(&site.file("prod-pki-etcd.pem"))));
}

#[tokio::test]
async fn all_nodes_are_logged_out_at_once() {
    let Some(site) = Site::start().await else { return };
    let aws = Aws::start(ModelClock::real()).expect("the model of AWS starts");
    let options = SetupOptions::new(aws.ec2_url(), aws.signing_certificate_pem());
    configure(&site.vault.handle(), &options).await.expect("the shipped data is accepted");
    let instance = aws.instance(&aws.launch(LaunchSpec::profile("worker"))).expect("launched");
    let document = identity_document(&instance);
    let pkcs7 = Signer::shared().rsa2048(document.as_bytes(), ModelClock::real().now());
    let body = json!({ "role": "worker", "pkcs7": pkcs7, "nonce": "0123456789abcdef" });
    let anyone = site.vault.handle().client(None);
    let log_in = || anyone.must_write("auth/aws/login", &body);
    let token = log_in().await.expect("logged in");
    let node = anyone.with_token(token.auth("client_token").as_str());
    assert_eq!(node.read("auth/token/lookup-self").await.expect("an answer").status, 200);
    let mut commands = vec!["auth_mount=aws\n".to_owned()];
    commands.extend(blocks("A node that was broken into"));
    site.run(&commands);
    assert_eq!(node.read("auth/token/lookup-self").await.expect("an answer").status, 403);
    log_in().await.expect("a node that runs is let in again");
}

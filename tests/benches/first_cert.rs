//! From the start of the agent to its first committed certificate, on the real Vault, beside a
//! bare client that makes the same requests and the same fsyncs in the same run. Both find the
//! directories that systemd makes before it starts the agent.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rig::stage::{Stage, StageOptions, Which};
use serde_json::{Value, json};

use super::{median, program};

/// How many times each is measured, in turn; NODEAGENT_BENCH_RUNS says otherwise.
const RUNS: usize = 11;

/// One certificate and nobody to see to, so that the floor is easy to state.
pub(crate) const CONFIG: &str = r#"
[node]
role = "bare"
[identity]
role = "worker"
[[certificate]]
name = "kubelet-client"
consumer = "kubelet"
pki = "cluster"
role = "kubelet-client"
common_name = "system:node:{{instance_id}}"
organizations = ["system:nodes"]
usage = "client"
"#;

/// Where the commit shows.
const CURRENT: &str = "/var/lib/nodeagent-certs/kubelet/kubelet-client/current/cert.pem";

/// Measures agent and floor in turn.
pub(crate) async fn run() -> Result<(), String> {
    let runs = std::env::var("NODEAGENT_BENCH_RUNS").ok();
    let runs = runs.and_then(|text| text.parse().ok()).unwrap_or(RUNS);
    let options = StageOptions { vault: Which::Real, ..StageOptions::worker() };
    let mut stage = Stage::set(program()?, options.with(CONFIG)).await?;
    println!("real Vault at {}; {runs} runs of each, in turn", stage.vault.handle().address);
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    // The first of each warms the caches and is not counted.
    for run in 0..=runs {
        let agent = agent(&mut stage)?;
        let bare = bare(&mut stage).await?;
        println!("run {run}: agent {agent:.1} ms, bare client {bare:.1} ms");
        if run > 0 {
            ours.push(agent);
            floor.push(bare);
        }
    }
    let (ours, floor) = (median(ours), median(floor));
    println!("FIGURE first_cert_ms={ours:.1}");
    println!("FIGURE floor_ms={floor:.1}");
    println!("FIGURE first_cert_ratio={:.2}", ours / floor);
    Ok(())
}

/// A fresh node as systemd starts the agent on it: with the directories that
/// units/system/nodeagent.service and units/tmpfiles.d/nodeagent.conf name.
pub(crate) fn replace_node(stage: &mut Stage) -> io::Result<()> {
    stage.replace_node()?;
    for (path, mode) in [
        ("/run/nodeagent", 0o755),
        ("/var/lib/nodeagent", 0o700),
        ("/var/lib/nodeagent-certs", 0o755),
    ] {
        let path = stage.path(path);
        std::fs::create_dir_all(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The agent on a fresh node: milliseconds from exec to `current`.
fn agent(stage: &mut Stage) -> Result<f64, String> {
    replace_node(stage).map_err(|error| error.to_string())?;
    let path = stage.path(CURRENT);
    let begun = Instant::now();
    let running = stage.run().map_err(|error| error.to_string())?;
    while !path.exists() {
        if begun.elapsed() > Duration::from_secs(20) {
            return Err(format!("no certificate within 20 s:\n{}", stage.log()));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    running.stop(Duration::from_secs(15))?;
    Ok(took)
}

/// The floor on a fresh node: the same requests over one connection each to the metadata service
/// and to Vault, one key and CSR, and the same files with the same fsyncs.
async fn bare(stage: &mut Stage) -> Result<f64, String> {
    replace_node(stage).map_err(|error| error.to_string())?;
    let handle = stage.vault.handle();
    let address = format!("https://{}", stage.proxy.addr());
    let text = |error: io::Error| error.to_string();
    let (state, certs) = (stage.path("/var/lib/nodeagent"), stage.path("/var/lib/nodeagent-certs"));
    let begun = Instant::now();
    let imds = Http::new(stage.imds.url(), None)?;
    let ttl = [("X-aws-ec2-metadata-token-ttl-seconds", "300")];
    let token = imds.call("PUT", "/latest/api/token", &ttl, None).await?;
    let token = [("X-aws-ec2-metadata-token", token.as_str())];
    let identity = "/latest/dynamic/instance-identity";
    imds.call("GET", &format!("{identity}/document"), &token, None).await?;
    let pkcs7 = imds.call("GET", &format!("{identity}/rsa2048"), &token, None).await?;
    before_login(&state).map_err(text)?;
    let vault = Http::new(address, Some(&handle.ca_pem))?;
    let nonce = format!("{:032x}", rand::random::<u128>());
    let body = json!({"role": "worker", "pkcs7": pkcs7.replace('\n', ""), "nonce": nonce});
    let login = vault.call("POST", "/v1/auth/aws/login", &[], Some(&body)).await?;
    let login: Value = serde_json::from_str(&login).map_err(|error| error.to_string())?;
    let token = login["auth"]["client_token"].as_str().unwrap_or_default();
    let name = format!("system:node:{}", stage.instance);
    let body = json!({"csr": csr(&name)?, "common_name": name, "ttl": "24h", "format": "pem"});
    let token = [("X-Vault-Token", token)];
    vault.call("POST", "/v1/pki/sign/kubelet-client", &token, Some(&body)).await?;
    commit(&state, &certs).map_err(text)?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

fn csr(name: &str) -> Result<String, String> {
    let text = |error: rcgen::Error| error.to_string();
    let key = rcgen::KeyPair::generate().map_err(text)?;
    let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).map_err(text)?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    parameters.serialize_request(&key).and_then(|csr| csr.pem()).map_err(text)
}

/// What a fresh node makes durable before its first log-in.
fn before_login(state: &Path) -> io::Result<()> {
    directory(&state.join("nonce"), Access::Own)?;
    directory(&state.join("nonce/aws"), Access::Own)?;
    files(&state.join("nonce/aws"), &["instance"])?;
    sync(&state.join("nonce"))?;
    sync(state)
}

/// What it makes durable from there to its first certificate.
fn commit(state: &Path, certs: &Path) -> io::Result<()> {
    for record in ["identity", "records"] {
        files(state, &[record])?;
    }
    directory(&state.join("archive"), Access::Given)?;
    let archive = state.join("archive/name");
    directory(&archive, Access::Own)?;
    std::fs::create_dir(archive.join("1"))?;
    files(&archive.join("1"), &["cert", "key", "ca", "pair", "pinned"])?;
    sync(&archive)?;
    let published = certs.join("consumer/name");
    directory(&certs.join("consumer"), Access::Given)?;
    directory(&published, Access::Given)?;
    // Its access is given before its files are there.
    std::fs::create_dir(published.join("1"))?;
    sync(&published.join("1"))?;
    files(&published.join("1"), &["cert", "key", "ca", "pair"])?;
    sync(&published)?;
    std::os::unix::fs::symlink("1", published.join("current"))?;
    sync(&published)
}

/// Whether a new directory needs another group or mode than it has, which is made durable too.
#[derive(PartialEq, Eq)]
enum Access {
    Own,
    Given,
}

fn directory(path: &Path, access: Access) -> io::Result<()> {
    std::fs::create_dir(path)?;
    if access == Access::Given {
        sync(path)?;
    }
    sync(path.parent().unwrap_or(path))
}

/// Files beside each other, all written before the first is waited for.
fn files(directory: &Path, names: &[&str]) -> io::Result<()> {
    let mut files = Vec::new();
    for name in names {
        let mut file = File::create(directory.join(name))?;
        file.write_all(&[0; 700])?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).ok();
        files.push(file);
    }
    files.iter().try_for_each(File::sync_all)?;
    sync(directory)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A client of one server.
struct Http {
    client: reqwest::Client,
    base: String,
}

impl Http {
    fn new(base: String, ca: Option<&str>) -> Result<Http, String> {
        let mut builder = reqwest::Client::builder().no_proxy();
        if let Some(ca) = ca {
            let ca = reqwest::Certificate::from_pem(ca.as_bytes()).map_err(|e| e.to_string())?;
            builder = builder.tls_certs_only([ca]);
        }
        Ok(Http { client: builder.build().map_err(|error| error.to_string())?, base })
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<String, String> {
        let method = method.parse::<reqwest::Method>().map_err(|error| error.to_string())?;
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.map_err(|error| format!("{path}: {error}"))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| format!("{path}: {error}"))?;
        match status.is_success() {
            true => Ok(text),
            false => Err(format!("{path}: {status} {text}")),
        }
    }
}

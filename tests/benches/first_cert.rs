//! From the start of the agent to its first committed certificate, on the real Vault, beside a
//! bare client that makes the same requests and the same fsyncs in the same run.

use std::fs::File;
use std::io::Write;
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

/// The agent on a fresh node: milliseconds from exec to `current`.
fn agent(stage: &mut Stage) -> Result<f64, String> {
    stage.replace_node().map_err(|error| error.to_string())?;
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
    stage.replace_node().map_err(|error| error.to_string())?;
    let handle = stage.vault.handle();
    let address = format!("https://{}", stage.proxy.addr());
    let disk = tempfile::tempdir_in(stage.root()).map_err(|error| error.to_string())?;
    let text = |error: std::io::Error| error.to_string();
    let begun = Instant::now();
    let imds = Http::new(stage.imds.url(), None)?;
    let ttl = [("X-aws-ec2-metadata-token-ttl-seconds", "300")];
    let token = imds.call("PUT", "/latest/api/token", &ttl, None).await?;
    let token = [("X-aws-ec2-metadata-token", token.as_str())];
    let identity = "/latest/dynamic/instance-identity";
    imds.call("GET", &format!("{identity}/document"), &token, None).await?;
    let pkcs7 = imds.call("GET", &format!("{identity}/rsa2048"), &token, None).await?;
    durable(disk.path(), BEFORE_LOGIN).map_err(text)?;
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
    durable(disk.path(), COMMIT).map_err(text)?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

fn csr(name: &str) -> Result<String, String> {
    let text = |error: rcgen::Error| error.to_string();
    let key = rcgen::KeyPair::generate().map_err(text)?;
    let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).map_err(text)?;
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    parameters.serialize_request(&key).and_then(|csr| csr.pem()).map_err(text)
}

/// What a fresh node makes durable before its first log-in, and what one commit makes durable:
/// the agent's own directories and files. A name that ends in `/` is a directory.
const BEFORE_LOGIN: &[&str] =
    &["var/", "var/agent/", "var/certs/", "var/agent/nonce/", "var/agent/nonce/aws/", "nonce"];
const COMMIT: &[&str] = &[
    "records",
    "archive/",
    "archive/name/",
    "archive/name/1/",
    "archive/name/1/cert",
    "archive/name/1/key",
    "archive/name/1/ca",
    "archive/name/1/pair",
    "archive/name/1/pinned",
    "certs/",
    "certs/name/",
    "certs/name/1/",
    "certs/name/1/cert",
    "certs/name/1/key",
    "certs/name/1/ca",
    "certs/name/1/pair",
    "certs/name/current",
];

/// Makes files and directories, each durable with the directory that it stands in where that does
/// not become durable with the rest of a generation.
fn durable(disk: &Path, names: &[&str]) -> std::io::Result<()> {
    let sync = |path: &Path| File::open(path)?.sync_all();
    for name in names {
        let path = disk.join(name);
        let parent = path.parent().unwrap_or(disk);
        if name.ends_with('/') {
            std::fs::create_dir(&path)?;
            sync(&path)?;
            sync(parent)?;
            continue;
        }
        let mut file = File::create(&path)?;
        file.write_all(&[0; 700])?;
        file.sync_all()?;
        let last_of_its_directory = ["nonce", "records", "pinned", "pair", "current"];
        if last_of_its_directory.iter().any(|last| name.ends_with(last)) {
            sync(parent)?;
        }
    }
    Ok(())
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

//! What both Vaults are configured with: the shipped data of `packaging/vault`, written by one
//! small administrator's client, so that what is tested is what is shipped. Only what belongs to
//! the test bench (AWS endpoints, the model's signing certificate) is added here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

/// A value that must not be shown: `{:?}` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value, where it is used.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

/// A running Vault, model or real, as a test sees it.
#[derive(Debug, Clone)]
pub struct VaultHandle {
    /// `https://127.0.0.1:PORT`.
    pub address: String,
    /// The root of the certificate that it serves.
    pub ca_pem: String,
    /// May do everything.
    pub root_token: Secret,
}

/// An answer of Vault, taken apart.
#[derive(Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as text.
    pub text: String,
    /// The body as JSON, null if it is none.
    pub json: Value,
}

/// Bodies may hold tokens, so only the errors are shown.
impl fmt::Debug for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.status, self.json["errors"])
    }
}

impl Reply {
    /// The first of `errors`, empty if there is none.
    #[must_use]
    pub fn error(&self) -> &str {
        self.json["errors"][0].as_str().unwrap_or("")
    }

    /// One value of `data`.
    #[must_use]
    pub fn data(&self, name: &str) -> &Value {
        &self.json["data"][name]
    }

    /// One value of `auth`.
    #[must_use]
    pub fn auth(&self, name: &str) -> &Value {
        &self.json["auth"][name]
    }
}

/// A client of the HTTP API that adds nothing to it: no retries, a deadline on each call.
#[derive(Debug, Clone)]
pub struct Admin {
    http: reqwest::Client,
    address: String,
    token: Option<Secret>,
}

/// Above the 90 s that Vault waits for an EC2 that hangs.
const CALL_DEADLINE: Duration = Duration::from_secs(100);

impl VaultHandle {
    /// A client with the root token.
    #[must_use]
    pub fn admin(&self) -> Admin {
        self.client(Some(self.root_token.clone()))
    }

    /// A client with another token, or none.
    #[must_use]
    pub fn client(&self, token: Option<Secret>) -> Admin {
        crate::pki::install_crypto();
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(CALL_DEADLINE);
        if self.address.starts_with("https:") {
            let root = reqwest::Certificate::from_pem(self.ca_pem.as_bytes())
                .expect("the handle's root is PEM");
            builder = builder.tls_certs_only([root]);
        }
        let http = builder.build().expect("a client with one root needs nothing more");
        Admin { http, address: self.address.clone(), token }
    }
}

impl Admin {
    /// The same connection pool with another token, or none.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Admin {
        Admin { token: token.map(Secret::new), ..self.clone() }
    }

    /// GET.
    pub async fn read(&self, path: &str) -> Result<Reply, String> {
        self.call("GET", path, None).await
    }

    /// POST with a JSON body.
    pub async fn write(&self, path: &str, body: &Value) -> Result<Reply, String> {
        self.call("POST", path, Some(body.to_string())).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Result<Reply, String> {
        self.call("DELETE", path, None).await
    }

    /// LIST.
    pub async fn list(&self, path: &str) -> Result<Reply, String> {
        self.call("LIST", path, None).await
    }

    /// Any method, and a body as it is.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> Result<Reply, String> {
        let url = format!("{}/v1/{path}", self.address);
        let failed = |error: reqwest::Error| format!("{method} {url}: {error:?}");
        let verb = reqwest::Method::from_bytes(method.as_bytes()).map_err(|e| e.to_string())?;
        let mut request = self.http.request(verb, &url);
        if let Some(token) = &self.token {
            request = request.header("x-vault-token", token.expose());
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let shown = |value: &reqwest::header::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), shown(value)))
            .collect();
        let text = response.text().await.map_err(failed)?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Reply { status, headers, text, json })
    }

    /// A write that has to succeed.
    pub async fn must_write(&self, path: &str, body: &Value) -> Result<Reply, String> {
        let reply = self.write(path, body).await?;
        if reply.status >= 300 {
            return Err(format!("writing {path}: {} {}", reply.status, reply.text.trim()));
        }
        Ok(reply)
    }
}

/// The values of a site, and the test bench around it.
#[derive(Debug, Clone)]
pub struct SetupOptions {
    /// Where EC2 and STS answer.
    pub ec2_url: String,
    /// The certificate that instance identity documents are signed with.
    pub aws_signing_cert_pem: String,
    /// Path of the auth mount: `aws`, `aws-ec2`…
    pub auth_mount: String,
    /// AWS account of the nodes.
    pub account_id: String,
    /// Goes into the names of the authorities.
    pub cluster: String,
    /// DNS name of the API server.
    pub api_name: String,
    /// Life of a certificate.
    pub leaf_ttl: String,
    /// Longest life that may be asked for.
    pub leaf_max_ttl: String,
    /// Life of the authorities.
    pub ca_ttl: String,
    /// Lease of a node's token.
    pub token_ttl: String,
    /// Longest life of a node's token.
    pub token_max_ttl: String,
}

impl SetupOptions {
    /// The defaults of packaging/vault/README.md.
    pub fn new(ec2_url: impl Into<String>, aws_signing_cert_pem: impl Into<String>) -> Self {
        SetupOptions {
            ec2_url: ec2_url.into(),
            aws_signing_cert_pem: aws_signing_cert_pem.into(),
            auth_mount: "aws".into(),
            account_id: crate::aws::ACCOUNT.into(),
            cluster: "rig".into(),
            api_name: "api.rig.test".into(),
            leaf_ttl: "24h".into(),
            leaf_max_ttl: "72h".into(),
            ca_ttl: "87600h".into(),
            token_ttl: "1h".into(),
            token_max_ttl: "24h".into(),
        }
    }

    fn values(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("account_id", self.account_id.clone()),
            ("cluster", self.cluster.clone()),
            ("api_name", self.api_name.clone()),
            ("leaf_ttl", self.leaf_ttl.clone()),
            ("leaf_max_ttl", self.leaf_max_ttl.clone()),
            ("ca_ttl", self.ca_ttl.clone()),
            ("token_ttl", self.token_ttl.clone()),
            ("token_max_ttl", self.token_max_ttl.clone()),
        ])
    }
}

/// What `configure` made.
#[derive(Debug, Clone)]
pub struct Configured {
    /// Root certificate of each PKI mount, PEM with a newline at the end.
    pub roots: BTreeMap<String, String>,
    /// Accessor of the auth mount.
    pub auth_accessor: String,
}

/// Where the shipped data is.
#[must_use]
pub fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/vault")
}

/// Configures an unsealed Vault with the shipped data and the test bench's endpoints.
pub async fn configure(vault: &VaultHandle, options: &SetupOptions) -> Result<Configured, String> {
    let admin = vault.admin();
    let mut values = options.values();
    let files = files(&data_dir())?;
    for path in files.iter().filter(|path| path.starts_with("sys/auth/")) {
        apply(&admin, path, options, &values).await?;
    }
    let mount = &options.auth_mount;
    let mounted = admin.read(&format!("sys/auth/{mount}")).await?;
    let accessor = mounted.data("accessor").as_str().ok_or_else(|| {
        format!("reading sys/auth/{mount}: no accessor in {}", mounted.text.trim())
    })?;
    values.insert("auth_accessor", accessor.to_owned());
    let rest = files.iter().filter(|path| !path.starts_with("sys/auth/"));
    let (sys, rest): (Vec<&String>, Vec<&String>) = rest.partition(|path| path.starts_with("sys/"));
    for path in sys.into_iter().chain(rest) {
        apply(&admin, path, options, &values).await?;
    }
    bench(&admin, options).await?;
    let mut roots = BTreeMap::new();
    let mounts = files.iter().filter_map(|path| path.strip_prefix("sys/mounts/pki"));
    for name in mounts.map(|rest| format!("pki{}", rest.trim_end_matches(".json"))) {
        let pem = admin.read(&format!("{name}/ca/pem")).await?.text;
        roots.insert(name, format!("{}\n", pem.trim_end()));
    }
    Ok(Configured { roots, auth_accessor: accessor.to_owned() })
}

/// What a site has and a test bench has to bring: AWS endpoints and a certificate to verify with.
async fn bench(admin: &Admin, options: &SetupOptions) -> Result<(), String> {
    let mount = &options.auth_mount;
    let client = json!({
        "access_key": "AKIAIOSFODNN7EXAMPLE",
        "secret_key": "not-a-key",
        "endpoint": options.ec2_url,
        "sts_endpoint": options.ec2_url,
        "sts_region": "us-east-1",
    });
    admin.must_write(&format!("auth/{mount}/config/client"), &client).await?;
    for kind in ["pkcs7", "identity"] {
        let path = format!("auth/{mount}/config/certificate/bench-{kind}");
        let body = json!({ "type": kind, "aws_public_cert": options.aws_signing_cert_pem });
        admin.must_write(&path, &body).await?;
    }
    Ok(())
}

async fn apply(
    admin: &Admin,
    file: &str,
    options: &SetupOptions,
    values: &BTreeMap<&'static str, String>,
) -> Result<(), String> {
    let full = data_dir().join(file);
    let text = std::fs::read_to_string(&full).map_err(|e| format!("{}: {e}", full.display()))?;
    let text = fill(&text, values).map_err(|name| format!("{file}: no value for ${{{name}}}"))?;
    let (path, body) = match file.strip_suffix(".hcl") {
        Some(path) => (path, json!({ "policy": text })),
        None => {
            let body = serde_json::from_str(&text).map_err(|e| format!("{file}: {e}"))?;
            (file.trim_end_matches(".json"), body)
        }
    };
    admin.must_write(&placed(path, &options.auth_mount), &body).await.map(drop)
}

/// The auth mount is free; the files call it `aws`.
fn placed(path: &str, mount: &str) -> String {
    for area in ["sys/auth/aws", "auth/aws"] {
        if let Some(rest) = path.strip_prefix(area) {
            return format!("{}{mount}{rest}", area.trim_end_matches("aws"));
        }
    }
    path.to_owned()
}

/// Puts the values in; the error is the name that has none.
fn fill(text: &str, values: &BTreeMap<&'static str, String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or_else(|| after.to_owned())?;
        filled.push_str(before);
        filled.push_str(values.get(name).ok_or_else(|| name.to_owned())?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// All data files below a directory as paths relative to it, sorted.
fn files(root: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        let entries =
            std::fs::read_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| e.to_string())?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|kind| kind == "json" || kind == "hcl") {
                let relative = path.strip_prefix(root).map_err(|e| e.to_string())?;
                found.push(relative.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auth_mount_is_free() {
        assert_eq!(placed("auth/aws/role/worker", "aws-ec2"), "auth/aws-ec2/role/worker");
        assert_eq!(placed("sys/auth/aws", "aws-ec2"), "sys/auth/aws-ec2");
        assert_eq!(placed("pki/roles/x", "aws-ec2"), "pki/roles/x");
    }

    #[test]
    fn a_value_that_is_missing_is_named() {
        let values = BTreeMap::from([("a", "1".to_owned())]);
        assert_eq!(fill("x${a}y", &values), Ok("x1y".into()));
        assert_eq!(fill("${b}", &values), Err("b".into()));
    }

    #[test]
    fn the_shipped_data_is_found() {
        let files = files(&data_dir()).expect("the data directory");
        assert!(files.contains(&"pki/roles/kubelet-client.json".to_owned()));
        assert!(files.contains(&"sys/policies/acl/worker.hcl".to_owned()));
    }
}

//! What both Vaults are configured with: the shipped data of `packaging/vault`, written by one
//! small administrator's client, so that what is tested is what is shipped. Only what belongs to
//! the test bench (AWS endpoints, the model's signing certificate) is added here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

mod options;
pub mod shipped;

pub use options::SetupOptions;
use shipped::shipped;

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

/// What `configure` made.
#[derive(Debug, Clone)]
pub struct Configured {
    /// Root certificate of each PKI mount, PEM with a newline at the end.
    pub roots: BTreeMap<String, String>,
    /// Accessor of the auth mount.
    pub auth_accessor: String,
}

/// Configures an unsealed Vault with the shipped data and the test bench's endpoints.
pub async fn configure(vault: &VaultHandle, options: &SetupOptions) -> Result<Configured, String> {
    let admin = vault.admin();
    let mount = &options.auth_mount;
    let auth_accessor = match accessor(&admin, mount).await {
        // The second cluster of a Vault finds the mount of the first.
        Ok(accessor) => accessor,
        Err(_) => {
            for write in shipped::auth(options)? {
                admin.must_write(&write.path, &write.body).await?;
            }
            accessor(&admin, mount).await?
        }
    };
    let writes = shipped(options, &auth_accessor)?;
    let mut roots = BTreeMap::new();
    for write in &writes {
        admin.must_write(&write.path, &write.body).await?;
        if let Some(mount) = write.authority_of() {
            let pem = admin.read(&format!("{mount}/ca/pem")).await?.text;
            roots.insert(mount.to_owned(), format!("{}\n", pem.trim_end()));
        }
    }
    bench(&admin, options).await?;
    Ok(Configured { roots, auth_accessor })
}

/// The accessor of an auth mount, which Vault makes up and roles have to name.
pub async fn accessor(admin: &Admin, mount: &str) -> Result<String, String> {
    let mounted = admin.read(&format!("sys/auth/{mount}")).await?;
    let accessor = mounted.data("accessor").as_str().map(str::to_owned);
    accessor
        .ok_or_else(|| format!("reading sys/auth/{mount}: no accessor in {}", mounted.text.trim()))
}

/// What a site has and a test bench has to bring: an EC2 and a certificate to verify with.
async fn bench(admin: &Admin, options: &SetupOptions) -> Result<(), String> {
    let mount = &options.auth_mount;
    let client = json!({
        "access_key": "AKIAIOSFODNN7EXAMPLE",
        "secret_key": "not-a-key",
        "endpoint": options.ec2_url,
    });
    admin.must_write(&format!("auth/{mount}/config/client"), &client).await?;
    for kind in ["pkcs7", "identity"] {
        let path = format!("auth/{mount}/config/certificate/bench-{kind}");
        let body = json!({ "type": kind, "aws_public_cert": options.aws_signing_cert_pem });
        admin.must_write(&path, &body).await?;
    }
    Ok(())
}

#[cfg(test)]
mod by_hand;

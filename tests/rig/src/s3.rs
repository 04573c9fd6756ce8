//! S3 as a node meets it: one private bucket under the names that AWS gives it, over TLS, with
//! each request's signature checked against the credentials of the instance roles (s3s does
//! that, and s3s-fs keeps the objects as files). A role may read objects and nothing else; above
//! all it may not list the bucket, so that an object that is missing looks like one that is
//! forbidden, as it does at AWS.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::host::MultiDomain;
use s3s::path::S3Path;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};

use crate::aws::Aws;
use crate::aws::credentials::Keys;
use crate::clock::ModelClock;
use crate::pki::{self, Ca};
use crate::server::{Request, Response, Server, ServerOptions, handler};

/// A running S3 with one bucket; dropping it stops it.
#[derive(Debug)]
pub struct S3 {
    server: Server,
    ca: Ca,
    objects: tempfile::TempDir,
    bucket: String,
    region: String,
}

impl S3 {
    /// Serves an empty private bucket on port 443 of an address.
    pub fn start(aws: &Aws, bind: Ipv4Addr, bucket: &str) -> Result<S3, String> {
        S3::start_at(aws, (bind, 443), bucket)
    }

    fn start_at(aws: &Aws, bind: (Ipv4Addr, u16), bucket: &str) -> Result<S3, String> {
        let text = |error: io::Error| format!("the model of S3: {error}");
        let region = crate::aws::REGION.to_owned();
        let objects = tempfile::tempdir().map_err(text)?;
        std::fs::create_dir(objects.path().join(bucket)).map_err(text)?;
        let service = service(aws.keys(), objects.path().to_owned(), &region)?;
        let answer = handler(move |request| answer(service.clone(), request));
        let ca = Ca::new("rig of s3");
        let names = names(bucket, &region);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let tls = pki::server_config(&ca.issue(&names))?;
        let options = ServerOptions::new(answer, ModelClock::real()).bind(bind.into()).tls(tls);
        let server = Server::start(options).map_err(text)?;
        Ok(S3 { server, ca, objects, bucket: bucket.to_owned(), region })
    }

    /// Puts an object there and gives its URL.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<String, String> {
        let path = self.path(key);
        let text = |error: io::Error| format!("{}: {error}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(text)?;
        }
        std::fs::write(&path, bytes).map_err(text)?;
        Ok(format!("s3://{}/{key}", self.bucket))
    }

    /// Takes an object away.
    pub fn remove(&self, key: &str) -> Result<(), String> {
        let path = self.path(key);
        std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The root of the certificate that it serves.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.ca.pem()
    }

    /// The names that lead to it, as lines of /etc/hosts.
    #[must_use]
    pub fn hosts(&self) -> String {
        let address = self.server.addr().ip();
        let names = names(&self.bucket, &self.region);
        format!("{address} {}\n", names.join(" "))
    }

    /// The server below: its log, its script, `stop` and `restart`.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    fn path(&self, key: &str) -> PathBuf {
        self.objects.path().join(&self.bucket).join(key)
    }
}

/// What AWS calls the service and the bucket; the SDK asks both, with and without IPv6.
fn names(bucket: &str, region: &str) -> Vec<String> {
    let domains = domains(region);
    domains.iter().flat_map(|domain| [domain.clone(), format!("{bucket}.{domain}")]).collect()
}

fn domains(region: &str) -> [String; 2] {
    [format!("s3.{region}.amazonaws.com"), format!("s3.dualstack.{region}.amazonaws.com")]
}

fn service(keys: Keys, objects: PathBuf, region: &str) -> Result<Arc<S3Service>, String> {
    let files = s3s_fs::FileSystem::new(&objects).map_err(|error| format!("{error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_host(MultiDomain::new(domains(region)).map_err(|error| error.to_string())?);
    builder.set_auth(Secrets(keys.clone()));
    builder.set_access(ReadOnly { keys, objects });
    Ok(Arc::new(builder.build()))
}

/// Which secret a request has to be signed with.
struct Secrets(Keys);

#[async_trait::async_trait]
impl S3Auth for Secrets {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let known = self.0.find(access_key).ok_or_else(|| s3_error!(InvalidAccessKeyId))?;
        Ok(known.secret_access_key.into())
    }
}

/// What a role may do: s3:GetObject on the objects of the bucket.
struct ReadOnly {
    keys: Keys,
    objects: PathBuf,
}

#[async_trait::async_trait]
impl S3Access for ReadOnly {
    async fn check(&self, call: &mut S3AccessContext<'_>) -> S3Result<()> {
        let denied = || Err(s3_error!(AccessDenied, "Access Denied"));
        let signed = call.credentials().and_then(|signed| self.keys.find(&signed.access_key));
        let Some(known) = signed else { return denied() };
        let shown = call.headers().get("x-amz-security-token");
        if shown.is_none_or(|shown| shown.as_bytes() != known.token.as_bytes()) {
            return Err(s3_error!(InvalidToken));
        }
        match call.s3_path() {
            S3Path::Object { bucket, key }
                if call.s3_op().name() == "GetObject"
                    && self.objects.join(&**bucket).join(&**key).is_file() =>
            {
                Ok(())
            }
            _ => denied(),
        }
    }
}

async fn answer(service: Arc<S3Service>, request: Request) -> Response {
    let uri = match request.query.as_str() {
        "" => request.path.clone(),
        query => format!("{}?{query}", request.path),
    };
    let mut inner = http::Request::builder().method(request.method).uri(uri);
    if let Some(headers) = inner.headers_mut() {
        *headers = request.headers;
    }
    let Ok(inner) = inner.body(s3s::Body::from(request.body)) else {
        return Response::empty(400);
    };
    match service.call(inner).await {
        Ok(answered) => outer(answered).await,
        Err(error) => Response::text(500, format!("{error:?}")),
    }
}

/// The answer as our server sends it, which counts the bytes and sets the date by itself. Where a
/// bucket is, S3 tells everybody, also whom it tells nothing else.
async fn outer(answered: s3s::HttpResponse) -> Response {
    let (head, body) = answered.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Response::text(500, format!("{error:?}")),
    };
    let mut response = Response::empty(head.status.as_u16());
    response.body = Bytes::clone(&body);
    for (name, value) in &head.headers {
        if let Ok(value) = value.to_str()
            && !matches!(name.as_str(), "content-length" | "date" | "transfer-encoding")
        {
            response = response.with_header(name.as_str(), value);
        }
    }
    response.with_header("x-amz-bucket-region", crate::aws::REGION)
}

#[cfg(test)]
mod tests;

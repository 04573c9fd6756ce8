//! The Kubernetes API, as far as raising a control plane needs it: health, discovery, reading,
//! server-side apply and deleting. Objects are JSON values: the agent passes on what a person
//! wrote, and knows the types of none of it.

mod answer;
mod path;

use std::fmt;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, Response};
use serde_json::{Value, json};

pub use self::path::Resource;
use super::http::{ClientIdentity, Http, Limits, Peer, Trust, place};
use crate::error::{Code, Context, Error, Result};

const PEER: Peer = Peer {
    unreachable: Code::ApiserverUnreachable,
    failing: Code::ApiserverFailing,
    denied: Code::ApiserverDenied,
};

/// Objects asked for at once; an object may have up to 1.5 MiB, the usual one has 3 KiB.
const PAGE: usize = 100;
/// Pages of a list; more than ten thousand objects are no list of ours.
const PAGES: usize = 100;
/// Bytes of a whole list.
const LIST: usize = 32 << 20;

/// Where the API is and whom to believe there.
#[derive(Clone, Debug)]
pub struct KubeOptions {
    /// `https://host:port`, no path.
    pub address: String,
    /// The authorities (PEM) that sign the API's certificate.
    pub ca_pem: Vec<u8>,
    /// Who we are there; anonymous without.
    pub client: Option<ClientIdentity>,
    /// What a call may cost.
    pub limits: Limits,
}

/// A client of one API server.
#[derive(Clone)]
pub struct Kube {
    http: Http,
    address: String,
}

impl fmt::Debug for Kube {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kube").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What a health endpoint said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It is well.
    Ok,
    /// It is not, or it will not tell us.
    Failing {
        /// The status of the answer.
        status: u16,
        /// What it said, in one line: only the checks that fail, where it names checks.
        text: String,
    },
}

/// What an apply has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The object was not there.
    Created,
    /// The object was another.
    Changed,
    /// The object was as it is to be.
    Unchanged,
}

impl Kube {
    /// A client of the API at an address; nothing is sent yet.
    pub fn new(options: KubeOptions) -> Result<Kube> {
        let address = options.address.trim_end_matches('/').to_owned();
        if !address.starts_with("https://") {
            let text = format!("the address of the API is no https address: {address:?}");
            return Err(Error::new(Code::Config, text));
        }
        let trust = Trust::Pinned(options.ca_pem);
        let http = Http::with_identity(options.limits, &trust, options.client.as_ref(), PEER);
        Ok(Kube { http: http.at(&address)?, address })
    }

    /// Asks a health endpoint: `/readyz`, `/livez`, `/healthz`. Whatever HTTP it answers is no
    /// error.
    pub async fn probe(&self, path: &str) -> Result<Probe> {
        let reply = self.send(Call { method: Method::GET, path, query: &[], body: None }).await?;
        Ok(answer::probe(&reply))
    }

    /// Reads an object, which is whatever names its kind; none where it is not there.
    pub async fn get(&self, path: &str) -> Result<Option<Value>> {
        self.read(path, &[]).await
    }

    /// All objects of a collection that carry these labels, page by page.
    pub async fn list(&self, path: &str, label_selector: Option<&str>) -> Result<Vec<Value>> {
        let mut objects = Vec::new();
        let mut size = 0;
        let mut rest = String::new();
        for _ in 0..PAGES {
            let limit = PAGE.to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(label_selector.map(|selector| ("labelSelector", selector)));
            query.extend((!rest.is_empty()).then_some(("continue", rest.as_str())));
            let call = Call { method: Method::GET, path, query: &query, body: None };
            let reply = self.send(call).await?;
            let page = answer::object(&reply).and_then(answer::page).at(self.url(path))?;
            objects.extend(page.items);
            size += reply.body().len();
            if page.rest.is_empty() {
                return Ok(objects);
            }
            if size > LIST {
                break;
            }
            rest = page.rest;
        }
        let text = format!("the list is longer than {PAGES} pages or {LIST} bytes");
        Err(answer::strange(text)).at(self.url(path))
    }

    /// How the API calls a kind in its addresses; none where it does not know the kind, because
    /// its definition is not there, or not yet.
    pub async fn resource(&self, api_version: &str, kind: &str) -> Result<Option<Resource>> {
        let base = path::of_version(api_version);
        let Some(list) = self.read(&base, &[]).await? else {
            return Ok(None);
        };
        let known = answer::resources(list).at(self.url(&base))?;
        let wanted = known.into_iter().find(|known| known.is(kind));
        Ok(wanted.map(|known| Resource::of(base, known)))
    }

    /// Makes an object what it is to be, by server-side apply: fields that the object names become
    /// `manager`'s, whoever had them; fields that `manager` named before and no more go.
    pub async fn apply(&self, object: &Value, manager: &str) -> Result<Applied> {
        let wanted = path::identify(object)?;
        let act = || format!("applying {wanted}");
        let resource = self.resource(wanted.api_version, wanted.kind).await.during(act())?;
        let Some(resource) = resource else {
            let (kind, version) = (wanted.kind, wanted.api_version);
            let text = format!("the API knows no kind {kind:?} in {version:?}");
            return Err(Error::new(Code::ApiserverRefused, text)
                .advise("apply what defines the kind first; its definition may be on its way"))
            .during(act());
        };
        let path = resource.path(wanted.namespace, wanted.name);
        let before = self.get(&path).await.during(act())?;
        // Unknown fields are an error rather than a warning that nobody reads.
        let query = [("fieldManager", manager), ("force", "true"), ("fieldValidation", "Strict")];
        let body = Some(("application/apply-patch+yaml", object));
        let call = Call { method: Method::PATCH, path: &path, query: &query, body };
        let reply = self.send(call).await.during(act())?;
        let after = answer::object(&reply).at(self.url(&path)).during(act())?;
        Ok(answer::applied(reply.status(), before, after))
    }

    /// Deletes an object, if it is the one with this uid; what hangs on it follows by itself.
    /// False where it was gone.
    pub async fn delete(&self, path: &str, uid: Option<&str>) -> Result<bool> {
        let mut options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        });
        if let Some(uid) = uid {
            options["preconditions"] = json!({ "uid": uid });
        }
        let body = Some(("application/json", &options));
        let reply = self.send(Call { method: Method::DELETE, path, query: &[], body }).await?;
        answer::deleted(&reply).at(self.url(path))
    }

    async fn read(&self, path: &str, query: &[(&str, &str)]) -> Result<Option<Value>> {
        let reply = self.send(Call { method: Method::GET, path, query, body: None }).await?;
        if answer::is_not_found(&reply) {
            return Ok(None);
        }
        answer::object(&reply).map(Some).at(self.url(path))
    }

    async fn send(&self, call: Call<'_>) -> Result<Response<Vec<u8>>> {
        let mut url = reqwest::Url::parse(&self.url(call.path))
            .map_err(|error| Error::new(Code::Config, format!("{}: {error}", call.path)))?;
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(call.query);
        }
        let mut request = Request::builder()
            .method(call.method)
            .uri(url.as_str())
            .header(ACCEPT, "application/json");
        let mut body = Vec::new();
        if let Some((kind, value)) = call.body {
            request = request.header(CONTENT_TYPE, kind);
            body = value.to_string().into_bytes();
        }
        let request = request
            .body(body)
            .map_err(|error| Error::new(Code::Config, format!("{}: {error}", call.path)))?;
        self.http.send(request).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }
}

/// One exchange.
struct Call<'a> {
    method: Method,
    path: &'a str,
    query: &'a [(&'a str, &'a str)],
    body: Option<(&'static str, &'a Value)>,
}

#[cfg(test)]
mod tests;

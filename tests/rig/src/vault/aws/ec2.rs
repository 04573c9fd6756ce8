//! What Vault asks AWS before it believes an instance: first STS (which account am I?), then EC2
//! (is it running, and what is it?). Over HTTP as the real Vault does, or straight from a function
//! where a simulation cannot afford sockets; the refusals are the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::super::answer::Refusal;

/// One look-up.
#[derive(Debug, Clone)]
pub struct Ec2Question {
    /// `config/client endpoint`.
    pub endpoint: String,
    /// `config/client sts_endpoint`.
    pub sts_endpoint: String,
    /// The instance that wants to log in or to renew.
    pub instance_id: String,
    /// Region of the document.
    pub region: String,
    /// Account of the document.
    pub account_id: String,
}

/// An instance as DescribeInstances shows it.
#[derive(Debug, Clone, Default)]
pub struct Instance {
    /// `imageId`.
    pub image_id: String,
    /// `running`, `stopped`, `terminated`…
    pub state: String,
    /// `subnetId`.
    pub subnet_id: String,
    /// `vpcId`.
    pub vpc_id: String,
    /// ARN of the instance profile, empty if it has none.
    pub profile_arn: String,
}

/// Why AWS did not say.
#[derive(Debug, Clone)]
pub struct Ec2Error {
    /// The text after `failed to verify instance ID:`.
    pub text: String,
    /// AWS asked for fewer requests: Vault turns it into 502 at a renewal.
    pub throttled: bool,
}

/// The outcome of a look-up.
pub type Ec2Result = Result<Instance, Ec2Error>;

/// Where the model gets its answers.
#[derive(Clone)]
pub enum Ec2Source {
    /// From the configured endpoints, by HTTP.
    Http(reqwest::Client),
    /// From a function.
    Direct(Arc<dyn Fn(&Ec2Question) -> Ec2Result + Send + Sync>),
}

impl fmt::Debug for Ec2Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Ec2Source::Http(_) => "Ec2Source::Http",
            Ec2Source::Direct(_) => "Ec2Source::Direct",
        })
    }
}

/// The AWS SDK's own deadline is what Vault inherits: 90 s, measured.
const DEADLINE: Duration = Duration::from_secs(90);

/// The SDK tries a throttled call this often.
const TRIES: usize = 4;

impl Ec2Source {
    /// The source that a real Vault has.
    #[must_use]
    pub fn http() -> Ec2Source {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(DEADLINE)
            .build()
            .expect("a plain client needs nothing that can be missing");
        Ec2Source::Http(client)
    }

    /// Looks an instance up.
    pub async fn ask(&self, question: &Ec2Question) -> Ec2Result {
        match self {
            Ec2Source::Direct(answer) => answer(question),
            Ec2Source::Http(client) => ask_http(client, question).await,
        }
    }
}

async fn ask_http(client: &reqwest::Client, question: &Ec2Question) -> Ec2Result {
    let identity = "Action=GetCallerIdentity&Version=2011-06-15";
    let (_, caller) = post(client, &question.sts_endpoint, identity)
        .await
        .map_err(|error| plain(format!("unable to fetch current caller: {error}")))?;
    if tag(&caller, "Account") != Some(question.account_id.as_str()) {
        let (account, own) = (&question.account_id, tag(&caller, "Account").unwrap_or(""));
        return Err(plain(format!(
            "unable to fetch client for account ID {account:?} -- \
             default client is for account {own:?}"
        )));
    }
    let id = &question.instance_id;
    let describe = format!("Action=DescribeInstances&InstanceId.1={id}&Version=2016-11-15");
    let failed = format!("error fetching description for instance ID {id:?}: ");
    for attempt in 1..=TRIES {
        let (status, body) = post(client, &question.endpoint, &describe)
            .await
            .map_err(|error| plain(format!("{failed}{error}")))?;
        if status == 200 {
            return instance(id, &body);
        }
        let code = tag(&body, "Code").unwrap_or("UnknownError");
        let throttled = matches!(code, "RequestLimitExceeded" | "Throttling");
        if throttled && attempt < TRIES {
            continue;
        }
        let message = tag(&body, "Message").unwrap_or("");
        let request = tag(&body, "RequestID").unwrap_or("");
        let text =
            format!("{failed}{code}: {message}\n\tstatus code: {status}, request id: {request}");
        return Err(Ec2Error { text, throttled });
    }
    Err(plain(format!("{failed}RequestLimitExceeded")))
}

fn instance(id: &str, body: &str) -> Ec2Result {
    if tag(body, "reservationId").is_none() {
        return Err(plain("no reservations found in instance description".into()));
    }
    if tag(body, "instanceId") != Some(id) {
        let text = "expected instance ID not matching the instance ID in the instance description";
        return Err(plain(text.into()));
    }
    let text = |name| tag(body, name).unwrap_or("").to_owned();
    let state = tag(body, "instanceState").and_then(|state| tag(state, "name")).unwrap_or("");
    let profile = tag(body, "iamInstanceProfile").and_then(|profile| tag(profile, "arn"));
    Ok(Instance {
        image_id: text("imageId"),
        state: state.to_owned(),
        subnet_id: text("subnetId"),
        vpc_id: text("vpcId"),
        profile_arn: profile.unwrap_or("").to_owned(),
    })
}

fn plain(text: String) -> Ec2Error {
    Ec2Error { text, throttled: false }
}

async fn post(
    client: &reqwest::Client,
    endpoint: &str,
    body: &str,
) -> Result<(u16, String), String> {
    if endpoint.is_empty() {
        return Err("RequestError: send request failed".into());
    }
    // Vault signs its calls. A model that serves several accounts reads the region out of this.
    let request = client
        .post(endpoint)
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .header("authorization", "AWS4-HMAC-SHA256 Credential=model")
        .body(body.to_owned());
    let canceled = |error: reqwest::Error| {
        if error.is_timeout() {
            "RequestCanceled: request context canceled\ncaused by: context deadline exceeded".into()
        } else {
            format!("RequestError: send request failed\ncaused by: Post {endpoint:?}: {error}")
        }
    };
    let response = request.send().await.map_err(canceled)?;
    let status = response.status().as_u16();
    Ok((status, response.text().await.map_err(canceled)?))
}

/// The text of the first element of that name.
fn tag<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner)
}

/// The instance behind a look-up, if it runs.
pub(in super::super) fn running(evidence: &Ec2Result) -> Result<&Instance, Ec2Error> {
    let instance = evidence.as_ref().map_err(Ec2Error::clone)?;
    if instance.state != "running" {
        return Err(plain("instance is not in 'running' state".into()));
    }
    Ok(instance)
}

/// The same at a login: always the request's fault.
pub(super) fn running_at_login(evidence: &Ec2Result) -> Result<&Instance, Refusal> {
    running(evidence)
        .map_err(|error| Refusal::bad(format!("failed to verify instance ID: {}", error.text)))
}

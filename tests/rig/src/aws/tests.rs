//! The model as a node and as its Vault see it, over HTTP.

mod guard;
mod hop;

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::Value;

use super::imds::Lie;
use super::*;
use crate::pki::install_crypto;
use crate::server::{Fault, Request, Step};

fn world() -> (Aws, ModelClock) {
    install_crypto();
    let clock = ModelClock::manual("2026-11-21T12:00:00Z".parse().expect("a timestamp"));
    (Aws::start(clock.clone()).expect("a free port"), clock)
}

fn client() -> reqwest::Client {
    let limit = Duration::from_secs(10);
    reqwest::Client::builder().no_proxy().timeout(limit).build().expect("a client")
}

async fn read(answer: reqwest::RequestBuilder) -> (u16, String) {
    let answer = answer.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

async fn token(imds: &Imds, ttl: &str) -> (u16, String) {
    let request = client().put(format!("{}/latest/api/token", imds.url()));
    read(request.header("X-aws-ec2-metadata-token-ttl-seconds", ttl)).await
}

async fn get(imds: &Imds, token: &str, path: &str) -> (u16, String) {
    let request = client().get(format!("{}/latest/{path}", imds.url()));
    read(request.header("X-aws-ec2-metadata-token", token)).await
}

async fn call(aws: &Aws, form: &str) -> (u16, String) {
    read(client().post(aws.ec2_url()).body(form.to_owned())).await
}

#[tokio::test]
async fn a_session_is_asked_for_by_the_rules_and_ends() {
    let (aws, clock) = world();
    let imds = aws.imds(&aws.launch(LaunchSpec::default())).expect("a free port");
    for (ttl, status) in [("0", 400), ("21601", 400), ("x", 400), ("1", 200), ("21600", 200)] {
        assert_eq!(token(&imds, ttl).await.0, status, "{ttl}");
    }
    let url = format!("{}/latest/api/token", imds.url());
    assert_eq!(read(client().put(&url)).await.0, 400);
    let forwarded = client().put(&url).header("X-aws-ec2-metadata-token-ttl-seconds", "60");
    assert_eq!(read(forwarded.header("X-Forwarded-For", "10.0.0.1")).await.0, 403);

    let (_, session) = token(&imds, "60").await;
    let id = "meta-data/instance-id";
    assert_eq!(get(&imds, &session, id).await.0, 200);
    assert_eq!(get(&imds, "wrong", id).await.0, 401);
    assert_eq!(read(client().get(format!("{}/latest/{id}", imds.url()))).await.0, 401);
    clock.advance(SignedDuration::from_secs(60));
    assert_eq!(get(&imds, &session, id).await.0, 401);
}

#[tokio::test]
async fn metadata_is_the_instance_s_and_directories_list() {
    let (aws, _) = world();
    let mut spec = LaunchSpec::profile("controller");
    spec.tags.insert("Name".into(), "node-1".into());
    spec.user_data = Some(Bytes::from_static(b"{}"));
    let id = aws.launch(spec);
    let imds = aws.imds(&id).expect("a free port");
    let session = token(&imds, "60").await.1;
    for (path, wanted) in [
        ("meta-data/instance-id", id.as_str()),
        ("meta-data/local-ipv4", "10.0.0.10"),
        ("meta-data/local-hostname", "ip-10-0-0-10.ec2.internal"),
        ("meta-data/placement/availability-zone", "us-east-1a"),
        ("meta-data/placement/", "availability-zone\nregion"),
        ("meta-data/tags/instance/Name", "node-1"),
        ("user-data", "{}"),
    ] {
        assert_eq!(get(&imds, &session, path).await, (200, wanted.to_owned()), "{path}");
    }
    let info: Value =
        serde_json::from_str(&get(&imds, &session, "meta-data/iam/info").await.1).expect("JSON");
    assert_eq!(
        info["InstanceProfileArn"],
        "arn:aws:iam::123456789012:instance-profile/rig-controller"
    );
    assert!(get(&imds, &session, "meta-data").await.1.contains("\niam/\ninstance-id\n"));
    assert_eq!(get(&imds, &session, "meta-data/x").await.0, 404);
}

#[tokio::test]
async fn the_role_s_credentials_are_told_on_the_instance_and_known_by_their_key() {
    let (aws, _) = world();
    let id = aws.launch(LaunchSpec::profile("worker"));
    let imds = aws.imds(&id).expect("a free port");
    let session = token(&imds, "60").await.1;
    let path = "meta-data/iam/security-credentials/";
    assert_eq!(get(&imds, &session, path).await, (200, "rig-worker".into()));
    let told = get(&imds, &session, &format!("{path}rig-worker")).await.1;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let key = told["AccessKeyId"].as_str().expect("a key");
    let known = aws.keys().find(key).expect("the key of an instance");
    assert_eq!((known.role.as_str(), &known.instance), ("rig-worker", &id));
    assert_eq!(told["SecretAccessKey"], known.secret_access_key);
    assert_eq!(told["Token"], known.token);
    assert!(aws.keys().find("ASIARIG").is_none());
    aws.change_profile(&id, None);
    assert_eq!(get(&imds, &session, path).await.0, 404);
}

#[tokio::test]
async fn ignition_s_version_of_the_service_has_the_user_data_too() {
    let (aws, _) = world();
    let id = aws.launch(LaunchSpec::default());
    let imds = aws.imds(&id).expect("a free port");
    let session = token(&imds, "60").await.1;
    let dated = async || {
        let url = format!("{}/2019-10-01/user-data", imds.url());
        read(client().get(url).header("x-aws-ec2-metadata-token", &session)).await
    };
    assert_eq!(dated().await.0, 404);
    aws.change_user_data(&id, Some(Bytes::from_static(b"{}")));
    assert_eq!(dated().await, (200, "{}".into()));
}

#[tokio::test]
async fn only_a_start_renews_the_pending_time() {
    let (aws, clock) = world();
    let id = aws.launch(LaunchSpec::default());
    let imds = aws.imds(&id).expect("a free port");
    let session = token(&imds, "21600").await.1;
    let document = async || {
        let text = get(&imds, &session, "dynamic/instance-identity/document").await.1;
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    assert_eq!(document().await["pendingTime"], "2026-11-21T12:00:00Z");
    clock.advance(SignedDuration::from_hours(1));
    aws.reboot(&id);
    assert_eq!(document().await["pendingTime"], "2026-11-21T12:00:00Z");
    aws.stop(&id);
    aws.start_instance(&id);
    let started = document().await;
    assert_eq!(started["pendingTime"], "2026-11-21T13:00:00Z");
    assert_eq!(started["instanceId"], id.as_str());
}

#[tokio::test]
async fn ec2_describes_what_is_and_refuses_as_told() {
    let (aws, _) = world();
    let id = aws.launch(LaunchSpec::profile("controller"));
    let form = format!("Action=DescribeInstances&Version=2016-11-15&InstanceId.1={id}");
    aws.change_image(&id, "ami-2");
    let (status, xml) = call(&aws, &form).await;
    assert_eq!(status, 200);
    for part in
        ["<imageId>ami-2</imageId>", "<name>running</name>", ":instance-profile/rig-controller"]
    {
        assert!(xml.contains(part), "{part} in {xml}");
    }
    aws.change_profile(&id, None);
    aws.terminate(&id);
    let (_, xml) = call(&aws, &form).await;
    assert!(xml.contains("<code>48</code>") && !xml.contains("iamInstanceProfile"));
    let (status, xml) = call(&aws, "Action=DescribeInstances&InstanceId.1=i-0").await;
    assert!(status == 400 && xml.contains("<Code>InvalidInstanceID.NotFound</Code>"));
    for (fault, wanted, code) in [
        (Ec2Fault::Throttle, 503, "RequestLimitExceeded"),
        (Ec2Fault::Deny, 403, "UnauthorizedOperation"),
        (Ec2Fault::Internal, 500, "InternalError"),
    ] {
        aws.set_ec2_fault(fault);
        let (status, xml) = call(&aws, &form).await;
        assert!(status == wanted && xml.contains(code), "{fault:?}: {status} {xml}");
    }
    let (status, xml) = call(&aws, "Action=GetCallerIdentity").await;
    assert!(status == 200 && xml.contains("<Account>123456789012</Account>"));
}

#[tokio::test]
async fn iam_names_the_role_of_a_profile() {
    let (aws, _) = world();
    aws.launch(LaunchSpec::profile("controller"));
    let form = "Action=GetInstanceProfile&InstanceProfileName=";
    let (status, xml) = call(&aws, &format!("{form}rig-controller")).await;
    assert!(
        status == 200 && xml.contains("<Arn>arn:aws:iam::123456789012:role/rig-controller</Arn>")
    );
    let (status, xml) = call(&aws, &format!("{form}nobody")).await;
    assert!(status == 404 && xml.contains("NoSuchEntity"));
}

#[tokio::test]
async fn lies_and_scripts_reach_the_node() {
    let (aws, _) = world();
    let (id, other) = (aws.launch(LaunchSpec::default()), aws.launch(LaunchSpec::default()));
    let imds = aws.imds(&id).expect("a free port");
    let session = token(&imds, "60").await.1;
    let document = "dynamic/instance-identity/document";
    let truth = get(&imds, &session, document).await.1;
    imds.lie(Lie::Of(other.clone()));
    assert!(get(&imds, &session, document).await.1.contains(&other));
    imds.lie(Lie::Tampered);
    assert_ne!(get(&imds, &session, document).await.1, truth);
    imds.lie(Lie::NotADocument);
    assert_eq!(get(&imds, &session, document).await, (200, "not a document".into()));
    imds.lie(Lie::Missing);
    assert_eq!(get(&imds, &session, document).await.0, 404);
    imds.lie(Lie::None);
    imds.script(vec![Step::on("/latest/dynamic", Fault::status(503, "down")).times(1)]);
    assert_eq!(get(&imds, &session, document).await.0, 503);
    assert_eq!(get(&imds, &session, document).await, (200, truth));
}

#[tokio::test]
async fn only_the_token_s_answer_carries_the_hop_limit() {
    let (aws, _) = world();
    let id = aws.launch(LaunchSpec { hop_limit: 2, ..LaunchSpec::default() });
    let imds = aws.imds(&id).expect("a free port");
    let request = |method: http::Method, path: &str| {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-aws-ec2-metadata-token-ttl-seconds", http::HeaderValue::from(60));
        let (path, query, body, peer) = (path.into(), String::new(), Bytes::new(), imds.addr());
        imds.answer(&Request { method, path, query, headers, body, peer })
    };
    assert_eq!(request(http::Method::PUT, "/latest/api/token").ip_ttl, Some(2));
    assert_eq!(request(http::Method::GET, "/latest/meta-data").ip_ttl, None);
}

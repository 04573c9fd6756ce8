//! What the model of S3 gives to whom. That it gives a rightly signed request what it asks for, the
//! real Ignition shows.

use std::net::Ipv4Addr;

use reqwest::{Method, Response};

use super::S3;
use crate::aws::{Aws, LaunchSpec};
use crate::clock::ModelClock;

const BUCKET: &str = "rig-artifacts";

fn bucket(aws: &Aws) -> S3 {
    let s3 = S3::start_at(aws, (Ipv4Addr::LOCALHOST, 0), BUCKET).expect("a free port");
    let url = s3.put("artifacts/program", b"a program").expect("it is put");
    assert_eq!(url, "s3://rig-artifacts/artifacts/program");
    s3
}

async fn ask(s3: &S3, method: Method, key: &str, headers: &[(&str, &str)]) -> Response {
    crate::pki::install_crypto();
    let host = format!("{BUCKET}.s3.us-east-1.amazonaws.com");
    let root = reqwest::Certificate::from_pem(s3.ca_pem().as_bytes()).expect("a root");
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
    let client = builder.resolve(&host, s3.server().addr()).build().expect("a client");
    let url = format!("https://{host}:{}/{key}", s3.server().addr().port());
    // The port is ours; AWS' names have none.
    let mut request = client.request(method, url).header("host", &host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("it answers")
}

#[tokio::test]
async fn the_bucket_is_private() {
    let aws = Aws::start(ModelClock::real()).expect("a model of AWS");
    let s3 = bucket(&aws);
    for key in ["artifacts/program", "artifacts/nothing"] {
        let answer = ask(&s3, Method::GET, key, &[]).await;
        assert_eq!(answer.status(), 403, "{key}");
        let text = answer.text().await.expect("a body");
        assert!(text.contains("<Code>AccessDenied</Code>"), "{text}");
    }
    // Only where the bucket is, everybody is told.
    let head = ask(&s3, Method::HEAD, "", &[]).await;
    assert_eq!(head.status(), 403);
    assert_eq!(head.headers()["x-amz-bucket-region"], "us-east-1");
}

#[tokio::test]
async fn a_signature_has_to_be_that_of_a_role() {
    let aws = Aws::start(ModelClock::real()).expect("a model of AWS");
    let s3 = bucket(&aws);
    let id = aws.launch(LaunchSpec::default());
    let known = aws.role_credentials(&id).expect("it has a profile");
    let now = ModelClock::real().now().strftime("%Y%m%dT%H%M%SZ").to_string();
    for key in ["ASIARIGNOBODYXXXXXXX", known.access_key_id.as_str()] {
        let scope = format!("{}/us-east-1/s3/aws4_request", &now[..8]);
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders=host, Signature={}",
            "0".repeat(64)
        );
        let headers = [
            ("authorization", signed.as_str()),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            ("x-amz-date", &now),
            ("x-amz-security-token", &known.token),
        ];
        let answer = ask(&s3, Method::GET, "artifacts/program", &headers).await;
        assert_eq!(answer.status(), 403, "{key}");
        let text = answer.text().await.expect("a body");
        assert!(text.contains("InvalidAccessKeyId") || text.contains("SignatureDoesNotMatch"));
    }
}

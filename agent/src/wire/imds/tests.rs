//! The client against the model of the metadata service.

use rig::aws::imds::{Imds as Model, Lie};
use rig::aws::{Aws, LaunchSpec};
use rig::clock::ModelClock;
use rig::server::{Fault, Step};

use super::*;

struct World {
    aws: Aws,
    id: String,
    model: Model,
}

fn world() -> World {
    let aws = Aws::start(ModelClock::real()).expect("a free port");
    let id = aws.launch(LaunchSpec::profile("worker"));
    let model = aws.imds(&id).expect("a free port");
    World { aws, id, model }
}

/// Long enough for a busy machine; the model answers at once.
const LONG: Limits =
    Limits { connect: Duration::from_secs(20), total: Duration::from_secs(20), ..LIMITS };

fn client(model: &Model) -> Imds {
    Imds::new(&model.url(), LONG).expect("a client")
}

#[tokio::test]
async fn one_session_serves_the_document_and_its_proof() {
    let World { aws, id, model } = world();
    let signed = client(&model).signed_document().await.expect("a document");
    let instance = aws.instance(&id).expect("launched");
    assert_eq!(signed.document.instance_id, id);
    assert_eq!(signed.document.region, instance.spec.region);
    assert_eq!(signed.document.account_id, instance.spec.account);
    assert_eq!(signed.document.image_id, instance.spec.image_id);
    assert_eq!(signed.document.private_ip, Some(instance.private_ip.into()));
    let pkcs7 = signed.pkcs7.expose();
    assert!(!pkcs7.contains(char::is_whitespace) && STANDARD.decode(pkcs7).is_ok());
    assert_eq!(model.server().count(SESSION), 1);
    assert_eq!(model.server().count("/"), 3);
}

#[tokio::test]
async fn a_session_that_has_ended_is_replaced_once() {
    let World { model, .. } = world();
    let client = client(&model);
    client.document().await.expect("a document");
    model.forget_sessions();
    client.document().await.expect("a document again");
    assert_eq!(model.server().count(SESSION), 2);
    model.script(vec![Step::on(DOCUMENT, Fault::status(401, "Unauthorized"))]);
    let error = client.document().await.expect_err("no document");
    assert!(format!("{error:#}").contains("document: 401"), "{error:#}");
    assert_eq!(model.server().count(SESSION), 3);
}

#[tokio::test]
async fn a_document_that_is_not_what_is_signed_is_refused() {
    let World { aws, id, model } = world();
    let client = client(&model);
    let plain = client.get(DOCUMENT).await.expect("its text");
    let plain = String::from_utf8(plain).expect("JSON");
    let other = Fault::Status {
        code: 200,
        body: plain.replace(&aws.instance(&id).expect("launched").spec.region, "xx-other-1"),
        headers: Vec::new(),
    };
    model.script(vec![Step::on(DOCUMENT, other)]);
    let error = client.signed_document().await.expect_err("another document");
    assert_eq!(error.code(), Code::ImdsAnswer);
    assert!(format!("{error:#}").contains("the plain one of"), "{error:#}");
    model.script(Vec::new());
    // Whether a document is ours, and unchanged since it was signed, is Vault's to judge.
    model.lie(Lie::Of(aws.launch(LaunchSpec::default())));
    client.signed_document().await.expect("a consistent document");
    model.lie(Lie::Tampered);
    client.signed_document().await.expect("a consistent document");
}

#[tokio::test]
async fn what_is_no_document_is_told_with_what_was_found() {
    let World { model, .. } = world();
    let client = client(&model);
    for (lie, word) in [(Lie::NotADocument, "no "), (Lie::Missing, "404")] {
        model.lie(lie);
        for error in [
            client.document().await.expect_err("no document"),
            client.signed_document().await.expect_err("no proof"),
        ] {
            assert_eq!(error.code(), Code::ImdsAnswer);
            let line = format!("{error:#}");
            assert!(line.starts_with(&model.url()) && line.contains(word), "{line}");
        }
    }
    model.lie(Lie::None);
    model.script(vec![Step::on("/latest/dynamic", Fault::Html200)]);
    for error in
        [client.document().await.expect_err("a page"), client.rsa2048().await.expect_err("a page")]
    {
        assert_eq!(error.code(), Code::ImdsAnswer);
        assert!(format!("{error:#}").contains("<!DOCTYPE"), "{error:#}");
    }
}

#[tokio::test]
async fn what_is_no_session_is_never_sent_on() {
    let World { model, .. } = world();
    let client = client(&model);
    let line = Fault::Status { code: 200, body: "<html></html>".into(), headers: Vec::new() };
    for page in [Fault::Html200, line] {
        model.script(vec![Step::on(SESSION, page)]);
        let error = client.document().await.expect_err("a page");
        assert!(format!("{error:#}").ends_with("no session token"), "{error:#}");
    }
    assert_eq!(model.server().count("/latest/dynamic"), 0);
    model.script(vec![Step::on(SESSION, Fault::status(403, "Forbidden"))]);
    let error = client.document().await.expect_err("switched off");
    assert!(error.advice().expect("advice").contains("--http-endpoint enabled"));
}

#[tokio::test]
async fn no_service_and_no_answer_are_unreachable_with_the_hop_limit_told() {
    let World { model, .. } = world();
    let quick = Limits { total: Duration::from_millis(200), ..LIMITS };
    model.script(vec![Step::on("/", Fault::Hang)]);
    let client = Imds::new(&model.url(), quick).expect("a client");
    let error = client.document().await.expect_err("silence");
    assert_eq!(error.code(), Code::ImdsUnreachable);
    assert!(error.advice().expect("advice").contains("hop-limit"));
    model.server().stop();
    let error = client.document().await.expect_err("nobody");
    assert_eq!(error.code(), Code::ImdsUnreachable);
    assert!(format!("{error:#}").ends_with("connection refused"), "{error:#}");
}

#[test]
fn a_document_is_read_strictly_where_it_matters() {
    let good = r#"{"instanceId":"i-0aaa","imageId":"ami-1","accountId":"123456789012",
        "region":"eu-central-1","availabilityZone":"eu-central-1a","instanceType":"m7g.large",
        "privateIp":"10.0.0.1","pendingTime":"2026-11-21T12:00:00Z","kernelId":null,
        "devpayProductCodes":null,"version":"2017-09-30"}"#;
    let document = parse(good.as_bytes()).expect("a document as AWS writes it");
    assert_eq!(document.pending_time.to_string(), "2026-11-21T12:00:00Z");
    for (from, to) in [
        ("2026-11-21T12:00:00Z", "yesterday"),
        ("i-0aaa", ""),
        ("i-0aaa", "../../etc"),
        ("i-0aaa", "i-0; rm -rf"),
        ("10.0.0.1", "10.0.0"),
        ("\"region\"", "\"reg\""),
    ] {
        let bad = good.replace(from, to);
        let error = parse(bad.as_bytes()).expect_err("a bad document");
        assert_eq!(error.code(), Code::ImdsAnswer, "{to}");
    }
}

#[test]
fn what_is_no_document_is_told_in_one_short_line() {
    let odd = format!(r#"{{"instanceId": "i-0abc", "pendingTime": "{}"}}"#, "x".repeat(2000));
    let text = format!("{:#}", parse(odd.as_bytes()).expect_err("no document"));
    assert!(text.contains("no identity document"), "{text}");
    assert!(text.chars().count() < 500, "{text}");
}

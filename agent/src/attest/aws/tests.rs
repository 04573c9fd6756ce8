//! The attestor against the model of the metadata service.

use std::path::Path;

use rig::aws::LaunchSpec;
use rig::clock::ModelClock;

use crate::attest::{Options, Provider, attestor, nonce};
use crate::host::files::Root;
use crate::wire::vault::Login;

#[tokio::test]
async fn evidence_is_the_document_and_a_nonce_that_is_on_disk() {
    let aws = rig::aws::Aws::start(ModelClock::real()).expect("a free port");
    let id = aws.launch(LaunchSpec::profile("worker"));
    let imds = aws.imds(&id).expect("a free port");
    let dir = tempfile::tempdir().expect("a directory");
    let root = Root::new(dir.path());
    let options = Options {
        provider: Provider::Aws,
        root: root.clone(),
        mount: "aws-ec2".into(),
        role: "worker".into(),
        imds: imds.url(),
        import_nonce: None,
    };
    let attestor = attestor(options).expect("an attestor");
    let evidence = attestor.evidence().await.expect("evidence");
    assert_eq!(evidence.identity.instance_id, id);
    assert!(evidence.identity.private_ip.is_some());
    let shown = format!("{evidence:?}");
    let Login::Ec2 { role, nonce: sent, instance_id, .. } = evidence.login;
    assert_eq!((role.as_str(), instance_id.as_str()), ("worker", id.as_str()));
    let file = root.path(&Path::new(nonce::DIRECTORY).join("aws-ec2").join(&id));
    let kept = std::fs::read_to_string(file).expect("the nonce's file");
    assert_eq!(kept.trim_end(), sent.expose());
    assert!(!shown.contains(sent.expose()), "{shown}");

    let again = attestor.evidence().await.expect("evidence again");
    let Login::Ec2 { nonce: second, .. } = again.login;
    assert_eq!(second.expose(), sent.expose());
}

#[tokio::test]
async fn no_identity_makes_no_nonce() {
    let aws = rig::aws::Aws::start(ModelClock::real()).expect("a free port");
    let id = aws.launch(LaunchSpec::default());
    let imds = aws.imds(&id).expect("a free port");
    imds.server().stop();
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options {
        provider: Provider::Aws,
        root: Root::new(dir.path()),
        mount: "aws".into(),
        role: "worker".into(),
        imds: imds.url(),
        import_nonce: None,
    };
    let attestor = attestor(options).expect("an attestor");
    let error = attestor.evidence().await.expect_err("no service");
    assert!(format!("{error:#}").starts_with("reading the instance identity: http://127.0.0.1"));
    assert_eq!(std::fs::read_dir(dir.path()).expect("the root").count(), 0);
}

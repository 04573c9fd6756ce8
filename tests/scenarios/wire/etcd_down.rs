//! What an etcd that cannot, or will not, says.

use std::time::Duration;

use nodeagent::error::{Code, Kind};
use nodeagent::wire::etcd::{Etcd, EtcdHealth, EtcdOptions, Put};
use nodeagent::wire::http::Limits;
use rig::peer::etcd::RealEtcdOptions;
use rig::pki::Ca;

use super::{client_of, eventually, identity, real_etcd};

#[tokio::test]
async fn a_lost_majority_is_told_and_comes_back() {
    let options = RealEtcdOptions { members: 3, quota: None };
    let Some(mut etcd) = real_etcd(options).await else { return };
    let client = client_of(&etcd, 0, Some(etcd.client()));
    let lease = client.grant(Duration::from_secs(600)).await.expect("a lease");
    assert_eq!(client.put_new("k", b"v", Some(&lease)).await.expect("an answer"), Put::Done);
    assert_eq!(client.members().await.expect("an answer").len(), 3);
    etcd.kill(1);
    eventually("two of three to be enough", async || {
        client.health().await.is_ok_and(|health| health.healthy)
    })
    .await;
    etcd.kill(2);
    eventually("the leader to be missed", async || {
        client.status().await.is_ok_and(|status| status.leader_id == 0)
    })
    .await;
    let health = client.health().await.expect("an answer");
    assert!(!health.healthy && !health.reason.is_empty(), "{health:?}");
    assert_eq!(client.members().await.expect("it knows without asking").len(), 3);
    for error in [
        client.put_new("other", b"v", None).await.expect_err("no majority"),
        client.get("k").await.expect_err("no majority"),
    ] {
        assert_eq!(error.code(), Code::EtcdFailing, "{error:#}");
        assert_eq!(error.kind(), Kind::Unavailable);
    }
    etcd.restart(1).await.expect("a majority again");
    eventually("the first one to be healthy", async || {
        client.health().await.is_ok_and(|health| health.healthy)
    })
    .await;
    let stored = client.get("k").await.expect("an answer").expect("still there");
    assert_eq!((stored.value.as_slice(), stored.lease), (b"v".as_slice(), lease.id));
}

#[tokio::test]
async fn a_full_database_is_told() {
    let options = RealEtcdOptions { members: 1, quota: Some(1 << 20) };
    let Some(etcd) = real_etcd(options).await else { return };
    let client = client_of(&etcd, 0, Some(etcd.client()));
    let mut refused = None;
    for number in 0..100 {
        let put = client.put_new(&format!("k{number}"), &[7; 100 << 10], None).await;
        if let Err(error) = put {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("a megabyte does not hold ten");
    assert_eq!(refused.code(), Code::EtcdFailing, "{refused:#}");
    assert!(format!("{refused:#}").contains("database space exceeded"), "{refused:#}");
    eventually("the alarm", async || {
        let health = client.health().await.expect("an answer");
        health == EtcdHealth { healthy: false, reason: "ALARM NOSPACE".into() }
    })
    .await;
    let status = client.status().await.expect("an answer");
    assert!(status.errors.iter().any(|error| error.contains("NOSPACE")), "{status:?}");
    client.get("k0").await.expect("reading goes on").expect("a key");
}

#[tokio::test]
async fn whom_etcd_does_not_know_is_denied() {
    let Some(etcd) = real_etcd(RealEtcdOptions::default()).await else { return };
    let stranger = Ca::new("another").issue_client("rig", None);
    for who in [None, Some(&stranger)] {
        let error = client_of(&etcd, 0, who).status().await.expect_err("no right");
        assert_eq!(error.code(), Code::EtcdDenied, "{error:#}");
        assert!(format!("{error:#}").contains(etcd.endpoint()), "{error:#}");
    }
}

#[tokio::test]
async fn one_that_is_away_or_hangs_or_is_another_is_unreachable() {
    let Some(mut etcd) = real_etcd(RealEtcdOptions::default()).await else { return };
    let limits = Limits { total: Duration::from_millis(300), ..Limits::default() };
    let options = EtcdOptions {
        endpoint: etcd.endpoint().to_owned(),
        ca_pem: etcd.ca().pem().as_bytes().to_vec(),
        client: Some(identity(etcd.client())),
        limits,
    };
    let hasty = Etcd::new(options.clone()).expect("a client");
    etcd.process(0).freeze().expect("it stands still");
    let error = hasty.get("k").await.expect_err("no answer");
    assert_eq!(error.code(), Code::EtcdUnreachable, "{error:#}");
    etcd.process(0).thaw().expect("it goes on");

    let other = Ca::new("another").pem().as_bytes().to_vec();
    let wrong = EtcdOptions { ca_pem: other, ..options };
    let wrong = Etcd::new(wrong).expect("a client");
    let error = wrong.get("k").await.expect_err("not the one");
    assert_eq!(error.code(), Code::EtcdUnreachable, "{error:#}");
    assert!(format!("{error:#}").contains("not trusted"), "{error:#}");

    etcd.kill(0);
    let client = client_of(&etcd, 0, Some(etcd.client()));
    let error = client.get("k").await.expect_err("nobody there");
    assert_eq!(error.code(), Code::EtcdUnreachable, "{error:#}");
    assert!(error.is_unsent() && format!("{error:#}").contains("connection refused"), "{error:#}");
}

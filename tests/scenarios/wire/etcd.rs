//! The lock and the other calls on a healthy etcd.

use std::time::Duration;

use nodeagent::wire::etcd::{Etcd, Lease, Put};
use rig::peer::etcd::{RealEtcd, RealEtcdOptions};

use super::{client_of, eventually, real_etcd};

const LOCK: &str = "/nodeagent/c/control-plane";
const LONG: Duration = Duration::from_secs(600);

async fn start() -> Option<(RealEtcd, Etcd)> {
    let etcd = real_etcd(RealEtcdOptions::default()).await?;
    let client = client_of(&etcd, 0, Some(etcd.client()));
    Some((etcd, client))
}

#[tokio::test]
async fn of_two_who_put_a_key_at_once_one_wins_and_the_other_sees_who() {
    let Some((_etcd, client)) = start().await else { return };
    let mine = client.grant(LONG).await.expect("a lease");
    let theirs = client.grant(LONG).await.expect("a lease");
    assert_ne!(mine.id, theirs.id);
    assert_eq!(mine.ttl, LONG);
    let (a, b) = tokio::join!(
        client.put_new(LOCK, b"i-0aaa", Some(&mine)),
        client.put_new(LOCK, b"i-0bbb", Some(&theirs)),
    );
    let (a, b) = (a.expect("an answer"), b.expect("an answer"));
    let (winner, lease, loser) = match (&a, &b) {
        (Put::Done, loser) => (b"i-0aaa", mine, loser),
        (loser, Put::Done) => (b"i-0bbb", theirs, loser),
        both => panic!("nobody won: {both:?}"),
    };
    let stored = client.get(LOCK).await.expect("an answer").expect("a key");
    assert_eq!(stored.value, winner);
    assert_eq!(stored.lease, lease.id);
    assert_eq!(stored.create_revision, stored.mod_revision);
    assert_eq!(loser, &Put::Exists(stored));
}

#[tokio::test]
async fn a_key_goes_with_its_lease_and_a_lease_that_ended_stays_ended() {
    let Some((_etcd, client)) = start().await else { return };
    let lease = client.grant(LONG).await.expect("a lease");
    client.put_new(LOCK, b"holder", Some(&lease)).await.expect("an answer");
    assert_eq!(client.keep_alive(&lease).await.expect("an answer"), LONG);
    client.revoke(&lease).await.expect("ended");
    assert_eq!(client.get(LOCK).await.expect("an answer"), None);
    assert_eq!(client.keep_alive(&lease).await.expect("an answer"), Duration::ZERO);
    client.revoke(&lease).await.expect("that it had ended is no error");
    let late = client.put_new(LOCK, b"late", Some(&lease)).await.expect_err("no lease");
    assert!(format!("{late:#}").contains("requested lease not found"), "{late:#}");
    assert_eq!(client.get(LOCK).await.expect("an answer"), None);
}

#[tokio::test]
async fn a_lease_that_nobody_keeps_alive_ends_by_itself() {
    let Some((_etcd, client)) = start().await else { return };
    // A part of a second is a whole one to etcd, which may make it longer still.
    let lease = client.grant(Duration::from_millis(1)).await.expect("a lease");
    assert!(lease.ttl >= Duration::from_secs(1), "{lease:?}");
    client.put_new(LOCK, b"holder", Some(&lease)).await.expect("an answer");
    eventually("the key to go", async || client.get(LOCK).await.expect("an answer").is_none())
        .await;
    assert_eq!(client.keep_alive(&lease).await.expect("an answer"), Duration::ZERO);
}

#[tokio::test]
async fn what_a_former_holder_deletes_late_is_not_the_next_ones() {
    let Some((_etcd, client)) = start().await else { return };
    client.put_new(LOCK, b"first", None).await.expect("an answer");
    let first = client.get(LOCK).await.expect("an answer").expect("a key");
    assert!(client.delete_if(LOCK, first.mod_revision).await.expect("an answer"));
    assert!(!client.delete_if(LOCK, first.mod_revision).await.expect("it is gone"));
    client.put_new(LOCK, b"second", None).await.expect("an answer");
    assert!(!client.delete_if(LOCK, first.mod_revision).await.expect("an answer"));
    let second = client.get(LOCK).await.expect("an answer").expect("still there");
    assert_eq!(second.value, b"second");
    assert!(second.mod_revision > first.mod_revision);
}

#[tokio::test]
async fn only_keys_of_a_prefix_are_counted() {
    let Some((_etcd, client)) = start().await else { return };
    assert_eq!(client.count_prefix("/registry/").await.expect("an answer"), 0);
    // A slash is followed by a zero in ASCII: both neighbours of the prefix are there.
    for key in ["/registry", "/registry/a", "/registry/b/c", "/registry0", "/registrz/d"] {
        client.put_new(key, b"", None).await.expect("an answer");
    }
    assert_eq!(client.count_prefix("/registry/").await.expect("an answer"), 2);
    let empty = client.get("/registry/a").await.expect("an answer").expect("a key");
    assert!(empty.value.is_empty() && empty.lease == 0);
}

#[tokio::test]
async fn a_member_tells_who_it_is() {
    let Some((etcd, client)) = start().await else { return };
    let health = client.health().await.expect("an answer");
    assert!(health.healthy, "{health:?}");
    let status = client.status().await.expect("an answer");
    assert_eq!(status.leader_id, status.member_id);
    assert!(status.member_id != 0 && status.db_size > 0 && status.errors.is_empty());
    assert!(status.version.starts_with("3."), "{status:?}");
    let members = client.members().await.expect("an answer");
    assert_eq!(members.len(), 1);
    assert_eq!((members[0].id, members[0].name.as_str()), (status.member_id, "etcd-0"));
    assert_eq!(members[0].client_urls, [etcd.endpoint()]);
    assert!(!members[0].is_learner && members[0].peer_urls.len() == 1);
}

/// A lease that nobody granted.
#[tokio::test]
async fn an_unknown_lease_is_one_that_ended() {
    let Some((_etcd, client)) = start().await else { return };
    let nobody = Lease { id: 4711, ttl: LONG };
    assert_eq!(client.keep_alive(&nobody).await.expect("an answer"), Duration::ZERO);
}

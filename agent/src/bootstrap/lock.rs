//! One controller at a time: a key in etcd that lives as long as its holder renews a lease.
//!
//! The lock saves work and disruption; it is not what keeps the cluster whole. A holder that was
//! cut off for longer than its lease may come back and go on for a moment, so that every write of
//! a run is a compare-and-swap or can be repeated without harm. [`Held::guard`] cuts the work as
//! soon as the lease may have ended, by this machine's own monotonic clock.

use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Context, Error, Result};
use crate::host::clock::Clock;
use crate::wire::etcd::{Etcd, Lease, Put};

/// Who holds the lock, as everybody can read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The holder's instance id.
    pub instance: String,
    /// Since when.
    pub since: Timestamp,
}

/// What an attempt to take the lock ended with.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Taken(Held),
    /// Somebody else has it.
    HeldBy(Holder),
}

/// The lock, while it is ours.
#[derive(Debug)]
pub struct Held {
    etcd: Etcd,
    lease: Lease,
    key: String,
    revision: i64,
    /// When the lease was last known to begin anew, by the monotonic clock.
    renewed: std::sync::Mutex<Duration>,
}

/// The key of a cluster's lock.
pub fn key(cluster: &str) -> String {
    format!("/nodeagent/{cluster}/control-plane")
}

/// Who holds the lock of a cluster.
pub async fn holder(etcd: &Etcd, cluster: &str) -> Result<Option<Holder>> {
    let stored = etcd.get(&key(cluster)).await?;
    Ok(stored.map(|stored| read(&stored.value)))
}

/// A value that cannot be read is somebody's all the same.
fn read(value: &[u8]) -> Holder {
    serde_json::from_slice(value).unwrap_or_else(|_| Holder {
        instance: String::from_utf8_lossy(value).into_owned(),
        since: Timestamp::UNIX_EPOCH,
    })
}

/// Takes the lock, or says who has it. A lock that this very instance left behind (its agent was
/// killed) is waited for like any other's: two processes of one node must exclude each other too.
pub async fn take(
    etcd: Etcd,
    clock: &dyn Clock,
    cluster: &str,
    instance: &str,
    term: Duration,
) -> Result<Attempt> {
    let key = key(cluster);
    let asked = clock.monotonic();
    let lease = etcd.grant(term).await.during("asking for a lease")?;
    let holder = Holder { instance: instance.to_string(), since: clock.now() };
    let other = match put(&etcd, &key, &holder, &lease).await {
        Ok(Placed::Ours(revision)) => {
            let renewed = std::sync::Mutex::new(asked);
            return Ok(Attempt::Taken(Held { etcd, lease, key, revision, renewed }));
        }
        Ok(Placed::Theirs(holder)) => Ok(Attempt::HeldBy(holder)),
        Err(error) => Err(error),
    };
    // It would end by itself. An answer that was lost may have been that the lock is ours: with
    // the lease it is free for the next attempt at once.
    etcd.revoke(&lease).await.ok();
    other
}

/// Whose the key is.
enum Placed {
    /// Ours, as it was written at this revision.
    Ours(i64),
    /// Somebody else's.
    Theirs(Holder),
}

async fn put(etcd: &Etcd, key: &str, holder: &Holder, lease: &Lease) -> Result<Placed> {
    let value =
        serde_json::to_vec(holder).map_err(|error| Error::new(Code::Bug, error.to_string()))?;
    if let Put::Exists(stored) =
        etcd.put_new(key, &value, Some(lease)).await.during("taking the lock")?
    {
        return Ok(Placed::Theirs(read(&stored.value)));
    }
    let stored = etcd.get(key).await.during("reading the lock back")?;
    let ours = stored.filter(|stored| stored.lease == lease.id);
    let ours = ours.ok_or_else(|| Error::new(Code::LockLost, "the lock is gone"))?;
    Ok(Placed::Ours(ours.mod_revision))
}

impl Held {
    /// Does a piece of work while the lease is kept; the work is cut where that fails. It is not
    /// gone on with for a single step once the lease may be over, even where this process or its
    /// machine stood still and no timer could tell.
    pub async fn guard<T>(
        &self,
        clock: &dyn Clock,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut work = std::pin::pin!(work);
        let kept = std::future::poll_fn(|cx| match self.left(clock).is_zero() {
            true => Poll::Ready(Err(self.over(clock, None))),
            false => work.as_mut().poll(cx),
        });
        tokio::select! {
            biased;
            lost = self.keep(clock) => Err(lost),
            done = kept => done,
        }
    }

    /// Renews the lease three times in its term, more often where that fails; ends with an error
    /// as soon as it may be over.
    async fn keep(&self, clock: &dyn Clock) -> Error {
        let term = self.lease.ttl;
        let mut failure = None;
        loop {
            let left = self.left(clock);
            if left.is_zero() {
                return self.over(clock, failure);
            }
            let asked = clock.monotonic();
            let renewal = tokio::time::timeout(left, self.etcd.keep_alive(&self.lease));
            let pause = match renewal.await {
                Ok(Ok(term)) if term.is_zero() => {
                    return Error::new(Code::LockLost, "the lease of the cluster's lock has ended");
                }
                Ok(Ok(_)) => {
                    *self.renewed() = asked;
                    failure = None;
                    term / 3
                }
                Ok(Err(error)) => {
                    failure = Some(error);
                    term / 12
                }
                Err(_) => continue,
            };
            clock.sleep(pause.min(self.left(clock))).await;
        }
    }

    /// For how long it is certainly ours, by this machine's own clock.
    fn left(&self, clock: &dyn Clock) -> Duration {
        self.lease.ttl.saturating_sub(self.age(clock))
    }

    fn age(&self, clock: &dyn Clock) -> Duration {
        clock.monotonic().saturating_sub(*self.renewed())
    }

    fn over(&self, clock: &dyn Clock, failure: Option<Error>) -> Error {
        let age = self.age(clock).as_secs();
        let why = failure.map_or("no answer in time".into(), |error| format!("{error:#}"));
        let text = format!("the lease of the cluster's lock was not renewed for {age} s: {why}");
        Error::new(Code::LockLost, text).advise(
            "see whether this node reaches the other controllers' etcd; whoever has the lock now \
             goes on, and so does this node when it gets it again",
        )
    }

    fn renewed(&self) -> std::sync::MutexGuard<'_, Duration> {
        self.renewed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Gives the lock back, where it is still ours.
    pub async fn release(self) -> Result<()> {
        self.etcd.delete_if(&self.key, self.revision).await.during("giving the lock back")?;
        self.etcd.revoke(&self.lease).await.during("giving the lock back")
    }
}

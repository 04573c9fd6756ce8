//! One controller at a time: a key in etcd that lives as long as its holder renews a lease.
//!
//! The lock saves work and disruption; it is not what keeps the cluster whole. A holder that was
//! cut off for longer than its lease may come back and go on for a moment, so that every write of
//! a run is a compare-and-swap or can be repeated without harm. [`Held::guard`] cuts the work as
//! soon as the lease may have ended, by this machine's own monotonic clock.

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
    let value =
        serde_json::to_vec(&holder).map_err(|error| Error::new(Code::Bug, error.to_string()))?;
    let put = etcd.put_new(&key, &value, Some(&lease)).await.during("taking the lock");
    let other = match put {
        Ok(Put::Done) => {
            let stored = etcd.get(&key).await.during("reading the lock back")?;
            let ours = stored.filter(|stored| stored.lease == lease.id);
            let revision = ours.map(|stored| stored.mod_revision);
            let revision =
                revision.ok_or_else(|| Error::new(Code::LockLost, "the lock is gone"))?;
            let renewed = std::sync::Mutex::new(asked);
            return Ok(Attempt::Taken(Held { etcd, lease, key, revision, renewed }));
        }
        Ok(Put::Exists(stored)) => Ok(Attempt::HeldBy(read(&stored.value))),
        Err(error) => Err(error),
    };
    // A lease that nothing hangs on would end by itself; this only tidies up sooner.
    etcd.revoke(&lease).await.ok();
    other
}

impl Held {
    /// Does a piece of work while the lease is kept; the work is cut where that fails.
    pub async fn guard<T>(
        &self,
        clock: &dyn Clock,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            lost = self.keep(clock) => Err(lost),
            done = work => done,
        }
    }

    /// Renews the lease three times in its term; ends with an error as soon as it may be over.
    async fn keep(&self, clock: &dyn Clock) -> Error {
        let term = self.lease.ttl;
        loop {
            let age = clock.monotonic().saturating_sub(*self.renewed());
            let left = term.saturating_sub(age);
            let asked = clock.monotonic();
            let renewal = tokio::time::timeout(left, self.etcd.keep_alive(&self.lease));
            let failure = match renewal.await {
                Ok(Ok(term)) if term.is_zero() => {
                    return Error::new(Code::LockLost, "the lease of the cluster's lock has ended");
                }
                Ok(Ok(_)) => {
                    *self.renewed() = asked;
                    None
                }
                Ok(Err(error)) => Some(error),
                Err(_) => Some(Error::new(Code::EtcdUnreachable, "no answer in time")),
            };
            let age = clock.monotonic().saturating_sub(*self.renewed());
            if let Some(error) = failure.filter(|_| age >= term) {
                let text =
                    format!("the lease could not be renewed for {} s: {error:#}", age.as_secs());
                return Error::new(Code::LockLost, text);
            }
            clock.sleep((term / 3).min(term.saturating_sub(age))).await;
        }
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

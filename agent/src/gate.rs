//! The gate of a consumer: `nodeagent await CONSUMER` ends when all of that consumer's
//! certificates on disk are complete and valid, fresh or cached. It asks neither Vault nor the
//! agent: what could run is never kept from running by something that is away.

use std::path::Path;
use std::time::Duration;

use crate::bootstrap::membership;
use crate::config::{self, ConsumerSpec, Gated};
use crate::duty::certs::leaf::{self, Leaf};
use crate::duty::certs::publish::{self, Published, Target};
use crate::error::{Code, Error, Result};
use crate::host::clock::Clock;
use crate::host::files::Root;
use crate::host::users;
use crate::render;

/// The consumer whose data are looked at too.
const ETCD: &str = "etcd-member";

/// Between two looks: a certificate is there 0.1 s after it was issued, and a look costs 1 ms.
const PAUSE: Duration = Duration::from_millis(200);

/// What is still missing is told this often.
const TELL: Duration = Duration::from_secs(60);

/// Reads the configuration and waits.
///
/// etcd asks again at each of its starts, with a timeout. A drop-in that cannot be read must not
/// keep a member down whose data are there: then only those are looked at.
pub async fn pass(
    root: &Root,
    clock: &dyn Clock,
    consumer: &str,
    timeout: Option<Duration>,
) -> Result<()> {
    match config::load_gated(root, clock.now()) {
        Ok(gated) => wait(&gated, root, clock, consumer, timeout).await,
        Err(error) if consumer == ETCD && timeout.is_some() => {
            tracing::warn!("only the data of etcd were looked at: {error:#}");
            membership::check_noted(root)
        }
        Err(error) => Err(error),
    }
}

/// Waits until all certificates of a consumer are good.
///
/// Without a timeout there is no end: the unit of the gate has none either, because a gate that
/// fails would fail the consumer's start for good, and Vault may be away for hours.
pub async fn wait(
    gated: &Gated,
    root: &Root,
    clock: &dyn Clock,
    consumer: &str,
    timeout: Option<Duration>,
) -> Result<()> {
    let spec = gated.consumers.iter().find(|known| known.name == consumer).ok_or_else(|| {
        let known: Vec<_> = gated.consumers.iter().map(|known| known.name.as_str()).collect();
        Error::new(Code::Config, format!("`{consumer}` is no consumer of this node"))
            .advise(format!("name one of: {}", known.join(", ")))
    })?;
    let begun = clock.monotonic();
    let mut told = None;
    loop {
        let Err(missing) = good(gated, root, clock, spec) else {
            return Ok(());
        };
        let waited = clock.monotonic().saturating_sub(begun);
        if timeout.is_some_and(|timeout| waited >= timeout) {
            return Err(missing.during(format!("waiting for the certificates of {consumer}")));
        }
        if told.is_none_or(|told| waited.saturating_sub(told) >= TELL) {
            tracing::info!(consumer, "waiting: {missing:#}");
            told = Some(waited);
        }
        clock.sleep(PAUSE).await;
    }
}

/// Whether all certificates of a consumer are good; the error says which is not, and why.
fn good(gated: &Gated, root: &Root, clock: &dyn Clock, spec: &ConsumerSpec) -> Result<()> {
    let gid = users::group_id(&root.path(Path::new("/etc/group")), &spec.group)?;
    for cert in gated.certificates.iter().filter(|cert| cert.consumer == spec.name) {
        let target = Target { consumer: spec.name.clone(), certificate: cert.name.clone(), gid };
        let missing = |text: String| Err(Error::new(Code::CertificateBad, text).at(&cert.name));
        match publish::inspect(root, &target)? {
            Published::Sound { material, .. } => {
                leaf::check_validity(&Leaf::of(&material)?, clock.now())
                    .map_err(|error| error.at(&cert.name))?;
            }
            Published::Absent => return missing("there is none yet".into()),
            Published::Broken { reason } => return missing(reason),
            Published::Foreign { what } => return missing(format!("{what} is in the way")),
        }
    }
    told(gated, root, spec)
}

/// What of a consumer's own configuration the agent writes, below the plane directory.
fn told(gated: &Gated, root: &Root, spec: &ConsumerSpec) -> Result<()> {
    let files: &[&str] = match spec.name.as_str() {
        "kubelet" => &["kubelet.yaml", "kubelet.conf", "kubelet.env"],
        ETCD => &["etcd.yaml"],
        _ => &[],
    };
    for name in files.iter().filter(|_| gated.has_cluster) {
        let path = Path::new(render::DIRECTORY).join(name);
        if root.stat(&path)?.is_none() {
            let text = "the agent has not written it yet";
            return Err(Error::new(Code::ConsumerSilent, text).at(path.display()));
        }
    }
    match &gated.etcd_data {
        Some(data) if spec.name == ETCD => membership::check(root, data),
        _ => Ok(()),
    }
}

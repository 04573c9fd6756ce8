//! What a consumer shows: TLS probes of its address, against the serials on disk.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Case, PROBE_LIMIT};
use crate::error::{Code, Error, Result};
use crate::host::units::Active;
use crate::wire::tls;

/// The least that one probe may take: a handshake with a busy consumer.
const ONE_PROBE: Duration = Duration::from_secs(2);

/// Between two probes.
const PROBE_PAUSE: Duration = Duration::from_millis(200);

/// What a probe saw.
pub(super) enum Sight {
    /// A certificate that is on disk for this consumer.
    Ours(String),
    /// Another one, by its serial.
    Other(String),
    /// Nobody answered.
    Silent(Error),
}

impl Case<'_> {
    /// Waits for the consumer to show a certificate on disk; gives its serial. One that serves
    /// none has only to be up.
    pub(super) async fn prove(&self, silence: Duration) -> Result<Option<String>> {
        if self.served().is_none() {
            let up = matches!(self.state().await?.active, Active::Active | Active::Reloading);
            let down = || Error::new(Code::RestartFailed, "its unit is not active");
            return if up { Ok(None) } else { Err(down()) };
        }
        match self.watch(PROBE_LIMIT.min(silence), silence).await {
            Sight::Ours(serial) => Ok(Some(serial)),
            Sight::Other(serial) => Err(self.not_served(&serial)),
            Sight::Silent(error) => Err(self.not_served(&format!("{error:#}"))),
        }
    }

    /// The serial that is shown just now, if anybody answers.
    pub(super) async fn glance(&self) -> Option<String> {
        match self.watch(Duration::ZERO, Duration::ZERO).await {
            Sight::Ours(serial) | Sight::Other(serial) => Some(serial),
            Sight::Silent(_) => None,
        }
    }

    /// The probe's address and the serials of which it has to show one.
    fn served(&self) -> Option<(SocketAddr, Vec<&str>)> {
        let serving = self.target.iter().filter(|(cert, _)| cert.usage.serves());
        let serials: Vec<_> = serving.map(|(_, held)| held.leaf.serial.as_str()).collect();
        self.spec.probe.filter(|_| !serials.is_empty()).map(|address| (address, serials))
    }

    /// Probes until ours is shown, another one has been shown for `other`, or nobody has answered
    /// for `silence`.
    pub(super) async fn watch(&self, other: Duration, silence: Duration) -> Sight {
        let Some((address, serials)) = self.served() else {
            return Sight::Silent(Error::new(Code::ConsumerSilent, "it serves nothing"));
        };
        let begun = self.node.clock.monotonic();
        loop {
            let waited = self.node.clock.monotonic().saturating_sub(begun);
            let patience = silence.saturating_sub(waited).max(ONE_PROBE);
            let sight = match tls::served(&address.to_string(), None, patience).await {
                Ok(seen) if serials.contains(&seen.serial.as_str()) => {
                    return Sight::Ours(seen.serial);
                }
                Ok(seen) => Sight::Other(seen.serial),
                Err(error) => Sight::Silent(error),
            };
            let waited = self.node.clock.monotonic().saturating_sub(begun);
            match sight {
                Sight::Silent(_) if waited < silence => {}
                Sight::Other(_) if waited < other => {}
                sight => return sight,
            }
            self.node.clock.sleep(PROBE_PAUSE).await;
        }
    }

    pub(super) fn not_served(&self, found: &str) -> Error {
        let address = self.spec.probe.map_or_else(String::new, |probe| probe.to_string());
        let wanted = self.served().map_or_else(String::new, |(_, serials)| serials.join(" or "));
        let advice = match &self.spec.unit {
            Some(unit) => format!("systemctl status {unit}; journalctl -u {unit}"),
            None => format!("restart {} by hand: it has no unit of its own", self.spec.name),
        };
        Error::new(Code::NotServed, format!("{address} does not serve {wanted}: {found}"))
            .advise(advice)
    }

    pub(super) fn late(&self, serial: &str) -> Error {
        let text = format!("the former certificate is still served: {serial}");
        Error::new(Code::ConsumerSilent, text).advise(
            "nothing for a minute and a half: a program that missed the change of its files looks \
             at them again after a minute",
        )
    }

    pub(super) fn silent(&self, error: &Error) -> Error {
        let text = format!("nobody shows a certificate: {error:#}");
        Error::new(Code::ConsumerSilent, text).advise(format!(
            "see that {} runs and that `probe` of its [[consumer]] is where it serves",
            self.spec.name
        ))
    }
}

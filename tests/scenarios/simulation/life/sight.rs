//! What a look of the agent sees, at the price of what has changed since the last one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use nodeagent::attest::Identity;
use nodeagent::config::CertSpec;
use nodeagent::duty::facts::{CertFact, Held};
use nodeagent::duty::{Facts, Why, certs};

use super::super::faults::CERTIFICATES;
use super::super::marks::Marks;
use super::super::world::Published;
use super::Life;

/// At every so many looks it is tried whether what is known of unchanged files is what they hold.
const LOOKS_ALL_THE_SAME: u64 = 32;

/// A sound certificate as a look saw it; another look sees the same for as long as these files do
/// not change and the clock goes on.
pub(super) struct Known {
    /// What is published of it, and what all have in common.
    files: (Marks, Marks),
    /// For whom it was looked at.
    identity: Option<Identity>,
    /// When, by the node's own clock.
    at: Timestamp,
    held: Held,
}

impl Life {
    /// What the agent sees. What it would read and verify again though no file has changed is
    /// taken from the last look; but now and then it looks all the same, and has to see that.
    pub(super) async fn facts(&mut self, (published, rest): &(Published, Marks)) -> Facts {
        self.looks += 1;
        let mut facts = Facts::known(&self.node);
        let (identity, at) = (facts.identity.clone(), self.node.clock.now());
        let files: BTreeMap<&str, &Marks> = CERTIFICATES.into_iter().zip(published).collect();
        let fails = self.ledger.weather.disk_fails();
        self.known.retain(|name, known| {
            let same = (&known.files.0, &known.files.1) == (files[name.as_str()], rest);
            !fails && same && known.identity == identity && known.at <= at
        });
        if self.known.is_empty() {
            (facts, _) = self.agent().look().await;
        } else {
            facts.certificates = self.examined(identity.as_ref());
            if self.looks.is_multiple_of(LOOKS_ALL_THE_SAME) {
                let (looked, _) = self.agent().look().await;
                let (seen, kept) = (&looked.certificates, &facts.certificates);
                assert_eq!(format!("{seen:?}"), format!("{kept:?}"), "a change went unnoticed");
            }
        }
        if fails {
            // What such a disk gives is no knowledge.
            return facts;
        }
        let off = self.ledger.weather.clock_is_off();
        for (name, fact) in &facts.certificates {
            let Some(held) = fact.held() else { continue };
            // By a clock that is off an authority may not be valid yet: the chain may verify later.
            let passes = off && held.flaw == Some(Why::CaRotated);
            if passes || self.known.contains_key(name) {
                continue;
            }
            let files = (files[name.as_str()].clone(), rest.clone());
            let (identity, held) = (identity.clone(), held.clone());
            self.known.insert(name.clone(), Known { files, identity, at, held });
        }
        facts
    }

    /// The certificates that are known, and the others looked at as the agent does.
    fn examined(&self, identity: Option<&Identity>) -> BTreeMap<String, CertFact> {
        let node = self.node.clone();
        let fact = |spec: &CertSpec| match self.known.get(&spec.name) {
            Some(known) => CertFact::Held(known.held.clone()),
            None => {
                let records = self.agent.as_ref().expect("the node is up in a turn").records();
                let quarantined = records.certificate(&spec.name).quarantined;
                certs::examine(&node, spec, identity, &quarantined)
            }
        };
        node.config.certificates.iter().map(|spec| (spec.name.clone(), fact(spec))).collect()
    }
}

//! One pass over a set: every object once, in order, whatever happened to those before it. A
//! pass ends early only where the API is away, because every further call would wait for its
//! deadline.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::inventory::{Entry, Inventory, Origin, Stored};
use super::{Asset, Key, MANAGER, NAMESPACE, Set, prune};
use crate::error::{Code, Error, Kind, Result};
use crate::wire::kube::{Applied, Kube, Probe, Resource};

/// After so many failing answers in a row the API is asked whether it is well.
const FAILURES: usize = 3;

/// What every object that we apply carries: `kubectl get ds -A -l nodeagent/asset=true`.
const LABEL: &str = "nodeagent/asset";

/// Something about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The object: `DaemonSet kube-system/kube-proxy`.
    pub object: String,
    /// Where it stands; empty for an object that the set does not have.
    pub source: String,
    /// What there is to say.
    pub reason: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Remark { object, source, reason } = self;
        match source.as_str() {
            "" => write!(f, "{object}: {reason}"),
            source => write!(f, "{object} ({source}): {reason}"),
        }
    }
}

/// What a pass came to. Each object of the set is in one of `applied`, `pending` and `refused`.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the API took: the object, where it stands, and whether anything changed.
    pub applied: Vec<(String, String, Applied)>,
    /// What was taken out of the cluster.
    pub pruned: Vec<String>,
    /// What the set has no more and that stays all the same, with the reason.
    pub kept: Vec<Remark>,
    /// What another pass may bring: the kind or namespace is not there yet, the API is busy.
    pub pending: Vec<Remark>,
    /// What the API will not take as it is written.
    pub refused: Vec<Remark>,
}

impl Outcome {
    /// Whether another pass over the same set would be in vain.
    pub fn settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many objects are not as they were before.
    pub fn changes(&self) -> usize {
        let changed = self.applied.iter().filter(|(_, _, applied)| *applied != Applied::Unchanged);
        changed.count() + self.pruned.len()
    }
}

/// Whether the cluster has all of this set, as far as the inventory tells: the set was applied
/// whole, and no other since.
pub async fn satisfied(kube: &Kube, set: &Set) -> Result<bool> {
    let stored = Stored::read(kube).await?;
    let Inventory { digest, complete, .. } = stored.inventory;
    Ok(set.faults.is_empty() && complete && digest == set.digest)
}

/// Whether the cluster's inventory has anything that could be taken out.
pub async fn are_recorded(kube: &Kube) -> Result<bool> {
    Ok(!Stored::read(kube).await?.inventory.entries.is_empty())
}

/// Applies the set once. Fails where the inventory cannot be read or written, having done no
/// harm; everything else is told object by object.
pub async fn apply(kube: &Kube, set: &Set) -> Result<Outcome> {
    let former = Stored::read(kube).await?;
    let mut pass = Pass::begin(kube, set, &former).await?;
    for asset in &set.objects {
        pass.one(asset).await;
    }
    pass.end(&former).await
}

struct Pass<'a> {
    kube: &'a Kube,
    set: &'a Set,
    outcome: Outcome,
    entries: BTreeMap<Key, Entry>,
    /// What could not be looked at before, and why.
    unseen: BTreeMap<Key, String>,
    /// Failing answers in a row, and why the rest is not tried.
    failures: usize,
    away: Option<String>,
    /// What discovery said; only of kinds that are there, because others may come.
    resources: BTreeMap<(String, String), Resource>,
}

impl<'a> Pass<'a> {
    /// Writes down what is to be applied, before it is.
    async fn begin(kube: &'a Kube, set: &'a Set, former: &Stored) -> Result<Pass<'a>> {
        let known = former.inventory.by_key();
        let mut pass = Pass::new(kube, set);
        let mut entries = BTreeMap::new();
        let mut grown = former.inventory.clone();
        for asset in &set.objects {
            let key = asset.key();
            let entry = match known.get(&key) {
                Some(entry) => {
                    Entry { api_version: asset.api_version.clone(), ..Entry::clone(entry) }
                }
                None => match pass.first_seen(asset).await {
                    Err(error) if error.code() == Code::ApiserverUnreachable => return Err(error),
                    // Without knowing whether it was there before, it is not touched.
                    Err(error) => {
                        pass.unseen.insert(key, format!("{error:#}"));
                        continue;
                    }
                    Ok(entry) => {
                        grown.entries.push(entry.clone());
                        entry
                    }
                },
            };
            entries.insert(key, entry);
        }
        let news = grown.entries.len() > former.inventory.entries.len();
        if news || former.inventory.digest != set.digest {
            grown.digest.clone_from(&set.digest);
            grown.complete = false;
            former.swap(kube, &grown).await?;
        }
        pass.entries = entries;
        if let Some(fault) = &former.fault {
            let reason = format!(
                "is unreadable ({fault}) and begins anew: what was applied \
                                  before and is in no manifest any more stays for ever"
            );
            pass.outcome.kept.push(remark(&super::inventory::key(), "", reason));
        }
        Ok(pass)
    }

    fn new(kube: &'a Kube, set: &'a Set) -> Pass<'a> {
        Pass {
            kube,
            set,
            outcome: Outcome::default(),
            entries: BTreeMap::new(),
            unseen: BTreeMap::new(),
            failures: 0,
            away: None,
            resources: BTreeMap::new(),
        }
    }

    async fn resource(&mut self, asset: &Asset) -> Result<Option<Resource>> {
        let kind = (asset.api_version.clone(), asset.kind.clone());
        if let Some(resource) = self.resources.get(&kind) {
            return Ok(Some(resource.clone()));
        }
        let found = self.kube.resource(&asset.api_version, &asset.kind).await?;
        if let Some(resource) = &found {
            self.resources.insert(kind, resource.clone());
        }
        Ok(found)
    }

    /// Whether an object is there before it was ever applied by us. Of a kind that the API does
    /// not know there is none.
    async fn first_seen(&mut self, asset: &Asset) -> Result<Entry> {
        let found = match self.resource(asset).await? {
            Some(resource) => self.kube.get(&path(&resource, &asset.key())).await?,
            None => None,
        };
        let origin = if found.is_some() { Origin::Adopted } else { Origin::Created };
        Ok(Entry::new(asset, origin, found.as_ref().and_then(uid)))
    }

    async fn one(&mut self, asset: &Asset) {
        let key = asset.key();
        if let Some(away) = &self.away {
            let reason = format!("was not tried: {away}");
            return self.outcome.pending.push(remark(&key, &asset.source, reason));
        }
        if let Some(reason) = self.unseen.remove(&key) {
            return self.outcome.pending.push(remark(&key, &asset.source, reason));
        }
        let tried = self.try_one(asset).await;
        let error = match tried {
            Ok(Some(applied)) => {
                self.failures = 0;
                let source = asset.source.clone();
                return self.outcome.applied.push((key.to_string(), source, applied));
            }
            Ok(None) => {
                self.failures = 0;
                let reason = format!(
                    "the API does not serve {} of {}: the definition of that kind is missing, \
                     young or of another version",
                    asset.kind, asset.api_version
                );
                return self.outcome.pending.push(remark(&key, &asset.source, reason));
            }
            Err(error) => error,
        };
        let remark = remark(&key, &asset.source, redacted(asset, format!("{error:#}")));
        match is_passing(&error) {
            true => self.outcome.pending.push(remark),
            false => self.outcome.refused.push(remark),
        }
        self.look_around(&error).await;
    }

    /// Nothing where the API does not know the kind.
    async fn try_one(&mut self, asset: &Asset) -> Result<Option<Applied>> {
        let Some(resource) = self.resource(asset).await? else {
            return Ok(None);
        };
        let mut object = asset.object.clone();
        if resource.namespaced && asset.namespace.is_none() {
            object["metadata"]["namespace"] = NAMESPACE.into();
        }
        mark(&mut object);
        let applied = self.kube.apply(&object, MANAGER).await?;
        self.record(asset, &resource, applied).await;
        Ok(Some(applied))
    }

    /// Decides after an error whether the rest is tried. Failing answers alone are no reason: a
    /// hook whose server is down answers so for some kinds, and the rest may bring its server.
    async fn look_around(&mut self, error: &Error) {
        if error.kind() != Kind::Unavailable || !is_passing(error) {
            self.failures = 0;
            return;
        }
        self.failures += 1;
        let away = error.code() == Code::ApiserverUnreachable;
        if away || self.failures >= FAILURES && !self.is_ready().await {
            self.away = Some(format!("{error:#}"));
        } else if self.failures >= FAILURES {
            self.failures = 0;
        }
    }

    async fn is_ready(&self) -> bool {
        matches!(self.kube.probe("/readyz").await, Ok(Probe::Ok))
    }

    /// Keeps the uid of what was applied, so that pruning knows that very object again.
    async fn record(&mut self, asset: &Asset, resource: &Resource, applied: Applied) {
        let Some(entry) = self.entries.get_mut(&asset.key()) else {
            return;
        };
        if applied == Applied::Unchanged && entry.uid.is_some() {
            return;
        }
        let path = path(resource, &asset.key());
        // Without an answer the uid stays unknown, and the next pass asks again.
        let found = self.kube.get(&path).await.ok().flatten();
        let uid = found.as_ref().and_then(uid);
        match applied {
            Applied::Created => entry.origin = Origin::Created,
            _ if entry.uid.is_some() && entry.uid != uid => entry.origin = Origin::Adopted,
            _ => {}
        }
        entry.uid = uid;
    }

    /// Prunes and writes down what is in the cluster now. Where the API went away meanwhile the
    /// next pass does it: the inventory has all that was tried.
    async fn end(mut self, former: &Stored) -> Result<Outcome> {
        if self.away.is_some() {
            return Ok(self.outcome);
        }
        match self.settle(former).await {
            Err(error) if is_passing(&error) => {
                let remark = remark(&super::inventory::key(), "", format!("{error:#}"));
                self.outcome.pending.push(remark);
                Ok(self.outcome)
            }
            other => other.map(|()| self.outcome),
        }
    }

    /// Pruning waits until everything was taken: what replaces an object may be what is broken.
    async fn settle(&mut self, former: &Stored) -> Result<()> {
        let now = Stored::read(self.kube).await?;
        if now.inventory.digest != self.set.digest {
            let text = "another agent applies another set of assets to this cluster";
            return Err(Error::new(Code::Foreign, text)
                .advise("give all controllers the same directory of assets"));
        }
        let objects = self.set.objects.iter();
        let applied: Vec<Entry> =
            objects.filter_map(|asset| self.entries.get(&asset.key()).cloned()).collect();
        let rest = former.inventory.entries.iter();
        let mut rest: Vec<Entry> =
            rest.filter(|entry| !self.entries.contains_key(&entry.key())).cloned().collect();
        let whole = self.set.faults.is_empty()
            && self.outcome.pending.is_empty()
            && self.outcome.refused.is_empty();
        if let Some(place) = &self.set.empty
            && !rest.is_empty()
        {
            let reason = format!(
                "{} that were applied before are in no manifest any more, but {place} holds none \
                 at all, and they stay; if they are to go, put a file with a comment there",
                rest.len()
            );
            self.outcome.kept.push(remark(&super::inventory::key(), "", reason));
        } else if whole {
            rest = prune::prune(self.kube, rest, &applied, &mut self.outcome).await;
        }
        let complete = whole && self.outcome.pending.is_empty();
        let entries = applied.into_iter().chain(rest).collect();
        let inventory = Inventory { digest: self.set.digest.clone(), complete, entries };
        now.swap(self.kube, &inventory).await
    }
}

/// An object that says nothing but its name would have no field of ours, and so no manager.
fn mark(object: &mut Value) {
    let labels = &mut object["metadata"]["labels"];
    if labels.is_null() || labels.is_object() {
        labels[LABEL] = "true".into();
    }
}

/// The API quotes what it does not understand, in a form of its own; of a Secret that may be the
/// secret. What it has got is not told, nor any value wherever else it stands.
fn redacted(asset: &Asset, reason: String) -> String {
    if asset.kind != "Secret" {
        return reason;
    }
    let mut reason = match reason.split_once(" got ") {
        Some((before, _)) => format!("{before} got ***"),
        None => reason,
    };
    let mut values = Vec::new();
    for field in ["data", "stringData"] {
        leaves(&asset.object[field], &mut values);
    }
    // A letter or two are no secret, and stand in every word.
    for text in values.iter().filter(|text| text.len() > 2) {
        reason = reason.replace(text, "***");
    }
    reason
}

/// The texts and numbers in a value, however deep.
fn leaves(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.values().for_each(|value| leaves(value, found)),
        Value::Array(items) => items.iter().for_each(|value| leaves(value, found)),
        Value::String(text) => found.push(text.clone()),
        other => found.push(other.to_string()),
    }
}

/// Where the object is in the API.
pub(super) fn path(resource: &Resource, key: &Key) -> String {
    let namespace = resource.namespaced.then_some(key.namespace.as_str());
    resource.path(namespace, &key.name)
}

/// What the API calls this very object.
pub(super) fn uid(object: &Value) -> Option<String> {
    object["metadata"]["uid"].as_str().map(String::from)
}

pub(super) fn remark(key: &Key, source: &str, reason: String) -> Remark {
    Remark { object: key.to_string(), source: source.to_owned(), reason }
}

/// What the API says with a status that fits an object that is wrong, of one that may be right:
/// a namespace that is missing (404) or on its way out, somebody who writes it at the same time
/// (409), an account that the controllers make a little later, an API that is still starting.
const PASSING: [&str; 7] = [
    ": 404 ",
    ": 409 ",
    "is being terminated",
    "error looking up service account",
    "no PriorityClass with name",
    "not yet ready to handle request",
    "the API knows no kind",
];

/// With this the API answers 500 to fields that a kind does not have.
const NO_SUCH_FIELD: &str = "failed to create typed patch object";

/// Whether the object may be right and the time wrong.
fn is_passing(error: &Error) -> bool {
    let text = format!("{error:#}");
    let unavailable = error.kind() == Kind::Unavailable && !text.contains(NO_SUCH_FIELD);
    unavailable || PASSING.iter().any(|words| text.contains(words))
}

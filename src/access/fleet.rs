//! All clusters of the bastion: found in EKS and in the file, each with its API server and with who EKS lets in.

mod list;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use self::list::{Answer, How, Known, Listing, add, ask, stated};
use super::change::{Change, Target};
use super::cluster::{Api, Key, Names, Tokens};
use super::eks::Entries;
use super::lease::Lease;
use super::seam::{self, Fault, Turn};
use super::world::{Cluster, Mode};
use crate::config::rbac::Rbac;
use crate::config::{Kube, open_secret};
use crate::warden::clusters::Place;

/// Cut, it is no kubeconfig any more.
const LONGEST_KUBECONFIG: u64 = 1 << 20;

/// The clusters, and what is kept of them from cycle to cycle.
pub struct Fleet {
    kube: Kube,
    kubeconfig: Option<PathBuf>,
    lease_namespace: String,
    levels: Vec<String>,
    /// This process in words, in leases.
    holder: String,
    entries: Option<Arc<Entries>>,
    calls: Arc<AtomicU64>,
    listing: Mutex<Listing>,
    /// The last good answer of each place.
    seen: Mutex<BTreeMap<Place, Answer>>,
    open: Mutex<BTreeMap<String, Open>>,
    /// The text that `open` was made with.
    text: Mutex<Option<Zeroizing<String>>>,
}

/// A cluster that was asked something.
#[derive(Clone)]
struct Open {
    known: Known,
    api: Arc<Api>,
    lease: Arc<Lease>,
}

impl Fleet {
    /// Without `entries` there is no EKS. `holder`: what `lease::holder` made for this process.
    pub fn new(kube: &Kube, rbac: &Rbac, entries: Option<Arc<Entries>>, holder: &str) -> Self {
        Self {
            kube: kube.clone(),
            kubeconfig: rbac.kubeconfig.clone(),
            lease_namespace: rbac.lease_namespace.clone(),
            levels: rbac.levels.iter().map(|level| level.name.clone()).collect(),
            holder: holder.to_owned(),
            entries,
            calls: Arc::default(),
            listing: Mutex::default(),
            seen: Mutex::default(),
            open: Mutex::default(),
            text: Mutex::default(),
        }
    }

    /// Requests to API servers so far; AWS counts its own.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whose turn it is on a cluster, in a sentence, for whoever only looks.
    pub async fn whose_turn(&self, cluster: &str) -> Result<Option<String>, Fault> {
        self.open(cluster)?.lease.whose().await
    }

    /// Read again in each cycle, for its tokens may be short-lived.
    fn kubeconfig(&self) -> Result<Option<Zeroizing<String>>, Fault> {
        let Some(file) = &self.kubeconfig else { return Ok(None) };
        let unreadable = |what: String| Fault::new("Unreadable", format!("`kubeconfig` of [rbac]: {what}"), false);
        let mut text = Zeroizing::new(String::new());
        let opened = open_secret(file).map_err(unreadable)?;
        opened.take(LONGEST_KUBECONFIG).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
        let former = held(&self.text).replace(text.clone());
        if former.as_ref() != Some(&text) {
            held(&self.open).retain(|_, open| matches!(open.known.how, How::Eks { .. }));
        }
        Ok(Some(text))
    }

    /// What was found in EKS, now or, where it does not answer, when it did last.
    async fn found(&self) -> Result<BTreeMap<Place, Answer>, Fault> {
        let Some(entries) = self.entries.as_ref().filter(|_| !self.kube.discover.is_empty()) else {
            return Ok(BTreeMap::new());
        };
        let answers = ask(entries, &self.kube.discover).await;
        let mut seen = held(&self.seen);
        for (place, answer) in answers {
            match answer {
                Ok(answer) => drop(seen.insert(place, answer)),
                Err(fault) if seen.contains_key(&place) => {
                    tracing::warn!(%place, "EKS does not tell its clusters, those of before are taken: {fault}");
                }
                // Its clusters would look as if they were gone.
                Err(fault) => return Err(Fault { message: format!("{place}: {}", fault.message), ..fault }),
            }
        }
        Ok(seen.clone())
    }

    fn open(&self, cluster: &str) -> Result<Open, Fault> {
        let missing = || Fault::new("NotFound", "there is no cluster of this name", false);
        let known = held(&self.listing).get(cluster).ok_or_else(missing)?.clone()?;
        let mut open = held(&self.open);
        if let Some(before) = open.get_mut(cluster).filter(|before| before.is(&known)) {
            before.known = known;
            return Ok(before.clone());
        }
        let key = match (&known.how, &self.entries) {
            (How::Kubeconfig(proof), _) => Key::Proof(proof.clone()),
            (How::Eks { at, cluster, .. }, Some(entries)) => {
                Key::Eks(Tokens::new(Arc::clone(entries), at.clone(), cluster.clone()))
            }
            (How::Eks { .. }, None) => return Err(missing()),
        };
        let api = Arc::new(Api::new(&known.site, key, Arc::clone(&self.calls))?);
        let lease = Arc::new(Lease::new(Arc::clone(&api), &self.lease_namespace, &self.holder));
        let opened = Open { known, api, lease };
        open.insert(cluster.to_owned(), opened.clone());
        Ok(opened)
    }

    async fn entry(&self, open: &Open, change: &Change) -> Result<(), Fault> {
        match (&open.known.how, &self.entries) {
            (How::Eks { mode: Mode::AwsAuth, .. }, _) => open.api.carry_out_row(change).await,
            (How::Eks { at, cluster, .. }, Some(entries)) => entries.carry_out(at, cluster, change).await,
            _ => Err(Fault::new("Unusable", format!("{}: nobody is let in here by EKS", change.target), false)),
        }
    }
}

impl Open {
    /// The very same place and way; another key of a kubeconfig is seen in its text.
    fn is(&self, known: &Known) -> bool {
        let way = |known: &Known| match &known.how {
            How::Eks { at, cluster, .. } => Some((at.clone(), cluster.clone())),
            How::Kubeconfig(_) => None,
        };
        self.known.site == known.site && way(&self.known) == way(known)
    }
}

impl seam::Fleet for Fleet {
    async fn clusters(&self) -> Result<Vec<String>, Fault> {
        let kubeconfig = self.kubeconfig();
        let text = kubeconfig.as_ref().map(|text| text.as_ref().map(|text| text.as_str()));
        let mut listing = stated(&self.kube, text, self.entries.as_deref()).await;
        add(&mut listing, &self.kube, &self.found().await?);
        held(&self.open).retain(|name, _| listing.contains_key(name));
        let names = listing.keys().cloned().collect();
        *held(&self.listing) = listing;
        Ok(names)
    }

    async fn read(&self, cluster: &str) -> Result<Cluster, Fault> {
        let open = self.open(cluster)?;
        let (mode, place) = (open.known.mode(), open.known.place().to_owned());
        let entries = async {
            match (&open.known.how, &self.entries) {
                (How::Eks { at, cluster, mode: Mode::Entries | Mode::Both, .. }, Some(entries)) => {
                    entries.read(at, cluster).await
                }
                _ => Ok(BTreeMap::new()),
            }
        };
        let names = Names { cluster, levels: &self.levels };
        let read = open.api.read(mode, place, names);
        let (is, entries) = tokio::try_join!(Box::pin(read), Box::pin(entries))?;
        Ok(Cluster { entries, ..is })
    }

    async fn carry_out(&self, cluster: &str, change: &Change) -> Result<(), Fault> {
        let open = self.open(cluster)?;
        match &change.target {
            Target::Entry { .. } => Box::pin(self.entry(&open, change)).await,
            Target::Row { .. } => Box::pin(open.api.carry_out_row(change)).await,
            _ => Box::pin(open.api.carry_out(change)).await,
        }
    }
}

impl seam::Turns for Fleet {
    async fn take(&self, cluster: &str) -> Result<Turn, Fault> {
        self.open(cluster)?.lease.take().await
    }

    async fn end(&self, cluster: &str) {
        let Ok(open) = self.open(cluster) else { return };
        if let Err(fault) = open.lease.end().await {
            tracing::warn!(cluster, "the lease was not given back, it ends by itself: {fault}");
        }
    }
}

fn held<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Found;
use crate::audit::Event;
use crate::config::{Discover, Kube};
use crate::policy::kube::{is_cluster_name, is_endpoint};
use crate::privsep::message::Refusal;
use crate::warden::credentials::jittered;

/// EKS has a hundred names a page, and allows a hundred clusters a region unless asked for more.
const PAGES: usize = 50;
/// Requests at one time; EKS throttles an account as a whole.
const IN_FLIGHT: usize = 8;
/// For one place, pages, descriptions and the SDK's own tries together.
const LONGEST_LOOK: Duration = Duration::from_secs(60);
/// An authority is about a kilobyte.
const LONGEST_AUTHORITY: usize = 32 * 1024;

/// Who has clusters: `Eks`, or a test's script.
pub trait Cloud: Send + Sync + 'static {
    fn names(&self, place: &Place, after: Option<String>) -> impl Future<Output = Result<Page, Refusal>> + Send;
    /// `None`: there is none of this name any more.
    fn describe(&self, place: &Place, name: &str) -> impl Future<Output = Result<Option<Described>, Refusal>> + Send;
}

/// Where is looked: an account, by the role that looks into it, and a region.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub role: Option<String>,
    pub region: String,
}

/// Names, and how to ask for more.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub names: Vec<String>,
    pub next: Option<String>,
}

/// A cluster in EKS's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub arn: String,
    /// It can be used now.
    pub is_up: bool,
    pub endpoint: String,
    /// PEM in base64.
    pub authority: String,
    pub tags: BTreeMap<String, String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Some(role) => write!(f, "{role} in {}", self.region),
            None => f.write_str(&self.region),
        }
    }
}

/// Looks for clusters, again and again.
pub struct Finder<C> {
    cloud: Arc<C>,
    wanted: Mutex<Wanted>,
    changed: Notify,
    audit: mpsc::Sender<Event>,
}

#[derive(Clone)]
struct Wanted {
    discover: Vec<Discover>,
    refresh: Duration,
}

impl Wanted {
    fn of(kube: &Kube) -> Self {
        Self { discover: kube.discover.clone(), refresh: kube.refresh }
    }
}

/// Each place once, whatever is looked for there.
pub fn places(discover: &[Discover]) -> BTreeSet<Place> {
    let of = |discover: &Discover| {
        let role = discover.role.clone();
        discover.regions.clone().into_iter().map(move |region| Place { role: role.clone(), region })
    };
    discover.iter().flat_map(of).collect()
}

/// What is known of a place.
#[derive(Default)]
struct Seen {
    /// The last good answer: clusters with all their tags.
    last: Vec<Found>,
    failing: bool,
}

impl<C: Cloud> Finder<C> {
    pub fn new(cloud: C, kube: &Kube, audit: mpsc::Sender<Event>) -> Self {
        Self { cloud: Arc::new(cloud), wanted: Mutex::new(Wanted::of(kube)), changed: Notify::new(), audit }
    }

    /// Looks by these from now on, and at once.
    pub fn adopt(&self, kube: &Kube) {
        *self.wanted() = Wanted::of(kube);
        self.changed.notify_one();
    }

    /// Sends what there is after each look; ends when nobody listens.
    pub async fn run(self: Arc<Self>, to: mpsc::Sender<Vec<Found>>) {
        let mut seen: BTreeMap<Place, Seen> = BTreeMap::new();
        loop {
            let wanted = self.wanted().clone();
            self.look(&wanted, &mut seen).await;
            if to.send(picked(&wanted, &seen)).await.is_err() {
                return;
            }
            let idle = wanted.discover.is_empty();
            tokio::select! {
                () = sleep(jittered(wanted.refresh)), if !idle => {}
                () = self.changed.notified() => {}
                () = to.closed() => return,
            }
        }
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks everywhere at once; a place that does not answer keeps what it had.
    async fn look(&self, wanted: &Wanted, seen: &mut BTreeMap<Place, Seen>) {
        let places = places(&wanted.discover);
        seen.retain(|place, _| places.contains(place));
        let turns = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut looks = JoinSet::new();
        for place in places {
            let (cloud, turns) = (Arc::clone(&self.cloud), Arc::clone(&turns));
            let before = seen.get(&place).map(|seen| seen.last.clone()).unwrap_or_default();
            looks.spawn(async move {
                let answer = timeout(LONGEST_LOOK, clusters(&*cloud, &turns, &place, &before)).await;
                (place, answer.unwrap_or_else(|_| Err(late())))
            });
        }
        while let Some(ended) = looks.join_next().await {
            let Ok((place, answer)) = ended else { continue };
            self.note(seen.entry(place.clone()).or_default(), &place, answer).await;
        }
    }

    /// One event when a place begins to fail, one when it works again.
    async fn note(&self, seen: &mut Seen, place: &Place, answer: Result<Vec<Found>, Refusal>) {
        let event = match answer {
            Ok(found) => {
                seen.last = found;
                std::mem::take(&mut seen.failing).then(|| Event::DiscoveryWorks { place: place.to_string() })
            }
            Err(refusal) => {
                tracing::warn!(%place, code = refusal.code, "EKS does not tell its clusters: {}", refusal.message);
                let Refusal { code, message, .. } = refusal;
                let event = Event::DiscoveryFailed { place: place.to_string(), code, message };
                (!std::mem::replace(&mut seen.failing, true)).then_some(event)
            }
        };
        if let Some(event) = event {
            let _ = self.audit.send(event).await;
        }
    }
}

fn late() -> Refusal {
    Refusal { code: "ServiceUnavailable".into(), message: "EKS did not answer in time".into(), transient: true }
}

/// What the entries ask for of what there is.
fn picked(wanted: &Wanted, seen: &BTreeMap<Place, Seen>) -> Vec<Found> {
    let mut all = Vec::new();
    for discover in &wanted.discover {
        for region in &discover.regions {
            let place = Place { role: discover.role.clone(), region: region.clone() };
            let found = seen.get(&place).map(|seen| seen.last.as_slice()).unwrap_or_default();
            let fits = |found: &&Found| {
                discover
                    .tags
                    .iter()
                    .all(|(name, pattern)| found.labels.get(name).is_some_and(|tag| pattern.matches(tag)))
            };
            // Whoever runs an account that is not trusted must not choose who may use what.
            let labels = |found: &Found| if discover.trusted { found.labels.clone() } else { BTreeMap::new() };
            all.extend(found.iter().filter(fits).map(|found| Found { labels: labels(found), ..found.clone() }));
        }
    }
    all
}

/// All clusters of a place. One that is not up stays as it was.
async fn clusters(
    cloud: &impl Cloud,
    turns: &Semaphore,
    place: &Place,
    before: &[Found],
) -> Result<Vec<Found>, Refusal> {
    let mut found = Vec::new();
    for name in names(cloud, turns, place).await? {
        let described = {
            let _turn = turns.acquire().await;
            cloud.describe(place, &name).await?
        };
        let known = before.iter().find(|known| known.name == name);
        match described {
            Some(described) if described.is_up => found.extend(read(place, name, described)),
            Some(_) => found.extend(known.cloned()),
            None => {}
        }
    }
    Ok(found)
}

async fn names(cloud: &impl Cloud, turns: &Semaphore, place: &Place) -> Result<BTreeSet<String>, Refusal> {
    let (mut names, mut after) = (BTreeSet::new(), None);
    for _ in 0..PAGES {
        let page = {
            let _turn = turns.acquire().await;
            cloud.names(place, after).await?
        };
        names.extend(page.names);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(names)
}

/// Nothing where EKS says what no cluster of this place could be.
fn read(place: &Place, name: String, described: Described) -> Option<Found> {
    let Described { arn, endpoint, authority, tags, .. } = described;
    let odd = |what: &str| {
        tracing::warn!(%place, cluster = name, "a cluster of EKS is left out: {what}");
        None
    };
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", _, "eks", region, account, resource] = parts.as_slice() else { return odd("its ARN is none") };
    if *region != place.region || resource.strip_prefix("cluster/") != Some(&name) || !is_cluster_name(&name) {
        return odd("it is another one, or its name cannot be used");
    }
    let endpoint = endpoint.trim_end_matches('/');
    if !is_endpoint(endpoint) {
        return odd("its endpoint is no https address");
    }
    let Some(authority) = certificates(&authority) else { return odd("its authority is no certificate") };
    let (account, region) = ((*account).to_owned(), (*region).to_owned());
    Some(Found { account, region, endpoint: endpoint.to_owned(), authority, labels: tags, name })
}

fn certificates(data: &str) -> Option<String> {
    let pem =
        String::from_utf8(STANDARD.decode(data.trim()).ok()?).ok().filter(|pem| pem.len() <= LONGEST_AUTHORITY)?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        store.add(certificate.ok()?).ok()?;
    }
    (!store.is_empty()).then_some(pem)
}

#[cfg(test)]
mod tests;

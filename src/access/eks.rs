//! EKS: which clusters there are, how they let people in, and their access entries.
//!
//! EKS lists the principals of a cluster a hundred a call, and describes them one a call: a thousand users on twenty
//! clusters would be forty thousand calls a cycle. So what was described is remembered. Each `read` lists all, and asks
//! about those that are new, those that were changed from here, and the next share of the rest, so that each is looked at
//! again within `TURNS` cycles: what was changed by hand is found within two hours by itself, and at once where EKS's
//! events reach the queue (`doubt`, which is of one entry where the event names it). A process that has just started, `stockade access plan` always, asks about all.
//! Those of others too: one that has a user's name or a group of ours is a right that nobody gave, and only its
//! description says so. When it was changed last is in there as well, so no memory on disk would spare a call.
//!
//! Which of EKS's own policies an entry has is one more call. Of many new ones at once it is asked the other way round:
//! who has a policy, for each of the two dozen that there are.

mod entry;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_eks::Client;
use aws_sdk_eks::types::{AuthenticationMode, Cluster, ClusterStatus};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::entry::{Desk, Known};
use super::aws::{Aws, fault};
use super::change::{Change, Object, Target};
use super::rows::without_path;
use super::seam::Fault;
use super::world::{Entry, Mode};
use crate::identity::{self, Secret};
use crate::warden::clusters::Place;

/// Cycles until an entry that nobody spoke of is looked at again.
const TURNS: usize = 24;
/// Entries that are looked at again in every cycle, if there are so many.
const LEAST: usize = 4;
/// Principals whose entries are doubted one by one; of more, all are.
const MOST_DOUBTED: usize = 256;
/// New entries of a cluster at one time, beyond which policies are asked for their entries.
const MANY: usize = 64;
/// Descriptions at one time, of all clusters together: EKS throttles an account as a whole.
const IN_FLIGHT: usize = 16;
/// EKS allows a hundred clusters a region and some thousand entries a cluster unless asked for more; whoever has more
/// pages than this is not EKS.
const PAGES: usize = 2000;

/// A cluster in EKS's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    pub arn: String,
    pub account: String,
    pub region: String,
    /// It can be used now.
    pub is_up: bool,
    pub endpoint: String,
    /// PEM in base64.
    pub authority: String,
    pub tags: BTreeMap<String, String>,
    /// Never `Impersonated`.
    pub mode: Mode,
}

/// Who EKS lets in to its clusters, by the names that EKS has for them. One for the whole process: it remembers.
#[derive(Debug)]
pub struct Entries {
    aws: Aws,
    /// Kept, for each holds the credentials of its role.
    clients: tokio::sync::Mutex<HashMap<Place, Client>>,
    seen: Mutex<HashMap<(Place, String), Seen>>,
    turns: Arc<Semaphore>,
}

/// Policies by the principal of the entry that has them.
type Holders = BTreeMap<String, BTreeSet<String>>;

/// Principals that are asked about now.
#[derive(Debug, Default, PartialEq)]
struct Due {
    /// Of whom nothing is known.
    new: BTreeSet<String>,
    turn: BTreeSet<String>,
}

/// What is remembered of a cluster.
#[derive(Debug, Default)]
struct Seen {
    entries: BTreeMap<String, Known>,
    /// The principal up to which all have had their turn.
    turn: String,
    doubt: Doubt,
}

/// What is not believed any more.
#[derive(Debug, Default, PartialEq, Eq)]
enum Doubt {
    #[default]
    None,
    /// The entries of these principals, without their paths.
    Of(BTreeSet<String>),
    All,
}

impl Entries {
    pub fn new(aws: Aws) -> Self {
        let turns = Arc::new(Semaphore::new(IN_FLIGHT));
        Self { aws, clients: tokio::sync::Mutex::default(), seen: Mutex::default(), turns }
    }

    /// Names of the clusters of an account and region.
    pub async fn clusters(&self, place: &Place) -> Result<Vec<String>, Fault> {
        let mut pages = self.client(place).await.list_clusters().into_paginator().send();
        let mut names = Vec::new();
        for _ in 0..PAGES {
            let Some(page) = pages.next().await else { return Ok(names) };
            names.extend(page.map_err(|error| fault(&error))?.clusters.unwrap_or_default());
        }
        Err(endless(&place.to_string()))
    }

    /// `None`: there is none of this name any more.
    pub async fn describe(&self, place: &Place, cluster: &str) -> Result<Option<Described>, Fault> {
        let said = match self.client(place).await.describe_cluster().name(cluster).send().await {
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => {
                return Ok(None);
            }
            answer => answer.map_err(|error| fault(&error))?,
        };
        said.cluster.map(|found| described(place, cluster, found)).transpose()
    }

    /// All access entries by their principal's ARN. Not to be asked of clusters that know aws-auth alone.
    pub async fn read(&self, place: &Place, cluster: &str) -> Result<BTreeMap<String, Entry>, Fault> {
        let client = self.client(place).await;
        let listed = list(&client, cluster, None).await?;
        let key = (place.clone(), cluster.to_owned());
        let due = self.seen().entry(key.clone()).or_default().due(&listed);
        let holders = if due.new.len() > MANY { self.holders(&client, cluster).await? } else { None };
        self.look(&client, &key, due, holders.map(Arc::new)).await?;
        let mut seen = self.seen();
        let entries = &seen.entry(key).or_default().entries;
        Ok(entries.iter().map(|(arn, known)| (arn.clone(), known.entry.clone())).collect())
    }

    /// Of a `Target::Entry`.
    pub async fn carry_out(&self, place: &Place, cluster: &str, change: &Change) -> Result<(), Fault> {
        let Target::Entry { role, .. } = &change.target else {
            return Err(Fault {
                code: "NotAnEntry".into(),
                message: format!("{} is no access entry", change.target),
                transient: false,
            });
        };
        let client = self.client(place).await;
        let desk = Desk { client: &client, cluster, principal: role };
        let outcome = match (entry_of(change.was.as_ref()), entry_of(change.shall_be.as_ref())) {
            (None, Some(entry)) => desk.make(entry).await,
            (Some(was), Some(entry)) => desk.alter(was, entry).await,
            (Some(was), None) => desk.remove(was).await,
            (None, None) => Ok(()),
        };
        // Whatever came of it: the next `read` asks.
        if let Some(seen) = self.seen().get_mut(&(place.clone(), cluster.to_owned())) {
            seen.entries.remove(role);
        }
        outcome
    }

    /// Everything of this cluster is asked for again with the next `read`: something was told to have changed.
    pub fn doubt(&self, place: &Place, cluster: &str) {
        if let Some(seen) = self.seen().get_mut(&(place.clone(), cluster.to_owned())) {
            seen.doubt = Doubt::All;
        }
    }

    /// The same of the cluster of this name in a region, whichever role it was found by; or of one principal's entry there,
    /// whose ARN has no path.
    pub fn doubt_named(&self, region: &str, cluster: &str, principal: Option<&str>) {
        let mut seen = self.seen();
        let named = seen.iter_mut().filter(|((place, name), _)| place.region == region && name == cluster);
        named.for_each(|(_, seen)| seen.doubt.add(principal));
    }

    /// For the API server, in the name of access's own identity, or of the place's role; signed here, without asking
    /// anybody while its keys live. To be asked for again after ten minutes.
    pub async fn token(&self, place: &Place, cluster: &str) -> Result<Secret, Fault> {
        let credentials = self.aws.credentials(place.role.as_deref()).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(identity::eks::token(&credentials, &place.region, cluster, i64::try_from(now).unwrap_or_default()))
    }

    /// The policies of each entry that has any; `None`: that may not be asked, so each entry is.
    async fn holders(&self, client: &Client, cluster: &str) -> Result<Option<Holders>, Fault> {
        let policies = match policies(client).await {
            Err(fault) if !fault.transient => {
                tracing::info!(cluster, "every access entry is asked for its policies: {fault}");
                return Ok(None);
            }
            policies => policies?,
        };
        let mut lists = JoinSet::new();
        for policy in policies {
            let (client, cluster, turns) = (client.clone(), cluster.to_owned(), Arc::clone(&self.turns));
            lists.spawn(async move {
                let _turn = turns.acquire().await;
                let holders = list(&client, &cluster, Some(&policy)).await;
                (policy, holders)
            });
        }
        let mut all = Holders::new();
        while let Some(ended) = lists.join_next().await {
            let (policy, holders) = ended.map_err(|_| lost())?;
            for principal in holders? {
                all.entry(principal).or_default().insert(policy.clone());
            }
        }
        Ok(Some(all))
    }

    /// Describes what is due, a few at a time, and remembers it: after a fault too, so that the next try has less to
    /// ask.
    async fn look(
        &self,
        client: &Client,
        key: &(Place, String),
        due: Due,
        holders: Option<Arc<Holders>>,
    ) -> Result<(), Fault> {
        let mut looks = JoinSet::new();
        let new = due.new.into_iter().map(|principal| (principal, holders.clone()));
        // In its turn each is asked for everything, whatever EKS leaves out of its list of policies.
        for (principal, holders) in new.chain(due.turn.into_iter().map(|principal| (principal, None))) {
            let (client, cluster, turns) = (client.clone(), key.1.clone(), Arc::clone(&self.turns));
            looks.spawn(async move {
                let _turn = turns.acquire().await;
                let desk = Desk { client: &client, cluster: &cluster, principal: &principal };
                let found = match holders {
                    Some(holders) => desk.describe().await.map(|found| {
                        let policies = holders.get(&principal).cloned().unwrap_or_default();
                        found.map(|known| known.with(policies))
                    }),
                    None => desk.find().await,
                };
                (principal, found)
            });
        }
        let mut outcome = Ok(());
        while let Some(ended) = looks.join_next().await {
            let Ok((principal, found)) = ended else {
                outcome = Err(lost());
                continue;
            };
            let mut seen = self.seen();
            let entries = &mut seen.entry(key.clone()).or_default().entries;
            match found {
                Ok(Some(known)) => drop(entries.insert(principal, known)),
                // Deleted since it was listed.
                Ok(None) => drop(entries.remove(&principal)),
                Err(fault) => outcome = Err(fault),
            }
        }
        outcome
    }

    async fn client(&self, place: &Place) -> Client {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(place) {
            return client.clone();
        }
        let client = self.aws.eks(place.role.as_deref(), &place.region).await;
        clients.insert(place.clone(), client.clone());
        client
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<(Place, String), Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doubt {
    fn add(&mut self, principal: Option<&str>) {
        match (std::mem::take(self), principal) {
            (Self::Of(mut these), Some(principal)) if these.len() < MOST_DOUBTED => {
                these.insert(principal.to_owned());
                *self = Self::Of(these);
            }
            (Self::None, Some(principal)) => *self = Self::Of([principal.to_owned()].into()),
            _ => *self = Self::All,
        }
    }

    fn is_of(&self, principal: &str) -> bool {
        match self {
            Self::None => false,
            Self::Of(these) => these.contains(&without_path(principal)),
            Self::All => true,
        }
    }
}

impl Seen {
    /// Forgets what is listed no more, and says what is asked about now.
    fn due(&mut self, listed: &BTreeSet<String>) -> Due {
        let doubt = std::mem::take(&mut self.doubt);
        self.entries.retain(|principal, _| listed.contains(principal) && !doubt.is_of(principal));
        let share = self.entries.len().div_ceil(TURNS).max(LEAST);
        let after = (Bound::Excluded(self.turn.clone()), Bound::Unbounded);
        let around = self.entries.range(after).chain(self.entries.range(..=self.turn.clone()));
        let turn: Vec<String> = around.take(share).map(|(principal, _)| principal.clone()).collect();
        if let Some(last) = turn.last() {
            self.turn.clone_from(last);
        }
        let new = listed.iter().filter(|principal| !self.entries.contains_key(*principal)).cloned();
        Due { new: new.collect(), turn: turn.into_iter().collect() }
    }
}

/// Principals, of all entries or of those with a policy.
async fn list(client: &Client, cluster: &str, policy: Option<&str>) -> Result<BTreeSet<String>, Fault> {
    let asked = client.list_access_entries().cluster_name(cluster);
    let mut pages = asked.set_associated_policy_arn(policy.map(str::to_owned)).into_paginator().send();
    let mut all = BTreeSet::new();
    for _ in 0..PAGES {
        let Some(page) = pages.next().await else { return Ok(all) };
        all.extend(page.map_err(|error| fault(&error))?.access_entries.unwrap_or_default());
    }
    Err(endless(cluster))
}

/// All of EKS's own, by their ARNs.
async fn policies(client: &Client) -> Result<BTreeSet<String>, Fault> {
    let mut pages = client.list_access_policies().into_paginator().send();
    let mut all = BTreeSet::new();
    for _ in 0..PAGES {
        let Some(page) = pages.next().await else { return Ok(all) };
        let policies = page.map_err(|error| fault(&error))?.access_policies.unwrap_or_default();
        all.extend(policies.into_iter().filter_map(|policy| policy.arn));
    }
    Err(endless("access policies"))
}

fn described(place: &Place, name: &str, found: Cluster) -> Result<Described, Fault> {
    let arn = found.arn.unwrap_or_default();
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", _, "eks", region, account, resource] = parts.as_slice() else {
        return Err(odd(format!("EKS says of cluster '{name}' that its ARN is '{arn}'")));
    };
    if *region != place.region || resource.strip_prefix("cluster/") != Some(name) {
        return Err(odd(format!("EKS was asked for cluster '{name}' in {place} and answers with {arn}")));
    }
    let mode = found.access_config.and_then(|access| access.authentication_mode);
    Ok(Described {
        name: name.to_owned(),
        account: (*account).to_owned(),
        region: (*region).to_owned(),
        is_up: matches!(found.status, Some(ClusterStatus::Active | ClusterStatus::Updating)),
        endpoint: found.endpoint.unwrap_or_default(),
        authority: found.certificate_authority.and_then(|authority| authority.data).unwrap_or_default(),
        tags: found.tags.unwrap_or_default().into_iter().collect(),
        mode: match mode {
            Some(AuthenticationMode::Api) => Mode::Entries,
            Some(AuthenticationMode::ApiAndConfigMap) => Mode::Both,
            // So old that it does not say.
            None | Some(AuthenticationMode::ConfigMap) => Mode::AwsAuth,
            Some(other) => return Err(odd(format!("cluster '{name}' has an unknown authentication mode '{other}'"))),
        },
        arn,
    })
}

fn entry_of(object: Option<&Object>) -> Option<&Entry> {
    match object {
        Some(Object::Entry(entry)) => Some(entry),
        _ => None,
    }
}

fn odd(message: String) -> Fault {
    Fault { code: "OddAnswer".into(), message, transient: true }
}

fn endless(what: &str) -> Fault {
    odd(format!("EKS's list of {what} has no end"))
}

fn lost() -> Fault {
    Fault { code: "InternalFailure".into(), message: "a request to EKS was lost".into(), transient: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
        names.into_iter().map(|n| format!("arn:{n:04}")).collect()
    }

    fn all(due: &Due) -> BTreeSet<String> {
        &due.new | &due.turn
    }

    fn see(seen: &mut Seen, due: &Due) {
        seen.entries.extend(all(due).into_iter().map(|principal| (principal, Known::default())));
    }

    #[test]
    fn each_entry_has_its_turn_and_no_cycle_asks_about_all() {
        let (mut seen, there) = (Seen::default(), listed(0..1000));
        let first = seen.due(&there);
        assert_eq!(first, Due { new: there.clone(), turn: BTreeSet::new() }, "what is not known is asked for");
        see(&mut seen, &first);
        let mut asked = BTreeSet::new();
        for _ in 0..TURNS {
            let due = seen.due(&there);
            assert!(due.new.is_empty() && due.turn.len() <= 1000_usize.div_ceil(TURNS), "{}", due.turn.len());
            asked.extend(due.turn);
        }
        assert_eq!(asked, there);
    }

    #[test]
    fn what_is_new_is_asked_for_and_what_is_gone_is_forgotten() {
        let mut seen = Seen::default();
        let due = seen.due(&listed(0..100));
        see(&mut seen, &due);
        let due = seen.due(&listed(50..101));
        assert!(due.new == listed([100]) && due.turn.len() <= LEAST, "{due:?}");
        assert_eq!(seen.entries.len(), 50);
        assert_eq!(seen.due(&BTreeSet::new()), Due::default());
        assert!(seen.entries.is_empty());
    }

    #[test]
    fn a_doubt_is_of_one_entry_where_it_names_one() {
        let role = |n: usize| format!("arn:aws:iam::123456789012:role/kube/user{n:03}");
        let (mut seen, there) = (Seen::default(), (0..100).map(role).collect::<BTreeSet<String>>());
        let everything = Due { new: there.clone(), turn: BTreeSet::new() };
        see(&mut seen, &everything);
        seen.doubt.add(Some("arn:aws:iam::123456789012:role/user077"));
        seen.doubt.add(Some("arn:aws:iam::123456789012:role/nobody"));
        let due = seen.due(&there);
        assert_eq!(due.new, [role(77)].into());
        see(&mut seen, &due);
        assert_eq!(seen.doubt, Doubt::None);
        (0..=MOST_DOUBTED).for_each(|n| seen.doubt.add(Some(&role(n))));
        assert_eq!(seen.due(&there), everything, "whoever writes to the queue fills no memory");
        see(&mut seen, &everything);
        seen.doubt.add(Some(&without_path(&role(1))));
        seen.doubt.add(None);
        assert_eq!(seen.due(&there), everything);
    }

    #[test]
    fn few_are_asked_for_every_time() {
        let (mut seen, there) = (Seen::default(), listed(0..LEAST));
        for _ in 0..3 {
            let due = seen.due(&there);
            assert_eq!(all(&due), there);
            see(&mut seen, &due);
        }
    }

    #[test]
    fn a_cluster_is_the_one_that_was_asked_for() {
        let place = Place { role: None, region: "eu-west-1".into() };
        let cluster = |arn: &str| Cluster::builder().arn(arn).build();
        let right = "arn:aws:eks:eu-west-1:123456789012:cluster/hyades";
        assert_eq!(described(&place, "hyades", cluster(right)).unwrap().mode, Mode::AwsAuth);
        for wrong in ["", "arn:aws:eks:eu-west-1", &right.replace("west", "east"), &right.replace("hyades", "x")] {
            assert_eq!(described(&place, "hyades", cluster(wrong)).unwrap_err().code, "OddAnswer", "{wrong}");
        }
    }
}

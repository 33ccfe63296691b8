//! Which clusters there are, by the bastion's own rules: a name that the bastion offers to nobody is no cluster here
//! either, but one that is away.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::access::cluster::Site;
use crate::access::eks::{Described, Entries};
use crate::access::seam::Fault;
use crate::access::world::Mode;
use crate::config::{Discover, Kube, NotUsable, Proof, StaticCluster, StaticWay, entry};
use crate::policy::kube::is_cluster_name;
use crate::warden::clusters::{Place, places};

/// Requests at one time; EKS throttles an account as a whole.
const IN_FLIGHT: usize = 8;

/// A cluster, and how access is somebody there.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub site: Site,
    pub how: How,
}

#[derive(Clone, Debug)]
pub(super) enum How {
    /// `place` in words; `cluster` as EKS calls it.
    Eks {
        at: Place,
        place: String,
        cluster: String,
        mode: Mode,
    },
    Kubeconfig(Proof),
}

/// By name; or why nobody can say where it is.
pub(super) type Listing = BTreeMap<String, Result<Known, Fault>>;

/// What a place has said.
pub(super) type Answer = Vec<(String, Result<Described, Fault>)>;

/// The text of `[rbac] kubeconfig`, if there is one.
pub(super) type Text<'t> = Result<Option<&'t str>, &'t Fault>;

/// The clusters of the file.
pub(super) async fn stated(kube: &Kube, kubeconfig: Text<'_>, entries: Option<&Entries>) -> Listing {
    let mut listing = Listing::new();
    for cluster in &kube.clusters {
        let known = match &cluster.way {
            StaticWay::Eks { region, cluster: name } => of_file(cluster, region, name, entries).await,
            // One credential for everybody: nobody is anybody there, unless access is told to come in all the same.
            StaticWay::Kubeconfig(_) if !has_context(kubeconfig, &cluster.name) => continue,
            StaticWay::Impersonate(_) | StaticWay::Kubeconfig(_) => by_kubeconfig(cluster, kubeconfig),
        };
        listing.insert(cluster.name.clone(), known);
    }
    listing
}

async fn of_file(stated: &StaticCluster, region: &str, name: &str, entries: Option<&Entries>) -> Result<Known, Fault> {
    let entries = entries.ok_or_else(|| unusable("it is of EKS, and there is no [aws]"))?;
    let at = Place { role: None, region: region.to_owned() };
    let described = entries.describe(&at, name).await?.ok_or_else(|| unusable("EKS has no such cluster here"))?;
    let mut known = of_eks(at, described)?;
    known.site.endpoint = stated.endpoint.clone().unwrap_or(known.site.endpoint);
    known.site.authority = stated.authority.clone().unwrap_or(known.site.authority);
    known.site.server_name = stated.server_name.clone();
    Ok(known)
}

fn has_context(kubeconfig: Text<'_>, name: &str) -> bool {
    match kubeconfig {
        Ok(text) => !matches!(text.map(|text| entry(text, Some(name))), None | Some(Err(NotUsable::Missing { .. }))),
        Err(_) => true,
    }
}

fn by_kubeconfig(stated: &StaticCluster, kubeconfig: Text<'_>) -> Result<Known, Fault> {
    let text = kubeconfig
        .map_err(Fault::clone)?
        .ok_or_else(|| unusable("[rbac] has no `kubeconfig` with a context of its name"))?;
    let said = entry(text, Some(&stated.name))
        .map_err(|refused| unusable(&format!("`kubeconfig` of [rbac]: {refused}: {}", refused.hint())))?;
    let site = Site {
        endpoint: stated.endpoint.clone().or(said.endpoint).ok_or_else(|| unusable("it has no endpoint"))?,
        authority: stated.authority.clone().or(said.authority).ok_or_else(|| unusable("it has no authority"))?,
        server_name: stated.server_name.clone().or(said.server_name),
    };
    Ok(Known { site, how: How::Kubeconfig(said.proof) })
}

/// What each place has, asked at once.
pub(super) async fn ask(entries: &Arc<Entries>, discover: &[Discover]) -> BTreeMap<Place, Result<Answer, Fault>> {
    let turns = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut looks = JoinSet::new();
    let mut answers = BTreeMap::new();
    for place in places(discover) {
        answers.insert(place.clone(), Err(unusable("looking there was broken off")));
        let (entries, turns) = (Arc::clone(entries), Arc::clone(&turns));
        looks.spawn(async move {
            let answer = look(&entries, &turns, &place).await;
            (place, answer)
        });
    }
    while let Some(looked) = looks.join_next().await {
        answers.extend(looked);
    }
    answers
}

async fn look(entries: &Arc<Entries>, turns: &Arc<Semaphore>, place: &Place) -> Result<Answer, Fault> {
    let names = {
        let _turn = turns.acquire().await;
        entries.clusters(place).await?
    };
    let mut looks = JoinSet::new();
    let mut answer: BTreeMap<String, Result<Option<Described>, Fault>> = BTreeMap::new();
    for name in names {
        answer.insert(name.clone(), Err(unusable("looking at it was broken off")));
        let (entries, turns, place) = (Arc::clone(entries), Arc::clone(turns), place.clone());
        looks.spawn(async move {
            let _turn = turns.acquire().await;
            let described = entries.describe(&place, &name).await;
            (name, described)
        });
    }
    while let Some(looked) = looks.join_next().await {
        answer.extend(looked);
    }
    // One that is gone since it was listed is gone.
    Ok(answer.into_iter().filter_map(|(name, is)| Some((name, is.transpose()?))).collect())
}

/// Adds what was found and is asked for; a cluster of the file keeps its name.
pub(super) fn add(listing: &mut Listing, kube: &Kube, seen: &BTreeMap<Place, Answer>) {
    let mut named: BTreeMap<&str, Vec<Result<Known, Fault>>> = BTreeMap::new();
    for discover in &kube.discover {
        for region in &discover.regions {
            let place = Place { role: discover.role.clone(), region: region.clone() };
            for (name, is) in seen.get(&place).into_iter().flatten().filter(|(_, is)| fits(discover, is)) {
                let known = is.clone().and_then(|described| of_eks(place.clone(), described));
                let same_name = named.entry(name).or_default();
                if !same_name.iter().any(|other| is_one(other, &known)) {
                    same_name.push(known);
                }
            }
        }
    }
    for (name, mut known) in named {
        if listing.contains_key(name) {
            continue;
        }
        let one = match known.len() {
            1 => known.pop().and_then(|one| taken(kube, name, &one).map_or(Some(one), |taken| Some(Err(taken)))),
            _ => Some(Err(twice(&known))),
        };
        listing.extend(one.map(|one| (name.to_owned(), one)));
    }
}

/// A cluster that nobody could look at may be one that is asked for.
fn fits(discover: &Discover, is: &Result<Described, Fault>) -> bool {
    let Ok(described) = is else { return true };
    let mut wanted = discover.tags.iter();
    wanted.all(|(name, pattern)| described.tags.get(name).is_some_and(|tag| pattern.matches(tag)))
}

fn is_one(one: &Result<Known, Fault>, other: &Result<Known, Fault>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => one.site == other.site && one.place() == other.place(),
        (Err(one), Err(other)) => one == other,
        _ => false,
    }
}

/// A token says a name of EKS and nothing else: one for this cluster would open the one of the file.
fn taken(kube: &Kube, name: &str, found: &Result<Known, Fault>) -> Option<Fault> {
    let found = found.as_ref().ok()?;
    let is_other = |stated: &&StaticCluster| {
        let token = matches!(&stated.way, StaticWay::Eks { cluster, .. } if cluster == name);
        token && stated.endpoint.as_ref() != Some(&found.site.endpoint)
    };
    let stated = kube.clusters.iter().find(is_other)?;
    Some(fault("NameTaken", format!("the configuration has another cluster of this name in EKS: '{}'", stated.name)))
}

fn twice(known: &[Result<Known, Fault>]) -> Fault {
    let place = |known: &Result<Known, Fault>| match known {
        Ok(known) => format!("{} ({})", known.place(), known.site.endpoint),
        Err(fault) => format!("one that cannot be looked at ({fault})"),
    };
    let places: Vec<String> = known.iter().map(place).collect();
    fault(
        "NameTwice",
        format!("{} have this name: rename one, or leave it out of [[kube.discover]]", places.join(" and ")),
    )
}

fn of_eks(at: Place, described: Described) -> Result<Known, Fault> {
    let Described { name, account, region, endpoint, authority, .. } = described;
    if !is_cluster_name(&name) {
        return Err(unusable("its name cannot be used"));
    }
    if !described.is_up {
        return Err(Fault::new("NotActive", "EKS says that it is not active", true));
    }
    let decoded = STANDARD.decode(authority.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let authority = decoded.ok_or_else(|| unusable("its authority is no certificate"))?;
    let site = Site { endpoint: endpoint.trim_end_matches('/').to_owned(), authority, server_name: None };
    let how = How::Eks { at, place: format!("{account} {region}"), cluster: name, mode: described.mode };
    Ok(Known { site, how })
}

impl Known {
    pub(super) fn place(&self) -> &str {
        match &self.how {
            How::Eks { place, .. } => place,
            How::Kubeconfig(_) => &self.site.endpoint,
        }
    }

    pub(super) fn mode(&self) -> Mode {
        match &self.how {
            How::Eks { mode, .. } => *mode,
            How::Kubeconfig(_) => Mode::Impersonated,
        }
    }
}

fn unusable(why: &str) -> Fault {
    fault("Unusable", why.to_owned())
}

fn fault(code: &str, message: String) -> Fault {
    Fault::new(code, message, false)
}

#[cfg(test)]
mod tests;

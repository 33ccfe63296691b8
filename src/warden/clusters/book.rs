use std::collections::{BTreeMap, BTreeSet};

use super::{Found, Known};
use crate::audit::Event;
use crate::policy::kube::{Rules, may_use, others};
use crate::privsep::message::{MayBe, Pass, WardenToPorter, Way};

/// More than this would not go into one pass.
const MOST: usize = 500;

/// All clusters, and what is offered of them.
#[derive(Debug, Default)]
pub struct Book {
    stated: Vec<Known>,
    seen: Vec<Found>,
    offered: BTreeMap<String, Found>,
    refused: BTreeMap<String, Refused>,
    /// EKS was asked since the warden began.
    looked: bool,
}

/// Why a found cluster is not offered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    code: &'static str,
    message: String,
}

/// What others must hear of a new list.
#[derive(Debug, Default)]
pub struct Change {
    pub porter: Vec<WardenToPorter>,
    pub events: Vec<Event>,
    /// Somebody may have gained or lost a cluster.
    pub passes: bool,
}

impl Book {
    /// The clusters of a configuration that came into force.
    pub fn state(&mut self, stated: Vec<Known>) -> Change {
        let former: BTreeSet<String> = self.names();
        self.stated = stated;
        let mut change = self.offer();
        // A credential may be another one under the same name: all of them are said again.
        change.porter.retain(|message| !matches!(message, WardenToPorter::NoCluster { .. }));
        let now = self.names();
        let gone = former.difference(&now).map(|name| WardenToPorter::NoCluster { name: name.clone() });
        change.porter = gone.chain(self.all()).collect();
        change.passes = true;
        change
    }

    /// What EKS has now.
    pub fn see(&mut self, mut seen: Vec<Found>) -> Change {
        seen.sort();
        let first = !std::mem::replace(&mut self.looked, true);
        let same = self.seen == seen;
        self.seen = seen;
        let mut change = if same { Change::default() } else { self.offer() };
        change.passes |= first || !same;
        change
    }

    /// EKS has been asked, with whatever answer.
    pub fn looked(&self) -> bool {
        self.looked
    }

    /// For a porter that knows nothing.
    pub fn all(&self) -> Vec<WardenToPorter> {
        let stated = self.stated.iter().map(|known| known.cluster.clone());
        let found = self.offered.values().map(Found::cluster);
        stated.chain(found).map(|cluster| WardenToPorter::Cluster(Box::new(cluster))).collect()
    }

    /// What members of these groups may use, and whom they may be there.
    pub fn pass(&self, rules: Rules<'_>, groups: &BTreeSet<String>) -> Pass {
        let subjects = self.stated.iter().map(Known::subject).chain(self.offered.values().map(Found::subject));
        let mut clusters: Vec<String> = subjects
            .filter(|subject| may_use(rules, groups, *subject).allows())
            .map(|subject| subject.name.to_owned())
            .collect();
        clusters.sort_unstable();
        let may_be = others(rules.kube, groups).map(|rule| MayBe {
            clusters: rule.clusters.clone(),
            users: rule.as_users.clone(),
            groups: rule.as_groups.clone(),
        });
        // Nobody without a cluster is anybody anywhere.
        let may_be = if clusters.is_empty() { Vec::new() } else { may_be.collect() };
        Pass { clusters, groups: groups.iter().cloned().collect(), may_be }
    }

    /// Whether a pass opens a cluster that wants the user's own token.
    pub fn wants_tokens(&self, pass: &Pass) -> bool {
        let stated = |name: &str| {
            let known = self.stated.iter().find(|known| known.cluster.name == name);
            known.is_some_and(|known| matches!(known.cluster.way, Way::Eks { .. }))
        };
        pass.clusters.iter().any(|name| self.offered.contains_key(name) || stated(name))
    }

    fn names(&self) -> BTreeSet<String> {
        self.stated.iter().map(|known| known.cluster.name.clone()).chain(self.offered.keys().cloned()).collect()
    }

    /// Decides anew what is offered.
    fn offer(&mut self) -> Change {
        let (offered, refused) = sort_out(&self.stated, &self.seen);
        let mut change = Change::default();
        for (name, former) in &self.offered {
            if !offered.get(name).is_some_and(|now| now.is(former)) {
                change.events.push(Event::ClusterGone {
                    cluster: name.clone(),
                    endpoint: former.endpoint.clone(),
                    place: former.place(),
                });
                if !offered.contains_key(name) {
                    change.porter.push(WardenToPorter::NoCluster { name: name.clone() });
                }
            }
        }
        for (name, now) in &offered {
            if !self.offered.get(name).is_some_and(|former| former.is(now)) {
                change.events.push(Event::ClusterAppeared {
                    cluster: name.clone(),
                    endpoint: now.endpoint.clone(),
                    place: now.place(),
                });
                change.porter.push(WardenToPorter::Cluster(Box::new(now.cluster())));
            }
        }
        change.events.extend(told(&self.refused, &refused));
        (self.offered, self.refused) = (offered, refused);
        change
    }
}

fn told(former: &BTreeMap<String, Refused>, now: &BTreeMap<String, Refused>) -> Vec<Event> {
    let begun = now.iter().filter(|(name, refused)| former.get(*name) != Some(*refused));
    let begun = begun.map(|(name, refused)| Event::DiscoveryFailed {
        place: name.clone(),
        code: refused.code.to_owned(),
        message: refused.message.clone(),
    });
    let over = former.keys().filter(|name| !now.contains_key(*name));
    begun.chain(over.map(|name| Event::DiscoveryWorks { place: name.clone() })).collect()
}

/// One name is one cluster. A token says a name and nothing else, so whoever holds one endpoint of a name could use a
/// token at the other.
fn sort_out(stated: &[Known], seen: &[Found]) -> (BTreeMap<String, Found>, BTreeMap<String, Refused>) {
    let mut named: BTreeMap<&str, Vec<Found>> = BTreeMap::new();
    for found in seen {
        let same_name = named.entry(&found.name).or_default();
        match same_name.iter_mut().find(|known| known.is(found)) {
            // Found twice: trusted tags by one way are labels.
            Some(known) => known.labels.extend(found.labels.clone()),
            None => same_name.push(found.clone()),
        }
    }
    let (mut offered, mut refused) = (BTreeMap::new(), BTreeMap::new());
    for (name, found) in named {
        match (taken(stated, name, &found), found.as_slice()) {
            (Taken::Same, _) => {}
            (Taken::Other(message), _) => drop(refused.insert(name.to_owned(), Refused { code: "NameTaken", message })),
            (Taken::No, [one]) if offered.len() < MOST => drop(offered.insert(name.to_owned(), one.clone())),
            (Taken::No, [_]) => {
                let message = format!("{MOST} clusters are offered already");
                refused.insert(name.to_owned(), Refused { code: "TooMany", message });
            }
            (Taken::No, several) => {
                let places: Vec<String> =
                    several.iter().map(|found| format!("{} ({})", found.place(), found.endpoint)).collect();
                let message = format!("{} have this name, and none of them is offered", places.join(" and "));
                refused.insert(name.to_owned(), Refused { code: "NameTwice", message });
            }
        }
    }
    (offered, refused)
}

enum Taken {
    No,
    /// The file names this very cluster.
    Same,
    Other(String),
}

fn taken(stated: &[Known], name: &str, found: &[Found]) -> Taken {
    for Known { cluster, .. } in stated {
        let token = matches!(&cluster.way, Way::Eks { cluster: token, .. } if token == name);
        let elsewhere = found.iter().find(|found| found.endpoint != cluster.endpoint);
        match elsewhere {
            Some(found) if token || cluster.name == name => {
                let (place, at) = (found.place(), &cluster.endpoint);
                return Taken::Other(format!("the one of {place} is not offered: the configuration has one at {at}"));
            }
            None if cluster.name == name => return Taken::Same,
            _ => {}
        }
    }
    Taken::No
}

#[cfg(test)]
mod tests;

//! Who is in which grant, from whatever source says so.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{BadName, Grant};
use super::plan::Problem;
use super::world::{Cluster, Group, Members, Seen, World};
use crate::config::Terms;
use crate::config::rbac::MembersFrom;

/// What a source says, sorted by whether it counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    pub live: Members,
    /// All of it, whether it counts or not: what people changed there is history.
    pub said: Members,
    /// Users of grants whose cluster or namespace is not there now: they get nothing, and keep the roles they have.
    pub waiting: BTreeSet<String>,
    pub problems: Vec<Problem>,
}

/// Whether a grant's place is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Live,
    /// The cluster cannot be read: nobody knows.
    Away,
    /// The sentence that says what is not there.
    Gone(String),
    /// The sentence that says why its members have nothing by it.
    Refused(String),
}

pub fn standing(grant: &Grant, world: &World, terms: &Terms) -> Standing {
    if terms.rbac.level(&grant.level).is_none() {
        let known: Vec<&str> = terms.rbac.levels.iter().map(|level| level.name.as_str()).collect();
        return Standing::Refused(format!("there is no level '{}', only {}", grant.level, known.join(", ")));
    }
    let cluster = match world.clusters.get(&grant.cluster) {
        None => return Standing::Gone(format!("there is no cluster '{}'", grant.cluster)),
        Some(Seen::Away(_)) => return Standing::Away,
        Some(Seen::Read(cluster)) => cluster,
    };
    match &grant.namespace {
        Some(namespace) => standing_in(namespace, cluster, terms),
        None => Standing::Live,
    }
}

fn standing_in(namespace: &str, cluster: &Cluster, terms: &Terms) -> Standing {
    match cluster.namespaces.get(namespace) {
        None => Standing::Gone(format!("there is no namespace '{namespace}'")),
        Some(_) if terms.rbac.is_skipped(namespace) => {
            Standing::Refused(format!("namespace '{namespace}' is one of skip_namespaces"))
        }
        Some(found) if !terms.rbac.namespaces.has(&found.labels) => {
            Standing::Gone(format!("namespace '{namespace}' has not the label that opts in"))
        }
        Some(_) => Standing::Live,
    }
}

/// A tag of an IAM user, with whatever value: its user has no entry and no binding anywhere, and keeps the groups.
pub const LOCKED: &str = "stockade:locked";

pub fn membership(world: &World, terms: &Terms) -> Membership {
    let mut found = Membership::default();
    match &terms.rbac.members {
        MembersFrom::Iam => from_groups(&mut found, world, terms),
        MembersFrom::Tag(key) => from_tags(&mut found, world, terms, key),
        MembersFrom::File => from_file(&mut found, world, terms),
    }
    found
}

/// Whether a group is ours to make and to remove.
pub fn is_ours(group: &Group, terms: &Terms) -> bool {
    terms.rbac.reads_group(&group.path)
}

fn from_groups(found: &mut Membership, world: &World, terms: &Terms) {
    for (name, group) in &world.directory.groups {
        match (is_ours(group, terms), name.parse::<Grant>()) {
            (true, Ok(grant)) => found.add(&grant, &group.members, world, terms),
            (true, Err(why)) => found.refuse(name, &why),
            (false, Ok(_)) => found.problem(
                name,
                format!(
                    "a foreign group of this name, below {}: left, and its members count for nothing; groups of access \
                     are below {}",
                    group.path, terms.rbac.group_path
                ),
            ),
            (false, Err(_)) => {}
        }
    }
}

fn from_tags(found: &mut Membership, world: &World, terms: &Terms, key: &str) {
    let mut members: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (user, about) in &world.directory.users {
        let value = about.tags.get(key).map(String::as_str).unwrap_or_default();
        for word in value.split([' ', '+']).filter(|word| !word.is_empty()) {
            members.entry(word).or_default().insert(user.clone());
        }
    }
    for (name, users) in members {
        match name.parse::<Grant>() {
            Ok(grant) => found.add(&grant, &users, world, terms),
            Err(why) => found.refuse(name, &why),
        }
    }
}

fn from_file(found: &mut Membership, world: &World, terms: &Terms) {
    for (name, members) in &terms.groups {
        let users = members.iter().map(|user| user.as_str().to_owned()).collect();
        match name.parse::<Grant>() {
            Ok(grant) => found.add(&grant, &users, world, terms),
            // Groups of other use stand beside them.
            Err(BadName::Shape) => {}
            Err(why) => found.refuse(name, &why),
        }
    }
}

impl Membership {
    fn add(&mut self, grant: &Grant, users: &BTreeSet<String>, world: &World, terms: &Terms) {
        let count = users.len();
        self.said.insert(grant.clone(), users.clone());
        match standing(grant, world, terms) {
            Standing::Live => {
                let users = self.known(grant, users, world);
                if !users.is_empty() {
                    self.live.insert(grant.clone(), users);
                }
            }
            Standing::Away => self.waiting.extend(users.iter().cloned()),
            Standing::Gone(why) => {
                self.waiting.extend(users.iter().cloned());
                let what = match count {
                    0 => format!("{why}: it is removed when that has been so for a while"),
                    _ => {
                        format!("{why}: it is left, and its {count} members get nothing by it; empty it if that stays")
                    }
                };
                self.problem(&grant.to_string(), what);
            }
            Standing::Refused(why) => {
                self.problem(&grant.to_string(), format!("{why}: it is left, and members get nothing by it"));
            }
        }
    }

    /// Those of the users that IAM knows, where there is IAM.
    fn known(&mut self, grant: &Grant, users: &BTreeSet<String>, world: &World) -> BTreeSet<String> {
        if world.directory.account.is_empty() {
            return users.clone();
        }
        let (known, unknown): (BTreeSet<_>, BTreeSet<_>) =
            users.iter().cloned().partition(|user| world.directory.users.contains_key(user));
        for user in unknown {
            self.problem(&grant.to_string(), format!("IAM has no user '{}': nothing is given", user.escape_debug()));
        }
        let is_locked = |user: &String| world.directory.users.get(user).is_some_and(|it| it.tags.contains_key(LOCKED));
        let (locked, known): (BTreeSet<_>, BTreeSet<_>) = known.into_iter().partition(is_locked);
        for user in &locked {
            self.problem(&grant.to_string(), format!("'{user}' is locked by the tag {LOCKED}: nothing is given"));
        }
        self.waiting.extend(locked);
        known
    }

    fn refuse(&mut self, name: &str, why: &BadName) {
        self.problem(&name.escape_debug().to_string(), format!("{why}; left, and members get nothing by it"));
    }

    fn problem(&mut self, subject: &str, what: String) {
        self.problems.push(Problem { cluster: None, subject: subject.to_owned(), what });
    }
}

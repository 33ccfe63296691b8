//! Who has what where, since when, by which group, by whom granted, and whether they use it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::cloudtrail::{CloudTrail, Granted};
use super::is_ours;
use super::mapped::{Mapped, People, mapped};
use crate::access::change::{Cause, Change, Target};
use crate::access::names::Grant;
use crate::access::wanted::GROUP;
use crate::access::world::{Binding, Cluster, Members, Mode, Rbac, Seen, Subject, World};

/// What a report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub world: &'a World,
    /// Who should have what.
    pub members: &'a Members,
    /// What the plan of this moment would change.
    pub changes: &'a [Change],
    /// Since when users have been in groups, by user and group; see `history::joined`.
    pub joined: &'a BTreeMap<(String, String), i64>,
    pub trail: &'a CloudTrail,
    /// The template of users' names on clusters of EKS.
    pub username: &'a str,
    /// Seconds since the epoch.
    pub now: i64,
    /// A role that is not used for so long is dormant. Seconds.
    pub dormant_after: i64,
}

/// One user's right on one cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Right {
    pub user: String,
    pub cluster: String,
    /// `None`: the cluster as a whole.
    pub namespace: Option<String>,
    /// A level, or for what stockade did not make the role or policy: `ClusterRole view`.
    pub level: String,
    /// The IAM group that gives it; `None`: it was given by hand, past all groups.
    pub group: Option<String>,
    /// The object that says so, where a hand made it.
    pub object: Option<String>,
    pub state: State,
    pub since: Option<Since>,
    /// When the role that clusters know was used last.
    pub last_used: Option<i64>,
    /// Never used, or not for long.
    pub dormant: bool,
    pub granted: Option<Granted>,
    /// What was changed by hand, a sentence each.
    pub drift: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The group says so and the cluster does.
    InForce,
    /// The group says so, the cluster does not yet.
    Pending,
    /// The group says so no more, the cluster still does.
    Leftover,
    /// No group says so: somebody else made it.
    ByHand,
    /// The group says so, and the cluster cannot be read.
    Unknown,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::InForce => "in force",
            Self::Pending => "pending",
            Self::Leftover => "leftover",
            Self::ByHand => "by hand",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Since {
    /// Seconds since the epoch.
    pub at: i64,
    pub by: Source,
}

/// How it is known since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// stockade saw the user join.
    History,
    CloudTrail,
    /// Not before: the binding, or the user's access entry, was made then.
    Objects,
}

/// Every right, sorted by user.
pub fn rights(facts: &Facts<'_>) -> Vec<Right> {
    let mut found = BTreeSet::new();
    for (name, seen) in &facts.world.clusters {
        match seen {
            Seen::Read(cluster) => found.extend(Place::new(facts, name, cluster).rights()),
            Seen::Away(_) => found.extend(facts.unread(name)),
        }
    }
    // Groups speak of clusters that are not there any more, and their members have nothing.
    found.into_iter().collect()
}

impl Facts<'_> {
    fn unread(&self, cluster: &str) -> Vec<Right> {
        let members = self.members.iter().filter(|(grant, _)| grant.cluster == cluster);
        let each = members.flat_map(|(grant, users)| users.iter().map(move |user| (grant, user)));
        each.map(|(grant, user)| self.right(user, grant, State::Unknown)).collect()
    }

    /// A right by a group, as far as only the group is known.
    fn right(&self, user: &str, grant: &Grant, state: State) -> Right {
        let group = grant.to_string();
        let granted = self.trail.granted(user, &group);
        let seen = self.joined.get(&(user.to_owned(), group.clone()));
        let since = match (seen, &granted) {
            (Some(at), _) => Some(Since { at: *at, by: Source::History }),
            (None, Some(granted)) => Some(Since { at: granted.at, by: Source::CloudTrail }),
            (None, None) => None,
        };
        Right {
            user: user.to_owned(),
            cluster: grant.cluster.clone(),
            namespace: grant.namespace.clone(),
            level: grant.level.clone(),
            drift: self.drift(user, grant),
            group: Some(group),
            object: None,
            state,
            since,
            last_used: None,
            dormant: false,
            granted,
        }
    }

    /// What the plan would put back that this right hangs on.
    fn drift(&self, user: &str, grant: &Grant) -> Vec<String> {
        let name = grant.to_string();
        let concerns = |change: &&Change| {
            let here = change.target.cluster().is_none_or(|cluster| cluster == grant.cluster);
            let theirs = change.user.as_deref() == Some(user) && !is_rbac(&change.target);
            here && (theirs || object_of(&change.target).is_some_and(|object| is_of(object, &name)))
        };
        let sentence = |change: &Change| match &change.cause {
            Cause::Drift(what) => Some(format!("{}: {what}", change.target)),
            _ => None,
        };
        self.changes.iter().filter(concerns).filter_map(sentence).collect()
    }
}

fn is_rbac(target: &Target) -> bool {
    object_of(target).is_some()
}

/// The name of an RBAC object.
fn object_of(target: &Target) -> Option<&str> {
    match target {
        Target::ClusterRole { name, .. }
        | Target::Role { name, .. }
        | Target::RoleBinding { name, .. }
        | Target::ClusterRoleBinding { name, .. } => Some(name),
        Target::Group(_) | Target::IamRole(_) | Target::Entry { .. } | Target::Row { .. } => None,
    }
}

/// A grant's objects have its name; the one for namespaces has a colon and a word behind it.
fn is_of(object: &str, name: &str) -> bool {
    object.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// One cluster that could be read.
struct Place<'a> {
    facts: &'a Facts<'a>,
    name: &'a str,
    cluster: &'a Cluster,
    mapped: Vec<Mapped>,
    people: People,
}

impl<'a> Place<'a> {
    fn new(facts: &'a Facts<'a>, name: &'a str, cluster: &'a Cluster) -> Self {
        let mapped = mapped(cluster, &facts.world.directory);
        let people = People::of(cluster, &mapped, facts.username);
        Self { facts, name, cluster, mapped, people }
    }

    fn rights(&self) -> Vec<Right> {
        let mut found = Vec::new();
        for (grant, users) in self.facts.members.iter().filter(|(grant, _)| grant.cluster == self.name) {
            found.extend(users.iter().map(|user| self.given(user, grant)));
        }
        found.extend(self.leftovers());
        found.extend(self.by_hand());
        found.extend(self.policies());
        found.extend(self.strangers());
        found.into_iter().map(|right| self.used(right)).collect()
    }

    /// What a group says.
    fn given(&self, user: &str, grant: &Grant) -> Right {
        let name = grant.to_string();
        let binding = match &grant.namespace {
            None => self.cluster.cluster_bindings.get(&name),
            Some(namespace) => self.cluster.bindings.get(&(namespace.clone(), name)),
        };
        let binding = binding.filter(|binding| binding.is_ours());
        let subject = Subject::User(self.people.name(user));
        let bound = binding.filter(|binding| binding.is.subjects.contains(&subject));
        let entry = self.entry(user);
        let asked = !self.mapped_by_eks() || entry.is_some();
        let state = if bound.is_some() && asked && !self.awaits(user, grant) { State::InForce } else { State::Pending };
        let mut right = self.facts.right(user, grant, state);
        if right.since.is_none() && state == State::InForce {
            // Both had to be there.
            let made = bound.map_or(0, |binding| binding.created).max(entry.map_or(0, |entry| entry.created));
            right.since = (made > 0).then_some(Since { at: made, by: Source::Objects });
        }
        right
    }

    fn mapped_by_eks(&self) -> bool {
        self.cluster.mode != Mode::Impersonated
    }

    fn entry(&self, user: &str) -> Option<&Mapped> {
        let name = self.people.name(user);
        self.mapped.iter().find(|one| one.user.as_deref() == Some(user) && one.name == name)
    }

    /// The plan would make an object without which this right is none.
    fn awaits(&self, user: &str, grant: &Grant) -> bool {
        let name = grant.to_string();
        self.facts.changes.iter().any(|change| {
            let here = change.target.cluster().is_none_or(|cluster| cluster == self.name);
            let needed = match &change.target {
                Target::IamRole(_) | Target::Entry { .. } => change.user.as_deref() == Some(user),
                target => object_of(target).is_some_and(|object| is_of(object, &name)),
            };
            here && needed && change.was.is_none() && change.shall_be.is_some()
        })
    }

    /// Our bindings name somebody whom no group names.
    fn leftovers(&self) -> Vec<Right> {
        let mut found = Vec::new();
        for (namespace, name, binding) in self.bindings().filter(|(_, name, binding)| is_ours(name, binding)) {
            let Ok(grant) = name.parse::<Grant>() else { continue };
            let members = self.facts.members.get(&grant);
            let users = binding.is.subjects.iter().filter_map(|subject| self.user(subject));
            for user in users.filter(|user| !members.is_some_and(|users| users.contains(user))) {
                found.push(if grant.namespace.as_deref() == namespace {
                    self.facts.right(&user, &grant, State::Leftover)
                } else {
                    // In a namespace, of a grant for the whole cluster.
                    let right =
                        self.foreign(user, namespace, &level(binding), &object(namespace, name), binding.created);
                    Right { state: State::Leftover, ..right }
                });
            }
        }
        found
    }

    /// Bindings of others that name our users, or the groups that their entries carry.
    fn by_hand(&self) -> Vec<Right> {
        let mut found = Vec::new();
        for (namespace, name, binding) in self.bindings().filter(|(_, name, binding)| !is_ours(name, binding)) {
            for subject in &binding.is.subjects {
                let users: Vec<String> = match subject {
                    Subject::Group(group) => self.people.members(group).map(str::to_owned).collect(),
                    subject => self.user(subject).into_iter().collect(),
                };
                let (role, object) = (level(binding), object(namespace, name));
                let made = binding.created;
                found.extend(users.into_iter().map(|user| self.foreign(user, namespace, &role, &object, made)));
            }
        }
        found
    }

    /// What EKS's own policies give to our users.
    fn policies(&self) -> Vec<Right> {
        let mut found = Vec::new();
        for one in &self.mapped {
            let Some(user) = &one.user else { continue };
            let object = one.object();
            let policies = one.policies.iter().map(|arn| format!("policy {}", arn.rsplit('/').next().unwrap_or(arn)));
            let masters = one.groups.contains(super::evaluate::MASTERS).then(|| "Group system:masters".to_owned());
            found.extend(policies.chain(masters).map(|level| self.foreign(user.clone(), None, &level, &object, 0)));
        }
        found
    }

    /// Those whom another hand gave the name of a user, or a group of ours: they have what that has.
    fn strangers(&self) -> Vec<Right> {
        let mut found = Vec::new();
        let own = |one: &&Mapped| one.user.as_ref().is_some_and(|user| one.name == self.people.name(user));
        for one in self.mapped.iter().filter(|one| !own(one)) {
            let whose = self.user(&Subject::User(one.name.clone())).filter(|whose| Some(whose) != one.user.as_ref());
            let name = whose.map(|_| format!("User {}", one.name));
            let groups = one.groups.iter().filter(|group| group.starts_with(GROUP));
            let who = one.user.as_ref().unwrap_or(&one.principal);
            for level in name.into_iter().chain(groups.map(|group| format!("Group {group}"))) {
                found.push(self.foreign(who.clone(), None, &level, &one.object(), one.created));
            }
        }
        found
    }

    fn foreign(&self, user: String, namespace: Option<&str>, level: &str, object: &str, made: i64) -> Right {
        Right {
            user,
            cluster: self.name.to_owned(),
            namespace: namespace.map(str::to_owned),
            level: level.to_owned(),
            group: None,
            object: Some(object.to_owned()),
            state: State::ByHand,
            since: (made > 0).then_some(Since { at: made, by: Source::Objects }),
            last_used: None,
            dormant: false,
            granted: None,
            drift: Vec::new(),
        }
    }

    fn user(&self, subject: &Subject) -> Option<String> {
        match subject {
            Subject::User(name) => {
                let directory = &self.facts.world.directory;
                let member = |user: &str| self.facts.members.values().any(|users| users.contains(user));
                self.people.user(name, |user| directory.users.contains_key(user) || member(user))
            }
            Subject::Group(_) | Subject::ServiceAccount(..) => None,
        }
    }

    fn bindings(&self) -> impl Iterator<Item = (Option<&str>, &str, &Rbac<Binding>)> {
        let everywhere = self.cluster.cluster_bindings.iter().map(|(name, binding)| (None, name.as_str(), binding));
        let inside = self.cluster.bindings.iter();
        everywhere.chain(inside.map(|((namespace, name), binding)| (Some(namespace.as_str()), name.as_str(), binding)))
    }

    /// A role of IAM knows when it was assumed. Where EKS is not asked, nothing does.
    fn used(&self, right: Right) -> Right {
        let directory = &self.facts.world.directory;
        let role = self.entry(&right.user).and_then(|entry| entry.role(directory));
        let Some(role) = role else { return right };
        let quiet = self.facts.now.saturating_sub(self.facts.dormant_after);
        // A role that is younger than that had no time to be used.
        let dormant = role.last_used.unwrap_or(role.created) < quiet;
        Right { last_used: role.last_used, dormant, ..right }
    }
}

fn object(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("RoleBinding {namespace}/{name}"),
        None => format!("ClusterRoleBinding {name}"),
    }
}

/// What a binding gives that has no level.
fn level(binding: &Rbac<Binding>) -> String {
    format!("{} {}", binding.is.role.0, binding.is.role.1)
}

impl Right {
    pub fn place(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}/{namespace}", self.cluster),
            None => self.cluster.clone(),
        }
    }

    /// What is odd about it: the words of the last column.
    pub fn marks(&self) -> Vec<&'static str> {
        let state = (self.state != State::InForce).then(|| self.state.word());
        let drifted = (!self.drift.is_empty()).then_some("drifted");
        state.into_iter().chain(drifted).chain(self.dormant.then_some("dormant")).collect()
    }
}

//! The chain from a user's groups to what the API server asks, with what is missing or drifted, a sentence for each.

use serde::Serialize;

use super::mapped::{People, mapped};
use super::rights::{Facts, Right, State, rights};
use super::sheet::day;
use crate::access::change::{Cause, Change, Target};
use crate::access::names::Grant;
use crate::access::plan::Problem;
use crate::access::wanted::NAMESPACES;
use crate::access::world::{Cluster, MARK, Mode, Seen, Subject};

/// One sentence of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sentence {
    pub is: Is,
    /// What stands below another sentence is a part of it.
    pub below: bool,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Is {
    /// As it should be.
    There,
    /// Not there, and the next apply makes it.
    Missing,
    /// Changed by hand, or not what it should be any more.
    Different,
    /// Not given by a group.
    ByHand,
    /// Could not be read.
    Unknown,
    /// For an admin to see to.
    Problem,
}

impl Is {
    pub fn word(self) -> &'static str {
        match self {
            Self::There => "ok",
            Self::Missing => "missing",
            Self::Different => "differs",
            Self::ByHand => "by hand",
            Self::Unknown => "unknown",
            Self::Problem => "problem",
        }
    }
}

/// What was asked, and what only the configuration and the plan know.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub user: &'a str,
    /// `None`: all of them.
    pub cluster: Option<&'a str>,
    /// Groups elsewhere count for nothing; `None`: groups are not IAM's.
    pub group_path: Option<&'a str>,
    /// The plan's.
    pub problems: &'a [Problem],
}

/// Why a user may do what they may.
pub fn explain(facts: &Facts<'_>, asked: &Asked<'_>) -> Vec<Sentence> {
    let mut story = Story { facts, asked, told: Vec::new() };
    let here = |cluster: &str| asked.cluster.is_none_or(|wanted| wanted == cluster);
    let rights: Vec<Right> = rights(facts);
    let rights: Vec<Right> =
        rights.into_iter().filter(|right| right.user == asked.user && here(&right.cluster)).collect();
    let of_user = facts.members.iter().filter(|(_, users)| users.contains(asked.user));
    let grants: Vec<&Grant> = of_user.map(|(grant, _)| grant).filter(|grant| here(&grant.cluster)).collect();
    story.person();
    story.ignored();
    grants.iter().for_each(|grant| story.grant(grant, &rights));
    rights.iter().filter(|right| right.state == State::Leftover).for_each(|right| story.leftover(right));
    rights.iter().filter(|right| right.state == State::ByHand).for_each(|right| story.by_hand(right));
    story.problems(&grants);
    if grants.is_empty() && rights.is_empty() {
        let place = asked.cluster.map_or_else(|| "any cluster".into(), |cluster| format!("cluster {cluster}"));
        story
            .tell(Is::There, format!("{} has nothing on {place}: no group that grants something has them", asked.user));
    }
    story.told
}

struct Story<'a> {
    facts: &'a Facts<'a>,
    asked: &'a Asked<'a>,
    told: Vec<Sentence>,
}

impl Story<'_> {
    fn tell(&mut self, is: Is, text: impl Into<String>) {
        self.told.push(Sentence { is, below: false, text: text.into() });
    }

    fn below(&mut self, is: Is, text: impl Into<String>) {
        self.told.push(Sentence { is, below: true, text: text.into() });
    }

    /// The user and their roles in IAM.
    fn person(&mut self) {
        let (user, directory) = (self.asked.user, &self.facts.world.directory);
        if directory.account.is_empty() {
            return;
        }
        match directory.users.contains_key(user) {
            true => self.tell(Is::There, format!("{user} is a user of IAM in account {}", directory.account)),
            false => self.tell(Is::Missing, format!("{user} is no user of IAM in account {}", directory.account)),
        }
        for (name, role) in directory.roles.iter().filter(|(_, role)| role.tags.get(MARK).is_some_and(|of| of == user))
        {
            let used = match role.last_used {
                Some(at) => format!("used last on {}", day(Some(at))),
                None => "never used as far as IAM knows".into(),
            };
            self.below(Is::There, format!("IAM role {}{name} is theirs, {used}", role.path));
        }
        let theirs = |change: &&Change| {
            matches!(change.target, Target::IamRole(_)) && change.user.as_deref() == Some(self.asked.user)
        };
        let changes: Vec<Change> = self.facts.changes.iter().filter(theirs).cloned().collect();
        changes.iter().for_each(|change| self.change(change));
    }

    /// Groups that are called like ours and are none.
    fn ignored(&mut self) {
        let Some(path) = self.asked.group_path else { return };
        let directory = &self.facts.world.directory;
        let theirs = directory.groups.iter().filter(|(name, group)| {
            name.starts_with("k8s-") && !group.path.starts_with(path) && group.members.contains(self.asked.user)
        });
        let told: Vec<String> = theirs
            .map(|(name, group)| {
                let path_of = &group.path;
                format!("IAM group {path_of}{name} has them and counts for nothing: only groups below {path} do")
            })
            .collect();
        told.into_iter().for_each(|text| self.tell(Is::Problem, text));
    }

    fn grant(&mut self, grant: &Grant, rights: &[Right]) {
        let place = match &grant.namespace {
            Some(namespace) => format!("namespace {namespace} of cluster {}", grant.cluster),
            None => format!("cluster {}", grant.cluster),
        };
        let right = rights.iter().find(|right| right.group.as_deref() == Some(&grant.to_string()));
        let state = right.map_or(State::Pending, |right| right.state);
        let user = self.asked.user;
        let (is, text) = match state {
            State::InForce => (Is::There, format!("{user} is {} of {place}", grant.level)),
            State::Unknown => {
                (Is::Unknown, format!("{user} should be {} of {place}, which cannot be read", grant.level))
            }
            _ => (Is::Missing, format!("{user} should be {} of {place}, and is not yet", grant.level)),
        };
        self.tell(is, text);
        self.below(Is::There, self.membership(grant, right));
        match self.facts.world.clusters.get(&grant.cluster) {
            None => self.below(Is::Problem, format!("there is no cluster {}: the group gives nothing", grant.cluster)),
            Some(Seen::Away(why)) => self.below(Is::Unknown, format!("{} cannot be read: {why}", grant.cluster)),
            Some(Seen::Read(cluster)) => self.links(grant, cluster),
        }
    }

    fn membership(&self, grant: &Grant, right: Option<&Right>) -> String {
        let mut text = format!("group {grant} has them");
        if let Some(granted) = right.and_then(|right| right.granted.as_ref()) {
            text.push_str(&format!(", put there on {} by {}", day(Some(granted.at)), granted.by));
        } else if let Some(since) = right.and_then(|right| right.since)
            && since.by == super::rights::Source::History
        {
            text.push_str(&format!(", seen there since {}", day(Some(since.at))));
        }
        text
    }

    /// Role, entry and binding on the cluster.
    fn links(&mut self, grant: &Grant, cluster: &Cluster) {
        let (name, at) = (grant.to_string(), grant.cluster.clone());
        let second = format!("{name}{NAMESPACES}");
        match &grant.namespace {
            None => {
                let rules = cluster.cluster_roles.get(&name).map(|role| role.is.rules.len());
                self.link(Target::ClusterRole { cluster: at.clone(), name: name.clone() }, rules.map(says));
                let rules = cluster.cluster_roles.get(&second).map(|role| role.is.rules.len());
                let target = Target::ClusterRole { cluster: at.clone(), name: second.clone() };
                if rules.is_some() || self.pending(&target).is_some() {
                    self.link(target, rules.map(|rules| format!("{}, outside of skipped namespaces", says(rules))));
                }
            }
            Some(namespace) => {
                let key = (namespace.clone(), name.clone());
                let rules = cluster.roles.get(&key).map(|role| role.is.rules.len());
                let target = Target::Role { cluster: at.clone(), namespace: namespace.clone(), name: name.clone() };
                self.link(target, rules.map(says));
            }
        }
        let mapped = mapped(cluster, &self.facts.world.directory);
        let people = People::of(cluster, &mapped, self.facts.username);
        let called = people.name(self.asked.user);
        if cluster.mode != Mode::Impersonated {
            self.entry(&at, &called, &mapped);
        }
        self.bindings(grant, cluster, &called);
    }

    fn entry(&mut self, cluster: &str, called: &str, mapped: &[super::mapped::Mapped]) {
        let user = self.asked.user;
        let of_user = || mapped.iter().filter(|one| one.user.as_deref() == Some(user));
        let theirs = of_user().find(|one| one.name == called).or_else(|| of_user().next());
        let changes: Vec<Change> = self
            .facts
            .changes
            .iter()
            .filter(|change| matches!(change.target, Target::Entry { .. } | Target::Row { .. }))
            .filter(|change| change.target.cluster() == Some(cluster))
            .filter(|change| change.user.as_deref() == Some(user))
            .cloned()
            .collect();
        match theirs {
            Some(one) if one.name == called => {
                self.below(Is::There, format!("{cluster}: EKS lets {} in as {called}", one.principal));
            }
            Some(one) => self.below(
                Is::Different,
                format!("{cluster}: EKS lets {} in as {}, which should be {called}", one.principal, one.name),
            ),
            None if changes.is_empty() => {
                self.below(Is::Missing, format!("{cluster}: EKS does not let them in, and nothing is planned for it"));
            }
            None => {}
        }
        changes.iter().for_each(|change| self.change(change));
    }

    fn bindings(&mut self, grant: &Grant, cluster: &Cluster, called: &str) {
        let (name, at) = (grant.to_string(), grant.cluster.clone());
        let subject = Subject::User(called.to_owned());
        let everywhere = cluster.cluster_bindings.get(&name).map(|binding| (None, binding));
        let first = match &grant.namespace {
            None => everywhere,
            Some(namespace) => {
                let binding = cluster.bindings.get(&(namespace.clone(), name.clone()));
                binding.map(|binding| (Some(namespace), binding))
            }
        };
        let target = match &grant.namespace {
            None => Target::ClusterRoleBinding { cluster: at.clone(), name: name.clone() },
            Some(namespace) => {
                Target::RoleBinding { cluster: at.clone(), namespace: namespace.clone(), name: name.clone() }
            }
        };
        match first {
            Some((_, binding)) if !binding.is_ours() => {
                self.below(Is::Problem, format!("{target} is somebody else's, and is left alone"));
            }
            Some((_, binding)) if binding.is.subjects.contains(&subject) => {
                self.link(target, Some(format!("names {called}")));
            }
            Some(_) if self.pending(&target).is_none() => {
                self.below(Is::Missing, format!("{target} does not name {called}, and nothing is planned for it"));
            }
            _ => self.link(target, None),
        }
        if grant.namespace.is_none() {
            self.second(&at, &name, cluster, &subject);
        }
    }

    /// The RoleBindings of a grant for the whole cluster, where that level has any.
    fn second(&mut self, at: &str, name: &str, cluster: &Cluster, subject: &Subject) {
        let ours = cluster.bindings.iter().filter(|((_, of), binding)| of == name && binding.is_ours());
        let (with, without): (Vec<_>, Vec<_>) = ours.partition(|(_, binding)| binding.is.subjects.contains(subject));
        if !with.is_empty() {
            let count = with.len();
            self.below(Is::There, format!("{at}: RoleBinding {name} names them in {count} namespaces"));
        }
        for ((namespace, _), _) in without {
            self.below(Is::Missing, format!("{at}: RoleBinding {namespace}/{name} does not name them"));
        }
        let to_come = |change: &&Change| match &change.target {
            Target::RoleBinding { cluster, name: of, .. } => cluster == at && of == name,
            _ => false,
        };
        let changes: Vec<Change> = self.facts.changes.iter().filter(to_come).cloned().collect();
        changes.iter().for_each(|change| self.change(change));
    }

    /// An object that is there, `says` something, and may be about to change.
    fn link(&mut self, target: Target, says: Option<String>) {
        let change = self.pending(&target).cloned();
        match (says, &change) {
            (Some(says), None) => self.below(Is::There, format!("{target} {says}")),
            (None, None) => self.below(Is::Missing, format!("{target} is not there, and nothing is planned for it")),
            (_, Some(change)) => self.change(change),
        }
    }

    fn pending(&self, target: &Target) -> Option<&Change> {
        self.facts.changes.iter().find(|change| change.target == *target)
    }

    fn change(&mut self, change: &Change) {
        let (target, why) = (&change.target, because(&change.cause));
        let (is, what) = match (&change.was, &change.shall_be, &change.cause) {
            (None, Some(_), _) => (Is::Missing, "is not there; the next apply makes it"),
            (Some(_), None, _) => (Is::Different, "is there no longer rightly; the next apply removes it"),
            (_, _, Cause::Drift(_)) => (Is::Different, "was changed by hand; the next apply puts it back"),
            _ => (Is::Different, "is not as it should be; the next apply changes it"),
        };
        self.below(is, format!("{target} {what}: {why}"));
    }

    fn leftover(&mut self, right: &Right) {
        let (user, level, place) = (&right.user, &right.level, right.place());
        let text = match (&right.group, &right.object) {
            (Some(group), _) => format!("{user} still is {level} of {place}, though {group} has them no more"),
            (None, object) => {
                let object = object.as_deref().unwrap_or_default();
                format!("{object} still gives {user} {level} in {place}, though no group says so")
            }
        };
        self.tell(Is::Different, format!("{text}; the next apply ends it"));
    }

    fn by_hand(&mut self, right: &Right) {
        let (user, level, object) = (&right.user, &right.level, right.object.as_deref().unwrap_or_default());
        let place = match &right.namespace {
            Some(namespace) => format!("in namespace {namespace} of {}", right.cluster),
            None => format!("on {}", right.cluster),
        };
        self.tell(
            Is::ByHand,
            format!("{object} gives {user} {level} {place}: no group says so, and stockade leaves it"),
        );
    }

    fn problems(&mut self, grants: &[&Grant]) {
        let roles = &self.facts.world.directory.roles;
        let about = |problem: &&Problem| {
            let Problem { cluster, subject, .. } = problem;
            let here = self.asked.cluster.is_none() || cluster.is_none() || cluster.as_deref() == self.asked.cluster;
            let role = || roles.get(subject).and_then(|role| role.tags.get(MARK));
            let theirs = subject == self.asked.user || role().is_some_and(|user| user == self.asked.user);
            here && (theirs || grants.iter().any(|grant| grant.to_string() == *subject))
        };
        let told: Vec<String> = self.asked.problems.iter().filter(about).map(|problem| problem.what.clone()).collect();
        told.into_iter().for_each(|what| self.tell(Is::Problem, what));
    }
}

fn says(rules: usize) -> String {
    format!("says what the level may, in {rules} rules")
}

/// What is still to be put back is not yet.
fn because(cause: &Cause) -> String {
    match cause {
        Cause::Drift(what) => what.clone(),
        cause => cause.to_string(),
    }
}

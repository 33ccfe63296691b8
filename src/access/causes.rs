//! Why somebody gains or loses something: told from who was bound, for nobody else remembers.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Cause, Change, Object, Target};
use super::wanted::{GROUP, NAMESPACES};
use super::world::{Binding, Mode, Seen, Subject, World};
use crate::config::Terms;
use crate::config::rbac::Rbac;

/// What users had by the bindings and entries of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    groups: BTreeMap<String, BTreeSet<String>>,
    /// Those whom IAM knows; `None`: there is no IAM.
    users: Option<BTreeSet<String>>,
}

impl Past {
    pub fn of(world: &World, terms: &Terms) -> Self {
        let mut past = Self::default();
        if !world.directory.account.is_empty() {
            past.users = Some(world.directory.users.keys().cloned().collect());
        }
        for seen in world.clusters.values() {
            let Seen::Read(cluster) = seen else { continue };
            let whole = cluster.cluster_bindings.iter();
            let inner = cluster.bindings.iter().map(|((_, name), held)| (name, held));
            for (name, held) in whole.chain(inner).filter(|(_, held)| held.is_ours()) {
                if !held.is.role.1.ends_with(NAMESPACES) {
                    past.saw(name, &held.is, cluster.mode, terms);
                }
            }
        }
        past
    }

    fn saw(&mut self, group: &str, binding: &Binding, mode: Mode, terms: &Terms) {
        for user in binding.subjects.iter().filter_map(|subject| user_of(subject, mode, &terms.rbac)) {
            match self.groups.get_mut(user) {
                Some(groups) if groups.contains(group) => {}
                Some(groups) => drop(groups.insert(group.to_owned())),
                None => drop(self.groups.insert(user.to_owned(), [group.to_owned()].into())),
            }
        }
    }

    /// How many users had anything.
    pub fn count(&self) -> usize {
        self.groups.len()
    }

    pub fn left_group(&self, user: &str, group: &str) -> Cause {
        match &self.users {
            Some(users) if !users.contains(user) => Cause::UserGone(user.to_owned()),
            _ => Cause::Left { user: user.to_owned(), group: group.to_owned() },
        }
    }

    /// Everything that they had.
    pub fn left(&self, user: &str) -> Cause {
        let groups = self.groups.get(user).and_then(|groups| groups.first());
        self.left_group(user, groups.map_or("k8s-*", String::as_str))
    }
}

/// Who a subject of a binding is; nobody, if we would not have bound it.
pub fn user_of<'s>(subject: &'s Subject, mode: Mode, rbac: &Rbac) -> Option<&'s str> {
    match (subject, mode) {
        (Subject::User(name), Mode::Impersonated) => Some(name),
        (Subject::User(name), Mode::Entries | Mode::Both | Mode::AwsAuth) => rbac.user_of(name),
        (Subject::Group(_) | Subject::ServiceAccount(..), _) => None,
    }
}

/// Every cause of a change, one for each user that it is about: what the audit trail says of it.
pub fn causes(change: &Change, mode: Mode, rbac: &Rbac) -> Vec<Cause> {
    let (lost, gained) = subjects(change);
    let group = match &change.target {
        Target::ClusterRoleBinding { name, .. } | Target::RoleBinding { name, .. } => name,
        _ => return vec![change.cause.clone()],
    };
    if matches!(change.cause, Cause::Appeared(_) | Cause::Drift(_) | Cause::Configured | Cause::Gone(_)) {
        return vec![change.cause.clone()];
    }
    let named = |subject: &&Subject| user_of(subject, mode, rbac).map(str::to_owned);
    let left = lost.iter().filter_map(|subject| named(&subject)).map(|user| match &change.cause {
        Cause::UserGone(gone) if *gone == user => Cause::UserGone(user),
        _ => Cause::Left { user, group: group.clone() },
    });
    let joined = gained.iter().filter_map(|subject| named(&subject));
    let joined = joined.map(|user| Cause::Joined { user, group: group.clone() });
    let all: Vec<Cause> = left.chain(joined).collect();
    if all.is_empty() { vec![change.cause.clone()] } else { all }
}

/// Whom a change of a binding takes out, and whom it takes in.
pub fn subjects(change: &Change) -> (BTreeSet<Subject>, BTreeSet<Subject>) {
    let of = |object: &Option<Object>| match object {
        Some(Object::Binding(binding)) => binding.subjects.clone(),
        _ => BTreeSet::new(),
    };
    let (was, shall_be) = (of(&change.was), of(&change.shall_be));
    (was.difference(&shall_be).cloned().collect(), shall_be.difference(&was).cloned().collect())
}

/// The group of IAM that a group of Kubernetes is of.
pub fn group_of(name: &str) -> Option<&str> {
    name.strip_prefix(GROUP)
}

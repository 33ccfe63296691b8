//! In which order changes are carried out: at no moment has anybody more than they had, or more than they shall have.

use std::collections::BTreeSet;

use super::change::{Change, Object, Target};
use super::ranks::replaced;
use super::world::Binding;

/// First what takes away, from the bindings down to the groups; then what gives, the other way round.
pub(super) fn in_order(changes: Vec<Change>) -> Vec<Change> {
    let replaced = replaced(&changes);
    let is_first = |change: &Change| takes_away(change) && !replaced.contains(&change.target);
    let (mut takes, mut gives): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_first);
    split(&mut takes, &mut gives);
    takes.sort_by(|one, other| other.target.cmp(&one.target));
    gives.sort_by(|one, other| one.target.cmp(&other.target));
    takes.append(&mut gives);
    takes
}

/// Whether nobody gains by it.
fn takes_away(change: &Change) -> bool {
    match (&change.was, &change.shall_be) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(Object::Binding(was)), Some(Object::Binding(shall_be))) => shall_be.subjects.is_subset(&was.subjects),
        (Some(Object::Rules(was)), Some(Object::Rules(shall_be))) => {
            let was: BTreeSet<_> = was.rules.iter().collect();
            shall_be.rules.iter().all(|rule| was.contains(rule))
        }
        // Somebody else's name, or a way in beside the bindings, is put right before anything is given.
        (Some(Object::Entry(was)), Some(Object::Entry(shall_be))) => {
            was.username != shall_be.username
                || was.policies != shall_be.policies
                || shall_be.groups.is_subset(&was.groups)
        }
        (Some(Object::IamRole(_)), Some(Object::IamRole(_))) => true,
        _ => false,
    }
}

/// A binding that loses some and gains others, to a role that gains: who goes must be gone before, who comes comes after.
fn split(takes: &mut Vec<Change>, gives: &mut [Change]) {
    let roles: BTreeSet<(String, String, String)> = gives.iter().filter_map(|change| role(&change.target)).collect();
    for change in gives {
        let (Some(Object::Binding(was)), Some(Object::Binding(shall_be))) = (&change.was, &change.shall_be) else {
            continue;
        };
        let stays: BTreeSet<_> = was.subjects.intersection(&shall_be.subjects).cloned().collect();
        if stays.len() < was.subjects.len() && bound(&change.target, was).is_some_and(|role| roles.contains(&role)) {
            let between = Object::Binding(Binding { role: was.role.clone(), subjects: stays });
            takes.push(Change { shall_be: Some(between.clone()), ..change.clone() });
            (change.was, change.version) = (Some(between), String::new());
        }
    }
}

/// A role by its cluster, namespace and name.
fn role(target: &Target) -> Option<(String, String, String)> {
    match target {
        Target::ClusterRole { cluster, name } => Some((cluster.clone(), String::new(), name.clone())),
        Target::Role { cluster, namespace, name } => Some((cluster.clone(), namespace.clone(), name.clone())),
        _ => None,
    }
}

fn bound(target: &Target, binding: &Binding) -> Option<(String, String, String)> {
    let (kind, name) = &binding.role;
    match (kind.as_str(), target) {
        ("Role", Target::RoleBinding { cluster, namespace, .. }) => {
            Some((cluster.clone(), namespace.clone(), name.clone()))
        }
        (_, target) => Some((target.cluster()?.to_owned(), String::new(), name.clone())),
    }
}

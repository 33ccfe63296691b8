//! No plan takes away more than a configured share: an IAM outage or an empty answer never strips everybody.

use std::collections::{BTreeMap, BTreeSet};

use super::causes::{Past, subjects, user_of};
use super::change::{Object, Target};
use super::plan::Plan;
use super::wanted::{GROUP, Place, Wanted};
use super::world::{Seen, Subject, World};
use crate::config::Terms;
use crate::config::rbac::MembersFrom;

/// So few may always go.
const FEW: usize = 3;

/// How many of a kind lose something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// `users`, `places with IAM groups`, `users with roles`.
    pub kind: &'static str,
    pub removed: usize,
    pub of: usize,
}

impl Share {
    fn is_too_much(&self, most: u8) -> bool {
        let over = self.removed.saturating_mul(100) > self.of.saturating_mul(usize::from(most));
        let all = self.removed == self.of && self.of > 1 && self.kind == USERS;
        over && (self.removed > FEW || all)
    }
}

const USERS: &str = "users";

impl Plan {
    /// Why this plan is not carried out without `--allow-mass-removal`; `most` in percent.
    pub fn stop(&self, most: u8) -> Option<String> {
        self.stop_where(most, |_, _| true)
    }

    /// Likewise, where a loss counts only of a user who was seen in the group: whoever may write bindings in one
    /// namespace could name everybody in a forged one, and its removal would stop all the others.
    pub fn stop_where(&self, most: u8, seen: impl Fn(&str, &str) -> bool) -> Option<String> {
        if let Some(doubt) = &self.doubt {
            return Some(doubt.clone());
        }
        let lost = |(user, groups): &(&String, &BTreeSet<String>)| groups.iter().any(|group| seen(group, user));
        let believed = self.losers.iter().filter(lost).count();
        let counted = self.shares.iter().map(|share| match share.kind {
            USERS => Share { removed: believed, ..share.clone() },
            _ => share.clone(),
        });
        let share = counted.into_iter().find(|share| share.is_too_much(most))?;
        Some(format!(
            "{} of {} {} would lose what they have, more than the {most} % of most_removed: nothing is done; say \
             --allow-mass-removal if that is meant",
            share.removed, share.of, share.kind
        ))
    }
}

pub(super) fn guard(plan: &mut Plan, world: &World, wanted: &Wanted, past: &Past, terms: &Terms) {
    let mut losers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let lost: Vec<_> = plan.changes.iter().map(|change| (&change.target, subjects(change).0)).collect();
    for (target, lost) in &lost {
        let Some((Seen::Read(cluster), place)) =
            target.cluster().and_then(|name| Some((world.clusters.get(name)?, wanted.clusters.get(name)?)))
        else {
            continue;
        };
        for subject in lost.iter().filter(|subject| !is_bound(subject, target, place)) {
            if let (Some(user), Some(name)) = (user_of(subject, cluster.mode, &terms.rbac), binding(target)) {
                losers.entry(user.to_owned()).or_default().insert(name.to_owned());
            }
        }
    }
    for change in plan.changes.iter().filter(|change| change.shall_be.is_none()) {
        let (Target::Entry { .. } | Target::Row { .. }, Some(user)) = (&change.target, &change.user) else { continue };
        let place = change.target.cluster().and_then(|cluster| wanted.clusters.get(cluster));
        if place.is_some_and(|place| !place.lets_in(&change.target)) {
            let Some(Object::Entry(entry)) = &change.was else { continue };
            let groups = entry.groups.iter().map(|group| group.strip_prefix(GROUP).unwrap_or(group).to_owned());
            losers.entry(user.clone()).or_default().extend(groups);
        }
    }
    plan.losers = losers;
    let losers = plan.losers.len();
    plan.share(USERS, losers, past.count());
    let directory = &world.directory;
    let marked: BTreeSet<&String> =
        directory.roles.values().filter_map(|role| role.tags.get(super::world::MARK)).collect();
    let going = plan.changes.iter().filter(|change| change.shall_be.is_none());
    let going: BTreeSet<&String> =
        going.filter(|change| matches!(change.target, Target::IamRole(_))).filter_map(|c| c.user.as_ref()).collect();
    let (going, marked) = (going.len(), marked.len());
    plan.share("users with roles", going, marked);
    if losers + going > 0 {
        plan.doubt = doubt(world, terms);
    }
}

/// Named like the group that it is for.
fn binding(target: &Target) -> Option<&str> {
    match target {
        Target::RoleBinding { name, .. } | Target::ClusterRoleBinding { name, .. } => Some(name),
        _ => None,
    }
}

/// Whether somebody who loses a binding is still bound there by another, or in the whole cluster.
fn is_bound(subject: &Subject, target: &Target, place: &Place) -> bool {
    if place.cluster_bindings.values().any(|binding| binding.subjects.contains(subject)) {
        return true;
    }
    let Target::RoleBinding { namespace, .. } = target else { return false };
    let from = (namespace.clone(), String::new());
    let there = place.bindings.range(from..).take_while(|((other, _), _)| other == namespace);
    there.into_iter().any(|(_, binding)| binding.subjects.contains(subject))
}

/// An answer that says nobody is there is no reason to take everything away.
fn doubt(world: &World, terms: &Terms) -> Option<String> {
    let directory = &world.directory;
    let what = if !directory.account.is_empty() && directory.users.is_empty() {
        "IAM says that there are no users at all".to_owned()
    } else if terms.rbac.members == MembersFrom::Iam
        && !directory.groups.values().any(|group| super::membership::is_ours(group, terms))
    {
        format!("IAM says that there is no group below {}", terms.rbac.group_path)
    } else {
        return None;
    };
    Some(format!("{what}, while users have access: nothing is done; say --allow-mass-removal if that is so"))
}

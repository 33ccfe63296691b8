//! The difference between what there is and what should be: changes in order, each with its cause.

use std::collections::{BTreeMap, BTreeSet};

use super::causes::Past;
use super::change::{Cause, Change, Object, Target};
use super::guard::{self, Share};
use super::names::Grant;
use super::ranks;
use super::wanted::{Wanted, wanted};
use super::world::{Directory, MARK, Role, World};
use super::{cluster_plan, groups, roles};
use crate::config::Terms;

/// What is to be done, and what an admin should know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order in which they begin to be carried out: see `ranks`.
    pub changes: Vec<Change>,
    /// Sorted.
    pub problems: Vec<Problem>,
    pub quotas: Vec<Quota>,
    /// Percent, as the configuration has it.
    pub most_removed: u8,
    /// How much of what is ours goes; see `Plan::stop`.
    pub shares: Vec<Share>,
    /// Users who lose something, and the names of the bindings that they lose.
    pub losers: BTreeMap<String, BTreeSet<String>>,
    /// What was read looks like an answer cut short: see `Plan::stop`.
    pub doubt: Option<String>,
    /// Since when clusters (`hyades`) and namespaces (`hyades@taurus`) that groups speak of are not there: to be handed
    /// to the next plan, which counts the grace from it.
    pub gone: BTreeMap<String, i64>,
}

/// Something that is left as it is, because only an admin can say what is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// `None`: of IAM, or of all clusters.
    pub cluster: Option<String>,
    /// The name of the group, role, user or object.
    pub subject: String,
    /// The sentence, with what to do next.
    pub what: String,
}

/// What AWS allows, and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// `IAM groups`, `IAM roles`, `groups of alice`.
    pub what: String,
    pub used: usize,
    pub after: usize,
    pub most: usize,
}

/// What should be done in `world`, at `now` (seconds since the epoch); `gone` is of the plan before.
pub fn plan(world: &World, terms: &Terms, gone: &BTreeMap<String, i64>, now: i64) -> Plan {
    if let Some(problem) = elsewhere(&world.directory, terms) {
        return Plan { problems: vec![problem], gone: gone.clone(), ..Plan::default() };
    }
    let wanted = wanted(world, terms);
    let most_removed = terms.rbac.most_removed;
    let mut plan = Plan { problems: wanted.problems.clone(), most_removed, ..Plan::default() };
    let past = Past::of(world, terms);
    groups::groups(&mut plan, world, &wanted, terms, gone, now);
    iam_roles(&mut plan, world, &wanted, &past, terms);
    for (name, place) in &wanted.clusters {
        cluster_plan::cluster(&mut plan, name, place, world, &past, terms);
    }
    quotas(&mut plan, &world.directory);
    guard::guard(&mut plan, world, &wanted, &past, terms);
    let replaced = ranks::replaced(&plan.changes);
    plan.changes.sort_by_cached_key(|change| (ranks::first(change, &replaced), change.target.clone()));
    plan.problems.sort();
    plan.problems.dedup();
    plan
}

impl Plan {
    /// Whether this cycle has nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn share(&mut self, kind: &'static str, removed: usize, of: usize) {
        self.shares.push(Share { kind, removed, of });
    }
}

/// Credentials of another account would see none of our roles, and take all away.
fn elsewhere(directory: &Directory, terms: &Terms) -> Option<Problem> {
    let aws = terms.aws.as_ref()?;
    let template = terms.cluster_role().unwrap_or(&aws.role);
    let what = if directory.account != aws.account {
        format!("the credentials of access are of account '{}', [aws] is about {}", directory.account, aws.account)
    } else if template.account() != aws.account {
        format!("the roles of [kube] are of account {}, [aws] is about {}", template.account(), aws.account)
    } else {
        return None;
    };
    Some(Problem { cluster: None, subject: aws.account.clone(), what: format!("{what}: nothing is done") })
}

fn iam_roles(plan: &mut Plan, world: &World, wanted: &Wanted, past: &Past, terms: &Terms) {
    let directory = &world.directory;
    let change = |name: &str, user: &str, was, shall_be, cause| Change {
        target: Target::IamRole(name.to_owned()),
        was,
        shall_be,
        version: String::new(),
        user: Some(user.to_owned()),
        cause,
    };
    let mut joined: BTreeMap<&str, &Grant> = BTreeMap::new();
    for (grant, users) in &wanted.members {
        for user in users {
            joined.entry(user).or_insert(grant);
        }
    }
    let joined_by = |user: &str| {
        let group = joined.get(user).map(ToString::to_string).unwrap_or_default();
        Cause::Joined { user: user.to_owned(), group }
    };
    for (name, role) in &wanted.roles {
        let user = role.tags.get(MARK).map(String::as_str).unwrap_or_default();
        let shall_be = || Some(Object::IamRole(Box::new(role.clone())));
        match directory.roles.get(name) {
            Some(held) if held == role => {}
            // It was another user's, who has nothing any more.
            Some(held) if held.tags.get(MARK).is_some_and(|other| other != user) => {
                let other = held.tags.get(MARK).map(String::as_str).unwrap_or_default();
                let was = Some(Object::IamRole(Box::new(held.clone())));
                plan.changes.push(change(name, other, was, None, past.left(other)));
                plan.changes.push(change(name, user, None, shall_be(), joined_by(user)));
            }
            Some(held) => {
                let cause = Cause::Drift(drift(held, role));
                plan.changes.push(change(name, user, Some(Object::IamRole(Box::new(held.clone()))), shall_be(), cause));
            }
            None => {
                plan.changes.push(change(name, user, None, shall_be(), joined_by(user)));
            }
        }
    }
    for (name, held) in directory.roles.iter().filter(|(name, _)| !wanted.roles.contains_key(*name)) {
        let Some(user) = held.tags.get(MARK) else { continue };
        if roles::is_ours(name, held, terms) {
            let was = Some(Object::IamRole(Box::new(held.clone())));
            plan.changes.push(change(name, user, was, None, past.left(user)));
        } else {
            let what = "it carries access' mark, but is no role that [aws] or [kube] make: left, remove it or the mark";
            plan.problems.push(Problem { cluster: None, subject: name.clone(), what: what.to_owned() });
        }
    }
}

/// What of a role is not as the configuration has it.
fn drift(held: &Role, wanted: &Role) -> String {
    let parts = [
        (held.trust != wanted.trust, "its trust policy"),
        (held.inline != wanted.inline || held.attached != wanted.attached, "its policies"),
        (held.boundary != wanted.boundary, "its permissions boundary"),
        (held.tags != wanted.tags, "its tags"),
        (held.longest_session != wanted.longest_session, "its longest session"),
    ];
    let parts: Vec<&str> = parts.iter().filter(|(differs, _)| *differs).map(|(_, what)| *what).collect();
    format!("{} not as [rbac] has it", parts.join(" and "))
}

/// Said even where all is well: IAM allows few.
fn quotas(plan: &mut Plan, directory: &Directory) {
    let mut balance = [0_isize; 2];
    for change in &plan.changes {
        let by = isize::from(change.shall_be.is_some()) - isize::from(change.was.is_some());
        match (&change.target, balance.as_mut_slice()) {
            (Target::Group(_), [groups, _]) => *groups += by,
            (Target::IamRole(_), [_, roles]) => *roles += by,
            _ => {}
        }
    }
    let [groups, roles] = balance;
    let counted = [
        ("IAM groups", directory.groups.len(), groups, directory.quotas.groups),
        ("IAM roles", directory.roles.len(), roles, directory.quotas.roles),
    ];
    for (what, used, by, most) in counted {
        let Some(most) = most.and_then(|most| usize::try_from(most).ok()) else { continue };
        plan.quotas.push(Quota { what: what.to_owned(), used, after: used.saturating_add_signed(by), most });
    }
    let Some(most) = directory.quotas.groups_per_user.and_then(|most| usize::try_from(most).ok()) else { return };
    let mut in_groups: BTreeMap<&str, usize> = BTreeMap::new();
    for user in directory.groups.values().flat_map(|group| &group.members) {
        *in_groups.entry(user).or_default() += 1;
    }
    let full: BTreeSet<(&str, usize)> = in_groups.into_iter().filter(|(_, used)| *used >= most).collect();
    plan.quotas.extend(full.into_iter().map(|(user, used)| Quota {
        what: format!("groups of {user}"),
        used,
        after: used,
        most,
    }));
}

//! The groups of IAM: one for every grant that a cluster has a place for, as far as IAM takes them.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Cause, Change, Object, Target};
use super::membership::{Standing, is_ours, standing};
use super::names::Grant;
use super::plan::{Plan, Problem};
use super::wanted::Wanted;
use super::world::World;
use crate::config::Terms;
use crate::config::rbac::MembersFrom;

pub(super) fn groups(
    plan: &mut Plan,
    world: &World,
    wanted: &Wanted,
    terms: &Terms,
    ago: &BTreeMap<String, i64>,
    now: i64,
) {
    if terms.rbac.members != MembersFrom::Iam {
        return;
    }
    let going = removed(plan, world, terms, ago, now);
    made(plan, world, wanted, &going);
}

/// `going` are as good as gone: they are removed before.
fn made(plan: &mut Plan, world: &World, wanted: &Wanted, going: &BTreeSet<String>) {
    let directory = &world.directory;
    let stays = directory.groups.keys().filter(|name| !going.contains(*name));
    let held: BTreeMap<String, &String> = stays.map(|name| (name.to_ascii_lowercase(), name)).collect();
    let mut fresh: BTreeMap<String, Vec<&Grant>> = BTreeMap::new();
    for grant in &wanted.grants {
        match grant.group() {
            Err(why) => problem(plan, grant.to_string(), format!("{why}; nobody can be given this")),
            Ok(name) if directory.groups.contains_key(&name) => {}
            Ok(name) => match held.get(&name.to_ascii_lowercase()) {
                Some(other) => problem(
                    plan,
                    name,
                    format!("'{other}' is there, and IAM takes the two names for one: left, rename or remove it"),
                ),
                None => fresh.entry(name.to_ascii_lowercase()).or_default().push(grant),
            },
        }
    }
    let most = directory.quotas.groups.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    let room = most.map_or(usize::MAX, |most| most.saturating_sub(held.len()));
    let (single, twins): (Vec<_>, Vec<_>) = fresh.into_values().partition(|grants| grants.len() == 1);
    for twins in twins {
        let names: Vec<String> = twins.iter().map(ToString::to_string).collect();
        let what = format!("IAM takes '{}' for one name: none is made, rename a cluster", names.join("' and '"));
        problem(plan, names.into_iter().next().unwrap_or_default(), what);
    }
    // Whole clusters first: they matter most where there is no room for all.
    let mut single: Vec<&Grant> = single.into_iter().flatten().collect();
    single.sort_by_key(|grant| (grant.namespace.is_some(), *grant));
    if single.len() > room {
        let (left, most) = (single.len() - room, directory.quotas.groups.unwrap_or_default());
        let what = format!(
            "{left} groups are not made: the account may have {most} and has {}; opt namespaces in with namespaces = \
             \"labelled\", or let tags of users say it with members = \"tags\"",
            held.len()
        );
        problem(plan, "IAM groups".to_owned(), what);
    }
    plan.changes.extend(single.into_iter().take(room).map(|grant| {
        let cause = Cause::Appeared(match &grant.namespace {
            Some(namespace) => format!("namespace {namespace} of {}", grant.cluster),
            None => format!("cluster {}", grant.cluster),
        });
        change(grant.clone(), None, Some(Object::Group), cause)
    }));
}

/// Groups whose place is gone: only empty ones, and only after a while.
fn removed(plan: &mut Plan, world: &World, terms: &Terms, ago: &BTreeMap<String, i64>, now: i64) -> BTreeSet<String> {
    let grace = i64::try_from(terms.rbac.grace.as_secs()).unwrap_or(i64::MAX);
    let mut going = BTreeSet::new();
    let mut places = BTreeSet::new();
    let mut of = BTreeSet::new();
    for (name, group) in world.directory.groups.iter().filter(|(_, group)| is_ours(group, terms)) {
        let Ok(grant) = name.parse::<Grant>() else { continue };
        of.insert(grant.place());
        let Standing::Gone(why) = standing(&grant, world, terms) else { continue };
        let since = ago.get(&grant.place()).copied().unwrap_or(now);
        plan.gone.insert(grant.place(), since);
        if group.members.is_empty() && now.saturating_sub(since) >= grace {
            places.insert(grant.place());
            going.insert(name.clone());
            plan.changes.push(change(grant, Some(Object::Group), None, Cause::Gone(why)));
        }
    }
    plan.share("places with IAM groups", places.len(), of.len());
    going
}

fn change(grant: Grant, was: Option<Object>, shall_be: Option<Object>, cause: Cause) -> Change {
    Change { target: Target::Group(grant), was, shall_be, version: String::new(), user: None, cause }
}

fn problem(plan: &mut Plan, subject: String, what: String) {
    plan.problems.push(Problem { cluster: None, subject, what });
}

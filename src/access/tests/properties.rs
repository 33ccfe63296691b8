//! For random states of IAM and of clusters: what is planned can be carried out, has an end, touches nothing foreign and
//! gives nobody more on the way than they had or shall have.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::random::{any_terms, directory, map_roles, world};
use super::worlds::{ACCOUNT, NOW, PATH, lines, planned};
use crate::access::entries::row_of;
use crate::access::names::Grant;
use crate::access::plan::plan;
use crate::access::rows::{rows, without_path};
use crate::access::simulated::{Simulated, When};
use crate::access::world::{MARK, Mode, Rule, Seen, Subject, World};
use crate::config::Terms;
use crate::config::rbac::MembersFrom;

/// Everything that is not ours, as it was.
fn foreign_part(world: &World, terms: &Terms) -> World {
    let mut world = world.clone();
    world.directory.groups.retain(|_, group| !group.path.starts_with(PATH));
    world.directory.roles.retain(|_, role| !role.tags.contains_key(MARK));
    for seen in world.clusters.values_mut() {
        let Seen::Read(cluster) = seen else { continue };
        cluster.cluster_roles.retain(|_, held| !held.is_ours());
        cluster.roles.retain(|_, held| !held.is_ours());
        cluster.cluster_bindings.retain(|_, held| !held.is_ours());
        cluster.bindings.retain(|_, held| !held.is_ours());
        cluster.entries.retain(|_, entry| !entry.tags.contains_key(MARK));
        let Some(map) = &cluster.aws_auth.map_roles else { continue };
        if let Ok(mut all) = rows(map) {
            all.retain(|row| terms.rbac.user_of(&row.username).is_none());
            // Beside access entries a row of our own roles goes, whatever it says; one with a path is of no role.
            let others = |arn: &str| arn.ends_with(":role/nodes") || arn.contains("/bastion/");
            all.retain(|row| cluster.mode != Mode::Both || others(&row.arn));
            cluster.aws_auth.map_roles = (!all.is_empty()).then(|| serde_saphyr::to_string(&all).unwrap());
        }
    }
    world
}

/// What each user may do by RBAC: cluster, namespace or `*`, and verb, group, resource.
fn rights(world: &World) -> BTreeMap<Subject, BTreeSet<String>> {
    let mut rights: BTreeMap<Subject, BTreeSet<String>> = BTreeMap::new();
    for (name, seen) in &world.clusters {
        let Seen::Read(cluster) = seen else { continue };
        let whole = cluster.cluster_bindings.values().map(|held| ("*", &held.is));
        let inner = cluster.bindings.iter().map(|((namespace, _), held)| (namespace.as_str(), &held.is));
        for (place, binding) in whole.chain(inner) {
            let (kind, role) = &binding.role;
            let rules = match kind.as_str() {
                "ClusterRole" => cluster.cluster_roles.get(role).map(|held| &held.is),
                _ => cluster.roles.get(&(place.to_owned(), role.clone())).map(|held| &held.is),
            };
            for subject in &binding.subjects {
                let rules = rules.into_iter().flat_map(|rules| &rules.rules);
                rights.entry(subject.clone()).or_default().extend(rules.flat_map(|rule| words(name, place, rule)));
            }
        }
    }
    rights
}

/// Who each role of IAM is on each cluster: its access entry says so, or where there is none a row of aws-auth.
fn names(world: &World) -> BTreeMap<Subject, BTreeSet<String>> {
    let mut names: BTreeMap<Subject, BTreeSet<String>> = BTreeMap::new();
    for (cluster, seen) in &world.clusters {
        let Seen::Read(read) = seen else { continue };
        for (role, is) in &world.directory.roles {
            let arn = format!("arn:aws:iam::{ACCOUNT}:role{}{role}", is.path);
            let said = match (read.entries.get(&arn), read.mode) {
                (Some(entry), _) => Some(entry.clone()),
                (None, Mode::Both) => row_of(read, &without_path(&arn)),
                (None, _) => None,
            };
            let said = said.map(|entry| entry.groups.into_iter().chain([entry.username]).collect::<BTreeSet<_>>());
            names.insert(Subject::User(format!("{role} on {cluster}")), said.unwrap_or_default());
        }
    }
    names
}

fn words(cluster: &str, place: &str, rule: &Rule) -> Vec<String> {
    let mut words = Vec::new();
    for verb in &rule.verbs {
        words.extend(rule.urls.iter().map(|url| format!("{cluster} {verb} {url}")));
        for group in &rule.groups {
            words.extend(rule.resources.iter().map(|one| format!("{cluster}/{place} {verb} {group}/{one}")));
        }
    }
    words
}

/// Nobody is bound by us who is not in the group of the binding's name; told from the groups, and by nothing that plans.
fn bound_are_members(world: &World, terms: &Terms) {
    for (name, seen) in &world.clusters {
        let Seen::Read(cluster) = seen else { continue };
        let whole = cluster.cluster_bindings.iter();
        let inner = cluster.bindings.iter().filter(|((namespace, _), _)| !cluster.namespaces[namespace].terminating);
        for (group, held) in whole.chain(inner.map(|((_, name), held)| (name, held))).filter(|(_, held)| held.is_ours())
        {
            // A label alone makes nothing ours.
            let Ok(grant) = group.parse::<Grant>() else { continue };
            assert_eq!(grant.cluster, *name);
            for subject in &held.is.subjects {
                let Subject::User(subject) = subject else { panic!("{subject:?}") };
                let user = match cluster.mode {
                    Mode::Impersonated => subject.as_str(),
                    _ => subject.strip_prefix("stockade:").unwrap(),
                };
                assert!(world.directory.users.contains_key(user), "{user}");
                let is_member = match &terms.rbac.members {
                    MembersFrom::Iam => {
                        let group = &world.directory.groups[group];
                        group.path.starts_with(PATH) && group.members.contains(user)
                    }
                    MembersFrom::Tag(key) => world.directory.users[user].tags[key].split(' ').any(|word| word == group),
                    MembersFrom::File => panic!("not here"),
                };
                assert!(is_member, "{user} is bound by {group}");
            }
        }
    }
}

fn carry_out_all(simulated: &Simulated, terms: &Terms) -> usize {
    let plan = plan(&simulated.world(), terms, &BTreeMap::new(), NOW);
    plan.changes.iter().filter(|change| simulated.carry_out_now(change).is_err()).count()
}

fn is_empty(simulated: &Simulated, terms: &Terms) -> Result<(), TestCaseError> {
    prop_assert_eq!(lines(&planned(&simulated.world(), terms)), Vec::<String>::new());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_reaches_a_fixed_point_and_touches_nothing_foreign(world in world(), terms in any_terms()) {
        let simulated = Simulated::new(world.clone(), PATH);
        let plan = planned(&world, &terms);
        for change in &plan.changes {
            simulated.carry_out_now(change).unwrap_or_else(|fault| panic!("{fault}: {change:?}"));
        }
        is_empty(&simulated, &terms)?;
        let after = simulated.world();
        prop_assert_eq!(foreign_part(&after, &terms), foreign_part(&world, &terms));
        prop_assert_eq!(&after.directory.users, &world.directory.users);
        bound_are_members(&after, &terms);
    }

    /// Levels are written over what is served: for what cannot be asked, what was written before stands for it.
    #[test]
    fn a_group_whose_server_is_away_changes_nothing(world in world(), terms in any_terms(), away in any::<u64>()) {
        let simulated = Simulated::new(world, PATH);
        prop_assert_eq!(carry_out_all(&simulated, &terms), 0);
        simulated.by_hand(|world| {
            for seen in world.clusters.values_mut() {
                let Seen::Read(cluster) = seen else { continue };
                let groups: BTreeSet<String> = cluster.served.iter().map(|one| one.group.clone()).collect();
                let stale = groups.into_iter().enumerate().filter(|(at, _)| away >> at & 1 == 1);
                cluster.stale = stale.map(|(_, group)| group).collect();
                cluster.served.retain(|one| !cluster.stale.contains(&one.group));
            }
        });
        is_empty(&simulated, &terms)?;
    }

    #[test]
    fn on_the_way_nobody_has_more_than_before_and_after(
        world in world(), next in directory(), rows in map_roles(), terms in any_terms(), later in any_terms(),
    ) {
        let simulated = Simulated::new(world, PATH);
        prop_assert_eq!(carry_out_all(&simulated, &terms), 0);
        simulated.by_hand(|world| {
            (world.directory.users, world.directory.groups) = (next.users, next.groups);
            // A cluster that nobody can change now is as it is read.
            world.clusters.retain(|_, seen| matches!(seen, Seen::Read(_)));
            if let Some(Seen::Read(hyades)) = world.clusters.get_mut("hyades") {
                hyades.aws_auth.map_roles = rows;
            }
        });
        let rights = |world: &World| rights(world).into_iter().chain(names(world)).collect::<BTreeMap<_, _>>();
        let before = rights(&simulated.world());
        let plan = planned(&simulated.world(), &later);
        let mut steps = Vec::new();
        for change in &plan.changes {
            prop_assert!(simulated.carry_out_now(change).is_ok(), "{:?}", change);
            steps.push(rights(&simulated.world()));
        }
        let after = steps.last().cloned().unwrap_or_default();
        let none = BTreeSet::new();
        for (step, change) in steps.iter().zip(&plan.changes) {
            for (subject, has) in step {
                let (had, shall) = (before.get(subject).unwrap_or(&none), after.get(subject).unwrap_or(&none));
                let more: Vec<_> = has.iter().filter(|right| !had.contains(*right) && !shall.contains(*right)).collect();
                prop_assert!(more.is_empty(), "{:?} has {:?} after {:?}", subject, more, change.target);
            }
        }
        is_empty(&simulated, &later)?;
    }

    #[test]
    fn whatever_call_fails_the_next_cycles_get_there(world in world(), terms in any_terms(), at in 1..60_usize, after: bool) {
        let simulated = Simulated::new(world, PATH);
        simulated.fail_at(at, if after { When::After } else { When::Before });
        carry_out_all(&simulated, &terms);
        simulated.heal();
        carry_out_all(&simulated, &terms);
        carry_out_all(&simulated, &terms);
        is_empty(&simulated, &terms)?;
        bound_are_members(&simulated.world(), &terms);
    }

    #[test]
    fn a_process_that_dies_between_two_calls_goes_on(world in world(), terms in any_terms(), at in 1..60_usize) {
        let simulated = Simulated::new(world, PATH);
        simulated.die_at(at);
        carry_out_all(&simulated, &terms);
        simulated.heal();
        prop_assert_eq!(carry_out_all(&simulated, &terms), 0);
        is_empty(&simulated, &terms)?;
    }
}

//! Worlds as the plan makes them.

use std::collections::BTreeMap;
use std::path::Path;

use super::{NOW, grant, hyades, rule};
use crate::access::change::Cause;
use crate::access::plan::{Plan, plan};
use crate::access::report::cloudtrail::CloudTrail;
use crate::access::report::explain::{Asked, Is, Sentence, explain};
use crate::access::report::lint::lint;
use crate::access::report::question::{Words, read};
use crate::access::report::rights::{Facts, Right, State, rights};
use crate::access::report::said::{members, said};
use crate::access::report::who_can::who_can;
use crate::access::simulated::Simulated;
use crate::access::world::{Directory, Group, Seen, User, World};
use crate::config::{Host, Terms, check_access};

fn terms() -> Terms {
    let none = |path: &Path| Err::<String, _>(format!("no {} here", path.display()));
    let no_secret = |path: &Path| Err::<zeroize::Zeroizing<String>, _>(format!("no {} here", path.display()));
    let host = Host { passwd: "", subuid: "", subgid: "", read: &none, secret: &no_secret };
    let source = "[aws]\nregion = 'us-east-1'\nrole = 'arn:aws:iam::111122223333:role/bastion/{user}'\n\
                  [rbac]\nbastion = ['arn:aws:iam::111122223333:role/stockade']\n\
                  boundary = 'arn:aws:iam::111122223333:policy/stockade-boundary'\n";
    check_access(source, &host).unwrap()
}

/// alice is poweruser of hyades, bob user of its namespace taurus, and nothing is made yet.
fn fresh() -> Simulated {
    let mut directory = Directory { account: "111122223333".into(), ..Directory::default() };
    let grants = [("alice", grant("poweruser", "hyades", None)), ("bob", grant("user", "hyades", Some("taurus")))];
    for (user, grant) in grants {
        directory.users.insert(user.into(), User::default());
        let group = Group { path: "/stockade/".into(), members: [user.to_owned()].into(), created: 0 };
        directory.groups.insert(grant.to_string(), group);
    }
    let clusters = [("hyades".to_owned(), Seen::Read(Box::new(hyades())))].into();
    Simulated::new(World { directory, clusters }, "/stockade/")
}

fn planned(world: &World) -> Plan {
    plan(world, &terms(), &BTreeMap::new(), NOW)
}

fn settled() -> Simulated {
    let cloud = fresh();
    for change in planned(&cloud.world()).changes {
        cloud.carry_out_now(&change).unwrap();
    }
    assert_eq!(planned(&cloud.world()).changes, []);
    cloud
}

/// Rights, and what is explained of one user.
fn seen(world: &World, user: &str) -> (Vec<Right>, Vec<Sentence>) {
    let plan = planned(world);
    let (counted, all) = (members(world, &terms()), said(world, &terms()));
    let (joined, trail) = (BTreeMap::new(), CloudTrail::default());
    let facts = Facts {
        world,
        members: &counted,
        changes: &plan.changes,
        joined: &joined,
        trail: &trail,
        username: "stockade:{user}",
        now: NOW,
        dormant_after: 1,
    };
    let asked = Asked { user, cluster: None, group_path: Some("/stockade/"), problems: &plan.problems };
    (rights(&facts), explain(&Facts { members: &all, ..facts }, &asked))
}

#[test]
fn what_was_planned_is_pending_and_what_was_made_is_in_force() {
    let (found, told) = seen(&fresh().world(), "alice");
    assert_eq!(found.iter().map(|right| right.state).collect::<Vec<_>>(), [State::Pending, State::Pending]);
    assert!(told.iter().any(|sentence| sentence.is == Is::Missing && sentence.text.contains("next apply makes it")));
    let world = settled().world();
    for user in ["alice", "bob"] {
        let (found, told) = seen(&world, user);
        assert_eq!(found.iter().map(|right| right.state).collect::<Vec<_>>(), [State::InForce, State::InForce]);
        assert!(told.iter().all(|sentence| sentence.is == Is::There), "{told:?}");
    }
    let (_, told) = seen(&world, "alice");
    assert!(told.iter().any(|sentence| sentence.text.ends_with("names them in 3 namespaces")), "{told:?}");
}

#[test]
fn what_we_make_is_found_by_the_evaluator_and_not_by_the_lint() {
    let world = settled().world();
    let Some(Seen::Read(cluster)) = world.clusters.get("hyades") else { panic!("away") };
    assert_eq!(lint(cluster), []);
    let users = |verb, resource, namespace| {
        let (question, _) = read(cluster, Words { verb, resource, namespace, name: None }).unwrap();
        let found = who_can(cluster, &world.directory, "stockade:{user}", &question);
        found.into_iter().filter_map(|who| Some((who.user?, who.group?))).collect::<Vec<_>>()
    };
    let alice = ("alice".to_owned(), "k8s-poweruser@hyades".to_owned());
    let bob = ("bob".to_owned(), "k8s-user@hyades@taurus".to_owned());
    assert_eq!(users("create", "pods/exec", Some("taurus")), [alice.clone(), bob]);
    assert_eq!(users("create", "pods/exec", Some("kube-system")), []);
    assert_eq!(users("get", "pods", Some("kube-system")), [alice]);
}

#[test]
fn a_hand_in_a_role_is_drift_of_everybody_who_has_it() {
    let cloud = settled();
    cloud.by_hand(|world| {
        let Some(Seen::Read(cluster)) = world.clusters.get_mut("hyades") else { panic!("away") };
        let role = cluster.cluster_roles.get_mut("k8s-poweruser@hyades").unwrap();
        role.is.rules.push(rule("*", "*", "*"));
    });
    let world = cloud.world();
    assert!(planned(&world).changes.iter().any(|change| matches!(change.cause, Cause::Drift(_))));
    let (found, told) = seen(&world, "alice");
    assert_eq!(found[0].drift.len(), 1);
    assert_eq!(found[1].drift, Vec::<String>::new());
    assert!(told.iter().any(|sentence| sentence.is == Is::Different), "{told:?}");
}

#[test]
fn members_of_a_cluster_that_is_away_are_told_and_those_of_no_cluster_are_not() {
    let cloud = settled();
    cloud.by_hand(|world| {
        world.clusters.insert("hyades".into(), Seen::Away("connection refused".into()));
        let group = Group { path: "/stockade/".into(), members: ["alice".to_owned()].into(), created: 0 };
        world.directory.groups.insert("k8s-user@pleiades".into(), group);
    });
    let (found, told) = seen(&cloud.world(), "alice");
    let states: Vec<_> = found.iter().map(|right| (right.user.as_str(), right.state)).collect();
    assert_eq!(states, [("alice", State::Unknown), ("bob", State::Unknown)]);
    assert!(told.iter().any(|sentence| sentence.text == "there is no cluster pleiades: the group gives nothing"));
}

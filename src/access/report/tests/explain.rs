//! Why.

use std::collections::BTreeMap;

use super::*;
use crate::access::change::{Cause, Change, Target};
use crate::access::plan::Problem;
use crate::access::report::cloudtrail::CloudTrail;
use crate::access::report::explain::{Asked, Sentence, explain};
use crate::access::report::rights::Facts;

fn told(world: &World, members: &Members, changes: &[Change], user: &str, cluster: Option<&str>) -> Vec<String> {
    let facts = Facts {
        world,
        members,
        changes,
        joined: &BTreeMap::from([(("alice".to_owned(), "k8s-admin@hyades".to_owned()), NOW - 3 * DAY)]),
        trail: &CloudTrail::default(),
        username: "stockade:{user}",
        now: NOW,
        dormant_after: 90 * DAY,
    };
    let what = "alice is in more groups than IAM allows".into();
    let problems = [Problem { cluster: None, subject: "alice".into(), what }];
    let asked = Asked { user, cluster, group_path: Some("/stockade/"), problems: &problems };
    let line = |told: Sentence| format!("{}{}: {}", if told.below { "  " } else { "" }, told.is.word(), told.text);
    explain(&facts, &asked).into_iter().map(line).collect()
}

#[test]
fn the_whole_chain_is_told() {
    let (world, members) = stars();
    assert_eq!(
        told(&world, &members, &[], "alice", None),
        [
            "ok: alice is a user of IAM in account 111122223333",
            "  ok: IAM role kube-alice is theirs, used last on 2026-11-20",
            "ok: alice is admin of cluster hyades",
            "  ok: group k8s-admin@hyades has them, seen there since 2026-11-18",
            "  ok: hyades: ClusterRole k8s-admin@hyades says what the level may, in 1 rules",
            "  ok: hyades: EKS lets arn:aws:iam::111122223333:role/bastion/kube-alice in as stockade:alice",
            "  ok: hyades: ClusterRoleBinding k8s-admin@hyades names stockade:alice",
            "problem: alice is in more groups than IAM allows",
        ]
    );
}

#[test]
fn what_is_missing_and_what_drifted_has_its_sentence() {
    let (mut world, members) = stars();
    let cluster = the_cluster(&mut world);
    cluster.entries.clear();
    cluster.bindings.clear();
    let (at, namespace) = ("hyades".to_owned(), "taurus".to_owned());
    let name = "k8s-user@hyades@taurus".to_owned();
    let joined = || Cause::Joined { user: "bob".into(), group: name.clone() };
    let drift = Cause::Drift("rules were added".into());
    let changes = [
        change(Target::Entry { cluster: at.clone(), role: "arn".into() }, Some("bob"), false, true, joined()),
        change(
            Target::Role { cluster: at.clone(), namespace: namespace.clone(), name: name.clone() },
            None,
            true,
            true,
            drift,
        ),
        change(Target::RoleBinding { cluster: at, namespace, name: name.clone() }, Some("bob"), false, true, joined()),
    ];
    assert_eq!(
        told(&world, &members, &changes, "bob", Some("hyades"))[2..],
        [
            "missing: bob should be user of namespace taurus of cluster hyades, and is not yet",
            "  ok: group k8s-user@hyades@taurus has them",
            "  differs: hyades: Role taurus/k8s-user@hyades@taurus was changed by hand; the next apply puts it back: \
             rules were added",
            "  missing: hyades: access entry of arn is not there; the next apply makes it: bob is in \
             k8s-user@hyades@taurus",
            "  missing: hyades: RoleBinding taurus/k8s-user@hyades@taurus is not there; the next apply makes it: bob \
             is in k8s-user@hyades@taurus",
        ]
    );
}

#[test]
fn what_no_group_gives_is_told_too() {
    let (mut world, mut members) = stars();
    members.remove(&grant("user", "hyades", Some("taurus")));
    let cluster = the_cluster(&mut world);
    bind(cluster, "hand", "view", [Subject::User("stockade:bob".into())]);
    let group = Group { path: "/".into(), members: ["bob".to_owned()].into(), created: 0 };
    world.directory.groups.insert("k8s-admin@pleiades".into(), group);
    assert_eq!(
        told(&world, &members, &[], "bob", None)[2..],
        [
            "problem: IAM group /k8s-admin@pleiades has them and counts for nothing: only groups below /stockade/ do",
            "differs: bob still is user of hyades/taurus, though k8s-user@hyades@taurus has them no more; the next \
             apply ends it",
            "by hand: ClusterRoleBinding hand gives bob ClusterRole view on hyades: no group says so, and stockade \
             leaves it",
        ]
    );
}

#[test]
fn clusters_that_are_away_or_gone_and_users_without_anything() {
    let (mut world, mut members) = stars();
    members.insert(grant("user", "pleiades", None), ["alice".to_owned()].into());
    world.clusters.insert("hyades".into(), Seen::Away("connection refused".into()));
    let all = told(&world, &members, &[], "alice", None);
    assert!(
        all.contains(&"unknown: alice should be admin of cluster hyades, which cannot be read".to_owned()),
        "{all:?}"
    );
    assert!(all.contains(&"  unknown: hyades cannot be read: connection refused".to_owned()), "{all:?}");
    assert!(all.contains(&"  problem: there is no cluster pleiades: the group gives nothing".to_owned()), "{all:?}");
    assert_eq!(
        told(&world, &members, &[], "carol", Some("hyades")),
        [
            "missing: carol is no user of IAM in account 111122223333",
            "ok: carol has nothing on cluster hyades: no group that grants something has them",
        ]
    );
}

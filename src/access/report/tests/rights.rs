//! Who has what.

use std::collections::BTreeMap;

use super::*;
use crate::access::change::{Cause, Change, Target};
use crate::access::report::cloudtrail::CloudTrail;
use crate::access::report::listing::table;
use crate::access::report::rights::{Facts, Right, Since, Source, State, rights};

struct Case {
    world: World,
    members: Members,
    changes: Vec<Change>,
    joined: BTreeMap<(String, String), i64>,
}

fn case() -> Case {
    let (world, members) = stars();
    Case { world, members, changes: Vec::new(), joined: BTreeMap::new() }
}

impl Case {
    fn rights(&self) -> Vec<Right> {
        rights(&Facts {
            world: &self.world,
            members: &self.members,
            changes: &self.changes,
            joined: &self.joined,
            trail: &CloudTrail::default(),
            username: "stockade:{user}",
            now: NOW,
            dormant_after: 90 * DAY,
        })
    }

    /// User, where, state and marks.
    fn told(&self) -> Vec<String> {
        self.rights()
            .iter()
            .map(|right| format!("{} {} {}", right.user, right.place(), right.marks().join("+")))
            .collect()
    }
}

#[test]
fn what_is_in_force_says_since_when_and_what_nobody_uses_is_dormant() {
    let mut case = case();
    case.joined.insert(("alice".into(), "k8s-admin@hyades".into()), NOW - 3 * DAY);
    let rights = case.rights();
    assert_eq!(case.told(), ["alice hyades ", "bob hyades/taurus dormant"]);
    assert_eq!(rights[0].since, Some(Since { at: NOW - 3 * DAY, by: Source::History }));
    assert_eq!(rights[1].since, Some(Since { at: NOW - 30 * DAY, by: Source::Objects }));
    assert_eq!(rights[0].last_used, Some(NOW - DAY));
    assert_eq!(rights[1].group.as_deref(), Some("k8s-user@hyades@taurus"));
    let table = table(&rights).table();
    assert!(table.contains("alice  hyades         admin  k8s-admin@hyades        2026-11-18"), "{table}");
    assert!(table.contains("after 2026-10-22"), "{table}");
}

#[test]
fn a_young_role_is_not_dormant_and_an_old_use_is() {
    let mut case = case();
    let roles = &mut case.world.directory.roles;
    roles.get_mut("kube-bob").unwrap().created = NOW - 89 * DAY;
    roles.get_mut("kube-alice").unwrap().last_used = Some(NOW - 91 * DAY);
    assert_eq!(case.told(), ["alice hyades dormant", "bob hyades/taurus "]);
}

#[test]
fn whoever_is_not_bound_yet_waits_and_whoever_still_is_is_left_over() {
    let mut case = case();
    case.members.get_mut(&grant("admin", "hyades", None)).unwrap().insert("carol".into());
    case.members.remove(&grant("user", "hyades", Some("taurus")));
    assert_eq!(case.told(), ["alice hyades ", "bob hyades/taurus leftover+dormant", "carol hyades pending"]);
}

#[test]
fn without_an_entry_or_with_a_role_to_come_nothing_is_in_force() {
    let mut case = case();
    the_cluster(&mut case.world).entries.retain(|arn, _| arn.ends_with("bob"));
    let target =
        Target::Role { cluster: "hyades".into(), namespace: "taurus".into(), name: "k8s-user@hyades@taurus".into() };
    case.changes.push(change(target, None, false, true, Cause::Configured));
    assert_eq!(case.told(), ["alice hyades pending", "bob hyades/taurus pending+dormant"]);
}

#[test]
fn drift_is_marked_where_it_matters() {
    let mut case = case();
    let drift = || Cause::Drift("its trust policy was changed".into());
    case.changes.push(change(Target::IamRole("kube-bob".into()), Some("bob"), true, true, drift()));
    let name = "k8s-admin@hyades:namespaces".to_owned();
    let target = Target::ClusterRole { cluster: "hyades".into(), name };
    case.changes.push(change(target, None, true, true, Cause::Drift("its rules were changed".into())));
    let elsewhere = Target::ClusterRole { cluster: "pleiades".into(), name: "k8s-user@hyades@taurus".into() };
    case.changes.push(change(elsewhere, None, true, true, drift()));
    let rights = case.rights();
    assert_eq!(rights[0].drift, ["hyades: ClusterRole k8s-admin@hyades:namespaces: its rules were changed"]);
    assert_eq!(rights[1].drift, ["IAM role kube-bob: its trust policy was changed"]);
    assert_eq!(rights[1].marks(), ["drifted", "dormant"]);
}

#[test]
fn what_was_given_by_hand_is_told() {
    let mut case = case();
    let cluster = the_cluster(&mut case.world);
    bind(cluster, "hand", "view", [Subject::User("stockade:bob".into()), Subject::User("somebody".into())]);
    bind_in(cluster, "orion", "g", ("Role", "r"), [Subject::Group("stockade:k8s-admin@hyades".into())]);
    // Our label alone makes it none of ours.
    mark(cluster.cluster_bindings.get_mut("hand").unwrap());
    let alice = cluster.entries.get_mut("arn:aws:iam::111122223333:role/bastion/kube-alice").unwrap();
    alice.policies.insert("arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy".into());
    let found: Vec<_> = case.rights().into_iter().filter(|right| right.state == State::ByHand).collect();
    let told: Vec<_> = found
        .iter()
        .map(|right| format!("{} {} {}", right.user, right.level, right.object.as_deref().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            "alice policy AmazonEKSClusterAdminPolicy access entry of \
             arn:aws:iam::111122223333:role/bastion/kube-alice",
            "alice Role r RoleBinding orion/g",
            "bob ClusterRole view ClusterRoleBinding hand",
        ]
    );
}

/// Beside access entries, and past them: rows of aws-auth that no IAM group stands behind.
#[test]
fn who_has_the_name_of_another_by_hand_is_told() {
    let mut case = case();
    let cluster = the_cluster(&mut case.world);
    cluster.mode = Mode::Both;
    let row = |key: &str, who: &str, name: &str, group: &str| {
        format!("- {{{key}: 'arn:aws:iam::111122223333:{who}', username: '{name}', groups: ['{group}']}}\n")
    };
    let roles = row("rolearn", "role/ci", "stockade:alice", "ops")
        // Her entry comes first.
        + &row("rolearn", "role/kube-alice", "stockade:bob", "system:masters");
    let users = row("userarn", "user/bob", "bob", "stockade:k8s-admin@hyades");
    (cluster.aws_auth.map_roles, cluster.aws_auth.map_users) = (Some(roles), Some(users));
    let rights = case.rights();
    let found: Vec<_> = rights.iter().filter(|right| right.state == State::ByHand).collect();
    let told =
        found.iter().map(|right| format!("{}: {} by {}", right.user, right.level, right.object.as_deref().unwrap()));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            "arn:aws:iam::111122223333:role/ci: User stockade:alice by row of aws-auth of \
             arn:aws:iam::111122223333:role/ci",
            "bob: Group stockade:k8s-admin@hyades by row of aws-auth of arn:aws:iam::111122223333:user/bob",
        ]
    );
    let in_force = rights.iter().filter(|right| right.state == State::InForce).map(|right| right.user.as_str());
    assert_eq!(in_force.collect::<Vec<_>>(), ["alice", "bob"], "theirs by their groups, as before");
}

#[test]
fn the_second_binding_of_a_grant_for_the_cluster_is_no_right_of_its_own() {
    let mut case = case();
    let cluster = the_cluster(&mut case.world);
    bind_in(
        cluster,
        "orion",
        "k8s-admin@hyades",
        ("ClusterRole", "k8s-admin@hyades:namespaces"),
        [Subject::User("stockade:alice".into())],
    );
    let second: &mut Rbac<_> = cluster.bindings.get_mut(&("orion".into(), "k8s-admin@hyades".into())).unwrap();
    mark(second);
    second.is.subjects.insert(Subject::User("stockade:carol".into()));
    assert_eq!(case.told(), ["alice hyades ", "bob hyades/taurus dormant", "carol hyades/orion leftover"]);
}

#[test]
fn a_cluster_that_is_away_is_not_known() {
    let mut case = case();
    case.world.clusters.insert("hyades".into(), Seen::Away("connection refused".into()));
    assert_eq!(case.told(), ["alice hyades unknown", "bob hyades/taurus unknown"]);
}

#[test]
fn where_eks_is_not_asked_users_have_their_own_names() {
    let mut case = case();
    let cluster = the_cluster(&mut case.world);
    cluster.mode = Mode::Impersonated;
    cluster.entries.clear();
    let binding = cluster.cluster_bindings.get_mut("k8s-admin@hyades").unwrap();
    binding.is.subjects = [Subject::User("alice".into())].into();
    assert_eq!(case.told(), ["alice hyades ", "bob hyades/taurus pending"]);
}

//! Worlds made by hand.

mod explain;
mod hostile;
mod levels;
mod lint;
mod planned;
mod review;
mod rights;

use std::collections::BTreeSet;

use crate::access::change::{Cause, Change, Object, Target};
use crate::access::names::Grant;
use crate::access::world::*;

/// group (`-`: core), resource, `n`amespaced or `c`luster, verbs.
const SERVED: &str = include_str!("tests/served.txt");

pub(super) fn served() -> Vec<Served> {
    let mut served: Vec<Served> = SERVED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let [group, resource, scope, verbs] = line.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
            let group = if group == "-" { "" } else { group };
            let verbs = match verbs {
                "all" => "create,delete,deletecollection,get,list,patch,update,watch",
                verbs => verbs,
            };
            Served { group: group.into(), resource: resource.into(), namespaced: scope == "n", verbs: words(verbs) }
        })
        .collect();
    served.sort();
    served
}

fn words(text: &str) -> BTreeSet<String> {
    text.split(',').map(str::to_owned).collect()
}

/// A cluster of EKS without any RBAC.
pub(super) fn hyades() -> Cluster {
    let names = ["kube-system", "orion", "perseus", "taurus"];
    Cluster {
        mode: Mode::Entries,
        place: "111122223333 eu-central-1".into(),
        namespaces: names.iter().map(|name| ((*name).to_owned(), Namespace::default())).collect(),
        served: served(),
        stale: BTreeSet::new(),
        cluster_roles: Default::default(),
        roles: Default::default(),
        cluster_bindings: Default::default(),
        bindings: Default::default(),
        entries: Default::default(),
        crowded: BTreeSet::new(),
        aws_auth: AwsAuth::default(),
    }
}

/// Commas between the members of each.
pub(super) fn rule(verbs: &str, groups: &str, resources: &str) -> Rule {
    Rule { verbs: words(verbs), groups: words(groups), resources: words(resources), ..Rule::default() }
}

pub(super) fn rule_for<const N: usize>(rule: Rule, names: [&str; N]) -> Rule {
    Rule { names: names.into_iter().map(str::to_owned).collect(), ..rule }
}

pub(super) fn role<const N: usize>(cluster: &mut Cluster, name: &str, rules: [Rule; N]) {
    let is = Rules { rules: rules.into(), aggregated: false };
    cluster.cluster_roles.insert(name.into(), Rbac { is, ..Rbac::default() });
}

pub(super) fn bind<const N: usize>(cluster: &mut Cluster, name: &str, role: &str, subjects: [Subject; N]) {
    let is = Binding { role: ("ClusterRole".into(), role.into()), subjects: subjects.into() };
    cluster.cluster_bindings.insert(name.into(), Rbac { is, ..Rbac::default() });
}

pub(super) fn bind_in<const N: usize>(
    cluster: &mut Cluster,
    namespace: &str,
    name: &str,
    (kind, role): (&str, &str),
    subjects: [Subject; N],
) {
    let is = Binding { role: (kind.into(), role.into()), subjects: subjects.into() };
    cluster.bindings.insert((namespace.into(), name.into()), Rbac { is, ..Rbac::default() });
}

pub(super) fn grant(level: &str, cluster: &str, namespace: Option<&str>) -> Grant {
    Grant { level: level.into(), cluster: cluster.into(), namespace: namespace.map(str::to_owned) }
}

pub(super) const DAY: i64 = 86_400;
/// 2026-11-21
pub(super) const NOW: i64 = 1_795_219_200;

/// alice is admin of hyades, bob user of its namespace taurus: everything is as it should be. Roles and entries are a
/// year old, bindings a month, and alice's role was used yesterday.
pub(super) fn stars() -> (World, Members) {
    let mut cluster = hyades();
    let mut directory = Directory { account: "111122223333".into(), ..Directory::default() };
    let mut members = Members::new();
    for (user, grant) in [("alice", grant("admin", "hyades", None)), ("bob", grant("user", "hyades", Some("taurus")))] {
        let name = grant.to_string();
        members.insert(grant.clone(), [user.to_owned()].into());
        let group = Group { path: "/stockade/".into(), members: [user.to_owned()].into(), created: NOW - 400 * DAY };
        directory.groups.insert(name.clone(), group);
        directory.users.insert(user.into(), User::default());
        let tags: std::collections::BTreeMap<_, _> = [(MARK.to_owned(), user.to_owned())].into();
        let used = (user == "alice").then_some(NOW - DAY);
        let role = Role { tags: tags.clone(), created: NOW - 365 * DAY, last_used: used, ..Role::default() };
        directory.roles.insert(format!("kube-{user}"), role);
        let entry = Entry {
            username: format!("stockade:{user}"),
            groups: [format!("stockade:{name}")].into(),
            tags,
            kind: "STANDARD".into(),
            created: NOW - 365 * DAY,
            policies: BTreeSet::new(),
        };
        cluster.entries.insert(format!("arn:aws:iam::111122223333:role/bastion/kube-{user}"), entry);
        let subjects = [Subject::User(format!("stockade:{user}"))];
        match &grant.namespace {
            None => {
                role_of(&mut cluster, &name);
                bind(&mut cluster, &name, &name, subjects);
                mark(cluster.cluster_bindings.get_mut(&name).unwrap());
            }
            Some(namespace) => {
                let key = (namespace.clone(), name.clone());
                let rules = Rules { rules: vec![rule("get", "", "pods")], aggregated: false };
                let mut role = Rbac { is: rules, ..Rbac::default() };
                mark(&mut role);
                cluster.roles.insert(key.clone(), role);
                bind_in(&mut cluster, namespace, &name, ("Role", &name), subjects);
                mark(cluster.bindings.get_mut(&key).unwrap());
            }
        }
    }
    let clusters = [("hyades".to_owned(), Seen::Read(Box::new(cluster)))].into();
    (World { directory, clusters }, members)
}

fn role_of(cluster: &mut Cluster, name: &str) {
    role(cluster, name, [rule("*", "*", "*")]);
    mark(cluster.cluster_roles.get_mut(name).unwrap());
}

pub(super) fn mark<T>(object: &mut Rbac<T>) {
    object.labels.insert(LABEL.into(), LABELLED.into());
    object.created = NOW - 30 * DAY;
}

/// The one cluster of `stars`.
pub(super) fn the_cluster(world: &mut World) -> &mut Cluster {
    match world.clusters.get_mut("hyades").unwrap() {
        Seen::Read(cluster) => cluster,
        Seen::Away(why) => panic!("{why}"),
    }
}

/// A change of a plan, as far as a report looks at it.
pub(super) fn change(target: Target, user: Option<&str>, was: bool, shall_be: bool, cause: Cause) -> Change {
    let object = |there: bool| there.then_some(Object::Group);
    let user = user.map(str::to_owned);
    Change { target, was: object(was), shall_be: object(shall_be), version: String::new(), user, cause }
}

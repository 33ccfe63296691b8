//! Random states of IAM and of clusters, with what people and others leave in them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::worlds::{ACCOUNT, PATH, cluster, served, terms_of, user};
use crate::access::world::{
    Binding, Cluster, Directory, Entry, Group, LABEL, LABELLED, MARK, Mode, Namespace, Quotas, Rbac, Role, Rule, Rules,
    Seen, Subject, User, World,
};
use crate::config::Terms;

const USERS: &[&str] = &["alice", "bob", "carol", "carol-kube", "b", "-x"];
const CLUSTERS: &[&str] = &["hyades", "Hyades", "pleiades", "lab"];
const NAMESPACES: &[&str] = &["default", "kube-system", "taurus", "admin"];

fn name() -> impl Strategy<Value = String> {
    let level = select(vec!["admin", "poweruser", "user", "root"]);
    let place = select(vec!["hyades", "hyades", "pleiades", "lab", "nosuch", "Hyades"]);
    let namespace = select(vec!["", "", "@taurus", "@default", "@kube-system", "@gone"]);
    let odd = select(vec!["ops", "k8s-admin@", "K8S-Admin@hyades", "k8s-ü@hyades", "k8s-user@a@b@c"]);
    prop_oneof![
        9 => (level, place, namespace).prop_map(|(level, place, namespace)| format!("k8s-{level}@{place}{namespace}")),
        1 => odd.prop_map(str::to_owned),
    ]
}

fn users() -> impl Strategy<Value = BTreeSet<String>> {
    subsequence(USERS.to_vec(), 0..=USERS.len()).prop_map(|all| all.into_iter().map(str::to_owned).collect())
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![5 => Just(PATH.to_owned()), 1 => Just("/".to_owned()), 1 => Just("/stockade/more/".to_owned())]
}

fn role() -> impl Strategy<Value = Role> {
    let path = select(vec!["/bastion/", "/bastion/", "/"]);
    let mark = prop_oneof![Just(None), select(USERS.to_vec()).prop_map(Some)];
    let attached = btree_set(Just("arn:aws:iam::aws:policy/AdministratorAccess".to_owned()), 0..2);
    (path, mark, attached, any::<bool>()).prop_map(|(path, mark, attached, open)| Role {
        path: path.into(),
        trust: if open { serde_json::json!({ "Principal": "*" }) } else { serde_json::Value::Null },
        attached,
        tags: mark.into_iter().map(|user| (MARK.to_owned(), user.to_owned())).collect(),
        ..Role::default()
    })
}

pub(super) fn directory() -> impl Strategy<Value = Directory> {
    let group = (path(), users()).prop_map(|(path, members)| Group { path, members, created: 1 });
    let role_name = select(vec!["alice", "alice-kube", "ALICE-kube", "bob", "bob-kube", "carol-kube", "Administrator"]);
    let tags = btree_map(Just("stockade:groups".to_owned()), vec(name(), 0..3).prop_map(|all| all.join(" ")), 0..2);
    let user = tags.prop_map(|tags| User { tags, ..User::default() });
    let quota = prop_oneof![3 => Just(None), 1 => (0..40_u32).prop_map(Some)];
    let users = btree_map(select(USERS.to_vec()).prop_map(str::to_owned), user, 1..=USERS.len());
    let roles = btree_map(role_name.prop_map(str::to_owned), role(), 0..4);
    (btree_map(name(), group, 0..10), users, roles, quota.clone(), quota).prop_map(
        |(mut groups, users, mut roles, most_groups, most_roles)| {
            // As IAM: no two names that differ in case alone, and no members that are not there.
            let mut seen = BTreeSet::new();
            groups.retain(|name, _| seen.insert(name.to_ascii_lowercase()));
            let mut seen = BTreeSet::new();
            roles.retain(|name, _| seen.insert(name.to_ascii_lowercase()));
            groups.values_mut().for_each(|group| group.members.retain(|user| users.contains_key(user)));
            let quotas = Quotas { groups: most_groups, roles: most_roles, groups_per_user: Some(10) };
            Directory { account: ACCOUNT.into(), groups, users, roles, quotas }
        },
    )
}

fn rbac<T: std::fmt::Debug + Clone + 'static>(is: impl Strategy<Value = T> + 'static) -> BoxedStrategy<Rbac<T>> {
    let aggregate = ("rbac.authorization.k8s.io/aggregate-to-view".to_owned(), "true".to_owned());
    let labels = (any::<bool>(), prop::bool::weighted(0.2)).prop_map(move |(ours, aggregated)| {
        let mark = ours.then(|| (LABEL.to_owned(), LABELLED.to_owned()));
        mark.into_iter().chain(aggregated.then(|| aggregate.clone())).collect::<BTreeMap<_, _>>()
    });
    let made = (is, labels, 1..9_u8).prop_map(|(is, labels, version)| Rbac {
        is,
        labels,
        created: 1,
        version: version.to_string(),
    });
    made.boxed()
}

fn rules() -> impl Strategy<Value = Rules> {
    let words = |all: &[&str]| {
        let all: Vec<String> = all.iter().map(|word| (*word).to_owned()).collect();
        btree_set(select(all), 1..3)
    };
    let rule = (words(&["get", "list", "*"]), words(&["", "apps", "*"]), words(&["pods", "secrets", "*"]));
    let rule = rule.prop_map(|(verbs, groups, resources)| Rule { verbs, groups, resources, ..Rule::default() });
    (vec(rule, 0..3), prop::bool::weighted(0.1)).prop_map(|(rules, aggregated)| Rules { rules, aggregated })
}

fn binding() -> impl Strategy<Value = Binding> {
    let subject = prop_oneof![
        4 => select(USERS.to_vec()).prop_map(user),
        1 => select(USERS.to_vec()).prop_map(|user| Subject::User(user.to_owned())),
        1 => Just(Subject::Group("system:masters".to_owned())),
        1 => Just(Subject::ServiceAccount("default".to_owned(), "robot".to_owned())),
    ];
    let role = prop_oneof![
        name().prop_map(|name| ("ClusterRole".to_owned(), name)),
        name().prop_map(|name| ("Role".to_owned(), name)),
        Just(("ClusterRole".to_owned(), "cluster-admin".to_owned())),
    ];
    (role, btree_set(subject, 0..4)).prop_map(|(role, subjects)| Binding { role, subjects })
}

fn entry() -> impl Strategy<Value = Entry> {
    let username = select(vec!["stockade:alice", "stockade:bob", "admin"]);
    let mark = prop_oneof![Just(None), select(USERS.to_vec()).prop_map(Some)];
    let kind = select(vec!["STANDARD", "EC2_LINUX"]);
    let groups = btree_set(name().prop_map(|name| format!("stockade:{name}")), 0..3);
    (username, mark, kind, groups).prop_map(|(username, mark, kind, groups)| Entry {
        username: username.into(),
        groups,
        tags: mark.into_iter().map(|user| (MARK.to_owned(), user.to_owned())).collect(),
        kind: kind.into(),
        ..Entry::default()
    })
}

fn arn() -> impl Strategy<Value = String> {
    let name = select(vec!["alice-kube", "bob-kube", "carol-kube", "nodes"]);
    (name, any::<bool>()).prop_map(|(name, path)| {
        let path = if path { "bastion/" } else { "" };
        format!("arn:aws:iam::{ACCOUNT}:role/{path}{name}")
    })
}

pub(super) fn map_roles() -> impl Strategy<Value = Option<String>> {
    let username = select(vec!["stockade:alice", "stockade:bob", "admin"]);
    let row = (arn(), username)
        .prop_map(|(arn, username)| format!("- rolearn: {arn}\n  username: {username}\n  groups: ['system:nodes']\n"));
    prop_oneof![
        1 => Just(None),
        1 => Just(Some("rows: {".to_owned())),
        6 => vec(row, 0..4).prop_map(|rows| Some(rows.concat())),
    ]
}

fn cluster_of(mode: Mode) -> impl Strategy<Value = Cluster> {
    let space = (prop::bool::weighted(0.1), any::<bool>()).prop_map(|(terminating, label)| Namespace {
        labels: label.then(|| ("stockade/access".to_owned(), "yes".to_owned())).into_iter().collect(),
        created: 1,
        terminating,
    });
    let inside = || (select(NAMESPACES.to_vec()).prop_map(str::to_owned), name());
    let spaces = btree_map(select(NAMESPACES.to_vec()).prop_map(str::to_owned), space, 0..=NAMESPACES.len());
    let names = || prop_oneof![4 => name(), 1 => name().prop_map(|name| format!("{name}:namespaces"))];
    (
        (spaces, subsequence(served(), 0..=served().len())),
        btree_map(names(), rbac(rules()), 0..4),
        btree_map(inside(), rbac(rules()), 0..4),
        btree_map(name(), rbac(binding()), 0..4),
        btree_map(inside(), rbac(binding()), 0..4),
        (btree_map(arn(), entry(), 0..4), map_roles()),
    )
        .prop_map(
            move |((namespaces, served), cluster_roles, mut roles, cluster_bindings, mut bindings, (entries, map))| {
                roles.retain(|(namespace, _), _| namespaces.contains_key(namespace));
                bindings.retain(|(namespace, _), _| namespaces.contains_key(namespace));
                let mut made = cluster(mode, []);
                (made.namespaces, made.served) = (namespaces, served);
                (made.cluster_roles, made.roles) = (cluster_roles, roles);
                (made.cluster_bindings, made.bindings) = (cluster_bindings, bindings);
                match mode {
                    Mode::Entries => made.entries = entries,
                    Mode::Both => (made.entries, made.aws_auth.map_roles) = (entries, map),
                    Mode::AwsAuth => made.aws_auth.map_roles = map,
                    Mode::Impersonated => {}
                }
                made
            },
        )
}

pub(super) fn world() -> impl Strategy<Value = World> {
    let mode = |name: &str| match name {
        "pleiades" => Mode::AwsAuth,
        "lab" => Mode::Impersonated,
        "Hyades" => Mode::Entries,
        _ => Mode::Both,
    };
    let seen = |name: &'static str| {
        let cluster = cluster_of(mode(name)).prop_map(|cluster| Seen::Read(Box::new(cluster)));
        let away = Just(Seen::Away("connection refused".to_owned()));
        prop_oneof![8 => cluster, 1 => away].prop_map(move |seen| (name.to_owned(), seen))
    };
    let clusters = CLUSTERS.iter().map(|name| proptest::option::weighted(0.7, seen(name))).collect::<Vec<_>>();
    (directory(), clusters)
        .prop_map(|(directory, clusters)| World { directory, clusters: clusters.into_iter().flatten().collect() })
}

pub(super) fn any_terms() -> impl Strategy<Value = Terms> {
    let members = select(vec!["", "members = 'tags'"]);
    let spaces = select(vec!["", "namespaces = 'labelled'", "skip_namespaces = ['kube-*', 'taurus']"]);
    let rest = select(vec!["", "grace = '0s'", "boundary = 'arn:aws:iam::123456789012:policy/edge'"]);
    let level =
        "[[rbac.level]]\nname = 'user'\nallow = [{ resources = ['pods', '*.apps'], verbs = ['get', 'list'] }]\n";
    let level = select(vec!["", level]);
    let kube = select(vec!["", "kube_role = 'same'"]);
    (kube, members, spaces, rest, level).prop_map(|(kube, members, spaces, rest, level)| {
        terms_of(kube, &format!("{members}\n{spaces}\n{rest}\n{level}"))
    })
}

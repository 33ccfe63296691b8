//! Small worlds, and a hand that carries plans out in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::access::change::Change;
use crate::access::plan::{Plan, plan};
use crate::access::simulated::Simulated;
use crate::access::world::{
    AwsAuth, Binding, Cluster, Directory, Group, Mode, Namespace, Quotas, Rbac, Rules, Seen, Served, Subject, User,
    World,
};
use crate::config::{Host, Terms, check_access};

pub(super) const ACCOUNT: &str = "123456789012";
pub(super) const PATH: &str = "/stockade/";
pub(super) const NOW: i64 = 1_800_000_000;

fn none(path: &Path) -> Result<String, String> {
    Err(format!("no {} here", path.display()))
}

fn no_secret(path: &Path) -> Result<zeroize::Zeroizing<String>, String> {
    none(path).map(zeroize::Zeroizing::new)
}

const BOUNDARY: &str = "boundary = 'arn:aws:iam::123456789012:policy/stockade-boundary'";

/// Of a file with these lines in `[rbac]`.
pub(super) fn terms(rbac: &str) -> Terms {
    terms_of("", rbac)
}

pub(super) fn terms_of(kube: &str, rbac: &str) -> Terms {
    let bounded = if rbac.contains("boundary") { "" } else { BOUNDARY };
    let source = format!(
        "[aws]\nregion = 'us-east-1'\nrole = 'arn:aws:iam::{ACCOUNT}:role/bastion/{{user}}'\n[kube]\n{kube}\n\
         [rbac]\nbastion = ['arn:aws:iam::{ACCOUNT}:role/stockade']\n\
         {bounded}\n{rbac}\n"
    );
    checked(&source)
}

/// Without AWS: `[users] groups` says who is in.
pub(super) fn terms_of_file(groups: &str, rbac: &str) -> Terms {
    checked(&format!("[users]\ngroups = {groups}\n[rbac]\n{rbac}\n"))
}

fn checked(source: &str) -> Terms {
    let host = Host { passwd: "", subuid: "", subgid: "", read: &none, secret: &no_secret };
    check_access(source, &host).unwrap_or_else(|all| panic!("{all:?}"))
}

pub(super) fn set<const N: usize>(items: [&str; N]) -> BTreeSet<String> {
    items.into_iter().map(str::to_owned).collect()
}

/// Users and no groups.
pub(super) fn directory<const N: usize>(users: [&str; N]) -> Directory {
    Directory {
        account: ACCOUNT.into(),
        users: users.into_iter().map(|user| (user.to_owned(), User::default())).collect(),
        quotas: Quotas { groups: Some(300), roles: Some(1000), groups_per_user: Some(10) },
        ..Directory::default()
    }
}

pub(in crate::access) fn cluster<const N: usize>(mode: Mode, namespaces: [&str; N]) -> Cluster {
    Cluster {
        mode,
        place: format!("{ACCOUNT} us-east-1"),
        namespaces: namespaces.into_iter().map(|name| (name.to_owned(), Namespace::default())).collect(),
        served: served(),
        stale: BTreeSet::new(),
        cluster_roles: BTreeMap::new(),
        roles: BTreeMap::new(),
        cluster_bindings: BTreeMap::new(),
        bindings: BTreeMap::new(),
        entries: BTreeMap::new(),
        crowded: BTreeSet::new(),
        aws_auth: AwsAuth::default(),
    }
}

/// hyades with three namespaces; alice and bob are in IAM.
pub(super) fn hyades() -> World {
    let cluster = cluster(Mode::Entries, ["default", "kube-system", "taurus"]);
    World { directory: directory(["alice", "bob"]), clusters: [("hyades".into(), Seen::Read(cluster.into()))].into() }
}

pub(super) fn served() -> Vec<Served> {
    let one = |(group, resource, namespaced, verbs): &(&str, &str, bool, &str)| Served {
        group: (*group).into(),
        resource: (*resource).into(),
        namespaced: *namespaced,
        verbs: verbs.split(' ').map(str::to_owned).collect(),
    };
    const ALL: &str = "create delete deletecollection get list patch update watch";
    let rows = [
        ("", "configmaps", true, ALL),
        ("", "namespaces", false, ALL),
        ("", "nodes", false, ALL),
        ("", "nodes/proxy", false, "create delete get patch update"),
        ("", "nodes/status", false, "get patch update"),
        ("", "persistentvolumes", false, ALL),
        ("", "pods", true, ALL),
        ("", "pods/attach", true, "create get"),
        ("", "pods/ephemeralcontainers", true, "get patch update"),
        ("", "pods/eviction", true, "create"),
        ("", "pods/exec", true, "create get"),
        ("", "pods/log", true, "get"),
        ("", "pods/portforward", true, "create get"),
        ("", "pods/proxy", true, "create delete get patch update"),
        ("", "pods/status", true, "get patch update"),
        ("", "secrets", true, ALL),
        ("", "serviceaccounts", true, ALL),
        ("", "serviceaccounts/token", true, "create"),
        ("", "services", true, ALL),
        ("", "services/proxy", true, "create delete get patch update"),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false, ALL),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies", false, ALL),
        ("apiregistration.k8s.io", "apiservices", false, ALL),
        ("apps", "deployments", true, ALL),
        ("apps", "deployments/scale", true, "get patch update"),
        ("apps", "deployments/status", true, "get patch update"),
        ("astro.example.com", "stars", true, ALL),
        ("astro.example.com", "galaxies", false, ALL),
        ("authentication.k8s.io", "tokenreviews", false, "create"),
        ("certificates.k8s.io", "certificatesigningrequests", false, ALL),
        ("certificates.k8s.io", "certificatesigningrequests/approval", false, "get patch update"),
        ("metrics.k8s.io", "pods", true, "get list"),
        ("rbac.authorization.k8s.io", "clusterrolebindings", false, ALL),
        ("rbac.authorization.k8s.io", "clusterroles", false, ALL),
        ("rbac.authorization.k8s.io", "rolebindings", true, ALL),
        ("rbac.authorization.k8s.io", "roles", true, ALL),
        ("subresources.kubevirt.io", "virtualmachineinstances/console", true, "get"),
    ];
    let mut served: Vec<Served> = rows.iter().map(one).collect();
    served.sort();
    served
}

/// Puts users into a group of IAM, which is made if it is not there.
pub(super) fn join(world: &mut World, group: &str, users: &[&str]) {
    let fresh = || Group { path: PATH.into(), created: 1, ..Group::default() };
    let group = world.directory.groups.entry(group.into()).or_insert_with(fresh);
    group.members.extend(users.iter().map(|user| (*user).to_owned()));
}

pub(super) fn leave(world: &mut World, group: &str, user: &str) {
    world.directory.groups.get_mut(group).unwrap().members.remove(user);
}

pub(super) fn read<'w>(world: &'w World, name: &str) -> &'w Cluster {
    match &world.clusters[name] {
        Seen::Read(cluster) => cluster,
        Seen::Away(why) => panic!("{name} is away: {why}"),
    }
}

pub(super) fn read_mut<'w>(world: &'w mut World, name: &str) -> &'w mut Cluster {
    match world.clusters.get_mut(name).unwrap() {
        Seen::Read(cluster) => cluster,
        Seen::Away(why) => panic!("{name} is away: {why}"),
    }
}

pub(super) fn planned(world: &World, terms: &Terms) -> Plan {
    plan(world, terms, &BTreeMap::new(), NOW)
}

pub(super) fn lines(plan: &Plan) -> Vec<String> {
    let sign = |change: &Change| match (&change.was, &change.shall_be) {
        (None, _) => '+',
        (_, None) => '-',
        _ => '~',
    };
    plan.changes.iter().map(|change| format!("{} {}", sign(change), change.target)).collect()
}

pub(super) fn problems(plan: &Plan) -> Vec<String> {
    plan.problems.iter().map(|problem| format!("{}: {}", problem.subject, problem.what)).collect()
}

/// Carries out what is planned; the world after it, which has nothing left to do.
#[track_caller]
pub(super) fn settled(world: World, terms: &Terms) -> World {
    let simulated = Simulated::new(world, PATH);
    let plan = planned(&simulated.world(), terms);
    for change in &plan.changes {
        simulated.carry_out_now(change).unwrap_or_else(|fault| panic!("{fault}\n{change:?}"));
    }
    let after = simulated.world();
    assert_eq!(lines(&planned(&after, terms)), Vec::<String>::new());
    after
}

pub(super) fn user(name: &str) -> Subject {
    Subject::User(format!("stockade:{name}"))
}

/// What somebody else made.
pub(super) fn foreign<T>(is: T) -> Rbac<T> {
    Rbac { is, labels: BTreeMap::new(), created: 1, version: "7".into() }
}

pub(super) fn everything() -> Rules {
    let star = || set(["*"]);
    let rule = crate::access::world::Rule { verbs: star(), groups: star(), resources: star(), ..Default::default() };
    Rules { rules: vec![rule], aggregated: false }
}

pub(super) fn bound(role: &str, subjects: &[Subject]) -> Binding {
    Binding { role: ("ClusterRole".into(), role.into()), subjects: subjects.iter().cloned().collect() }
}

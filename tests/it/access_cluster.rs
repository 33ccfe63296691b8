//! What access asks and tells API servers: real ones, that other tests use at the same time, so all names here are its
//! own and go at the end.

mod eks;
mod faults;
mod objects;
mod spaces;
mod turns;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stockade::access::aws::Aws;
use stockade::access::change::{Cause, Change, Object, Target};
use stockade::access::eks::Entries;
use stockade::access::fleet::Fleet;
use stockade::access::seam::{Fault, Fleet as _};
use stockade::access::world::{Binding, Cluster as World, Entry, LABEL, LABELLED, Mode, Rbac, Rule, Rules, Subject};
use stockade::config::rbac::{MembersFrom, Namespaces, Rbac as Terms};
use stockade::config::{Discover, Kube, KubeconfigEntry, StaticCluster, StaticWay};
use stockade::warden::authority::Surroundings;

use crate::aws::control;
use crate::yard::{Cluster, Clusters, Plugin, until};

/// The name of a cluster of the file in these tests.
const TAURUS: &str = "taurus";

/// A namespace that goes with the test.
struct Space {
    cluster: Cluster,
    name: String,
}

impl Space {
    fn new(cluster: Cluster, name: &str) -> Self {
        cluster.as_admin(&["create", "namespace", name]);
        Self { cluster, name: name.to_owned() }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        drop(self.cluster.kubectl(&self.cluster.admin(), &["delete", "ns", &self.name, "--wait=false"]).output());
    }
}

/// Objects of no namespace that go with the test.
struct Litter(Cluster, Vec<String>);

impl Drop for Litter {
    fn drop(&mut self) {
        for object in &self.1 {
            let line = ["delete", object, "--ignore-not-found", "--wait=false"];
            drop(self.0.kubectl(&self.0.admin(), &line).output());
        }
    }
}

pub fn terms(kubeconfig: Option<PathBuf>, lease_namespace: &str) -> Terms {
    Terms {
        levels: Vec::new(),
        skip_namespaces: Vec::new(),
        namespaces: Namespaces::All,
        group_path: "/stockade/".into(),
        username: "stockade:{user}".into(),
        bastion: Vec::new(),
        boundary: None,
        role_tags: Default::default(),
        role_policy: Value::Null,
        members: MembersFrom::Iam,
        most_removed: 20,
        grace: Duration::ZERO,
        cycle: Duration::from_secs(300),
        queue: None,
        audit: PathBuf::new(),
        state: PathBuf::new(),
        listen: None,
        kubeconfig,
        lease_namespace: lease_namespace.into(),
    }
}

/// `taurus`, which does not know AWS: the admin's certificate opens it.
fn kubeconfig(cluster: Cluster) -> PathBuf {
    let (certificate, key) = cluster.certificate("admin");
    let packed = |path: PathBuf| STANDARD.encode(std::fs::read(path).unwrap());
    let text = format!(
        "clusters: [{{name: c, cluster: {{server: '{}', certificate-authority-data: {}}}}}]\n\
         contexts: [{{name: {TAURUS}, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n",
        cluster.endpoint(),
        packed(cluster.ca()),
        packed(certificate),
        packed(key)
    );
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let file = cluster.path(&format!("access-{}.kubeconfig", NUMBER.fetch_add(1, Ordering::Relaxed)));
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    file
}

fn stated(name: &str, way: StaticWay) -> StaticCluster {
    let labels = Default::default();
    StaticCluster { name: name.into(), labels, endpoint: None, authority: None, server_name: None, way }
}

async fn by_key(cluster: Cluster) -> Fleet {
    let file = KubeconfigEntry { file: "/the/wardens/own".into(), context: None };
    let kube = Kube { clusters: vec![stated(TAURUS, StaticWay::Impersonate(file))], ..Kube::default() };
    let fleet = Fleet::new(&kube, &terms(Some(kubeconfig(cluster)), "default"), None, "a test");
    assert_eq!(fleet.clusters().await.unwrap(), [TAURUS]);
    fleet
}

/// EKS by access's own identity.
async fn entries(clusters: &Clusters) -> Arc<Entries> {
    let text = std::fs::read_to_string(clusters.path("aws/access.env")).unwrap();
    let value = |name: &str| {
        let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        text.lines().find(of).unwrap().split_once('=').unwrap().1.to_owned()
    };
    let keys = Credentials::new(value("AWS_ACCESS_KEY_ID"), value("AWS_SECRET_ACCESS_KEY"), None, None, "bed");
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(value("AWS_ENDPOINT_URL"))
        .credentials_provider(keys)
        .http_client(Surroundings::default().http_client().unwrap())
        .load()
        .await;
    Arc::new(Entries::new(Aws::new(config)))
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn rules(verb: &str) -> Rules {
    let rule = Rule { verbs: set([verb]), groups: set([""]), resources: set(["pods"]), ..Rule::default() };
    Rules { rules: vec![rule], aggregated: false }
}

fn binding(role: &str, users: &[&str]) -> Binding {
    let subjects = users.iter().map(|user| Subject::User(format!("stockade:{user}"))).collect();
    Binding { role: ("ClusterRole".into(), role.into()), subjects }
}

fn change(target: &Target, was: Option<Object>, shall_be: Option<Object>, version: &str) -> Change {
    Change { target: target.clone(), was, shall_be, version: version.into(), user: None, cause: Cause::Configured }
}

/// An object of RBAC as it was read.
fn seen(world: &World, target: &Target) -> Option<(Object, bool, String)> {
    fn rules(rbac: &Rbac<Rules>) -> (Object, bool, String) {
        (Object::Rules(rbac.is.clone()), rbac.is_ours(), rbac.version.clone())
    }
    fn binding(rbac: &Rbac<Binding>) -> (Object, bool, String) {
        (Object::Binding(rbac.is.clone()), rbac.is_ours(), rbac.version.clone())
    }
    match target {
        Target::ClusterRole { name, .. } => world.cluster_roles.get(name).map(rules),
        Target::Role { namespace, name, .. } => world.roles.get(&(namespace.clone(), name.clone())).map(rules),
        Target::ClusterRoleBinding { name, .. } => world.cluster_bindings.get(name).map(binding),
        Target::RoleBinding { namespace, name, .. } => {
            world.bindings.get(&(namespace.clone(), name.clone())).map(binding)
        }
        _ => None,
    }
}

fn kind(target: &Target) -> (&'static str, &str, &str) {
    match target {
        Target::ClusterRole { name, .. } => ("clusterrole", "", name),
        Target::Role { namespace, name, .. } => ("role", namespace, name),
        Target::ClusterRoleBinding { name, .. } => ("clusterrolebinding", "", name),
        Target::RoleBinding { namespace, name, .. } => ("rolebinding", namespace, name),
        _ => panic!("{target} is not RBAC"),
    }
}

/// kubectl on the object of a target.
fn by_hand(cluster: Cluster, verb: &str, target: &Target, more: &[&str]) -> String {
    let (kind, namespace, name) = kind(target);
    let object = format!("{kind}/{name}");
    let mut line = vec![verb, object.as_str()];
    if !namespace.is_empty() {
        line.extend(["-n", namespace]);
    }
    line.extend(more);
    cluster.as_admin(&line)
}

/// One of each kind, with what it is first and what it is changed to.
fn one_of_each(name: &str, namespace: &str) -> [(Target, Object, Object); 4] {
    let (cluster, name, namespace) = (TAURUS.to_owned(), name.to_owned(), namespace.to_owned());
    let roles = (Object::Rules(rules("get")), Object::Rules(rules("list")));
    let bindings = (Object::Binding(binding("view", &["alice"])), Object::Binding(binding("view", &["alice", "bob"])));
    let named = |target: Target, (was, is): (Object, Object)| (target, was, is);
    [
        named(Target::ClusterRole { cluster: cluster.clone(), name: name.clone() }, roles.clone()),
        named(Target::Role { cluster: cluster.clone(), namespace: namespace.clone(), name: name.clone() }, roles),
        named(Target::RoleBinding { cluster: cluster.clone(), namespace, name: name.clone() }, bindings.clone()),
        named(Target::ClusterRoleBinding { cluster, name }, bindings),
    ]
}

#[tokio::test]
async fn a_cluster_of_the_file_is_read_whole() {
    let hyades = Clusters::start().hyades();
    let space = Space::new(hyades, "access-whole");
    hyades.as_admin(&["label", "ns", &space.name, "stockade/access=yes"]);
    hyades.as_admin(&[
        "-n",
        &space.name,
        "create",
        "rolebinding",
        "theirs",
        "--clusterrole=view",
        "--serviceaccount=a:b",
    ]);
    let fleet = by_key(hyades).await;
    let names = || -> BTreeSet<String> {
        hyades.as_admin(&["get", "clusterroles", "-o", "name"]).lines().map(str::to_owned).collect()
    };
    let before = names();
    let world = fleet.read(TAURUS).await.unwrap();
    let after = names();
    let read = world.cluster_roles.keys().map(|name| format!("clusterrole.rbac.authorization.k8s.io/{name}")).collect();
    assert!(before.intersection(&after).cloned().collect::<BTreeSet<_>>().is_subset(&read));
    assert_eq!((world.mode, world.place.as_str()), (Mode::Impersonated, hyades.endpoint()));

    let namespace = &world.namespaces[&space.name];
    assert_eq!(namespace.labels["stockade/access"], "yes");
    assert!(namespace.created > 1_700_000_000 && !namespace.terminating, "{namespace:?}");
    let theirs = &world.bindings[&(space.name.clone(), "theirs".to_owned())];
    assert_eq!(theirs.is.role, ("ClusterRole".into(), "view".into()));
    assert_eq!(theirs.is.subjects, [Subject::ServiceAccount("a".into(), "b".into())].into());
    assert!(!theirs.is_ours() && !theirs.version.is_empty() && theirs.created > 0, "{theirs:?}");
    assert!(world.cluster_roles["admin"].is.aggregated);
    let admins = &world.cluster_bindings["cluster-admin"].is;
    assert!(admins.subjects.contains(&Subject::Group("system:masters".into())), "{admins:?}");
    assert!(!world.roles.is_empty());

    assert!(world.served.is_sorted());
    let served = |group: &str, resource: &str| world.served.iter().find(|s| s.group == group && s.resource == resource);
    assert!(served("", "pods").unwrap().namespaced && !served("", "nodes").unwrap().namespaced);
    assert!(served("", "pods/exec").unwrap().verbs.is_superset(&set(["create", "get"])));
    assert!(served("apps", "deployments/scale").is_some() && served("", "serviceaccounts/token").is_some());
    // Other tests make roles, too: a page of them is a request more.
    let least = 7 + u64::try_from(world.roles.len() / 500).unwrap();
    assert!(fleet.calls() <= least, "{} requests", fleet.calls());
}

/// "CRDs and aggregated APIs covered (discovery, not a fixed list)"
#[tokio::test]
async fn custom_and_aggregated_apis_are_found() {
    let hyades = Clusters::start().hyades();
    let space = Space::new(hyades, "access-aggregated");
    let away = faults::Server::start(hyades);
    let litter = ["apiservice/v1.aggregated.test", "crd/ponds.custom.test"].map(str::to_owned);
    let _litter = Litter(hyades, litter.into());
    hyades.apply(&format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: ponds.custom.test}}\n\
         spec:\n  group: custom.test\n  scope: Cluster\n  names: {{plural: ponds, singular: pond, kind: Pond}}\n  \
         versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object}}}}, \
         subresources: {{status: {{}}}}}}]\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: away, namespace: {space}}}\n\
         spec: {{type: ExternalName, externalName: localhost, ports: [{{port: {port}}}]}}\n---\n\
         apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {{name: v1.aggregated.test}}\n\
         spec: {{group: aggregated.test, version: v1, groupPriorityMinimum: 100, versionPriority: 1, \
         insecureSkipTLSVerify: true, service: {{name: away, namespace: {space}, port: {port}}}}}\n",
        space = space.name,
        port = away.port
    ));
    hyades.as_admin(&["wait", "--for=condition=Established", "crd/ponds.custom.test", "--timeout", "20s"]);
    hyades.as_admin(&["wait", "--for=condition=Available", "apiservice/v1.aggregated.test", "--timeout", "20s"]);
    let fleet = by_key(hyades).await;
    let wanted = [("custom.test", "ponds"), ("custom.test", "ponds/status"), ("aggregated.test", "lakes")];
    let mut found = 0;
    for _ in 0..200 {
        let world = fleet.read(TAURUS).await.unwrap();
        found = wanted.iter().filter(|(g, r)| world.served.iter().any(|s| s.group == *g && s.resource == *r)).count();
        if found == wanted.len() {
            let lakes = world.served.iter().find(|served| served.resource == "lakes").unwrap();
            assert!(lakes.namespaced && lakes.verbs == set(["drain", "get"]), "{lakes:?}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(found, wanted.len());
}

/// More than one page: API servers cut lists, and a half of a cluster is no cluster.
#[tokio::test]
async fn a_list_of_many_pages_is_read_to_its_end() {
    const MANY: usize = 520;
    let hyades = Clusters::start().hyades();
    let space = Space::new(hyades, "access-pages");
    let fleet = Arc::new(by_key(hyades).await);
    let mut made = tokio::task::JoinSet::new();
    for number in 0..MANY {
        let (fleet, namespace) = (fleet.clone(), space.name.clone());
        made.spawn(async move {
            let target = Target::Role { cluster: TAURUS.into(), namespace, name: format!("r{number}") };
            fleet.carry_out(TAURUS, &change(&target, None, Some(Object::Rules(rules("get"))), "")).await
        });
    }
    while let Some(made) = made.join_next().await {
        made.unwrap().unwrap();
    }
    let world = fleet.read(TAURUS).await.unwrap();
    assert_eq!(world.roles.keys().filter(|(namespace, _)| *namespace == space.name).count(), MANY);
}

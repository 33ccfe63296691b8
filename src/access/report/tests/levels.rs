//! The table that real API servers are asked as well: `tests/it/access_levels.txt`.

use super::{bind, bind_in, hyades, mark, served};
use crate::access::level::{in_cluster, in_namespace};
use crate::access::report::evaluate::{Identity, may};
use crate::access::report::question::{Place, Question, What, parse};
use crate::access::world::{Cluster, Rbac, Rules, Subject};
use crate::config::rbac::{Level, built_in};

const TABLE: &str = include_str!("../../../../tests/it/access_levels.txt");

/// Everybody in it is called like the level that they have.
fn cluster() -> Cluster {
    let mut cluster = hyades();
    for level in built_in() {
        whole(&mut cluster, &level);
        let name = format!("k8s-{}@hyades@taurus", level.name);
        let rules = in_namespace(&level, &served());
        cluster.roles.insert(("taurus".into(), name.clone()), object(rules));
        let user = Subject::User(format!("{}@taurus", level.name));
        bind_in(&mut cluster, "taurus", &name, ("Role", &name), [user]);
    }
    cluster
}

fn whole(cluster: &mut Cluster, level: &Level) {
    let name = format!("k8s-{}@hyades", level.name);
    let user = || [Subject::User(level.name.clone())];
    let expanded = in_cluster(level, &served());
    cluster.cluster_roles.insert(name.clone(), object(expanded.everywhere));
    bind(cluster, &name, &name, user());
    if let Some(rules) = expanded.namespaces {
        let second = format!("{name}:namespaces");
        cluster.cluster_roles.insert(second.clone(), object(rules));
        for namespace in ["orion", "perseus", "taurus"] {
            bind_in(cluster, namespace, &name, ("ClusterRole", &second), user());
        }
    }
}

fn object(rules: Rules) -> Rbac<Rules> {
    let mut role = Rbac { is: rules, ..Rbac::default() };
    mark(&mut role);
    role
}

/// As a SubjectAccessReview asks it, whatever the cluster serves.
fn question(verb: &str, resource: &str, namespace: &str) -> Question {
    let verb = verb.to_owned();
    if resource.starts_with('/') {
        return Question { verb, what: What::Url(resource.into()) };
    }
    let (resource, name) = match resource.split_once('=') {
        Some((resource, name)) => (resource, Some(name.to_owned())),
        None => (resource, None),
    };
    let (group, resource) = parse(resource).unwrap();
    let place = if namespace == "-" { Place::Cluster } else { Place::Namespace(namespace.into()) };
    Question { verb, what: What::Resource { group: group.unwrap_or_default(), resource, place, name } }
}

#[test]
fn the_built_in_levels_allow_what_the_table_says() {
    let cluster = cluster();
    let mut wrong = Vec::new();
    let mut rows = 0;
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [level, verb, resource, namespace, expected] =
            line.split_whitespace().collect::<Vec<_>>().try_into().unwrap();
        assert!(matches!(expected, "yes" | "no"), "{line}");
        let says = may(&cluster, &Identity::user(level, []), &question(verb, resource, namespace));
        if says != (expected == "yes") {
            wrong.push(line);
        }
        rows += 1;
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(rows > 500, "{rows}");
}

/// A row that is not served is one that no level could be wrong about.
#[test]
fn the_table_speaks_of_what_is_served() {
    let odd = ["users", "groups", "uids", "userextras/scopes", "signers", "*"];
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let What::Resource { group, resource, .. } = question(words[1], words[2], words[3]).what else { continue };
        let is_served = served().iter().any(|served| served.group == group && served.resource == resource);
        assert!(is_served || odd.contains(&resource.as_str()), "{line}");
    }
}

//! Who may do something on a cluster: by which binding, by which group, and which person that is.

use std::collections::BTreeSet;

use serde::Serialize;

use super::evaluate::{Fit, Identity, MASTERS, Way, fit, ways};
use super::is_ours;
use super::lint::said;
use super::mapped::{Mapped, People, mapped};
use super::question::Question;
use super::sheet::Sheet;
use crate::access::world::{Cluster, Directory, Rule, Subject};

/// One way in which somebody may.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Who {
    /// The person of IAM, where the name on the cluster is one's.
    pub user: Option<String>,
    /// As the binding says it: `User stockade:alice`.
    pub subject: String,
    /// `None`: everywhere.
    pub namespace: Option<String>,
    /// `ClusterRoleBinding k8s-admin@hyades`
    pub binding: String,
    pub role: String,
    /// The IAM group that it follows from.
    pub group: Option<String>,
    /// Objects of these names alone; empty: of any.
    pub only: BTreeSet<String>,
    /// Made by stockade.
    pub ours: bool,
}

/// Everybody who may, as far as RBAC and EKS say; `username` is the template of users' names on clusters of EKS.
pub fn who_can(cluster: &Cluster, directory: &Directory, username: &str, question: &Question) -> Vec<Who> {
    let mapped = mapped(cluster, directory);
    let people = People::of(cluster, &mapped, username);
    let mut found: BTreeSet<Who> = BTreeSet::new();
    for way in ways(cluster, question) {
        for subject in &way.binding.is.subjects {
            found.extend(expand(&way, subject, &people, directory));
        }
    }
    found.extend(masters(&mapped));
    found.extend(mapped.iter().flat_map(|one| policies(cluster, one, question)));
    found.into_iter().collect()
}

/// The subject itself, and the people in it if it is a group.
fn expand(way: &Way<'_>, subject: &Subject, people: &People, directory: &Directory) -> Vec<Who> {
    let ours = is_ours(way.name, way.binding);
    let who = |user: Option<String>| Who {
        user,
        subject: said(&local(subject, way.namespace)),
        namespace: way.namespace.map(str::to_owned),
        binding: match way.namespace {
            Some(namespace) => format!("RoleBinding {namespace}/{}", way.name),
            None => format!("ClusterRoleBinding {}", way.name),
        },
        role: format!("{} {}", way.binding.is.role.0, way.binding.is.role.1),
        group: ours.then(|| way.name.to_owned()),
        only: way.only.cloned().unwrap_or_default(),
        ours,
    };
    match subject {
        Subject::User(name) => vec![who(people.user(name, |user| directory.users.contains_key(user)))],
        Subject::ServiceAccount(..) => vec![who(None)],
        Subject::Group(group) => {
            let members = people.members(group).map(|user| who(Some(user.to_owned())));
            [who(None)].into_iter().chain(members).collect()
        }
    }
}

/// An account without a namespace is of the binding's.
fn local(subject: &Subject, namespace: Option<&str>) -> Subject {
    match (subject, namespace) {
        (Subject::ServiceAccount(of, name), Some(namespace)) if of.is_empty() => {
            Subject::ServiceAccount(namespace.to_owned(), name.clone())
        }
        (subject, _) => subject.clone(),
    }
}

/// No authorizer is asked about these, so they stand in every answer.
fn masters(mapped: &[Mapped]) -> Vec<Who> {
    let who = |user: Option<String>, subject: String| Who {
        user,
        subject,
        namespace: None,
        binding: "none is asked for".into(),
        role: "everything".into(),
        group: None,
        only: BTreeSet::new(),
        ours: false,
    };
    let inside = mapped.iter().filter(|one| one.groups.contains(MASTERS));
    let inside = inside.map(|one| who(one.user.clone(), format!("Group {MASTERS}, as {}", one.principal)));
    [who(None, format!("Group {MASTERS}"))].into_iter().chain(inside).collect()
}

/// EKS's access policies are an authorizer of its own, beside RBAC; how far one reaches (the cluster or some namespaces)
/// is not in what is read, so the answer is that it may be.
fn policies(cluster: &Cluster, one: &Mapped, question: &Question) -> Vec<Who> {
    let says = |arn: &&String| allows(cluster, arn, question);
    let who = |arn: &String| Who {
        user: one.user.clone(),
        subject: one.principal.clone(),
        namespace: None,
        binding: "access entry, if its scope reaches that far".into(),
        role: format!("EKS access policy {}", arn.rsplit('/').next().unwrap_or(arn)),
        group: None,
        only: BTreeSet::new(),
        ours: false,
    };
    one.policies.iter().filter(says).map(who).collect()
}

/// By the ClusterRoles of Kubernetes that AWS's are modelled after; one that is not known may allow anything.
fn allows(cluster: &Cluster, arn: &str, question: &Question) -> bool {
    let like = |name: &str| {
        let rules = cluster.cluster_roles.get(name).map(|role| role.is.rules.as_slice());
        rules.is_none_or(|rules| rules.iter().any(|rule| fit(rule, question) != Fit::No))
    };
    match arn.rsplit('/').next().unwrap_or_default() {
        "AmazonEKSAdminPolicy" => like("admin"),
        "AmazonEKSEditPolicy" => like("edit"),
        "AmazonEKSViewPolicy" => like("view"),
        "AmazonEKSAdminViewPolicy" => {
            let all = || ["*".to_owned()].into();
            let verbs = ["get", "list", "watch"].map(str::to_owned).into();
            fit(&Rule { verbs, groups: all(), resources: all(), urls: all(), ..Rule::default() }, question) != Fit::No
        }
        _ => true,
    }
}

/// What one user may, for the table of levels and for `who-can --user`.
pub fn identity(cluster: &Cluster, directory: &Directory, username: &str, user: &str) -> Identity {
    let mapped = mapped(cluster, directory);
    let groups = mapped.iter().filter(|one| one.user.as_deref() == Some(user)).flat_map(|one| one.groups.clone());
    Identity::user(People::of(cluster, &mapped, username).name(user), groups)
}

/// The answer as rows.
pub fn sheet(found: &[Who]) -> Sheet {
    let row = |who: &Who| {
        let only: Vec<&str> = who.only.iter().map(String::as_str).collect();
        vec![
            who.user.clone().unwrap_or_default(),
            who.subject.clone(),
            who.namespace.clone().unwrap_or_else(|| "everywhere".into()),
            who.group.clone().unwrap_or_default(),
            who.binding.clone(),
            who.role.clone(),
            only.join(" "),
        ]
    };
    Sheet {
        head: vec!["user", "subject", "where", "group", "binding", "role", "only named"],
        rows: found.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::report::question::{Words, read};
    use crate::access::report::tests::{bind, bind_in, role, rule, rule_for, stars, the_cluster};
    use crate::access::world::World;

    fn ask(world: &mut World, verb: &str, resource: &str, namespace: Option<&str>) -> Vec<Who> {
        let directory = world.directory.clone();
        let cluster = the_cluster(world);
        let (question, _) = read(cluster, Words { verb, resource, namespace, name: None }).unwrap();
        who_can(cluster, &directory, "stockade:{user}", &question)
    }

    fn users(found: &[Who]) -> Vec<&str> {
        found.iter().filter_map(|who| who.user.as_deref()).collect()
    }

    #[test]
    fn users_come_with_their_group_and_binding() {
        let (mut world, _) = stars();
        let found = ask(&mut world, "get", "pods", Some("taurus"));
        assert_eq!(users(&found), ["alice", "bob"]);
        let bob = found.iter().find(|who| who.user.as_deref() == Some("bob")).unwrap();
        assert_eq!(bob.group.as_deref(), Some("k8s-user@hyades@taurus"));
        assert_eq!(bob.binding, "RoleBinding taurus/k8s-user@hyades@taurus");
        assert_eq!(bob.subject, "User stockade:bob");
        assert_eq!(users(&ask(&mut world, "get", "pods", Some("perseus"))), ["alice"]);
        assert_eq!(users(&ask(&mut world, "delete", "nodes", None)), ["alice"]);
        // Without a namespace whoever may somewhere is told.
        assert_eq!(users(&ask(&mut world, "get", "pods", None)), ["alice", "bob"]);
    }

    #[test]
    fn foreign_bindings_count() {
        let (mut world, _) = stars();
        let cluster = the_cluster(&mut world);
        role(cluster, "exec", [rule("create", "", "pods/exec")]);
        role(cluster, "one-secret", [rule_for(rule("get", "", "secrets"), ["one"])]);
        // The groups of an access entry are for bindings that admins make.
        bind(cluster, "own", "exec", [Subject::Group("stockade:k8s-user@hyades@taurus".into())]);
        bind(
            cluster,
            "by-hand",
            "exec",
            [Subject::User("stockade:carol".into()), Subject::User("kubernetes-admin".into())],
        );
        bind_in(
            cluster,
            "orion",
            "ci",
            ("ClusterRole", "one-secret"),
            [Subject::ServiceAccount("".into(), "ci".into())],
        );
        let found = ask(&mut world, "create", "pods/exec", Some("orion"));
        assert_eq!(users(&found), ["alice", "bob", "carol"]);
        let subjects: Vec<&str> =
            found.iter().filter(|who| who.user.is_none()).map(|who| who.subject.as_str()).collect();
        assert_eq!(
            subjects,
            ["Group stockade:k8s-user@hyades@taurus", "Group system:masters", "User kubernetes-admin"]
        );
        assert!(found.iter().all(|who| who.ours == (who.group.is_some())));
        let found = ask(&mut world, "get", "secrets", None);
        let ci = found.iter().find(|who| who.subject == "ServiceAccount orion/ci").unwrap();
        assert_eq!((ci.only.first().map(String::as_str), ci.namespace.as_deref()), (Some("one"), Some("orion")));
    }

    #[test]
    fn what_eks_allows_past_rbac_is_told() {
        let (mut world, _) = stars();
        let cluster = the_cluster(&mut world);
        role(cluster, "view", [rule("get,list,watch", "", "pods")]);
        let bob = cluster.entries.get_mut("arn:aws:iam::111122223333:role/bastion/kube-bob").unwrap();
        bob.policies.insert("arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy".into());
        bob.groups.insert(MASTERS.into());
        let found = ask(&mut world, "delete", "pods", Some("orion"));
        let bob: Vec<&Who> = found.iter().filter(|who| who.user.as_deref() == Some("bob")).collect();
        assert_eq!(bob.len(), 1);
        assert!(bob[0].subject.starts_with("Group system:masters, as arn:"), "{bob:?}");
        let found = ask(&mut world, "get", "pods", Some("orion"));
        assert!(found.iter().any(|who| who.role == "EKS access policy AmazonEKSViewPolicy"));
        for (policy, verb, resource, yes) in [
            ("AmazonEKSClusterAdminPolicy", "delete", "/metrics", true),
            ("AmazonEKSAdminViewPolicy", "get", "secrets", true),
            ("AmazonEKSAdminViewPolicy", "delete", "secrets", false),
            ("SomethingNew", "delete", "secrets", true),
        ] {
            let cluster = the_cluster(&mut world);
            let (question, _) = read(cluster, Words { verb, resource, ..Words::default() }).unwrap();
            assert_eq!(allows(cluster, &format!("arn:aws:eks::aws:cluster-access-policy/{policy}"), &question), yes);
        }
    }
}

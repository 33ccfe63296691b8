//! Kubernetes' RBAC authorizer over values: every ClusterRole, Role and binding of a cluster, ours or not.

use std::collections::BTreeSet;

use super::question::{Place, Question, What};
use crate::access::world::{Binding, Cluster, Rbac, Rule, Rules, Subject};

/// The group that no authorizer is asked about.
pub const MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";

/// Who asks, as the API server sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub groups: BTreeSet<String>,
}

impl Identity {
    /// Somebody who has logged in.
    pub fn user(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let groups = groups.into_iter().chain([AUTHENTICATED.to_owned()]).collect();
        Self { name: name.into(), groups }
    }

    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        Self::user(account(namespace, name), groups)
    }

    fn is(&self, subject: &Subject, namespace: Option<&str>) -> bool {
        match subject {
            Subject::User(name) => self.name == *name,
            Subject::Group(name) => self.groups.contains(name),
            // Without a namespace of its own it is the binding's.
            Subject::ServiceAccount(of, name) => match (of.as_str(), namespace) {
                ("", None) => false,
                ("", Some(of)) => self.name == account(of, name),
                (of, _) => self.name == account(of, name),
            },
        }
    }
}

fn account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// A binding whose role says yes.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    pub name: &'a str,
    /// `None`: a ClusterRoleBinding.
    pub namespace: Option<&'a str>,
    pub binding: &'a Rbac<Binding>,
    pub role: &'a Rbac<Rules>,
    /// Only for objects of these names.
    pub only: Option<&'a BTreeSet<String>>,
}

/// How far a rule goes towards a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit<'a> {
    No,
    /// Only for objects of these names, and the question names none.
    Named(&'a BTreeSet<String>),
    Yes,
}

/// Whether the API server would say yes.
pub fn may(cluster: &Cluster, who: &Identity, question: &Question) -> bool {
    who.groups.contains(MASTERS)
        || ways(cluster, question).any(|way| {
            way.only.is_none() && way.binding.is.subjects.iter().any(|subject| who.is(subject, way.namespace))
        })
}

/// Every binding that answers the question, whoever is in it.
pub fn ways<'a>(cluster: &'a Cluster, question: &'a Question) -> impl Iterator<Item = Way<'a>> {
    let everywhere = cluster.cluster_bindings.iter().map(|(name, binding)| (None, name, binding));
    let inside = cluster.bindings.iter().filter(|((namespace, _), _)| reaches(question, namespace));
    let inside = inside.map(|((namespace, name), binding)| (Some(namespace.as_str()), name, binding));
    everywhere.chain(inside).filter_map(|(namespace, name, binding)| {
        let role = role(cluster, namespace, &binding.is)?;
        match role.is.rules.iter().map(|rule| fit(rule, question)).fold(Fit::No, best) {
            Fit::No => None,
            Fit::Yes => Some(Way { name, namespace, binding, role, only: None }),
            Fit::Named(only) => Some(Way { name, namespace, binding, role, only: Some(only) }),
        }
    })
}

fn best<'a>(one: Fit<'a>, other: Fit<'a>) -> Fit<'a> {
    match (one, other) {
        (Fit::Yes, _) | (_, Fit::Yes) => Fit::Yes,
        (Fit::No, other) => other,
        (one, _) => one,
    }
}

/// A RoleBinding gives nothing outside of its namespace.
fn reaches(question: &Question, namespace: &str) -> bool {
    match &question.what {
        What::Resource { place: Place::Namespace(asked), .. } => asked == namespace,
        What::Resource { place: Place::Anywhere, .. } => true,
        What::Resource { place: Place::Cluster, .. } | What::Url(_) => false,
    }
}

/// The role that a binding names, if it is there.
pub fn role<'a>(cluster: &'a Cluster, namespace: Option<&str>, binding: &Binding) -> Option<&'a Rbac<Rules>> {
    let (kind, name) = (binding.role.0.as_str(), &binding.role.1);
    match (kind, namespace) {
        ("ClusterRole", _) => cluster.cluster_roles.get(name),
        ("Role", Some(namespace)) => cluster.roles.get(&(namespace.to_owned(), name.clone())),
        _ => None,
    }
}

/// As `RuleAllows` of Kubernetes, which knows no other wildcards than these.
pub fn fit<'a>(rule: &'a Rule, question: &Question) -> Fit<'a> {
    let has = |set: &BTreeSet<String>, word: &str| set.contains("*") || set.contains(word);
    if !has(&rule.verbs, &question.verb) {
        return Fit::No;
    }
    let (group, resource, name) = match &question.what {
        What::Url(path) => return if rule.urls.iter().any(|url| covers(url, path)) { Fit::Yes } else { Fit::No },
        What::Resource { group, resource, name, .. } => (group, resource, name),
    };
    let below = resource.split_once('/').is_some_and(|(_, below)| rule.resources.contains(&format!("*/{below}")));
    if !has(&rule.groups, group) || !(has(&rule.resources, resource) || below) {
        return Fit::No;
    }
    match name {
        _ if rule.names.is_empty() => Fit::Yes,
        Some(name) if rule.names.contains(name) => Fit::Yes,
        Some(_) => Fit::No,
        // What is being created has no name yet, so such a rule never allows it.
        None if question.verb == "create" && !resource.contains('/') => Fit::No,
        None => Fit::Named(&rule.names),
    }
}

fn covers(url: &str, path: &str) -> bool {
    url == path || url.ends_with('*') && path.starts_with(url.trim_end_matches('*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::report::question::{Words, read};
    use crate::access::report::tests::{bind, bind_in, hyades, role as make, rule, rule_for};

    fn says(cluster: &Cluster, who: &Identity, verb: &str, resource: &str, namespace: Option<&str>) -> bool {
        says_named(cluster, who, verb, resource, namespace, None)
    }

    /// Without a namespace: in all of them.
    fn says_named(
        cluster: &Cluster,
        who: &Identity,
        verb: &str,
        resource: &str,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> bool {
        let (mut question, _) = read(cluster, Words { verb, resource, namespace, name }).unwrap();
        if let What::Resource { place, .. } = &mut question.what
            && *place == Place::Anywhere
        {
            *place = Place::Cluster;
        }
        may(cluster, who, &question)
    }

    fn alice() -> Identity {
        Identity::user("alice", [])
    }

    /// A cluster in which alice has this one rule everywhere.
    fn with(rule: Rule) -> Cluster {
        let mut cluster = hyades();
        make(&mut cluster, "r", [rule]);
        bind(&mut cluster, "b", "r", [Subject::User("alice".into())]);
        cluster
    }

    #[test]
    fn verbs_groups_and_resources_match_exactly_or_by_star() {
        let cluster = with(rule("get", "apps", "deployments"));
        assert!(says(&cluster, &alice(), "get", "deployments.apps", Some("taurus")));
        assert!(says(&cluster, &alice(), "get", "deployments.apps", None));
        assert!(!says(&cluster, &alice(), "list", "deployments.apps", Some("taurus")));
        assert!(!says(&cluster, &alice(), "get", "deployments.apps/scale", Some("taurus")));
        assert!(!says(&cluster, &alice(), "get", "pods", Some("taurus")));
        assert!(!says(&cluster, &Identity::user("bob", []), "get", "deployments.apps", Some("taurus")));
        let cluster = with(rule("*", "*", "*"));
        for (verb, resource) in [("get", "pods/exec"), ("escalate", "clusterroles"), ("create", "nodes/proxy")] {
            assert!(says(&cluster, &alice(), verb, resource, None), "{verb} {resource}");
        }
    }

    #[test]
    fn a_star_before_a_subresource_is_any_and_one_behind_is_none() {
        let cluster = with(rule("update", "*", "*/scale"));
        assert!(says(&cluster, &alice(), "update", "deployments.apps/scale", None));
        assert!(!says(&cluster, &alice(), "update", "deployments.apps", None));
        let cluster = with(rule("create", "", "pods/*"));
        assert!(!says(&cluster, &alice(), "create", "pods/exec", Some("taurus")));
    }

    #[test]
    fn names_hold_only_for_whoever_names() {
        let cluster = with(rule_for(rule("get,create,delete", "", "configmaps"), ["one"]));
        let named = |verb, name| says_named(&cluster, &alice(), verb, "configmaps", Some("taurus"), name);
        assert!(named("get", Some("one")));
        assert!(!named("get", Some("other")));
        assert!(!named("get", None));
        let (question, _) =
            read(&cluster, Words { verb: "create", resource: "configmaps", namespace: None, name: None }).unwrap();
        assert_eq!(ways(&cluster, &question).count(), 0);
        let (question, _) =
            read(&cluster, Words { verb: "delete", resource: "configmaps", namespace: None, name: None }).unwrap();
        assert_eq!(ways(&cluster, &question).next().unwrap().only.unwrap().len(), 1);
    }

    #[test]
    fn paths_match_by_their_beginning_and_only_for_the_whole_cluster() {
        let paths = |urls: &str| Rule {
            verbs: ["get".to_owned()].into(),
            urls: urls.split(',').map(str::to_owned).collect(),
            ..Rule::default()
        };
        let cluster = with(paths("/healthz,/apis/*"));
        for (path, yes) in
            [("/healthz", true), ("/healthz/etcd", false), ("/apis/apps", true), ("/apis", false), ("/metrics", false)]
        {
            assert_eq!(says(&cluster, &alice(), "get", path, None), yes, "{path}");
        }
        assert!(says(&with(paths("*")), &alice(), "get", "/metrics", None));
        let mut cluster = hyades();
        make(&mut cluster, "r", [paths("*")]);
        bind_in(&mut cluster, "taurus", "b", ("ClusterRole", "r"), [Subject::User("alice".into())]);
        assert!(!says(&cluster, &alice(), "get", "/metrics", None));
        // A rule for resources says nothing of paths.
        assert!(!says(&with(rule("*", "*", "*")), &alice(), "get", "/metrics", None));
    }

    #[test]
    fn a_role_binding_stays_in_its_namespace() {
        let mut cluster = hyades();
        make(&mut cluster, "all", [rule("*", "*", "*")]);
        bind_in(&mut cluster, "taurus", "b", ("ClusterRole", "all"), [Subject::User("alice".into())]);
        assert!(says(&cluster, &alice(), "get", "pods", Some("taurus")));
        assert!(!says(&cluster, &alice(), "get", "pods", Some("perseus")));
        assert!(!says(&cluster, &alice(), "get", "pods", None));
        assert!(!says(&cluster, &alice(), "get", "nodes", Some("taurus")));
        // The namespace itself counts as being in itself.
        assert!(says(&cluster, &alice(), "delete", "namespaces", Some("taurus")));
        assert!(!says(&cluster, &alice(), "delete", "namespaces", None));
    }

    #[test]
    fn a_role_that_is_not_there_gives_nothing() {
        let mut cluster = hyades();
        bind(&mut cluster, "b", "nosuch", [Subject::User("alice".into())]);
        bind_in(&mut cluster, "taurus", "b", ("Role", "elsewhere"), [Subject::User("alice".into())]);
        let rules = Rules { rules: vec![rule("*", "*", "*")], aggregated: false };
        cluster.roles.insert(("perseus".into(), "elsewhere".into()), Rbac { is: rules, ..Rbac::default() });
        assert!(!says(&cluster, &alice(), "get", "pods", Some("taurus")));
    }

    #[test]
    fn groups_and_service_accounts() {
        let mut cluster = hyades();
        make(&mut cluster, "r", [rule("get", "", "pods")]);
        let everybody = Subject::Group(AUTHENTICATED.into());
        bind_in(&mut cluster, "taurus", "any", ("ClusterRole", "r"), [everybody]);
        bind_in(
            &mut cluster,
            "perseus",
            "own",
            ("ClusterRole", "r"),
            [Subject::ServiceAccount("".into(), "ci".into())],
        );
        let all = Subject::Group("system:serviceaccounts:perseus".into());
        bind_in(&mut cluster, "orion", "all", ("ClusterRole", "r"), [all]);
        let account = Identity::service_account("perseus", "ci");
        for namespace in ["taurus", "perseus", "orion"] {
            assert!(says(&cluster, &account, "get", "pods", Some(namespace)), "{namespace}");
        }
        assert!(!says(&cluster, &Identity::service_account("taurus", "ci"), "get", "pods", Some("perseus")));
        let anonymous = Identity { name: ANONYMOUS.into(), groups: [UNAUTHENTICATED.to_owned()].into() };
        assert!(!says(&cluster, &anonymous, "get", "pods", Some("taurus")));
        // A user may call themselves like an account's subject, and is none.
        assert!(!says(&cluster, &Identity::user("ci", []), "get", "pods", Some("perseus")));
        assert!(says(&cluster, &Identity::user("root", [MASTERS.to_owned()]), "delete", "nodes", None));
    }
}

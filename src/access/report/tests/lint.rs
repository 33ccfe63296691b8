//! What others left open.

use super::{bind, bind_in, hyades, mark, role as make, rule, rule_for};
use crate::access::report::evaluate::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};
use crate::access::report::lint::{everywhere, lint, text};
use crate::access::world::{Rbac, Rule, Rules, Seen, Subject, World};

const RBAC: &str = "rbac.authorization.k8s.io";

/// What is found in a role of one rule.
fn found(rule: Rule) -> Vec<String> {
    let mut cluster = hyades();
    make(&mut cluster, "foreign", [rule]);
    lint(&cluster).into_iter().map(|finding| finding.what).collect()
}

#[test]
fn each_way_round_is_found() {
    for (given, expected) in [
        (rule("get", "", "pods/exec"), "get pods/exec without create"),
        (rule("get,create", "", "pods/exec"), "get, create pods/exec"),
        (rule("create", "", "*/exec"), "create pods/exec without get"),
        (rule("get", "", "pods/attach"), "get pods/attach without create"),
        (rule("get", "", "pods/portforward"), "get pods/portforward without create"),
        (rule("get", "", "nodes/proxy"), "get nodes/proxy"),
        (rule_for(rule("create", "", "nodes/proxy"), ["node-0"]), "create nodes/proxy"),
        (rule("escalate", RBAC, "roles"), "escalate roles"),
        (rule("bind", RBAC, "clusterroles,roles"), "bind clusterroles, roles"),
        (rule_for(rule("impersonate", "", "users"), ["carol"]), "impersonate users"),
        (rule("create", "", "serviceaccounts/token"), "create serviceaccounts/token"),
        (rule("get,list,watch", "", "secrets"), "list, watch secrets"),
        (rule("*", "apps", "deployments"), "all verbs on deployments.apps"),
        (rule("*", "*", "*"), "everything"),
    ] {
        assert_eq!(found(given), [expected]);
    }
}

#[test]
fn a_star_for_resources_is_all_of_it() {
    let what = found(rule("get,list,watch", "*", "*"));
    let expected = [
        "get nodes/proxy",
        "get pods/attach without create",
        "get pods/exec without create",
        "get pods/portforward without create",
        "list, watch secrets",
    ];
    assert_eq!(what, expected);
}

#[test]
fn what_is_harmless_is_not_found() {
    for given in [
        rule("get,list,watch", "", "pods,pods/log,configmaps"),
        rule("create", "", "pods/portforward"),
        rule("get", "", "secrets"),
        rule_for(rule("get,list", "", "secrets"), ["one"]),
        rule("create", "", "serviceaccounts"),
        rule("get", "", "nodes/metrics"),
    ] {
        assert_eq!(found(given.clone()), Vec::<String>::new(), "{given:?}");
    }
}

#[test]
fn ours_and_the_built_in_ones_are_known() {
    let mut cluster = hyades();
    for name in ["system:kubelet-api-admin", "cluster-admin", "system:forged"] {
        make(&mut cluster, name, [rule("*", "*", "*")]);
    }
    for name in ["k8s-admin@hyades", "k8s-admin@hyades:namespaces", "labelled-like-ours"] {
        make(&mut cluster, name, [rule("*", "*", "*")]);
        mark(cluster.cluster_roles.get_mut(name).unwrap());
    }
    let rules = Rules { rules: vec![rule("*", "*", "*")], aggregated: false };
    let forged = Rbac { is: rules, ..Rbac::default() };
    cluster.roles.insert(("taurus".into(), "system:controller:token-cleaner".into()), forged.clone());
    cluster.roles.insert(("kube-system".into(), "system:controller:token-cleaner".into()), forged);
    let objects: Vec<String> = lint(&cluster).into_iter().map(|finding| finding.object).collect();
    // A name like Kubernetes' and a label like ours hide nothing.
    assert_eq!(
        objects,
        ["ClusterRole labelled-like-ours", "ClusterRole system:forged", "Role taurus/system:controller:token-cleaner"]
    );
}

#[test]
fn who_has_it_is_said() {
    let mut cluster = hyades();
    make(&mut cluster, "reader", [rule("list", "", "secrets")]);
    bind(&mut cluster, "one", "reader", [Subject::Group("ops".into())]);
    let account = Subject::ServiceAccount("taurus".into(), "ci".into());
    bind_in(&mut cluster, "taurus", "two", ("ClusterRole", "reader"), [account]);
    assert_eq!(lint(&cluster)[0].bound, ["Group ops", "ServiceAccount taurus/ci in taurus"]);
    let clusters = [("hyades".to_owned(), Seen::Read(Box::new(cluster)))].into();
    let world = World { clusters, ..World::default() };
    let text = text(&everywhere(&world));
    assert!(text.contains("hyades: ClusterRole reader: list secrets; bound to Group ops, Serv"), "{text}");
}

#[test]
fn what_everybody_has_beyond_discovery() {
    let paths = |urls: &[&str], verb: &str| Rule {
        verbs: [verb.to_owned()].into(),
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
        ..Rule::default()
    };
    let found = |rule: Rule, subject: Subject| {
        let mut cluster = hyades();
        make(&mut cluster, "r", [rule]);
        bind(&mut cluster, "open", "r", [subject]);
        lint(&cluster).into_iter().filter(|finding| finding.object == "ClusterRoleBinding open").count()
    };
    let group = |name: &str| Subject::Group(name.into());
    let anonymous = || Subject::User(ANONYMOUS.into());
    assert_eq!(found(paths(&["/healthz", "/apis/*", "/version/"], "get"), anonymous()), 0);
    assert_eq!(found(rule("create", "authorization.k8s.io", "selfsubjectaccessreviews"), group(AUTHENTICATED)), 0);
    assert_eq!(found(paths(&["/metrics"], "get"), group(UNAUTHENTICATED)), 1);
    assert_eq!(found(paths(&["/api"], "post"), anonymous()), 1);
    assert_eq!(found(paths(&["*"], "get"), anonymous()), 1);
    assert_eq!(found(rule("get", "", "configmaps"), group("system:serviceaccounts")), 1);
    assert_eq!(found(rule("create", "authorization.k8s.io", "subjectaccessreviews"), group(AUTHENTICATED)), 1);
    assert_eq!(found(rule("get", "", "configmaps"), group("ops")), 0);
}

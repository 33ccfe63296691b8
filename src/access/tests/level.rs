use super::worlds::{served, set};
use crate::access::level::{in_cluster, in_namespace};
use crate::access::world::{Rules, Served};
use crate::config::rbac::{Allow, Level, System, built_in};
use crate::identity::Pattern;

/// What RBAC's authorizer would say.
fn allows(rules: &Rules, verb: &str, resource: &str) -> bool {
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let has = |set: &std::collections::BTreeSet<String>, word: &str| set.contains("*") || set.contains(word);
    rules.rules.iter().any(|rule| has(&rule.verbs, verb) && has(&rule.groups, group) && has(&rule.resources, resource))
}

fn level(name: &str) -> Level {
    built_in().into_iter().find(|level| level.name == name).unwrap()
}

/// `verb resource`, and whether it is allowed in a skipped namespace (or outside of them) and in another one.
#[track_caller]
fn table(level: &Level, rows: &[(&str, &str, bool, bool)]) {
    let expanded = in_cluster(level, &served());
    for (verb, resource, everywhere, elsewhere) in rows {
        let said = allows(&expanded.everywhere, verb, resource);
        assert_eq!(said, *everywhere, "{} {verb} {resource} in kube-system", level.name);
        let inner = expanded.namespaces.as_ref().is_some_and(|rules| allows(rules, verb, resource));
        assert_eq!(said || inner, *elsewhere, "{} {verb} {resource} in another namespace", level.name);
    }
}

#[test]
fn an_admin_may_do_everything_everywhere() {
    let expanded = in_cluster(&level("admin"), &served());
    assert_eq!(expanded.namespaces, None);
    assert_eq!(expanded.everywhere.rules.len(), 2);
    for (verb, resource) in
        [("escalate", "clusterroles.rbac.authorization.k8s.io"), ("get", "nodes/proxy"), ("x", "y.z")]
    {
        assert!(allows(&expanded.everywhere, verb, resource));
    }
}

#[test]
fn a_power_user_may_do_everything_but_climb() {
    table(
        &level("poweruser"),
        &[
            ("get", "pods", true, true),
            ("create", "pods", false, true),
            ("delete", "deployments.apps", false, true),
            ("patch", "deployments/scale.apps", false, true),
            ("create", "pods/exec", false, true),
            ("get", "pods/exec", false, true),
            ("create", "pods/portforward", false, true),
            ("get", "pods/log", true, true),
            ("get", "secrets", false, true),
            ("list", "secrets", false, true),
            ("update", "configmaps", false, true),
            ("get", "services/proxy", false, true),
            ("create", "namespaces", true, true),
            ("update", "nodes", true, true),
            ("create", "stars.astro.example.com", false, true),
            ("delete", "galaxies.astro.example.com", true, true),
            ("get", "pods.metrics.k8s.io", true, true),
            ("get", "virtualmachineinstances/console.subresources.kubevirt.io", false, true),
            // The ways up.
            ("get", "clusterroles.rbac.authorization.k8s.io", true, true),
            ("create", "clusterroles.rbac.authorization.k8s.io", false, false),
            ("update", "clusterroles.rbac.authorization.k8s.io", false, false),
            ("escalate", "clusterroles.rbac.authorization.k8s.io", false, false),
            ("bind", "clusterroles.rbac.authorization.k8s.io", false, false),
            ("create", "rolebindings.rbac.authorization.k8s.io", false, false),
            ("patch", "roles.rbac.authorization.k8s.io", false, false),
            ("delete", "clusterrolebindings.rbac.authorization.k8s.io", false, false),
            ("create", "serviceaccounts/token", false, false),
            ("impersonate", "serviceaccounts", false, false),
            ("impersonate", "users", false, false),
            ("impersonate", "groups", false, false),
            ("get", "nodes/proxy", false, false),
            ("create", "nodes/proxy", false, false),
            ("create", "certificatesigningrequests.certificates.k8s.io", false, false),
            ("update", "certificatesigningrequests/approval.certificates.k8s.io", false, false),
            ("approve", "signers.certificates.k8s.io", false, false),
            ("create", "mutatingwebhookconfigurations.admissionregistration.k8s.io", false, false),
            ("delete", "validatingadmissionpolicies.admissionregistration.k8s.io", false, false),
            ("update", "apiservices.apiregistration.k8s.io", false, false),
            ("create", "tokenreviews.authentication.k8s.io", false, false),
        ],
    );
}

#[test]
fn a_user_reads_and_enters_containers_but_not_those_of_the_system() {
    table(
        &level("user"),
        &[
            ("get", "pods", true, true),
            ("watch", "stars.astro.example.com", true, true),
            ("list", "nodes", true, true),
            ("list", "roles.rbac.authorization.k8s.io", true, true),
            ("get", "pods/log", true, true),
            ("get", "deployments/status.apps", true, true),
            ("get", "pods/exec", false, true),
            ("create", "pods/exec", false, true),
            ("get", "pods/attach", false, true),
            ("create", "pods/attach", false, true),
            ("get", "pods/portforward", false, true),
            ("create", "pods/portforward", false, true),
            ("get", "secrets", false, false),
            ("list", "secrets", false, false),
            ("watch", "secrets", false, false),
            ("create", "pods", false, false),
            ("delete", "pods", false, false),
            ("patch", "deployments/scale.apps", false, false),
            ("update", "pods/ephemeralcontainers", false, false),
            ("get", "nodes/proxy", false, false),
            ("get", "services/proxy", false, false),
            ("get", "pods/proxy", false, false),
            ("get", "virtualmachineinstances/console.subresources.kubevirt.io", false, false),
            ("create", "serviceaccounts/token", false, false),
            ("create", "stars.astro.example.com", false, false),
        ],
    );
}

#[test]
fn a_role_of_a_namespace_has_nothing_of_the_cluster() {
    let rules = in_namespace(&level("poweruser"), &served());
    assert!(rules.rules.iter().all(|rule| rule.urls.is_empty()), "{rules:?}");
    for (verb, resource, said) in [
        ("create", "pods", true),
        ("get", "secrets", true),
        ("create", "stars.astro.example.com", true),
        ("create", "tomorrow.astro.example.com", true),
        ("create", "nodes", false),
        ("get", "nodes/proxy", false),
        ("create", "namespaces", false),
        ("create", "rolebindings.rbac.authorization.k8s.io", false),
        ("create", "serviceaccounts/token", false),
    ] {
        assert_eq!(allows(&rules, verb, resource), said, "{verb} {resource}");
    }
}

fn custom(resources: &[&str], except: &[&str], verbs: &[&str], system: System) -> Level {
    let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(*text)).collect();
    let verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
    let allow = vec![Allow { resources: patterns(resources), except: patterns(except), verbs }];
    Level { name: "custom".into(), allow, urls: Vec::new(), system }
}

#[test]
fn patterns_speak_of_one_group() {
    let level = custom(&["pods", "*.apps", "*/log.*"], &["deployments/scale.apps"], &["get"], System::Same);
    let rules = in_cluster(&level, &served()).everywhere;
    for (resource, said) in [
        ("pods", true),
        ("pods/log", true),
        ("pods/exec", false),
        ("pods.metrics.k8s.io", false),
        ("deployments.apps", true),
        ("deployments/status.apps", true),
        ("deployments/scale.apps", false),
        ("configmaps", false),
    ] {
        assert_eq!(allows(&rules, "get", resource), said, "{resource}");
    }
    // A group whose name ends alike is another one.
    let mut more = served();
    more.push(Served { group: "evil.apps".into(), resource: "x".into(), namespaced: true, verbs: set(["get"]) });
    assert!(!allows(&in_cluster(&level, &more).everywhere, "get", "x.evil.apps"));
}

#[test]
fn a_star_in_a_served_name_gives_nothing() {
    let mut more = served();
    more.push(Served { group: "*".into(), resource: "x".into(), namespaced: true, verbs: set(["get"]) });
    more.push(Served { group: "evil".into(), resource: "*".into(), namespaced: true, verbs: set(["get"]) });
    let level = custom(&["*"], &["secrets"], &["get"], System::Same);
    assert!(!allows(&in_cluster(&level, &more).everywhere, "get", "secrets"));
}

#[test]
fn an_admin_may_be_kept_out_of_the_system_too() {
    let level = custom(&["*"], &[], &["*"], System::Read);
    table(
        &level,
        &[("delete", "pods", false, true), ("escalate", "clusterroles.rbac.authorization.k8s.io", true, true)],
    );
    let none = custom(&["*"], &[], &["get"], System::None);
    table(&none, &[("get", "pods", false, true), ("get", "nodes", true, true)]);
}

use std::time::Duration;

use super::*;
use crate::config::rbac::{Level, MembersFrom, Namespaces, System};

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().copied().map(Pattern::new).collect()
}

fn rule(groups: &[&str], clusters: &[&str], labels: &[(&str, &str)]) -> ClusterRule {
    let labels = labels.iter().map(|(name, pattern)| ((*name).to_owned(), Pattern::new(*pattern))).collect();
    ClusterRule { groups: patterns(groups), clusters: patterns(clusters), labels }
}

fn said(kube: &Kube, groups: &[&str], name: &str, labels: &[(&str, &str)]) -> (bool, String) {
    decided(Rules { kube, rbac: None }, groups, Subject { name, labels: &labels_of(labels), shared: false })
}

fn labels_of(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn decided(rules: Rules<'_>, groups: &[&str], cluster: Subject<'_>) -> (bool, String) {
    let groups = groups.iter().map(|g| (*g).to_owned()).collect();
    let verdict = may_use(rules, &groups, cluster);
    (verdict.allows(), verdict.to_string())
}

#[test]
fn a_group_named_for_a_cluster_is_access_to_it() {
    let rbac = rbac(&["admin", "user"]);
    let kube = Kube { deny: vec![rule(&["*"], &["*"], &[("stage", "prod")])], ..Kube::default() };
    let rules = Rules { kube: &kube, rbac: Some(&rbac) };
    let (play, prod) = (labels_of(&[]), labels_of(&[("stage", "prod")]));
    let hyades = |labels, shared| Subject { name: "hyades", labels, shared };
    let long = format!("k8s-user@hyades@{}", "a".repeat(63));
    for group in ["k8s-admin@hyades", "k8s-user@hyades", "k8s-user@hyades@taurus", "k8s-user@hyades@9-x", &long] {
        let said = decided(rules, &["dev", group], hyades(&play, false));
        assert_eq!(said, (true, format!("group '{group}' is access to it, by [rbac]")));
        let said = decided(rules, &[group], hyades(&prod, false));
        assert_eq!(
            said,
            (false, "[[kube.deny]] number 1 is for groups '*' and clusters '*' with stage = 'prod'".into())
        );
        assert!(!decided(rules, &[group], hyades(&play, true)).0, "a credential that all share has no levels");
        assert!(!said_without(&kube, group).0, "without [rbac] it is a group like any other");
    }
    for group in [
        "k8s-root@hyades",
        "K8S-Admin@hyades",
        "k8s-Admin@hyades",
        "k8s-admin@Hyades",
        "k8s-admin@",
        "k8s-admin",
        "k8s-@hyades",
        "admin@hyades",
        "k8s-admin@pleiades",
        "k8s-admin@hyades@",
        "k8s-admin@hyades@-x",
        "k8s-admin@hyades@A",
        "k8s-admin@hyades@a@b",
        "k8s-admin@hyades ",
        &format!("{long}a"),
    ] {
        let said = decided(rules, &[group], hyades(&play, false));
        let why = "there is no [[kube.allow]], and no group of theirs is access to it by its name";
        assert_eq!(said, (false, why.into()), "{group}");
    }
}

/// A path is the only mark that a group of IAM has: the same name below another one is somebody else's.
#[test]
fn a_group_of_access_counts_where_access_reads_it() {
    let rbac = rbac(&["admin"]);
    for (path, read) in
        [("/stockade/", true), ("/stockade/team/", true), ("/", false), ("/team/", false), ("/stock", false)]
    {
        assert_eq!(counts(Some(&rbac), "k8s-admin@hyades", path), read, "{path}");
        assert_eq!(counts(Some(&rbac), "k8s-nolevel@hyades@x", path), read, "{path}");
        assert!(counts(Some(&rbac), "developers", path) && counts(Some(&rbac), "k8s-team", path));
        assert!(counts(None, "k8s-admin@hyades", path), "without [rbac] it is a group like any other");
    }
    for members in [MembersFrom::Tag("t".into()), MembersFrom::File] {
        let elsewhere = Rbac { members, ..rbac.clone() };
        assert!(!counts(Some(&elsewhere), "k8s-admin@hyades", "/stockade/"), "membership is said elsewhere");
    }
}

fn said_without(kube: &Kube, group: &str) -> (bool, String) {
    said(kube, &[group], "hyades", &[])
}

/// `[rbac]` with levels of these names.
pub fn rbac(levels: &[&str]) -> Rbac {
    let level = |name: &&str| Level { name: (*name).to_owned(), allow: vec![], urls: vec![], system: System::Same };
    Rbac {
        levels: levels.iter().map(level).collect(),
        skip_namespaces: patterns(&["kube-*"]),
        namespaces: Namespaces::All,
        group_path: "/stockade/".into(),
        username: "stockade:{user}".into(),
        bastion: vec![],
        boundary: None,
        role_tags: BTreeMap::new(),
        role_policy: serde_json::Value::Null,
        members: MembersFrom::Iam,
        most_removed: 20,
        grace: Duration::from_secs(7 * 86400),
        cycle: Duration::from_secs(300),
        queue: None,
        audit: "/audit".into(),
        state: "/state".into(),
        listen: None,
        kubeconfig: None,
        lease_namespace: "kube-system".into(),
    }
}

#[test]
fn allow_and_deny() {
    let kube = Kube {
        allow: vec![
            rule(&["ops-*"], &["*"], &[]),
            rule(&["dev"], &["hyades", "pre-*"], &[]),
            rule(&["*"], &["*"], &[("stage", "play*"), ("team", "x")]),
        ],
        deny: vec![rule(&["interns"], &["*"], &[]), rule(&["*"], &["*"], &[("stage", "prod")])],
        ..Kube::default()
    };
    let none: &[(&str, &str)] = &[];
    for (groups, name, labels, allowed, why) in [
        (&["ops-night"][..], "hyades", none, true, "[[kube.allow]] number 1 is for groups 'ops-*' and clusters '*'"),
        (&["dev"], "pre-1", none, true, "[[kube.allow]] number 2 is for groups 'dev' and clusters 'hyades', 'pre-*'"),
        (&["dev"], "pleiades", none, false, "none of the 3 [[kube.allow]] is for them and this cluster"),
        (&[], "hyades", none, false, "none of the 3 [[kube.allow]] is for them and this cluster"),
        (
            &[],
            "x",
            &[("stage", "playground"), ("team", "x")],
            true,
            "[[kube.allow]] number 3 is for groups '*' and clusters '*' with stage = 'play*' with team = 'x'",
        ),
        (&[], "x", &[("stage", "playground")], false, "none of the 3 [[kube.allow]] is for them and this cluster"),
        (
            &["ops-night", "interns"],
            "hyades",
            none,
            false,
            "[[kube.deny]] number 1 is for groups 'interns' and clusters '*'",
        ),
        (
            &["ops-night"],
            "hyades",
            &[("stage", "prod")],
            false,
            "[[kube.deny]] number 2 is for groups '*' and clusters '*' with stage = 'prod'",
        ),
    ] {
        assert_eq!(said(&kube, groups, name, labels), (allowed, why.to_owned()), "{groups:?} {name}");
    }
    let none = said(&Kube::default(), &["ops"], "hyades", &[]);
    assert_eq!(none, (false, "there is no [[kube.allow]]: nobody may use any cluster".into()));
}

#[test]
fn who_may_be_somebody_else() {
    let rule = |group: &str, user: &str| AsRule {
        groups: patterns(&[group]),
        clusters: patterns(&["*"]),
        as_users: patterns(&[user]),
        as_groups: vec![],
    };
    let kube = Kube { impersonate: vec![rule("ops", "deploy"), rule("*", "viewer")], ..Kube::default() };
    let users = |groups: &[&str]| -> Vec<String> {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        others(&kube, &groups).map(|rule| rule.as_users[0].to_string()).collect()
    };
    assert_eq!(users(&["ops"]), ["deploy", "viewer"]);
    assert_eq!(users(&[]), ["viewer"]);
}

#[test]
fn names_and_endpoints() {
    let long = "a".repeat(100);
    for good in ["hyades", "a", "A_b-c.d", "9x_", "a-", &long] {
        assert!(is_cluster_name(good), "{good}");
    }
    for bad in ["", ".", "..", "-a", "a.", "_a", "a/b", "a b", "a%2f", "ä", &"a".repeat(101)] {
        assert!(!is_cluster_name(bad), "{bad}");
    }
    for good in [
        "https://a.test",
        "https://a.test:6443",
        "https://127.0.0.1:6443",
        "https://[::1]:6443",
        "https://[2001:db8::1]",
        "https://rancher.test/k8s/clusters/c-1",
    ] {
        assert!(is_endpoint(good), "{good}");
    }
    for bad in [
        "http://a.test",
        "a.test",
        "https://",
        "https://a.test/",
        "https://a.test:0",
        "https://a.test:+1",
        "https://a.test:65536",
        "https://u@a.test",
        "https://a.test?x",
        "https://a.test#x",
        "https://a.test/..",
        "https://a.test/a//b",
        "https://a.test/%2e",
        "https://::1",
        "https://[::1",
        "https://a b",
    ] {
        assert!(!is_endpoint(bad), "{bad}");
    }
}

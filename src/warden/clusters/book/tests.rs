use super::*;
use crate::config::{AsRule, ClusterRule, Kube};
use crate::identity::Pattern;
use crate::privsep::message::Cluster;

fn found(name: &str, account: &str, endpoint: &str) -> Found {
    Found {
        name: name.into(),
        account: account.into(),
        region: "us-east-1".into(),
        endpoint: endpoint.into(),
        authority: "CA".into(),
        labels: [("stage".to_owned(), "prod".to_owned())].into(),
    }
}

fn stated(name: &str, token: Option<&str>, endpoint: &str) -> Known {
    let way = match token {
        Some(token) => Way::Eks { region: "us-east-1".into(), cluster: token.into() },
        None => Way::Shared(crate::privsep::message::Credential::Token(crate::identity::Secret::new("t".into()))),
    };
    let cluster =
        Cluster { name: name.into(), endpoint: endpoint.into(), authority: "CA".into(), server_name: None, way };
    Known { cluster, labels: BTreeMap::new() }
}

/// `+name`, `-name` for the porter; `appeared name`, … for the audit.
fn said(change: &Change) -> Vec<String> {
    let porter = change.porter.iter().map(|message| match message {
        WardenToPorter::Cluster(cluster) => format!("+{}", cluster.name),
        WardenToPorter::NoCluster { name } => format!("-{name}"),
        other => panic!("{other:?}"),
    });
    let events = change.events.iter().map(|event| match event {
        Event::ClusterAppeared { cluster, .. } => format!("appeared {cluster}"),
        Event::ClusterGone { cluster, .. } => format!("gone {cluster}"),
        Event::DiscoveryFailed { place, code, .. } => format!("{code} {place}"),
        Event::DiscoveryWorks { place } => format!("works {place}"),
        other => panic!("{other:?}"),
    });
    porter.chain(events).collect()
}

fn all() -> Kube {
    let rule = |labels: &[(&str, &str)]| ClusterRule {
        groups: vec![Pattern::new("ops")],
        clusters: vec![Pattern::new("*")],
        labels: labels.iter().map(|(name, is)| ((*name).to_owned(), Pattern::new(*is))).collect(),
    };
    Kube { allow: vec![rule(&[])], ..Kube::default() }
}

fn by(kube: &Kube) -> Rules<'_> {
    Rules { kube, rbac: None }
}

fn clusters(book: &Book, group: &str) -> Vec<String> {
    book.pass(by(&all()), &[group.to_owned()].into()).clusters
}

#[test]
fn clusters_come_and_go() {
    let mut book = Book::default();
    assert!(!book.looked());
    let first = book.see(vec![found("hyades", "1", "https://h"), found("pleiades", "1", "https://p")]);
    assert_eq!(said(&first), ["+hyades", "+pleiades", "appeared hyades", "appeared pleiades"]);
    assert!(first.passes && book.looked());
    let again = book.see(vec![found("pleiades", "1", "https://p"), found("hyades", "1", "https://h")]);
    assert!(said(&again).is_empty() && !again.passes, "the same in another order");
    let mut tagged = found("hyades", "1", "https://h");
    tagged.labels.clear();
    let change = book.see(vec![tagged, found("pleiades", "1", "https://p")]);
    assert!(said(&change).is_empty() && change.passes, "a tag may open or close it");
    let change = book.see(vec![found("hyades", "1", "https://new")]);
    assert_eq!(said(&change), ["-pleiades", "+hyades", "gone hyades", "gone pleiades", "appeared hyades"]);
    assert_eq!(clusters(&book, "ops"), ["hyades"]);
    assert!(clusters(&book, "dev").is_empty());
}

#[test]
fn one_name_for_two_endpoints_is_nobodys() {
    let mut book = Book::default();
    book.see(vec![found("hyades", "1", "https://h")]);
    let both =
        vec![found("hyades", "1", "https://h"), found("hyades", "2", "https://evil"), found("x", "2", "https://x")];
    assert_eq!(said(&book.see(both)), ["-hyades", "+x", "gone hyades", "appeared x", "NameTwice hyades"]);
    assert_eq!(clusters(&book, "ops"), ["x"]);
    let alone = book.see(vec![found("hyades", "1", "https://h")]);
    assert_eq!(said(&alone), ["-x", "+hyades", "gone x", "appeared hyades", "works hyades"]);
    let mut untrusted = found("hyades", "1", "https://h");
    untrusted.labels.clear();
    book.see(vec![untrusted, found("hyades", "1", "https://h")]);
    assert_eq!(clusters(&book, "ops"), ["hyades"], "found by two ways it is one cluster");
}

#[test]
fn a_name_of_the_file_is_never_taken() {
    let mut book = Book::default();
    let change = book.state(vec![stated("hyades", None, "https://h"), stated("prod", Some("pleiades"), "https://p")]);
    assert_eq!(said(&change), ["+hyades", "+prod"]);
    let seen = vec![
        found("hyades", "2", "https://evil"),
        found("pleiades", "2", "https://evil"),
        found("x", "1", "https://x"),
    ];
    assert_eq!(said(&book.see(seen)), ["+x", "appeared x", "NameTaken hyades", "NameTaken pleiades"]);
    assert_eq!(clusters(&book, "ops"), ["hyades", "prod", "x"]);
    let same = book.see(vec![found("hyades", "1", "https://h"), found("pleiades", "1", "https://p")]);
    assert_eq!(said(&same), ["-x", "+pleiades", "gone x", "appeared pleiades", "works hyades", "works pleiades"]);
    // The same cluster under two names is two contexts; under one it is the file's.
    assert_eq!(clusters(&book, "ops"), ["hyades", "pleiades", "prod"]);
    let change = book.state(vec![]);
    assert_eq!(said(&change), ["-prod", "+hyades", "+pleiades", "appeared hyades"]);
    assert!(change.passes);
}

#[test]
fn more_than_a_pass_holds_is_left_out() {
    let mut book = Book::default();
    let many: Vec<Found> = (0..MOST + 2).map(|n| found(&format!("c{n:04}"), "1", "https://h")).collect();
    let change = book.see(many);
    assert_eq!(clusters(&book, "ops").len(), MOST);
    assert_eq!(said(&change).iter().filter(|said| said.starts_with("TooMany")).count(), 2);
    let pass = book.pass(by(&all()), &["ops".to_owned()].into());
    assert!(minicbor::to_vec(&pass).unwrap().len() < crate::privsep::link::LONGEST);
}

#[test]
fn a_pass_says_who_may_be_whom_and_whether_a_token_is_needed() {
    let mut book = Book::default();
    book.state(vec![stated("shared", None, "https://s")]);
    let rule = AsRule {
        groups: vec![Pattern::new("ops")],
        clusters: vec![Pattern::new("sh*")],
        as_users: vec![Pattern::new("deployer")],
        as_groups: vec![],
    };
    let kube = Kube { impersonate: vec![rule], ..all() };
    let groups = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let pass = book.pass(by(&kube), &groups(&["ops", "dev"]));
    assert_eq!((pass.groups.join(","), pass.may_be.len()), ("dev,ops".to_owned(), 1));
    assert!(!book.wants_tokens(&pass));
    book.see(vec![found("hyades", "1", "https://h")]);
    assert!(book.wants_tokens(&book.pass(by(&kube), &groups(&["ops"]))));
    assert!(!book.wants_tokens(&book.pass(by(&kube), &groups(&["dev"]))));
    assert!(book.pass(by(&kube), &groups(&["dev"])).may_be.is_empty());
}

#[test]
fn groups_of_levels_open_found_clusters_and_none_whose_credential_all_share() {
    let mut book = Book::default();
    book.state(vec![stated("shared", None, "https://s.test"), stated("hyades", Some("hyades"), "https://h.test")]);
    book.see(vec![found("pleiades", "123456789012", "https://p.test")]);
    let (kube, rbac) = (Kube::default(), crate::policy::kube::tests::rbac(&["user"]));
    let groups = ["shared", "hyades", "pleiades@web", "nowhere"].map(|name| format!("k8s-user@{name}")).into();
    let pass = book.pass(Rules { kube: &kube, rbac: Some(&rbac) }, &groups);
    assert_eq!(pass.clusters, ["hyades", "pleiades"]);
    assert!(book.wants_tokens(&pass));
    assert_eq!(book.pass(by(&kube), &groups).clusters, [""; 0]);
}

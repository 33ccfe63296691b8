use std::collections::BTreeSet;

use super::*;
use crate::config::{Host, Terms, check_access};

const AWS: &str = "[aws]\nregion = 'us-east-1'\nrole = 'arn:aws:iam::123456789012:role/bastion/{user}'\n";

fn terms(text: &str) -> Terms {
    let nothing = |_: &Path| Err("no file in this test".to_owned());
    let secret = |_: &Path| Err("no file in this test".to_owned());
    let host = Host { passwd: "", subuid: "", subgid: "", read: &nothing, secret: &secret };
    check_access(text, &host).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

/// What a file says that has these lines of [kube] and [rbac]; without [rbac] it is the bastion's.
fn of(whose: Whose, text: &str) -> Value {
    let is_rbac = text.contains("[rbac]");
    let more = if is_rbac { String::new() } else { format!("{text}\n{LEAST}") };
    let terms = terms(if is_rbac { text } else { &more });
    let rbac = is_rbac.then_some(&terms.rbac);
    Needs { aws: terms.aws.as_ref().unwrap(), kube: &terms.kube, rbac }.of(whose).unwrap()
}

const LEAST: &str =
    "[rbac]\nbastion = ['arn:aws:iam::123456789012:role/b']\nboundary = 'arn:aws:iam::123456789012:policy/p'";

fn sids(policy: &Value) -> Vec<&str> {
    policy["Statement"].as_array().unwrap().iter().map(|statement| statement["Sid"].as_str().unwrap()).collect()
}

fn statement<'p>(policy: &'p Value, sid: &str) -> &'p Value {
    policy["Statement"].as_array().unwrap().iter().find(|statement| statement["Sid"] == sid).unwrap()
}

#[test]
fn a_bastion_that_asks_for_little_may_little() {
    let quiet = format!("{AWS}keys_from_iam = false\ngroups_from_iam = false\n");
    let policy = of(Whose::Bastion, &quiet);
    assert_eq!(sids(&policy), ["BecomeUsers"]);
    assert_eq!(statement(&policy, "BecomeUsers")["Resource"], json!(["arn:aws:iam::123456789012:role/bastion/*"]));
    let groups = of(Whose::Bastion, &format!("{AWS}keys_from_iam = false\n"));
    assert_eq!(statement(&groups, "KnowUsers")["Action"], json!(["iam:ListGroupsForUser"]));
}

#[test]
fn a_second_role_is_there_where_clusters_know_it() {
    let elsewhere = "[kube]\nrole = 'arn:aws:iam::123456789012:role/kube/{user}-kube'\n";
    let discover = "[[kube.discover]]\nregions = ['us-east-1', 'eu-central-1']\n";
    let roles = |text: &str| statement(&of(Whose::Bastion, text), "BecomeUsers")["Resource"].clone();
    assert_eq!(roles(&format!("{AWS}{elsewhere}")).as_array().unwrap().len(), 1, "no cluster, no role for any");
    let both = json!(["arn:aws:iam::123456789012:role/bastion/*", "arn:aws:iam::123456789012:role/kube/*-kube"]);
    assert_eq!(roles(&format!("{AWS}{elsewhere}{discover}")), both);
    let policy = of(Whose::Bastion, &format!("{AWS}{discover}"));
    let found = ["us-east-1", "eu-central-1"].map(|region| format!("arn:aws:eks:{region}:123456789012:cluster/*"));
    assert_eq!(statement(&policy, "DescribeClusters")["Resource"], json!(found));
}

/// Only the role is assumed; what it may there is its own policy, of its own account.
#[test]
fn another_account_is_looked_into_by_its_role_alone() {
    let role = "arn:aws-cn:iam::210987654321:role/look";
    let text = format!("{AWS}[[kube.discover]]\nrole = '{role}'\nregions = ['cn-north-1']\n")
        .replace("arn:aws:iam", "arn:aws-cn:iam")
        .replace("us-east-1", "cn-north-1");
    let least = LEAST.replace("arn:aws:iam", "arn:aws-cn:iam");
    let terms = terms(&format!("{text}{least}"));
    let needs = Needs { aws: terms.aws.as_ref().unwrap(), kube: &terms.kube, rbac: None };
    let bastion = needs.of(Whose::Bastion).unwrap();
    assert_eq!(sids(&bastion), ["BecomeUsers", "BecomeDiscovery", "KnowUsers"]);
    assert_eq!(statement(&bastion, "BecomeDiscovery")["Action"], json!(["sts:AssumeRole"]));
    let there = needs.of(Whose::Discovery).unwrap();
    let clusters = json!(["arn:aws-cn:eks:cn-north-1:210987654321:cluster/*"]);
    assert_eq!(statement(&there[role], "DescribeClusters")["Resource"], clusters);
}

#[test]
fn access_writes_no_groups_that_it_does_not_read() {
    let tags = format!("{AWS}{LEAST}\nmembers = 'tags'\n");
    assert!(!sids(&of(Whose::Access, &tags)).contains(&"Groups"));
    let bastion = of(Whose::Bastion, &tags);
    assert!(statement(&bastion, "KnowUsers")["Action"].as_array().unwrap().contains(&json!("iam:GetUser")));
}

/// Whatever is configured: the bastion reads, and becomes users; what it reads is nobody's secret.
#[test]
fn the_bastion_never_writes() {
    let all = format!("{AWS}[[kube.discover]]\n{LEAST}\nmembers = 'tags'\n");
    let policy = of(Whose::Bastion, &all);
    let actions = policy["Statement"].as_array().unwrap().iter().flat_map(|s| s["Action"].as_array().unwrap().clone());
    for action in actions {
        let action = action.as_str().unwrap().to_owned();
        let verb = action.split(':').nth(1).unwrap();
        let reads = ["Get", "List", "Describe", "Simulate"].iter().any(|way| verb.starts_with(way));
        assert!(reads || ASSUME.contains(&action.as_str()), "{action}");
    }
}

/// The pages show the policies of their own examples: the first block of TOML with what it needs makes the first of JSON.
#[test]
fn the_pages_show_what_is_printed() {
    for (page, whose, rbac) in [
        (include_str!("../../../../docs/kubernetes-setup.md"), Whose::Bastion, false),
        (include_str!("../../../../docs/access.md"), Whose::Access, true),
    ] {
        let mut file = block(page, "toml");
        if !file.contains("[aws]") {
            file = format!("{AWS}{file}");
        }
        if !rbac {
            file.push_str(&LEAST.replace("role/b'", "role/BASTION'"));
        }
        let whole = |text: &str| text.replace("ACCOUNT", "123456789012");
        let terms = terms(&whole(&file));
        let needs = Needs { aws: terms.aws.as_ref().unwrap(), kube: &terms.kube, rbac: Some(&terms.rbac) };
        let printed = needs.of(whose).unwrap();
        let shown: Value = serde_json::from_str(&whole(&block(page, "json"))).unwrap();
        assert_eq!(shown, printed, "the page should show this:\n{printed:#}");
    }
}

fn block(page: &str, language: &str) -> String {
    let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn a_queue_has_an_arn() {
    let arn = "arn:aws:sqs:us-east-1:123456789012:stockade-access";
    assert_eq!(queue("https://sqs.us-east-1.amazonaws.com/123456789012/stockade-access", "aws").as_deref(), Some(arn));
    assert_eq!(queue("http://localhost/queue", "aws"), None);
}

#[test]
fn sids_are_unique() {
    let all =
        format!("{AWS}[[kube.discover]]\n{LEAST}\nqueue = 'https://sqs.us-east-1.amazonaws.com/123456789012/q'\n");
    for whose in [Whose::Bastion, Whose::Access] {
        let policy = of(whose, &all);
        let sids = sids(&policy);
        assert_eq!(sids.iter().collect::<BTreeSet<_>>().len(), sids.len(), "{sids:?}");
    }
}

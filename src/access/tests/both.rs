//! API_AND_CONFIG_MAP: access entries come first, and aws-auth lets in whoever has none.

use super::worlds::*;
use crate::access::change::Cause;
use crate::access::plan::Plan;
use crate::access::rows::rows;
use crate::access::world::{Entry, Mode, Seen, World};

const ALICE: &str = "arn:aws:iam::123456789012:role/bastion/alice-kube";
const ENTRY: &str = "hyades: access entry of arn:aws:iam::123456789012:role/bastion/alice-kube";
const ROW: &str = "- hyades: row of arn:aws:iam::123456789012:role/alice-kube in aws-auth";
const NODES: &str = "- rolearn: arn:aws:iam::123456789012:role/nodes\n  username: system:node:{{EC2PrivateDNSName}}\n  \
                     groups: [system:nodes]\n";

fn row(role: &str, username: &str, group: &str) -> String {
    format!("- rolearn: arn:aws:iam::123456789012:role/{role}\n  username: {username}\n  groups: ['{group}']\n")
}

/// hyades knows both ways; alice has what the group gives her, or nobody is in it.
fn both(joined: bool) -> World {
    let mut world = hyades();
    read_mut(&mut world, "hyades").mode = Mode::Both;
    join(&mut world, "k8s-user@hyades", if joined { &["alice"] } else { &[] });
    settled(world, &terms(""))
}

fn put(world: &mut World, text: &str) {
    read_mut(world, "hyades").aws_auth.map_roles = Some(format!("{NODES}{text}"));
}

fn row_names(world: &World) -> Vec<String> {
    let text = read(world, "hyades").aws_auth.map_roles.clone().unwrap_or_default();
    rows(&text).unwrap().into_iter().map(|row| row.username).collect()
}

/// What is done about whom EKS lets in.
fn ways_in(plan: &Plan) -> Vec<String> {
    lines(plan).into_iter().filter(|line| line.contains("arn:")).collect()
}

#[test]
fn rows_of_former_times_go_when_there_are_entries() {
    let terms = terms("");
    let mut world = hyades();
    read_mut(&mut world, "hyades").mode = Mode::AwsAuth;
    put(&mut world, "");
    join(&mut world, "k8s-user@hyades", &["alice"]);
    let mut world = settled(world, &terms);
    read_mut(&mut world, "hyades").mode = Mode::Both;
    let plan = planned(&world, &terms);
    assert_eq!(lines(&plan), [format!("+ {ENTRY}"), ROW.to_owned()]);
    let why = "drift: aws-auth lets it in, as 'stockade:alice' in stockade:k8s-user@hyades, where its access entry alone \
               shall";
    assert_eq!((plan.changes[1].cause.to_string().as_str(), plan.stop(0)), (why, None), "nobody loses anything");
    let after = settled(world, &terms);
    assert_eq!(row_names(&after), ["system:node:{{EC2PrivateDNSName}}"]);
    assert_eq!(read(&after, "hyades").entries[ALICE].username, "stockade:alice");
}

#[test]
fn a_row_that_gives_more_goes_before_anything_is_given() {
    let (terms, mut world) = (terms(""), both(false));
    for (username, group) in [("stockade:alice", "system:masters"), ("stockade:bob", "x"), ("root", "system:masters")] {
        // There is no such role yet: the row waits for it.
        put(&mut world, &row("ALICE-kube", username, group));
        join(&mut world, "k8s-user@hyades", &["alice"]);
        let plan = planned(&world, &terms);
        assert_eq!(lines(&plan)[0], ROW, "{username}");
        assert!(lines(&plan).contains(&format!("+ {ENTRY}")));
        assert_eq!(row_names(&settled(world.clone(), &terms)), ["system:node:{{EC2PrivateDNSName}}"]);
    }
}

#[test]
fn a_row_that_an_entry_hides_goes_before_the_entry_does() {
    let (terms, mut world) = (terms(""), both(true));
    put(&mut world, &row("alice-kube", "stockade:alice", "stockade:k8s-user@hyades"));
    assert_eq!(lines(&planned(&world, &terms)), [ROW]);
    leave(&mut world, "k8s-user@hyades", "alice");
    let plan = planned(&world, &terms);
    assert_eq!(ways_in(&plan), [ROW.to_owned(), format!("- {ENTRY}")]);
    assert!(plan.losers.contains_key("alice"));
    assert_eq!(row_names(&settled(world, &terms)), ["system:node:{{EC2PrivateDNSName}}"]);
}

#[test]
fn a_row_of_somebody_who_is_gone_goes() {
    let (terms, mut world) = (terms(""), both(false));
    put(&mut world, &(row("bob-kube", "stockade:bob", "a") + &row("carol-kube", "carol", "b")));
    let plan = planned(&world, &terms);
    assert_eq!(ways_in(&plan), [ROW.replace("alice", "bob")]);
    assert_eq!(row_names(&settled(world, &terms)), ["system:node:{{EC2PrivateDNSName}}", "carol"], "who is that?");
}

#[test]
fn what_cannot_be_read_holds_up_no_entry() {
    let (terms, mut world) = (terms(""), both(false));
    join(&mut world, "k8s-user@hyades", &["alice"]);
    put(&mut world, "rows: {");
    let plan = planned(&world, &terms);
    assert_eq!(ways_in(&plan), [format!("+ {ENTRY}")]);
    assert!(problems(&plan)[0].starts_with("aws-auth: mapRoles of kube-system/aws-auth is not what EKS reads"));
    let aws_auth = &mut read_mut(&mut world, "hyades").aws_auth;
    (aws_auth.map_roles, aws_auth.unread) = (None, Some("Forbidden: no".into()));
    let plan = planned(&world, &terms);
    assert_eq!(ways_in(&plan), [format!("+ {ENTRY}")]);
    assert_eq!(
        problems(&plan),
        ["aws-auth: what stands in it beside the access entries is not known (Forbidden: no): let access read it"]
    );
    settled(world, &terms);
}

#[test]
fn the_role_of_jails_is_told_and_left() {
    let (terms, mut world) = (terms(""), both(true));
    put(&mut world, &row("alice", "admin", "ops"));
    let plan = planned(&world, &terms);
    assert_eq!(lines(&plan), Vec::<String>::new());
    assert_eq!(
        problems(&plan),
        [
            "arn:aws:iam::123456789012:role/alice: a hand let in this role of alice's, whose keys are in jails and go past \
          the kube door: remove that entry"
        ]
    );
}

#[test]
fn users_of_iam_with_our_names_are_told_and_left() {
    for mode in [Mode::Both, Mode::AwsAuth] {
        let (terms, mut world) = (terms(""), both(true));
        read_mut(&mut world, "hyades").mode = mode;
        let mut world = settled(world, &terms);
        let row = |user: &str, username: &str, group: &str| {
            format!(
                "- {{userarn: 'arn:aws:iam::123456789012:user/{user}', username: '{username}', groups: ['{group}']}}\n"
            )
        };
        let text = row("eve", "stockade:alice", "ops")
            + &row("mallory", "mallory", "stockade:k8s-admin@hyades")
            + &row("trent", "trent", "ops");
        read_mut(&mut world, "hyades").aws_auth.map_users = Some(text);
        let plan = planned(&world, &terms);
        assert_eq!(lines(&plan), Vec::<String>::new());
        let told = |who: &str, what: &str| {
            format!(
                "arn:aws:iam::123456789012:user/{who}: a row of mapUsers in aws-auth of another hand lets it in {what}, past \
                 every group of IAM: left, and whoever has it has what that name has here; remove it there"
            )
        };
        let expected = [told("eve", "as 'stockade:alice'"), told("mallory", "in group 'stockade:k8s-admin@hyades'")];
        assert_eq!(problems(&plan), expected);
        read_mut(&mut world, "hyades").aws_auth.map_users = Some("- userarn: [".into());
        assert!(
            problems(&planned(&world, &terms))[0].contains("mapUsers of kube-system/aws-auth is not what EKS reads")
        );
    }
}

#[test]
fn entries_of_others_with_our_names_are_told_and_left() {
    let (terms, mut world) = (terms(""), both(true));
    let entry = |username: &str, groups| Entry { username: username.into(), groups, ..Entry::default() };
    let entries = &mut read_mut(&mut world, "hyades").entries;
    entries.insert("arn:aws:iam::123456789012:role/ci".into(), entry("stockade:bob", set([])));
    entries.insert("arn:aws:iam::999999999999:role/far".into(), entry("far", set(["stockade:k8s-user@hyades"])));
    entries.insert("arn:aws:iam::123456789012:role/nodes".into(), entry("system:node:x", set(["system:nodes"])));
    let plan = planned(&world, &terms);
    assert_eq!(lines(&plan), Vec::<String>::new());
    let told = problems(&plan);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("arn:aws:iam::123456789012:role/ci: an access entry of another hand lets it in as 'stock")
    );
    assert!(
        told[1].starts_with("arn:aws:iam::999999999999:role/far: an access entry of another hand lets it in in group")
    );
}

#[test]
fn the_mode_api_does_not_know_the_map() {
    let (terms, mut world) = (terms(""), both(true));
    put(&mut world, &row("alice-kube", "root", "system:masters"));
    read_mut(&mut world, "hyades").mode = Mode::Entries;
    assert!(planned(&world, &terms).changes.iter().all(|change| change.cause != Cause::Configured));
    assert_eq!(lines(&planned(&world, &terms)), Vec::<String>::new());
    assert!(matches!(world.clusters["hyades"], Seen::Read(_)));
}

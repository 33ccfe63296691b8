//! Signing.

use std::collections::BTreeSet;

use crate::access::report::review::{Kind, NotAReview, Review, compare};
use crate::access::report::rights::{Right, State};
use crate::config::rbac::{Level, System};

fn right(user: &str, level: &str) -> Right {
    Right {
        user: user.into(),
        cluster: "hyades".into(),
        namespace: None,
        level: level.into(),
        group: Some(format!("k8s-{level}@hyades")),
        object: None,
        state: State::InForce,
        since: None,
        last_used: Some(1_763_683_200),
        dormant: false,
        granted: None,
        drift: Vec::new(),
    }
}

fn levels() -> Vec<Level> {
    vec![Level { name: "admin".into(), allow: Vec::new(), urls: Vec::new(), system: System::Same }]
}

fn review(users: &[&str]) -> Review {
    let rights: Vec<Right> = users.iter().map(|user| right(user, "admin")).collect();
    Review::of(&rights, &levels(), 1_763_683_200)
}

fn decide(text: &str, user: &str, decision: &str, reviewer: &str) -> String {
    let line = |line: &str| {
        if !line.contains(&format!("user = \"{user}\"")) {
            return format!("{line}\n");
        }
        let line = line.replace("decision = \"\"", &format!("decision = \"{decision}\""));
        format!("{}\n", line.replace("reviewer = \"\"", &format!("reviewer = \"{reviewer}\"")))
    };
    text.lines().map(line).collect()
}

fn told(signed: &str, now: &Review) -> Vec<String> {
    let found = compare(&Review::parse(signed).unwrap(), now, &BTreeSet::new());
    found.iter().map(|one| format!("{} {}", one.kind.word(), one.user)).collect()
}

#[test]
fn one_line_is_one_right_and_what_is_written_can_be_read() {
    let odd = "eve \"x\\\u{1b}\u{202e}";
    let written = review(&["alice", odd]);
    let text = written.text();
    assert_eq!(text.lines().filter(|line| line.starts_with("  { user = ")).count(), 2);
    assert!(!text.contains(['\u{1b}', '\u{202e}']));
    assert_eq!(Review::parse(&text).unwrap(), written);
}

#[test]
fn what_is_signed_and_unchanged_is_no_difference() {
    let now = review(&["alice", "bob"]);
    let text = decide(&decide(&now.text(), "alice", "keep", "carol"), "bob", "keep", "carol");
    assert_eq!(told(&text, &now), Vec::<String>::new());
    // What is revoked and gone is as it was decided.
    let text = decide(&decide(&now.text(), "alice", "keep", "carol"), "bob", "revoke", "carol");
    assert_eq!(told(&text, &review(&["alice"])), Vec::<String>::new());
}

#[test]
fn every_difference_has_its_word() {
    let signed = review(&["alice", "bob", "dave"]);
    let text = decide(&decide(&signed.text(), "alice", "revoke", "carol"), "dave", "keep", "carol");
    assert_eq!(
        told(&text, &review(&["alice", "bob", "eve"])),
        ["revoked, still there alice", "new eve", "gone dave", "unsigned bob"]
    );
}

#[test]
fn a_decision_needs_a_reviewer_who_is_somebody_else() {
    let now = review(&["alice"]);
    for (decision, reviewer) in [("keep", ""), ("keep", "alice"), ("yes", "carol"), ("", "carol"), ("keep", " alice ")]
    {
        let text = decide(&now.text(), "alice", decision, reviewer);
        assert_eq!(told(&text, &now), ["unsigned alice"], "{decision} {reviewer}");
    }
}

#[test]
fn what_is_not_for_signing_must_not_be_changed() {
    let text = review(&["alice"]).text();
    for (from, to) in [
        ("user = \"alice\"", "user = \"bob\""),
        ("last_used = \"2025", "last_used = \"2026"),
        ("taken = \"2025", "taken = \"2024"),
        ("\"admin\" = \"sha256:", "\"admin\" = \"sha256:0"),
    ] {
        assert!(text.contains(from), "{from}");
        let changed = Review::parse(&text.replacen(from, to, 1));
        assert!(matches!(changed, Err(NotAReview::Changed { .. })), "{from}: {changed:?}");
    }
    let without: String = text.lines().filter(|line| !line.starts_with("  {")).map(|l| format!("{l}\n")).collect();
    assert!(matches!(Review::parse(&without), Err(NotAReview::Changed { .. })));
    assert!(matches!(Review::parse("taken = 1"), Err(NotAReview::Form(_))));
    let twice = review(&["alice", "alice"]).text();
    assert!(matches!(Review::parse(&twice), Err(NotAReview::Twice { .. })));
}

#[test]
fn a_cluster_that_is_away_and_a_level_that_means_more_are_told() {
    let signed = review(&["alice"]);
    let text = decide(&signed.text(), "alice", "keep", "carol");
    let mut now = review(&["alice"]);
    let more = [Level { urls: vec!["*".into()], ..levels().remove(0) }];
    now.levels = Review::of(&[], &more, 0).levels;
    let away = BTreeSet::from(["hyades".to_owned()]);
    let found = compare(&Review::parse(&text).unwrap(), &now, &away);
    assert_eq!(found.iter().map(|one| one.kind).collect::<Vec<_>>(), [Kind::Level, Kind::Unknown]);
}

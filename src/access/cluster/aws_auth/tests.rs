use proptest::prelude::*;

use super::*;

const ALICE: &str = "arn:aws:iam::123456789012:role/stockade/kube/alice-kube";

/// As a person and two tools wrote it.
const FOREIGN: &str = r#"# nodes first
- groups:
  - system:bootstrappers
  - system:nodes
  rolearn:   arn:aws:iam::123456789012:role/node   # the old ones
  username: system:node:{{EC2PrivateDNSName}}

# and those of the vendor
- rolearn: 'arn:aws:iam::123456789012:role/vendor'
  username: "vendor"
  userid: 7
  note: |
    - not a row
    # not a comment

# the end
"#;

fn entry(user: &str, groups: &[&str]) -> Entry {
    Entry {
        username: format!("stockade:{user}"),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..Entry::default()
    }
}

fn added(text: &str) -> String {
    edit(Some(text), ALICE, None, Some(&entry("alice", &["stockade:k8s-user@hyades"]))).unwrap()
}

#[test]
fn a_row_comes_changes_and_goes_and_every_other_byte_stays() {
    let one = entry("alice", &["stockade:k8s-user@hyades"]);
    let two = entry("alice", &["a: b", "quo\"te", "stockade:k8s-admin@hyades"]);
    let with = added(FOREIGN);
    let row = "- rolearn: \"arn:aws:iam::123456789012:role/alice-kube\"\n  username: \"stockade:alice\"\n  groups:\n  \
               - \"stockade:k8s-user@hyades\"\n";
    assert_eq!(with, format!("{FOREIGN}{row}"));
    let between = with.replace("# and those", &format!("{row}# and those")).replacen(
        &format!("# the end\n{row}"),
        "# the end\n",
        1,
    );
    for (text, without) in [(with.as_str(), FOREIGN), (&between, FOREIGN)] {
        let changed = edit(Some(text), ALICE, Some(&one), Some(&two)).unwrap();
        assert!(changed.contains("  - \"quo\\\"te\"\n"), "{changed}");
        assert_eq!(edit(Some(&changed), ALICE, Some(&two), Some(&one)).unwrap(), text);
        assert_eq!(edit(Some(&changed), ALICE, Some(&two), None).unwrap(), without);
    }
}

#[test]
fn nothing_is_done_twice() {
    let one = entry("alice", &["g"]);
    let with = edit(None, ALICE, None, Some(&one)).unwrap();
    assert_eq!(edit(Some(&with), ALICE, None, Some(&one)).unwrap(), with);
    assert_eq!(edit(Some(&with), ALICE, Some(&one), None).unwrap(), "");
    assert_eq!(edit(Some(FOREIGN), ALICE, Some(&one), None).unwrap(), FOREIGN);
}

#[test]
fn whatever_was_planned_with_is_what_is_changed() {
    let (one, two, three) = (entry("alice", &["g"]), entry("alice", &["h"]), entry("alice", &["i"]));
    let with = edit(Some(FOREIGN), ALICE, None, Some(&one)).unwrap();
    let changed = |text: &str, was, shall_be| edit(Some(text), ALICE, was, shall_be).unwrap_err();
    let wanted = Refused::Changed("arn:aws:iam::123456789012:role/alice-kube".into());
    assert_eq!(changed(&with, None, Some(&two)), wanted, "made by hand meanwhile");
    assert_eq!(changed(&with, Some(&two), Some(&three)), wanted, "changed by hand meanwhile");
    assert_eq!(changed(&with, Some(&two), None), wanted);
    assert_eq!(changed(FOREIGN, Some(&one), Some(&two)), wanted, "taken out by hand meanwhile");
    let twice = format!("{with}{}", edit(None, ALICE, None, Some(&two)).unwrap());
    let one_left = edit(Some(&twice), ALICE, Some(&two), Some(&three)).unwrap();
    assert_eq!(one_left, edit(Some(&with), ALICE, Some(&one), Some(&three)).unwrap());
}

#[test]
fn a_row_is_known_however_its_arn_is_written() {
    let text =
        "  - roleARN: arn:aws:iam::123456789012:role/Alice-Kube\n    username: stockade:alice\n    groups: [g]\n";
    assert_eq!(edit(Some(text), ALICE, Some(&entry("alice", &["g"])), None).unwrap(), "");
    let changed = edit(Some(text), ALICE, Some(&entry("alice", &["g"])), Some(&entry("alice", &[]))).unwrap();
    assert_eq!(
        changed,
        "  - rolearn: \"arn:aws:iam::123456789012:role/alice-kube\"\n    username: \"stockade:alice\"\n    groups: []\n"
    );
    assert_eq!(without_path("arn:aws:iam::123456789012:user/a/b"), "arn:aws:iam::123456789012:user/a/b");
}

#[test]
fn an_empty_list_takes_a_row() {
    for text in ["", "\n", "[]", "[]\n", "# none yet\n", "---\n", "---\n# none yet"] {
        let with = added(text);
        assert_eq!(parsed(&with).unwrap().len(), 1, "{text:?}: {with}");
        assert!(with.starts_with(text.trim_matches(['[', ']', '\n']).trim_end()), "{text:?}: {with}");
    }
    assert!(added("- rolearn: x\n  username: y").starts_with("- rolearn: x\n  username: y\n- rolearn: \"arn"));
}

#[test]
fn what_cannot_be_edited_with_care_is_left_alone() {
    for text in [
        "a: b\n",
        "- just words\n",
        "- rolearn: [unclosed\n",
        "- rolearn: x\n   username: y\n",
        "- rolearn: x\n\tusername: y\n",
        "- &a {rolearn: x}\n- *a\n",
        "- rolearn: x\n  rolearn: y\n",
        "[{rolearn: x, username: y}]\n",
        "[\n- rolearn: x\n]\n",
        "- rolearn: x\n...\n",
        "- rolearn: x\n---\n- rolearn: y\n",
        "%YAML 1.1\n---\n- rolearn: x\n",
        "\u{feff}- rolearn: x\n",
        "? - rolearn: x\n",
    ] {
        let refused = edit(Some(text), ALICE, None, Some(&entry("alice", &["g"])));
        assert!(refused.is_err(), "{text:?} became {refused:?}");
    }
    let refused = edit(Some("- a: b\n- rolearn: [\n"), ALICE, None, Some(&entry("alice", &["g"]))).unwrap_err();
    assert!(refused.to_string().starts_with("its mapRoles is no YAML list of rows, by line "), "{refused}");
}

fn foreign() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("\n".to_owned()),
        Just("# - rolearn: none\n".to_owned()),
        (0..9u8).prop_map(|n| format!("- rolearn: arn:aws:iam::123456789012:role/r{n}\n  username: u{n}\n")),
        (0..9u8).prop_map(|n| format!("- groups:\n  - g{n}\n  - h\n\n  # why\n  rolearn: r{n}   # x\n")),
        (0..9u8).prop_map(|n| format!("- {{rolearn: r{n}, groups: [a, b]}}\r\n")),
        (0..9u8)
            .prop_map(|n| format!("-   rolearn: >-\n      r{n}\n\n      s\n    username: |\n      - a\n      # b\n")),
        (0..9u8).prop_map(|n| format!("-\n  rolearn: 'r{n}'\n")),
    ];
    (proptest::collection::vec(line, 0..8), 0..3usize).prop_map(|(rows, indent)| {
        let text = rows.concat();
        text.split_inclusive('\n').map(|line| format!("{}{line}", " ".repeat(indent))).collect()
    })
}

proptest! {
    #[test]
    fn foreign_rows_stay_byte_for_byte(text in foreign(), users in proptest::collection::vec("[a-c]", 1..8)) {
        let mut now = text.clone();
        let mut ours: std::collections::BTreeMap<String, Entry> = std::collections::BTreeMap::new();
        for (step, user) in users.iter().enumerate() {
            let arn = format!("arn:aws:iam::123456789012:role/stockade/{user}");
            let next = (step % 3 != 2).then(|| entry(user, &["g", &step.to_string()]));
            now = edit(Some(&now), &arn, ours.get(user), next.as_ref()).unwrap();
            match next {
                Some(next) => drop(ours.insert(user.clone(), next)),
                None => drop(ours.remove(user)),
            }
        }
        for (user, is) in &ours {
            now = edit(Some(&now), &format!("arn:aws:iam::123456789012:role/{user}"), Some(is), None).unwrap();
        }
        prop_assert_eq!(now, text);
    }

    #[test]
    fn no_text_makes_it_panic_or_lose_a_row(text in "[-a-c: #\\[\\]{}\"'|>&*\\n\\r\\t]{0,60}") {
        let before = parsed(&text);
        if let Ok(edited) = edit(Some(&text), ALICE, None, Some(&entry("alice", &["g"]))) {
            let after = parsed(&edited).unwrap();
            let before = before.unwrap();
            prop_assert_eq!(&after[..after.len() - 1], before.as_slice());
        }
    }
}

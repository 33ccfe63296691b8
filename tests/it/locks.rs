//! Issue 5, item 7: "`stockade lock add|list|release` for a user or session: jail, streams, tokens and credential refresh
//! are dead within a second".

use std::process::{Command, Output};

use crate::yard::{STOCKADE, Yard};

fn lock(yard: &Yard, arguments: &[&str]) -> Output {
    let file = yard.path("stockade.toml");
    Command::new(STOCKADE).args(["lock", "--config"]).arg(file).args(arguments).output().unwrap()
}

#[track_caller]
fn locked(yard: &Yard, arguments: &[&str]) -> String {
    let ran = lock(yard, arguments);
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&ran.stderr));
    said
}

/// What a client is told whose login is refused, as far as it goes.
fn refusal(yard: &Yard, user: &str) -> (Option<i32>, String) {
    let ran = yard.ssh(user).key(yard.path("alice")).run("true");
    let last = ran.stderr.lines().last().unwrap_or_default().replace(user, "USER");
    (ran.code, last)
}

#[test]
fn a_lock_ends_what_runs_and_a_release_lets_in_again() {
    let yard = Yard::new().user("alice").user("bob").start();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    alice.enter("sleep 1000");
    let bob = yard.ssh("bob").input("").begin("sleep 3; echo bob works");
    locked(&yard, &["add", "--user", "alice", "--reason", "lost laptop"]);
    assert_eq!(alice.end(), 255);
    let shown = String::from_utf8_lossy(&alice.all()).into_owned();
    assert!(shown.contains("locked: lost laptop"), "{shown}");
    let closed = yard.audit().wait_for("SK2002I", |event| event["user"]["name"] == "alice");
    assert_eq!(closed["unmapped"]["reason"], "locked: lost laptop");
    let added = yard.audit().wait_for("SK6101I", |_| true);
    assert_eq!(
        (&added["unmapped"]["target"], &added["unmapped"]["reason"]),
        (&"user-alice".into(), &"lost laptop".into())
    );
    // Refused as somebody who does not exist.
    assert_eq!(refusal(&yard, "alice"), refusal(&yard, "nobody"));
    yard.audit().wait_for("SK1004W", |event| event["unmapped"]["why"] == "locked: lost laptop");
    let listed = locked(&yard, &["list"]);
    assert!(listed.contains("user-alice") && listed.contains("lost laptop"), "{listed}");
    // It stands whatever dies.
    yard.kill("warden");
    assert_eq!(refusal(&yard, "alice").0, Some(255));
    yard.stop();
    yard.restart();
    assert_eq!(refusal(&yard, "alice").0, Some(255));
    locked(&yard, &["release", "--user", "alice", "--reason", "found"]);
    let released = yard.audit().wait_for("SK6102I", |_| true);
    assert_eq!(released["unmapped"]["reason"], "found");
    assert_eq!(yard.ssh("alice").run("echo back").ok(), "back");
    assert!(!lock(&yard, &["release", "--user", "alice"]).status.success(), "there is none any more");
    drop(bob);
}

#[test]
fn one_session_is_locked_and_not_its_user() {
    let yard = Yard::new().user("alice").start();
    let mut one = yard.ssh("alice").terminal();
    one.prompt();
    let session = yard.audit().wait_for("SK2001I", |_| true)["session"]["uid"].as_str().unwrap().to_owned();
    let mut other = yard.ssh("alice").terminal();
    other.prompt();
    locked(&yard, &["add", "--session", &session, "--reason", "odd"]);
    assert_eq!(one.end(), 255);
    assert_eq!(other.shell("echo still here"), "still here");
    assert_eq!(yard.ssh("alice").run("echo again").ok(), "again");
}

/// "name carries the target, so that even a damaged file locks"; "`until` in the past = not locked, file swept";
/// "an unreadable directory refuses everybody (fail closed)"
#[test]
fn damage_locks_and_time_releases() {
    let yard = Yard::new().user("alice").user("bob").start();
    let locks = yard.path("state/locks");
    locked(&yard, &["add", "--user", "bob", "--reason", "x", "--until", "2001-01-01T00:00:00Z"]);
    assert_eq!(yard.ssh("bob").run("echo in").ok(), "in");
    std::fs::write(locks.join("user-bob"), "\0").unwrap();
    yard.audit().wait_for("SK6101I", |event| event["unmapped"]["target"] == "user-bob");
    assert_eq!(yard.ssh("bob").run("true").code, Some(255));
    assert!(locked(&yard, &["list"]).contains("cannot be read"));
    assert_eq!(yard.ssh("alice").run("echo in").ok(), "in");
    locked(&yard, &["release", "--user", "bob"]);
    yard.audit().wait_for("SK6102I", |_| true);
    assert_eq!(yard.ssh("bob").run("echo in").ok(), "in");
    std::fs::remove_dir_all(&locks).unwrap();
    crate::yard::until("a refusal", || (yard.ssh("alice").run("true").code == Some(255)).then_some(()));
    yard.stop();
    yard.restart();
    assert_eq!(yard.ssh("alice").run("echo in").ok(), "in");
}

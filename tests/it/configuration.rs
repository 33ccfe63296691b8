//! Issue item 8: "all mistakes reported at once with file, line and caret, exit 78 before any socket opens", `stockade
//! check`, SIGHUP.

use std::process::Command;

use crate::yard::{STOCKADE, Yard, until};

/// "unknown keys refused, all mistakes reported at once with file, line and caret, exit 78 before any socket opens"
#[test]
fn all_mistakes_are_told_at_once() {
    let plan =
        Yard::new().user("alice").config("jail.pids = 'many'\nssh.no_such_key = 1\nrecording.input = 'sometimes'");
    let file = plan.write();
    for verb in ["serve", "check"] {
        let ran = Command::new(STOCKADE).arg(verb).arg("--config").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(78), "{verb}: {said}");
        for word in ["pids", "no_such_key", "sometimes", "^", "stockade.toml:"] {
            assert!(said.contains(word), "{verb} does not say {word}: {said}");
        }
    }
    assert!(!plan.path("recordings").exists(), "nothing was made");
}

#[test]
fn a_file_that_is_not_there_is_a_mistake() {
    let ran = Command::new(STOCKADE).args(["serve", "--config", "/nonexistent/stockade.toml"]).output().unwrap();
    assert_eq!(ran.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("/nonexistent/stockade.toml"));
}

/// A port that is taken, a host key that others can read: said with what to do, and nothing is left running.
#[test]
fn what_cannot_be_served_is_said() {
    use std::os::unix::fs::PermissionsExt;
    let plan = Yard::new().user("alice");
    let file = plan.write();
    let key = plan.path("host_ed25519");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = Command::new(STOCKADE).arg("serve").arg("--config").arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(78), "{said}");
    assert!(said.contains("chmod 600"), "{said}");

    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let plan = plan.config(&format!("listen.ssh = ['{}']", taken.local_addr().unwrap()));
    let ran = Command::new(STOCKADE).arg("serve").arg("--config").arg(plan.write()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success());
    assert!(said.contains("cannot listen on"), "{said}");
}

/// "`stockade check` also explains one decision (`--who alice`)": as the warden decides it.
#[test]
fn check_explains_what_the_warden_decides() {
    let yard = Yard::new().user("alice").user("bob").config("access.deny_users = ['bob']").start();
    let check = |who: &str| {
        let file = yard.path("stockade.toml");
        let ran = Command::new(STOCKADE).args(["check", "--who", who, "--config"]).arg(file).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    for (user, enters) in [("alice", true), ("bob", false), ("carol", false)] {
        let (code, said) = check(user);
        assert_eq!(code == Some(0), enters, "{user}: {said}");
        assert_eq!(yard.ssh(user).key(yard.path("alice")).run("true").code == Some(0), user == "alice");
    }
    assert_eq!(yard.ssh("bob").run("true").code, Some(255), "denied with the right key");
    let event = yard.audit().wait_for("SK1004W", |event| event["user"]["name"] == "bob");
    assert!(check("bob").1.contains("deny_users"), "{:?} {event}", check("bob"));
}

/// "SIGHUP reloads": new terms hold for new logins; who is denied now leaves.
#[test]
fn sighup_brings_a_new_configuration_into_force() {
    let yard = Yard::new().user("alice").user("bob").start();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    let mut bob = yard.ssh("bob").terminal();
    bob.prompt();
    let first = yard.audit().wait_for("SK7001I", |_| true)["unmapped"]["sha256"].clone();
    yard.configure("access.deny_users = ['bob']\njail.pids = 33");
    yard.signal("HUP");
    yard.audit().wait_for("SK7001I", |event| event["unmapped"]["sha256"] != first);
    assert_eq!(alice.shell("echo still here"), "still here");
    yard.audit().wait_for("SK2002I", |event| event["user"]["name"] == "bob");
    bob.end();
    assert_eq!(yard.ssh("bob").run("true").code, Some(255));
    assert_eq!(yard.ssh("alice").run("true").code, Some(0));
}

/// "or keeps the old one with the reason"
#[test]
fn sighup_keeps_the_old_configuration_where_the_new_has_mistakes() {
    let yard = Yard::new().user("alice").start();
    yard.configure("jail.pids = 'many'");
    yard.signal("HUP");
    let refused = yard.audit().wait_for("SK7002W", |_| true);
    assert!(!refused["unmapped"]["reason"].as_str().unwrap().is_empty());
    until("the reason in the log", || yard.log().contains("pids").then_some(()));
    assert_eq!(yard.ssh("alice").run("echo fine").ok(), "fine");
}

/// A key that is taken away takes its user's sessions along; others stay.
#[test]
fn sighup_ends_the_sessions_of_a_removed_key() {
    let yard = Yard::new().user("alice").user("bob").start();
    let mut alice = yard.ssh("alice").terminal();
    alice.prompt();
    let mut bob = yard.ssh("bob").terminal();
    bob.prompt();
    let another = std::fs::read_to_string(yard.path("host_ed25519.pub")).unwrap();
    std::fs::write(yard.path("keys/alice"), another).unwrap();
    yard.signal("HUP");
    let ended = yard.audit().wait_for("SK2002I", |event| event["user"]["name"] == "alice");
    assert!(ended["unmapped"]["reason"].as_str().unwrap().contains("key"), "{ended}");
    assert_ne!(alice.end(), 0);
    assert_eq!(bob.shell("echo still here"), "still here");
    assert_eq!(yard.ssh("alice").run("true").code, Some(255));
    std::fs::remove_file(yard.path("keys/bob")).unwrap();
    yard.signal("HUP");
    yard.audit().wait_for("SK2002I", |event| event["user"]["name"] == "bob");
    bob.end();
}

/// A connection outlives its sessions, and a client may keep it for hours: it leaves with its user's rights.
#[test]
fn sighup_closes_the_connections_of_those_who_leave() {
    let yard = Yard::new().user("alice").user("bob").user("carol").start();
    let path = |user: &str| format!("ControlPath={}", yard.path(&format!("control-{user}")).display());
    let hold = |user: &str| yard.ssh(user).option("ControlMaster=yes").option(&path(user)).arg("-N").begin("");
    let masters = ["alice", "bob", "carol"].map(hold);
    let again = |user: &str| yard.ssh(user).option("ControlMaster=no").option(&path(user)).run("true");
    for user in ["alice", "bob", "carol"] {
        until("the master's socket", || yard.path(&format!("control-{user}")).exists().then_some(()));
        assert_eq!(again(user).code, Some(0), "{user}");
    }
    until("no session", || (yard.audit().of("SK2002I").len() == 3).then_some(()));

    // Denied by name; by a key that is gone; and alice stays, with the groups of today.
    std::fs::remove_file(yard.path("keys/carol")).unwrap();
    yard.configure("access.deny_users = ['bob']\nusers.groups = { ops = ['alice'] }");
    yard.signal("HUP");
    let [mut alice, bob, carol] = masters;
    for (user, master) in [("bob", bob), ("carol", carol)] {
        let ended = master.wait();
        assert!(ended.stderr.contains("you may no longer be here"), "{user}: {}", ended.stderr);
        assert_eq!(again(user).code, Some(255), "{user}");
        let event = yard.audit().wait_for("SK1004W", |event| event["user"]["name"] == user);
        assert!(event.to_string().contains("rights are gone"), "{event}");
    }
    assert!(alice.is_running());
    until("alice in her new group", || {
        assert_eq!(again("alice").code, Some(0));
        let session = yard.sessions().last().unwrap()["session"].as_str().unwrap().to_owned();
        let header = yard.recording(&session).closed().of("header").swap_remove(0);
        header.to_string().contains("ops").then_some(())
    });
    alice.kill();
    alice.wait();
}

/// "IAM (..., cached, stale-tolerant)": a reload while IAM is away locks nobody out who was known before.
#[test]
fn sighup_does_not_forget_what_iam_said() {
    let bed = crate::aws::Bed::start();
    let yard = crate::doors::yard(&bed).start();
    yard.ssh("alice").run("true").ok();
    let endpoint = bed.bastion()["AWS_ENDPOINT_URL"].clone();
    crate::aws::control(&endpoint, "POST", "iam", &serde_json::json!({ "mode": "refuse" }));
    yard.configure("jail.pids = 33");
    yard.signal("HUP");
    until("a second configuration", || (yard.audit().of("SK7001I").len() == 2).then_some(()));
    // What is asked anew is refused now.
    until("the warden's question", || {
        yard.ssh("alice").run("true").ok();
        yard.log().contains("IAM does not answer").then_some(())
    });
    assert_eq!(yard.ssh("bob").run("true").code, Some(255), "of bob IAM never said anything");
}

/// What is made once cannot change under a running bastion: refused by its name, and with it all else in the file.
#[test]
fn sighup_refuses_to_change_what_is_fixed() {
    let yard = Yard::new().user("alice").user("bob").start();
    let other = yard.path("other-keys");
    std::fs::create_dir(&other).unwrap();
    let settings = [
        ("listen.ssh", format!("listen.ssh = ['127.0.0.1:{}']", yard.port() + 1000)),
        ("ssh.max_sessions", "ssh.max_sessions = 1".into()),
        ("recording.input", "recording.input = 'none'".into()),
        ("recording.directory", format!("recording.directory = '{}'", yard.path("elsewhere").display())),
        ("jail.max_jails", "jail.max_jails = 2".into()),
        ("roles.gate", "roles.gate = '64321:64321'".into()),
        ("users.authorized_keys", format!("users.authorized_keys = '{}'", other.display())),
        ("audit.file", format!("audit.file = '{}'", yard.path("audit/other.jsonl").display())),
        ("[aws]", "aws.region = 'us-east-1'\naws.role = 'arn:aws:iam::123456789012:role/{user}'".into()),
    ];
    for (name, setting) in &settings {
        yard.configure(&format!("{setting}\naccess.deny_users = ['bob']"));
        yard.signal("HUP");
        let says = |text: &str| text.contains(name) && text.contains("restart");
        yard.audit().wait_for("SK7002W", |event| says(event["unmapped"]["reason"].as_str().unwrap()));
        until(&format!("{name} in the log"), || yard.log().lines().any(says).then_some(()));
    }
    assert_eq!(yard.audit().of("SK7002W").len(), settings.len());
    assert_eq!(yard.audit().of("SK7001I").len(), 1, "the first configuration is in force");
    for user in ["alice", "bob"] {
        assert_eq!(yard.ssh(user).input("in").run("cat").ok(), "in", "{user}");
    }
    for session in yard.sessions() {
        let recording = yard.recording(session["session"].as_str().unwrap()).closed();
        assert_eq!(recording.bytes("input"), b"in");
    }
    // Of [ssh] one setting may change.
    yard.configure("ssh.linger = '2s'\naccess.deny_users = ['bob']");
    yard.signal("HUP");
    until("a second configuration", || (yard.audit().of("SK7001I").len() == 2).then_some(()));
    assert_eq!(yard.ssh("bob").run("true").code, Some(255));
}

/// "`stockade audit codes` prints the table from the doc comments": every code the bastion wrote is in it.
#[test]
fn every_code_is_in_the_table() {
    let table = String::from_utf8(Command::new(STOCKADE).args(["audit", "codes"]).output().unwrap().stdout).unwrap();
    let yard = Yard::new().user("alice").start();
    yard.ssh("alice").run("true").ok();
    for event in yard.audit().events() {
        let code = event["metadata"]["event_code"].as_str().unwrap().to_owned();
        assert!(table.contains(&code), "{code}");
    }
}

//! The verbs that an operator and a reviewer use, against a bastion that runs.

use std::process::{Command, Output};

use crate::yard::{STOCKADE, Yard, spawn_with};

fn stockade(arguments: &[&str]) -> Output {
    Command::new(STOCKADE).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// "`stockade doctor` tests the host ... and tells the mend": here where all tests run nothing may fail.
#[test]
fn doctor_finds_this_host_fit() {
    let yard = Yard::new().user("alice").start();
    let ran = stockade(&["doctor", "--json", "--config", yard.path("stockade.toml").to_str().unwrap()]);
    let text = String::from_utf8(ran.stdout).unwrap();
    let checks: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(checks.len() > 5, "{text}");
    for check in &checks {
        // A busy disk is the machine's own affair, and so is a limit of the one that runs the tests.
        assert_ne!(check["state"], "fail", "{check}");
    }
}

/// "`stockade session list | show | play | export --format asciicast|text|json`, `play` with speed, seek and idle limit."
#[test]
fn a_reviewer_lists_shows_plays_and_exports() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.shell("echo a mark to find; sleep 1; echo a later mark");
    terminal.enter("exit");
    assert_eq!(terminal.end(), 0);
    let recording = yard.only_recording();
    let configuration = yard.path("stockade.toml");
    let session = |arguments: &[&str]| {
        let ran = stockade(&[&["session", "--config", configuration.to_str().unwrap()], arguments].concat());
        assert!(ran.status.success(), "{arguments:?}: {}", said(&ran));
        said(&ran)
    };
    let listed = session(&["list"]);
    assert!(listed.contains(&recording.session) && listed.contains("alice") && listed.contains("closed"), "{listed}");
    // A beginning of the id that only one has is enough.
    let shown = session(&["show", &recording.session[..13]]);
    for word in ["alice", "c1", "whole and closed", "/bin/bash"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let played = session(&["play", &recording.session, "--speed", "100", "--idle-limit", "100ms"]);
    assert!(played.contains("a mark to find"), "{played}");
    for format in ["asciicast", "text", "json"] {
        assert!(session(&["export", &recording.session, "--format", format]).contains("a mark to find"), "{format}");
    }
}

/// Images are where the configuration says, or where they are said to be.
#[test]
fn images_are_found_as_recordings_are() {
    let yard = Yard::new().user("alice").start();
    let (file, images) = (yard.path("stockade.toml"), yard.path("state/images"));
    let by_configuration = stockade(&["image", "list", "--config", file.to_str().unwrap()]);
    let by_directory = stockade(&["image", "--directory", images.to_str().unwrap(), "list"]);
    assert!(said(&by_configuration).contains("base"), "{}", said(&by_configuration));
    assert_eq!(said(&by_configuration), said(&by_directory));
    let nowhere = stockade(&["image", "list", "--config", "/nonexistent/stockade.toml"]);
    assert_eq!(nowhere.status.code(), Some(78), "{}", said(&nowhere));
}

/// "`play` with ... seek": what lies before is there at once, what lies behind keeps its pace, which here has no end.
#[test]
fn play_seeks() {
    use std::io::Read;
    let yard = Yard::new().user("alice").start();
    // The terminal's echo of the line has neither word.
    let mut terminal = yard.ssh("alice").terminal_of("echo $((40+2))-early; sleep 1; echo $((40+2))-late");
    assert_eq!(terminal.end(), 0);
    let recording = yard.only_recording().closed();
    let at = |word: &str| {
        let outputs = recording.of("output");
        let event = outputs.iter().find(|event| event["text"].as_str().unwrap().contains(word)).unwrap();
        event["at"].as_f64().unwrap()
    };
    let between = format!("{}ms", ((at("42-early") + at("42-late")) * 500.0) as u64);
    let play = |seek: &str| {
        let mut command = Command::new(STOCKADE);
        command.args(["session", "--directory", yard.path("recordings").to_str().unwrap(), "play"]);
        command.args([&recording.session, "--speed", "0.000001", "--seek", seek]).stdin(std::process::Stdio::null());
        command
    };
    let whole = spawn_with(play("1h"), None).wait().ok();
    assert!(whole.contains("42-early") && whole.contains("42-late"), "{whole}");
    let mut playing = play(&between).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (mut shown, mut out) = (String::new(), playing.stdout.take().unwrap());
    let mut part = [0; 4096];
    while !shown.contains("42-early") {
        let got = out.read(&mut part).unwrap();
        assert_ne!(got, 0, "it ended: {shown}");
        shown += &String::from_utf8_lossy(&part[..got]);
    }
    assert!(playing.try_wait().unwrap().is_none(), "it waits for what lies behind");
    playing.kill().unwrap();
    playing.wait().unwrap();
    out.read_to_string(&mut shown).unwrap();
    assert!(!shown.contains("42-late"), "{shown}");
}

/// A recording that was changed by one bit is found out.
#[test]
fn a_changed_recording_is_found_out() {
    let yard = Yard::new().user("alice").start();
    yard.ssh("alice").run("echo evidence").ok();
    let recording = yard.only_recording();
    let [file] = recording.files().try_into().unwrap();
    let whole = std::fs::read(&file).unwrap();
    for place in [whole.len() / 3, whole.len() / 2, whole.len() - 40] {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        std::fs::write(&file, &changed).unwrap();
        let shown = stockade(&[
            "session",
            "--directory",
            yard.path("recordings").to_str().unwrap(),
            "show",
            &recording.session,
        ]);
        let text = said(&shown);
        assert!(!shown.status.success() || !text.contains("whole and closed"), "byte {place}: {text}");
    }
    std::fs::write(&file, &whole[..whole.len() - 10]).unwrap();
    let shown =
        stockade(&["session", "--directory", yard.path("recordings").to_str().unwrap(), "show", &recording.session]);
    assert!(!said(&shown).contains("whole and closed"), "cut: {}", said(&shown));
    std::fs::write(&file, &whole).unwrap();
}

/// "grades `local` and `relaxed`": the looser one records the same.
#[test]
fn a_relaxed_recording_is_as_complete() {
    let yard = Yard::new().user("alice").config("recording.durability = 'relaxed'").start();
    yard.ssh("alice").input("in").run("cat; echo out").ok();
    let recording = yard.only_recording();
    assert_eq!((recording.bytes("input"), recording.bytes("output")), (b"in".to_vec(), b"inout\n".to_vec()));
    assert_eq!(recording.of("header")[0]["durability"], "relaxed");
}

/// "input = none": how much, never what.
#[test]
fn input_may_be_left_out() {
    let yard = Yard::new().user("alice").config("recording.input = 'none'").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.enter("exit");
    terminal.end();
    let recording = yard.only_recording();
    assert!(recording.of("input").is_empty());
    let counted: u64 = recording.of("input_redacted").iter().map(|event| event["bytes"].as_u64().unwrap()).sum();
    assert_eq!(counted, 5);
}

/// A reader that has seen enough is no error, and roles are not for hands.
#[test]
fn verbs_behave_in_pipes_and_by_hand() {
    let mut pipe = Command::new("sh");
    pipe.args(["-c", &format!("'{STOCKADE}' audit codes | head -1")]);
    let ran = spawn_with(pipe, None).wait();
    assert!(ran.text().starts_with("CODE") && ran.stderr.is_empty(), "{}", ran.stderr);
    let mut by_hand = Command::new("bash");
    by_hand.args(["-c", &format!("exec -a 'stockade: gate [net]' '{STOCKADE}'")]);
    let ran = spawn_with(by_hand, None).wait();
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert_eq!(stockade(&["no-such-verb"]).status.code(), Some(2));
}

/// Two bastions on one host do not meet.
#[test]
fn two_bastions_stand_side_by_side() {
    let (one, two) = (Yard::new().user("alice").start(), Yard::new().user("alice").start());
    one.ssh("alice").run("echo one > ~/whose").ok();
    two.ssh("alice").run("echo two > ~/whose").ok();
    assert_eq!(one.ssh("alice").run("cat ~/whose").ok(), "one");
    assert_eq!(two.stop().unwrap().code(), Some(0));
    assert_eq!(one.ssh("alice").run("cat ~/whose").ok(), "one");
}

/// Many at the same time: each gets a jail, each recording is whole.
#[test]
fn eight_sessions_at_once() {
    let yard = Yard::new().user("alice").user("bob").start();
    let begun: Vec<_> = (0..8)
        .map(|number| {
            let user = if number % 2 == 0 { "alice" } else { "bob" };
            (number, yard.ssh(user).begin(&format!("echo {number}; /bin/true; sleep 0.2; exit {number}")))
        })
        .collect();
    for (number, client) in begun {
        let ran = client.wait();
        assert_eq!((ran.code, ran.text()), (Some(number), number.to_string()), "{}", ran.stderr);
    }
    crate::yard::until("eight closed recordings", || {
        let closed = yard.sessions().iter().filter(|one| one["state"] == "closed").count();
        (closed == 8).then_some(())
    });
}

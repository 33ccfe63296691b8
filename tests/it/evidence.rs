//! Issue items 6 and 7: what was recorded, and what the audit says.

use serde_json::{Value, json};

use crate::yard::{Recording, Yard, until};

/// "Every execve attempt is recorded by seccomp notification": in the audit and in the recording, with session and channel.
#[test]
fn every_exec_is_in_audit_and_recording() {
    let yard = Yard::new().user("alice").start();
    yard.ssh("alice").run("/bin/echo one two; no-such-program; sh -c 'exec /usr/bin/id -u'").text();
    let recording = yard.only_recording();
    let execs = recording.of("exec");
    let ran = |path: &str, arguments: Value| {
        execs.iter().any(|exec| exec["path"] == path && exec["arguments"] == arguments && exec["channel"] == "c1")
    };
    assert!(ran("/bin/echo", json!(["/bin/echo", "one", "two"])), "{execs:#?}");
    assert!(ran("/usr/bin/id", json!(["/usr/bin/id", "-u"])), "{execs:#?}");
    assert!(execs.iter().any(|exec| exec["path"].as_str().unwrap().ends_with("/bash")), "the shell itself: {execs:#?}");
    let event = yard.audit().wait_for("SK3001I", |event| event["process"]["file"]["path"] == "/bin/echo");
    assert_eq!(event["unmapped"]["arguments"], json!(["/bin/echo", "one", "two"]));
    assert_eq!(event["session"]["uid"], *recording.session);
}

/// The storm of research H, past what is taken at once: it waits for itself, nothing is left out, what follows it is there
/// too, and others log in meanwhile.
#[test]
fn a_storm_of_execs_is_complete_and_holds_nobody_up() {
    let yard = Yard::new().user("alice").user("bob").start();
    let storm = yard.ssh("alice").input("").begin("seq 3000 | xargs -n 1 -P 8 /bin/true; /bin/echo the deed");
    yard.audit().wait_for("SK3001I", |event| event["process"]["file"]["path"] == "/bin/true");
    let started = std::time::Instant::now();
    assert_eq!(yard.ssh("bob").run("echo in").ok(), "in");
    assert!(started.elapsed().as_secs() < 5, "bob waited {:?}", started.elapsed());
    assert_eq!(storm.wait().ok(), "the deed");
    let alice = yard.sessions().into_iter().find(|one| one["user"] == "alice").unwrap();
    let recording = yard.recording(alice["session"].as_str().unwrap()).closed();
    let execs = recording.of("exec");
    let ran = |path: &str| execs.iter().filter(|exec| exec["path"] == path).count();
    assert_eq!((ran("/bin/true"), ran("/bin/echo")), (3000, 1));
    let listed = yard.audit().of("SK3001I");
    let ran = |path: &str| listed.iter().filter(|event| event["process"]["file"]["path"] == path).count();
    assert_eq!((ran("/bin/true"), ran("/bin/echo")), (3000, 1));
    assert!(yard.audit().of("SK6001W").is_empty());
}

/// A loop in the background that has used up what is taken at once hides nothing that is executed beside it.
#[test]
fn nothing_hides_behind_a_storm_of_execs() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.shell("(seq 100000 | xargs -n 1 -P 8 /bin/true) & echo");
    let storm = || yard.audit().of("SK3001I").len();
    until("more than is taken at once", || (storm() > 2200).then_some(()));
    assert_eq!(terminal.shell("/bin/echo the deed"), "the deed");
    terminal.shell("kill %1; wait 2>/dev/null; echo");
    terminal.enter("exit");
    terminal.end();
    let recording = yard.only_recording().closed();
    assert!(recording.of("exec").iter().any(|exec| exec["arguments"] == json!(["/bin/echo", "the", "deed"])));
    yard.audit().wait_for("SK3001I", |event| event["unmapped"]["arguments"] == json!(["/bin/echo", "the", "deed"]));
}

/// "recording equals what the terminal saw", byte for byte; and the input is there.
#[test]
fn a_recording_is_what_the_terminal_saw() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.shell("echo 'ä 日本 🦀'; printf '\\033[31mred\\033[0m\\n'; seq 300");
    terminal.resize(100, 30);
    terminal.shell("stty size; head -c 3000 /dev/urandom | base64");
    terminal.enter("exit 3");
    assert_eq!(terminal.end(), 3);
    let recording = yard.only_recording();
    let shown = String::from_utf8_lossy(&terminal.all()).into_owned();
    let recorded = String::from_utf8_lossy(&recording.bytes("output")).into_owned();
    // The client's own last line is not the jail's.
    let shown = shown.split("Connection to 127.0.0.1 closed").next().unwrap();
    assert_eq!(recorded.trim_end(), shown.trim_end());
    let typed = String::from_utf8(recording.bytes("input")).unwrap();
    assert!(typed.contains("seq 300") && typed.ends_with("exit 3\r"), "{typed}");
    let resize = recording.of("resize");
    assert_eq!((&resize[0]["columns"], &resize[0]["rows"]), (&json!(100), &json!(30)));
    assert_eq!(recording.of("exit_status")[0]["status"], 3);
    assert!(recording.export("text").contains("日本"));
    let cast = recording.export("asciicast");
    let header: Value = serde_json::from_str(cast.lines().next().unwrap()).unwrap();
    assert_eq!(header["version"], 3);
}

/// "Exec channels are recorded too": both outputs apart, and the input.
#[test]
fn exec_channels_are_recorded() {
    let yard = Yard::new().user("alice").start();
    yard.ssh("alice").input("in\n").run("cat; echo err >&2; exit 4");
    let recording = yard.only_recording();
    assert_eq!(recording.bytes("input"), b"in\n");
    assert_eq!(recording.bytes("output"), b"in\n");
    assert_eq!(recording.bytes("error_output"), b"err\n");
    assert_eq!(recording.of("input_end").len(), 1);
    assert_eq!(recording.of("exit_status")[0]["status"], 4);
    let channel = &recording.of("channel")[0];
    assert_eq!(channel["program"], "cat; echo err >&2; exit 4");
    let header = &recording.of("header")[0];
    assert_eq!((&header["user"], &header["image"]), (&json!("alice"), &json!("base")));
    assert!(recording.show().contains("whole and closed"), "{}", recording.show());
}

/// "Input is redacted while ECHO is off and ICANON is on": the secret is nowhere in the file, its length is.
#[test]
fn a_secret_typed_without_echo_is_not_recorded() {
    let yard = Yard::new().user("alice").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.enter("stty -echo; head -n1 | sha256sum | head -c 8; stty echo");
    terminal.wait_for("stty echo\r\n");
    // head is there when the terminal has stopped echoing: wait for its exec.
    yard.audit().wait_for("SK3001I", |event| event["process"]["file"]["path"].as_str().unwrap().ends_with("/head"));
    terminal.enter("hunter2-is-secret");
    terminal.wait_for("[0-9a-f]{8}");
    terminal.prompt();
    // bash's own, which turns ICANON off as well while it edits lines.
    terminal.enter("read -rsp 'Word: ' again; echo got ${#again}");
    terminal.wait_for("Word: $");
    terminal.enter("second-secret-word");
    terminal.wait_for("got 18\r\n");
    assert_eq!(terminal.shell("echo seen"), "seen");
    terminal.enter("exit");
    terminal.end();
    let recording = yard.only_recording();
    for file in recording.files() {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("secret"), "{}", file.display());
    }
    let all = recording.export("json");
    assert!(!all.contains("hunter2"), "with ICANON");
    assert!(!all.contains("second-secret-word"), "without ICANON: bash's `read -s`");
    let hidden: u64 = recording.of("input_redacted").iter().map(|event| event["bytes"].as_u64().unwrap()).sum();
    assert!(hidden >= 18 + 19, "{:?}", recording.of("input_redacted"));
    assert!(all.contains("echo seen"), "echo is on again");
}

/// "a regex list as second net"
#[test]
fn listed_patterns_are_redacted() {
    let yard = Yard::new().user("alice").config("recording.redact = ['(?i)passphrase']").start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    // As programs do that draw their own stars: neither echo nor lines.
    terminal.enter("stty -echo -icanon; printf 'Pass%s: ' phrase; head -c 13 >/dev/null; stty sane; echo thanks");
    terminal.wait_for("Passphrase: $");
    terminal.type_text("correct horse");
    terminal.wait_for("thanks\r\n");
    terminal.enter("exit");
    terminal.end();
    let typed = String::from_utf8_lossy(&yard.only_recording().bytes("input")).into_owned();
    assert!(!typed.contains("correct horse"), "{typed}");
}

/// "data beyond 64 MiB a direction as SHA-256 per MiB and counts"
#[test]
fn bulk_is_recorded_by_its_digests() {
    let yard = Yard::new().user("alice").start();
    let ran = yard.ssh("alice").run("head -c 70M /dev/zero");
    assert_eq!(ran.stdout.len(), 70 << 20);
    let recording = yard.only_recording();
    let bulk = recording.of("bulk");
    let counted: u64 = bulk.iter().map(|event| event["length"].as_u64().unwrap()).sum();
    assert_eq!(recording.bytes("output").len() as u64 + counted, 70 << 20, "{bulk:?}");
    use sha2::Digest;
    let zeros: String = sha2::Sha256::digest(vec![0; 1 << 20]).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(bulk.iter().any(|event| event["sha256"] == zeros && event["length"] == 1 << 20), "{bulk:?}");
    assert_eq!(recording.of("header")[0]["bulk_after"], 64 << 20);
}

/// "connection, login accepted ..., session open and close, exec": one session's life, under one id, in order.
#[test]
fn a_sessions_life_is_in_the_audit() {
    let yard = Yard::new().user("alice").config("users.groups = { ops = ['alice'] }").start();
    yard.ssh("alice").run("true").ok();
    let closed = yard.audit().wait_for("SK2002I", |_| true);
    let session = &closed["session"]["uid"];
    let events = yard.audit().events();
    let at = |code: &str| {
        events.iter().position(|event| event["metadata"]["event_code"] == code).unwrap_or_else(|| panic!("no {code}"))
    };
    let _ = ["SK8001I", "SK7001I", "SK1001I"].map(at);
    let order = ["SK1003I", "SK2001I", "SK2003I", "SK2004I", "SK2002I"].map(at);
    assert!(order.is_sorted(), "{order:?}");
    let login = &events[at("SK1003I")];
    assert_eq!(login["unmapped"]["groups"], json!(["ops"]));
    assert!(login["unmapped"]["key"].as_str().unwrap().starts_with("SHA256:"));
    assert!(login["unmapped"]["client"].as_str().unwrap().starts_with("SSH-2.0-OpenSSH"));
    for code in ["SK2001I", "SK2003I", "SK2004I", "SK3001I"] {
        assert_eq!(&events[at(code)]["session"]["uid"], session, "{code}");
    }
    assert_eq!(events[at("SK2004I")]["exit_code"], 0);
}

/// "with ... sequence number": without a gap, over a restart too.
#[test]
fn sequence_numbers_have_no_gap() {
    let yard = Yard::new().user("alice").start();
    yard.ssh("alice").run("true").ok();
    yard.audit().wait_for("SK2002I", |_| true);
    yard.stop();
    yard.restart();
    yard.ssh("alice").run("true").ok();
    until("the second session's end", || (yard.audit().of("SK2002I").len() == 2).then_some(()));
    let numbers: Vec<u64> =
        yard.audit().events().iter().map(|event| event["metadata"]["sequence"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

/// Hostile text in a user name or a command cannot break a line or a terminal.
#[test]
fn hostile_text_stays_on_its_line() {
    let yard = Yard::new().user("alice").start();
    yard.ssh("alice").run("echo \u{1b}[2J\n\u{202e}x; true '\u{7}'").ok();
    yard.audit().wait_for("SK2002I", |_| true);
    let text = std::fs::read_to_string(yard.path("audit/audit.jsonl")).unwrap();
    assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'));
}

/// The default: the audit file lies in the state's directory, which is root's. Only the file is the keeper's.
#[test]
fn the_audit_may_lie_in_a_directory_of_roots() {
    use std::os::unix::fs::MetadataExt;
    let plan = Yard::new().user("alice");
    let file = plan.path("state/audit.jsonl");
    let yard = plan.config(&format!("audit.file = '{}'", file.display())).start();
    assert_eq!(yard.ssh("alice").run("echo in").ok(), "in");
    yard.audit().wait_for("SK2002I", |_| true);
    let (directory, about) = (std::fs::metadata(yard.path("state")).unwrap(), std::fs::metadata(&file).unwrap());
    assert_eq!((directory.uid(), directory.mode() & 0o022), (0, 0));
    assert_ne!(about.uid(), 0);
    assert_eq!(about.mode() & 0o777, 0o640);
    yard.stop();
    yard.restart();
    yard.ssh("alice").run("true").ok();
    until("the second session's end", || (yard.audit().of("SK2002I").len() == 2).then_some(()));
}

/// "The keeper alone writes recordings and audit": by their owner and mode.
#[test]
fn recordings_and_audit_are_the_keepers_alone() {
    use std::os::unix::fs::MetadataExt;
    let yard = Yard::new().user("alice").start();
    yard.ssh("alice").run("true").ok();
    let recording = yard.only_recording();
    let keeper = std::fs::metadata(yard.path("recordings")).unwrap().uid();
    assert_ne!(keeper, 0);
    for file in recording.files().into_iter().chain([yard.path("audit/audit.jsonl")]) {
        let about = std::fs::metadata(&file).unwrap();
        assert_eq!((about.uid(), about.mode() & 0o027), (keeper, 0), "{}", file.display());
    }
}

/// A small file system of its own for recordings.
pub struct Small(tempfile::TempDir);

impl Small {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("stockade", directory.path(), "tmpfs", flags, c"size=32m").unwrap();
        Self(directory)
    }

    pub fn config(&self) -> String {
        format!(
            "recording.directory = '{}'\nrecording.warn_at = 60\nrecording.refuse_at = 80\nrecording.end_at = 90",
            self.0.path().display()
        )
    }

    /// Something else takes this much of it.
    pub fn fill(&self, mebibytes: usize) {
        // As much of it as there is room for.
        let _ = std::fs::write(self.0.path().join("filler"), vec![0; mebibytes << 20]);
    }

    pub fn recording(&self, session: &str) -> Recording {
        Recording::new(self.0.path().to_owned(), session)
    }

    /// As an operator does who has moved it elsewhere.
    pub fn remove(&self, recording: &Recording) {
        recording.files().iter().for_each(|file| std::fs::remove_file(file).unwrap());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// "Space: ... refuse": no recording, no session, and the user is told so; space again, sessions again.
#[test]
fn a_full_disk_refuses_sessions() {
    let small = Small::new();
    let yard = Yard::new().user("alice").config(&small.config()).start();
    yard.ssh("alice").run("true").ok();
    small.fill(27);
    let refused = until("a refusal", || {
        let ran = yard.ssh("alice").run("echo in");
        (ran.code != Some(0)).then_some(ran)
    });
    assert_eq!((refused.code, refused.text()), (Some(254), String::new()), "{}", refused.stderr);
    assert!(refused.stderr.contains("record"), "{}", refused.stderr);
    yard.audit().wait_for("SK6001W", |_| true);
    small.fill(0);
    until("sessions again", || (yard.ssh("alice").run("true").code == Some(0)).then_some(()));
}

/// "Space: ... end": a running session ends with a sentence, and its recording has its last frame.
#[test]
fn a_disk_that_fills_up_ends_sessions() {
    let small = Small::new();
    let yard = Yard::new().user("alice").config(&small.config()).start();
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    terminal.shell("echo before");
    small.fill(30);
    terminal.wait_for("recording is no longer possible|disk is full");
    assert_eq!(terminal.end(), 254);
    let closed = yard.audit().wait_for("SK2002I", |_| true);
    assert!(closed["unmapped"]["reason"].as_str().unwrap().contains("recording"), "{closed}");
    small.fill(0);
    yard.stop();
    let listed = std::process::Command::new(crate::yard::STOCKADE)
        .args(["session", "list", "--json", "--directory"])
        .arg(small.0.path())
        .output()
        .unwrap();
    let entry: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(entry["state"], "closed", "{entry}");
}

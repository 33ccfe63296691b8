//! Issue item 2: "exec without PTY (stdout and stderr apart, exact exit status, exit-signal, half-close so `tar | ssh |
//! tar` works, binary safe), env allow-list, signals, several sessions on one connection sharing one jail".

use std::process::Command;

use sha2::{Digest, Sha256};

use crate::yard::{Yard, spawn_with, until};

/// Bytes of every value in no order that a terminal or a codec would like.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// "exact exit status"
#[test]
fn exit_statuses_are_exact() {
    let yard = Yard::new().user("alice").start();
    for status in [0, 1, 2, 42, 127, 254] {
        assert_eq!(yard.ssh("alice").run(&format!("exit {status}")).code, Some(status));
    }
    let missing = yard.ssh("alice").run("no-such-program");
    assert_eq!(missing.code, Some(127), "{}", missing.stderr);
}

/// "stdout and stderr apart"
#[test]
fn output_and_errors_are_apart() {
    let yard = Yard::new().user("alice").start();
    let ran = yard.ssh("alice").run("echo out; echo err >&2; echo out again");
    assert_eq!(ran.stdout, b"out\nout again\n");
    assert_eq!(ran.stderr, "err\n");
    assert_eq!(ran.code, Some(0));
}

/// "exit-signal": the client is told the signal's name; OpenSSH's says it with -v and exits with 255.
#[test]
fn a_death_by_signal_is_told_as_one() {
    let yard = Yard::new().user("alice").start();
    let ran = yard.ssh("alice").arg("-v").run("kill -TERM $$");
    assert!(ran.stderr.contains("exit-signal"), "{}", ran.stderr);
    assert_eq!(ran.code, Some(255), "{}", ran.stderr);
}

/// "half-close": a reader of standard input sees its end, and its output still comes.
#[test]
fn the_end_of_input_is_passed_on() {
    let yard = Yard::new().user("alice").start();
    assert_eq!(yard.ssh("alice").input("b\na\n").run("sort; echo done").ok(), "a\nb\ndone");
    assert_eq!(yard.ssh("alice").input("").run("wc -c").ok(), "0");
}

/// "half-close so `tar | ssh | tar` works"
#[test]
fn tar_through_ssh_is_whole() {
    let yard = Yard::new().user("alice").start();
    let tree = yard.path("tree");
    std::fs::create_dir_all(tree.join("deep/er")).unwrap();
    for (name, bytes) in [("a", &b"a"[..]), ("deep/b", &noise(300_000)), ("deep/er/c", b"")] {
        std::fs::write(tree.join(name), bytes).unwrap();
    }
    let packed = Command::new("tar").args(["-C", tree.to_str().unwrap(), "-c", "."]).output().unwrap().stdout;
    let returned = yard.ssh("alice").input(packed).run("mkdir t && tar -x -C t && tar -c -C t .");
    assert_eq!(returned.code, Some(0), "{}", returned.stderr);
    let back = yard.path("back");
    std::fs::create_dir(&back).unwrap();
    let mut unpack = Command::new("tar");
    unpack.args(["-C", back.to_str().unwrap(), "-x"]);
    assert_eq!(spawn_with(unpack, Some(returned.stdout)).wait().code, Some(0));
    let same = Command::new("diff").arg("-r").args([&tree, &back]).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
}

/// "binary safe": ten megabytes each way.
#[test]
fn ten_megabytes_of_noise_pass_both_ways() {
    let yard = Yard::new().user("alice").start();
    let sent = noise(10 << 20);
    let returned = yard.ssh("alice").input(sent.clone()).run("tee /dev/stderr | sha256sum >&2; true");
    assert_eq!(returned.code, Some(0));
    let told = yard.ssh("alice").input(sent.clone()).run("sha256sum");
    assert_eq!(told.ok().split_whitespace().next(), Some(&*sha256(&sent)));
    let echoed = yard.ssh("alice").input(sent.clone()).run("cat");
    assert_eq!(echoed.stdout.len(), sent.len());
    assert_eq!(sha256(&echoed.stdout), sha256(&sent));
}

/// "env allow-list": LANG and LC_* pass, nothing else, and nothing hides what the jail says of itself.
#[test]
fn only_listed_variables_pass() {
    let yard = Yard::new().user("alice").config("ssh.env = ['LANG', 'LC_*']").start();
    let ran = yard
        .ssh("alice")
        .env("LANG", "C.UTF-8")
        .env("LC_TIME", "C")
        .env("LD_PRELOAD_X", "no")
        .env("HOME_X", "no")
        .env("AWS_PROFILE", "no")
        .option("SendEnv=LANG LC_* LD_PRELOAD_X HOME_X AWS_PROFILE")
        .option("SetEnv=USER=root HOME=/root LD_PRELOAD=/x.so")
        .run("env");
    let env = ran.ok();
    let has = |line: &str| env.lines().any(|one| one == line);
    assert!(has("LANG=C.UTF-8") && has("LC_TIME=C"), "{env}");
    assert!(!env.contains("_X=") && !env.contains("AWS_PROFILE") && !env.contains("LD_PRELOAD"), "{env}");
    assert!(has("USER=alice") && has("HOME=/home/alice") && has("LOGNAME=alice"), "{env}");
}

/// "several sessions on one connection sharing one jail"; another connection has a jail of its own.
#[test]
fn sessions_of_one_connection_share_a_jail() {
    let yard = Yard::new().user("alice").start();
    let path = format!("ControlPath={}", yard.path("mux").display());
    let mut master = yard.ssh("alice").option("ControlMaster=yes").option(&path).input("").begin("sleep 60");
    until("the master's socket", || yard.path("mux").exists().then_some(()));
    let over = |command: &str| yard.ssh("alice").option(&path).run(command).ok();
    over("echo kept > /tmp/note; sleep 0");
    assert_eq!(over("cat /tmp/note"), "kept");
    assert_eq!(yard.ssh("alice").run("ls /tmp").ok(), "", "a second connection has another jail");
    let exit = yard.ssh("alice").option(&path).arg("-O").arg("exit").run("");
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    until("the master's end", || (!master.is_running()).then_some(()));
    master.wait();
    let channels = yard.sessions().iter().map(|one| one["channels"].as_u64().unwrap()).max();
    assert_eq!(channels, Some(3), "all in one recording");
}

/// "signals": OpenSSH's client sends none, so a closed connection is one here: the program is hung up with its jail.
#[test]
fn a_lost_client_takes_its_jail_along() {
    let yard = Yard::new().user("alice").start();
    let mut client = yard.ssh("alice").input("").begin("sleep 1000");
    yard.audit().wait_for("SK2003I", |_| true);
    client.kill();
    client.wait();
    yard.audit().wait_for("SK2002I", |event| event["user"]["name"] == "alice");
}

/// Commands that no shell could run are refused with a sentence.
#[test]
fn bad_commands_are_refused_with_a_sentence() {
    let yard = Yard::new().user("alice").start();
    let long = yard.ssh("alice").run(&"x".repeat(70_000));
    assert_eq!(long.code, Some(1), "{}", long.stderr);
    assert!(long.stderr.contains("longer than 64 KiB"), "{}", long.stderr);
}

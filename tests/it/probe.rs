//! Issue 4, item 5: "`stockade probe`, run inside a jail, tries the escape list ... and prints what held; it is a test and
//! a feature."

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::yard::{STOCKADE, Yard, until};

/// The stable names; `!` marks what gives way to root outside of a jail on any kernel, which proves that it can fail.
const NAMES: &str = include_str!("probe.txt");

fn names() -> impl Iterator<Item = (&'static str, bool)> {
    NAMES.lines().map(|line| match line.strip_suffix(" !") {
        Some(name) => (name, true),
        None => (line, false),
    })
}

/// What was found of each check, and whether it held.
fn answers(said: &str) -> BTreeMap<String, (bool, String)> {
    let answer = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        (text("check"), (line["held"].as_bool().unwrap(), format!("{}: {}", text("tried"), text("found"))))
    };
    said.lines().map(answer).collect()
}

fn gave_way(answers: &BTreeMap<String, (bool, String)>) -> Vec<String> {
    answers.iter().filter(|(_, (held, _))| !held).map(|(name, (_, found))| format!("{name}: {found}")).collect()
}

/// With pipes, and in a terminal, where there are ways more.
#[test]
fn every_way_out_of_a_jail_is_shut() {
    let yard = Yard::new().user("alice").start();
    let ran = yard.ssh("alice").run("command stockade probe --json");
    let answers = answers(&ran.text());
    assert_eq!(gave_way(&answers), Vec::<String>::new(), "{}", ran.stderr);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let named: Vec<&str> = names().map(|(name, _)| name).collect();
    let missing: Vec<&&str> = named.iter().filter(|name| !answers.contains_key(**name)).collect();
    let unnamed: Vec<&String> = answers.keys().filter(|name| !named.contains(&name.as_str())).collect();
    assert!(missing.is_empty() && unnamed.is_empty(), "missing: {missing:?}, not in probe.txt: {unnamed:?}");
    // These are refused by the jail and not by a kernel that lacks them.
    for (check, found) in [("abi-x32", "killed"), ("abi-i386", "killed"), ("notify-second", "already")] {
        assert!(answers[check].1.contains(found), "{check}: {}", answers[check].1);
    }
    let mut terminal = yard.ssh("alice").terminal();
    terminal.prompt();
    let said = terminal.shell("stockade probe; echo status $?");
    assert!(said.ends_with("status 0") && !said.contains("GAVE WAY"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("held ")).count(), named.len(), "{said}");
}

/// Where there is no jail, root is let through: each check marked `!` can fail.
#[test]
fn outside_a_jail_ways_are_open() {
    let refused = Command::new(STOCKADE).arg("probe").stdin(Stdio::null()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("not the inside of a jail") && said.contains("--anyway"), "{said}");
    assert!(refused.stdout.is_empty());

    // In namespaces that end with it, and with something to be found in them.
    let around = r#"
import fcntl, socket, struct, subprocess, sys
inet, unix = socket.socket(), socket.socket(socket.AF_UNIX)
fcntl.ioctl(inet, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS: up
inet.bind(("127.0.0.1", 80)); inet.listen()
unix.bind(b"\0containerd-shim"); unix.listen()
subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
path = socket.socket(socket.AF_UNIX)
path.bind("/run/docker.sock"); path.listen()
sys.exit(subprocess.run([sys.argv[1], "probe", "--anyway", "--json"]).returncode)
"#;
    let ran = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "--mount-proc"])
        .args(["python3", "-c", around, STOCKADE])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(1));
    let answers = answers(&String::from_utf8(ran.stdout).unwrap());
    let said = String::from_utf8(ran.stderr).unwrap();
    let held: Vec<&str> = names().filter(|(name, open)| *open && answers[*name].0).map(|(name, _)| name).collect();
    assert!(held.is_empty(), "these cannot fail: {held:?}");
    assert!(names().filter(|(_, open)| *open).count() >= 120);
    for (name, _) in names().filter(|(_, open)| *open) {
        assert!(said.contains(name), "{name} is not named on stderr: {said}");
    }
    assert_eq!(answers.len(), names().count());
}

/// CVE-2019-5736 and CVE-2024-21626: whoever enters a living jail can neither be looked into nor reached through, from
/// its first moment until it is the user's own program.
#[test]
fn nobody_is_caught_entering_a_jail() {
    let yard = Yard::new().user("alice").start();
    let watch = r#"
import os, sys
caught, tries = set(), 0
def inside(path):
    return path.startswith("/") and os.path.lexists(path.removesuffix(" (deleted)"))
while not os.path.exists("/tmp/stop"):
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        tries += 1
        for name in ("exe", "cwd", "root"):
            try:
                path = os.readlink(f"/proc/{pid}/{name}")
                if not inside(path) or name == "exe" and path == "/usr/local/bin/stockade":
                    caught.add(f"{name} is {path}")
            except OSError:
                pass
        try:
            with open(f"/proc/{pid}/exe", "r+b"):
                caught.add("exe was opened for writing")
        except OSError:
            pass
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                path = os.readlink(f"/proc/{pid}/fd/{fd}")
                if path.startswith("/") and not inside(path):
                    caught.add(f"{fd} is {path}")
        except OSError:
            pass
    if tries and not os.path.exists("/tmp/watching"):
        open("/tmp/watching", "w").close()
print(tries, sorted(caught))
"#;
    yard.ssh("alice").input(watch).run("cat > ~/watch.py").ok();
    let path = format!("ControlPath={}", yard.path("mux").display());
    let watcher =
        yard.ssh("alice").option("ControlMaster=yes").option(&path).input("").begin("exec python3 ~/watch.py");
    until("the master's socket", || yard.path("mux").exists().then_some(()));
    let over = |command: &str| yard.ssh("alice").option(&path).option("ControlMaster=no").run(command).ok();
    over("until [ -e /tmp/watching ]; do :; done");
    for _ in 0..40 {
        over("true");
    }
    over(": > /tmp/stop");
    let said = watcher.wait().ok();
    assert!(said.ends_with(" []"), "{said}");
    let tries: usize = said.split(' ').next().unwrap().parse().unwrap();
    assert!(tries > 1000, "the watcher looked only {tries} times");
}

//! Issue item "Clients": whichever SSH client an engineer has, the bastion is a whole one to it. One row a client.
//!
//! Tests with "soak" in their names pass 5 GB each way instead of 32 MiB under `tests/run --soak`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::yard::{Output, Terminal, Yard, spawn_with, until};

/// What is asked of a client beside a command to run.
#[derive(Clone, Copy, Default)]
struct Wish {
    terminal: bool,
    /// Change keys after a MiB.
    rekey: bool,
    /// Send this when the first output has come.
    signal: Option<&'static str>,
}

struct Client {
    name: &'static str,
    line: fn(&Yard, Wish) -> Vec<String>,
    /// It sets its own terminal to raw, as a program for people does.
    raw: bool,
    /// It can send signals.
    signals: bool,
    /// How it ends, and what it says, when its program died of SIGTERM. Dropbear does not look at that message.
    death: (i32, &'static str),
    /// What it says at each change of keys, if it can be told to make one and to speak of it.
    rekeyed: Option<&'static str>,
}

const CLIENTS: &[Client] = &[
    Client {
        name: "OpenSSH",
        line: openssh,
        raw: true,
        signals: false,
        death: (255, ""),
        rekeyed: Some("SSH2_MSG_KEXINIT received"),
    },
    Client { name: "dropbear", line: dropbear, raw: true, signals: false, death: (0, ""), rekeyed: None },
    Client {
        name: "plink",
        line: plink,
        raw: true,
        signals: false,
        death: (128, ""),
        rekeyed: Some("Initiating key re-exchange"),
    },
    Client {
        name: "libssh",
        line: |yard, wish| ours(yard, &["ssh-libssh"], wish),
        raw: false,
        signals: true,
        death: (255, "signal TERM"),
        rekeyed: None,
    },
    Client {
        name: "x/crypto/ssh",
        line: |yard, wish| ours(yard, &["ssh-go"], wish),
        raw: false,
        signals: true,
        death: (255, "signal TERM"),
        rekeyed: None,
    },
    Client {
        name: "asyncssh",
        line: |yard, wish| ours(yard, &["python/bin/python", "with_asyncssh.py"], wish),
        raw: false,
        signals: true,
        death: (255, "signal TERM"),
        rekeyed: None,
    },
    Client {
        name: "paramiko",
        line: |yard, wish| ours(yard, &["paramiko", "with_paramiko.py"], wish),
        raw: false,
        signals: true,
        death: (255, ""),
        rekeyed: None,
    },
];

/// All, or the one that `$STOCKADE_CLIENT` names.
fn clients() -> impl Iterator<Item = &'static Client> {
    let only = std::env::var("STOCKADE_CLIENT").ok();
    CLIENTS.iter().filter(move |client| only.as_deref().is_none_or(|name| name == client.name))
}

/// Where `tests/clients/build` has put what it made.
pub fn built() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| output(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/build")).into()).clone()
}

/// The one line that a program prints.
fn output(program: &str) -> String {
    let ran = Command::new(program).output().unwrap();
    assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new(program).args(arguments).output().unwrap();
    assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

fn path(yard: &Yard, name: &str) -> String {
    yard.path(name).display().to_string()
}

fn openssh(yard: &Yard, wish: Wish) -> Vec<String> {
    let mut ssh = yard.ssh("alice");
    if wish.terminal {
        ssh = ssh.arg("-tt");
    }
    if wish.rekey {
        ssh = ssh.option("RekeyLimit=1M").arg("-v");
    }
    ssh.line(&[])
}

/// It has no option for the keys' life.
fn dropbear(yard: &Yard, wish: Wish) -> Vec<String> {
    let (key, home) = (path(yard, "alice.dropbear"), yard.path(".ssh"));
    if !home.exists() {
        run("dropbearconvert", &["openssh", "dropbear", &path(yard, "alice"), &key]);
        let public = std::fs::read_to_string(yard.path("host_ed25519.pub")).unwrap();
        std::fs::create_dir(&home).unwrap();
        // Without the comment, which it would take for a part of the key.
        let public = public.rsplit_once(' ').unwrap().0;
        std::fs::write(home.join("known_hosts"), format!("127.0.0.1 {public}\n")).unwrap();
    }
    let port = yard.port().to_string();
    let mut line = ["dbclient", "-p", &port, "-l", "alice", "-i", &key].map(str::to_owned).to_vec();
    line.extend(wish.terminal.then(|| "-t".to_owned()));
    line.push("127.0.0.1".into());
    line
}

fn plink(yard: &Yard, wish: Wish) -> Vec<String> {
    let (key, sessions) = (path(yard, "alice.ppk"), yard.path(".putty/sessions"));
    if !sessions.exists() {
        run("puttygen", &[&path(yard, "alice"), "-O", "private", "-o", &key]);
        std::fs::create_dir_all(&sessions).unwrap();
        std::fs::write(sessions.join("rekey"), "RekeyBytes=1M\n").unwrap();
        std::fs::write(sessions.join("usual"), "TerminalType=xterm-256color\n").unwrap();
    }
    let told = run("ssh-keygen", &["-lf", &path(yard, "host_ed25519.pub")]);
    let fingerprint = told.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap();
    let (port, session) = (yard.port().to_string(), if wish.rekey { "rekey" } else { "usual" });
    let mut line = ["plink", "-batch", "-load", session, "-ssh", "-P", &port, "-i", &key, "-hostkey", fingerprint]
        .map(str::to_owned)
        .to_vec();
    line.extend(wish.terminal.then(|| "-t".to_owned()));
    line.extend(wish.rekey.then(|| "-v".to_owned()));
    line.push("alice@127.0.0.1".into());
    line
}

/// The clients of `tests/clients`, which all take the same arguments.
fn ours(yard: &Yard, program: &[&str], wish: Wish) -> Vec<String> {
    let mut line = match program {
        ["paramiko", ..] => vec![output(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/venv"))],
        [program, ..] => vec![built().join(program).display().to_string()],
        [] => Vec::new(),
    };
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/python");
    line.extend(program.get(1).map(|script| format!("{scripts}/{script}")));
    let (port, key, known) = (yard.port().to_string(), path(yard, "alice"), path(yard, "known_hosts"));
    line.extend(["--port", &port, "--user", "alice", "--key", &key, "--known-hosts", &known].map(str::to_owned));
    line.extend(wish.rekey.then(|| ["--rekey", "1048576"].map(str::to_owned)).into_iter().flatten());
    line.extend(wish.terminal.then(|| "--pty".to_owned()));
    line.extend(wish.signal.map(|name| ["--signal", name].map(str::to_owned)).into_iter().flatten());
    line
}

impl Client {
    /// Runs a command in a jail through a script of the host's bash, in which `"$@"` is the client.
    #[track_caller]
    fn script(&self, yard: &Yard, wish: Wish, script: &str, command: &str, patience: Duration) -> Output {
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("set -o pipefail; {script}"), "bash"]);
        // A client that hangs would hold its output open past the script's end.
        bash.args(["timeout", "--signal=KILL", &patience.as_secs().to_string()]);
        bash.args((self.line)(yard, wish)).arg(command);
        bash.env_clear().envs(environment(yard)).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let ran = spawn_with(bash, None).wait_at_most(patience + Duration::from_secs(10));
        println!("{}: {command}: {:?}", self.name, ran.code);
        ran
    }

    #[track_caller]
    fn run(&self, yard: &Yard, input: &str, command: &str) -> Output {
        let script = format!("printf '{input}' | \"$@\"");
        self.script(yard, Wish::default(), &script, command, Duration::from_secs(60))
    }

    fn terminal(&self, yard: &Yard) -> Terminal {
        let mut line = (self.line)(yard, Wish { terminal: true, ..Wish::default() });
        if !self.raw {
            line.splice(0..0, ["sh", "-c", "stty raw -echo; exec \"$@\"", "sh"].map(str::to_owned));
        }
        let environment = environment(yard);
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Terminal::of(&line, &environment)
    }
}

/// Nothing of this machine's own settings, and nothing is written outside the yard.
fn environment(yard: &Yard) -> Vec<(&'static str, String)> {
    let home = path(yard, "");
    vec![("HOME", home), ("PUTTYDIR", path(yard, ".putty")), ("PYTHONDONTWRITEBYTECODE", "1".into())]
}

/// "exec, half-close": the program sees the end of its input, and all that it says comes after it.
#[test]
fn every_client_runs_commands() {
    let yard = Yard::new().user("alice").start();
    for client in clients() {
        let ran = client.run(&yard, r"b\na\n", "sort; echo done; echo err >&2; exit 42");
        assert_eq!((ran.text().as_str(), ran.code), ("a\nb\ndone", Some(42)), "{}: {}", client.name, ran.stderr);
        assert!(ran.stderr.contains("err"), "{}: {}", client.name, ran.stderr);
    }
}

/// "exit status", and output just before it.
#[test]
fn every_client_is_told_the_exact_exit_status() {
    let yard = Yard::new().user("alice").start();
    for client in clients() {
        for status in [0, 1, 127, 254] {
            let ran = client.run(&yard, "", &format!("head -c 300000 /dev/zero; exit {status}"));
            assert_eq!((ran.code, ran.stdout.len()), (Some(status), 300_000), "{}: {}", client.name, ran.stderr);
        }
    }
}

/// "signals": a program's death by one, and those that a client sends.
#[test]
fn every_client_is_told_a_death_by_signal_and_may_send_one() {
    let yard = Yard::new().user("alice").start();
    let trap = "trap 'echo got it; exit 5' USR1; echo ready; while :; do sleep 0.05; done";
    for client in clients() {
        let ran = client.run(&yard, "", "kill -TERM $$");
        assert_eq!(ran.code, Some(client.death.0), "{}: {}", client.name, ran.stderr);
        assert!(ran.stderr.contains(client.death.1), "{}: {}", client.name, ran.stderr);
        if client.signals {
            let wish = Wish { signal: Some("USR1"), ..Wish::default() };
            let ran = client.script(&yard, wish, "\"$@\"", trap, Duration::from_secs(60));
            assert_eq!((ran.text().as_str(), ran.code), ("ready\ngot it", Some(5)), "{}: {}", client.name, ran.stderr);
        }
    }
}

/// "shell": with the client's terminal, in both directions, to its exit status.
#[test]
fn every_client_has_a_shell() {
    let yard = Yard::new().user("alice").start();
    for client in clients() {
        println!("{}", client.name);
        let mut terminal = client.terminal(&yard);
        terminal.prompt();
        assert_eq!(
            terminal.shell("echo $TERM $(stty size); tty"),
            "xterm-256color 24 80\n/dev/pts/0",
            "{}",
            client.name
        );
        terminal.prompt();
        assert_eq!(terminal.shell("echo 'äöü — 日本語 🦀'"), "äöü — 日本語 🦀", "{}", client.name);
        terminal.prompt();
        terminal.enter("sleep 500");
        terminal.wait_for("sleep 500\r\n");
        yard.foreground("sleep 500");
        terminal.type_text("\u{3}");
        terminal.prompt();
        assert_eq!(terminal.shell("echo $?"), "130", "{}", client.name);
        terminal.prompt();
        terminal.enter("exit 6");
        assert_eq!(terminal.end(), 6, "{}", client.name);
        drop(terminal);
    }
    until("no jail", || (yard.audit().of("SK2002I").len() == clients().count()).then_some(()));
}

/// Under `tests/run --soak` as many bytes as broke peers, which did at 1.4 GB, and the time that takes.
fn soak() -> (u64, Duration) {
    match std::env::var_os("STOCKADE_SOAK") {
        Some(_) => (5_000_000_000, Duration::from_secs(3600)),
        None => (32 << 20, Duration::from_secs(120)),
    }
}

/// Lines that differ, so that nothing lost, doubled or moved can go unseen.
const LINES: &str = "seq 1 9999999999";

/// "rekey, 5 GB each way with a 1 MiB rekey limit": `script` for bash, `command` for the jail; what is printed begins
/// with the digest of the bytes.
fn transfer(way: &str, script: &str, command: &str) {
    let (length, patience) = soak();
    let fill = |text: &str| text.replace("BYTES", &format!("{LINES} | head -c {length}"));
    let expected = run("sh", &["-c", &fill("BYTES | sha256sum")]);
    let yard = Yard::new().user("alice").start();
    for client in clients() {
        let started = Instant::now();
        let wish = Wish { rekey: true, ..Wish::default() };
        let ran = client.script(&yard, wish, &fill(script), &fill(command), patience);
        assert_eq!((ran.text(), ran.code), (expected.trim().to_owned(), Some(0)), "{}: {}", client.name, ran.stderr);
        let (took, changes) =
            (started.elapsed().as_secs_f64(), client.rekeyed.map(|said| ran.stderr.matches(said).count()));
        println!("{}, {way}: {length} bytes in {took:.1} s, {changes:?} changes of keys", client.name);
        assert!(changes.is_none_or(|changes| changes as u64 >= length / (4 << 20)), "{}: {changes:?}", client.name);
    }
}

#[test]
fn soak_bytes_to_the_jail_are_whole_under_rekeying() {
    transfer("in", "\"$@\" < <(BYTES)", "sha256sum");
}

#[test]
fn soak_bytes_from_the_jail_are_whole_under_rekeying() {
    transfer("out", "\"$@\" | sha256sum", "BYTES");
}

#[test]
fn soak_bytes_both_ways_at_once_are_whole_under_rekeying() {
    transfer("both ways", "\"$@\" < <(BYTES) | sha256sum", "cat");
}

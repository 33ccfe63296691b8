//! "`demo -- CMD` runs CMD over ssh instead and exits with its status. Ctrl-C or logout leaves nothing running."

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::yard::{Output, STOCKADE, Slot, Terminal, leftovers_of, spawn_with, uid, until, within};

/// A demo with a directory, a port and a home of its own. The caches of the build stay the machine's.
struct Demo {
    directory: tempfile::TempDir,
    slot: Slot,
}

impl Demo {
    fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("demo-").tempdir().unwrap(), slot: Slot::take() }
    }

    fn place(&self) -> PathBuf {
        self.directory.path().join("demo")
    }

    fn line(&self) -> Vec<String> {
        let listen = format!("127.0.0.1:{}", self.slot.port());
        let place = self.place().display().to_string();
        [STOCKADE, "demo", "--directory", &place, "--listen", &listen].map(str::to_owned).to_vec()
    }

    /// An AWS identity of the machine's own is not for a test.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
        let cache = std::env::var("XDG_CACHE_HOME").ok().filter(|cache| !cache.is_empty());
        vec![
            ("HOME", self.directory.path().display().to_string()),
            ("XDG_CACHE_HOME", cache.unwrap_or_else(|| format!("{home}/.cache"))),
        ]
    }

    fn run(&self, command: &[&str]) -> Output {
        self.run_with(&[], command)
    }

    fn run_with(&self, options: &[&str], command: &[&str]) -> Output {
        let line = self.line();
        let mut demo = Command::new(&line[0]);
        demo.args(&line[1..]).args(options).arg("--").args(command);
        demo.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(self.environment());
        demo.stdin(Stdio::null());
        // The very first on a machine builds an image.
        spawn_with(demo, None).wait_at_most(Duration::from_secs(1800))
    }

    /// What of it is still on the host: processes by their users and command lines, and the rest.
    fn leftovers(&self) -> Vec<String> {
        let settings = std::fs::read_to_string(self.place().join("stockade.toml")).unwrap();
        let settings: toml::Table = settings.parse().unwrap();
        let roles: Vec<u32> = settings["roles"]
            .as_table()
            .unwrap()
            .values()
            .map(|account| account.as_str().unwrap().split(':').next().unwrap().parse().unwrap())
            .collect();
        let mut left = leftovers_of(&self.place().join("state"), |uid| roles.contains(&uid));
        let own = self.directory.path().as_os_str().as_encoded_bytes();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if line.windows(own.len()).any(|part| part == own) {
                left.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
        let run = stockade::jailer::instance_directory(&stockade::loader::instance(&self.place().join("state")));
        left.extend(Path::new(&run).exists().then_some(run));
        left
    }

    /// The shared configuration of the AWS SDKs.
    fn write_aws(&self, text: &str) {
        std::fs::create_dir_all(self.directory.path().join(".aws")).unwrap();
        std::fs::write(self.directory.path().join(".aws/config"), text).unwrap();
    }

    #[track_caller]
    fn is_gone(&self) {
        let left = || self.leftovers();
        let gone = within(Duration::from_secs(5), || left().is_empty().then_some(()));
        assert!(gone.is_some(), "left on the host: {:?}", left());
    }
}

#[test]
fn a_demo_runs_a_command_and_leaves_nothing() {
    let demo = Demo::new();
    let ran = demo.run(&["echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.stdout.as_slice()), (Some(7), &b"out\n"[..]), "{}", ran.stderr);
    assert!(ran.stderr.lines().any(|line| line == "err"), "{}", ran.stderr);
    demo.is_gone();

    // What cannot be used is said before anything is started, with what to do; the emulator does without it.
    demo.write_aws("[default]\ncredential_process = /bin/false\n");
    let ran = demo.run(&["true"]);
    assert_ne!(ran.code, Some(0));
    for word in ["credential_process of profile", ".aws/config", "--emulator"] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
    assert_eq!(demo.run_with(&["--emulator"], &["true"]).code, Some(0));
    demo.is_gone();
    demo.write_aws("[default]\nregion = eu-central-1\nsso_session = work\n");

    // On what the first one made; several words are a program and its arguments, and the emulator is there.
    let ran = demo.run(&["sh", "-c", "aws configure list | grep -c container-role; echo \"$1\"", "sh", "two  words"]);
    assert_eq!((ran.code, ran.stdout.as_slice()), (Some(0), &b"2\ntwo  words\n"[..]), "{}", ran.stderr);
    demo.is_gone();

    let environment = demo.environment();
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut shell = Terminal::of(&demo.line(), &environment);
    shell.wait_for("Log out to end all of it");
    shell.prompt();
    assert_eq!(shell.shell("id -un"), "alice");
    // A second one beside it is told so, and the first does not notice.
    let second = demo.run(&["true"]);
    assert!(second.code != Some(0) && second.stderr.contains("another demo runs"), "{second:?}");
    shell.enter("exit 5");
    assert_eq!(shell.end(), 5);
    demo.is_gone();

    let mut shell = Terminal::of(&demo.line(), &environment);
    shell.prompt();
    let bastion = std::fs::read_to_string(demo.place().join("bastion.pid")).unwrap().trim().parse().unwrap();
    assert_eq!(uid(bastion), 0);
    shell.interrupt();
    assert_eq!(shell.end(), 130);
    until("the bastion's end", || (uid(bastion) == u32::MAX).then_some(()));
    demo.is_gone();
}

/// "`demo --cluster` uses the same bed"
#[test]
fn a_demo_with_clusters_has_them_as_contexts_and_leaves_nothing() {
    let demo = Demo::new();
    let line = "kubectl config get-contexts -o name; kubectl --context pleiades get pods -A -o name; \
                kubectl --context hyades auth whoami -o jsonpath='{.status.userInfo.username}'";
    let ran = demo.run_with(&["--cluster"], &[line]);
    let said = ran.ok();
    assert!(said.starts_with("hyades\npleiades\npod/web\npod/web\nstockade:alice:"), "{said}");
    demo.is_gone();
    // Killed in the middle of its start, so that nobody can be told to end anything; the next one does without it.
    let line = demo.line();
    let mut killed = Command::new(&line[0]);
    killed.args(&line[1..]).args(["--cluster", "--", "true"]);
    killed.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(demo.environment());
    let mut killed = killed.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("a cluster that starts", || demo.place().join("clusters/hyades/pki").exists().then_some(()));
    killed.kill().unwrap();
    killed.wait().unwrap();
    demo.is_gone();
    assert_eq!(demo.run_with(&["--cluster"], &["kubectl get nodes"]).code, Some(0));
    demo.is_gone();
}

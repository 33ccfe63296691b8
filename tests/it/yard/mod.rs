//! A yard is a whole bastion of its own for one test: keys, a configuration, `stockade serve`, and real clients.
//!
//! ```ignore
//! let yard = Yard::new().user("alice").config("[jail]\npids = 64").start();
//! assert_eq!(yard.ssh("alice").run("id -un").ok(), "alice");
//! ```
//!
//! When it is dropped it is told to stop, and nothing of it may be left on the host.

mod client;
mod cluster;
mod evidence;
mod image;
mod laptop;
mod leftovers;
mod slot;
mod terminal;
mod wait;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use toml::{Table, Value};

pub use client::{Output, Ssh, spawn_with};
pub use cluster::{Cluster, Clusters, Plugin};
pub use evidence::{Audit, Recording};
pub use image::layout;
pub use laptop::{Laptop, certificate, with_clusters, with_public_door};
pub use leftovers::{children, descriptors, of as leftovers_of, status_of, uid};
use slot::JAILS;
pub use slot::Slot;
pub use terminal::Terminal;
pub use wait::{until, within};

/// What is tried: this build, or the shipped one that `tests/run` names.
pub const STOCKADE: &str = match option_env!("STOCKADE_BIN") {
    Some(shipped) => shipped,
    None => env!("CARGO_BIN_EXE_stockade"),
};

/// A yard that is not started yet.
pub struct Plan {
    directory: tempfile::TempDir,
    slot: Slot,
    settings: Table,
    environment: BTreeMap<String, String>,
    /// What a shell does before it becomes the bastion.
    before: String,
}

/// A running bastion.
pub struct Yard {
    plan: Plan,
    bastion: Mutex<Option<Child>>,
}

impl Yard {
    /// A bastion with all defaults but small jails and homes; clients from 127.0.0.1, which most tests' are, have no
    /// share and no penalties. Nobody may log in yet.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Plan {
        let directory = tempfile::Builder::new().prefix("yard-").tempdir().unwrap();
        let slot = Slot::take();
        let at = |name: &str| directory.path().join(name).display().to_string();
        keygen(&directory.path().join("host_ed25519"));
        std::fs::create_dir(directory.path().join("keys")).unwrap();
        std::fs::create_dir(directory.path().join("state")).unwrap();
        std::os::unix::fs::symlink(image::images(), directory.path().join("state/images")).unwrap();
        let [gate, warden, porter, keeper, tally] = slot.role_uids();
        let text = format!(
            "[listen]\nssh = ['127.0.0.1:{port}']\n[ssh]\nhost_keys = ['{host}']\nlinger = '1s'\nexempt = ['127.0.0.1']\n\
             [users]\nauthorized_keys = '{keys}'\n\
             [jail]\nhome_size = '32MiB'\nscratch_size = '16MiB'\nmax_jails = {JAILS}\nuid_base = {base}\n\
             [recording]\ndirectory = '{recordings}'\nwarn_at = 97\nrefuse_at = 98\nend_at = 99\n\
             [audit]\nfile = '{audit}'\n[state]\ndirectory = '{state}'\n\
             [roles]\ngate = '{gate}:{gate}'\nwarden = '{warden}:{warden}'\nporter = '{porter}:{porter}'\n\
             keeper = '{keeper}:{keeper}'\ntally = '{tally}:{tally}'\n",
            port = slot.port(),
            host = at("host_ed25519"),
            keys = at("keys"),
            base = slot.uid_base(),
            recordings = at("recordings"),
            audit = at("audit/audit.jsonl"),
            state = at("state"),
        );
        let known = std::fs::read_to_string(at("host_ed25519.pub")).unwrap();
        std::fs::write(at("known_hosts"), format!("[127.0.0.1]:{} {known}", slot.port())).unwrap();
        Plan { directory, slot, settings: text.parse().unwrap(), environment: BTreeMap::new(), before: String::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.plan.path(name)
    }

    pub fn port(&self) -> u16 {
        self.plan.slot.port()
    }

    pub fn uid_base(&self) -> u32 {
        self.plan.slot.uid_base()
    }

    pub fn ssh(&self, user: &str) -> Ssh<'_> {
        Ssh::new(self, user)
    }

    pub fn audit(&self) -> Audit {
        Audit::new(self.plan.audit())
    }

    /// What the bastion has said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The recordings, as `stockade session list --json` has them, oldest first.
    pub fn sessions(&self) -> Vec<serde_json::Value> {
        evidence::sessions(&self.path("recordings"))
    }

    pub fn recording(&self, session: &str) -> Recording {
        Recording::new(self.path("recordings"), session)
    }

    /// The recording of the only session there was, when it is closed.
    pub fn only_recording(&self) -> Recording {
        let session = until("one closed recording", || match self.sessions().as_slice() {
            [one] if one["state"] == "closed" => one["session"].as_str().map(str::to_owned),
            _ => None,
        });
        self.recording(&session)
    }

    /// The jailer's process.
    pub fn jailer(&self) -> u32 {
        self.bastion.lock().unwrap().as_ref().unwrap().id()
    }

    /// A role's process, by its title; a role that was just killed may not be back yet.
    pub fn role(&self, role: &str) -> u32 {
        until(&format!("a {role}"), || leftovers::role_of(self.jailer(), role))
    }

    /// Process 1 of each jail.
    pub fn inits(&self) -> Vec<u32> {
        let is_init = |pid: &u32| {
            std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.to_string_lossy().contains("memfd:"))
        };
        leftovers::children(self.jailer()).into_iter().filter(is_init).collect()
    }

    /// `kill -9` with nobody in its place for a second: who dies young is started with a pause.
    pub fn kill_for_a_while(&self, role: &str) {
        self.kill(role);
        signal(self.role(role), "KILL");
        until(&format!("no {role}"), || leftovers::role_of(self.jailer(), role).is_none().then_some(()));
    }

    /// `kill -9`, and gone; to a role its successor.
    pub fn kill(&self, role: &str) -> u32 {
        if role == "jailer" {
            let mut bastion = self.bastion.lock().unwrap();
            let mut child = bastion.take().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            return 0;
        }
        let old = self.role(role);
        signal(old, "KILL");
        until(&format!("another {role}"), || leftovers::role_of(self.jailer(), role).filter(|new| *new != old))
    }

    pub fn signal(&self, name: &str) {
        signal(self.jailer(), name);
    }

    /// Starts the bastion again, on the same state.
    pub fn restart(&self) {
        *self.bastion.lock().unwrap() = Some(self.plan.serve());
        self.plan.wait_for_port(self);
    }

    /// SIGTERM; what it ended with.
    pub fn stop(&self) -> Option<ExitStatus> {
        let mut child = self.bastion.lock().unwrap().take()?;
        signal(child.id(), "TERM");
        Some(until("the bastion's end", || child.try_wait().unwrap()))
    }

    /// Changes the configuration file; nobody is told.
    pub fn configure(&self, settings: &str) {
        let mut all = self.plan.settings.clone();
        merge(&mut all, settings.parse().unwrap());
        std::fs::write(self.path("stockade.toml"), all.to_string()).unwrap();
    }

    /// Lets a user in, or changes their keys: `options` stand before the key.
    pub fn authorize(&self, user: &str, options: &str) {
        self.plan.authorize(user, options);
    }

    /// Waits until a program of a jail runs and has its terminal.
    pub fn foreground(&self, line: &str) {
        let wanted = line.replace(' ', "\0") + "\0";
        until(&format!("{line} in the foreground"), || {
            leftovers::pids().into_iter().find(|pid| {
                let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line == wanted && leftovers::has_its_terminal(*pid) && self.plan.slot.owns(leftovers::uid(*pid))
            })
        });
    }

    /// What of this yard is still on the host.
    pub fn leftovers(&self) -> Vec<String> {
        leftovers::of(&self.path("state"), |uid| self.plan.slot.owns(uid))
    }
}

impl Plan {
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A user with a key of their own.
    pub fn user(self, name: &str) -> Self {
        self.user_with(name, "")
    }

    /// A user whose key has options before it.
    pub fn user_with(self, name: &str, options: &str) -> Self {
        self.authorize(name, options);
        self
    }

    fn authorize(&self, name: &str, options: &str) {
        let key = self.path(name);
        if !key.exists() {
            keygen(&key);
        }
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        self.write_keys(name, &format!("{options} {public}"));
    }

    /// A file of keys as it stands.
    pub fn write_keys(&self, name: &str, text: &str) {
        let file = self.path("keys").join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// Settings over the yard's own.
    pub fn config(mut self, settings: &str) -> Self {
        merge(&mut self.settings, settings.parse().unwrap());
        self
    }

    /// Lines of bash that run in the process that then becomes the bastion.
    pub fn before(mut self, lines: &str) -> Self {
        self.before = lines.into();
        self
    }

    fn audit(&self) -> PathBuf {
        self.settings["audit"]["file"].as_str().unwrap().into()
    }

    /// A variable of the bastion's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Writes the configuration; for tests that start nothing.
    pub fn write(&self) -> PathBuf {
        let file = self.path("stockade.toml");
        std::fs::write(&file, self.settings.to_string()).unwrap();
        file
    }

    pub fn start(self) -> Yard {
        self.write();
        let child = self.serve();
        let yard = Yard { plan: self, bastion: Mutex::new(Some(child)) };
        yard.plan.wait_for_port(&yard);
        yard
    }

    fn serve(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        // A test run that is killed takes its bastions with it.
        Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "bash", "-c", &format!("{}\nexec \"$@\"", self.before), "bash"])
            .args([STOCKADE, "serve", "--config"])
            .arg(self.path("stockade.toml"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn wait_for_port(&self, yard: &Yard) {
        until("an open port", || {
            let ended = yard.bastion.lock().unwrap().as_mut().and_then(|child| child.try_wait().unwrap());
            if let Some(status) = ended {
                panic!("the bastion ended with {status}: {}", yard.log());
            }
            TcpStream::connect(("127.0.0.1", self.slot.port())).ok()
        });
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        let stopped = {
            let mut bastion = self.bastion.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            bastion.take().map(|mut child| {
                signal(child.id(), "TERM");
                let ended = within(wait::DEADLINE, || child.try_wait().unwrap());
                if ended.is_none() {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                ended
            })
        };
        if std::thread::panicking() {
            let events = std::fs::read_to_string(self.plan.audit()).unwrap_or_default();
            let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
            let told = |event: serde_json::Value| format!("{} {}", event["metadata"]["event_code"], event["message"]);
            let events: Vec<String> = events.lines().filter_map(line).map(told).collect();
            eprintln!("---- the bastion said:\n{}---- and wrote:\n{}", self.log(), events.join("\n"));
            return;
        }
        if let Some(ended) = stopped {
            assert!(ended.is_some_and(|status| status.success()), "stopped with {ended:?}: {}", self.log());
            // The kernel frees a loop device a moment after its mount.
            let clean = within(Duration::from_secs(5), || self.leftovers().is_empty().then_some(()));
            assert!(clean.is_some(), "left on the host: {:?}\n{}", self.leftovers(), self.log());
        }
    }
}

fn merge(into: &mut Table, more: Table) {
    for (key, value) in more {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(value)) => merge(below, value),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

pub fn keygen(path: &Path) {
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path).status();
    assert!(made.unwrap().success());
}

/// As kill(1) does it.
pub fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Terminal, Yard, within};

/// The longest that a client may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call of OpenSSH's client, with nothing of this machine's own settings.
pub struct Ssh<'y> {
    yard: &'y Yard,
    user: String,
    key: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    input: Option<Vec<u8>>,
}

/// What became of it.
#[derive(Debug)]
pub struct Output {
    /// 255: ssh itself failed.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl<'y> Ssh<'y> {
    pub(super) fn new(yard: &'y Yard, user: &str) -> Self {
        let (key, user) = (yard.path(user), user.to_owned());
        Self { yard, user, key, arguments: Vec::new(), environment: Vec::new(), input: None }
    }

    pub fn key(mut self, key: PathBuf) -> Self {
        self.key = key;
        self
    }

    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn option(self, option: &str) -> Self {
        self.arg("-o").arg(option)
    }

    /// From another of the loopback's addresses: a source of its own.
    pub fn from(self, source: &str) -> Self {
        self.arg("-b").arg(source)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run(self, command: &str) -> Output {
        let input = self.input.clone();
        spawn_with(self.command(&[command]), input).wait()
    }

    /// Begins a command.
    pub fn begin(self, command: &str) -> Begun {
        let input = self.input.clone();
        spawn_with(self.command(&[command]), input)
    }

    /// A login shell in a terminal of 80 columns and 24 rows.
    pub fn terminal(self) -> Terminal {
        Terminal::of(&self.arg("-tt").line(&[]), &[])
    }

    /// A command in a terminal.
    pub fn terminal_of(self, command: &str) -> Terminal {
        Terminal::of(&self.arg("-tt").line(&[command]), &[])
    }

    pub fn command(&self, rest: &[&str]) -> Command {
        let line = self.line(rest);
        let mut command = Command::new("ssh");
        command.args(line.get(1..).unwrap()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The whole command line.
    pub fn line(&self, rest: &[&str]) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.yard.path("known_hosts").display());
        let mut line: Vec<String> =
            ["ssh", "-F", "none", "-p", &self.yard.port().to_string()].map(str::to_owned).to_vec();
        // The first value of an option counts, so a test's own come first.
        line.extend(self.arguments.iter().cloned());
        line.extend(["-i", &self.key.display().to_string()].map(str::to_owned));
        for option in [
            &known,
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
        ] {
            line.extend(["-o".into(), option.to_owned()]);
        }
        line.push(format!("{}@127.0.0.1", self.user));
        line.extend(rest.iter().map(|part| (*part).to_owned()));
        line
    }
}

/// A client that runs.
pub struct Begun {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

/// Starts any client with its output collected and its input, if there is any, fed and then closed.
pub fn spawn_with(mut command: Command, input: Option<Vec<u8>>) -> Begun {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), input) {
        std::thread::spawn(move || {
            // It may end before it has read all.
            let _ = pipe.write_all(&bytes);
        });
    }
    let (stdout, stderr) = (collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap()));
    Begun { child, stdout, stderr }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = pipe.read_to_end(&mut all);
        all
    })
}

impl Begun {
    #[track_caller]
    pub fn wait(self) -> Output {
        self.wait_at_most(PATIENCE)
    }

    #[track_caller]
    pub fn wait_at_most(mut self, patience: Duration) -> Output {
        let ended = within(patience, || self.child.try_wait().unwrap());
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let (stdout, stderr) = (self.stdout.join().unwrap(), self.stderr.join().unwrap());
        let output = Output {
            code: ended.and_then(|status| status.code()),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        };
        assert!(ended.is_some(), "a client did not end in {patience:?}: {output:?}");
        output
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Output {
    /// Standard output without its last newline; the command must have ended with 0.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {:?}, stderr: {}", self.text(), self.stderr);
        self.text()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

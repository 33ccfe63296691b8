//! The long steps of the set-up: run so that they end with us, and say how long they take.

use std::ffi::OsStr;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fs_err as fs;

use super::interrupt::Interrupt;

/// Steps shorter than this need no word.
const SHORT: Duration = Duration::from_secs(3);
/// Between two words where nobody sees a clock tick.
const STILL_THERE: u64 = 15;
/// Of the log, when a step fails.
const LAST_LINES: usize = 12;
/// How the scripts begin what they say.
const SAYING: [&str; 3] = ["image: ", "tools: ", "bed: "];
/// Of the log, in search of it.
const MOST_TOLD: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Steps<'a> {
    pub interrupt: &'a Interrupt,
    log: PathBuf,
    scratch: Scratch,
}

/// A directory for what the steps leave when they are killed; others may enter it, as apt's and dpkg's users must.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    /// By the demo's lock nobody else of ours uses it; what a stranger put there is not entered.
    fn make(&self) -> anyhow::Result<()> {
        self.clear();
        fs::create_dir(&self.0)?;
        Ok(fs::set_permissions(&self.0, std::fs::Permissions::from_mode(0o755))?)
    }

    fn clear(&self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<'a> Steps<'a> {
    /// `name` tells this demo's scratch directory from another's.
    pub(super) fn new(interrupt: &'a Interrupt, log: PathBuf, name: &str) -> Self {
        let scratch = Scratch(Path::new("/var/tmp").join(format!("stockade-demo-{name}")));
        Self { interrupt, log, scratch }
    }

    /// Runs a program to its end, in PID and mount namespaces of its own: whatever it starts or mounts goes with it, and
    /// it goes with us. Returns what it wrote to its standard output.
    pub(super) fn run(&self, what: &str, program: &Path, arguments: &[&OsStr]) -> anyhow::Result<String> {
        let output = self.log.with_extension("out");
        let told = Told { log: &self.log, from: fs::metadata(&self.log).map_or(0, |log| log.len()) };
        self.scratch.make()?;
        let mut unshare = dies_with_us("KILL", "unshare");
        unshare
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"])
            .arg(program)
            .args(arguments)
            .env("TMPDIR", &self.scratch.0)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&output)?.into_parts().0)
            .stderr(self.log()?)
            .process_group(0);
        let mut child = unshare.spawn().context("cannot run setpriv and unshare, of Debian's util-linux")?;
        let ended = self.wait(what, &told, &mut child);
        end(&mut child);
        self.scratch.clear();
        if !ended? {
            bail!("{what} failed; {} ends with:\n{}", self.log.display(), last_lines(&self.log));
        }
        Ok(fs::read_to_string(&output)?.trim_end().to_owned())
    }

    /// The log of all that is started.
    pub(super) fn log(&self) -> anyhow::Result<Stdio> {
        Ok(fs::OpenOptions::new().create(true).append(true).open(&self.log)?.into_parts().0.into())
    }

    /// Waits for something that becomes true while `child` runs; the child's end is a failure.
    pub(super) fn until(
        &self,
        what: &str,
        child: &mut Child,
        patience: Duration,
        mut holds: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let mut clock = Clock::new(what);
        while !holds() {
            if let Some(status) = self.interrupt.wait(child, Duration::from_millis(20))? {
                bail!("{what} failed ({status}); {} ends with:\n{}", self.log.display(), last_lines(&self.log));
            }
            if clock.begun.elapsed() > patience {
                bail!("{what} took more than {} s; see {}", patience.as_secs(), self.log.display());
            }
            clock.tick(|| None);
        }
        Ok(())
    }

    fn wait(&self, what: &str, told: &Told<'_>, child: &mut Child) -> anyhow::Result<bool> {
        let mut clock = Clock::new(what);
        loop {
            if let Some(status) = self.interrupt.wait(child, Duration::from_millis(250))? {
                return Ok(status.success());
            }
            clock.tick(|| told.last());
        }
    }
}

/// What a step writes to the log, from where it began.
struct Told<'a> {
    log: &'a Path,
    from: u64,
}

impl Told<'_> {
    /// The last line by which a script of ours says what it is at; most of a log is the words of others.
    fn last(&self) -> Option<String> {
        let mut log = fs::File::open(self.log).ok()?;
        let length = log.metadata().ok()?.len();
        log.seek(SeekFrom::Start(self.from.max(length.saturating_sub(MOST_TOLD)))).ok()?;
        let mut text = Vec::new();
        log.take(MOST_TOLD).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        let words = |line: &str| SAYING.iter().find_map(|name| line.strip_prefix(name)).map(str::to_owned);
        text.lines().rev().find_map(words)
    }
}

/// A command whose process gets this signal when ours is gone, however it went.
pub(super) fn dies_with_us(signal: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--"]).arg(program);
    command
}

/// Kills what is left of a child and forgets it.
pub(super) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

pub(super) fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    lines.iter().skip(from).map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Says on stderr what takes its time, and how much.
struct Clock<'a> {
    what: &'a str,
    begun: Instant,
    terminal: bool,
    shown: Option<u64>,
}

impl<'a> Clock<'a> {
    fn new(what: &'a str) -> Self {
        Self { what, begun: Instant::now(), terminal: std::io::stderr().is_terminal(), shown: None }
    }

    fn tick(&mut self, at: impl FnOnce() -> Option<String>) {
        let elapsed = self.begun.elapsed();
        let seconds = elapsed.as_secs();
        let due =
            self.shown.is_none_or(|shown| if self.terminal { seconds > shown } else { seconds >= shown + STILL_THERE });
        if elapsed < SHORT || !due {
            return;
        }
        self.shown = Some(seconds);
        let at = at().map_or(String::new(), |at| format!(": {at}"));
        self.say(&format!("{} … {seconds} s{at}", self.what), !self.terminal);
    }

    fn say(&self, text: &str, line: bool) {
        let mut stderr = std::io::stderr();
        let _ = match (self.terminal, line) {
            (true, true) => writeln!(stderr, "\r\x1b[K{text}"),
            (true, false) => write!(stderr, "\r\x1b[K{text}"),
            (false, _) => writeln!(stderr, "{text}"),
        };
        let _ = stderr.flush();
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        if self.shown.is_some() {
            self.say(&format!("{}: {} s", self.what, self.begun.elapsed().as_secs()), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_step_says_what_it_is_at() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("setup.log");
        fs::write(&log, "image: of the last time\n").unwrap();
        let told = Told { log: &log, from: fs::metadata(&log).unwrap().len() };
        assert_eq!(told.last(), None);
        let noise = "Get:1 http://archive image: no\n".repeat(40);
        fs::write(&log, format!("image: of the last time\nimage: tools\ntools: k9s, 5 of 5\n{noise}")).unwrap();
        assert_eq!(told.last().as_deref(), Some("k9s, 5 of 5"));
        fs::write(&log, format!("image: of the last time\ntools: far\n{}\u{fffd}", "x\n".repeat(70_000))).unwrap();
        assert_eq!(told.last(), None, "not all of it is searched");
    }
}

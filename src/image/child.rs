//! The unpacking process: `stockade image unpack`, its one side and the other.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::fs::{Mode, OFlags};

use super::layer::Limits;
use super::layout::Layout;
use super::unpack::unpack;
use super::{Error, Record, Result, fence};

pub(super) const RECORD: &str = "image.json";
pub(super) const ROOT: &str = "rootfs";
/// Marks the last line of a process that fails; all lines before it are progress.
const FAILED: &str = "refused: ";
/// Of a line that a captured process writes.
const LONGEST_LINE: u64 = 4096;
const MOST_LINES: usize = 2000;

/// How the hostile part of an import is run.
pub(super) enum Unpacker {
    /// A process of its own, of this program.
    Fenced(PathBuf),
    /// In this process.
    #[cfg(test)]
    Here,
}

/// The unpacking process itself: opens the image, shuts itself in, unpacks, leaves the record.
/// Its working directory is the directory to fill, its standard error goes to the importing process.
pub fn run(source: &Path, limits: Limits) -> std::process::ExitCode {
    let filled = fence::check_inherited().and_then(|()| Layout::open(source)).and_then(|layout| {
        fence::enter()?;
        fill(&layout, Path::new("."), limits, &mut |line| eprintln!("{line}"))
    });
    match filled {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{FAILED}{}", chain(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

/// Fills a directory: `rootfs` and the record of it.
fn fill(layout: &Layout, target: &Path, limits: Limits, say: &mut dyn FnMut(&str)) -> Result<()> {
    let root = target.join(ROOT);
    rustix::fs::mkdir(&root, Mode::RWXU).map_err(|errno| Error::file("make", &root)(errno.into()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&root, flags, Mode::empty());
    let opened = opened.map_err(|errno| Error::file("open", &root)(errno.into()))?;
    let record = unpack(layout, opened, limits, say)?;
    let path = target.join(RECORD);
    let text = serde_json::to_vec(&record).map_err(|error| Error::file("write", &path)(error.into()))?;
    std::fs::write(&path, text).map_err(Error::file("write", &path))
}

impl Unpacker {
    /// Fills an empty directory, and returns what was made of it.
    pub(super) fn run(
        &self,
        source: &Path,
        target: &Path,
        limits: Limits,
        say: &mut dyn FnMut(&str),
    ) -> Result<Record> {
        match self {
            Self::Fenced(program) => fenced(program, source, target, limits, say)?,
            #[cfg(test)]
            Self::Here => fill(&Layout::open(source)?, target, limits, say)?,
        }
        read_record(&target.join(RECORD))
    }
}

fn fenced(program: &Path, source: &Path, target: &Path, limits: Limits, say: &mut dyn FnMut(&str)) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NeedsRoot);
    }
    let source = std::fs::canonicalize(source).map_err(Error::file("open", source))?;
    std::os::unix::fs::chown(target, Some(fence::OWNER), Some(fence::OWNER)).map_err(Error::file("give", target))?;
    let mut child = Command::new(program)
        .arg0("stockade: image unpack")
        .args(["image", "unpack", "--max-bytes", &limits.bytes.to_string()])
        .args(["--max-entries", &limits.entries.to_string()])
        .arg(&source)
        .current_dir(target)
        .env_clear()
        // In KiB; the default is a GiB, which is all that the fence leaves it.
        .env("MIMALLOC_ARENA_RESERVE", "16384")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::file("start", program))?;
    let reason = relay(&mut child, say);
    let status = child.wait().map_err(Error::file("wait for", program))?;
    std::os::unix::fs::chown(target, Some(0), Some(0)).map_err(Error::file("take back", target))?;
    if status.success() { Ok(()) } else { Err(Error::Child(reason.unwrap_or_else(|| ended(status)))) }
}

/// Hands progress on, and returns why the process failed if it said so.
fn relay(child: &mut Child, say: &mut dyn FnMut(&str)) -> Option<String> {
    let mut lines = BufReader::new(child.stderr.take()?);
    let mut reason = None;
    for _ in 0..MOST_LINES {
        let mut line = Vec::new();
        match lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return reason,
            Ok(_) => {}
        }
        // Whoever wrote this has read hostile bytes: no control characters to the terminal.
        let line: String = String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect();
        match line.strip_prefix(FAILED) {
            Some(why) => reason = Some(why.to_owned()),
            None => say(&line),
        }
    }
    // It babbles; without a reader it ends at its next line.
    reason
}

fn ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("it was ended by signal {signal}, perhaps for want of memory"),
        None => "it gave no reason".into(),
    }
}

pub(super) fn read_record(path: &Path) -> Result<Record> {
    const MOST: u64 = 1 << 20;
    let damaged = || Error::Damaged { path: path.into() };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = std::fs::File::from(opened.map_err(|errno| Error::file("open", path)(errno.into()))?);
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text).map_err(Error::file("read", path))?;
    let record: Record = serde_json::from_slice(&text).map_err(|_| damaged())?;
    record.digest().map_err(|_| damaged())?;
    Ok(record)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text.replace('\n', " ")
}

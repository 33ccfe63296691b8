//! What a check is made of, and what counts as held.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use rustix::io::Errno;

use crate::sys::attempt::{Ended, call};
use crate::sys::clone::Alone;

/// One check.
#[derive(Debug)]
pub(super) struct Row {
    pub name: &'static str,
    /// What is tried, in a few words; empty where the attempt names a path, which says it.
    pub what: &'static str,
    pub attempt: Attempt,
}

/// What is tried.
#[derive(Debug)]
pub(super) enum Attempt {
    /// A system call, made by a child. It must be refused before the kernel looks at what it is about.
    Call(i64, &'static [Arg]),
    /// A file that must not be there, not be opened, or be the null device.
    Open(&'static str),
    /// The same, but reading nothing from it is enough.
    Read(&'static str),
    /// A file that must not be opened for writing. Nothing is written.
    Write(&'static str),
    /// A directory in which nothing may be seen.
    List(&'static str),
    Run(fn(&Alone) -> Found),
}

/// An argument of a call.
#[derive(Debug)]
pub(super) enum Arg {
    N(u64),
    Text(&'static CStr),
    Words(&'static [u64]),
    /// Room for an answer.
    Room,
}

/// The answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Held(String),
    GaveWay(String),
}

use Found::{GaveWay, Held};

impl Row {
    pub(super) fn tried(&self) -> String {
        match self.attempt {
            Attempt::Open(path) => format!("open {path}"),
            Attempt::Read(path) => format!("read {path}"),
            Attempt::Write(path) => format!("open {path} for writing"),
            Attempt::List(path) => format!("list {path}"),
            Attempt::Call(..) | Attempt::Run(_) => self.what.to_owned(),
        }
    }
}

impl Attempt {
    pub(super) fn run(&self, alone: &Alone) -> Found {
        match self {
            Self::Call(number, arguments) => {
                let room = vec![0_u8; 4096];
                let word = |argument: &Arg| match argument {
                    Arg::N(number) => *number,
                    Arg::Text(text) => text.as_ptr().addr() as u64,
                    Arg::Words(words) => words.as_ptr().addr() as u64,
                    Arg::Room => room.as_ptr().addr() as u64,
                };
                let mut words = [0; 6];
                words.iter_mut().zip(*arguments).for_each(|(place, argument)| *place = word(argument));
                tried(call(alone, *number, words))
            }
            Self::Open(path) => opened(path, false),
            Self::Read(path) => opened(path, true),
            Self::Write(path) => written(path),
            Self::List(path) => listed(path),
            Self::Run(check) => check(alone),
        }
    }
}

/// A call holds only where it is refused for want of rights, or unknown: any other error, of a bad address or a missing
/// file, is the answer of a kernel that took the call.
pub(super) fn tried(ended: io::Result<Ended>) -> Found {
    match ended {
        Ok(Ended::Done) => GaveWay("done".into()),
        Ok(Ended::Refused(libc::EPERM | libc::EACCES)) => Held("refused".into()),
        Ok(Ended::Refused(libc::ENOSYS)) => Held("unknown here".into()),
        Ok(Ended::Refused(errno)) => GaveWay(format!("the kernel took the call: {}", sentence(errno))),
        Ok(Ended::Killed(libc::SIGSYS)) => Held("killed for it".into()),
        Ok(Ended::Killed(signal)) => GaveWay(format!("ended by signal {signal}")),
        Err(error) => GaveWay(format!("could not be tried: {error}")),
    }
}

pub(super) fn sentence(errno: i32) -> String {
    io::Error::from(Errno::from_raw_os_error(errno)).to_string()
}

/// What an error of opening a path says about the jail.
pub(super) fn shut(error: &io::Error) -> Found {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Held("not there".into()),
        Some(libc::EACCES | libc::EPERM) => Held("refused".into()),
        Some(libc::EROFS) => Held("read-only".into()),
        _ => GaveWay(format!("the kernel went on to open it: {error}")),
    }
}

fn opened(path: &str, read: bool) -> Found {
    let mut file = match File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
        Ok(file) => file,
        Err(error) => return shut(&error),
    };
    let null = rustix::fs::makedev(1, 3);
    match file.metadata() {
        Ok(about) if about.file_type().is_char_device() && about.rdev() == null => return Held("hidden".into()),
        Ok(_) => {}
        Err(error) => return GaveWay(format!("opened: {error}")),
    }
    if !read {
        return GaveWay("opened".into());
    }
    match file.read(&mut [0; 64]) {
        Ok(0) => Held("empty".into()),
        Ok(_) => GaveWay("read".into()),
        Err(error) => shut(&error),
    }
}

/// Without O_CREAT and O_TRUNC: opening changes nothing.
fn written(path: &str) -> Found {
    match File::options().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path) {
        Ok(_) => GaveWay("opened".into()),
        Err(error) => shut(&error),
    }
}

fn listed(path: &str) -> Found {
    let mut entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return shut(&error),
    };
    match entries.next() {
        None => Held("empty".into()),
        Some(first) => {
            GaveWay(format!("it has {}", first.map_or_else(|e| e.to_string(), |f| f.path().display().to_string())))
        }
    }
}

/// The first thing that gave way of many, or what all of them say.
pub(super) fn all(found: impl IntoIterator<Item = Found>, held: &str) -> Found {
    found.into_iter().find(|one| matches!(one, GaveWay(_))).unwrap_or_else(|| Held(held.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_looked_at_the_arguments_has_given_way() {
        for errno in [libc::EFAULT, libc::EINVAL, libc::ENOENT, libc::EBADF, libc::EAFNOSUPPORT] {
            assert!(matches!(tried(Ok(Ended::Refused(errno))), GaveWay(_)), "{errno}");
        }
        assert!(matches!(tried(Ok(Ended::Refused(libc::EPERM))), Held(_)));
        assert!(matches!(tried(Ok(Ended::Killed(libc::SIGALRM))), GaveWay(_)), "no answer is no refusal");
        assert!(matches!(tried(Err(io::Error::other("no child"))), GaveWay(_)));
    }

    #[test]
    fn files_are_hidden_missing_or_open() {
        assert_eq!(opened("/dev/null", true), Held("hidden".into()));
        assert_eq!(opened("/proc/no-such", false), Held("not there".into()));
        assert_eq!(opened("/proc/self/status", true), GaveWay("read".into()));
        assert_eq!(written("/dev/full"), GaveWay("opened".into()));
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(listed(empty.path().to_str().unwrap()), Held("empty".into()));
        assert!(matches!(listed("/proc/self"), GaveWay(_)));
    }
}

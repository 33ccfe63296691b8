//! Signals by their names on the wire, RFC 4254 section 6.9 and 6.10.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Those that the RFC names, so that every client can say and show them; then the others that end programs.
const NAMES: [(&str, i32); 19] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("ABRT", libc::SIGABRT),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("BUS", libc::SIGBUS),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("SYS", libc::SIGSYS),
    ("IO", libc::SIGIO),
];

/// How many of `NAMES` a client may send.
const SENDABLE: usize = 13;

/// The number of a signal that a client may send.
pub(super) fn number(name: &str) -> Option<i32> {
    NAMES.iter().take(SENDABLE).find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Status(u32),
    Signal(String),
}

/// What a wait status means.
pub(super) fn exit(status: i32) -> Exit {
    let status = ExitStatus::from_raw(status);
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(u32::try_from(code).unwrap_or(255)),
        (None, Some(signal)) => {
            let name = NAMES.iter().find(|(_, number)| *number == signal);
            Exit::Signal(name.map_or_else(|| format!("{signal}"), |(name, _)| (*name).to_owned()))
        }
        (None, None) => Exit::Status(255),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_and_names() {
        assert_eq!(exit(0), Exit::Status(0));
        assert_eq!(exit(255 << 8), Exit::Status(255));
        assert_eq!(exit(9), Exit::Signal("KILL".into()));
        assert_eq!(exit(31 | 0x80), Exit::Signal("SYS".into()));
        assert_eq!(exit(64), Exit::Signal("64".into()));
        assert_eq!(number("INT"), Some(2));
        assert_eq!(number("SYS"), None);
        assert_eq!(number("int"), None);
    }
}

//! Locks: who is out at once, whatever the rules say. Each is a small file of root's whose name carries the target, so
//! that even a file that cannot be read locks.
//!
//! Like key files these are read in the law, by the warden and by `stockade lock` alike.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Dir, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use crate::identity::Principal;
use crate::session::SessionId;

/// More than a reason has.
const LONGEST: u64 = 16 << 10;

/// What a lock that was released leaves for the audit, until the next sweep.
const RELEASED: &str = ".released-";

/// Whom a lock keeps out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    User(Principal),
    Session(SessionId),
}

/// The text names nobody.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not the name of a lock: it begins with user- or session-")]
pub struct NotATarget(String);

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub reason: String,
    /// Who set it, by their own word: whoever can is root.
    pub by: String,
    /// Seconds since the epoch.
    pub at: i64,
    /// From then on it is none; `None`: until it is released.
    pub until: Option<i64>,
}

/// All locks there are.
pub type Locks = BTreeMap<Target, Lock>;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user-{user}"),
            Self::Session(session) => write!(f, "session-{session}"),
        }
    }
}

impl FromStr for Target {
    type Err = NotATarget;

    fn from_str(name: &str) -> Result<Self, NotATarget> {
        let user = name.strip_prefix("user-").and_then(|user| user.parse().ok()).map(Self::User);
        let session = || name.strip_prefix("session-").and_then(|id| id.parse().ok()).map(Self::Session);
        user.or_else(session).ok_or_else(|| NotATarget(name.to_owned()))
    }
}

impl Lock {
    /// What an unreadable file says.
    fn damaged(why: &str) -> Self {
        Self { reason: format!("the lock's file cannot be read: {why}"), ..Self::default() }
    }

    pub fn stands(&self, now: i64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Where they lie.
pub fn directory(state: &Path) -> PathBuf {
    state.join("locks")
}

/// The place of what is said about a lock that is gone.
pub fn released(target: &Target) -> String {
    format!("{RELEASED}{target}")
}

/// The locks that stand; an error is a directory of which nobody can say what it holds.
pub fn read(directory: BorrowedFd<'_>, now: i64) -> std::io::Result<Locks> {
    let mut locks = Locks::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        // `.`, `..`, files on their way here, and what was released.
        if name.starts_with('.') {
            continue;
        }
        match name.parse() {
            Ok(target) => {
                // One that was released since its name was read is none.
                if let Some(lock) = read_one(directory, &name).filter(|lock| lock.stands(now)) {
                    locks.insert(target, lock);
                }
            }
            Err(error) => tracing::warn!("a file among the locks is not read: {error}"),
        }
    }
    Ok(locks)
}

/// What was said when a lock was released by the verb.
pub fn read_released(directory: BorrowedFd<'_>, target: &Target) -> Option<Lock> {
    read_one(directory, &released(target))
}

fn read_one(directory: BorrowedFd<'_>, name: &str) -> Option<Lock> {
    // NONBLOCK: the open of a FIFO would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return None,
        Err(errno) => return Some(Lock::damaged(&errno.to_string())),
    };
    let mut text = String::new();
    let read = std::fs::File::from(file).take(LONGEST).read_to_string(&mut text);
    let lock = read.map_err(|e| e.to_string()).and_then(|_| serde_json::from_str(&text).map_err(|e| e.to_string()));
    Some(lock.unwrap_or_else(|why| Lock::damaged(&why)))
}

/// Takes away locks that have ended by themselves, and what was said about released ones.
pub fn sweep(directory: &Path, now: i64) {
    let Ok(held) = fs_err::File::open(directory) else { return };
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let lock = name.parse::<Target>().ok().and_then(|_| read_one(held.as_fd(), &name));
        let ended = lock.is_some_and(|lock| !lock.stands(now));
        // The warden has read by now why a lock went.
        let told = name.starts_with(RELEASED) && {
            let about = entry.metadata().and_then(|about| about.modified());
            about.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 60))
        };
        if ended || told {
            let _ = fs_err::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locks(folder: &tempfile::TempDir, now: i64) -> Vec<(String, String)> {
        let directory = std::fs::File::open(folder.path()).unwrap();
        let locks = read(directory.as_fd(), now).unwrap();
        locks.into_iter().map(|(target, lock)| (target.to_string(), lock.reason)).collect()
    }

    fn put(folder: &tempfile::TempDir, name: &str, until: Option<i64>) {
        let lock = Lock { reason: "away".into(), by: "root".into(), at: 1, until };
        fs_err::write(folder.path().join(name), serde_json::to_string(&lock).unwrap()).unwrap();
    }

    #[test]
    fn a_name_is_a_target_and_back() {
        let session = SessionId::mint();
        for name in ["user-alice", "user-_a.b@c", &format!("session-{session}")] {
            assert_eq!(name.parse::<Target>().unwrap().to_string(), name);
        }
        for name in ["alice", "user-", "user-..", "user-a/b", "session-alice", "session-", "", "user"] {
            assert!(name.parse::<Target>().is_err(), "{name}");
        }
    }

    #[test]
    fn what_stands_is_read_and_what_ended_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        put(&folder, "user-alice", None);
        put(&folder, "user-bob", Some(100));
        put(&folder, ".new-1", None);
        put(&folder, "notes.txt", None);
        let pair = |user: &str| (format!("user-{user}"), "away".to_owned());
        assert_eq!(locks(&folder, 99), [pair("alice"), pair("bob")]);
        assert_eq!(locks(&folder, 100), [pair("alice")]);
        sweep(folder.path(), 99);
        assert_eq!(locks(&folder, 99).len(), 2);
        sweep(folder.path(), 100);
        assert_eq!(locks(&folder, 99), [pair("alice")]);
    }

    #[test]
    fn a_damaged_file_locks() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs_err::write(at("user-a"), "").unwrap();
        fs_err::write(at("user-b"), b"\xff\0").unwrap();
        fs_err::write(at("user-c"), r#"{"reason":"x","by":"y","at":1,"until":"tomorrow"}"#).unwrap();
        fs_err::create_dir(at("user-d")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", at("user-e")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("user-f"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let names: Vec<String> = locks(&folder, i64::MAX).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["user-a", "user-b", "user-c", "user-d", "user-e", "user-f"]);
        sweep(folder.path(), i64::MAX);
        assert_eq!(locks(&folder, i64::MAX).len(), 6);
    }
}

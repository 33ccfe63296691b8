//! The locks' directory: read whole at each change, and before anybody is judged.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::post::Post;
use crate::policy::lock::{self, Lock, Locks, Target};
use crate::privsep::changes::Changes;

/// A clock that was set may end a lock earlier than it seemed.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What the directory holds now.
#[derive(Debug)]
pub struct Change {
    /// Or why nobody can say.
    pub locks: Result<Locks, String>,
    /// Those that went since the last look: why, and by whom.
    pub gone: Vec<(Target, Lock)>,
}

/// Whoever looks.
#[derive(Debug)]
pub struct Watch {
    directory: OwnedFd,
    /// An inotify instance on it.
    changes: OwnedFd,
    known: Locks,
    /// The directory that is held is not the one that is used.
    lost: bool,
}

impl Watch {
    pub fn new(directory: OwnedFd, changes: OwnedFd) -> Self {
        Self { directory, changes, known: BTreeMap::new(), lost: false }
    }

    pub fn look(&mut self) -> Change {
        let now = jiff::Timestamp::now().as_second();
        let locks = self.read(now);
        let mut gone = Vec::new();
        if let Ok(locks) = &locks {
            let former = std::mem::replace(&mut self.known, locks.clone());
            let missing = former.into_iter().filter(|(target, _)| !locks.contains_key(target));
            gone = missing.map(|(target, lock)| self.why(target, &lock, now)).collect();
        }
        Change { locks, gone }
    }

    fn read(&self, now: i64) -> Result<Locks, String> {
        let about = rustix::fs::fstat(&self.directory).map_err(|e| e.to_string())?;
        if self.lost || about.st_nlink == 0 {
            return Err("their directory was moved or removed; restart the bastion".into());
        }
        lock::read(self.directory.as_fd(), now).map_err(|e| e.to_string())
    }

    fn why(&self, target: Target, lock: &Lock, now: i64) -> (Target, Lock) {
        let plain = |reason: &str| Lock { reason: reason.to_owned(), ..Lock::default() };
        let why = match lock::read_released(self.directory.as_fd(), &target) {
            _ if !lock.stands(now) => plain("its time is over"),
            Some(released) => released,
            None => plain("its file was removed"),
        };
        (target, why)
    }

    /// Tells of every change.
    pub async fn keep(mut self, post: mpsc::Sender<Post>) {
        let changes = match self.changes.try_clone().and_then(Changes::new) {
            Ok(changes) => changes,
            Err(error) => {
                let locks = Err(format!("they cannot be watched: {error}"));
                let _ = post.send(Post::Locks(Change { locks, gone: Vec::new() })).await;
                return;
            }
        };
        let mut unread = true;
        loop {
            tokio::select! {
                lost = changes.next() => self.lost |= lost.unwrap_or(true),
                () = sleep(self.pause()) => {}
            }
            let former = self.known.clone();
            let change = self.look();
            let same = change.locks.as_ref().is_ok_and(|locks| *locks == former) && !unread;
            unread = change.locks.is_err();
            if (!same && post.send(Post::Locks(change)).await.is_err()) || self.lost {
                return;
            }
        }
    }

    fn pause(&self) -> Duration {
        let now = jiff::Timestamp::now().as_second();
        let next = self.known.values().filter_map(|lock| lock.until).min();
        let left = next.map(|until| Duration::from_secs(u64::try_from(until.saturating_sub(now)).unwrap_or(0)));
        left.map_or(LOOK_AGAIN, |left| left.clamp(Duration::from_millis(100), LOOK_AGAIN))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use tokio::time::timeout;

    use super::*;

    fn watch(folder: &tempfile::TempDir) -> Watch {
        let changes = crate::privsep::changes::watch(folder.path()).unwrap();
        Watch::new(File::open(folder.path()).unwrap().into(), changes)
    }

    fn put(folder: &tempfile::TempDir, name: &str, lock: &Lock) {
        let new = folder.path().join(".new");
        std::fs::write(&new, serde_json::to_string(lock).unwrap()).unwrap();
        std::fs::rename(new, folder.path().join(name)).unwrap();
    }

    async fn next(letters: &mut mpsc::Receiver<Post>) -> Change {
        match timeout(Duration::from_secs(30), letters.recv()).await.unwrap().unwrap() {
            Post::Locks(change) => change,
            other => panic!("{other:?}"),
        }
    }

    fn lock(reason: &str) -> Lock {
        Lock { reason: reason.into(), by: "root".into(), at: 0, until: None }
    }

    #[tokio::test]
    async fn every_change_is_told_and_why_a_lock_went() {
        let folder = tempfile::tempdir().unwrap();
        put(&folder, "user-bob", &lock("first"));
        let mut watch = watch(&folder);
        assert_eq!(watch.look().locks.unwrap().len(), 1);
        let (post, mut letters) = mpsc::channel(8);
        tokio::spawn(watch.keep(post));
        put(&folder, "user-alice", &lock("away"));
        let alice: Target = "user-alice".parse().unwrap();
        assert_eq!(next(&mut letters).await.locks.unwrap()[&alice].reason, "away");
        std::fs::write(folder.path().join(".released-user-alice"), serde_json::to_string(&lock("back")).unwrap())
            .unwrap();
        std::fs::remove_file(folder.path().join("user-alice")).unwrap();
        let change = next(&mut letters).await;
        assert_eq!((change.locks.unwrap().len(), change.gone), (1, vec![(alice, lock("back"))]));
        std::fs::remove_file(folder.path().join("user-bob")).unwrap();
        assert_eq!(next(&mut letters).await.gone[0].1.reason, "its file was removed");
    }

    #[tokio::test]
    async fn a_lock_ends_at_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let until = Some(jiff::Timestamp::now().as_second() + 1);
        put(&folder, "user-alice", &Lock { until, ..lock("away") });
        let mut watch = watch(&folder);
        assert_eq!(watch.look().locks.unwrap().len(), 1);
        let (post, mut letters) = mpsc::channel(8);
        tokio::spawn(watch.keep(post));
        let gone = loop {
            let change = next(&mut letters).await;
            if !change.gone.is_empty() {
                break change.gone;
            }
        };
        assert_eq!(gone[0].1.reason, "its time is over");
    }

    #[tokio::test]
    async fn without_the_directory_nobody_can_say() {
        let folder = tempfile::tempdir().unwrap();
        put(&folder, "user-alice", &lock("away"));
        let mut watch = watch(&folder);
        watch.look();
        std::fs::remove_file(folder.path().join("user-alice")).unwrap();
        std::fs::remove_dir(folder.path()).unwrap();
        assert!(watch.look().locks.is_err());
        let (post, mut letters) = mpsc::channel(8);
        tokio::spawn(watch.keep(post));
        assert!(next(&mut letters).await.locks.is_err());
    }
}

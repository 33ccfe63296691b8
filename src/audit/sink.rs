//! The one writer of the audit file, and the handle through which the keeper's tasks reach it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::Event;
use super::line::{Stamp, line};
use super::tail::{Tail, WINDOW};

/// Events that wait for the writer; a sender that finds it full waits, and with it the role it listens to.
const QUEUE: usize = 256;

/// The longest that a line stays in memory's care only.
const LATEST_SYNC: Duration = Duration::from_millis(100);

/// How long the writer waits after a failed write before it tries again.
const RETRY: Duration = Duration::from_millis(500);

/// Space taken ahead, so that the line which says that the disk is full has a place.
const RESERVE: u64 = 1024 * 1024;

/// Why there is no audit trail; without one there is no keeper.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("cannot open the audit file '{name}'")]
    Open { name: String, source: io::Error },
    #[error("the audit file '{name}' is held by another process; is a second stockade running on this state?")]
    Held { name: String },
    #[error("cannot read the end of the audit file '{name}'")]
    Read { name: String, source: io::Error },
    /// After a failed fdatasync the kernel has forgotten which pages were not written: what the file holds is not known.
    #[error("the audit file could not be brought to stable storage; look at the disk, then start again")]
    Sync(#[source] io::Error),
}

/// Opens the audit file beneath `directory`, closes a line that a crash tore, and goes on with its numbers.
pub fn open(directory: OwnedFd, name: &str) -> Result<(Sink, Scribe), AuditError> {
    let file = open_file(&directory, name).map_err(|source| AuditError::Open { name: name.into(), source })?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(AuditError::Held { name: name.into() });
    }
    let (length, tail) = read_tail(&file).map_err(|source| AuditError::Read { name: name.into(), source })?;
    let (sender, queue) = mpsc::channel(QUEUE);
    let healthy = Arc::new(AtomicBool::new(true));
    let scribe = Scribe {
        queue,
        healthy: healthy.clone(),
        place: Place { directory, name: name.to_owned() },
        page: Page { file, length, allocated: length },
        sequence: tail.sequence,
        torn: tail.torn,
    };
    Ok((Sink { sender, healthy }, scribe))
}

fn open_file(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP)?;
    // The name itself must survive a crash, once.
    rustix::fs::fsync(directory)?;
    Ok(file.into())
}

fn read_tail(file: &File) -> io::Result<(u64, Tail)> {
    let length = file.metadata()?.len();
    let mut bytes = vec![0; usize::try_from(length.min(WINDOW)).unwrap_or_default()];
    file.read_exact_at(&mut bytes, length.saturating_sub(WINDOW))?;
    Ok((length, Tail::of(&bytes)))
}

#[derive(Debug)]
enum Entry {
    /// With its time, milliseconds since the epoch.
    Event(u64, Event),
    Settle(oneshot::Sender<()>),
}

/// Where events go.
#[derive(Clone, Debug)]
pub struct Sink {
    sender: mpsc::Sender<Entry>,
    healthy: Arc<AtomicBool>,
}

impl Sink {
    /// Queues an event; waits while the queue is full. Events of one task are written in its order.
    pub async fn record(&self, event: Event) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        // The receiver is gone only when the scribe has failed, and then the keeper ends.
        let _ = self.sender.send(Entry::Event(time, event)).await;
    }

    /// Waits until everything recorded before is on stable storage.
    pub async fn settle(&self) {
        let (settled, waiting) = oneshot::channel();
        if self.sender.send(Entry::Settle(settled)).await.is_ok() {
            // A scribe that fails drops the sender; its own error says why.
            let _ = waiting.await;
        }
    }

    /// Whether the newest write succeeded: nobody is let in while it did not.
    pub fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }
}

/// Writes the lines, in order, until every `Sink` is gone.
#[derive(Debug)]
pub struct Scribe {
    queue: mpsc::Receiver<Entry>,
    healthy: Arc<AtomicBool>,
    place: Place,
    page: Page,
    sequence: u64,
    torn: bool,
}

impl Scribe {
    pub async fn run(mut self) -> Result<(), AuditError> {
        let mut batch = Vec::new();
        let mut settling: Vec<oneshot::Sender<()>> = Vec::new();
        let mut due: Option<Instant> = None;
        loop {
            tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.page = self.page.sync().await?;
                    due = None;
                    for settled in settling.drain(..) {
                        // Who no longer waits need not hear it.
                        let _: Result<(), ()> = settled.send(());
                    }
                }
                count = self.queue.recv_many(&mut batch, QUEUE) => {
                    if count == 0 {
                        self.page.sync().await?;
                        return Ok(());
                    }
                    self.turn().await?;
                    let urgent = batch.iter().any(admits);
                    let lines = self.lines(&mut batch, &mut settling);
                    self.append(lines).await;
                    let latest = Instant::now() + if urgent { Duration::ZERO } else { LATEST_SYNC };
                    due = Some(due.map_or(latest, |due| due.min(latest)));
                }
            }
        }
    }

    /// Goes on in a new file where another has taken the name, as logrotate does it; the numbers go on, too.
    async fn turn(&mut self) -> Result<(), AuditError> {
        if let Some(next) = self.place.successor(&self.page.file) {
            let length = next.metadata().map(|about| about.len()).unwrap_or_default();
            let next = Page { file: next, length, allocated: length };
            std::mem::replace(&mut self.page, next).sync().await?;
        }
        Ok(())
    }

    fn lines(&mut self, batch: &mut Vec<Entry>, settling: &mut Vec<oneshot::Sender<()>>) -> Vec<u8> {
        let mut lines = Vec::new();
        if std::mem::take(&mut self.torn) {
            lines.push(b'\n');
        }
        for entry in batch.drain(..) {
            match entry {
                Entry::Event(time, event) => {
                    self.sequence += 1;
                    lines.extend_from_slice(&line(&event, Stamp { time, sequence: self.sequence }));
                }
                Entry::Settle(settled) => settling.push(settled),
            }
        }
        lines
    }

    /// Tries until it succeeds: the queue fills behind it, and no role that must be heard gets any further.
    async fn append(&mut self, lines: Vec<u8>) {
        let lines = Arc::new(lines);
        while let Err(error) = self.page.append(lines.clone()).await {
            if self.healthy.swap(false, Ordering::Relaxed) {
                tracing::error!(%error, "the audit file cannot be written; nobody is let in until it can");
            }
            sleep(RETRY).await;
        }
        self.healthy.store(true, Ordering::Relaxed);
    }
}

/// An event that lets somebody in is on stable storage as soon as the disk allows.
fn admits(entry: &Entry) -> bool {
    use Event::{CredentialIssued, LoginAccepted, SessionOpened};
    match entry {
        Entry::Event(_, event) => {
            matches!(event, LoginAccepted { .. } | SessionOpened { .. } | CredentialIssued { .. })
        }
        Entry::Settle(_) => true,
    }
}

/// Where the file is to be found.
#[derive(Debug)]
struct Place {
    directory: OwnedFd,
    name: String,
}

impl Place {
    /// The file that has the name now, if it is another one and nobody else writes it. While there is none, or it cannot
    /// be had, the former is written: a line in the wrong file is better than none.
    fn successor(&self, former: &File) -> Option<File> {
        let there = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let ours = rustix::fs::fstat(former).ok()?;
        if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino) {
            return None;
        }
        let next = open_file(&self.directory, &self.name).and_then(|file| {
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            Ok(file)
        });
        next.inspect_err(|error| tracing::error!(%error, "the new audit file cannot be used; the former is written"))
            .ok()
    }
}

/// The file and its good length.
#[derive(Debug)]
struct Page {
    file: File,
    length: u64,
    allocated: u64,
}

impl Page {
    async fn append(&mut self, lines: Arc<Vec<u8>>) -> io::Result<()> {
        let mut file = self.file.try_clone()?;
        let (length, allocated) = (self.length, self.allocated);
        let added = lines.len() as u64;
        let done = blocking(move || {
            let allocated = reserve(&file, length + added, allocated);
            let done = file.write_all(&lines);
            if done.is_err() {
                // Half a line must not stand before the next one.
                let _ = file.set_len(length);
            }
            (done, allocated)
        });
        let (done, allocated) = done.await?;
        self.allocated = allocated;
        done?;
        self.length += added;
        Ok(())
    }

    async fn sync(self) -> Result<Self, AuditError> {
        let done = blocking(move || self.file.sync_data().map(|()| self)).await;
        done.and_then(|done| done).map_err(AuditError::Sync)
    }
}

/// Keeps between a half and a whole reserve ahead of the end. Where the disk is full already, the rest of it is used up.
fn reserve(file: &File, end: u64, allocated: u64) -> u64 {
    if allocated >= end + RESERVE / 2 {
        return allocated;
    }
    match rustix::fs::fallocate(file.as_fd(), FallocateFlags::KEEP_SIZE, end, RESERVE) {
        Ok(()) => end + RESERVE,
        Err(_) => allocated,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::session::SessionId;

    fn directory(path: &std::path::Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    fn lines(path: &std::path::Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path.join("audit.jsonl")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn sequences(path: &std::path::Path) -> Vec<u64> {
        lines(path).iter().map(|line| line["metadata"]["sequence"].as_u64().unwrap()).collect()
    }

    async fn write(path: &std::path::Path, events: u64) {
        let (sink, scribe) = open(directory(path), "audit.jsonl").unwrap();
        let scribe = tokio::spawn(scribe.run());
        for _ in 0..events {
            sink.record(Event::SessionOpened {
                session: SessionId::mint(),
                user: "alice".into(),
                from: "192.0.2.1:1".into(),
            })
            .await;
        }
        drop(sink);
        scribe.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn numbers_go_on_over_restarts_and_torn_lines() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 3).await;
        let path = dir.path().join("audit.jsonl");
        let whole = std::fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(whole - 10).unwrap();
        write(dir.path(), 2).await;
        assert_eq!(sequences(dir.path()), [1, 2, 3, 4]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 5, "the torn line stands alone: {text}");
    }

    /// As logrotate does it: the file is renamed, and another is made; nobody tells the writer.
    #[tokio::test]
    async fn a_rotated_file_is_left_and_numbers_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let (sink, scribe) = open(directory(dir.path()), "audit.jsonl").unwrap();
        let scribe = tokio::spawn(scribe.run());
        let event = || Event::Started { version: "1".into() };
        let [file, rotated] = ["audit.jsonl", "audit.jsonl.1"].map(|name| dir.path().join(name));
        sink.record(event()).await;
        sink.settle().await;
        std::fs::rename(&file, &rotated).unwrap();
        // Not there yet: the line goes where the others are.
        sink.record(event()).await;
        sink.settle().await;
        File::create(&file).unwrap();
        sink.record(event()).await;
        sink.record(event()).await;
        drop(sink);
        scribe.await.unwrap().unwrap();
        assert_eq!(sequences(dir.path()), [3, 4]);
        std::fs::rename(&rotated, &file).unwrap();
        assert_eq!(sequences(dir.path()), [1, 2]);
    }

    #[tokio::test]
    async fn a_second_writer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(directory(dir.path()), "audit.jsonl").unwrap();
        assert!(matches!(open(directory(dir.path()), "audit.jsonl"), Err(AuditError::Held { .. })));
    }

    #[tokio::test]
    async fn more_events_than_the_queue_holds_all_arrive_in_order() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 2000).await;
        assert_eq!(sequences(dir.path()), (1..=2000).collect::<Vec<_>>());
    }
}

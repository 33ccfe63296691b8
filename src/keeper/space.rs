//! The recordings' disk: warn, refuse, end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::fs::fstatvfs;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::desk::Desk;
use super::session::FULL;
use super::tape::End;

/// How often the disk is looked at; and how long the end of one session has to show before the next is ended.
const LOOK: Duration = Duration::from_millis(250);

/// Per cents of the filesystem that are in use when something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// An audit event.
    pub warn: u8,
    /// No new session.
    pub refuse: u8,
    /// Running sessions end, the biggest recent writer first.
    pub end: u8,
}

#[derive(Debug)]
pub(super) struct Space {
    /// On the filesystem that is watched.
    directory: OwnedFd,
    thresholds: Thresholds,
    used: AtomicU8,
    pressed: Notify,
}

impl Space {
    pub(super) fn new(directory: OwnedFd, thresholds: Thresholds) -> Self {
        Self { directory, thresholds, used: AtomicU8::new(0), pressed: Notify::new() }
    }

    /// A reserve could not be filled.
    pub(super) fn pressed(&self) {
        self.pressed.notify_one();
    }

    /// Why nobody is let in, if nobody is.
    pub(super) fn refusal(&self) -> Option<String> {
        let used = self.used.load(Ordering::Relaxed);
        (used >= self.thresholds.refuse)
            .then(|| format!("this bastion cannot record now: its disk is {used} % full; its operators know more"))
    }

    /// Looks at the disk.
    pub(super) fn measure(&self) -> io::Result<u8> {
        let fs = fstatvfs(&self.directory)?;
        // As df counts: what only root may use is neither used nor free.
        let used = fs.f_blocks.saturating_sub(fs.f_bfree);
        let all = used.saturating_add(fs.f_bavail).max(1);
        let used = u8::try_from(used.saturating_mul(100).div_ceil(all)).unwrap_or(100);
        self.used.store(used, Ordering::Relaxed);
        Ok(used)
    }
}

/// Watches for ever.
pub(super) async fn watch(desk: Arc<Desk>) {
    let space = &desk.space;
    let mut warned = false;
    loop {
        let pressed = tokio::select! {
            () = space.pressed.notified() => true,
            () = sleep(LOOK) => false,
        };
        // A directory that cannot be looked at is a disk that cannot be trusted with one more session.
        let used = space.measure().unwrap_or(100);
        let high = used >= space.thresholds.warn;
        if high && !warned {
            desk.limit(None, format!("the disk of the recordings is {used} % full")).await;
        }
        warned = high;
        if pressed || used >= space.thresholds.end {
            end_biggest(&desk);
            sleep(LOOK).await;
        }
    }
}

fn end_biggest(desk: &Desk) {
    let writers = desk.sessions().into_iter().filter(|session| !session.is_over());
    if let Some((_, biggest)) = writers.map(|session| (session.recent(), session)).max_by_key(|(recent, _)| *recent) {
        biggest.tape.end(End::Forced(FULL.into()));
    }
}

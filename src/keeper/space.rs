//! The recordings' disk: warn, refuse, end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::fstatvfs;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::desk::Desk;
use super::session::FULL;

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
    pressed: Notify,
}

impl Space {
    pub(super) fn new(directory: OwnedFd, thresholds: Thresholds) -> Self {
        Self { directory, thresholds, pressed: Notify::new() }
    }

    /// A reserve could not be filled.
    pub(super) fn pressed(&self) {
        self.pressed.notify_one();
    }

    /// Why nobody is let in, if nobody is.
    pub(super) fn refusal(&self) -> Option<String> {
        let used = self.used();
        (used >= self.thresholds.refuse)
            .then(|| format!("this bastion cannot record now: its disk is {used} % full; its operators know more"))
    }

    /// How much of the disk is in use, in per cent. One that cannot be asked is not trusted with a session.
    pub(super) fn used(&self) -> u8 {
        let Ok(fs) = fstatvfs(&self.directory) else { return 100 };
        // As df counts: what only root may use is neither used nor free.
        let used = fs.f_blocks.saturating_sub(fs.f_bfree);
        let all = used.saturating_add(fs.f_bavail).max(1);
        u8::try_from(used.saturating_mul(100).div_ceil(all)).unwrap_or(100)
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
        desk.sessions().iter().for_each(|session| session.fade());
        let used = space.used();
        let high = used >= space.thresholds.warn;
        if high && !warned {
            desk.limit(None, format!("the disk of the recordings is {used} % full")).await;
        }
        warned = high;
        if pressed || used >= space.thresholds.end {
            end_biggest(&desk).await;
            sleep(LOOK).await;
        }
    }
}

async fn end_biggest(desk: &Desk) {
    let writers = desk.sessions().into_iter().filter(|session| !session.is_over());
    if let Some((_, biggest)) = writers.map(|session| (session.recent(), session)).max_by_key(|(recent, _)| *recent) {
        biggest.cut(desk, FULL).await;
    }
}

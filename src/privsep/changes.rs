//! A directory that a role is told of every change in. The loader makes the watch, for a role behind its fence opens no path.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use tokio::io::Interest;

use crate::sys::watched::Watched;

/// The directory itself is not where it was.
const LOST: ReadFlags =
    ReadFlags::DELETE_SELF.union(ReadFlags::MOVE_SELF).union(ReadFlags::UNMOUNT).union(ReadFlags::IGNORED);

/// An inotify instance on one directory.
pub fn watch(directory: &Path) -> io::Result<OwnedFd> {
    let changes = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let what = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    add_watch(&changes, directory, what)?;
    // A directory that somebody holds does not tell of its own removal.
    if let Some(parent) = directory.parent() {
        add_watch(&changes, parent, WatchFlags::DELETE)?;
    }
    Ok(changes)
}

/// The end of the role that holds it.
#[derive(Debug)]
pub struct Changes(Watched);

impl Changes {
    /// Must be called inside the runtime.
    pub fn new(changes: OwnedFd) -> io::Result<Self> {
        Watched::new(changes).map(Self)
    }

    /// Waits for a change; whether the directory itself is lost. What changed is for the hearer to read anew.
    pub async fn next(&self) -> io::Result<bool> {
        let read = |descriptor: std::os::fd::BorrowedFd<'_>| {
            let mut space = [MaybeUninit::uninit(); 4096];
            let mut events = Reader::new(descriptor, &mut space);
            let mut lost = events.next()?.events().intersects(LOST);
            while let Ok(event) = events.next() {
                lost |= event.events().intersects(LOST);
            }
            Ok(lost)
        };
        self.0.io(Interest::READABLE, read).await
    }
}

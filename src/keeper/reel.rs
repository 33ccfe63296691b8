//! A recording's file: what is written to it, when it is durable, and the space kept for its end. Every call blocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{clock, tape};
use crate::recording::{Durability, Event, Header, StoreError, Writer};
use crate::session::SessionId;

/// Of the reserve: what a closing frame and what stands before it need.
const CLOSING: u64 = 16 << 10;

/// Why a recording cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReelError {
    #[error("there is no file for the recording")]
    Create(#[source] StoreError),
    #[error("the disk of the recordings is full")]
    Full,
    #[error("cannot write to the recording")]
    Write(#[source] io::Error),
    /// The kernel has forgotten which pages it could not write: to ask again would be told a lie.
    #[error("the recording could not be brought to stable storage")]
    Sync(#[source] io::Error),
}

/// What a commit found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Committed {
    pub(super) bytes: u64,
    /// The reserve could not be filled up again: the next commits live from it.
    pub(super) short: bool,
}

#[derive(Debug)]
pub(super) struct Reel {
    file: File,
    writer: Writer,
    length: u64,
    /// Up to here the filesystem has promised space.
    allocated: u64,
    reserve: u64,
}

impl Reel {
    /// Writes the header; returns when it is on stable storage.
    pub(super) fn begin(
        file: File,
        session: SessionId,
        header: &Header,
        grade: Durability,
        reserve: u64,
    ) -> Result<Self, ReelError> {
        let (writer, bytes) = Writer::begin(session, clock::wall(), clock::boot(), header, grade);
        let mut reel = Self { file, writer, length: 0, allocated: 0, reserve };
        if reel.allocate(bytes.len() as u64 + reserve) == Err(Errno::NOSPC) {
            return Err(ReelError::Full);
        }
        reel.write(&bytes)?;
        Ok(reel)
    }

    /// Writes one frame; returns when it is on stable storage. `Full` leaves the recording as it was.
    pub(super) fn commit(&mut self, events: &[(Duration, Event)]) -> Result<Committed, ReelError> {
        let cost = cost(events);
        let short = !self.has_room(cost)?;
        for (boot, event) in events {
            self.writer.push(*boot, event);
        }
        let Some(frame) = self.writer.close_frame(clock::wall(), clock::boot()) else {
            return Ok(Committed { bytes: 0, short });
        };
        self.write(&frame)?;
        Ok(Committed { bytes: frame.len() as u64, short })
    }

    /// Writes the last frames and gives back the space that was kept for them. What was read from the jail and not shown
    /// may be left out when there is no room; what went into the jail may not.
    pub(super) fn finish(mut self, events: &[(Duration, Event)], reason: &str) -> Result<(), ReelError> {
        let full = self.allocate(cost(events) + CLOSING) == Err(Errno::NOSPC);
        let fits = !full || self.ahead() >= cost(events) + CLOSING;
        let mut left = 0;
        for (boot, event) in events {
            match event {
                Event::Output { data, .. } | Event::ErrorOutput { data, .. } if !fits => left += data.len(),
                event => self.writer.push(*boot, event),
            }
        }
        if left > 0 {
            let text = format!("{left} bytes of output were not recorded for want of space, and not shown");
            self.writer.push(clock::boot(), &Event::Note { text });
        }
        let bytes = self.writer.finish(clock::wall(), clock::boot(), reason);
        append(&self.file, &mut self.length, &bytes)?;
        // Frees what was allocated behind the end.
        self.file.set_len(self.length).map_err(ReelError::Write)?;
        self.file.sync_data().map_err(ReelError::Sync)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ReelError> {
        append(&self.file, &mut self.length, bytes)?;
        self.file.sync_data().map_err(ReelError::Sync)
    }

    /// Whether the reserve stays whole after `cost` more bytes; `Full` when they would eat into the closing frame's.
    fn has_room(&mut self, cost: u64) -> Result<bool, ReelError> {
        if self.ahead() >= cost + self.reserve / 2 {
            return Ok(true);
        }
        if self.allocate(cost + self.reserve) != Err(Errno::NOSPC) {
            return Ok(true);
        }
        if self.ahead() >= cost + CLOSING { Ok(false) } else { Err(ReelError::Full) }
    }

    fn ahead(&self) -> u64 {
        self.allocated.saturating_sub(self.length)
    }

    fn allocate(&mut self, ahead: u64) -> Result<(), Errno> {
        let from = self.allocated.max(self.length);
        let end = self.length + ahead;
        if end <= from {
            return Ok(());
        }
        // A filesystem without fallocate keeps no reserve: there a full disk ends a recording without a closing frame.
        rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, from, end - from).map_err(|e| match e {
            Errno::DQUOT | Errno::FBIG => Errno::NOSPC,
            e => e,
        })?;
        self.allocated = end;
        Ok(())
    }
}

fn cost(events: &[(Duration, Event)]) -> u64 {
    events.iter().map(|(_, event)| tape::cost(event) as u64).sum::<u64>() + 1024
}

/// What could be written of a frame that could not be written whole goes; the writer has gone on already, so the next
/// start ends this recording.
fn append(file: &File, length: &mut u64, bytes: &[u8]) -> Result<(), ReelError> {
    file.write_all_at(bytes, *length).map_err(|error| {
        let _ = file.set_len(*length);
        ReelError::Write(error)
    })?;
    *length += bytes.len() as u64;
    Ok(())
}

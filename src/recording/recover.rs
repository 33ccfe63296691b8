use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use jiff::Timestamp;

use super::chain::Link;
use super::frame::{self, Closing, RECOVERED};
use super::reader::{ReadError, Reader};
use super::writer::micros;
use crate::session::SessionId;

/// What was found in a recording that a crash left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub session: SessionId,
    /// Events in whole frames: all of them are kept.
    pub events: u64,
    /// Bytes after the last whole frame: all of them are gone.
    pub lost: u64,
    /// From the beginning to the last event.
    pub length: Duration,
}

/// Why a recording stays as it was found.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Damage that a crash does not explain: it is left for a human to see.
    #[error("the recording cannot be recovered and was left as it is")]
    Read(#[source] ReadError),
    /// A whole frame lies beyond the damage: to cut there would destroy what is valid.
    #[error("byte {offset} is damaged but a whole frame follows at byte {found}; the recording was left as it is")]
    Beyond { offset: u64, found: u64 },
    #[error("cannot write the end of the recording")]
    Write(#[source] io::Error),
}

/// Closes a recording that a crash left open: cuts what follows its last whole frame, appends a closing frame with the
/// reason `recovered`, and syncs. `None` when it was closed already. The file must be open for reading and writing.
pub fn recover(file: &File, wall: Timestamp, boot: Duration) -> Result<Option<Recovered>, RecoverError> {
    let mut file = file;
    file.seek(SeekFrom::Start(0)).map_err(RecoverError::Write)?;
    let Some(end) = survey(file, wall, boot)? else { return Ok(None) };
    // Also where nothing is lost: it gives back the blocks that were reserved beyond the end.
    file.set_len(end.keep).map_err(RecoverError::Write)?;
    file.seek(SeekFrom::Start(end.keep)).map_err(RecoverError::Write)?;
    file.write_all(&end.closing).map_err(RecoverError::Write)?;
    file.sync_all().map_err(RecoverError::Write)?;
    Ok(Some(end.found))
}

/// How to close it: what to keep and what to append.
pub(super) struct End {
    pub(super) keep: u64,
    pub(super) closing: Vec<u8>,
    found: Recovered,
}

pub(super) fn survey<F: Read + Seek>(
    mut file: F,
    wall: Timestamp,
    boot: Duration,
) -> Result<Option<End>, RecoverError> {
    let mut reader = Reader::open(BufReader::new(&mut file)).map_err(RecoverError::Read)?;
    let damage = loop {
        match reader.next() {
            Some(Ok(_)) => {}
            Some(Err(e)) => break Some(e),
            None => break None,
        }
    };
    let keep = reader.offset();
    let session = reader.session();
    let closed = reader.closing().is_some();
    let length = reader.length();
    let (mut chain, totals, exit) = reader.into_end();
    let lost = match damage {
        None if closed => return Ok(None),
        None => 0,
        Some(ReadError::Torn { .. } | ReadError::Broken { .. }) if !closed => {
            let size = file.seek(SeekFrom::End(0)).map_err(|e| RecoverError::Read(ReadError::Io(e)))?;
            if let Some(found) = frame_beyond(&mut file, keep, session)? {
                return Err(RecoverError::Beyond { offset: keep, found });
            }
            size.saturating_sub(keep)
        }
        Some(other) => return Err(RecoverError::Read(other)),
    };
    let events = totals.events;
    let closing = Closing { reason: RECOVERED.to_owned(), totals, exit, boot: micros(boot), lost: Some(lost) };
    // The closing frame keeps the time of the last event: nobody knows when the session really ended.
    let link = Link::Closing { closing: &closing, end: micros(length) };
    let closing = chain.link(link, wall.as_microsecond(), &[]);
    Ok(Some(End { keep, closing, found: Recovered { session, events, lost, length } }))
}

/// Looks for a whole frame of this recording after `from`: every header begins with the recording's id.
fn frame_beyond<F: Read + Seek>(file: &mut F, from: u64, session: SessionId) -> Result<Option<u64>, RecoverError> {
    const WINDOW: usize = 1 << 20;
    let needle = session.as_bytes();
    let fail = |e| RecoverError::Read(ReadError::Io(e));
    let mut at = from;
    loop {
        file.seek(SeekFrom::Start(at)).map_err(fail)?;
        let mut window = Vec::new();
        file.by_ref().take(WINDOW as u64).read_to_end(&mut window).map_err(fail)?;
        for (n, _) in window.windows(needle.len()).enumerate().filter(|(_, bytes)| bytes == needle) {
            // The id stands after the frame's prefix and two bytes of CBOR: an array's and a byte string's mark.
            let Some(begin) = at.saturating_add(n as u64).checked_sub(frame::PREFIX as u64 + 2) else { continue };
            if begin < from {
                continue;
            }
            file.seek(SeekFrom::Start(begin)).map_err(fail)?;
            if let Ok(Some(frame)) = frame::next(&mut BufReader::new(&mut *file))
                && frame.header.recording == session
            {
                return Ok(Some(begin));
            }
        }
        if window.len() < WINDOW {
            return Ok(None);
        }
        at = at.saturating_add((WINDOW - needle.len()) as u64);
    }
}

use std::time::Duration;

use jiff::Timestamp;

use super::chain::{Chain, Link};
use super::frame::{Closing, Opening, Totals, VERSION, cbor};
use super::{BULK_AFTER, BULK_UNIT, Durability, Event, Header, pack};
use crate::session::{FIRST_STREAM, SessionId};

/// A frame is closed when it holds so much, whether or not a commit comes: this bounds what one torn frame loses.
const FULL: usize = 64 << 10;

/// The longest event; links carry no longer message.
const LONGEST_EVENT: usize = 256 << 10;

/// A wall clock that moved by more than this against the monotonic one has jumped.
const JUMP: i64 = 1_000_000;

/// A recording being made: the state of its chain and the frame that is open. It does no I/O.
#[derive(Debug)]
pub struct Writer {
    chain: Chain,
    /// CLOCK_BOOTTIME of the opening frame.
    origin: Duration,
    /// Wall time less `origin` time, as last anchored.
    anchor: i64,
    open: Vec<u8>,
    count: u32,
    start: u64,
    last: u64,
    /// Closed frames that nobody has taken yet.
    ready: Vec<u8>,
    totals: Totals,
    exit: Option<u32>,
}

impl Writer {
    /// A new recording and its first bytes: magic, public header, header.
    pub fn begin(
        session: SessionId,
        wall: Timestamp,
        boot: Duration,
        header: &Header,
        grade: Durability,
    ) -> (Self, Vec<u8>) {
        let mut chain = Chain::new(session);
        let opening =
            Opening { version: VERSION, boot: micros(boot), grade, bulk_after: BULK_AFTER, bulk_unit: BULK_UNIT };
        let mut bytes = super::MAGIC.to_vec();
        bytes.extend(chain.link(Link::Opening(opening), wall.as_microsecond(), &pack::pack(&cbor(header))));
        let writer = Self {
            chain,
            origin: boot,
            anchor: wall.as_microsecond(),
            open: Vec::new(),
            count: 0,
            start: 0,
            last: 0,
            ready: Vec::new(),
            totals: Totals::default(),
            exit: None,
        };
        (writer, bytes)
    }

    /// Adds an event to the open frame. Time never goes back: a `boot` before the last one counts as the last.
    pub fn push(&mut self, boot: Duration, event: &Event) {
        match event.split(FULL) {
            None => self.push_piece(boot, event),
            Some(pieces) => pieces.iter().for_each(|piece| self.push_piece(boot, piece)),
        }
    }

    /// How many bytes wait for `close_frame`; zero when there is nothing to make durable.
    pub fn pending(&self) -> usize {
        self.open.len().saturating_add(self.ready.len())
    }

    /// What the recording holds so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Closes the open frame. The bytes are to be appended to the file as they are; `None` when nothing was pushed.
    pub fn close_frame(&mut self, wall: Timestamp, boot: Duration) -> Option<Vec<u8>> {
        if self.pending() == 0 {
            return None;
        }
        self.set_anchor(wall, boot);
        self.seal(wall.as_microsecond());
        Some(std::mem::take(&mut self.ready))
    }

    /// The last bytes: the open frame, if any, and the closing one.
    pub fn finish(mut self, wall: Timestamp, boot: Duration, reason: &str) -> Vec<u8> {
        let mut bytes = self.close_frame(wall, boot).unwrap_or_default();
        let closing =
            Closing { reason: cut(reason), totals: self.totals, exit: self.exit, boot: micros(boot), lost: None };
        let end = micros(boot.saturating_sub(self.origin)).max(self.last);
        bytes.extend(self.chain.link(Link::Closing { closing: &closing, end }, wall.as_microsecond(), &[]));
        bytes
    }

    fn push_piece(&mut self, boot: Duration, event: &Event) {
        let at = micros(boot.saturating_sub(self.origin)).max(self.last);
        let encoded = cbor(event);
        if encoded.len() > LONGEST_EVENT {
            let text = format!("an event of {} bytes was too long to be recorded", encoded.len());
            return self.push_piece(boot, &Event::Note { text });
        }
        if !self.open.is_empty() && self.open.len() + encoded.len() > FULL {
            self.seal(self.anchor.saturating_add(i64::try_from(self.last).unwrap_or(i64::MAX)));
        }
        if self.count == 0 {
            self.start = at;
        }
        // Within a frame the distance to the event before is enough, and shorter.
        let since = at - if self.count == 0 { self.start } else { self.last };
        self.open.extend_from_slice(&cbor(&since));
        self.open.extend_from_slice(&encoded);
        self.count += 1;
        self.last = at;
        self.totals.add(event);
        // How a program on a cluster ended is not how the session did.
        if let Event::ExitStatus { status, number } = event
            && *number < FIRST_STREAM
        {
            self.exit = Some(*status);
        }
    }

    /// Holds the wall clock against the monotonic one; a jump is an event of its own.
    fn set_anchor(&mut self, wall: Timestamp, boot: Duration) {
        let elapsed = i64::try_from(micros(boot.saturating_sub(self.origin))).unwrap_or(i64::MAX);
        let anchor = wall.as_microsecond().saturating_sub(elapsed);
        let jump = anchor.saturating_sub(self.anchor);
        self.anchor = anchor;
        if jump.saturating_abs() > JUMP {
            self.push_piece(boot, &Event::Clock { wall: wall.as_microsecond(), jump });
        }
    }

    fn seal(&mut self, wall: i64) {
        if self.count == 0 {
            return;
        }
        let payload = pack::pack(&self.open);
        let link = Link::Events { count: self.count, start: self.start, end: self.last };
        self.ready.extend(self.chain.link(link, wall, &payload));
        self.open.clear();
        self.count = 0;
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A reason must fit into a clear header.
fn cut(reason: &str) -> String {
    reason.chars().take(256).collect()
}

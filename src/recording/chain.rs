use super::frame::{self, Closing, Frame, FrameHeader, Kind, Opening};
use crate::session::SessionId;

/// The end of a chain: what the next frame must say. The writer follows it, the reader holds frames to it.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) recording: SessionId,
    pub(super) seq: u64,
    pub(super) head: [u8; 32],
    /// The number of the next event.
    pub(super) events: u64,
    /// The time of the last event.
    pub(super) end: u64,
    pub(super) closed: bool,
}

/// What a frame adds to a chain.
#[derive(Debug)]
pub(super) enum Link<'a> {
    Opening(Opening),
    Events { count: u32, start: u64, end: u64 },
    Closing { closing: &'a Closing, end: u64 },
}

impl Chain {
    pub(super) fn new(recording: SessionId) -> Self {
        Self { recording, seq: 0, head: [0; 32], events: 0, end: 0, closed: false }
    }

    /// The bytes of the next frame.
    pub(super) fn link(&mut self, link: Link<'_>, wall: i64, payload: &[u8]) -> Vec<u8> {
        let (kind, count, start, end) = match link {
            Link::Opening(_) => (Kind::Opening, 0, 0, 0),
            Link::Events { count, start, end } => (Kind::Events, count, start, end),
            Link::Closing { end, .. } => (Kind::Closing, 0, end, end),
        };
        let (opening, closing) = match link {
            Link::Opening(opening) => (Some(opening), None),
            Link::Events { .. } => (None, None),
            Link::Closing { closing, .. } => (None, Some(closing.clone())),
        };
        let header = FrameHeader {
            recording: self.recording,
            seq: self.seq,
            previous: self.head,
            kind,
            first: self.events,
            count,
            start,
            end,
            wall,
            length: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            sha256: frame::digest(payload),
            next_key: None,
            suite: None,
            opening,
            closing,
        };
        let (bytes, head) = frame::bytes(&header, payload);
        self.step(&header, head);
        bytes
    }

    /// Takes a frame that was read, or says why it cannot be the next.
    pub(super) fn follow(&mut self, frame: &Frame) -> Result<(), &'static str> {
        let header = &frame.header;
        if self.closed {
            return Err("a frame after the closing one");
        }
        if header.recording != self.recording {
            return Err("a frame of another recording");
        }
        if header.seq != self.seq {
            return Err("a frame is missing or out of order");
        }
        if header.previous != self.head {
            return Err("it does not continue the frame before");
        }
        if header.first != self.events {
            return Err("events are missing");
        }
        if header.start < self.end || header.end < header.start {
            return Err("time goes back");
        }
        let shape = match header.kind {
            Kind::Opening => {
                header.seq == 0 && header.count == 0 && header.opening.is_some() && header.closing.is_none()
            }
            Kind::Events => header.seq > 0 && header.opening.is_none() && header.closing.is_none(),
            Kind::Closing => {
                header.seq > 0 && header.count == 0 && header.opening.is_none() && header.closing.is_some()
            }
        };
        if !shape {
            return Err("a frame of a wrong kind");
        }
        self.step(header, frame.head);
        Ok(())
    }

    pub(super) fn step(&mut self, header: &FrameHeader, head: [u8; 32]) {
        self.seq = self.seq.saturating_add(1);
        self.head = head;
        self.events = self.events.saturating_add(u64::from(header.count));
        self.end = header.end;
        self.closed = header.kind == Kind::Closing;
    }
}

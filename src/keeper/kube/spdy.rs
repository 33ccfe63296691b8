//! SPDY/3.1 frames that carry v4.channel.k8s.io: a SPDY stream a lane, opened by the client with a header that names it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::headers::Inflate;
use super::wire::{Garbled, Gathered, Lane, Said, Side};

/// Every frame's head: what it is, flags, length.
const HEAD: usize = 8;

/// The longest control frame. Those of exec and attach are shorter than 200 bytes.
const LONGEST_CONTROL: usize = 16 << 10;

const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Which SPDY stream is which lane; the client's decoder says it before the cluster can have heard of it.
#[derive(Debug, Default)]
pub(super) struct Lanes([AtomicU32; 5]);

impl Lanes {
    fn of(&self, stream: u32) -> Option<Lane> {
        let mut lanes = Lane::ALL.into_iter().zip(&self.0);
        let lane = lanes.find(|(_, known)| known.load(Ordering::Acquire) == stream).map(|(lane, _)| lane);
        // Zero is no stream's number: it stands for a lane that is not open.
        lane.filter(|_| stream != 0)
    }

    fn open(&self, lane: Lane, stream: u32) -> Result<(), Garbled> {
        if self.of(stream).is_some() {
            return Err(Garbled("a SPDY stream opened twice"));
        }
        let place = Lane::ALL.into_iter().zip(&self.0).find(|(known, _)| *known == lane).map(|(_, place)| place);
        let open = place.map(|place| place.compare_exchange(0, stream, Ordering::AcqRel, Ordering::Acquire));
        match open {
            Some(Ok(_)) => Ok(()),
            _ => Err(Garbled("a second SPDY stream for one lane")),
        }
    }
}

#[derive(Debug)]
pub(super) struct Decoder {
    side: Side,
    lanes: Arc<Lanes>,
    head: Gathered<HEAD>,
    frame: Option<Frame>,
    /// The payload of a control frame, as far as it is there.
    control: Vec<u8>,
    /// The headers of the client: those of the cluster say nothing that is recorded.
    inflate: Inflate,
}

/// A frame whose head is known.
#[derive(Clone, Copy, Debug)]
struct Frame {
    left: usize,
    fin: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Data(Lane),
    Control(u16),
}

impl Decoder {
    pub(super) fn new(side: Side, lanes: Arc<Lanes>) -> Self {
        Self { side, lanes, head: Gathered::new(), frame: None, control: Vec::new(), inflate: Inflate::new() }
    }

    pub(super) fn eat(&mut self, mut data: Bytes, said: &mut Vec<Said>) -> Result<(), Garbled> {
        while !data.is_empty() {
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => match self.begin(&mut data)? {
                    Some(frame) => frame,
                    None => return Ok(()),
                },
            };
            let part = data.split_to(frame.left.min(data.len()));
            frame.left -= part.len();
            match frame.kind {
                Kind::Data(_) if part.is_empty() => {}
                Kind::Data(lane) if lane.speaker() == self.side => said.push(Said::Data(lane, part)),
                Kind::Data(_) => return Err(Garbled("data in a lane of the other side")),
                Kind::Control(_) => self.control.extend_from_slice(&part),
            }
            self.frame = (frame.left > 0).then_some(frame);
            if self.frame.is_none() {
                self.end(frame, said)?;
            }
        }
        Ok(())
    }

    /// The next frame, once its head is whole.
    fn begin(&mut self, data: &mut Bytes) -> Result<Option<Frame>, Garbled> {
        let Some(&[a, b, c, d, flags, x, y, z]) = self.head.take(data, HEAD) else { return Ok(None) };
        self.head.clear();
        let left = u32::from_be_bytes([0, x, y, z]) as usize;
        let fin = flags & FIN != 0;
        if a & 0x80 == 0 {
            if flags & !FIN != 0 {
                return Err(Garbled("a data frame with an unknown flag"));
            }
            let lane = self.lanes.of(u32::from_be_bytes([a, b, c, d]));
            let lane = lane.ok_or(Garbled("data in a SPDY stream that nobody opened"))?;
            return Ok(Some(Frame { left, fin, kind: Kind::Data(lane) }));
        }
        if (a & 0x7f, b) != (0, 3) {
            return Err(Garbled("a frame of another version of SPDY"));
        }
        if left > LONGEST_CONTROL {
            return Err(Garbled("a control frame longer than any"));
        }
        self.control.clear();
        let kind = u16::from_be_bytes([c, d]);
        // The flags of SETTINGS mean something else, those of RST_STREAM and the like nothing.
        let fin = fin && matches!(kind, SYN_STREAM | SYN_REPLY | HEADERS);
        Ok(Some(Frame { left, fin, kind: Kind::Control(kind) }))
    }

    fn end(&mut self, frame: Frame, said: &mut Vec<Said>) -> Result<(), Garbled> {
        let lane = match frame.kind {
            Kind::Data(lane) => Some(lane),
            Kind::Control(kind) => {
                let payload = std::mem::take(&mut self.control);
                let lane = self.obey(kind, &payload, said);
                self.control = payload;
                lane?
            }
        };
        match lane {
            Some(lane) if frame.fin && lane.speaker() == self.side => said.push(Said::End(lane)),
            _ => {}
        }
        Ok(())
    }

    /// Reads a whole control frame; the lane it is about, if it is about one. Every length is exact: a peer that reads
    /// less of a frame than was sent would find another frame where this decoder finds none.
    fn obey(&mut self, kind: u16, payload: &[u8], said: &mut Vec<Said>) -> Result<Option<Lane>, Garbled> {
        let stream = |payload: &[u8]| payload.first_chunk().map_or(0, |id| u32::from_be_bytes(*id));
        match (kind, payload.len()) {
            (SYN_STREAM, 10..) => self.open(stream(payload), payload.split_at(10).1).map(Some),
            (HEADERS, 4..) => {
                if self.side == Side::Client {
                    self.inflate.headers(payload.split_at(4).1)?;
                }
                self.known(stream(payload)).map(Some)
            }
            (SYN_REPLY, 4..) if self.side == Side::Cluster => self.known(stream(payload)).map(Some),
            (RST_STREAM, 8) => {
                let lane = self.known(stream(payload))?;
                if lane.speaker() == self.side {
                    said.push(Said::End(lane));
                }
                Ok(None)
            }
            (PING, 4) | (GOAWAY | WINDOW_UPDATE, 8) => Ok(None),
            (SETTINGS, length @ 4..) => {
                let count = stream(payload) as usize;
                if count.checked_mul(8).and_then(|n| n.checked_add(4)) == Some(length) {
                    Ok(None)
                } else {
                    Err(Garbled("SETTINGS of a wrong length"))
                }
            }
            (SYN_STREAM | SYN_REPLY | RST_STREAM | SETTINGS | PING | GOAWAY | HEADERS | WINDOW_UPDATE, _) => {
                Err(Garbled("a control frame of a wrong length, or of the other side"))
            }
            _ => Err(Garbled("a control frame of an unknown kind")),
        }
    }

    fn known(&self, stream: u32) -> Result<Lane, Garbled> {
        self.lanes.of(stream).ok_or(Garbled("a control frame for a SPDY stream that nobody opened"))
    }

    fn open(&mut self, stream: u32, block: &[u8]) -> Result<Lane, Garbled> {
        if self.side == Side::Cluster {
            return Err(Garbled("a SPDY stream opened by the cluster"));
        }
        if stream & 0x8000_0001 != 1 {
            return Err(Garbled("a SPDY stream whose number is not the client's"));
        }
        let mut named = None;
        for (name, value) in self.inflate.headers(block)? {
            if name == b"streamtype" && named.replace(value).is_some() {
                return Err(Garbled("a SPDY stream of two types"));
            }
        }
        let lane = match named.as_deref() {
            Some(b"stdin") => Lane::Input,
            Some(b"stdout") => Lane::Output,
            Some(b"stderr") => Lane::ErrorOutput,
            Some(b"error") => Lane::Verdict,
            Some(b"resize") => Lane::Sizes,
            _ => return Err(Garbled("a SPDY stream of no known type")),
        };
        self.lanes.open(lane, stream)?;
        Ok(lane)
    }
}

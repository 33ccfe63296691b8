use std::collections::VecDeque;
use std::io::{self, Read};
use std::time::Duration;

use jiff::Timestamp;

use super::chain::Chain;
use super::frame::{self, Closing, Fault, Frame, FrameHeader, Kind, MAGIC, Opening, Totals, VERSION};
use super::{Event, Header, pack};
use crate::session::{FIRST_STREAM, SessionId};

/// Why a recording, or the rest of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read the recording")]
    Io(#[source] io::Error),
    #[error("this is not a recording: it does not begin with STKREC1")]
    NotARecording,
    #[error("the recording stops inside its first frame: nothing had been recorded yet")]
    Unopened,
    /// What a crash leaves; the frames before it are whole.
    #[error("torn at byte {offset}: {lost} bytes follow that are no whole frame")]
    Torn { offset: u64, lost: u64 },
    /// What a crash does not leave.
    #[error("the chain is broken at frame {seq}, byte {offset}: {what}")]
    Broken { offset: u64, seq: u64, what: &'static str },
    #[error("frame {seq} was signed or sealed by a newer stockade; use that one to read it")]
    Newer { seq: u64 },
}

/// An event, where and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The first byte of its frame in the file.
    pub offset: u64,
    /// Since the opening frame.
    pub at: Duration,
    pub event: Event,
}

/// A recording being read. Each frame is checked against the chain before any of its events is given out.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    chain: Chain,
    /// Of the next frame.
    offset: u64,
    opening: Opening,
    started: Timestamp,
    header: Header,
    closing: Option<Closing>,
    closed_at: Option<i64>,
    totals: Totals,
    exit: Option<u32>,
    waiting: VecDeque<Recorded>,
    done: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the opening frame. Give it a buffered source.
    pub fn open(mut source: R) -> Result<Self, ReadError> {
        let mut magic = Vec::with_capacity(MAGIC.len());
        source.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(ReadError::Io)?;
        if magic != MAGIC {
            let begun = MAGIC.starts_with(&magic) || magic.iter().all(|b| *b == 0);
            return Err(if begun { ReadError::Unopened } else { ReadError::NotARecording });
        }
        let offset = MAGIC.len() as u64;
        let broken = |what| ReadError::Broken { offset, seq: 0, what };
        let frame = match frame::next(&mut source) {
            Ok(Some(frame)) => frame,
            Ok(None) | Err(Fault::Torn(_)) => return Err(ReadError::Unopened),
            Err(Fault::Damaged(what)) => return Err(broken(what)),
            Err(Fault::Newer) => return Err(ReadError::Newer { seq: 0 }),
            Err(Fault::Io(e)) => return Err(ReadError::Io(e)),
        };
        let mut chain = Chain::new(frame.header.recording);
        chain.follow(&frame).map_err(broken)?;
        let opening = frame.header.opening.clone().ok_or(broken("no opening frame"))?;
        if opening.version != VERSION {
            return Err(ReadError::Newer { seq: 0 });
        }
        let started = Timestamp::from_microsecond(frame.header.wall).map_err(|_| broken("an impossible time"))?;
        let header = header(&frame).ok_or(broken("its header cannot be decoded"))?;
        Ok(Self {
            source,
            chain,
            offset: offset.saturating_add(frame.size),
            opening,
            started,
            header,
            closing: None,
            closed_at: None,
            totals: Totals::default(),
            exit: None,
            waiting: VecDeque::new(),
            done: false,
        })
    }

    pub fn session(&self) -> SessionId {
        self.chain.recording
    }

    /// The public header.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Wall time of the opening frame.
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// The closing frame, once it was read.
    pub fn closing(&self) -> Option<&Closing> {
        self.closing.as_ref()
    }

    /// Wall time of the closing frame, once it was read.
    pub fn closed_at(&self) -> Option<Timestamp> {
        self.closed_at.and_then(|wall| Timestamp::from_microsecond(wall).ok())
    }

    /// Whole frames read so far, the opening one included.
    pub fn frames(&self) -> u64 {
        self.chain.seq
    }

    /// The head of the last frame that was read.
    pub fn head(&self) -> [u8; 32] {
        self.chain.head
    }

    /// Where the last whole frame ends.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Time from the opening frame to the end of the last frame read.
    pub fn length(&self) -> Duration {
        Duration::from_micros(self.chain.end)
    }

    /// What the frames read so far hold.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    pub(super) fn into_end(self) -> (Chain, Totals, Option<u32>) {
        (self.chain, self.totals, self.exit)
    }

    /// Reads one frame into `waiting`; `false` at the end.
    fn advance(&mut self) -> Result<bool, ReadError> {
        let (offset, seq) = (self.offset, self.chain.seq);
        let broken = |what| ReadError::Broken { offset, seq, what };
        let frame = match frame::next(&mut self.source) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(false),
            Err(_) if self.chain.closed => return Err(broken("something follows the closing frame")),
            Err(Fault::Torn(lost)) => return Err(ReadError::Torn { offset, lost }),
            Err(Fault::Damaged(what)) => return Err(broken(what)),
            Err(Fault::Newer) => return Err(ReadError::Newer { seq }),
            Err(Fault::Io(e)) => return Err(ReadError::Io(e)),
        };
        let mut chain = self.chain.clone();
        chain.follow(&frame).map_err(broken)?;
        let events = events(&frame, offset).ok_or(broken("its events cannot be decoded"))?;
        for recorded in &events {
            self.totals.add(&recorded.event);
            if let Event::ExitStatus { status, number } = recorded.event
                && number < FIRST_STREAM
            {
                self.exit = Some(status);
            }
        }
        if let Some(closing) = &frame.header.closing {
            if closing.totals != self.totals || closing.exit != self.exit {
                return Err(broken("the closing frame counts other events than there are"));
            }
            self.closing = Some(closing.clone());
            self.closed_at = Some(frame.header.wall);
        }
        self.chain = chain;
        self.offset = offset.saturating_add(frame.size);
        self.waiting.extend(events);
        Ok(true)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Recorded, ReadError>;

    /// After the first error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(recorded) = self.waiting.pop_front() {
                return Some(Ok(recorded));
            }
            if self.done {
                return None;
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => self.done = true,
                Err(e) => {
                    self.done = true;
                    return Some(Err(e));
                }
            }
        }
    }
}

/// The payload of an opening frame.
pub(super) fn header(frame: &Frame) -> Option<Header> {
    let plain = pack::unpack(&frame.payload)?;
    whole(&plain)
}

fn whole<'b, T: minicbor::Decode<'b, ()>>(plain: &'b [u8]) -> Option<T> {
    let mut decoder = minicbor::Decoder::new(plain);
    let value = decoder.decode().ok()?;
    (decoder.position() == plain.len()).then_some(value)
}

/// All events of a frame, exactly as many as its header says, at the times that it says.
fn events(frame: &Frame, offset: u64) -> Option<Vec<Recorded>> {
    let FrameHeader { kind, count, start, end, .. } = frame.header;
    if kind == Kind::Opening {
        return None;
    }
    if count == 0 {
        return (kind == Kind::Closing && frame.payload.is_empty()).then(Vec::new);
    }
    let plain = pack::unpack(&frame.payload)?;
    let mut decoder = minicbor::Decoder::new(&plain);
    let mut events = Vec::new();
    let mut at = start;
    while decoder.position() < plain.len() {
        at = at.checked_add(decoder.u64().ok()?)?;
        events.push(Recorded { offset, at: Duration::from_micros(at), event: decoder.decode().ok()? });
    }
    (events.len() == usize::try_from(count).ok()? && at == end).then_some(events)
}

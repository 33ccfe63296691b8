use std::io::{self, Read};

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::{Durability, Event};
use crate::session::SessionId;

/// How every recording begins.
pub const MAGIC: &[u8; 8] = b"STKREC1\n";

/// The version of the format inside `MAGIC`'s family.
pub(super) const VERSION: u8 = 1;

pub(super) const PREFIX: usize = 4;
pub(super) const TRAILER: usize = 8;

/// The limits of what a reader takes, whatever a file claims.
pub(super) const LONGEST_HEADER: usize = 2048;
pub(super) const LONGEST_PAYLOAD: usize = 640 << 10;
pub(super) const LONGEST_PLAIN: usize = 512 << 10;

/// The clear part of a frame: enough to list, keep and verify without any key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FrameHeader {
    /// In every header, so that a frame of another recording fits nowhere.
    #[n(0)]
    pub recording: SessionId,
    #[n(1)]
    pub seq: u64,
    /// The head of the frame before; zeros in the opening frame. In the closing frame this is the final head.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub previous: [u8; 32],
    #[n(3)]
    pub kind: Kind,
    /// The number of the first event in it.
    #[n(4)]
    pub first: u64,
    #[n(5)]
    pub count: u32,
    /// Microseconds of CLOCK_BOOTTIME since the opening frame, of the first event.
    #[n(6)]
    pub start: u64,
    /// The same of the last event.
    #[n(7)]
    pub end: u64,
    /// When the frame was closed, microseconds since the epoch: an anchor, never an order.
    #[n(8)]
    pub wall: i64,
    /// Of the payload.
    #[n(9)]
    pub length: u32,
    /// Of the payload as it is in the file.
    #[n(10)]
    #[cbor(with = "minicbor::bytes")]
    pub sha256: [u8; 32],
    /// The public key that signs the next frame. Absent in this version.
    #[n(11)]
    #[cbor(with = "minicbor::bytes")]
    pub next_key: Option<[u8; 32]>,
    /// How the payload is sealed. Absent in this version.
    #[n(12)]
    pub suite: Option<u8>,
    #[n(13)]
    pub opening: Option<Opening>,
    #[n(14)]
    pub closing: Option<Closing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// The first frame; its payload is the `Header`.
    #[n(0)]
    Opening,
    #[n(1)]
    Events,
    /// The last frame; without it a recording is unclosed.
    #[n(2)]
    Closing,
}

/// The public header. Bastion, boot id, host key, policy and retention class will be appended when there are keys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Opening {
    #[n(0)]
    pub version: u8,
    /// CLOCK_BOOTTIME at the beginning, microseconds; the frame's `wall` is its wall time.
    #[n(1)]
    pub boot: u64,
    #[n(2)]
    pub grade: Durability,
    #[n(3)]
    pub bulk_after: u64,
    #[n(4)]
    pub bulk_unit: u64,
}

/// How a recording ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Closing {
    /// `exit`, `idle`, `disk`, …; `recovered` when a later run of the keeper wrote it.
    #[n(0)]
    pub reason: String,
    #[n(1)]
    pub totals: Totals,
    /// The last exit status seen.
    #[n(2)]
    pub exit: Option<u32>,
    /// CLOCK_BOOTTIME of the writer of this frame, microseconds.
    #[n(3)]
    pub boot: u64,
    /// Bytes after the last whole frame that recovery took away.
    #[n(4)]
    pub lost: Option<u64>,
}

/// The reason of a closing frame that recovery wrote.
pub(super) const RECOVERED: &str = "recovered";

impl Closing {
    pub fn recovered(&self) -> bool {
        self.reason == RECOVERED
    }
}

/// What a recording holds; bytes are those of the session, redacted and bulk ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Totals {
    #[n(0)]
    pub events: u64,
    #[n(1)]
    pub channels: u32,
    #[n(2)]
    pub output: u64,
    #[n(3)]
    pub error_output: u64,
    #[n(4)]
    pub input: u64,
    #[n(5)]
    pub redacted: u64,
    #[n(6)]
    pub execs: u64,
}

impl Totals {
    pub(super) fn add(&mut self, event: &Event) {
        use super::Direction;
        self.events = self.events.saturating_add(1);
        let (sum, bytes) = match event {
            Event::Output { data, .. } => (&mut self.output, data.len() as u64),
            Event::ErrorOutput { data, .. } => (&mut self.error_output, data.len() as u64),
            Event::Input { data, .. } => (&mut self.input, data.len() as u64),
            Event::InputRedacted { bytes, .. } => {
                self.redacted = self.redacted.saturating_add(*bytes);
                (&mut self.input, *bytes)
            }
            Event::Bulk { direction, length, .. } => match direction {
                Direction::Input => (&mut self.input, *length),
                Direction::Output => (&mut self.output, *length),
                Direction::ErrorOutput => (&mut self.error_output, *length),
            },
            Event::Exec { .. } => (&mut self.execs, 1),
            Event::Channel { .. } => {
                self.channels = self.channels.saturating_add(1);
                return;
            }
            _ => return,
        };
        *sum = sum.saturating_add(bytes);
    }
}

pub(super) fn head(header: &[u8]) -> [u8; 32] {
    Sha256::new_with_prefix(b"stockade/rec/v1").chain_update(header).finalize().into()
}

pub(super) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The frame's bytes and its head.
pub(super) fn bytes(header: &FrameHeader, payload: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let header = cbor(header);
    let head = head(&header);
    let size = PREFIX + header.len() + payload.len() + TRAILER;
    let mut out = Vec::with_capacity(size);
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(&0u16.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.extend_from_slice(&(size as u32).to_le_bytes());
    out.extend_from_slice(check(&head));
    (out, head)
}

fn check(head: &[u8; 32]) -> &[u8] {
    head.split_at(4).0
}

/// A vector takes every byte and derived encoders refuse nothing, so an error cannot come; if it did, the chain would
/// not verify.
pub(super) fn cbor<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).unwrap_or_default()
}

/// A whole frame: its header decoded, its own hashes checked, its place in the chain not yet.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: FrameHeader,
    pub(super) head: [u8; 32],
    pub(super) payload: Vec<u8>,
    /// In the file.
    pub(super) size: u64,
}

/// Why there is no whole frame here.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    /// The file ends, or is zeros, before the frame does; so many bytes are left of it.
    Torn(u64),
    Damaged(&'static str),
    /// Signed or sealed: a later version wrote it.
    Newer,
}

/// The next frame; `None` at the end of the file.
pub(super) fn next(source: &mut impl Read) -> Result<Option<Frame>, Fault> {
    let mut taken = 0;
    let prefix = match fill(source, PREFIX, &mut taken) {
        Err(Fault::Torn(0)) => return Ok(None),
        other => other?,
    };
    let [a, b, c, d] = prefix[..] else { return Err(Fault::Torn(taken)) };
    let (length, signature) = (usize::from(u16::from_le_bytes([a, b])), u16::from_le_bytes([c, d]));
    if length == 0 {
        return Err(zeros(source, taken, "a header of no length")?);
    }
    if length > LONGEST_HEADER {
        return Err(Fault::Damaged("a header longer than any"));
    }
    let raw = fill(source, length, &mut taken)?;
    let header = decode_header(&raw)?;
    if signature != 0 || header.next_key.is_some() || header.suite.is_some() {
        return Err(Fault::Newer);
    }
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    if length > LONGEST_PAYLOAD {
        return Err(Fault::Damaged("a payload longer than any"));
    }
    let payload = fill(source, length, &mut taken)?;
    let trailer = fill(source, TRAILER, &mut taken)?;
    let head = head(&raw);
    if trailer.iter().all(|b| *b == 0) {
        return Err(zeros(source, taken, "no trailer")?);
    }
    let size = u32::try_from(taken).unwrap_or(u32::MAX).to_le_bytes();
    if !trailer.iter().eq(size.iter().chain(check(&head))) {
        return Err(Fault::Damaged("the header does not match its check"));
    }
    if digest(&payload) != header.sha256 {
        return Err(Fault::Damaged("the payload does not match its hash"));
    }
    Ok(Some(Frame { header, head, payload, size: taken }))
}

fn decode_header(raw: &[u8]) -> Result<FrameHeader, Fault> {
    let mut decoder = minicbor::Decoder::new(raw);
    let header = decoder.decode().map_err(|_| Fault::Damaged("the header is not one"))?;
    if decoder.position() != raw.len() {
        return Err(Fault::Damaged("the header has something after it"));
    }
    Ok(header)
}

/// Exactly `length` bytes; the buffer grows with what is there, not with what is claimed.
fn fill(source: &mut impl Read, length: usize, taken: &mut u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(length.min(4096));
    source.by_ref().take(length as u64).read_to_end(&mut bytes).map_err(Fault::Io)?;
    *taken = taken.saturating_add(bytes.len() as u64);
    if bytes.len() < length { Err(Fault::Torn(*taken)) } else { Ok(bytes) }
}

/// Zeros to the end are what a file system leaves of an append that did not finish.
fn zeros(source: &mut impl Read, taken: u64, otherwise: &'static str) -> Result<Fault, Fault> {
    let mut chunk = [0; 4096];
    let mut taken = taken;
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return Ok(Fault::Torn(taken)),
            Ok(n) if chunk.iter().take(n).all(|b| *b == 0) => taken = taken.saturating_add(n as u64),
            Ok(_) => return Ok(Fault::Damaged(otherwise)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Fault::Io(e)),
        }
    }
}

//! The law of recordings: whatever a file holds, reading ends, and recovery only adds an end.

use std::io::Cursor;
use std::time::Duration;

use jiff::Timestamp;

use super::chain::Chain;
use super::frame::{self, FrameHeader, Kind, MAGIC};
use super::recover::survey;
use super::{ReadError, Reader, Recorded, pack};

/// The first byte says what the rest is: a file as it is, or what to make frames of.
pub fn recordings(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, file)) => held(file),
        Some((_, parts)) => held(&forged(parts)),
        None => held(bytes),
    }
}

fn held(file: &[u8]) {
    let Some((events, end, fault)) = read(file) else {
        assert!(survey(Cursor::new(file), Timestamp::UNIX_EPOCH, Duration::ZERO).is_err());
        return;
    };
    let whole = usize::try_from(end).ok().and_then(|end| file.get(..end));
    assert!(whole.is_some(), "read beyond the end: {end} of {}", file.len());
    match survey(Cursor::new(file), Timestamp::UNIX_EPOCH, Duration::ZERO) {
        Ok(Some(mended)) => {
            assert_eq!(mended.keep, end);
            let mended = [whole.unwrap_or_default(), &mended.closing].concat();
            let Some((after, end, fault)) = read(&mended) else { unreachable!("what was mended does not open") };
            assert!(fault.is_none() && after == events && end == mended.len() as u64, "{fault:?}");
            let again = survey(Cursor::new(&mended), Timestamp::UNIX_EPOCH, Duration::ZERO);
            assert!(matches!(again, Ok(None)), "mended twice");
        }
        Ok(None) => assert!(fault.is_none() && whole == Some(file), "{fault:?}"),
        Err(_) => assert!(fault.is_some(), "whole, and yet not mended"),
    }
}

/// All events before the first error, where the last whole frame ends, and that error; `None` where nothing opens.
fn read(file: &[u8]) -> Option<(Vec<Recorded>, u64, Option<ReadError>)> {
    let mut reader = Reader::open(file).ok()?;
    let (mut events, mut fault) = (Vec::new(), None);
    for recorded in reader.by_ref() {
        match recorded {
            Ok(recorded) => events.push(recorded),
            Err(error) => fault = Some(error),
        }
    }
    let told = reader.totals().events;
    assert_eq!(told, events.len() as u64);
    Some((events, reader.offset(), fault))
}

/// Frames whose hashes are right, which mutation does not find: each part is two lengths, a header and a plain payload.
/// The top bit of the first length leaves the header's place in the chain as it is.
fn forged(mut parts: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    let mut chain: Option<Chain> = None;
    while let Some(([a, b, c, d], rest)) = parts.split_first_chunk::<4>() {
        let first = u16::from_le_bytes([*a, *b]);
        let header = rest.split_at_checked(usize::from(first & 0x7fff));
        let Some((raw, rest)) = header else { break };
        let Some((plain, rest)) = rest.split_at_checked(usize::from(u16::from_le_bytes([*c, *d]))) else { break };
        parts = rest;
        let Ok(mut header) = minicbor::decode::<FrameHeader>(raw) else {
            file.extend_from_slice(raw);
            continue;
        };
        let known = chain.get_or_insert_with(|| Chain::new(header.recording));
        if first & 0x8000 == 0 {
            (header.recording, header.seq) = (known.recording, known.seq);
            (header.previous, header.first) = (known.head, known.events);
        }
        let payload = if header.kind == Kind::Closing && plain.is_empty() { Vec::new() } else { pack::pack(plain) };
        header.length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        header.sha256 = frame::digest(&payload);
        let (bytes, head) = frame::bytes(&header, &payload);
        file.extend_from_slice(&bytes);
        known.step(&header, head);
    }
    file.extend_from_slice(parts);
    file
}

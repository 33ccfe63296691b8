//! The law of streams to containers: however their bytes are cut, the same is heard.

use bytes::Bytes;

use super::wire::{Decoder, Garbled, Said};
use super::words::{Judgement, Sizes};
use crate::privsep::message::StreamProtocol;

/// A byte that says protocol and cut, then pieces: two bytes of length, whose top bit says the cluster sends, and bytes.
pub fn kube_streams(bytes: &[u8]) {
    let whole = heard(bytes, usize::MAX);
    for cut in [1, bytes.first().map_or(1, |first| usize::from(first >> 2) + 2)] {
        assert_eq!(heard(bytes, cut), whole, "in pieces of {cut}");
    }
}

fn pieces(mut bytes: &[u8]) -> Vec<(usize, Bytes)> {
    let mut pieces = Vec::new();
    while let Some(([a, b], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([a & 0x7f, *b])).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        pieces.push((usize::from(a >> 7), Bytes::copy_from_slice(piece)));
        bytes = rest;
    }
    pieces
}

/// What both sides say up to the first error, neighbours joined; and that error.
pub(super) fn heard(bytes: &[u8], cut: usize) -> (Vec<Said>, Option<Garbled>) {
    let Some((first, rest)) = bytes.split_first() else { return (Vec::new(), None) };
    let mut decoders = Decoder::pair(match first & 3 {
        0 => StreamProtocol::WebSocket4,
        1 => StreamProtocol::WebSocket5,
        _ => StreamProtocol::Spdy,
    });
    let mut said = Vec::new();
    let mut eaten = 0;
    for (side, piece) in pieces(rest) {
        let Some(decoder) = decoders.get_mut(side) else { continue };
        for part in piece.chunks(cut.min(piece.len()).max(1)) {
            eaten += part.len();
            if let Err(garbled) = decoder.eat(piece.slice_ref(part), &mut said) {
                return (joined(said, eaten), Some(garbled));
            }
        }
    }
    words(&said);
    (joined(said, eaten), None)
}

fn joined(said: Vec<Said>, eaten: usize) -> Vec<Said> {
    let mut all: Vec<Said> = Vec::new();
    let mut length = 0;
    for said in said {
        if let Said::Data(_, data) = &said {
            length += data.len();
            assert!(!data.is_empty());
        }
        match (all.last_mut(), said) {
            (Some(Said::Data(last, before)), Said::Data(lane, data)) if *last == lane => {
                *before = [&before[..], &data[..]].concat().into();
            }
            (_, said) => all.push(said),
        }
    }
    assert!(length <= eaten, "{length} bytes heard of {eaten}");
    all
}

/// Both lanes of JSON take anything.
fn words(said: &[Said]) {
    let (mut sizes, mut judgement) = (Sizes::default(), Judgement::default());
    for said in said {
        let Said::Data(_, data) = said else { continue };
        let _ = sizes.take(data);
        let _ = judgement.take(data);
    }
    let _ = judgement.end();
    assert!(judgement.end().is_none(), "two verdicts");
}

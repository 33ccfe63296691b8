//! The bytes of an exec or attach after the 101, read as a copy: what they say, lane by lane.
//!
//! Sans-IO: a `Decoder` eats one direction of a connection in pieces of any size and tells what it hears in order. It
//! keeps no more than a frame's head and what is short by nature, and payloads are slices of what it was given. Bytes
//! that it does not understand, or that another decoder might understand in another way, are a `Garbled`: the stream
//! ends before they are forwarded.

use std::sync::Arc;

use bytes::Bytes;

use super::spdy::{self, Lanes};
use super::websocket;
use crate::privsep::message::StreamProtocol;

/// What is carried side by side, by the numbers of channel.k8s.io.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Input,
    Output,
    ErrorOutput,
    /// How it ended.
    Verdict,
    Sizes,
}

impl Lane {
    pub(super) const ALL: [Self; 5] = [Self::Input, Self::Output, Self::ErrorOutput, Self::Verdict, Self::Sizes];

    pub(super) fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    pub(super) fn speaker(self) -> Side {
        match self {
            Self::Input | Self::Sizes => Side::Client,
            Self::Output | Self::ErrorOutput | Self::Verdict => Side::Cluster,
        }
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::keeper) enum Side {
    Client,
    Cluster,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Data(Lane, Bytes),
    End(Lane),
}

/// Bytes that are not the protocol that was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Garbled(pub(super) &'static str);

/// One direction of a connection.
#[derive(Debug)]
pub(super) enum Decoder {
    WebSocket(websocket::Decoder),
    Spdy(Box<spdy::Decoder>),
}

impl Decoder {
    /// Both directions: of the client, of the cluster.
    pub(super) fn pair(protocol: StreamProtocol) -> [Self; 2] {
        let lanes = Arc::new(Lanes::default());
        [Side::Client, Side::Cluster].map(|side| match protocol {
            StreamProtocol::WebSocket4 => Self::WebSocket(websocket::Decoder::new(side, false)),
            StreamProtocol::WebSocket5 => Self::WebSocket(websocket::Decoder::new(side, true)),
            StreamProtocol::Spdy => Self::Spdy(Box::new(spdy::Decoder::new(side, lanes.clone()))),
        })
    }

    /// Adds what `data` says to `said`, which keeps what came before an error.
    pub(super) fn eat(&mut self, data: Bytes, said: &mut Vec<Said>) -> Result<(), Garbled> {
        match self {
            Self::WebSocket(decoder) => decoder.eat(data, said),
            Self::Spdy(decoder) => decoder.eat(data, said),
        }
    }
}

/// Gathers exactly so many bytes from pieces.
#[derive(Debug)]
pub(super) struct Gathered<const N: usize> {
    bytes: [u8; N],
    have: usize,
}

impl<const N: usize> Gathered<N> {
    pub(super) fn new() -> Self {
        Self { bytes: [0; N], have: 0 }
    }

    /// Takes from `data` until there are `wanted`; those, once they are all there.
    pub(super) fn take(&mut self, data: &mut Bytes, wanted: usize) -> Option<&[u8]> {
        let missing = wanted.saturating_sub(self.have);
        let now = data.split_to(missing.min(data.len()));
        let place = self.bytes.get_mut(self.have..self.have + now.len())?;
        place.copy_from_slice(&now);
        self.have += now.len();
        if self.have < wanted { None } else { self.bytes.get(..wanted) }
    }

    pub(super) fn clear(&mut self) {
        self.have = 0;
    }
}

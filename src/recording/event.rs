use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::{Exec, KubeStream};

/// What happened in a session. `number` is the channel's (c1, c2, …) or the stream's on a cluster (k1, k2, …).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    #[n(0)]
    Output {
        #[n(0)]
        number: u32,
        #[n(1)]
        #[cbor(with = "octets")]
        data: Bytes,
    },
    /// Only a channel without a terminal tells it from `Output`.
    #[n(1)]
    ErrorOutput {
        #[n(0)]
        number: u32,
        #[n(1)]
        #[cbor(with = "octets")]
        data: Bytes,
    },
    #[n(2)]
    Input {
        #[n(0)]
        number: u32,
        #[n(1)]
        #[cbor(with = "octets")]
        data: Bytes,
    },
    /// Input that was not kept; `why` is `echo off`, `pattern` or `policy`.
    #[n(3)]
    InputRedacted {
        #[n(0)]
        number: u32,
        #[n(1)]
        bytes: u64,
        #[n(2)]
        why: String,
    },
    /// The client's half-close.
    #[n(4)]
    InputEnd {
        #[n(0)]
        number: u32,
    },
    #[n(5)]
    Resize {
        #[n(0)]
        number: u32,
        #[n(1)]
        columns: u16,
        #[n(2)]
        rows: u16,
        /// Pixels.
        #[n(3)]
        width: u16,
        #[n(4)]
        height: u16,
    },
    /// The user sent a signal; the name is without `SIG`.
    #[n(6)]
    Signal {
        #[n(0)]
        number: u32,
        #[n(1)]
        name: String,
    },
    /// A channel is about to run `program`; `None` is a login shell.
    #[n(7)]
    Channel {
        #[n(0)]
        number: u32,
        #[n(1)]
        program: Option<String>,
        #[n(2)]
        terminal: Option<Terminal>,
        #[n(3)]
        environment: Vec<(String, String)>,
    },
    #[n(8)]
    Exec {
        #[n(0)]
        number: u32,
        #[n(1)]
        exec: Exec,
    },
    #[n(9)]
    ExitStatus {
        #[n(0)]
        number: u32,
        #[n(1)]
        status: u32,
    },
    #[n(10)]
    ExitSignal {
        #[n(0)]
        number: u32,
        #[n(1)]
        name: String,
    },
    /// Bytes past `BULK_AFTER` of one direction, by their digest instead of themselves.
    #[n(11)]
    Bulk {
        #[n(0)]
        number: u32,
        #[n(1)]
        direction: Direction,
        /// From the beginning of this direction.
        #[n(2)]
        offset: u64,
        #[n(3)]
        length: u64,
        #[n(4)]
        #[cbor(with = "minicbor::bytes")]
        sha256: [u8; 32],
    },
    /// The wall clock jumped against the monotonic one.
    #[n(12)]
    Clock {
        /// The new wall time, microseconds since the epoch.
        #[n(0)]
        wall: i64,
        /// By how much, in microseconds; negative is back.
        #[n(1)]
        jump: i64,
    },
    #[n(13)]
    Note {
        #[n(0)]
        text: String,
    },
    /// AWS credentials were issued to the session.
    #[n(14)]
    Credential {
        #[n(0)]
        access_key_id: String,
        /// Seconds since the epoch.
        #[n(1)]
        expires: i64,
    },
    /// The client is gone; the channel lives on.
    #[n(15)]
    Detached {
        #[n(0)]
        number: u32,
    },
    /// A client is (again) there.
    #[n(16)]
    Attached {
        #[n(0)]
        number: u32,
    },
    /// A program in a container of a cluster is connected; from here on its bytes are this number's.
    #[n(17)]
    KubeStream {
        #[n(0)]
        number: u32,
        #[n(1)]
        stream: Box<KubeStream>,
    },
}

/// The terminal of a channel, as the client asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Terminal {
    #[n(0)]
    pub term: String,
    #[n(1)]
    pub columns: u16,
    #[n(2)]
    pub rows: u16,
    /// Pixels.
    #[n(3)]
    pub width: u16,
    #[n(4)]
    pub height: u16,
    /// RFC 4254 section 8: opcode and value.
    #[n(5)]
    pub modes: Vec<(u8, u32)>,
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Direction {
    #[n(0)]
    Input,
    #[n(1)]
    Output,
    #[n(2)]
    ErrorOutput,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::ErrorOutput => "error output",
        }
    }
}

impl Event {
    /// The channel it belongs to.
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Output { number, .. }
            | Self::ErrorOutput { number, .. }
            | Self::Input { number, .. }
            | Self::InputRedacted { number, .. }
            | Self::InputEnd { number }
            | Self::Resize { number, .. }
            | Self::Signal { number, .. }
            | Self::Channel { number, .. }
            | Self::KubeStream { number, .. }
            | Self::Exec { number, .. }
            | Self::ExitStatus { number, .. }
            | Self::ExitSignal { number, .. }
            | Self::Bulk { number, .. }
            | Self::Detached { number }
            | Self::Attached { number } => Some(*number),
            Self::Clock { .. } | Self::Note { .. } | Self::Credential { .. } => None,
        }
    }

    /// The event in pieces whose bytes are at most `longest`; `None` when it fits as it is.
    pub(super) fn split(&self, longest: usize) -> Option<Vec<Self>> {
        let (data, again): (&Bytes, fn(u32, Bytes) -> Self) = match self {
            Self::Output { data, .. } => (data, |number, data| Self::Output { number, data }),
            Self::ErrorOutput { data, .. } => (data, |number, data| Self::ErrorOutput { number, data }),
            Self::Input { data, .. } => (data, |number, data| Self::Input { number, data }),
            _ => return None,
        };
        if data.len() <= longest {
            return None;
        }
        let number = self.number()?;
        Some(data.chunks(longest).map(|piece| again(number, data.slice_ref(piece))).collect())
    }
}

/// `Bytes` as a CBOR byte string.
mod octets {
    use bytes::Bytes;
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};

    pub(super) fn encode<C, W: Write>(
        data: &Bytes,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(data)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, Error> {
        Ok(Bytes::copy_from_slice(d.bytes()?))
    }
}

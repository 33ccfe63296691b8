//! The bytes of one channel between gate and keeper: packets of a kind and a payload, no CBOR on the hot path.

use std::borrow::Cow;
use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::link::{LinkError, Packets};
use super::message::Size;

/// The longest payload of a data packet: one SSH packet.
pub const LONGEST_DATA: usize = 32 * 1024;

/// What the gate sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromGate {
    Input(Bytes),
    /// The client's half-close.
    InputEnd,
    Resize(Size),
    /// RFC 4254 section 6.9, without `SIG`.
    Signal(String),
}

/// What the keeper sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromKeeper {
    Output(Bytes),
    ErrorOutput(Bytes),
    /// The last packet: the exit status.
    Exit(u32),
    /// The last packet: the signal that ended it, without `SIG`.
    ExitSignal(String),
    /// A sentence for the user, not from the jail.
    Notice(String),
}

impl FromGate {
    pub(super) fn parts(&self) -> (u8, Cow<'_, [u8]>) {
        match self {
            Self::Input(data) => (b'i', data[..].into()),
            Self::InputEnd => (b'e', Cow::default()),
            Self::Resize(Size { columns, rows, width, height }) => {
                (b'r', [columns, rows, width, height].into_iter().flat_map(|side| side.to_le_bytes()).collect())
            }
            Self::Signal(name) => (b's', name.as_bytes().into()),
        }
    }

    pub(super) fn take(packet: Bytes) -> Result<Self, LinkError> {
        let (kind, rest) = split(packet)?;
        Ok(match kind {
            b'i' => Self::Input(rest),
            b'e' if rest.is_empty() => Self::InputEnd,
            b'r' => {
                let sides: &[u8; 8] = rest[..].try_into().map_err(|_| LinkError::Breach("a size of a wrong length"))?;
                let [a, b, c, d, e, f, g, h] = *sides;
                Self::Resize(Size {
                    columns: u16::from_le_bytes([a, b]),
                    rows: u16::from_le_bytes([c, d]),
                    width: u16::from_le_bytes([e, f]),
                    height: u16::from_le_bytes([g, h]),
                })
            }
            b's' => Self::Signal(text(&rest)?),
            _ => return Err(LinkError::Breach("an unknown packet")),
        })
    }
}

impl FromKeeper {
    pub(super) fn parts(&self) -> (u8, Cow<'_, [u8]>) {
        match self {
            Self::Output(data) => (b'o', data[..].into()),
            Self::ErrorOutput(data) => (b'E', data[..].into()),
            Self::Exit(status) => (b'x', status.to_le_bytes().to_vec().into()),
            Self::ExitSignal(name) => (b'k', name.as_bytes().into()),
            Self::Notice(sentence) => (b'n', sentence.as_bytes().into()),
        }
    }

    pub(super) fn take(packet: Bytes) -> Result<Self, LinkError> {
        let (kind, rest) = split(packet)?;
        Ok(match kind {
            b'o' => Self::Output(rest),
            b'E' => Self::ErrorOutput(rest),
            b'x' => {
                let status = rest[..].try_into().map_err(|_| LinkError::Breach("a status of a wrong length"))?;
                Self::Exit(u32::from_le_bytes(status))
            }
            b'k' => Self::ExitSignal(text(&rest)?),
            b'n' => Self::Notice(text(&rest)?),
            _ => return Err(LinkError::Breach("an unknown packet")),
        })
    }
}

fn split(mut packet: Bytes) -> Result<(u8, Bytes), LinkError> {
    let kind = *packet.first().ok_or(LinkError::Breach("an empty packet"))?;
    Ok((kind, packet.split_off(1)))
}

fn text(bytes: &[u8]) -> Result<String, LinkError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| LinkError::Breach("text that is not UTF-8"))
}

/// The gate's end.
#[derive(Debug)]
pub struct GateEnd(Packets);

/// The keeper's end.
#[derive(Debug)]
pub struct KeeperEnd(Packets);

impl GateEnd {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(Packets::new(socket)?))
    }

    pub async fn send(&self, packet: &FromGate) -> Result<(), LinkError> {
        let (kind, payload) = packet.parts();
        self.0.send_kind(kind, &payload).await
    }

    pub async fn recv(&self) -> Result<FromKeeper, LinkError> {
        FromKeeper::take(packet(&self.0).await?)
    }
}

impl KeeperEnd {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(Packets::new(socket)?))
    }

    pub async fn send(&self, packet: &FromKeeper) -> Result<(), LinkError> {
        let (kind, payload) = packet.parts();
        self.0.send_kind(kind, &payload).await
    }

    pub async fn recv(&self) -> Result<FromGate, LinkError> {
        FromGate::take(packet(&self.0).await?)
    }
}

async fn packet(packets: &Packets) -> Result<Bytes, LinkError> {
    let mut buffer = Vec::new();
    let descriptors = packets.recv(&mut buffer, LONGEST_DATA + 1).await?;
    if !descriptors.is_empty() {
        return Err(LinkError::Breach("descriptors on a stream"));
    }
    Ok(buffer.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn packets_arrive_as_they_were_sent() {
        let (a, b) = super::super::link::pair().unwrap();
        let (gate, keeper) = (GateEnd::new(a).unwrap(), KeeperEnd::new(b).unwrap());
        let size = Size { columns: 80, rows: 24, width: 1, height: 65535 };
        for sent in [
            FromGate::Input(Bytes::from_static(b"\0\xff")),
            FromGate::InputEnd,
            FromGate::Resize(size),
            FromGate::Signal("INT".into()),
        ] {
            gate.send(&sent).await.unwrap();
            assert_eq!(keeper.recv().await.unwrap(), sent);
        }
        for sent in [
            FromKeeper::Output(Bytes::from_static(b"x")),
            FromKeeper::ErrorOutput(Bytes::new()),
            FromKeeper::Exit(255),
            FromKeeper::ExitSignal("KILL".into()),
            FromKeeper::Notice("sorry".into()),
        ] {
            keeper.send(&sent).await.unwrap();
            assert_eq!(gate.recv().await.unwrap(), sent);
        }
    }

    #[test]
    fn hostile_packets_are_breaches() {
        for bad in [&b""[..], b"z", b"r1234567", b"s\xff", b"eX"] {
            assert!(FromGate::take(Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }
}

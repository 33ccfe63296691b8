//! A typed end of a SOCK_SEQPACKET pair: one message a packet, its descriptors beside it.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;

use super::message::Message;
use crate::sys::watched::Watched;

/// The longest packet: an exec request of 64 KiB and its environment fit, a flood does not.
pub const LONGEST: usize = 128 * 1024;

thread_local! {
    /// Where packets arrive: fresh zeroed memory for each would cost more than the call.
    static PACKET: RefCell<Vec<u8>> = RefCell::new(vec![0; LONGEST]);
}

/// The most descriptors beside one packet.
const MOST_DESCRIPTORS: usize = 32;

/// Why a link is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other process is gone.
    #[error("the other end closed the link")]
    Closed,
    /// The peer said something that it may not say.
    #[error("breach of the protocol: {0}")]
    Breach(&'static str),
    #[error("the link failed")]
    Socket(#[source] io::Error),
}

/// A pair of ends, non-blocking, not inherited by what is executed.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Sends one packet; `WouldBlock` when the other end is behind.
pub fn send_packet(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_parts(socket, &[IoSlice::new(bytes)], descriptors)
}

fn send_parts(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
    }
    sendmsg(socket, parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet into `buffer`, which keeps its capacity; an empty packet is the end of the link.
pub fn recv_packet(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> Result<Vec<OwnedFd>, LinkError> {
    recv_at_most(socket, buffer, LONGEST)
}

fn recv_at_most(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>, longest: usize) -> Result<Vec<OwnedFd>, LinkError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = PACKET.with_borrow_mut(|packet| {
        let place = packet.get_mut(..longest).ok_or(Errno::INVAL)?;
        let got = recvmsg(socket, &mut [IoSliceMut::new(place)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        buffer.clear();
        buffer.extend_from_slice(place.get(..got.bytes).unwrap_or_default());
        Ok(got)
    });
    let got = got.map_err(|e: Errno| LinkError::Socket(e.into()))?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(LinkError::Breach("a packet longer than allowed"));
    }
    if buffer.is_empty() {
        return Err(LinkError::Closed);
    }
    Ok(descriptors)
}

/// The bytes of a message.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    // Writing into a Vec cannot fail; an empty packet would only end the link.
    minicbor::to_vec(message).unwrap_or_default()
}

/// A message from its bytes, with exactly the descriptors that belong to it and nothing behind it.
pub fn decode<M: Message>(bytes: &[u8], descriptors: usize) -> Result<M, LinkError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let message: M = decoder.decode().map_err(|_| LinkError::Breach("an unknown message"))?;
    if decoder.position() != bytes.len() {
        return Err(LinkError::Breach("bytes behind a message"));
    }
    if message.descriptors().is_some_and(|n| n != descriptors) {
        return Err(LinkError::Breach("a wrong number of descriptors"));
    }
    Ok(message)
}

/// An asynchronous packet socket.
#[derive(Debug)]
pub struct Packets(Watched);

impl Packets {
    /// Must be called inside the runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(Watched::new(socket)?))
    }

    pub async fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let sent = self.0.io(Interest::WRITABLE, |socket| send_packet(socket, bytes, descriptors)).await;
        sent.map_err(gone_or_broken)
    }

    /// One packet of a first byte and what follows it.
    pub async fn send_kind(&self, kind: u8, payload: &[u8]) -> Result<(), LinkError> {
        let kind = [kind];
        let parts = [IoSlice::new(&kind), IoSlice::new(payload)];
        let sent = self.0.io(Interest::WRITABLE, |socket| send_parts(socket, &parts, &[])).await;
        sent.map_err(gone_or_broken)
    }

    /// The next packet, of at most `longest` bytes.
    pub async fn recv(&self, buffer: &mut Vec<u8>, longest: usize) -> Result<Vec<OwnedFd>, LinkError> {
        let mut receive = |socket: BorrowedFd<'_>| match recv_at_most(socket, buffer, longest) {
            Err(LinkError::Socket(e)) => Err(e),
            done => Ok(done),
        };
        match self.0.io(Interest::READABLE, &mut receive).await {
            // A peer that died with packets unread: told once, ahead of the packets it had sent.
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                self.0.io(Interest::READABLE, receive).await.map_err(gone_or_broken)?
            }
            received => received.map_err(gone_or_broken)?,
        }
    }
}

fn gone_or_broken(error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => LinkError::Closed,
        _ => LinkError::Socket(error),
    }
}

/// One end of a link: sends `S`, receives `R`.
#[derive(Debug)]
pub struct Link<S, R> {
    packets: Packets,
    types: PhantomData<fn(S) -> R>,
}

impl<S: Message, R: Message> Link<S, R> {
    /// Takes a non-blocking end; must be called inside the runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { packets: Packets::new(socket)?, types: PhantomData })
    }

    /// A message that is longer than a packet is not sent, and that is said: it must not cost the link.
    pub async fn send(&self, message: &S) -> Result<(), LinkError> {
        let bytes = encode(message);
        if bytes.len() > LONGEST {
            tracing::error!(bytes = bytes.len(), "a message is longer than a packet may be, and is left out");
            return Ok(());
        }
        self.packets.send(&bytes, &[]).await
    }

    /// A message and its descriptors; they stay the caller's.
    pub async fn send_with(&self, message: &S, descriptors: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        let bytes = encode(message);
        if bytes.len() > LONGEST || message.descriptors().is_some_and(|n| n != descriptors.len()) {
            let what = std::io::Error::from(std::io::ErrorKind::InvalidInput);
            return Err(LinkError::Socket(what));
        }
        self.packets.send(&bytes, descriptors).await
    }

    /// The next message; one reader at a time.
    pub async fn recv(&self) -> Result<(R, Vec<OwnedFd>), LinkError> {
        let mut buffer = Vec::new();
        let descriptors = self.packets.recv(&mut buffer, LONGEST).await?;
        Ok((decode(&buffer, descriptors.len())?, descriptors))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::privsep::message::{GateToWarden, JailerToGate, WardenToGate};
    use crate::session::SessionId;

    #[tokio::test]
    async fn a_message_and_its_descriptors_arrive() {
        let (a, b) = pair().unwrap();
        let message = JailerToGate::Stream { session: SessionId::mint(), number: 1 };
        send_packet(a.as_fd(), &encode(&message), &[a.as_fd()]).unwrap();
        let link = Link::<GateToWarden, JailerToGate>::new(b).unwrap();
        let (JailerToGate::Stream { number, .. }, fds) = link.recv().await.unwrap();
        assert_eq!((number, fds.len()), (1, 1));
    }

    #[tokio::test]
    async fn what_is_unknown_or_has_the_wrong_descriptors_is_a_breach() {
        let message = encode(&WardenToGate::Login { connection: 1, accepted: true });
        let mut longer = message.clone();
        longer.push(0);
        for (bytes, fds) in [(&b"\xff"[..], 0), (&message[..], 1), (&longer[..], 0)] {
            assert!(matches!(decode::<WardenToGate>(bytes, fds), Err(LinkError::Breach(_))));
        }
    }

    #[tokio::test]
    async fn the_end_of_the_peer_is_the_end_of_the_link() {
        let (a, b) = pair().unwrap();
        drop(a);
        let link = Link::<GateToWarden, WardenToGate>::new(b).unwrap();
        assert!(matches!(link.recv().await, Err(LinkError::Closed)));
    }
}

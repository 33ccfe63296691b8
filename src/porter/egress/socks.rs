//! A wish in the words of SOCKS 5 (RFC 1928): CONNECT alone, and no authentication, for the door knows whose it is.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::door::HEADERS_WITHIN;
use super::admit::{Refusal, Why, admit};
use super::{Passage, Place, tell};
use crate::policy::egress::Target;

pub const VERSION: u8 = 5;

/// Methods of authentication: none, and that none of those offered will do.
const NONE: u8 = 0;
const NO_METHOD: u8 = 0xff;

/// Commands.
const CONNECT: u8 = 1;
const BIND: u8 = 2;
const UDP_ASSOCIATE: u8 = 3;

/// What kind of address follows.
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Read of whoever was refused, at most.
const FAREWELL: u64 = 16 * 1024;

/// RFC 1928, section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Reply {
    Succeeded = 0,
    Failure = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    NoSuchCommand = 7,
    NoSuchAddress = 8,
}

/// No wish.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    #[error("it ended before a whole SOCKS request")]
    Closed,
    #[error("it is not SOCKS 5")]
    Version,
    #[error("SOCKS without authentication is not among what is offered")]
    Method,
    #[error("SOCKS knows no such type of address")]
    Address(u8),
    /// With all that was asked for.
    #[error("this door takes CONNECT only, neither BIND nor UDP")]
    Command(String),
    #[error("no host has such a name, or no service such a port")]
    Target(String),
}

/// The passage and the jail's side of it. Nothing beyond the request was read.
pub async fn ask(mut stream: TcpStream, place: &Place) -> Option<(Passage, TcpStream, Vec<u8>)> {
    let wished = timeout(HEADERS_WITHIN, wish(&mut stream)).await.unwrap_or(Err(Bad::Closed));
    place.breathe().await;
    let target = match wished {
        Ok(target) => target,
        Err(bad) => {
            if let Some(asked) = bad.asked() {
                tell(&asked, &Refusal::new(Why::Unclear, bad.to_string()), place);
            }
            dismiss(stream, bad.reply()).await;
            return None;
        }
    };
    let asked = target.to_string();
    match admit(target, place).await {
        Ok(passage) => {
            stream.write_all(&answer(Reply::Succeeded)).await.ok()?;
            Some((passage, stream, Vec::new()))
        }
        Err(refusal) => {
            tell(&asked, &refusal, place);
            dismiss(stream, Some(reply(refusal.why))).await;
            None
        }
    }
}

/// Greets and reads a request. Its host and port are judged as the same text after CONNECT would be.
pub(super) async fn wish(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<Target, Bad> {
    let [version, methods] = take(stream).await?;
    let offered = take_many(stream, methods).await?;
    if version != VERSION {
        return Err(Bad::Version);
    }
    let method = if offered.contains(&NONE) { NONE } else { NO_METHOD };
    stream.write_all(&[VERSION, method]).await.map_err(|_| Bad::Closed)?;
    if method == NO_METHOD {
        return Err(Bad::Method);
    }
    let [version, command, _, kind] = take(stream).await?;
    if version != VERSION {
        return Err(Bad::Version);
    }
    let host = match kind {
        IPV4 => Ipv4Addr::from(take::<4>(stream).await?).to_string(),
        IPV6 => format!("[{}]", Ipv6Addr::from(take::<16>(stream).await?)),
        NAME => {
            let [length] = take(stream).await?;
            // What it escapes is in no name of a host.
            take_many(stream, length).await?.escape_ascii().to_string()
        }
        other => return Err(Bad::Address(other)),
    };
    let asked = format!("{host}:{}", u16::from_be_bytes(take(stream).await?));
    match command {
        CONNECT => asked.parse().map_err(|_| Bad::Target(asked)),
        BIND => Err(Bad::Command(format!("BIND {asked}"))),
        UDP_ASSOCIATE => Err(Bad::Command(format!("UDP ASSOCIATE {asked}"))),
        other => Err(Bad::Command(format!("SOCKS command {other}, {asked}"))),
    }
}

async fn take<const N: usize>(from: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], Bad> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).await.map_err(|_| Bad::Closed)?;
    Ok(bytes)
}

async fn take_many(from: &mut (impl AsyncRead + Unpin), length: u8) -> Result<Vec<u8>, Bad> {
    let mut bytes = vec![0; usize::from(length)];
    from.read_exact(&mut bytes).await.map_err(|_| Bad::Closed)?;
    Ok(bytes)
}

impl Bad {
    /// For the audit; who went away asked for nothing.
    fn asked(&self) -> Option<String> {
        match self {
            Self::Closed => None,
            Self::Version | Self::Method => Some("SOCKS".into()),
            Self::Address(kind) => Some(format!("SOCKS address type {kind}")),
            Self::Command(asked) | Self::Target(asked) => Some(asked.clone()),
        }
    }

    fn reply(&self) -> Option<Reply> {
        match self {
            // That no method will do has been said.
            Self::Closed | Self::Method => None,
            Self::Version => Some(Reply::Failure),
            Self::Address(_) => Some(Reply::NoSuchAddress),
            Self::Command(_) => Some(Reply::NoSuchCommand),
            Self::Target(_) => Some(Reply::NotAllowed),
        }
    }
}

/// SOCKS has no words beside the number, and this one shall not tell which names there are: what is missing is denied.
fn reply(why: Why) -> Reply {
    match why {
        Why::Denied | Why::Missing => Reply::NotAllowed,
        Why::Unreached => Reply::HostUnreachable,
        Why::NotYet | Why::Unclear | Why::Verb => Reply::Failure,
    }
}

/// The address of the bastion's own side, which RFC 1928 has room for, is nobody's business: 0.0.0.0:0.
fn answer(reply: Reply) -> [u8; 10] {
    [VERSION, reply as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]
}

/// Bytes that nobody reads would have the kernel reset the connection, and lose the reply. RFC 1928 gives 10 seconds.
async fn dismiss(mut stream: TcpStream, reply: Option<Reply>) {
    let farewell = async {
        if let Some(reply) = reply {
            stream.write_all(&answer(reply)).await?;
        }
        stream.shutdown().await?;
        copy(&mut stream.take(FAREWELL), &mut sink()).await
    };
    let _ = timeout(HEADERS_WITHIN, farewell).await;
}

#[cfg(test)]
mod tests;

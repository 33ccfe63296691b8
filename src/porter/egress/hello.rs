//! The first bytes of a connection: a TLS ClientHello, and the server it names. rustls parses it; nothing is answered.

use std::io;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// For the whole ClientHello, however many records and packets it comes in.
const WITHIN: Duration = Duration::from_secs(10);

/// With post-quantum keys and a session ticket it has some 4 KiB; RFC 8446 would allow far more.
const LONGEST: usize = 32 * 1024;

/// encrypted_client_hello (RFC 9849) and its forerunner, encrypted_server_name.
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// Why a connection does not go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHello {
    #[error("it is not TLS")]
    NotTls,
    #[error("no whole ClientHello came in time")]
    Late,
    #[error("its ClientHello is too long")]
    Long,
    #[error("TLS names no host")]
    Nameless,
    #[error("the name in TLS is encrypted")]
    Encrypted,
    #[error("TLS names another host: {0}")]
    Another(String),
    #[error("the jail closed it before a whole ClientHello")]
    Closed,
}

/// Reads until the ClientHello is whole; `first` is what was read already. Returns all bytes, to be sent on.
pub async fn read(from: &mut (impl AsyncRead + Unpin), first: Vec<u8>, name: &str) -> Result<Vec<u8>, NoHello> {
    timeout(WITHIN, read_whole(from, first, name)).await.unwrap_or(Err(NoHello::Late))
}

pub(super) async fn read_whole(
    from: &mut (impl AsyncRead + Unpin),
    first: Vec<u8>,
    name: &str,
) -> Result<Vec<u8>, NoHello> {
    let (mut bytes, mut acceptor, mut fed) = (first, Acceptor::default(), 0);
    loop {
        while let Some(more @ [_, ..]) = bytes.get(fed..) {
            fed += feed(&mut acceptor, more)?;
            if let Some(accepted) = acceptor.accept().map_err(|_| NoHello::NotTls)? {
                named(accepted.client_hello().server_name(), name)?;
                return if is_encrypted(&bytes).unwrap_or(true) { Err(NoHello::Encrypted) } else { Ok(bytes) };
            }
        }
        if bytes.len() >= LONGEST {
            return Err(NoHello::Long);
        }
        match from.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(NoHello::Closed),
            Ok(_) => {}
        }
    }
}

fn feed(acceptor: &mut Acceptor, mut bytes: &[u8]) -> Result<usize, NoHello> {
    match acceptor.read_tls(&mut bytes as &mut dyn io::Read) {
        Ok(0) | Err(_) => Err(NoHello::Long),
        Ok(fed) => Ok(fed),
    }
}

fn named(found: Option<&str>, name: &str) -> Result<(), NoHello> {
    let found = found.ok_or(NoHello::Nameless)?.to_ascii_lowercase();
    let found = found.strip_suffix('.').unwrap_or(&found);
    if found == name { Ok(()) } else { Err(NoHello::Another(found.to_owned())) }
}

/// Whether the hello hides a second name. rustls does not say; it has checked the lengths that are walked here.
fn is_encrypted(records: &[u8]) -> Option<bool> {
    let mut hello = Vec::new();
    let mut rest = records;
    // Handshake records only: what follows the hello in the same packet is not looked at.
    while let Some(([0x16, _, _, a, b], more)) = rest.split_first_chunk::<5>() {
        let (payload, more) = more.split_at_checked(usize::from(u16::from_be_bytes([*a, *b])))?;
        hello.extend_from_slice(payload);
        rest = more;
        if hello.get(1..).is_some_and(|body| skip::<3>(body).is_some()) {
            break;
        }
    }
    // type and length 4, version 2, random 32; then session id, cipher suites, compression methods, extensions
    let rest = hello.get(38..)?;
    let rest = skip::<1>(rest)?.1;
    let rest = skip::<2>(rest)?.1;
    let rest = skip::<1>(rest)?.1;
    let mut extensions = skip::<2>(rest)?.0;
    while let Some((kind, more)) = extensions.split_first_chunk::<2>() {
        if ENCRYPTED.contains(&u16::from_be_bytes(*kind)) {
            return Some(true);
        }
        extensions = skip::<2>(more)?.1;
    }
    Some(false)
}

/// A field behind its length of N bytes, and what follows it.
fn skip<const N: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<N>()?;
    rest.split_at_checked(length.iter().fold(0, |sum, b| sum << 8 | usize::from(*b)))
}

#[cfg(test)]
mod tests;

//! A role's first moments: its control socket, the configuration, what it holds.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, poll};

use super::link::{LinkError, decode, recv_packet};
use super::message::{FromJailer, Silence};

/// The place where the jailer leaves the control socket.
const CONTROL: i32 = 3;

/// More than a configuration or a host key has.
const LONGEST: usize = 1 << 20;

/// What a role starts with.
#[derive(Debug)]
pub struct Begun {
    pub control: OwnedFd,
    /// The configuration as the loader wrote it.
    pub configuration: Vec<u8>,
    pub held: Vec<OwnedFd>,
}

/// Why a role could not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    #[error("this is not for hands: `stockade serve` starts its own processes")]
    NotARole(#[source] std::io::Error),
    #[error("the jailer said nothing that a role begins with")]
    Jailer(#[source] LinkError),
    #[error("cannot read the configuration that the jailer gave")]
    Configuration(#[source] std::io::Error),
}

/// Waits for `Begin` on the control socket.
pub fn begin() -> Result<Begun, BeginError> {
    let control = crate::sys::exec::inherited(CONTROL).map_err(BeginError::NotARole)?;
    let mut packet = Vec::new();
    let mut held = loop {
        poll(&mut [PollFd::new(&control, PollFlags::IN)], None).map_err(|e| BeginError::NotARole(e.into()))?;
        match recv_packet(control.as_fd(), &mut packet) {
            Err(LinkError::Socket(e)) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            received => break received.map_err(BeginError::Jailer)?,
        }
    };
    match decode::<FromJailer<Silence>>(&packet, held.len()).map_err(BeginError::Jailer)? {
        FromJailer::Begin if !held.is_empty() => {}
        _ => return Err(BeginError::Jailer(LinkError::Breach("something before the beginning"))),
    }
    let configuration = read_sealed(held.remove(0)).map_err(BeginError::Configuration)?;
    Ok(Begun { control, configuration, held })
}

/// The bytes of a sealed file. Read by position: its copies share one offset, and other roles read at the same moment.
pub fn read_sealed(file: OwnedFd) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::from(file);
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while bytes.len() < LONGEST {
        match file.read_at(&mut part, bytes.len() as u64)? {
            0 => break,
            got => bytes.extend_from_slice(part.get(..got).unwrap_or_default()),
        }
    }
    Ok(bytes)
}
